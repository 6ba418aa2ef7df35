"""What a machine offers to a search, and TensorFlow's start in a process."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

CORES_PER_WORKER: Final = 4
"""Cores that one worker's steps still keep busy; an estimate."""


def count_cores() -> int:
    """Cores that this process may use, which a container or `taskset` can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Layout:
    """How a machine's cores are shared: worker processes, and the threads that TensorFlow has in each."""

    workers: int
    threads: int


def choose_layout(cores: int, workers: int | None = None) -> Layout:
    """Share `cores` among `workers`, or among as many as serve best.

    Fewer trials at once let the sampler learn sooner, but steps of 64 small images give few threads enough to
    do: a machine of many cores gets a worker for every four. `benchmarks/workers.py` compares layouts.

    Args:
        cores: At least 1.
        workers: How many, at least 1; None to choose.
    """
    chosen = max(1, cores // CORES_PER_WORKER) if workers is None else workers
    return Layout(chosen, max(1, cores // chosen))


def start_tensorflow(threads: int | None = None) -> None:
    """Import TensorFlow and Keras; call before any module that imports them.

    Args:
        threads: How many threads an operation may use; None for one for each core.
    """
    with _stderr_held_back():
        # Keras takes its backend from the environment, where another project's choice may stand.
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        # One program for each optimizer is meant; TensorFlow takes the fifth for a mistake and warns.
        tf.get_logger().setLevel("ERROR")
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        # The first use of a device is what logs most.
        tf.zeros([]).numpy()


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
