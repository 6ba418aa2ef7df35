"""A worker hears of a reached target between its trials, at the ends of their epochs, and while it waits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from optuna.trial import TrialState
from test_search_fleet import assignment
from test_search_worker import (
    EPOCHS,
    Elsewhere,
    Log,
    count_leases,
    enqueue,
    open_sample_study,
    states,
    stored_state,
    work,
)
from test_storage_keeper import Clock
from test_storage_shared import MODEL

from search.events import Event, StepsDone, TrialEnded, TrialStarted
from search.fleet import WorkerFailed, run_fleet
from search.study import OpenStudy, Wishes, open_or_create_study, open_study
from search.target_watch import LOOK_SECONDS, TargetWatch
from storage.database import Database, open_database
from storage.process import own_identity
from trainer.recipe import Recipe

TARGET = 0.9
"""Out of reach for three epochs on the sample."""


@dataclass
class Answers:
    """A target in place of the database's: it says what it is told to, and counts how often it was asked."""

    is_there: bool = False
    asked: int = 0

    def is_reached(self) -> bool:
        """The answer."""
        self.asked += 1
        return self.is_there


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of `search.target_watch`."""
    made = Clock()
    monkeypatch.setattr("search.target_watch.time", made)
    return made


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make workers look at each epoch's end, however short the epochs are."""
    monkeypatch.setattr("search.target_watch.LOOK_SECONDS", 0.0)


@pytest.fixture
def elsewhere(database: Database, url: str) -> Iterator[Elsewhere]:
    """Another worker of the sample's study, with connections of its own."""
    open_sample_study(database)
    other = open_database(url)
    opened, identity = open_study(other, "sample"), own_identity()
    other.work_as(identity)
    opened.leases().renew(identity, 3600.0)
    yield Elsewhere(opened, identity)
    other.close()


def aim(opened: OpenStudy, target: float | None) -> None:
    """Set the study's target, from wherever it was opened."""
    opened.database.target(opened.study).set(target)


class Meanwhile(Log):
    """Does something else in the first step of some epochs."""

    def __init__(self, **what: Callable[[], object]) -> None:
        """Do what is given as `epoch_2` in the second one, say."""
        super().__init__()
        self._what = what

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        super().__call__(event)
        if isinstance(event, StepsDone):
            self._what.pop(f"epoch_{event.epoch}", lambda: None)()


def test_looks_are_two_seconds_apart(clock: Clock) -> None:
    """Between them the answer is the last one; at a trial's end the next question looks."""
    answers = Answers()
    watch: Any = TargetWatch(answers)  # type: ignore[arg-type]
    assert not watch.is_reached() and answers.asked == 1
    answers.is_there = True
    clock.now += LOOK_SECONDS - 0.1
    assert not watch.is_reached() and answers.asked == 1
    clock.now += 0.1
    assert watch.is_reached() and answers.asked == 2
    answers.is_there = False
    assert watch.is_reached() and answers.asked == 2
    watch.note()
    assert not watch.is_reached() and answers.asked == 3
    assert not watch.is_reached() and answers.asked == 3


@pytest.mark.usefixtures("tensorflow")
def test_a_worker_whose_trial_reaches_the_target_takes_no_other(database: Database) -> None:
    """Though the study has room for more, and its last look was a moment ago. It hands nothing back."""
    opened = open_sample_study(database)
    enqueue(opened, Recipe(epochs=1))
    aim(opened, 0.001)

    log = work(opened, 9)

    assert [(event.number, event.state) for event in log.of(TrialEnded)] == [(0, "complete")]
    assert states(opened) == ["COMPLETE", "WAITING"]
    assert work(opened, 9).events == []
    aim(opened, None)
    assert [event.number for event in work(opened, 2).of(TrialEnded)] == [1]


@pytest.mark.usefixtures("tensorflow", "attentive")
def test_a_trial_that_reaches_it_elsewhere_has_this_one_handed_back(
    database: Database, elsewhere: Elsewhere
) -> None:
    """At the end of its epoch, with its state; the next worker goes on from there once the target is gone."""
    opened = open_sample_study(database)
    aim(elsewhere.opened, TARGET)

    def reach() -> None:
        elsewhere.ask().finish(TrialState.COMPLETE, TARGET, [MODEL])

    log = work(opened, 2, Meanwhile(epoch_2=reach))

    (ended,) = log.of(TrialEnded)
    assert (ended.number, ended.state) == (0, "waiting")
    first, second = opened.study.trials
    assert (first.state, second.state) == (TrialState.WAITING, TrialState.COMPLETE)
    assert sorted(first.intermediate_values) == [1, 2]
    state = stored_state(database, first)
    assert state is not None and state.epoch == 2
    assert count_leases(database) == (0, 1)
    aim(elsewhere.opened, None)
    (started,) = (again := work(opened, 2)).of(TrialStarted)
    assert (started.number, started.first_epoch) == (0, 3)
    assert [event.state for event in again.of(TrialEnded)] == ["complete"]


@pytest.mark.usefixtures("tensorflow", "attentive")
def test_a_target_that_is_set_in_mid_trial_counts(database: Database, elsewhere: Elsewhere) -> None:
    """From the next epoch's end on; one that is lifted in time does not."""
    opened = open_sample_study(database)
    claimed = elsewhere.ask()
    claimed.finish(TrialState.COMPLETE, TARGET, [MODEL])
    enqueue(opened, Recipe(epochs=EPOCHS))

    def reconsider() -> None:
        aim(elsewhere.opened, TARGET)
        aim(elsewhere.opened, TARGET + 0.01)

    log = work(opened, 2, Meanwhile(epoch_1=reconsider, epoch_2=lambda: aim(elsewhere.opened, TARGET)))

    assert sorted(opened.study.trials[1].intermediate_values) == [1, 2]
    assert [event.state for event in log.of(TrialEnded)] == ["waiting"]


@pytest.mark.usefixtures("tensorflow", "attentive")
def test_a_trial_is_finished_where_the_target_is_reached_in_its_last_epoch(
    database: Database, elsewhere: Elsewhere
) -> None:
    """There is nothing left to go on with."""
    opened = open_sample_study(database)
    aim(opened, TARGET)

    def reach() -> None:
        elsewhere.ask().finish(TrialState.COMPLETE, TARGET, [MODEL])

    work(opened, None, Meanwhile(epoch_3=reach))

    assert states(opened) == ["COMPLETE", "COMPLETE"]


@pytest.mark.usefixtures("tensorflow", "attentive")
def test_a_worker_that_waits_for_others_hears_of_it(
    database: Database, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends, though a trial runs elsewhere; that runs on."""
    opened = open_sample_study(database)
    enqueue(opened, Recipe(epochs=1))
    elsewhere.ask()
    last = elsewhere.ask()
    aim(opened, TARGET)
    ends = [partial(last.finish, TrialState.COMPLETE, TARGET, [MODEL])]
    # While it rests.
    monkeypatch.setattr("search.worker.time.sleep", lambda _: ends and ends.pop()())

    assert work(opened, 2).events == []
    assert states(opened) == ["RUNNING", "COMPLETE"]


@pytest.mark.usefixtures("tensorflow", "attentive")
def test_whichever_of_total_time_and_target_comes_first(database: Database) -> None:
    """A target out of reach ends nothing."""
    opened = open_sample_study(database)
    for _ in range(3):
        enqueue(opened, Recipe(epochs=1))
    aim(opened, 0.999)
    log = Log()

    work(opened, None, log, time_is_up=lambda: len(log.of(TrialEnded)) == 2)
    assert [event.number for event in log.of(TrialEnded)] == [0, 1]
    assert [event.number for event in work(opened, 4).of(TrialEnded)] == [2, 3]


def test_of_two_workers_one_reaches_it_and_the_other_hands_back(database: Database, url: str) -> None:
    """Two processes: a trial of one epoch, and one that would take minutes."""
    opened, _ = open_or_create_study(database, "sample", Wishes(None, 10_000, 320))
    opened.study.tell(opened.study.ask(), state=TrialState.FAIL)
    enqueue(opened, Recipe(epochs=10_000))
    enqueue(opened, Recipe(epochs=1))
    aim(opened, 0.001)
    events: list[Any] = []

    stop = run_fleet(opened, assignment(url), 2, events.append)

    assert stop.requests == 0
    assert [event for event in events if isinstance(event, WorkerFailed)] == []
    assert states(opened) == ["FAIL", "WAITING", "COMPLETE"]
    assert count_leases(database) == (0, 0)
