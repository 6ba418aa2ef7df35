"""Whether a GPU works, tried in a process of its own: a failure in CUDA, cuDNN or XLA can end its process."""

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Final

from search.errors import GpuError
from search.events import Event, Notice
from search.gpus import Gpu

if TYPE_CHECKING:
    from trainer.cifar10 import Split
    from trainer.recipe import Recipe

TRY_SECONDS: Final = 2400.0
"""How long a try may take: TensorFlow announces half an hour for a GPU newer than itself, whose kernels the
driver compiles at their first use and keeps (CUDA_CACHE_PATH)."""
SILENT_SECONDS: Final = 20.0
"""After so long it is said what is waited for."""
REASON_LENGTH: Final = 300
NOT_FINITE: Final = "its losses or weights are no finite numbers"
TELLING: Final = re.compile(r"error|fail|cannot|could not|unable|invalid", re.IGNORECASE)
"""What a line of a log has that tells a reason."""
PREFIX: Final = re.compile(r"^[-\d:. IWEF]*\S+\.cc:\d+\] ")
"""What TensorFlow's log puts before a message: time, level, thread, place."""
SCRIPT: Final = """
import ctypes, os, signal, sys
# The end of its worker is its own (prctl(2), PR_SET_PDEATHSIG).
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
# What TensorFlow warns of is the reason of what fails then.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"
from search import gpu_probe
if sys.argv[3] == "packs":
    gpu_probe.train_a_little_pack(sys.argv[1], sys.argv[2])
else:
    gpu_probe.train_a_little(sys.argv[1], sys.argv[2], jit_compile=sys.argv[3] == "xla")
"""


class _Stopped(Exception):
    """Nobody waits for the result any more."""


def try_gpu(
    gpu: Gpu, precision: str, emit: Callable[[Event], None], must_stop: Callable[[], bool]
) -> bool | None:
    """Train two small batches on `gpu`, with XLA; where that fails, once more without.

    Args:
        gpu: The GPU, claimed.
        precision: As `trainer.precision.choose_precision` takes it.
        emit: Told why XLA is not used, and that a try takes long.
        must_stop: Asked several times a second; true ends the try.

    Returns:
        Whether XLA works; None when told to stop.

    Raises:
        GpuError: The GPU does not work without XLA either.
    """
    try:
        with_xla = _try(gpu, precision, "xla", emit, must_stop)
        if not with_xla:
            return True
        without = _try(gpu, precision, "plain", emit, must_stop)
    except _Stopped:
        return None
    if without:
        raise GpuError(f"{gpu} does not work: {without}")
    emit(Notice(f"{gpu}: XLA does not work ({with_xla}); training without it, which is slower"))
    return False


def try_packs(gpu: Gpu, precision: str, emit: Callable[[Event], None], must_stop: Callable[[], bool]) -> bool:
    """Train two small batches of two trials in one program on `gpu`; arguments as `try_gpu` has them.

    Returns:
        Whether it works; False when told to stop.

    Raises:
        GpuError: It does not work.
    """
    try:
        reason = _try(gpu, precision, "packs", emit, must_stop)
    except _Stopped:
        return False
    if reason:
        raise GpuError(f"{gpu} does not work with JAX: {reason}")
    return True


def train_a_little(uuid: str, precision: str, *, jit_compile: bool) -> None:
    """Train one epoch of two batches, of 64 images and of one, on that GPU: the whole process of a try.

    Args:
        uuid: The GPU's.
        precision: As `trainer.precision.choose_precision` takes it.
        jit_compile: Whether XLA is to compile the steps.

    Raises:
        SystemExit: It does not work; the message is the reason in one line.
    """
    from search.runtime import start_tensorflow

    try:
        start_tensorflow(1, uuid)
        from trainer.precision import choose_precision
        from trainer.training import Trainer

        recipe, split = _draw_little()
        trainer = Trainer(split, split.first(10), choose_precision(precision), jit_compile=jit_compile)
        result = trainer.train(recipe)
    # Whatever it is, it is the answer; and the traceback of a compiler is long.
    except Exception as error:  # noqa: BLE001
        raise SystemExit(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
    if result.status != "finished":
        raise SystemExit(NOT_FINITE)


def train_a_little_pack(uuid: str, precision: str) -> None:
    """Train one such epoch of two trials in a pack: the whole process of a try.

    Args:
        uuid: The GPU's.
        precision: As `trainer.packed.device.choose_pack_precision` takes it.

    Raises:
        SystemExit: It does not work; the message is the reason in one line.
    """
    from search.runtime import start_jax

    try:
        start_jax(uuid)
        from trainer.packed.device import PackData, choose_pack_precision
        from trainer.packed.pack import Pack, PackKey

        recipe, split = _draw_little()
        data = PackData.of(split, split.first(10))
        pack = Pack(PackKey.of(recipe), 2, data, choose_pack_precision(precision))
        for slot in range(pack.slots):
            pack.load(slot, pack.begin(recipe))
        epochs = pack.run_epoch()
    # As above.
    except Exception as error:  # noqa: BLE001
        raise SystemExit(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
    if not all(epoch.is_finite for epoch in epochs.values()):
        raise SystemExit(NOT_FINITE)


def _draw_little() -> "tuple[Recipe, Split]":
    """The article's recipe for an epoch, and a batch and an image of noise to train on."""
    import numpy as np

    from trainer.cifar10 import Split
    from trainer.recipe import Recipe

    recipe, draw = Recipe(epochs=1), np.random.default_rng(0)
    images = draw.integers(0, 256, (recipe.batch_size + 1, 32, 32, 3), np.uint8)
    return recipe, Split(images, draw.integers(0, 10, len(images), np.uint8))


def _try(
    gpu: Gpu, precision: str, how: str, emit: Callable[[Event], None], must_stop: Callable[[], bool]
) -> str:
    """Run a try; empty where it works, else the reason in one line."""
    command = [sys.executable, "-P", "-c", SCRIPT, gpu.uuid, precision, how]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        began, told = time.monotonic(), False
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                if must_stop():
                    raise _Stopped
                waited = time.monotonic() - began
                if waited > TRY_SECONDS:
                    return f"a tiny batch was not trained within {TRY_SECONDS:.0f} s"
                if waited > SILENT_SECONDS and not told:
                    told = True
                    emit(Notice(f"{gpu}: trying it; the first time, its kernels may have to be compiled"))
        finally:
            process.kill()
            # A process that hangs in a driver does not end when killed.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
        return _reason(process.returncode, log)


def _reason(code: int, log: IO[bytes]) -> str:
    """What a try came to: empty for exit code 0, else how it ended and what it said last."""
    if code == 0:
        return ""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    if code > 0 and lines and not lines[-1].startswith(GpuError.__name__):
        return lines[-1][:REASON_LENGTH]
    ended = f"its process was ended by {signal.Signals(-code).name}" if code < 0 else ""
    if code > 0:
        ended = lines.pop() if lines else f"its process ended with exit code {code}"
    # Why TensorFlow sees no GPU, or why it ended, is in its log, if anywhere.
    logged = [PREFIX.sub("", line) for line in lines if TELLING.search(line)]
    return "; ".join([ended, *logged[-1:]])[:REASON_LENGTH]
