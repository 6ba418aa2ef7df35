"""A study's database: from its URL to an Optuna storage that several processes can share."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from storage.artifacts import SqlArtifactStore
from storage.errors import StorageError, StorageUrlError, TrialLimitReached

ACCEPTED: Final = "sqlite:///file.db, postgresql://user@host/name or postgres://user@host/name"
SQLITE_WAIT_SECONDS: Final = 60.0
"""How long a process waits for another one's transaction; they last milliseconds."""
SQLITE_SIGNATURE: Final = b"SQLite format 3\0"
"""How each database file begins (https://sqlite.org/fileformat.html), but for an empty one."""
SETUP_LOCK: Final = 0x636E6E73
"""Key of PostgreSQL's advisory lock for set-ups ("cnns" in ASCII); nothing but its uniqueness matters."""


@dataclass(frozen=True, eq=False)
class Database:
    """An open database.

    Attributes:
        storage: Optuna's storage, for `optuna.load_study` and its kin.
        artifacts: The files kept in the same database.
        shown_url: The URL as it may be shown: without password.
    """

    storage: BaseStorage
    artifacts: SqlArtifactStore
    shown_url: str
    _url: URL = field(repr=False)
    _backend: "SharedStorage" = field(repr=False)

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold off every other process that asks for this, for set-ups of several steps; seconds at most."""
        return _one_at_a_time(self._url, self._backend.engine)

    def limit_trials(self, study: Study, total: int | None) -> None:
        """Let `study` have `total` trials at most, counted over all processes; None lifts the limit.

        From then on an ask, here, that would create one more raises `TrialLimitReached`.
        """
        self._backend.limits[study._study_id] = total

    def close(self) -> None:
        """Give the connections back."""
        self.storage.remove_session()
        self._backend.engine.dispose()


class SharedStorage(RDBStorage):
    """Optuna's storage with a bound on the trials of a study that holds over all processes."""

    def __init__(self, url: str, engine_kwargs: dict[str, Any]) -> None:
        """Open, and where it is empty create, the database at `url`."""
        self.limits: dict[int, int | None] = {}
        super().__init__(url, engine_kwargs)

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> Any:
        # Optuna calls this in the transaction that holds the study's lock, so that no other process can
        # create a trial between the count and the insert. A callback that counts afterwards overshoots by
        # the number of workers (optuna issue #3518).
        limit = self.limits.get(study_id)
        if limit is not None:
            trials = sqlalchemy.text("SELECT count(*) FROM trials WHERE study_id = :study_id")
            if session.execute(trials, {"study_id": study_id}).scalar_one() >= limit:
                raise TrialLimitReached
        return super()._get_prepared_new_trial(study_id, template_trial, session)


def parse_url(text: str) -> URL:
    """The URL of a study's database, with the driver that this project uses.

    Raises:
        StorageUrlError: It is no URL, or of another kind than SQLite's files and PostgreSQL.
    """
    try:
        url = make_url(text)
    # A port that is no number is a ValueError.
    except (ArgumentError, ValueError) as error:
        raise StorageUrlError(f"storage {_mask(text)!r} is no database URL; give {ACCEPTED}") from error
    if url.host and "@" in url.host:
        raise StorageUrlError(
            f"storage {_mask(text)!r} has more than one @; write one that belongs to the password as %40"
        )
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg2"):
        if not url.database:
            raise StorageUrlError(f"storage {show_url(url)!r} names no database; give {ACCEPTED}")
        # SQLAlchemy 2.1 takes a bare postgresql:// to mean psycopg 3.
        return url.set(drivername="postgresql+psycopg2")
    if url.drivername != "sqlite":
        raise StorageUrlError(
            f"storage {show_url(url)!r}: {url.drivername} is not supported; give {ACCEPTED}"
        )
    # With two slashes, what follows is a host.
    if url.database in (None, "", ":memory:") or url.query or url.host or url.username:
        raise StorageUrlError(
            f"storage {show_url(url)!r} names no file; give for example sqlite:///cnn-search.db"
        )
    return url


def show_url(url: URL) -> str:
    """The URL as it may be shown: without password."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)


def _mask(text: str) -> str:
    """What is no URL, without all that can be a password in it."""
    return f"***{text[text.rindex('@') :]}" if "@" in text else text


def open_database(text: str, *, create: bool = True) -> Database:
    """Open the database at the URL `text`; `create` makes it, and its tables, where they are missing.

    Raises:
        StorageUrlError: The URL is of no accepted form.
        StorageError: The database cannot be reached, is no such database, or is missing and is not created.
    """
    url = parse_url(text)
    shown = show_url(url)
    try:
        if url.drivername == "sqlite":
            _check_sqlite_file(url, shown, create)
        address = url.render_as_string(hide_password=False)
        guard = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
        with _one_at_a_time(url, guard):
            backend = SharedStorage(address, _engine_options(url))
            if url.drivername == "sqlite":
                _serialise_sqlite(backend.engine)
            artifacts = SqlArtifactStore(backend.engine)
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        raise StorageError(f"storage {shown}: {explain(error)}") from error
    except RuntimeError as error:
        # Optuna refuses, with instructions, a schema that another version of it wrote.
        raise StorageError(f"storage {shown}: {error}") from error
    return Database(get_storage(backend), artifacts, shown, url, backend)


def check_storage(text: str) -> None:
    """See that the URL `text` can be opened or created, as far as can be seen without doing so.

    Raises:
        StorageUrlError: The URL is of no accepted form.
        StorageError: SQLite's file cannot be there.
    """
    url = parse_url(text)
    if url.drivername == "sqlite":
        _check_sqlite_file(url, show_url(url), create=True)


def _check_sqlite_file(url: URL, shown: str, create: bool) -> None:
    path = Path(str(url.database))
    if path.is_dir():
        raise StorageError(
            f"storage {shown}: {path} is a folder; name a file, for example {path / 'cnn-search.db'}"
        )
    if not path.parent.is_dir():
        raise StorageError(f"storage {shown}: folder {path.parent} does not exist; create it first")
    if not create and not path.exists():
        raise StorageError(f"storage {shown}: no such file; `cnn-search run` starts a study there")
    if path.exists():
        with path.open("rb") as file:
            beginning = file.read(len(SQLITE_SIGNATURE))
        if beginning not in (b"", SQLITE_SIGNATURE):
            raise StorageError(f"storage {shown}: {path} is no SQLite database; name another file")


def _engine_options(url: URL) -> dict[str, Any]:
    if url.drivername == "sqlite":
        return {"connect_args": {"timeout": SQLITE_WAIT_SECONDS}}
    return {"pool_pre_ping": True}


@contextmanager
def _one_at_a_time(url: URL, engine: sqlalchemy.Engine) -> Iterator[None]:
    """Hold a lock of this database; Optuna's creation of tables and studies fails when two processes meet."""
    if url.drivername == "sqlite":
        with FileLock(f"{url.database}.lock"):
            yield
        return
    with engine.connect() as connection:
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(SETUP_LOCK)))
        try:
            yield
        finally:
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_unlock(SETUP_LOCK)))


def _serialise_sqlite(engine: sqlalchemy.Engine) -> None:
    """Make each transaction take SQLite's write lock at its start.

    Deferred transactions let two processes claim one waiting trial, and fail at once with "database is
    locked" where a read turns into a write. Attached after Optuna's constructor, which opens nested sessions
    and would wait for itself.
    """

    def on_connect(connection: sqlite3.Connection, _: object) -> None:
        # The driver would begin transactions by itself, deferred.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    def on_begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sqlalchemy.event.listen(engine, "connect", on_connect)
    sqlalchemy.event.listen(engine, "begin", on_begin)
    engine.dispose()


def explain(error: BaseException) -> str:
    """What happened, on one line, in the words of the driver or system that it happened to.

    SQLAlchemy's messages add the statement and a link, Optuna's `StorageInternalError` guesses at the data.
    """
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return explain(error.__cause__)
    if isinstance(error, DBAPIError) and error.orig is not None:
        return explain(error.orig)
    return " ".join(str(error).split()) or type(error).__name__
