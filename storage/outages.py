"""A database that is away for a while: which errors pass by themselves, and waiting for them to."""

import logging
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from storage.errors import OutsideStoreError

FIRST_DELAY_SECONDS: Final = 0.1
LONGEST_DELAY_SECONDS: Final = 5.0
HURRIED_SECONDS: Final = 3.0
"""How long to go on trying once the process is told to stop."""
PASSING_SQLSTATES: Final = ("08", "40", "53", "57P", "57014", "58030", "25P03", "25006")
"""PostgreSQL's classes of connection loss, rolled back transactions, exhausted resources, shutdown and start;
a cancelled statement, an I/O error, a transaction that idled too long, a server that is read-only since
another one took over (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""
PASSING_SQLITE: Final = {5, 6, 10, 13}
"""SQLite's BUSY, LOCKED, IOERR and FULL (https://sqlite.org/rescode.html)."""
NOT_PASSING_WORDS: Final = (
    *("authentication failed", "no password supplied", "no pg_hba.conf entry", "does not exist"),
    *("could not translate", "does not support SSL"),
)
"""In what libpq says, which gives no code, of a connection that another try cannot make either; unless one
was made before: then names and passwords were right, and what changed may change back."""
DATABASE_ERRORS: Final = (SQLAlchemyError, StorageInternalError)
"""What SQLAlchemy and Optuna raise when the database fails them."""
WAITED_OUT: Final = (*DATABASE_ERRORS, OutsideStoreError)
LOG: Final = logging.getLogger(__name__)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Retries:
    """Runs transactions, again and again while the database is away, up to a bound.

    The same for writes to the place outside the database where files' bytes are kept.
    """

    def __init__(
        self,
        shown_url: str,
        patience_seconds: float = 0.0,
        must_hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Retries on a database.

        Args:
            shown_url: What log lines call it.
            patience_seconds: How long to go on trying; 0 gives up at the first error.
            must_hurry: Asked while waiting; when true, patience is cut to `HURRIED_SECONDS`.
        """
        self.patience_seconds = patience_seconds
        self.must_hurry = must_hurry
        self._shown_url = shown_url
        self._has_worked = False

    def of(self, shown: str, patience_seconds: float | None = None) -> "Retries":
        """This process's retries of something else, which log lines call `shown`."""
        patience = self.patience_seconds if patience_seconds is None else patience_seconds
        return Retries(shown, patience, self.must_hurry)

    def run(
        self, work: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """What `work` returns, which is one transaction that may be run again.

        Raises:
            Exception: What `work` raised, where that does not pass or patience is at its end.
        """
        began: float | None = None
        delay = FIRST_DELAY_SECONDS
        while True:
            try:
                result = work(*arguments, **options)
            except WAITED_OUT as error:
                if not is_passing(error, has_connected=self._has_worked):
                    raise
                if began is None:
                    began = time.monotonic()
                    if self.patience_seconds > 0:
                        LOG.warning(
                            "%s: %s; trying again for up to %.0f s",
                            self._shown_url,
                            # A place outside the database names itself.
                            explain(error).removeprefix(f"{self._shown_url}: "),
                            self.patience_seconds,
                        )
                if not self._wait(began, delay):
                    raise
                delay = min(2 * delay, LONGEST_DELAY_SECONDS)
            else:
                self._has_worked = True
                if began is not None:
                    LOG.warning("%s is back after %.0f s", self._shown_url, time.monotonic() - began)
                return result

    def _wait(self, began: float, seconds: float) -> bool:
        """Wait before another try; False where there is no patience left for one."""
        until = time.monotonic() + seconds
        patience = self.patience_seconds
        while True:
            if self.must_hurry():
                patience = min(patience, HURRIED_SECONDS)
            now = time.monotonic()
            if now - began >= patience:
                return False
            if now >= until:
                return True
            time.sleep(min(0.1, until - now))


def is_passing(error: BaseException, *, has_connected: bool = False) -> bool:
    """Whether an error of a store may be gone at the next try: an outage, a restart, a lock, a full disk.

    Args:
        error: What was raised.
        has_connected: Whether this process has reached that database before.
    """
    if isinstance(error, OutsideStoreError):
        return True
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return is_passing(error.__cause__, has_connected=has_connected)
    if not isinstance(error, DBAPIError) or error.orig is None:
        # SQLAlchemy's own: no connection became free in time.
        return type(error).__name__ == "TimeoutError" and isinstance(error, SQLAlchemyError)
    if error.connection_invalidated:
        return True
    if (code := getattr(error.orig, "sqlite_errorcode", None)) is not None:
        # The lower byte is the primary code.
        return code & 0xFF in PASSING_SQLITE
    sqlstate = getattr(error.orig, "pgcode", None)
    if sqlstate is not None:
        return str(sqlstate).startswith(PASSING_SQLSTATES)
    # A connection that could not be made or broke has no code. A wrong password has none either, and one
    # that is refused before the server is up looks the same; those are told apart by their words.
    reason = str(error.orig)
    return type(error.orig).__name__ in ("OperationalError", "InterfaceError") and (
        has_connected or not any(words in reason for words in NOT_PASSING_WORDS)
    )


def explain(error: BaseException) -> str:
    """What happened, on one line, in the words of the driver or system that it happened to.

    SQLAlchemy's messages add the statement and a link, Optuna's `StorageInternalError` guesses at the data.
    """
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return explain(error.__cause__)
    if isinstance(error, DBAPIError) and error.orig is not None:
        return explain(error.orig)
    return " ".join(str(error).split()) or type(error).__name__
