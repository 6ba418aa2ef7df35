"""Workers of a study and of its companion: what comes first, how long they stay, and what it costs."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from confirmed import searched
from optuna.trial import TrialState
from test_search_worker import EPOCHS, Log, count_leases, make_worker, stored_state, work

import storage.database
from search.confirm.companion import open_round
from search.confirm.plan import ConfirmWish
from search.confirm.standing import read_hits, read_standing
from search.events import EpochEnded, Event, Notice, StepsDone, TrialEnded, TrialStarted
from search.hits import HITS_KEY
from search.study import PLAN_KEY, OpenStudy, open_study
from search.summary import RECIPE_KEY
from storage.database import Database, open_database
from storage.process import own_identity
from trainer.recipe import Recipe

pytestmark = pytest.mark.usefixtures("tensorflow")
WISH = ConfirmWish(top=1, seeds=2)


@pytest.fixture
def study(database: Database) -> OpenStudy:
    """A study with two complete trials, which goes on."""
    return searched(database, [0.5, 0.6])


def notices(log: Log) -> list[str]:
    """What was told in words."""
    return [event.text for event in log.of(Notice)]


def states(opened: OpenStudy) -> list[str]:
    """The trials' states, by number."""
    return [trial.state.name for trial in opened.study.get_trials(deepcopy=False)]


def test_a_live_worker_trains_the_companions_trials_first(database: Database, study: OpenStudy) -> None:
    """A companion appears while it works: it takes all of its trials, to their end, and then goes on."""
    rounds: list[Any] = []

    class Confirming(Log):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, TrialStarted) and not rounds:
                rounds.append(open_round(study, WISH, again=False))

    log = work(study, 4, Confirming())

    ((current, companion, _),) = rounds
    standing = read_standing(companion, current.plan)
    assert standing.is_over
    values = [value for index in range(2) for value in standing.values(index)]
    assert all(isinstance(value, float) for value in values)
    # Which images they classified rightly is stored with their ends; of a search's trials nobody asks.
    assert [one.mean() for hits in read_hits(companion, standing) for one in hits] == values
    assert HITS_KEY not in study.study.get_trials(deepcopy=False)[2].user_attrs
    trained = [Recipe.from_dict(trial.user_attrs[RECIPE_KEY]) for trial in companion.study.trials]
    assert trained == list(current.plan.runs())
    assert [len(trial.intermediate_values) for trial in companion.study.trials] == [EPOCHS] * 4
    assert [event.number for event in log.of(TrialStarted)] == [2, 3]
    # Two lines for each of its trials, all between those of the study's.
    texts = notices(log)
    assert len(texts) == 8
    assert texts[0].startswith(
        "sample-confirm: trial 0 (trial 1 of the search) started: momentum lr 0.01, 3 epochs, seed "
    )
    assert texts[2].startswith("sample-confirm: trial 1 (the article's recipe) started: ")
    assert texts[1].startswith(
        "sample-confirm: trial 0 (trial 1 of the search) complete, validation accuracy "
    )
    own = [n for n, event in enumerate(log.events) if isinstance(event, (TrialStarted, TrialEnded))]
    theirs = [n for n, event in enumerate(log.events) if isinstance(event, Notice)]
    assert own[1] < min(theirs) <= max(theirs) < own[2]
    assert count_leases(database) == (0, 0)


def test_a_trial_that_was_handed_back_goes_on_in_another_kind_of_worker(
    database: Database, study: OpenStudy, url: str
) -> None:
    """Handed back in the middle by a worker of the study, a trial goes on in one of the companion."""
    current, companion, _ = open_round(study, WISH, again=False)
    seen: list[int] = []

    class Counting(Log):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, Notice):
                seen.append(1)

    # Its epochs are told to nobody, so that the clock says when to stop.
    def time_is_up() -> bool:
        return bool(seen)

    work(study, 2, Counting(), time_is_up=time_is_up)
    first = companion.study.trials[0]
    assert (first.state, sorted(first.intermediate_values)) == (TrialState.WAITING, [1])
    assert stored_state(database, first) is not None

    own = open_database(url)
    log = Log()
    make_worker(open_study(own, current.name), log).run()
    own.close()

    assert states(companion) == ["COMPLETE"] * 4
    assert log.of(TrialStarted)[0].first_epoch == 2
    assert len(log.of(EpochEnded)) == 4 * EPOCHS - 1
    assert log.of(StepsDone)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each time that companions are looked for."""
    looked: list[int] = []
    find = storage.database.find_open

    def find_open(*arguments: Any) -> Any:
        looked.append(len(looked))
        return find(*arguments)

    monkeypatch.setattr("storage.database.find_open", find_open)
    return looked


@pytest.fixture
def train_nothing(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Make every training stop before its first epoch; gives the recipes of those that began."""
    from trainer.state import TrainingState
    from trainer.training import TrainingResult

    begun: list[Recipe] = []

    def train(_: Any, recipe: Recipe, **__: Any) -> TrainingResult:
        begun.append(recipe)
        return TrainingResult("stopped", TrainingState(recipe, "float32", (), ()))

    monkeypatch.setattr("search.single_runner.Trainer.train", train)
    return begun


def test_one_look_a_trial_and_a_round_is_enough(
    study: OpenStudy, lookups: list[int], train_nothing: list[Recipe]
) -> None:
    """Here for three trials and the end; a companion's own workers look for none."""
    work(study, 5)
    assert (len(train_nothing), len(lookups)) == (3, 4)

    _, companion, _ = open_round(study, WISH, again=False)
    lookups.clear()
    make_worker(companion, Log()).run()

    assert (len(train_nothing), len(lookups)) == (7, 0)


def test_epochs_need_no_look(study: OpenStudy, lookups: list[int]) -> None:
    """However many there are in a trial."""
    log = work(study, 3)

    assert len(log.of(EpochEnded)) == EPOCHS
    assert len(lookups) == 2


def test_at_its_total_a_worker_stays_for_what_others_may_hand_back(
    study: OpenStudy, url: str, train_nothing: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the companion too: here its last trial, which another worker runs."""
    current, companion, _ = open_round(study, WISH, again=False)
    other = open_database(url)
    other.work_as(own_identity())
    there = open_study(other, current.name)
    there.leases().renew(own_identity(), 3600.0)
    claimed = [other.claimed(there.artifacts, there.study.ask()._trial_id) for _ in range(4)]
    identity = other._backend.worker
    rests: list[int] = []

    def rest(_: Any) -> None:
        rests.append(len(rests))
        if len(rests) == 3:
            for one in claimed:
                one.hand_back(None, {})

    monkeypatch.setattr("search.worker.Worker._rest", rest)
    # The lease of a worker that nobody knows would be taken back.
    monkeypatch.setattr("storage.leases.Leases.reap", lambda *_, **__: [])

    log = work(study, 2)

    assert identity is not None
    assert (len(rests), len(train_nothing)) == (3, 4)
    assert log.of(TrialStarted) == []
    assert states(companion) == ["PRUNED"] * 4
    other.close()


def test_a_plan_of_another_version_hinders_no_worker(study: OpenStudy, train_nothing: list[Recipe]) -> None:
    """Nobody can tell which trial of the search is trained again; it is, all the same."""
    _, companion, _ = open_round(study, WISH, again=False)
    companion.study.set_user_attr(PLAN_KEY, {**companion.study.user_attrs[PLAN_KEY], "format": 2})

    log = work(study, 2)

    assert len(train_nothing) == 4
    assert notices(log)[0].startswith("sample-confirm: trial 0 (?) started: ")


def test_a_dead_helpers_trial_is_taken_up_by_the_next_worker(
    study: OpenStudy, url: str, train_nothing: list[Recipe]
) -> None:
    """Though it is a worker of the study, and the trial is the companion's."""
    current, companion, _ = open_round(study, WISH, again=False)
    dead = open_database(url)
    dead.work_as(own_identity())
    open_study(dead, current.name).study.ask()
    dead.close()
    assert states(companion)[0] == "RUNNING"

    log = work(study, 2)

    assert len(train_nothing) == 4
    assert any(
        text.startswith("sample-confirm: trial 0 (trial 1 of the search) started") for text in notices(log)
    )


@pytest.mark.parametrize("is_new", [True, False])
def test_a_companion_that_is_deleted_ends_no_worker(
    database: Database, study: OpenStudy, train_nothing: list[Recipe], is_new: bool
) -> None:
    """It goes on with its own study; one that is made in its place, on SQLite of the same id, is another."""
    open_round(study, WISH, again=False)
    deleted: list[bool] = []

    class Deleting(Log):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if (
                isinstance(event, Notice)
                and "trial 1 (the article's recipe) pruned" in event.text
                and not deleted
            ):
                deleted.append(True)
                optuna.delete_study(study_name="sample-confirm", storage=database.storage)
                if is_new:
                    open_round(study, ConfirmWish(top=1, seeds=3), again=False)

    log = work(study, 3, Deleting())

    assert [event.number for event in log.of(TrialStarted)] == [2]
    assert len(train_nothing) == 2 + (6 if is_new else 0) + 1


def test_a_failure_in_a_companion_counts_as_any(study: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three in a row end the worker, in whichever study; each is recorded where it belongs."""
    from search.errors import SearchError

    _, companion, _ = open_round(study, WISH, again=False)

    def train(*_: Any, **__: Any) -> None:
        raise ValueError("no such instruction")

    monkeypatch.setattr("search.single_runner.Trainer.train", train)
    monkeypatch.setattr("search.worker.REST_SECONDS", 0.0)

    with pytest.raises(SearchError, match="3 trials failed one after another"):
        work(study, 9)

    assert states(companion) == ["FAIL"] * 3 + ["WAITING"]
    assert len(study.study.trials) == 2


def test_no_plot_is_drawn_for_a_companion(
    study: OpenStudy, train_nothing: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its best seed is what a confirmation guards against; the study's own plot is drawn as ever."""
    drawn: list[str] = []
    publish: Callable[..., bool] = Database.publish

    def spy(self: Database, one: Any, *arguments: Any) -> bool:
        drawn.append(one.study_name)
        return publish(self, one, *arguments)

    monkeypatch.setattr(Database, "publish", spy)
    open_round(study, WISH, again=False)

    work(study, 3)

    assert set(drawn) == {"sample"}
