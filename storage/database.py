"""A study's database: from its URL to an Optuna storage that several processes can share."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, get_storage
from optuna.study import Study
from sqlalchemy.engine import URL

from storage.artifacts import Artifacts, open_outside
from storage.claimed_trial import ClaimedTrial
from storage.companions import OpenCompanion, find_open
from storage.errors import StorageError
from storage.leases import Leases
from storage.loose_files import sweep
from storage.outages import DATABASE_ERRORS, HURRIED_SECONDS, Retries, explain
from storage.process import Identity
from storage.published import publish
from storage.schema import FILES, TRIALS, create_schema, has_schema
from storage.shared_storage import TOTAL_KEY, SharedStorage
from storage.target import Target
from storage.trial_reader import STUDIES
from storage.url import check_sqlite_file, parse_url, show_url

SQLITE_WAIT_SECONDS: Final = 60.0
"""How long a process waits for another one's transaction; they last milliseconds."""
SQLITE_TRY_SECONDS: Final = 1.0
"""How much of it within the driver, which hears no signal."""
SETUP_WAIT_SECONDS: Final = 120.0
"""How long a process waits for others' set-ups: for longer than a dead machine's session lasts."""
SETUP_SILENT_SECONDS: Final = 3.0
"""After so long it says that it waits."""
SETUP_LOCK: Final = 0x636E6E73
"""Key of PostgreSQL's advisory lock for set-ups ("cnns" in ASCII); nothing but its uniqueness matters."""
POSTGRESQL_OPTIONS: Final[dict[str, Any]] = {
    "application_name": "cnn-search",
    "connect_timeout": 10,
    # A network that swallows packets is noticed within seconds, not after the system's two hours.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # A worker that is stopped (SIGSTOP, a frozen machine) within a transaction would hold its locks, and with
    # them all other workers, until it goes on.
    # The session of a machine that lost its power, and with it its locks, is over within 50 seconds.
    "options": "-c idle_in_transaction_session_timeout=10000 -c tcp_keepalives_idle=20 "
    "-c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}
"""libpq's connection parameters, unless the URL has its own; to `options`, those of the URL are added
(https://www.postgresql.org/docs/current/libpq-connect.html)."""
READ_ONLY: Final = "25006"
"""SQLSTATE of a write to a server that is no primary any more."""
LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Database:
    """An open database.

    Attributes:
        storage: Optuna's storage, for `optuna.load_study` and its kin.
        shown_url: The URL as it may be shown: without password.
        retries: How its outages are met.
    """

    storage: BaseStorage
    shown_url: str
    retries: Retries
    _url: URL = field(repr=False)
    _backend: SharedStorage = field(repr=False)

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold off every other process that asks for this, for set-ups of several steps; seconds at most."""
        return _one_at_a_time(self._url, self._backend.engine, self.retries)

    def limit_trials(self, study: Study, total: int | None) -> None:
        """Let `study` have `total` trials at most, counted over all processes; None lifts the limit.

        It is kept in the database: an ask that would create one more, in any process, raises
        `TrialLimitReached`.
        """
        self.storage.set_study_system_attr(study._study_id, TOTAL_KEY, total)

    def read_limit(self, study: Study) -> int | None:
        """How many trials `study` may have; None for no limit."""
        total: int | None = self.storage.get_study_system_attrs(study._study_id).get(TOTAL_KEY)
        return total

    def target(self, study: Study) -> Target:
        """The value at which the study stops; see `storage.target`."""
        return Target(self.storage, self._backend.engine, self.retries, study._study_id)

    def open_artifacts(self, outside: str | None, folder: str) -> Artifacts:
        """The stored files; `outside` is the URL of where new ones' bytes go, None for the database itself.

        Raises:
            StorageError: They cannot be kept there.
        """
        place = None if outside is None else open_outside(outside, folder, self.retries)
        return Artifacts(self._backend.engine, place)

    def sweep(self, study: Study, artifacts: Artifacts) -> None:
        """Remove the bytes that workers of `study` have left outside the database, if it keeps any there."""
        if artifacts.outside is not None:
            sweep(self._backend.engine, self.retries, artifacts.outside, study._study_id)

    def leases(self, study: Study, max_retries: int) -> Leases:
        """The study's leases; see `storage.leases`."""
        return Leases(self._backend.engine, self.retries, study._study_id, max_retries)

    def open_companions(self, study: Study) -> list[OpenCompanion]:
        """The companions of `study` whose trials wait or run, the oldest first; see `storage.companions`."""

        def find() -> list[OpenCompanion]:
            with self._backend.engine.connect() as connection:
                return find_open(connection, study._study_id)

        return self.retries.run(find)

    def work_as(self, identity: Identity) -> None:
        """From now on, trials asked for here are this worker's: each has a lease from its first moment."""
        self._backend.worker = identity.worker

    def claimed(self, artifacts: Artifacts, trial_id: int) -> ClaimedTrial:
        """A trial that this worker has asked for."""
        return ClaimedTrial(self._backend, artifacts, trial_id)

    def publish(self, study: Study, name: str, version: int, text: str) -> bool:
        """Show the figure `text` on the study's page, unless one of a higher version is there.

        See `storage.published.publish`, in a transaction of its own.

        Raises:
            SQLAlchemyError: The database is away for longer than patience lasts.
        """

        def transaction() -> bool:
            with self._backend.engine.begin() as connection:
                return publish(connection, study._study_id, name, version, text)

        return self.retries.run(transaction)

    def forget_study(self, study_id: int) -> None:
        """Drop what was read of a study, which is another one by now or none."""
        # As Optuna's cache does when it deletes a study itself.
        cache: Any = self.storage
        with cache._lock:
            if (known := cache._studies.pop(study_id, None)) is not None:
                for number in known.trials:
                    trial_id = cache._study_id_and_number_to_trial_id.pop((study_id, number), None)
                    cache._trial_id_to_study_id_and_number.pop(trial_id, None)

    def ping(self) -> None:
        """See that the database answers.

        Raises:
            SQLAlchemyError: It does not.
        """
        for is_last in (False, True):
            try:
                with self._backend.engine.connect() as connection:
                    connection.scalar(sqlalchemy.select(1))
                return
            except sqlalchemy.exc.SQLAlchemyError:
                # A connection from before a restart fails once, and is thrown away.
                if is_last:
                    raise

    def study_of_file(self, artifact_id: str) -> str | None:
        """The name of the study whose trial has that stored file; None where no trial has it."""
        query = (
            sqlalchemy.select(STUDIES.c.study_name)
            .join(TRIALS, TRIALS.c.study_id == STUDIES.c.study_id)
            .join(FILES, FILES.c.trial_id == TRIALS.c.trial_id)
            .where(FILES.c.artifact_id == artifact_id)
        )

        def find() -> str | None:
            with self._backend.engine.connect() as connection:
                name: str | None = connection.scalar(query)
            return name

        return self.retries.run(find)

    def release_strays(self) -> None:
        """Let trials wait that this worker has without knowing: their commit was never confirmed."""
        self._backend.release_strays()

    def close(self) -> None:
        """Give the connections back."""
        self.storage.remove_session()
        self._backend.engine.dispose()


def open_database(
    text: str,
    *,
    create: bool = True,
    patience_seconds: float = 0.0,
    must_hurry: Callable[[], bool] = lambda: False,
) -> Database:
    """Open the database at the URL `text`; `create` makes it, and its tables, where they are missing.

    Args:
        text: The URL.
        create: False leaves a database as it is, and refuses one that holds no study of this project.
        patience_seconds: How long to wait out a database that is away, now and later.
        must_hurry: Asked while waiting; when true, a few seconds have to do.

    Raises:
        StorageUrlError: The URL is of no accepted form.
        StorageError: The database cannot be reached, is no such database, or is missing and is not created.
    """
    url = parse_url(text)
    shown = show_url(url)
    retries = Retries(f"storage {shown}", patience_seconds, must_hurry)
    try:
        if url.drivername == "sqlite":
            check_sqlite_file(url, create=create)
        backend = retries.run(_open_backend, url, retries, create=create)
    except (*DATABASE_ERRORS, OSError) as error:
        raise StorageError(f"storage {shown}: {explain(error)}") from error
    except StorageError as error:
        raise StorageError(str(error) if shown in str(error) else f"storage {shown}: {error}") from error
    except RuntimeError as error:
        # Optuna refuses, with instructions, a schema that another version of it wrote.
        raise StorageError(f"storage {shown}: {error}") from error
    return Database(get_storage(backend), shown, retries, url, backend)


def _open_backend(url: URL, retries: Retries, *, create: bool) -> SharedStorage:
    address = url.render_as_string(hide_password=False)
    options = _engine_options(url)
    guard = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, **options)
    if has_schema(guard):
        backend = SharedStorage(address, options, retries, create=False)
    elif not create:
        raise StorageError("it holds no study of cnn-search; `cnn-search init` makes one there")
    else:
        with _one_at_a_time(url, guard, retries):
            backend = SharedStorage(address, options, retries, create=True)
            # Another process may have been here while this one waited.
            if not has_schema(guard):
                create_schema(backend.engine)
    if url.drivername == "sqlite":
        _serialise_sqlite(backend.engine, retries.of(f"storage {show_url(url)}", SQLITE_WAIT_SECONDS))
    else:
        _leave_read_only(backend.engine)
    return backend


def _engine_options(url: URL) -> dict[str, Any]:
    if url.drivername == "sqlite":
        return {"connect_args": {"timeout": SQLITE_WAIT_SECONDS}}
    given = {name: value for name, value in POSTGRESQL_OPTIONS.items() if name not in url.query}
    # The later one of two settings holds.
    given["options"] = " ".join([POSTGRESQL_OPTIONS["options"], *url.normalized_query.get("options", ())])
    return {"connect_args": given}


@contextmanager
def _one_at_a_time(url: URL, engine: sqlalchemy.Engine, retries: Retries) -> Iterator[None]:
    """Hold a lock of this database; Optuna's creation of tables and studies fails when two processes meet."""
    if url.drivername == "sqlite":
        lock = FileLock(f"{url.database}.lock")

        def try_file() -> bool:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return False
            return True

        _wait_for_set_ups(try_file, retries)
        try:
            yield
        finally:
            lock.release()
        return
    # The lock is the session's; within a transaction the server would end it as idle (`POSTGRESQL_OPTIONS`).
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        take = sqlalchemy.select(sqlalchemy.func.pg_try_advisory_lock(SETUP_LOCK))
        _wait_for_set_ups(lambda: bool(connection.scalar(take)), retries)
        try:
            yield
        finally:
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_unlock(SETUP_LOCK)))


def _wait_for_set_ups(try_lock: Callable[[], bool], retries: Retries) -> None:
    """Wait until `try_lock` gets the lock of set-ups.

    Raises:
        StorageError: Others have it for too long.
    """
    began, has_told = time.monotonic(), False
    while not try_lock():
        waited = time.monotonic() - began
        if waited >= (HURRIED_SECONDS if retries.must_hurry() else SETUP_WAIT_SECONDS):
            raise StorageError(
                f"another process has held the lock of set-ups for {waited:.0f} s; end that, or try later"
            )
        if waited >= SETUP_SILENT_SECONDS and not has_told:
            LOG.warning("waiting for another process that sets up the database or a study in it")
            has_told = True
        time.sleep(0.05)


def _serialise_sqlite(engine: sqlalchemy.Engine, retries: Retries) -> None:
    """Make each transaction take SQLite's write lock at its start, waiting as long as `retries` does.

    Deferred transactions let two processes claim one waiting trial, and fail at once with "database is
    locked" where a read turns into a write. Attached after Optuna's constructor, which opens nested sessions
    and would wait for itself.
    """

    def on_connect(connection: sqlite3.Connection, _: object) -> None:
        # The driver would begin transactions by itself, deferred.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA busy_timeout = {SQLITE_TRY_SECONDS * 1000:.0f}")

    def on_begin(connection: sqlalchemy.Connection) -> None:
        retries.run(connection.exec_driver_sql, "BEGIN IMMEDIATE")

    sqlalchemy.event.listen(engine, "connect", on_connect)
    sqlalchemy.event.listen(engine, "begin", on_begin)
    engine.dispose()


def _leave_read_only(engine: sqlalchemy.Engine) -> None:
    """Give up connections to a server that is read-only since another one took over its name."""

    def on_error(context: sqlalchemy.engine.ExceptionContext) -> None:
        if getattr(context.original_exception, "pgcode", None) == READ_ONLY:
            context.is_disconnect = True

    sqlalchemy.event.listen(engine, "handle_error", on_error)
