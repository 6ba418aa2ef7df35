"""search.device: the CPU or a GPU, by what is wished for and what there is; GPUs faked, claims real."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from gpu_machine import LISTING

from search import device
from search.device import SINGLE, DeviceWish, count_free_slots, take_device
from search.errors import GpuError, GpuUnusedError
from search.events import Event, Notice
from search.gpu_claims import claim_slot, count_free
from search.gpus import Gpu, parse_list
from search.runtime import NO_GPU
from trainer.state import EngineKind

GPUS = parse_list(LISTING)
NAME = "NVIDIA H100 80GB HBM3 (GPU-aaaaaaaa)"
"""The first one's."""
PACKED: tuple[EngineKind, ...] = ("packed",)
BEST: tuple[EngineKind, ...] = ("packed", "tensorflow")
"""What `--engine auto` comes to where JAX is installed."""


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """The folder of the claims."""
    return tmp_path / "locks"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Fake a machine: its GPUs, or how nvidia-smi fails, what is visible, and what tries come to."""

    def fake(
        gpus: list[Gpu] | GpuError = GPUS,
        visible: str | None = None,
        libraries: bool = True,
        verdict: bool | GpuError | None = True,
        jax_libraries: bool = True,
        packed_verdict: bool | GpuError = True,
    ) -> None:
        def give(value: Any) -> Any:
            if isinstance(value, GpuError):
                raise value
            return value

        monkeypatch.setattr(device, "list_gpus", lambda: give(gpus))
        monkeypatch.setattr(device, "read_visible_devices", lambda: visible)
        monkeypatch.setattr(device, "has_cuda_libraries", lambda: libraries)
        monkeypatch.setattr(device, "has_jax_cuda", lambda: jax_libraries)
        monkeypatch.setattr(device, "try_gpu", lambda *_: give(verdict))
        monkeypatch.setattr(device, "try_packs", lambda *_: give(packed_verdict))

    return fake


@pytest.fixture
def notices() -> list[str]:
    """What was told."""
    return []


@pytest.fixture
def take(locks: Path, notices: list[str]) -> Callable[..., device.Device | None]:
    """Take a device by that wish, for these engines."""

    def run(engines: Sequence[EngineKind] = SINGLE, **wish: Any) -> device.Device | None:
        return take_device(DeviceWish(locks=locks, **wish), "auto", telling(notices), lambda: False, engines)

    return run


def telling(notices: list[str]) -> Callable[[Event], None]:
    """Keeps the text of each event, all of which are notices."""

    def emit(event: Event) -> None:
        assert isinstance(event, Notice)
        notices.append(event.text)

    return emit


Take = Callable[..., device.Device | None]
Machine = Callable[..., None]


def test_a_worker_has_a_gpu_of_its_own(take: Take, machine: Machine, notices: list[str], locks: Path) -> None:
    """CUDA is to see that one alone; the next worker has the other one."""
    machine()

    first, second = take(), take()

    assert first is not None and second is not None
    assert (first.gpu, first.visible, first.jit_compile) == (GPUS[0], GPUS[0].uuid, True)
    assert second.gpu == GPUS[1]
    assert notices == [
        "training on NVIDIA H100 80GB HBM3 (GPU-aaaaaaaa), with XLA",
        "training on NVIDIA H100 80GB HBM3 (GPU-aaaabbbb), with XLA",
    ]
    assert count_free(GPUS, 1, locks) == 0


def test_a_gpu_without_xla_is_used_without_it(take: Take, machine: Machine, notices: list[str]) -> None:
    """As the try came to."""
    machine(verdict=False)
    taken = take()
    assert taken is not None
    assert (taken.gpu, taken.jit_compile) == (GPUS[0], False)
    assert notices == ["training on NVIDIA H100 80GB HBM3 (GPU-aaaaaaaa)"]


def test_the_cpu_is_taken_without_a_look_at_gpus(take: Take, machine: Machine, notices: list[str]) -> None:
    """Where it is asked for; TensorFlow is to see no GPU either."""
    machine(GpuError("nobody asked"))
    taken = take(device="cpu")
    assert taken is not None
    assert (taken.gpu, taken.visible, taken.jit_compile) == (None, NO_GPU, False)
    assert notices == []


def test_a_machine_without_gpus_trains_on_its_cpu(take: Take, machine: Machine, notices: list[str]) -> None:
    """Without a word, unless a GPU was asked for, which is an error, or told of where the CPU is allowed."""
    machine(gpus=[])
    taken = take()
    assert taken is not None and taken.gpu is None
    assert notices == []

    with pytest.raises(GpuUnusedError, match=r"no GPU here: .*; --allow-cpu trains on the CPU"):
        take(device="gpu")
    assert notices == []

    taken = take(device="gpu", allow_cpu=True)
    assert taken is not None and taken.gpu is None
    assert notices == ["training on the CPU: no GPU here: nvidia-smi is not installed or lists none"]


@pytest.mark.parametrize(
    ("fakes", "words"),
    [
        ({"visible": ""}, "CUDA_VISIBLE_DEVICES='' hides the 2 GPUs of this machine"),
        ({"visible": "-1"}, "CUDA_VISIBLE_DEVICES='-1' hides the 2 GPUs of this machine"),
        (
            {"libraries": False},
            "TensorFlow has no CUDA libraries here for NVIDIA H100 80GB HBM3 (GPU-aaaaaaaa)",
        ),
    ],
)
def test_gpus_that_are_not_for_this_process_are_left_alone(
    take: Take, machine: Machine, notices: list[str], fakes: dict[str, Any], words: str
) -> None:
    """Nothing is broken: the CPU is used, and it is told why; who insists on a GPU gets an error."""
    machine(**fakes, verdict=GpuError("not to be tried"))
    taken = take()
    assert taken is not None and taken.gpu is None
    (notice,) = notices
    assert notice.startswith(f"training on the CPU: {words}")
    with pytest.raises(GpuError) as refused:
        take(device="gpu")
    assert str(refused.value).startswith(words)
    assert str(refused.value).endswith(device.ADVICE)


@pytest.mark.parametrize(
    ("fakes", "words"),
    [
        ({"gpus": GpuError("nvidia-smi -L failed")}, "nvidia-smi -L failed"),
        (
            {"visible": "7"},
            "CUDA_VISIBLE_DEVICES='7' names none of "
            "NVIDIA H100 80GB HBM3 (GPU-aaaaaaaa), NVIDIA H100 80GB HBM3 (GPU-aaaabbbb)",
        ),
        ({"verdict": GpuError("Card does not work: it is hot")}, "Card does not work: it is hot"),
    ],
)
@pytest.mark.parametrize("wish", ["auto", "gpu"])
def test_what_is_broken_is_an_error_unless_the_cpu_is_allowed(
    take: Take,
    machine: Machine,
    notices: list[str],
    locks: Path,
    fakes: dict[str, Any],
    words: str,
    wish: str,
) -> None:
    """Nobody trains for days on a CPU by mistake; whatever was claimed is free again."""
    machine(**fakes)
    with pytest.raises(GpuError) as failed:
        take(device=wish)
    assert str(failed.value) == f"{words}; {device.ADVICE}"
    assert notices == []

    taken = take(device=wish, allow_cpu=True)
    assert taken is not None
    assert (taken.gpu, taken.visible) == (None, NO_GPU)
    assert notices == [f"training on the CPU: {words}"]
    assert count_free(GPUS, 1, locks) == 2


def test_only_visible_gpus_are_claimed(take: Take, machine: Machine) -> None:
    """What a scheduler gives to others is theirs."""
    machine(visible="GPU-aaaabbbb")
    taken = take()
    assert taken is not None
    assert taken.gpu == GPUS[1]
    with pytest.raises(GpuError, match=r"other workers have the 1 place on the GPU of this machine"):
        take()


def test_where_all_places_are_taken_it_is_said(take: Take, machine: Machine, notices: list[str]) -> None:
    """With how many there are, and by which option there could be more."""
    machine()
    held = [take(workers_per_gpu=2) for _ in range(4)]
    assert [one.gpu for one in held if one is not None] == [*GPUS, *GPUS]
    notices.clear()

    with pytest.raises(GpuError) as refused:
        take(workers_per_gpu=2)

    words = "other workers have the 4 places on the 2 GPUs of this machine (--workers-per-gpu is 2)"
    assert str(refused.value) == f"{words}; {device.ADVICE}"
    taken = take(workers_per_gpu=2, allow_cpu=True)
    assert taken is not None and taken.gpu is None
    assert notices == [f"training on the CPU: {words}"]


def test_a_worker_that_is_stopped_while_it_tries_takes_nothing(
    take: Take, machine: Machine, notices: list[str], locks: Path
) -> None:
    """It is to end, not to train on the CPU."""
    machine(verdict=None)
    assert take(allow_cpu=True) is None
    assert notices == []
    assert count_free(GPUS, 1, locks) == 2


@pytest.fixture
def count(locks: Path, notices: list[str]) -> Callable[..., int]:
    """Count the places for workers by that wish, for these engines."""

    def run(workers: int | None = None, engines: Sequence[EngineKind] = SINGLE, **wish: Any) -> int:
        return count_free_slots(DeviceWish(locks=locks, **wish), workers, notices.append, engines)

    return run


def test_a_run_has_a_worker_for_each_free_place(
    count: Callable[..., int], machine: Machine, locks: Path
) -> None:
    """On each GPU as many as may share it; those of other workers are theirs."""
    machine()
    assert (count(), count(workers_per_gpu=3), count(2), count(workers=5, workers_per_gpu=3)) == (2, 6, 2, 6)
    held = claim_slot(GPUS, 1, locks)
    assert held is not None
    assert (count(), count(workers_per_gpu=3)) == (1, 5)
    held.release()


def test_a_run_on_the_cpu_has_no_places(
    count: Callable[..., int], machine: Machine, notices: list[str]
) -> None:
    """For the same reasons as a worker, told in the same words."""
    machine()
    assert count(device="cpu") == 0
    machine(gpus=[])
    assert count(8) == 0
    assert notices == []
    machine(libraries=False)
    assert count() == 0
    assert len(notices) == 1


def test_a_run_that_wants_more_places_than_are_free_is_refused(
    count: Callable[..., int], machine: Machine, locks: Path
) -> None:
    """Before it starts workers of which some would fail, unless those may train on the CPU."""
    machine()
    with pytest.raises(
        GpuError, match="3 workers want a place on a GPU each, 2 free of the 2 places on the 2 "
    ):
        count(3)
    assert count(3, allow_cpu=True) == 2

    held = [claim_slot(GPUS, 1, locks) for _ in GPUS]
    with pytest.raises(GpuError, match="other workers have the 2 places"):
        count()
    assert count(allow_cpu=True) == 0
    for one in held:
        assert one is not None
        one.release()


def test_a_folder_for_claims_that_cannot_be_used_is_an_error(
    machine: Machine, tmp_path: Path, notices: list[str]
) -> None:
    """Without claims, all workers would share the first GPU."""
    machine()
    (tmp_path / "file").touch()
    with pytest.raises(GpuError, match="cannot be used: Not a directory"):
        take_device(DeviceWish(locks=tmp_path / "file"), "auto", telling(notices), lambda: False)


@pytest.mark.parametrize("engines", [PACKED, BEST])
def test_packs_have_a_gpu_that_works_with_them(
    take: Take, machine: Machine, notices: list[str], engines: Sequence[EngineKind]
) -> None:
    """Nothing else is tried, and TensorFlow needs no CUDA of its own."""
    machine(libraries=False, verdict=GpuError("nobody asked"))
    taken = take(engines)
    assert taken is not None
    assert (taken.gpu, taken.visible, taken.engine) == (GPUS[0], GPUS[0].uuid, "packed")
    assert notices == [f"training on {NAME}, several trials in a program"]


@pytest.mark.parametrize(
    ("fakes", "told"),
    [
        ({"jax_libraries": False, "packed_verdict": GpuError("nobody asked")}, []),
        (
            {"packed_verdict": GpuError(f"{NAME} does not work with JAX: it is old")},
            [f"{NAME} does not work with JAX: it is old; training one trial at a time"],
        ),
    ],
)
def test_where_packs_do_not_work_on_a_gpu_single_trials_do(
    take: Take, machine: Machine, notices: list[str], locks: Path, fakes: dict[str, Any], told: list[str]
) -> None:
    """On the same GPU, unless it is packs that were asked for; then it is free again."""
    machine(**fakes)
    taken = take(BEST)
    assert taken is not None
    assert (taken.gpu, taken.engine, taken.jit_compile) == (GPUS[0], "tensorflow", True)
    assert notices == [*told, f"training on {NAME}, with XLA"]

    with pytest.raises(GpuError) as refused:
        take(PACKED, device="gpu")
    assert str(refused.value).endswith(device.ADVICE)
    assert count_free(GPUS, 1, locks) == 1


def test_a_gpu_that_works_with_neither_engine_is_an_error(
    take: Take, machine: Machine, notices: list[str], locks: Path
) -> None:
    """By the last one's reason; the first one's was told."""
    machine(verdict=GpuError("it is hot"), packed_verdict=GpuError("no JAX"))
    with pytest.raises(GpuError, match="it is hot; --allow-cpu"):
        take(BEST)
    assert notices == ["no JAX; training one trial at a time"]
    assert count_free(GPUS, 1, locks) == 2


def test_packs_that_were_not_asked_for_stay_off_the_cpu(
    take: Take, machine: Machine, notices: list[str]
) -> None:
    """XLA is slow there; who asks for them gets them."""
    machine(gpus=[])
    for engines, engine in ((BEST, "tensorflow"), (PACKED, "packed")):
        for wish in ("auto", "cpu"):
            taken = take(engines, device=wish)
            assert taken is not None
            assert (taken.gpu, taken.visible, taken.engine) == (None, NO_GPU, engine)
    assert notices == []


@pytest.mark.parametrize(
    ("engines", "words"),
    [
        (PACKED, ("JAX has no CUDA libraries here for", "jax[cuda12]")),
        (BEST, ("TensorFlow has no CUDA libraries here for", "tensorflow[and-cuda]")),
    ],
)
def test_gpus_that_no_engine_has_libraries_for_are_left_alone(
    take: Take,
    count: Callable[..., int],
    machine: Machine,
    notices: list[str],
    engines: Sequence[EngineKind],
    words: tuple[str, str],
) -> None:
    """The line says what to install for the engine that is used then."""
    machine(libraries=False, jax_libraries=False)
    taken = take(engines)
    assert taken is not None
    assert (taken.gpu, taken.engine) == (None, engines[-1])
    assert count(None, engines) == 0
    for notice in notices:
        assert notice.startswith(f"training on the CPU: {words[0]} {NAME}")
        assert f"(pip install '{words[1]}' brings them)" in notice
    assert len(notices) == 2
    with pytest.raises(GpuUnusedError, match=words[0]):
        take(engines, device="gpu")


@pytest.mark.parametrize("libraries", [{"libraries": False}, {"jax_libraries": False}])
def test_a_run_counts_gpus_that_either_engine_can_use(
    count: Callable[..., int], machine: Machine, libraries: dict[str, bool]
) -> None:
    """Its workers then find out which."""
    machine(**libraries)
    assert count(None, BEST) == 2


def test_a_worker_that_is_stopped_while_it_tries_packs_takes_nothing(
    take: Take, machine: Machine, notices: list[str], locks: Path
) -> None:
    """Nor does it try further."""
    machine(packed_verdict=False, verdict=GpuError("nobody asked"))
    assert take(BEST, allow_cpu=True) is None
    assert notices == []
    assert count_free(GPUS, 1, locks) == 2
