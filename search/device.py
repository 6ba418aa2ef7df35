"""What a worker trains on: a GPU that it claims and tries, or the CPU."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from search.engines import has_jax_cuda
from search.errors import GpuError, GpuUnusedError
from search.events import Event, Notice
from search.gpu_probe import try_gpu, try_packs
from search.gpus import Gpu, has_cuda_libraries, is_hidden, list_gpus, select_visible
from search.runtime import NO_GPU, read_visible_devices
from trainer.state import EngineKind

if TYPE_CHECKING:
    from search.gpu_claims import Claim

DEVICES: Final = ("auto", "gpu", "cpu")
SINGLE: Final[tuple[EngineKind, ...]] = ("tensorflow",)
LIBRARIES: Final[Mapping[EngineKind, tuple[str, str]]] = {
    "tensorflow": ("TensorFlow", "tensorflow[and-cuda]"),
    "packed": ("JAX", "jax[cuda12]"),
}
"""What an engine trains with, and the package that brings it CUDA."""
ADVICE: Final = "--allow-cpu trains on the CPU then, --device cpu in any case"


@dataclass(frozen=True)
class DeviceWish:
    """What a worker may train on; travels to it.

    Attributes:
        device: One of `DEVICES`: "auto" is a GPU where the machine has one that this process may use and a
            TensorFlow for it, else the CPU; "gpu" is a GPU or an error.
        allow_cpu: Train on the CPU instead where no GPU can be had, for whatever reason.
        workers_per_gpu: How many workers may share a GPU, at least 1.
        locks: The folder of the claims, one for all workers of the machine; None for the default.
    """

    device: str = "auto"
    allow_cpu: bool = False
    workers_per_gpu: int = 1
    locks: Path | None = None


@dataclass(frozen=True)
class Device:
    """What a worker trains on.

    Attributes:
        claim: The place on a GPU, None for the CPU.
        jit_compile: Whether XLA is to compile TensorFlow's training.
        engine: What is to train there.
    """

    claim: "Claim | None" = None
    jit_compile: bool = False
    engine: EngineKind = "tensorflow"

    @property
    def gpu(self) -> Gpu | None:
        """The GPU, None for the CPU."""
        return None if self.claim is None else self.claim.gpu

    @property
    def visible(self) -> str:
        """What CUDA_VISIBLE_DEVICES is to be."""
        return NO_GPU if self.claim is None else self.claim.gpu.uuid


def take_device(
    wish: DeviceWish,
    precision: str,
    emit: Callable[[Event], None],
    must_stop: Callable[[], bool],
    engines: Sequence[EngineKind] = SINGLE,
) -> Device | None:
    """Claim a GPU and try it; the claim holds until this process ends.

    Args:
        wish: What it may be.
        precision: What will be trained in, as `trainer.precision.choose_precision` takes it.
        emit: Told which GPU it is, and why it is none where one might be expected.
        must_stop: Asked several times a second while the GPU is tried.
        engines: What may train, the best first. Packs that are not the only choice are for GPUs alone.

    Returns:
        The device; None when told to stop.

    Raises:
        GpuError: No GPU can be had, or it does not work, and the CPU is not wished for instead.
    """
    with _cpu_instead(wish, lambda text: emit(Notice(text))):
        gpus, found = _usable_gpus(wish, engines)
        if gpus:
            return _take_gpu(gpus, wish, precision, emit, must_stop, found)
    return Device(engine=engines[-1])


def count_free_slots(
    wish: DeviceWish,
    workers: int | None,
    tell: Callable[[str], None],
    engines: Sequence[EngineKind] = SINGLE,
) -> int:
    """How many workers can start on this machine's GPUs now; 0 where they are to train on the CPU.

    Args:
        wish: What each may train on.
        workers: How many are asked for; None for as many as there is room for.
        tell: Told, in a line, why they train on the CPU where a GPU might be expected.
        engines: As for `take_device`.

    Raises:
        GpuError: As for `take_device`, but no GPU is tried; or fewer slots are free than workers asked for.
    """
    with _cpu_instead(wish, tell):
        gpus, _ = _usable_gpus(wish, engines)
        if gpus:
            from search.gpu_claims import count_free

            free = count_free(gpus, wish.workers_per_gpu, wish.locks)
            if free == 0:
                raise GpuError(f"other workers have {_describe_room(gpus, wish)}")
            if workers is not None and workers > free and not wish.allow_cpu:
                raise GpuError(
                    f"{workers} workers want a place on a GPU each, {free} free of "
                    f"{_describe_room(gpus, wish)}"
                )
            return free
    return 0


@contextmanager
def _cpu_instead(wish: DeviceWish, tell: Callable[[str], None]) -> Iterator[None]:
    """Let what comes after the block, training on the CPU, follow on an error where that is wished for."""
    try:
        yield
    except GpuError as error:
        if not wish.allow_cpu and not (isinstance(error, GpuUnusedError) and wish.device == "auto"):
            raise type(error)(f"{error}; {ADVICE}") from error
        tell(f"training on the CPU: {error}")


def _usable_gpus(wish: DeviceWish, engines: Sequence[EngineKind]) -> tuple[list[Gpu], list[EngineKind]]:
    """Those to claim one of, and the engines that can use them.

    None for the CPU, without a word on a machine that has none.
    """
    if wish.device == "cpu":
        return [], []
    gpus = list_gpus()
    if not gpus:
        if wish.device == "gpu":
            raise GpuUnusedError("no GPU here: nvidia-smi is not installed or lists none")
        return [], []
    visible = read_visible_devices()
    if is_hidden(visible):
        raise GpuUnusedError(f"CUDA_VISIBLE_DEVICES={visible!r} hides the {_count(gpus)} of this machine")
    usable = select_visible(gpus, visible)
    if not usable:
        raise GpuError(f"CUDA_VISIBLE_DEVICES={visible!r} names none of {', '.join(map(str, gpus))}")
    found = [engine for engine in engines if _has_libraries(engine)]
    if not found:
        library, package = LIBRARIES[engines[-1]]
        raise GpuUnusedError(
            f"{library} has no CUDA libraries here for {', '.join(map(str, usable))} "
            f"(pip install '{package}' brings them)"
        )
    return usable, found


def _has_libraries(engine: EngineKind) -> bool:
    return has_jax_cuda() if engine == "packed" else has_cuda_libraries()


def _take_gpu(
    gpus: list[Gpu],
    wish: DeviceWish,
    precision: str,
    emit: Callable[[Event], None],
    must_stop: Callable[[], bool],
    engines: Sequence[EngineKind],
) -> Device | None:
    # It needs locks that Windows has not, and neither has it a TensorFlow with GPUs.
    from search.gpu_claims import claim_slot

    claim = claim_slot(gpus, wish.workers_per_gpu, wish.locks)
    if claim is None:
        raise GpuError(f"other workers have {_describe_room(gpus, wish)}")
    try:
        device = _try_engines(claim, precision, emit, must_stop, engines)
    except BaseException:
        claim.release()
        raise
    if device is None:
        claim.release()
    return device


def _try_engines(
    claim: "Claim",
    precision: str,
    emit: Callable[[Event], None],
    must_stop: Callable[[], bool],
    engines: Sequence[EngineKind],
) -> Device | None:
    """The claimed GPU with the first engine that works on it; None when told to stop."""
    if engines[0] == "packed":
        try:
            works = try_packs(claim.gpu, precision, emit, must_stop)
        except GpuError as error:
            if len(engines) == 1:
                raise
            emit(Notice(f"{error}; training one trial at a time"))
        else:
            if not works:
                return None
            emit(Notice(f"training on {claim.gpu}, several trials in a program"))
            return Device(claim, engine="packed")
    jit_compile = try_gpu(claim.gpu, precision, emit, must_stop)
    if jit_compile is None:
        return None
    emit(Notice(f"training on {claim.gpu}{', with XLA' if jit_compile else ''}"))
    return Device(claim, jit_compile)


def _describe_room(gpus: list[Gpu], wish: DeviceWish) -> str:
    places = len(gpus) * wish.workers_per_gpu
    return (
        f"the {places} place{'' if places == 1 else 's'} on the {_count(gpus)} of this machine "
        f"(--workers-per-gpu is {wish.workers_per_gpu})"
    )


def _count(gpus: list[Gpu]) -> str:
    return "GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
