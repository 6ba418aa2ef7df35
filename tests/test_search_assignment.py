"""search.assignment: what a worker process does, from the data to the last trial, here in this process."""

import logging
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sample
from gpu_machine import make_gpu

from search.assignment import Assignment, carry_out
from search.device import Device, DeviceWish
from search.engines import EngineWish, choose_engines
from search.errors import EngineError, GpuError, SearchError, StudyError
from search.events import Event, Notice, TrialEnded
from search.gpu_claims import Claim
from search.named_spaces import NAMED
from search.policy import CheckpointPolicy
from search.study import Wishes, open_or_create_study
from storage.database import Database
from storage.errors import StorageError
from trainer.errors import TrainerError

pytestmark = pytest.mark.usefixtures("tensorflow")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Leave TensorFlow as it is, which starts once, and JAX; gives the threads and GPUs asked for."""
    given: list[tuple[Any, ...]] = []

    def start_tensorflow(threads: int, gpu: str, *, hides_gpu: bool) -> None:
        given.append((threads, gpu, "hidden") if hides_gpu else (threads, gpu))

    monkeypatch.setattr("search.runtime.start_tensorflow", start_tensorflow)
    monkeypatch.setattr("search.runtime.start_jax", lambda gpu: given.append(("jax", gpu)))
    return given


@pytest.fixture
def assignment(database: Database, url: str) -> Assignment:
    """One trial of one epoch on 64 images of the sample."""
    opened, _ = open_or_create_study(database, "sample", Wishes(None, 1, 64))
    database.limit_trials(opened.study, 1)
    return Assignment(
        url, "sample", sample.PATH, None, threads=3, precision="float32", digests=sample.DIGESTS
    )


def never() -> bool:
    """Nobody says stop."""
    return False


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Make workers do nothing; gives what each was built with."""
    built: list[dict[str, Any]] = []

    class Idle:
        def __init__(self, opened: Any, runner: Any, emit: Callable[[Event], None], **options: Any) -> None:
            built.append({"opened": opened, "runner": runner, "emit": emit, **options})

        def run(self) -> None:
            built[-1]["began"] = True
            logging.getLogger("storage.outages").warning("%s: away", "storage x")
            logging.getLogger("storage.outages").info("nobody cares")

    monkeypatch.setattr("search.worker.Worker", Idle)
    return built


def test_an_assignment_is_carried_out(assignment: Assignment, started: list[tuple[Any, ...]]) -> None:
    """Until the study has its total; then there is nothing to do. On the CPU, if nothing else is wished."""
    events: list[Event] = []
    carry_out(assignment, events.append, never)

    ended = [event for event in events if isinstance(event, TrialEnded)]
    assert [(event.number, event.state) for event in ended] == [(0, "complete")]
    assert started == [(3, "-1")]
    events.clear()
    carry_out(assignment, events.append, never)
    assert events == []


def test_the_worker_gets_what_the_assignment_says(
    assignment: Assignment, workers: list[dict[str, Any]]
) -> None:
    """Its lease, its policy, its precision, its end and whom to ask."""
    policy = CheckpointPolicy(5.0, 2)
    ends = replace(assignment, ends_at=time.time() - 1, lease_seconds=7.0, policy=policy)
    events: list[Event] = []

    carry_out(ends, events.append, never)
    carry_out(assignment, events.append, never)

    first, second = workers
    assert (first["lease_seconds"], first["policy"]) == (7.0, policy)
    assert first["runner"]._trainer.precision == "float32"
    assert first["must_stop"] is never
    assert first["time_is_up"]()
    assert not second["time_is_up"]()
    assert first["opened"].study.study_name == "sample"


def test_a_worker_trains_on_the_gpu_that_it_claimed(
    assignment: Assignment,
    workers: list[dict[str, Any]],
    started: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TensorFlow sees that one alone, XLA is used where it works, and others are told the GPU's name."""
    wish = DeviceWish("gpu", workers_per_gpu=2)
    asked: list[Any] = []

    def take_device(*arguments: Any) -> Device:
        assert started == []
        asked.append(arguments)
        return Device(Claim(make_gpu(4), 1, ()), jit_compile=True)

    monkeypatch.setattr("search.assignment.take_device", take_device)
    events: list[Event] = []

    carry_out(replace(assignment, device=wish), events.append, never)

    ((told_wish, precision, emit, must_stop, engines),) = asked
    assert (told_wish, precision, must_stop) == (wish, "float32", never)
    assert engines == choose_engines(EngineWish(), NAMED["article"])
    emit(Notice("seen"))
    assert events[-1] == Notice("seen")
    assert started == [(3, make_gpu(4).uuid)]
    (built,) = workers
    assert built["runner"]._trainer._jit_compile is True
    assert built["identity"].gpu == "Card (GPU-00000004)"


def test_a_worker_on_the_cpu_is_known_as_such(assignment: Assignment, workers: list[dict[str, Any]]) -> None:
    """Without a GPU's name, and never with XLA."""
    carry_out(assignment, lambda event: None, never)
    (built,) = workers
    assert built["runner"]._trainer._jit_compile is False
    assert built["identity"].gpu is None


def test_a_worker_of_packs_leaves_its_gpu_to_jax(
    assignment: Assignment,
    workers: list[dict[str, Any]],
    started: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TensorFlow, which stores and scores, uses the CPU beside it; trials tell what trained them."""
    gpu, built = make_gpu(4), []
    device = Device(Claim(gpu, 1, ()), engine="packed")
    monkeypatch.setattr("search.assignment.take_device", lambda *_: device)

    def build_runner(*arguments: Any) -> str:
        assert len(started) == 2
        built.append(arguments)
        return "runner"

    monkeypatch.setattr("search.assignment.build_runner", build_runner)
    wish = EngineWish("auto", 5)

    carry_out(replace(assignment, engine=wish, precision="auto"), lambda event: None, never)

    assert started == [(3, gpu.uuid, "hidden"), ("jax", gpu.uuid)]
    ((_, _, *given, _, must_stop),) = built
    assert (given, must_stop) == ([device, wish, "auto"], never)
    (worker,) = workers
    assert (worker["runner"], worker["engine"]) == ("runner", "packed")
    assert worker["identity"].gpu == "Card (GPU-00000004)"


def test_packs_train_on_the_cpu_where_they_are_asked_for(
    assignment: Assignment, workers: list[dict[str, Any]], started: list[tuple[Any, ...]]
) -> None:
    """Neither engine sees a GPU then; without the wish, the CPU trains a trial at a time."""
    pytest.importorskip("jax")
    from search.packed_runner import PackedRunner

    for wish in (EngineWish("packed", 2), EngineWish("auto", 2), EngineWish("single")):
        carry_out(replace(assignment, engine=wish), lambda event: None, never)

    assert started == [(3, "-1", "hidden"), ("jax", "-1"), (3, "-1"), (3, "-1")]
    assert [worker["engine"] for worker in workers] == ["packed", "tensorflow", "tensorflow"]
    assert [isinstance(worker["runner"], PackedRunner) for worker in workers] == [True, False, False]


def test_packs_without_jax_are_told_before_anything_starts(
    assignment: Assignment,
    workers: list[dict[str, Any]],
    started: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No GPU is claimed for them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("search.assignment.take_device", lambda *_: pytest.fail("a device was taken"))
    with pytest.raises(EngineError, match="--engine packed needs JAX"):
        carry_out(replace(assignment, engine=EngineWish("packed")), lambda event: None, never)
    assert (started, workers) == ([], [])


def test_a_worker_without_a_gpu_does_nothing(
    assignment: Assignment,
    workers: list[dict[str, Any]],
    started: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It fails with the reason; or it was told to stop, and ends."""

    def fail(*_: Any) -> None:
        raise GpuError("Card does not work")

    monkeypatch.setattr("search.assignment.take_device", fail)
    with pytest.raises(GpuError, match="Card does not work"):
        carry_out(assignment, lambda event: None, never)

    monkeypatch.setattr("search.assignment.take_device", lambda *_: None)
    carry_out(assignment, lambda event: None, never)
    assert (started, workers) == ([], [])


def test_whoever_starts_it_hears_when_it_is_ready(
    assignment: Assignment, workers: list[dict[str, Any]]
) -> None:
    """When there is a worker, which has not asked for a trial."""
    ready: list[bool] = []
    carry_out(assignment, lambda event: None, never, lambda: ready.append("began" in workers[0]))
    assert ready == [False]


def test_what_the_storage_logs_is_shown_among_the_events(
    assignment: Assignment, workers: list[dict[str, Any]]
) -> None:
    """A line for each warning; nobody listens any more when the worker has ended, however it does."""
    events: list[Event] = []

    carry_out(assignment, events.append, never)

    assert events == [Notice("storage x: away")]
    with pytest.raises(StudyError):
        carry_out(replace(assignment, study="x"), events.append, never)
    logging.getLogger("storage.outages").warning("later")
    assert len(events) == 1
    assert logging.getLogger("storage").handlers == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"study": "x"}, SearchError, r"has no study 'x' \(it has: sample\)"),
        ({"storage": "sqlite:///nowhere.db"}, StorageError, "no such file"),
        ({"storage": "mysql://x"}, StorageError, "mysql is not supported"),
        ({"digests": sample.digests_of(sample.small())}, TrainerError, "x_train has SHA-256"),
    ],
)
def test_what_is_missing_is_said(
    assignment: Assignment, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    """In the words of whoever misses it."""
    with pytest.raises(error, match=words):
        carry_out(replace(assignment, **changes), lambda event: None, never)


def test_a_database_that_is_away_is_given_up_when_told_to_stop(
    assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be waited for much longer; the wait is told of, and no password is."""
    monkeypatch.setattr("storage.outages.HURRIED_SECONDS", 0.0)
    away = replace(assignment, storage="postgresql://ann:hunter2@127.0.0.1:1/d")
    events: list[Event] = []

    with pytest.raises(StorageError, match="Connection refused") as refused:
        carry_out(away, events.append, lambda: True)

    (notice,) = events
    assert isinstance(notice, Notice)
    assert "trying again for up to 600 s" in notice.text
    assert "hunter2" not in notice.text + str(refused.value) + repr(away)


def test_an_assignment_travels_to_another_process(assignment: Assignment) -> None:
    """As it is, its policy included."""
    wish = DeviceWish("gpu", True, 2, Path("/somewhere"))
    engine = EngineWish("packed", 8)
    there = replace(assignment, policy=CheckpointPolicy(1.0, 3), device=wish, engine=engine)

    assert pickle.loads(pickle.dumps(there)) == there
