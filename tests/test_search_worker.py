"""A worker among others: which trials it takes, what ends it, and what it leaves to the rest."""

import dataclasses
import io
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sample
import sqlalchemy
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from search.errors import SearchError
from search.events import EpochEnded, Event, StepsDone, TrialEnded, TrialStarted
from search.space import Choices, NumberRange, Space, params_of
from search.study import MAX_RETRIES, OpenStudy, Wishes, open_or_create_study, open_study
from search.summary import RECIPE_KEY, TRACEBACK_KEY, WORKER_KEY, summarise_trials
from search.workers_report import workers_json, workers_lines
from storage.artifacts import WholeFiles
from storage.claimed_trial import ClaimedTrial
from storage.database import Database, open_database
from storage.errors import StorageError
from storage.leases import FAILURE_KEY, RETRIES_KEY
from storage.process import Identity, own_identity
from storage.schema import FILES, LEASES, LOOSE_FILES, WORKERS
from trainer.errors import OutOfMemoryError
from trainer.recipe import Recipe
from trainer.state import TrainingState

pytestmark = pytest.mark.usefixtures("tensorflow")

EPOCHS = 3
SPACE = Space("momentum.toml", (Choices("optimizer", ("momentum",)), NumberRange("dropout_block1", 0.0, 0.5)))
WISHES = Wishes(SPACE, max_epochs=EPOCHS, train_samples=320)
"""One optimizer, so that a worker traces one program."""


@dataclass
class Log:
    """What a worker told, in order; to be given to it as `emit`."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def epoch_ended(self, epoch: int) -> bool:
        """Whether this epoch has ended in any trial."""
        return any(event.result.epoch == epoch for event in self.of(EpochEnded))


def open_sample_study(database: Database) -> OpenStudy:
    """A study whose trials train on the sample for three epochs."""
    return open_or_create_study(database, "sample", WISHES)[0]


TRAINERS: dict[int, Any] = {}
"""Traced programs by number of images; a worker, too, uses its own for all of its trials."""


def make_worker(
    opened: OpenStudy, emit: Callable[[Event], None], *, has_own_trainer: bool = False, **options: Any
) -> Any:
    """A worker whose leases run out after an hour: it renews none by itself while a test runs."""
    from search.single_runner import SingleRunner
    from search.worker import Worker

    runner = SingleRunner(sample.load(), opened.settings.train_samples)
    if not has_own_trainer:
        runner._trainer = TRAINERS.setdefault(opened.settings.train_samples, runner._trainer)
    return Worker(opened, runner, emit, **{"lease_seconds": 3600.0, **options})


def work(opened: OpenStudy, total: int | None, log: Log | None = None, **options: Any) -> Log:
    """Let a worker bring the study to `total` trials."""
    log = Log() if log is None else log
    opened.database.limit_trials(opened.study, total)
    make_worker(opened, log, **options).run()
    return log


def enqueue(opened: OpenStudy, recipe: Recipe) -> None:
    """Make a recipe the next trial's."""
    params = params_of(recipe, opened.settings.capped_space)
    opened.study.enqueue_trial(params, user_attrs={RECIPE_KEY: recipe.to_dict()})


def stored_ids(database: Database) -> list[str]:
    """The ids of all stored files."""
    with database._backend.engine.connect() as connection:
        return sorted(connection.scalars(sqlalchemy.select(FILES.c.artifact_id)))


def stored_state(database: Database, trial: FrozenTrial) -> TrainingState | None:
    """What a trial goes on from."""
    query = sqlalchemy.select(FILES.c.content).where(
        FILES.c.trial_id == trial._trial_id, FILES.c.kind == "checkpoint"
    )
    with database._backend.engine.connect() as connection:
        content = connection.scalar(query)
    return None if content is None else TrainingState.from_bytes(content)


def count_leases(database: Database) -> tuple[int, int]:
    """How many leases there are, and how many workers are known."""
    with database._backend.engine.connect() as connection:
        leases, workers = (
            connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(table))
            for table in (LEASES, WORKERS)
        )
    return int(leases or 0), int(workers or 0)


@dataclass(frozen=True)
class Elsewhere:
    """Another worker of the same study, with connections of its own, which trains nothing by itself."""

    opened: OpenStudy
    identity: Identity

    def ask(self) -> ClaimedTrial:
        """Take the next trial."""
        trial = self.opened.study.ask()
        return self.opened.database.claimed(self.opened.artifacts, trial._trial_id)

    def take(self, number: int) -> FrozenTrial:
        """Take a running trial from its worker as if that had been silent for too long; what it is then."""
        with self.opened.database._backend.engine.begin() as connection:
            others = WORKERS.c.worker != self.identity.worker
            connection.execute(sqlalchemy.update(WORKERS).where(others).values(expires=0.0))
        (taken,) = self.opened.leases().reap()
        assert (taken.number, taken.failed) == (number, False)
        self.ask()
        return self.trial(number)

    def trial(self, number: int) -> FrozenTrial:
        """A trial as it is now."""
        return self.opened.study.trials[number]


@pytest.fixture
def elsewhere(database: Database, url: str) -> Iterator[Elsewhere]:
    """Another worker of the sample's study."""
    open_sample_study(database)
    other = open_database(url)
    opened, identity = open_study(other, "sample"), own_identity()
    other.work_as(identity)
    opened.leases().renew(identity, 3600.0)
    yield Elsewhere(opened, identity)
    other.close()


@pytest.fixture
def train_nothing(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Make every training stop before its first epoch; gives the recipes of those that began."""
    from trainer.training import TrainingResult

    begun: list[Recipe] = []

    def train(_: Any, recipe: Recipe, **__: Any) -> TrainingResult:
        begun.append(recipe)
        return TrainingResult("stopped", TrainingState(recipe, "float32", (), ()))

    monkeypatch.setattr("search.single_runner.Trainer.train", train)
    return begun


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make workers go on at once after a failure."""
    monkeypatch.setattr("search.worker.REST_SECONDS", 0.0)


def fail_with(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> None:
    """Make the next trainings fail with these errors, None for one that stops; the last one for all after."""
    from trainer.training import TrainingResult

    left = list(errors)

    def train(_: Any, recipe: Recipe, **__: Any) -> TrainingResult:
        error = left.pop(0) if len(left) > 1 else left[0]
        if error is not None:
            raise error
        return TrainingResult("stopped", TrainingState(recipe, "float32", (), ()))

    monkeypatch.setattr("search.single_runner.Trainer.train", train)


def states(opened: OpenStudy) -> list[str]:
    """The trials' states, by number."""
    return [trial.state.name for trial in opened.study.trials]


def test_the_total_is_exact_and_counts_what_waits(database: Database, train_nothing: list[Recipe]) -> None:
    """Enqueued trials are part of the budget; at the total nothing is trained."""
    opened = open_sample_study(database)
    enqueue(opened, Recipe(epochs=2))
    enqueue(opened, Recipe(epochs=1))

    work(opened, 4)
    assert [recipe.epochs for recipe in train_nothing] == [3, 2, 1, 3]
    assert len(opened.study.trials) == 4

    assert work(opened, 4).events == []
    assert work(opened, 2).events == []
    work(opened, 5)
    assert len(opened.study.trials) == 5


def test_waiting_trials_are_run_though_the_total_is_reached(
    database: Database, train_nothing: list[Recipe]
) -> None:
    """A trial that was handed back belongs to the budget already."""
    opened = open_sample_study(database)
    enqueue(opened, Recipe(epochs=2))

    work(opened, 1)

    assert [trial.state for trial in opened.study.trials] == [TrialState.PRUNED] * 2


def test_a_total_that_is_raised_in_mid_search_counts_at_the_next_trial(
    database: Database, elsewhere: Elsewhere, train_nothing: list[Recipe]
) -> None:
    """Any process sets it for all; a lower one ends them as soon."""
    opened = open_sample_study(database)
    totals = {0: 3, 1: 5, 2: 4}

    class Setting(Log):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, TrialEnded) and event.number in totals:
                elsewhere.opened.database.limit_trials(elsewhere.opened.study, totals[event.number])

    log = work(opened, 1, Setting())

    assert [event.number for event in log.of(TrialEnded)] == [0, 1, 2, 3]


def test_a_trial_enqueued_by_hand_gets_a_recipe(database: Database, train_nothing: list[Recipe]) -> None:
    """Parameters set in the dashboard are kept, the others drawn."""
    opened = open_sample_study(database)
    opened.study.enqueue_trial({"dropout_block1": 0.125})

    work(opened, 2)

    assert train_nothing[1] == Recipe(dropout_block1=0.125, epochs=EPOCHS, seed=1)
    assert opened.study.trials[1].user_attrs[RECIPE_KEY] == train_nothing[1].to_dict()


def test_when_time_is_up_the_epoch_is_finished_first(database: Database) -> None:
    """The trial waits with that epoch, and no other trial is begun; a worker without time begins none."""
    opened = open_sample_study(database)
    opened.study.enqueue_trial({})
    log = Log()
    work(opened, None, log, time_is_up=lambda: bool(log.of(StepsDone)))

    first, second = opened.study.trials
    assert (first.state, second.state) == (TrialState.WAITING, TrialState.WAITING)
    assert sorted(first.intermediate_values) == [1]
    assert RECIPE_KEY not in second.user_attrs
    state = stored_state(database, first)
    assert state is not None
    assert state.epoch == 1
    assert work(opened, None, time_is_up=lambda: True).events == []
    assert work(opened, None, must_stop=lambda: True).events == []


def test_a_trial_is_finished_where_time_is_up_at_its_end(database: Database) -> None:
    """There is nothing left to go on with."""
    opened = open_or_create_study(database, "one", Wishes(SPACE, max_epochs=1, train_samples=64))[0]
    log = Log()
    work(opened, None, log, time_is_up=lambda: bool(log.of(StepsDone)))

    assert [trial.state for trial in opened.study.trials] == [TrialState.COMPLETE]


@pytest.mark.usefixtures("restless")
def test_a_failure_is_recorded_and_the_worker_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial has the reason on one line, where it came from and who ran it, and no file."""
    opened = open_sample_study(database)
    fail_with(monkeypatch, ArithmeticError("three\nlines\nof it"), None)

    log = work(opened, 2)

    failed, other = opened.study.trials
    assert (failed.state, other.state) == (TrialState.FAIL, TrialState.PRUNED)
    assert failed.user_attrs[FAILURE_KEY] == "ArithmeticError: three lines of it"
    traceback = failed.user_attrs[TRACEBACK_KEY]
    assert traceback.startswith("Traceback (most recent call last):")
    assert "in train\n" in traceback
    assert traceback.endswith("ArithmeticError: three\nlines\nof it\n")
    worker = failed.user_attrs[WORKER_KEY]
    assert (worker["host"], worker["gpu"]) == (socket.gethostname(), None)
    assert worker["pid"] == own_identity().pid
    assert RETRIES_KEY not in failed.user_attrs
    assert log.of(TrialEnded)[0] == TrialEnded(0, "failed", None, "ArithmeticError: three lines of it", None)
    assert FAILURE_KEY not in other.user_attrs
    assert stored_ids(database) == []
    assert count_leases(database) == (0, 0)


@pytest.mark.usefixtures("restless")
def test_a_failures_words_are_kept_within_bounds(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow's can fill pages; of a traceback the end says most."""
    opened = open_sample_study(database)
    fail_with(monkeypatch, ValueError("x" * 100_000), None)

    work(opened, 1)

    attrs = opened.study.trials[0].user_attrs
    assert len(attrs[FAILURE_KEY]) == 500
    assert attrs[FAILURE_KEY].startswith("ValueError: xxx")
    assert len(attrs[TRACEBACK_KEY]) == 4000
    assert attrs[TRACEBACK_KEY].endswith("xxx\n")


@pytest.mark.usefixtures("restless")
def test_three_failures_in_a_row_end_the_worker(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is broken rather than the recipes, which others may try; each trial says why."""
    opened = open_sample_study(database)
    fail_with(monkeypatch, ValueError("no such instruction"))
    log = Log()

    with pytest.raises(
        SearchError, match="3 trials failed one after another, the last with ValueError: no such"
    ):
        work(opened, 9, log)

    assert states(opened) == ["FAIL"] * 3
    assert [event.state for event in log.of(TrialEnded)] == ["failed"] * 3
    assert count_leases(database) == (0, 0)


@pytest.mark.usefixtures("restless")
def test_failures_that_are_not_in_a_row_end_no_worker(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some recipes fail; the count begins anew at each trial that does not."""
    opened = open_sample_study(database)
    error = ValueError("this recipe")
    fail_with(monkeypatch, error, error, None, error, error, None)

    work(opened, 6)

    assert states(opened) == ["FAIL", "FAIL", "PRUNED"] * 2


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize(
    "error", [OutOfMemoryError("the device is full"), MemoryError("no room"), OSError(28, "disk full")]
)
def test_a_failure_that_may_pass_leaves_the_trial_to_another_try(
    database: Database, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It waits with the reason, which is shown no more once it has come through."""
    opened = open_sample_study(database)
    fail_with(monkeypatch, error, None)

    log = work(opened, 1)

    reason = f"{type(error).__name__}: {error}"
    assert [(event.number, event.state) for event in log.of(TrialEnded)] == [(0, "waiting"), (0, "pruned")]
    assert log.of(TrialEnded)[0].note == reason
    (trial,) = opened.study.trials
    assert trial.user_attrs[FAILURE_KEY] == reason
    assert trial.user_attrs[RETRIES_KEY]["total"] == 1
    assert "Traceback" in trial.user_attrs[TRACEBACK_KEY]
    assert reason not in summarise_trials(opened.study)[0].note


@pytest.mark.usefixtures("restless")
def test_a_trial_that_never_comes_through_fails_in_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker gives up after three tries, the trial after so many that no worker can be to blame."""
    opened = open_sample_study(database)
    fail_with(monkeypatch, OutOfMemoryError("the device is full"))
    log = Log()

    for _ in range(2):
        with pytest.raises(SearchError, match="3 trials failed one after another"):
            work(opened, 1, log)

    assert [event.state for event in log.of(TrialEnded)] == ["waiting"] * MAX_RETRIES + ["failed"]
    (trial,) = opened.study.trials
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs[FAILURE_KEY].startswith("OutOfMemoryError: the device is full; that was chance 6")
    assert work(opened, 1).events == []


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize(("harm", "begun"), [("damaged", 2), ("rubbish", 2), ("gone", 1)])
def test_an_unusable_checkpoint_harms_its_trial_alone(
    database: Database, train_nothing: list[Recipe], harm: str, begun: int
) -> None:
    """The trial begins anew, or fails where it is not known whether the bytes are somewhere; others go on."""
    opened = open_sample_study(database)
    database.work_as(own_identity())
    trial_id = opened.study.ask()._trial_id
    claimed = database.claimed(opened.artifacts, trial_id)
    claimed.hand_back(b"state", {})
    claimed.let_go()
    contents = {"damaged": b"stale", "gone": None, "rubbish": b"state"}
    with database._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.update(FILES).values(content=contents[harm]))

    work(opened, 2)

    assert states(opened) == ["FAIL" if harm == "gone" else "PRUNED", "PRUNED"]
    assert (
        opened.study.trials[0]
        .user_attrs.get(FAILURE_KEY, "")
        .startswith("StorageError: the bytes of stored file" if harm == "gone" else "")
    )
    assert stored_ids(database) == []
    assert len(train_nothing) == begun


@pytest.mark.usefixtures("restless")
def test_a_trial_that_cannot_be_drawn_fails(database: Database, train_nothing: list[Recipe]) -> None:
    """Here a recipe that was enqueued with other parameters than its own."""
    opened = open_sample_study(database)
    recipe = Recipe(dropout_block1=0.2, epochs=1)
    opened.study.enqueue_trial({"dropout_block1": 0.4}, user_attrs={RECIPE_KEY: recipe.to_dict()})

    work(opened, 2)

    assert states(opened) == ["PRUNED", "FAIL"]
    failure = opened.study.trials[1].user_attrs[FAILURE_KEY]
    assert "trial 1 has dropout_block1 0.4, its recipe 0.2" in failure


class Taking(Log):
    """Lets another worker take trial 0 at an epoch's end, and says stop when the next trial has ended."""

    def __init__(self, elsewhere: Elsewhere, epoch: int) -> None:
        """Take it at the end of `epoch`."""
        super().__init__()
        self._elsewhere, self._epoch = elsewhere, epoch
        self.taken: FrozenTrial | None = None
        self.then: Callable[[], None] = lambda: None

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        super().__call__(event)
        if isinstance(event, EpochEnded) and self.taken is None and event.result.epoch == self._epoch:
            self.taken = self._elsewhere.take(0)
            self.then()

    def is_next_over(self) -> bool:
        """Whether trial 1 has ended."""
        return any(event.number == 1 for event in self.of(TrialEnded))


@pytest.mark.parametrize("moment", ["report", "checkpoint", "end", "renewal"])
def test_a_trial_that_was_taken_is_let_go(
    database: Database, elsewhere: Elsewhere, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the worker was about to write to it is not written, and it goes on with the next trial."""
    # The next one is to be trained to its end, whatever is drawn for it.
    monkeypatch.setattr(SuccessiveHalvingPruner, "prune", lambda *_: False)
    opened = open_sample_study(database)
    log = Taking(elsewhere, epoch=EPOCHS if moment == "end" else 1)
    policy = {"policy": checkpoint_each_epoch()} if moment == "checkpoint" else {}
    database.limit_trials(opened.study, 2)
    worker = make_worker(opened, log, must_stop=log.is_next_over, **policy)
    if moment == "renewal":
        # The keeper's own comes after a quarter of the lease.
        log.then = worker._keeper.keep_once

    worker.run()

    assert log.of(TrialEnded)[0] == TrialEnded(0, "taken", None, "another worker has it", None)
    epochs = [event.result.epoch for event in log.of(EpochEnded) if event.number == 0]
    assert epochs == ([1, 2, 3] if moment == "end" else [1])
    steps = sorted({event.epoch for event in log.of(StepsDone) if event.number == 0})
    assert steps == ([1, 2, 3] if moment == "end" else [1, 2])
    assert log.taken is not None
    assert elsewhere.trial(0) == log.taken
    assert log.of(TrialEnded)[1].number == 1
    assert elsewhere.trial(1).state == TrialState.COMPLETE
    assert count_leases(database) == (1, 1)


def test_a_worker_that_is_stopped_while_it_scores_hands_its_trial_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large network's score takes longer than there is time; the next worker has only to score."""
    from trainer.evaluation import Evaluator

    opened, told = open_sample_study(database), []
    score = Evaluator.score

    def told_to_stop(self: Evaluator, model: Any, look: Callable[[], None]) -> Any:
        told.append(1)
        return score(self, model, look)

    monkeypatch.setattr("trainer.evaluation.PIECE", 7)
    monkeypatch.setattr(Evaluator, "score", told_to_stop)
    stopped = work(opened, 1, must_stop=lambda: bool(told))
    monkeypatch.setattr(Evaluator, "score", score)
    log = work(opened, 1)

    assert [event.state for event in stopped.of(TrialEnded)] == ["waiting"]
    assert len(stopped.of(EpochEnded)) == 3
    assert [event.state for event in log.of(TrialEnded)] == ["complete"]
    assert log.of(EpochEnded) == []


@pytest.mark.parametrize("moment", ["stop", "failure", "passing failure"])
def test_a_taken_trial_is_neither_handed_back_nor_failed(
    database: Database, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The one who has it now decides what becomes of it."""
    opened = open_sample_study(database)
    log = Log()
    taken: list[FrozenTrial] = []

    def train(_: Any, recipe: Recipe, *, on_steps: Callable[[int, int, int], None], **__: Any) -> Any:
        taken.append(elsewhere.take(0))
        if moment == "stop":
            on_steps(1, 1, 1)
        raise (OSError if moment == "passing failure" else ValueError)("too late")

    monkeypatch.setattr("search.single_runner.Trainer.train", train)
    work(opened, 1, log, must_stop=lambda: bool(taken))

    assert log.events[-1] == TrialEnded(0, "taken", None, "another worker has it", None)
    assert elsewhere.trial(0) == taken[0]
    assert stored_ids(database) == []


def test_at_the_total_a_worker_waits_for_what_others_may_hand_back(
    database: Database, elsewhere: Elsewhere, train_nothing: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the trial at once when that happens."""
    opened = open_sample_study(database)
    claimed = elsewhere.ask()
    rests: list[int] = []

    def rest(_: Any) -> None:
        rests.append(len(rests))
        if len(rests) == 3:
            claimed.hand_back(None, {})

    monkeypatch.setattr("search.worker.Worker._rest", rest)
    log = work(opened, 1)

    assert len(rests) == 3
    assert [event.number for event in log.of(TrialEnded)] == [0]
    assert states(opened) == ["PRUNED"]


def test_at_the_total_a_worker_ends_when_the_last_trial_does(
    database: Database, elsewhere: Elsewhere, train_nothing: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though another worker ran it."""
    opened = open_sample_study(database)
    claimed = elsewhere.ask()
    rests: list[int] = []

    def rest(_: Any) -> None:
        rests.append(len(rests))
        if len(rests) == 3:
            claimed.finish(TrialState.COMPLETE, 0.5)

    monkeypatch.setattr("search.worker.Worker._rest", rest)
    log = work(opened, 1)

    assert (len(rests), log.events, train_nothing) == (3, [], [])


def test_a_worker_that_waits_can_be_stopped(
    database: Database, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within its rest, which would here last until the test's time is up."""
    opened = open_sample_study(database)
    elsewhere.ask()
    monkeypatch.setattr("search.worker.REST_SECONDS", 3600.0)
    looks: list[int] = []

    def must_stop() -> bool:
        looks.append(0)
        return len(looks) > 3

    assert work(opened, 1, must_stop=must_stop).events == []
    assert elsewhere.trial(0).state == TrialState.RUNNING


def test_running_trials_of_other_programs_are_not_waited_for(
    database: Database, train_nothing: list[Recipe]
) -> None:
    """They have no lease, and nobody could tell whether they live."""
    opened = open_sample_study(database)
    opened.study.ask()

    assert work(opened, 1).events == []


def test_what_a_worker_left_behind_is_taken_up_by_the_next(
    database: Database, url: str, train_nothing: list[Recipe]
) -> None:
    """Before that one asks for its first trial."""
    opened = open_sample_study(database)
    other = open_database(url)
    other.work_as(own_identity())
    open_study(other, "sample").study.ask()
    other.close()

    log = work(opened, 1)

    assert [event.number for event in log.of(TrialStarted)] == [0]
    assert states(opened) == ["PRUNED"]
    assert opened.study.trials[0].user_attrs[FAILURE_KEY] == "its worker left without handing it back"


def test_a_trial_whose_ask_was_never_confirmed_is_not_lost(
    database: Database, train_nothing: list[Recipe]
) -> None:
    """The worker has its lease and does not know; it lets it wait before it asks again."""
    opened = open_sample_study(database)
    database.limit_trials(opened.study, 1)
    log = Log()
    worker = make_worker(opened, log)
    opened.study.ask()
    database._backend.claimed.clear()

    worker.run()

    assert [event.number for event in log.of(TrialEnded)] == [0]
    assert RETRIES_KEY not in opened.study.trials[0].user_attrs


def open_study_outside(database: Database, folder: Path) -> OpenStudy:
    """The sample's study with its files in a folder."""
    wishes = dataclasses.replace(WISHES, artifacts=f"file://{folder}")
    return open_or_create_study(database, "outside", wishes)[0]


def out_of_room(*_: Any) -> None:
    """What a full disk answers."""
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("moment", ["checkpoint", "end"])
def test_a_place_that_fails_for_good_ends_the_worker_and_no_trial(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The trial waits for one who can store its files, not to blame, and from the state that there is."""
    opened = open_study_outside(database, tmp_path / "files")
    log = Log()

    def emit(event: Event) -> None:
        log(event)
        if isinstance(event, EpochEnded) and event.result.epoch == (EPOCHS if moment == "end" else 1):
            monkeypatch.setattr(WholeFiles, "write", out_of_room)

    database.limit_trials(opened.study, 1)
    with pytest.raises(StorageError, match=r"^artifacts file:///.*No space left on device"):
        make_worker(opened, emit, policy=checkpoint_each_epoch()).run()

    (trial,) = opened.study.trials
    assert trial.state == TrialState.WAITING
    assert not {FAILURE_KEY, RETRIES_KEY, TRACEBACK_KEY} & trial.user_attrs.keys()
    assert log.of(TrialEnded) == []
    assert count_leases(database) == (0, 0)
    monkeypatch.undo()
    log = work(opened, 1)
    assert log.of(TrialStarted)[0].first_epoch == (2 if moment == "checkpoint" else EPOCHS + 1)
    assert states(opened) == ["COMPLETE"]


@pytest.mark.parametrize("moment", ["checkpoint", "hand back"])
def test_a_worker_that_is_stopped_hands_back_though_the_place_fails(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It ends as it does otherwise; the trial goes on from what was stored before."""
    opened = open_study_outside(database, tmp_path / "files")
    log, told = Log(), []

    def fail(*_: Any) -> None:
        told.append("stop")
        out_of_room()

    def emit(event: Event) -> None:
        log(event)
        if isinstance(event, EpochEnded):
            monkeypatch.setattr(WholeFiles, "write", fail)
            if moment == "hand back":
                told.append("stop")

    database.limit_trials(opened.study, 1)
    policy = {"policy": checkpoint_each_epoch()} if moment == "checkpoint" else {}
    make_worker(opened, emit, must_stop=lambda: bool(told), **policy).run()

    assert [(event.number, event.state) for event in log.of(TrialEnded)] == [(0, "waiting")]
    assert states(opened) == ["WAITING"]
    assert count_leases(database) == (0, 0)
    monkeypatch.undo()
    log = work(opened, 1)
    assert log.of(TrialStarted)[0].first_epoch == (2 if moment == "checkpoint" else 1)
    assert states(opened) == ["COMPLETE"]


def test_a_worker_sweeps_what_others_left_outside(
    database: Database, tmp_path: Path, train_nothing: list[Recipe]
) -> None:
    """Before it asks for a trial: here bytes whose writer died before it could name them."""
    opened = open_study_outside(database, tmp_path / "files")
    outside = opened.artifacts.outside
    assert outside is not None
    outside.write("left", io.BytesIO(b"bytes"))
    with database._backend.engine.begin() as connection:
        row = {"artifact_id": "left", "study_id": opened.study._study_id, "worker": "dead"}
        connection.execute(sqlalchemy.insert(LOOSE_FILES), row)

    work(opened, 1)

    (folder,) = (tmp_path / "files").iterdir()
    assert list(folder.iterdir()) == []


def test_a_claim_whose_worker_is_unknown_is_shown(database: Database, elsewhere: Elsewhere) -> None:
    """Nobody works on that trial, so the report of who works has to say it."""
    opened = open_sample_study(database)
    elsewhere.ask()
    elsewhere.opened.leases().leave(elsewhere.identity)

    workers = opened.leases().workers()

    lines = workers_lines(workers, [], 1)
    assert lines[0].endswith("1 stale claim, which any worker takes back")
    assert lines[1] == "  a worker that left without handing back: had trial 0"
    shown = workers_json(workers, [], 1)
    assert shown["stale_claims"] == 1
    assert [(one["host"], one["alive"], one["trials"]) for one in shown["workers"]] == [(None, False, [0])]


def break_table(database: Database, table: str) -> None:
    """Make each statement on a table fail, as a database does that somebody meddles with."""
    with database._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"ALTER TABLE {table} RENAME TO {table}_gone"))


@pytest.mark.parametrize("table", ["cnn_search_leases", "trial_intermediate_values", "trials"])
def test_a_database_that_fails_ends_the_worker(database: Database, table: str) -> None:
    """In the middle of a trial, with its URL and the driver's words on one line; no trial is blamed."""
    opened = open_sample_study(database)
    log = Log()

    def emit(event: Event) -> None:
        log(event)
        if isinstance(event, EpochEnded):
            break_table(database, table)

    database.limit_trials(opened.study, 1)
    with pytest.raises(StorageError) as failed:
        make_worker(opened, emit).run()

    assert str(failed.value) == f"{database.shown_url}: no such table: {table}"
    assert log.of(TrialEnded) == []


def test_a_database_that_fails_at_the_start_ends_the_worker(database: Database) -> None:
    """Before it has begun, with the same words."""
    opened = open_sample_study(database)
    worker = make_worker(opened, Log())
    break_table(database, "cnn_search_workers")

    with pytest.raises(StorageError, match=r"study\.db: no such table: cnn_search_workers$"):
        worker.run()


def test_a_worker_that_cannot_sign_off_says_so_and_ends_well(
    database: Database, train_nothing: list[Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    """What it trained is stored; its row goes when it has run out."""
    opened = open_sample_study(database)
    log = Log()

    def emit(event: Event) -> None:
        log(event)
        if isinstance(event, TrialEnded):
            break_table(database, "cnn_search_workers")

    database.limit_trials(opened.study, 1)
    with caplog.at_level(logging.WARNING, "storage"):
        make_worker(opened, emit).run()

    assert [event.state for event in log.of(TrialEnded)] == ["pruned"]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("storage")]
    assert said == ["the worker could not sign off: no such table: cnn_search_workers"]


def test_a_worker_is_known_while_it_works(database: Database, elsewhere: Elsewhere) -> None:
    """With its host, process and trial; afterwards it is forgotten."""
    opened = open_sample_study(database)
    identity = own_identity(gpu="Card X")
    seen: list[Any] = []

    def emit(event: Event) -> None:
        if isinstance(event, TrialStarted):
            seen.extend(one for one in elsewhere.opened.leases().workers() if one.worker == identity.worker)
            raise ValueError("seen enough")

    database.limit_trials(opened.study, 1)
    make_worker(opened, emit, identity=identity).run()

    (status,) = seen
    assert (status.host, status.pid, status.gpu) == (socket.gethostname(), identity.pid, "Card X")
    assert status.trials == (0,)
    assert status.is_alive
    assert [one.worker for one in elsewhere.opened.leases().workers()] == [elsewhere.identity.worker]


def checkpoint_each_epoch() -> Any:
    """The policy that loses nothing."""
    from search.policy import CheckpointPolicy

    return CheckpointPolicy(seconds=3600.0, epochs=1)
