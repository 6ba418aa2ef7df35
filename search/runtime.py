"""What a machine offers to a search, and TensorFlow's start in a process."""

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from search.errors import GpuError
from trainer.architecture import Architecture

MOST_WORKERS: Final = 8
"""More trials at once than these, and the sampler learns too late; an estimate."""
WORKER_BYTES: Final = 1_500_000_000
"""Memory to have for each worker: its peak of 1.0 GB (docs/speed.md) and room for the system's caches."""
LARGE_WORKER_BYTES: Final = 2_500_000_000
"""The same where a space has larger networks than the article's: a peak of 1.8 GB with the largest."""
ARTICLE_PARAMETERS: Final = Architecture().count_parameters()
NO_GPU: Final = "-1"
"""CUDA_VISIBLE_DEVICES for a process that trains on the CPU: CUDA ignores all after an index that is none."""
CONTROL_GROUP: Final = "sys/fs/cgroup"
"""Where a container sees the limits set on it (cgroup v2)."""


def count_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1: `taskset` and a container can allow fewer than there are.

    A container's share of time (`docker run --cpus 1.5`) is rounded up to whole cores.

    Args:
        root: Where Linux's sys is.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (root / CONTROL_GROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def read_processor(root: Path = Path("/")) -> str | None:
    """The first processor's name as Linux knows it; None where it does not say (other systems, Arm).

    Args:
        root: Where Linux's proc is.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def read_free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that new processes may take, within what a container allows; None where the system does not tell.

    Args:
        root: Where Linux's proc and sys are.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    group = root / CONTROL_GROUP
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        # Of what counts as used, this the kernel drops before it refuses anybody memory.
        lines = (group / "memory.stat").read_text().splitlines()
        used -= next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    except OSError:
        return free
    return free if limit == "max" else min(free, max(int(limit) - used, 0))


@dataclass(frozen=True)
class Layout:
    """How a machine's cores are shared: worker processes, and the threads that TensorFlow has in each."""

    workers: int
    threads: int


def choose_layout(
    cores: int,
    workers: int | None = None,
    memory_bytes: int | None = None,
    gpu_slots: int = 0,
    parameters: int = ARTICLE_PARAMETERS,
) -> Layout:
    """Share `cores` among `workers`, or among as many as serve best.

    Steps of 64 small images give a second thread too little to do: on two cores two workers of one thread
    train 1.2 to 1.4 times as many steps as one worker of two (`benchmarks/workers.py`, docs/speed.md). So
    there is a worker for each core, as far as memory and `MOST_WORKERS` go; or, on GPUs, one for each
    place on them, as far as memory goes.

    Args:
        cores: At least 1.
        workers: How many, at least 1; None to choose.
        memory_bytes: What is free; None for unknown.
        gpu_slots: How many workers can have a GPU; 0 where they train on the CPU.
        parameters: Of the largest network to be trained.
    """
    most = gpu_slots or min(cores, MOST_WORKERS)
    each = LARGE_WORKER_BYTES if parameters > ARTICLE_PARAMETERS else WORKER_BYTES
    room = most if memory_bytes is None else memory_bytes // each
    chosen = max(1, min(most, room)) if workers is None else workers
    return Layout(chosen, max(1, cores // chosen))


def read_visible_devices() -> str | None:
    """CUDA_VISIBLE_DEVICES, the GPUs that a user or a scheduler leaves to this process; None where unset."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def start_jax(gpu: str) -> None:
    """Start JAX; call before anything is computed by it. Keras may have imported it.

    Args:
        gpu: UUID of the only GPU to use, or `NO_GPU`.

    Raises:
        GpuError: JAX does not see that GPU.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # Otherwise JAX takes three quarters of the GPU's memory, and a second worker finds none.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from trainer.packed.device import find_devices

    try:
        find_devices("cpu" if gpu == NO_GPU else "cuda")
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise GpuError(f"JAX does not see the GPU {gpu}: {reason}") from error


def start_tensorflow(threads: int | None = None, gpu: str | None = None, *, hides_gpu: bool = False) -> None:
    """Import TensorFlow and Keras; call before any module that imports them.

    Args:
        threads: How many threads an operation may use; None for one for each core.
        gpu: UUID of the only GPU to use, or `NO_GPU`; None for those of CUDA_VISIBLE_DEVICES.
        hides_gpu: Whether the GPU is for others in this process, and TensorFlow uses the CPU.

    Raises:
        GpuError: TensorFlow does not see that GPU; what it logs about it is on stderr.
    """
    with _stderr_held_back():
        # Keras takes its backend from the environment, where another project's choice may stand.
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if gpu is not None:
            # CUDA reads it once, when TensorFlow first looks for GPUs.
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        with _hidden("matplotlib"):
            import tensorflow as tf

        # One program for each optimizer is meant; TensorFlow takes the fifth for a mistake and warns.
        tf.get_logger().setLevel("ERROR")
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        if hides_gpu:
            tf.config.set_visible_devices([], "GPU")
        devices = tf.config.get_visible_devices("GPU")
        if not hides_gpu and gpu not in (None, NO_GPU) and not devices:
            raise GpuError(f"TensorFlow {tf.__version__} does not see the GPU {gpu}")
        for device in devices:
            # Otherwise TensorFlow takes all the memory there is, and a second worker finds none.
            tf.config.experimental.set_memory_growth(device, True)
        # The first use of a device is what logs most.
        tf.zeros([]).numpy()


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let imports of a package fail as if it were not installed, unless it is imported already.

    Keras imports all of matplotlib, if there is one, for functions that nobody calls here: 25 MB and half a
    second for each worker (Keras 3.15).
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how Python notes that there is none
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Hold back what native code writes to stderr, and show it when the block fails.

    TensorFlow writes a dozen lines about oneDNN and missing GPUs before its own log level takes effect.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(real, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
