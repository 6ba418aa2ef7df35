"""A study's target is known to all processes, and reached by its own complete trials with a model alone."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psycopg2  # type: ignore[import-untyped]  # It ships no types.
import pytest
import sqlalchemy
from optuna.study import Study
from optuna.trial import TrialState
from test_storage_shared import MODEL, Office, Worker

from storage.database import Database, open_database


@pytest.fixture
def office(any_url: str) -> Iterator[Office]:
    """Workers of one study, on each kind of database."""
    with Office(any_url) as opened:
        yield opened


@pytest.fixture
def worker(office: Office) -> Worker:
    """One of them."""
    return office.hire()


def end(worker: Worker, value: float | None, state: TrialState = TrialState.COMPLETE) -> None:
    """Let the worker's next trial come to that end, with a model if it is complete."""
    _, claimed = worker.take()
    claimed.finish(state, value, [MODEL] if state == TrialState.COMPLETE else [])


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements that this process sends meanwhile."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        statements.append(text)

    engine = database._backend.engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", note)
    yield statements
    sqlalchemy.event.remove(engine, "before_cursor_execute", note)


def test_a_study_has_no_target_until_one_is_set(worker: Worker) -> None:
    """It can be set, changed and lifted, in one process for all, and is the study's alone."""
    target = worker.database.target(worker.study)
    other = optuna.create_study(storage=worker.database.storage, study_name="other")
    assert target.read() is None and not target.is_reached()
    end(worker, 0.9)
    assert not target.is_reached()

    target.set(0.7737)
    elsewhere = open_database(worker.database._url.render_as_string(hide_password=False), create=False)
    seen = elsewhere.target(optuna.load_study(storage=elsewhere.storage, study_name="s"))
    assert (seen.read(), seen.is_reached()) == (0.7737, True)
    assert worker.database.target(other).read() is None
    seen.set(0.95)
    assert (target.read(), target.is_reached()) == (0.95, False)
    seen.set(None)
    elsewhere.close()
    assert (target.read(), target.is_reached()) == (None, False)


def test_the_total_and_the_target_are_apart(worker: Worker) -> None:
    """Neither changes the other."""
    target = worker.database.target(worker.study)
    worker.database.limit_trials(worker.study, 7)
    target.set(0.5)
    assert (worker.database.read_limit(worker.study), target.read()) == (7, 0.5)


@pytest.mark.parametrize("value", [0.7737, 0.1, 0.8888888888888888, 1 / 3])
def test_a_value_that_equals_the_target_reaches_it(worker: Worker, value: float) -> None:
    """To the last bit, though a database keeps the one as text and the other as a number."""
    target = worker.database.target(worker.study)
    target.set(value)
    end(worker, value - 1e-12)
    assert not target.is_reached()
    end(worker, value)
    assert target.is_reached()


def test_only_complete_trials_with_a_model_of_the_study_count(worker: Worker) -> None:
    """Not one that is pruned, failed, running, of another study, or told without a model."""
    target = worker.database.target(worker.study)
    target.set(0.7)
    end(worker, 0.9, TrialState.PRUNED)
    end(worker, 0.9, TrialState.FAIL)
    trial, claimed = worker.take()
    trial.report(0.9, 1)
    other = optuna.create_study(storage=worker.database.storage, study_name="other", direction="maximize")
    foreign = worker.claim(other.ask())
    foreign.finish(TrialState.COMPLETE, 0.9, [MODEL])
    worker.study.add_trial(optuna.trial.create_trial(value=0.9))
    assert not target.is_reached()
    assert worker.database.target(other).read() is None

    claimed.finish(TrialState.COMPLETE, 0.7, [MODEL])
    assert target.is_reached()


def test_a_trial_counts_wherever_its_files_are(office: Office, tmp_path: Path) -> None:
    """Its model's row is in the database, its bytes need not be."""
    worker = office.hire(outside=f"file://{tmp_path}/files")
    worker.database.target(worker.study).set(0.7)
    end(worker, 0.71)
    assert worker.database.target(worker.study).is_reached()


def test_each_question_is_one_statement(worker: Worker) -> None:
    """However many trials there are, and none of them is loaded."""
    for value in (0.5, 0.6, 0.8):
        end(worker, value)
    target = worker.database.target(worker.study)
    for aim in (None, 0.7, 0.9):
        target.set(aim)
        with counted(worker.database) as statements:
            target.is_reached()
            target.read()
        assert [text.split()[0] for text in statements if "BEGIN" not in text] == ["SELECT"] * 2


def test_an_outage_is_waited_out(any_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every other statement; without patience it is an error."""
    monkeypatch.setattr("storage.outages.FIRST_DELAY_SECONDS", 0.0)
    for patience_seconds in (60.0, 0.0):
        database = open_database(any_url, patience_seconds=patience_seconds)
        study = optuna.create_study(storage=database.storage, study_name="s", load_if_exists=True)
        target = database.target(study)
        target.set(0.5)
        for ask in (target.read, target.is_reached):
            with broken_statement(database):
                if patience_seconds:
                    ask()
                else:
                    with pytest.raises(sqlalchemy.exc.DBAPIError):
                        ask()
        database.close()


@contextmanager
def broken_statement(database: Database) -> Iterator[None]:
    """Let the next SELECT fail as it does when the connection breaks."""
    dialect: Any = database._backend.engine.dialect
    real = dialect.do_execute
    failed: list[str] = []

    def execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        if failed or not statement.startswith("SELECT"):
            real(cursor, statement, parameters, context)
            return
        failed.append(statement)
        if dialect.name == "postgresql":
            raise psycopg2.OperationalError("server closed the connection unexpectedly")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    dialect.do_execute = execute
    try:
        yield
        assert len(failed) == 1
    finally:
        dialect.do_execute = real


def test_a_study_that_is_gone_has_none(any_database: Database) -> None:
    """Whoever asks for it is told so, and nothing breaks."""
    study: Study = optuna.create_study(storage=any_database.storage, study_name="s")
    target = any_database.target(study)
    target.set(0.5)
    optuna.delete_study(study_name="s", storage=any_database.storage)
    assert (target.read(), target.is_reached()) == (None, False)
