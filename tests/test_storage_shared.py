"""Trials of many workers: an exact total, a lease with each trial, writes that only its holder makes."""

import math
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

import optuna
import psycopg2  # type: ignore[import-untyped]  # It ships no types.
import pytest
import sqlalchemy
from optuna.storages._rdb import models
from optuna.study import Study
from optuna.trial import Trial, TrialState

from storage.artifacts import Artifacts
from storage.claimed_trial import ClaimedTrial, NamedFile
from storage.database import Database, open_database
from storage.errors import LeaseLost, TrialLimitReached
from storage.leases import Leases
from storage.process import Identity
from storage.schema import FILES, LEASES, LOOSE_FILES, TRIALS
from storage.shared_storage import SharedStorage
from storage.trial_rows import REPORTS, SYSTEM_ATTRS, USER_ATTRS, VALUES

THREADS = 8
TOTAL = 100
LEASED = "INSERT INTO cnn_search_leases"
PATIENCE_SECONDS = 60.0
PARAMS: Any = models.TrialParamModel.__table__
MODEL = NamedFile("model", "trial-0-0.7712.h5", "application/x-hdf5", b"\x89HDF" + bytes(range(256)))
HISTORY = NamedFile("history", "trial-0-history.csv", "text/csv", b"epoch\n1\n")


@dataclass(frozen=True, eq=False)
class Worker:
    """What a worker process has of a study: a database of its own, and a name."""

    database: Database
    study: Study
    identity: Identity
    leases: Leases
    artifacts: Artifacts

    def take(self) -> tuple[Trial, ClaimedTrial]:
        """The next trial, claimed."""
        trial = self.study.ask()
        return trial, self.claim(trial)

    def claim(self, trial: Trial) -> ClaimedTrial:
        """A trial that was asked for."""
        return self.database.claimed(self.artifacts, trial._trial_id)

    def expire(self) -> None:
        """Let the worker's leases run out, now."""
        self.leases.renew(self.identity, -1.0)


class Office:
    """Workers of one study "s", all of other machines unless they are given an identity."""

    def __init__(self, url: str) -> None:
        """Workers on the database at `url`."""
        self.url = url
        self._opened: list[Database] = []

    def __enter__(self) -> Self:
        """The office, to be closed at the block's end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the workers' databases."""
        for database in self._opened:
            database.close()

    def open(self, patience_seconds: float = 0.0) -> tuple[Database, Study]:
        """The database and the study, for one who works on no trials."""
        database = open_database(self.url, patience_seconds=patience_seconds)
        self._opened.append(database)
        with database.exclusive():
            study = optuna.create_study(
                storage=database.storage,
                study_name="s",
                direction="maximize",
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(0),
            )
        return database, study

    def hire(
        self,
        identity: Identity | None = None,
        *,
        max_retries: int = 5,
        outside: str | None = None,
        patience_seconds: float = 0.0,
    ) -> Worker:
        """One more worker, whose leases hold for ten minutes."""
        database, study = self.open(patience_seconds)
        identity = stranger() if identity is None else identity
        database.work_as(identity)
        leases = database.leases(study, max_retries)
        leases.renew(identity, 600.0)
        return Worker(database, study, identity, leases, database.open_artifacts(outside, "folder"))


def stranger(host: str = "elsewhere") -> Identity:
    """A worker of another machine, about which only the database tells."""
    return Identity(uuid4().hex, host, 7, f"{host}/boot/pid:[1]", "1234")


def content_of(database: Database) -> dict[str, list[Any]]:
    """All that the database holds of trials, by table."""
    tables = (TRIALS, PARAMS, VALUES, REPORTS, USER_ATTRS, SYSTEM_ATTRS, FILES, LEASES, LOOSE_FILES)
    with database._backend.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sqlalchemy.select(table)).all()))
            for table in tables
        }


def holders(database: Database) -> dict[int, str]:
    """The worker of each leased trial, by the trial's number."""
    query = sqlalchemy.select(TRIALS.c.number, LEASES.c.worker).join(
        LEASES, LEASES.c.trial_id == TRIALS.c.trial_id
    )
    with database._backend.engine.connect() as connection:
        return {number: worker for number, worker in connection.execute(query)}


def change(database: Database, statement: sqlalchemy.Executable) -> None:
    """Do behind everyone's back what no program of ours does."""
    with database._backend.engine.begin() as connection:
        connection.execute(statement)


@contextmanager
def broken_commit(
    database: Database, outcome: Literal["done", "lost"], statement: str = "INSERT"
) -> Iterator[None]:
    """Let one commit fail as it does when the connection breaks: before it reached the server, or after.

    It is the first one after a statement that begins with `statement`.
    """
    engine = database._backend.engine
    dialect: Any = engine.dialect
    real = dialect.do_commit
    seen: list[str] = []

    def on_execute(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if text.startswith(statement):
            seen.append(text)

    def commit(connection: Any) -> None:
        if not seen:
            real(connection)
            return
        dialect.do_commit = real
        if outcome == "done":
            real(connection)
        else:
            dialect.do_rollback(connection)
        if dialect.name == "postgresql":
            raise psycopg2.OperationalError("server closed the connection unexpectedly")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    dialect.do_commit = commit
    sqlalchemy.event.listen(engine, "before_cursor_execute", on_execute)
    try:
        yield
        assert dialect.do_commit == real, "no such commit"
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", on_execute)
        dialect.do_commit = real


@pytest.fixture
def office(any_url: str) -> Iterator[Office]:
    """Workers on an empty database, of each kind."""
    with Office(any_url) as opened:
        yield opened


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna waits up to two seconds, at random, before it tries again to create a trial."""
    monkeypatch.setattr("optuna.storages._rdb.storage.random.random", lambda: 0.0)


def test_threads_create_exactly_the_total(office: Office) -> None:
    """Eight threads that ask for as much as they get have 100 trials between them, each number once."""
    database, study = office.open()
    database.limit_trials(study, TOTAL)

    def ask_all(_: int) -> list[int]:
        numbers = []
        while True:
            try:
                trial = study.ask()
            except TrialLimitReached:
                return numbers
            numbers.append(trial.number)
            study.tell(trial, 0.5)

    with ThreadPoolExecutor(THREADS) as pool:
        taken = list(pool.map(ask_all, range(THREADS)))

    assert sorted(number for numbers in taken for number in numbers) == list(range(TOTAL))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * TOTAL


def test_the_limit_is_the_studys_alone_and_can_change(any_database: Database) -> None:
    """Enqueued trials count; raising or lifting the limit lets more in, lowering it takes none away."""
    study = optuna.create_study(storage=any_database.storage, study_name="limited")
    other = optuna.create_study(storage=any_database.storage, study_name="other")
    assert any_database.read_limit(study) is None
    any_database.limit_trials(study, 2)
    study.enqueue_trial({})
    study.ask()
    study.ask()

    with pytest.raises(TrialLimitReached):
        study.ask()
    with pytest.raises(TrialLimitReached):
        study.enqueue_trial({})
    assert len(study.trials) == 2
    assert other.ask().number == 0

    any_database.limit_trials(study, 3)
    assert study.ask().number == 2
    any_database.limit_trials(study, 1)
    assert any_database.read_limit(study) == 1
    with pytest.raises(TrialLimitReached):
        study.ask()
    assert len(study.trials) == 3
    any_database.limit_trials(study, None)
    assert any_database.read_limit(study) is None
    assert study.ask().number == 3


def test_a_new_trial_comes_with_its_lease(office: Office) -> None:
    """Also one that waited; one that is only enqueued has none."""
    worker = office.hire()
    worker.study.enqueue_trial({"x": 1.0})
    worker.study.enqueue_trial({"x": 2.0})
    assert holders(worker.database) == {}

    assert [worker.take()[0].number for _ in range(2)] == [0, 1]
    assert worker.take()[0].number == 2
    assert holders(worker.database) == dict.fromkeys(range(3), worker.identity.worker)


def test_without_a_worker_there_are_no_leases(office: Office) -> None:
    """A user's own script asks and tells through the same storage, as through Optuna's."""
    database, study = office.open()
    study.enqueue_trial({"x": 1.0})

    for value in (0.5, 0.75):
        trial = study.ask()
        trial.suggest_float("x", 0, 2)
        trial.report(0.25, 1)
        trial.set_user_attr("key", [1])
        study.tell(trial, value)

    assert holders(database) == {}
    assert [trial.value for trial in study.trials] == [0.5, 0.75]
    assert study.trials[1].intermediate_values == {1: 0.25}
    with pytest.raises(ValueError, match="claimed by a worker, and this storage has none"):
        ClaimedTrial(database._backend, database.open_artifacts(None, ""), 1)


def test_no_trial_runs_without_its_lease(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure between the two leaves neither: nothing new, and what waited waits."""
    worker = office.hire()

    def crash(*_: Any) -> None:
        raise ConnectionResetError("the machine went away")

    with monkeypatch.context() as patch, pytest.raises(ConnectionResetError):
        patch.setattr(SharedStorage, "_claim", crash)
        worker.study.ask()
    assert worker.study.trials == []
    worker.study.enqueue_trial({})
    with monkeypatch.context() as patch, pytest.raises(ConnectionResetError):
        patch.setattr(SharedStorage, "_claim", crash)
        worker.study.ask()

    assert [trial.state for trial in worker.study.trials] == [TrialState.WAITING]
    assert worker.take()[0].number == 0


def test_a_waiting_trial_goes_to_one_worker(office: Office) -> None:
    """Four workers that ask at once for twenty waiting trials have each of them once."""
    workers = [office.hire() for _ in range(4)]
    for x in range(20):
        workers[0].study.enqueue_trial({"x": x})
    workers[0].database.limit_trials(workers[0].study, 20)

    def ask_all(worker: Worker) -> dict[int, str]:
        mine = {}
        while True:
            try:
                mine[worker.study.ask().number] = worker.identity.worker
            except TrialLimitReached:
                return mine

    with ThreadPoolExecutor(len(workers)) as pool:
        taken = list(pool.map(ask_all, workers))

    assert sum(map(len, taken)) == 20
    assert {number: worker for mine in taken for number, worker in mine.items()} == holders(
        workers[0].database
    )


def test_a_trial_that_goes_on_began_when_it_began(office: Office) -> None:
    """Being handed on does not make a trial look younger than it is."""
    first, second = office.hire(), office.hire()
    _, claimed = first.take()
    began = first.study.trials[0].datetime_start
    claimed.hand_back(None, {})

    assert second.take()[0].number == 0

    assert began is not None
    assert second.study.trials[0].datetime_start == began


@pytest.mark.parametrize("waits", [False, True], ids=["new", "waiting"])
@pytest.mark.parametrize("outcome", ["done", "lost"])
def test_a_trial_whose_commit_was_not_confirmed_is_released(
    office: Office, outcome: Literal["done", "lost"], waits: bool, no_pause: None
) -> None:
    """The worker never learns that it has it; it hands it back before it asks again."""
    worker = office.hire(patience_seconds=PATIENCE_SECONDS)
    if waits:
        worker.study.enqueue_trial({})

    with broken_commit(worker.database, outcome, LEASED):
        trial = worker.study.ask()
    worker.database.release_strays()

    assert trial.number == (1 if outcome == "done" else 0)
    assert holders(worker.database) == {trial.number: worker.identity.worker}
    trial.report(0.5, 1)
    if outcome == "done":
        stray = worker.study.ask()
        assert stray.number == 0
        stray.report(0.5, 1)


def test_a_total_holds_through_an_unconfirmed_commit(office: Office, no_pause: None) -> None:
    """The trial that was created all the same is not created again."""
    worker = office.hire(patience_seconds=PATIENCE_SECONDS)
    worker.database.limit_trials(worker.study, 1)

    with broken_commit(worker.database, "done", LEASED), pytest.raises(TrialLimitReached):
        worker.study.ask()
    worker.database.release_strays()

    assert worker.study.ask().number == 0
    assert len(worker.study.trials) == 1


def test_a_trial_that_was_handed_back_can_stray_too(office: Office) -> None:
    """That a worker once had it does not make it known to it."""
    worker = office.hire(patience_seconds=PATIENCE_SECONDS)
    worker.take()[1].hand_back(None, {})

    with broken_commit(worker.database, "done", LEASED):
        assert worker.study.ask().number == 1
    worker.database.release_strays()

    assert worker.study.ask().number == 0


def test_a_stray_that_another_worker_takes_meanwhile_is_its_own(postgres: Callable[[], str]) -> None:
    """Here it is reaped and taken in the middle of the release; SQLite lets nobody between."""
    with Office(postgres()) as office:
        worker, other = office.hire(), office.hire()
        worker.take()
        worker.database._backend.claimed.clear()
        taken: list[int] = []

        def on_execute(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
            if text.startswith("DELETE FROM cnn_search_leases") and not taken:
                worker.leases.leave(worker.identity)
                assert len(other.leases.reap()) == 1
                taken.append(other.take()[0].number)

        engine = worker.database._backend.engine
        sqlalchemy.event.listen(engine, "before_cursor_execute", on_execute)
        worker.database.release_strays()

        assert taken == [0]
        assert holders(other.database) == {0: other.identity.worker}
        assert other.study.trials[0].state == TrialState.RUNNING


def test_a_stray_that_has_ended_stays_so(office: Office) -> None:
    """Another program may have ended it under the worker's lease."""
    worker = office.hire()
    trial, _ = worker.take()
    worker.database._backend.claimed.clear()
    change(worker.database, sqlalchemy.update(TRIALS).values(state=TrialState.FAIL))

    worker.database.release_strays()

    assert worker.study.trials[trial.number].state == TrialState.FAIL
    assert holders(worker.database) == {}


def test_a_study_with_its_total_says_so(office: Office) -> None:
    """Whoever enqueues a trial by hand is told what the total is."""
    database, study = office.open()
    database.limit_trials(study, 1)
    study.enqueue_trial({})

    with pytest.raises(TrialLimitReached, match="the study has 1 of its 1 trials, waiting ones included"):
        study.enqueue_trial({})


def test_strays_are_this_workers_alone(office: Office) -> None:
    """What others have, and what this one knows of, stays theirs."""
    first, second = office.hire(), office.hire()
    first.take()
    second.take()

    first.database.release_strays()

    assert holders(first.database) == {0: first.identity.worker, 1: second.identity.worker}


WRITES: dict[str, Callable[[Worker, Trial, ClaimedTrial], Any]] = {
    "parameter": lambda worker, trial, claimed: trial.suggest_float("y", 0, 1),
    "report": lambda worker, trial, claimed: trial.report(0.9, 7),
    "user attribute": lambda worker, trial, claimed: trial.set_user_attr("late", 1),
    "system attribute": lambda worker, trial, claimed: worker.database.storage.set_trial_system_attr(
        trial._trial_id, "late", 1
    ),
    "state": lambda worker, trial, claimed: worker.database.storage.set_trial_state_values(
        trial._trial_id, TrialState.COMPLETE, [0.9]
    ),
    "user attributes": lambda worker, trial, claimed: claimed.set_user_attrs({"late": 1}),
    "checkpoint": lambda worker, trial, claimed: claimed.save_checkpoint(b"late", {"late": 1}),
    "finish": lambda worker, trial, claimed: claimed.finish(
        TrialState.COMPLETE, 0.9, [MODEL, HISTORY], {"late": 1}
    ),
    "failure": lambda worker, trial, claimed: claimed.finish(TrialState.FAIL, None),
    "hand back": lambda worker, trial, claimed: claimed.hand_back(b"late", {"late": 1}),
    "hand back as it is": lambda worker, trial, claimed: claimed.hand_back(None, {}),
    "give up": lambda worker, trial, claimed: claimed.give_up("late", {"late": 1}, 0),
}


def lose_to_nobody(worker: Worker, other: Worker) -> None:
    """The lease is gone; so it is between reaping and the next ask."""
    change(worker.database, sqlalchemy.delete(LEASES))


def lose_to_another(worker: Worker, other: Worker) -> None:
    """Another worker runs the trial, and has a checkpoint of its own."""
    worker.leases.leave(worker.identity)
    assert len(other.leases.reap()) == 1
    trial, claimed = other.take()
    assert trial.number == 0
    claimed.save_checkpoint(b"other's", {})


def lose_to_the_end(worker: Worker, other: Worker) -> None:
    """Another worker has completed the trial."""
    lose_to_another(worker, other)
    trial = worker.study.trials[0]
    finish = other.database.claimed(other.artifacts, trial._trial_id).finish
    finish(TrialState.COMPLETE, 0.5, [MODEL], {})


@pytest.mark.parametrize("lose", [lose_to_nobody, lose_to_another, lose_to_the_end])
def test_who_lost_the_lease_writes_nothing(office: Office, lose: Callable[[Worker, Worker], None]) -> None:
    """Each write is refused whole, whoever has the trial now, also where it comes to the same end."""
    worker, other = office.hire(), office.hire()
    trial, claimed = worker.take()
    trial.report(0.5, 1)
    claimed.save_checkpoint(b"state", {"seconds": 1})
    lose(worker, other)
    before = content_of(other.database)

    for name, write in WRITES.items():
        # Optuna's own refusal comes before the fence where the trial has ended.
        with pytest.raises((LeaseLost, optuna.exceptions.UpdateFinishedTrialError)) as refused:
            write(worker, trial, claimed)
        assert content_of(other.database) == before, name
        assert lose is lose_to_the_end or isinstance(refused.value, LeaseLost), name


def test_only_the_writes_of_a_lost_trial_are_refused(office: Office) -> None:
    """A worker that lost one trial goes on with another."""
    worker, other = office.hire(), office.hire()
    lost, claimed = worker.take()
    lose_to_another(worker, other)
    with pytest.raises(LeaseLost):
        lost.report(0.5, 1)
    claimed.let_go()

    trial, claimed = worker.take()
    trial.report(0.5, 1)
    claimed.finish(TrialState.COMPLETE, 0.5)

    assert worker.study.trials[trial.number].state == TrialState.COMPLETE


def test_reports_are_read_as_they_were_made(office: Office) -> None:
    """Also those that no database column takes as they are; a step reported before stays as it was."""
    trial, _ = office.hire().take()
    values = {1: 0.25, 2: math.inf, 3: -math.inf, 4: math.nan, 10: 1e-300}
    for step, value in values.items():
        trial.report(value, step)
    trial._cached_frozen_trial.intermediate_values.clear()
    trial.report(0.99, 1)

    _, study = office.open()
    read = study.trials[0].intermediate_values
    assert math.isnan(read.pop(4))
    assert read == {step: value for step, value in values.items() if step != 4}


def test_a_pruner_keeps_its_rungs(office: Office) -> None:
    """Successive halving writes them as system attributes of the trial, and reads those of others."""
    worker = office.hire()
    worker.study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    pruned = []
    for value in (0.9, 0.8, 0.1):
        trial, claimed = worker.take()
        trial.report(value, 1)
        pruned.append(trial.should_prune())
        claimed.finish(TrialState.PRUNED if pruned[-1] else TrialState.COMPLETE, value)

    assert pruned == [False, True, True]
    _, study = office.open()
    assert study.trials[0].system_attrs == {"completed_rung_0": 0.9}
    backend = worker.database._backend
    assert backend.get_trial_system_attrs(study.trials[0]._trial_id) == {"completed_rung_0": 0.9}


def test_a_system_attribute_is_replaced(office: Office) -> None:
    """The last one written counts, as in Optuna's own storage."""
    worker = office.hire()
    trial, _ = worker.take()
    for value in ({"a": [1, None]}, "é"):
        worker.database.storage.set_trial_system_attr(trial._trial_id, "key", value)

    assert worker.study.trials[0].system_attrs == {"key": "é"}


@pytest.mark.parametrize("write", ["parameter", "report", "user attribute", "system attribute"])
@pytest.mark.parametrize("outcome", ["done", "lost"])
def test_a_write_that_was_not_confirmed_is_made_once(
    office: Office, write: str, outcome: Literal["done", "lost"]
) -> None:
    """Trying again after a broken connection leaves what one try would have left."""
    worker = office.hire(patience_seconds=PATIENCE_SECONDS)
    trial, claimed = worker.take()

    with broken_commit(worker.database, outcome):
        WRITES[write](worker, trial, claimed)

    stored = worker.study.trials[0]
    given: dict[str, Any] = {
        "parameter": list(stored.params),
        "report": stored.intermediate_values,
        "user attribute": stored.user_attrs,
        "system attribute": stored.system_attrs,
    }
    expected: dict[str, Any] = {
        "parameter": ["y"],
        "report": {7: 0.9},
        "user attribute": {"late": 1},
        "system attribute": {"late": 1},
    }
    assert given[write] == expected[write]


def test_deleting_a_study_leaves_nothing_of_its_trials(office: Office, tmp_path: Path) -> None:
    """Optuna deletes rows of its own tables, and ours go with them; other studies' stay."""
    worker = office.hire()
    worker.take()[1].finish(TrialState.COMPLETE, 0.5, [MODEL, HISTORY])
    worker.take()[1].save_checkpoint(b"state", {})
    other = optuna.create_study(storage=worker.database.storage, study_name="other")
    claimed = worker.claim(other.ask())
    claimed.save_checkpoint(b"other's", {})

    optuna.delete_study(study_name="s", storage=worker.database.storage)

    with worker.database._backend.engine.connect() as connection:
        assert connection.scalars(sqlalchemy.select(FILES.c.content)).all() == [b"other's"]
        assert len(connection.execute(sqlalchemy.select(LEASES)).all()) == 1
    assert claimed.read_checkpoint() == b"other's"
