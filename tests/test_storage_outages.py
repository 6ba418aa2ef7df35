"""Outages: which errors pass, how long they are waited out, and that a study's writes survive them."""

import inspect
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]  # It ships no types.
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from postgres import PostgresServer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from tcp_proxy import TcpProxy
from test_storage_shared import MODEL, Office, change

import storage.outages
from storage.errors import StorageError
from storage.outages import Retries, explain, is_passing
from storage.shared_storage import SharedStorage


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that may be restarted."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[TcpProxy]:
    """A proxy before the server."""
    with TcpProxy(server.port) as opened:
        yield opened


def error_of(url: str, *statements: str) -> DBAPIError:
    """What the last of the statements fails with."""
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    with pytest.raises(DBAPIError) as failed, engine.begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()
    return failed.value


def test_a_connection_that_is_refused_or_cut_passes(server: PostgresServer, proxy: TcpProxy) -> None:
    """While the server is away, and for the connections that it had."""
    url = proxy.url(server.create_database())
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
        proxy.cut()
        with pytest.raises(DBAPIError) as lost:
            connection.execute(sqlalchemy.text("SELECT 1"))
    engine.dispose()

    assert is_passing(lost.value)
    assert is_passing(error_of(url, "SELECT 1"))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_passes(server: PostgresServer, mode: Any) -> None:
    """Also as Optuna wraps it."""
    url = server.create_database()
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
        server.restart(mode)
        with pytest.raises(DBAPIError) as lost:
            connection.execute(sqlalchemy.text("SELECT 1"))
    engine.dispose()

    assert is_passing(lost.value)
    wrapped = StorageInternalError("An exception is raised during the commit.")
    wrapped.__cause__ = lost.value
    assert is_passing(wrapped)
    assert explain(wrapped) == explain(lost.value)
    assert "\n" not in explain(wrapped)


def test_a_connection_that_the_server_ended_passes(server: PostgresServer) -> None:
    """An administrator's doing, or too long a silence within a transaction."""
    assert is_passing(error_of(server.create_database(), "SELECT pg_terminate_backend(pg_backend_pid())"))


def test_a_deadlock_and_full_resources_pass(server: PostgresServer) -> None:
    """PostgreSQL's codes of what another try can get over."""
    url = server.create_database()
    for code in ("40P01", "40001", "53300", "53100", "57P03", "08006", "25P03", "25006", "57014", "58030"):
        raised = f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$"
        assert is_passing(error_of(url, raised)), code


def test_what_another_try_cannot_mend_does_not_pass(server: PostgresServer) -> None:
    """Wrong passwords and names, rows that contradict others, statements that make no sense."""
    url = server.create_database()
    user, _, address = url.removeprefix("postgresql://").partition("@")
    name = user.split(":")[0]
    for wrong in (
        f"postgresql://{name}:wrong@{address}",
        f"postgresql://{name}@{address}",
        f"postgresql://nobody:wrong@{address}",
        f"{url}_other",
        f"{url}?sslmode=require",
        url.replace("127.0.0.1", "no-such-host.invalid"),
    ):
        assert not is_passing(error_of(wrong, "SELECT 1")), wrong
    table = "CREATE TABLE t (a INTEGER PRIMARY KEY)"
    assert isinstance(
        error := error_of(url, table, "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"), IntegrityError
    )
    assert not is_passing(error)
    assert not is_passing(error_of(url, "SELECT nothing FROM nowhere"))


def test_sqlites_errors(tmp_path: Path) -> None:
    """A lock passes; a missing table, a constraint and a folder that is not there do not."""
    url = f"sqlite:///{tmp_path}/a.db?timeout=0"
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert is_passing(error_of(url, "CREATE TABLE t (a INTEGER)"))
    other.close()

    assert not is_passing(error_of(url, "SELECT nothing FROM nowhere"))
    table = "CREATE TABLE t (a INTEGER PRIMARY KEY)"
    assert not is_passing(error_of(url, table, "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"))
    assert not is_passing(error_of(f"sqlite:///{tmp_path}/no/where.db", "SELECT 1"))


def test_other_errors_do_not_pass() -> None:
    """What no driver raised, but for SQLAlchemy's own wait for a connection of its pool."""
    assert not is_passing(ValueError("no"))
    assert not is_passing(TimeoutError("no"))
    assert not is_passing(SQLAlchemyError("no"))
    assert not is_passing(StorageInternalError("no"))
    assert is_passing(sqlalchemy.exc.TimeoutError("QueuePool limit"))
    assert explain(ValueError()) == "ValueError"
    assert explain(ValueError("two\n  lines")) == "two lines"


class Clock:
    """A clock that goes on only where somebody sleeps, in place of the module `time`."""

    def __init__(self) -> None:
        """It begins somewhere."""
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of `storage.outages`."""
    made = Clock()
    monkeypatch.setattr(storage.outages, "time", made)
    return made


def away(clock: Clock, until: float) -> Any:
    """A transaction on a database that is away until then."""

    def work() -> str:
        if clock.now < until:
            raise sqlalchemy.exc.TimeoutError("nobody\nthere")
        return "done"

    return work


def test_an_outage_is_waited_out_and_logged_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """When it begins and when it is over, however many tries lie between."""
    retries = Retries("storage s", patience_seconds=100)

    assert retries.run(away(clock, 1060.0)) == "done"

    begun, over = (record.getMessage() for record in caplog.records)
    assert begun == "storage s: nobody there; trying again for up to 100 s"
    assert over.startswith("storage s is back after 6")
    assert clock.now < 1060 + storage.outages.LONGEST_DELAY_SECONDS + 1


def test_patience_has_an_end(clock: Clock) -> None:
    """The last error comes out; without patience, the first."""
    with pytest.raises(sqlalchemy.exc.TimeoutError):
        Retries("s", patience_seconds=100).run(away(clock, 1e9))
    assert 1100 <= clock.now < 1106

    now = clock.now
    with pytest.raises(sqlalchemy.exc.TimeoutError):
        Retries("s").run(away(clock, 1e9))
    assert clock.now == now


def test_a_process_that_is_told_to_stop_waits_little(clock: Clock) -> None:
    """Also where it is told in the middle of waiting."""
    retries = Retries("s", 1000, must_hurry=lambda: clock.now >= 1050)

    with pytest.raises(sqlalchemy.exc.TimeoutError):
        retries.run(away(clock, 1e9))
    assert 1050 <= clock.now < 1051

    with pytest.raises(sqlalchemy.exc.TimeoutError):
        retries.run(away(clock, 1e9))
    assert clock.now < 1051 + storage.outages.HURRIED_SECONDS + 1


def test_a_name_that_was_known_once_is_tried_again(clock: Clock) -> None:
    """After a first success, a resolver that fails or a password that is refused is an outage as well."""
    error = sqlalchemy.exc.OperationalError(
        "SELECT 1", {}, psycopg2.OperationalError('could not translate host name "db" to address')
    )
    outcomes: list[Any] = [error, "first", error, error, "second"]

    def work() -> str:
        if outcomes[0] is error:
            raise outcomes.pop(0)
        return str(outcomes.pop(0))

    retries = Retries("s", patience_seconds=100)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        retries.run(work)
    assert retries.run(work) == "first"
    assert retries.run(work) == "second"


def test_what_does_not_pass_is_not_tried_again(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is it logged: it comes out."""
    calls = []

    def work() -> None:
        calls.append(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Retries("s", patience_seconds=100).run(work)
    assert calls == [1]
    assert caplog.records == []


def test_every_call_of_optunas_storage_is_tried_again() -> None:
    """Whatever of it opens a session is replaced, but for what no worker calls."""
    # Made and deleted by people, who see the error; heartbeats are off; the rest is done at the opening.
    others = {
        *("create_new_study", "delete_study", "record_heartbeat", "_get_stale_trial_ids"),
        *("_init_version_info_model", "check_table_schema_compatibility"),
        *("_is_alembic_supported", "upgrade"),
    }
    calls = {
        name
        for name, method in vars(RDBStorage).items()
        if inspect.isfunction(method) and "_create_scoped_session(self" in inspect.getsource(method)
    }
    assert calls - set(vars(SharedStorage)) <= others


def test_a_study_goes_on_through_restarts(server: PostgresServer) -> None:
    """Every write of a worker finds the server again, with a stale connection each time."""
    with Office(server.create_database()) as office:
        worker = office.hire(patience_seconds=60)
        steps: list[Any] = [
            lambda: trial.suggest_float("x", 0, 1),
            lambda: trial.report(0.5, 1),
            lambda: trial.set_user_attr("key", 1),
            lambda: worker.leases.workers(),
            lambda: claimed.save_checkpoint(b"state", {}),
            lambda: claimed.finish(TrialState.COMPLETE, 0.5, [MODEL]),
            lambda: worker.study.best_value,
            lambda: worker.take(),
        ]
        trial, claimed = worker.take()
        for step in steps:
            server.restart("immediate")
            step()

        first, second = worker.study.trials
    assert (first.state, first.intermediate_values) == (TrialState.COMPLETE, {1: 0.5})
    assert (list(first.params), first.user_attrs) == (["x"], {"key": 1})
    assert second.state == TrialState.RUNNING


def test_a_study_waits_for_a_server_that_is_away(
    server: PostgresServer, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that begins while nobody listens is made once somebody does."""
    with Office(proxy.url(server.create_database())) as office:
        worker = office.hire(patience_seconds=60)
        trial, _ = worker.take()
        proxy.cut()
        tried = threading.Event()
        monkeypatch.setattr(storage.outages.LOG, "warning", lambda *_: tried.set())
        writer = threading.Thread(target=trial.report, args=(0.5, 1))
        writer.start()
        assert tried.wait(60)
        proxy.restore()
        writer.join(60)

        assert worker.study.trials[0].intermediate_values == {1: 0.5}


def test_a_server_that_became_read_only_is_left(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover: the write waits, and goes by a new connection, where the primary is now."""
    with Office(server.create_database()) as office:
        worker, other = office.hire(patience_seconds=60), office.hire()
        trial, _ = worker.take()
        name = make_url(office.url).database
        said: list[Any] = []

        def set_read_only(value: str) -> None:
            statement = f"ALTER DATABASE {name} SET default_transaction_read_only = {value}"
            change(other.database, sqlalchemy.text(statement))

        def relieve(*message: Any) -> None:
            said.append(message)
            set_read_only("off")

        set_read_only("on")
        worker.database._backend.engine.dispose()
        monkeypatch.setattr(storage.outages.LOG, "warning", relieve)
        trial.report(0.5, 1)

        assert "read-only" in str(said[0])
        assert worker.study.trials[0].intermediate_values == {1: 0.5}


def test_a_database_that_is_away_is_an_error_of_ours(server: PostgresServer, proxy: TcpProxy) -> None:
    """Opening it says which and why, in one line."""
    url = proxy.url(server.create_database())
    proxy.cut()

    with pytest.raises(StorageError, match=r"^storage postgresql.*:\*\*\*@127.0.0.1.* refused"):
        Office(url).open()
