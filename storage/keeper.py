"""A thread that keeps a worker's leases alive, and takes back those of others that ran out."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from storage.leases import Leases, Taken
from storage.outages import DATABASE_ERRORS, explain
from storage.process import Identity

RENEWALS: Final = 4
"""How often a lease is renewed within its time: three may fail."""
LOG: Final = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews a worker's leases and reaps stale ones, four times in a lease's time, also while it is busy.

    A database that is away is asked again each time; nothing else ends the thread but `stop`. A worker that
    was away itself, or frozen, reaps nobody before it has seen the database for a while: those who were away
    with it get the time to come back.
    """

    def __init__(
        self,
        leases: Leases,
        seconds: float,
        identity: Identity | None = None,
        on_taken: Callable[[Taken], None] = lambda _: None,
    ) -> None:
        """A keeper of `leases`.

        Args:
            leases: The study's.
            seconds: How long a lease holds unless renewed.
            identity: The worker; None only reaps, as the dashboard does.
            on_taken: Told, in the thread, what was taken back from other workers.
        """
        self._leases, self._seconds, self._identity = leases, seconds, identity
        self._on_taken = on_taken
        self._stopped = threading.Event()
        self._held: set[int] = set()
        # When these were last read, by `time.monotonic`, before the reading.
        self._read_at: float | None = None
        self._connected_since: float | None = None
        # The last round, by the database's clock. Leases run out by it, also while this machine sleeps, when
        # `time.monotonic` stands still on Linux; and `time.time` is set by whoever likes.
        self._last_round: float | None = None
        self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)

    def start(self) -> None:
        """Make the worker known, and begin.

        Raises:
            SQLAlchemyError: The database cannot be reached.
        """
        self.keep_once()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and let the worker be forgotten if the database can be reached."""
        self._stopped.set()
        # A start that failed has started no thread.
        if self._thread.ident is not None:
            self._thread.join(timeout=self._seconds)
        if self._identity is not None:
            try:
                self._leases.leave(self._identity)
            except DATABASE_ERRORS as error:
                # Its row goes when it has run out.
                LOG.warning("the worker could not sign off: %s", explain(error))

    def has_lost(self, trial_id: int, taken_at: float) -> bool:
        """Whether a lease that was taken at `taken_at`, by `time.monotonic`, was gone at a later renewal."""
        checked = self._read_at
        return checked is not None and checked > taken_at and trial_id not in self._held

    def keep_once(self) -> list[Taken]:
        """Renew, and reap where the database has been there for long enough."""
        began = time.monotonic()
        if self._identity is not None:
            held = self._leases.renew(self._identity, self._seconds)
            self._held, self._read_at = held, began
        now = self._leases.read_clock()
        was_frozen = self._last_round is not None and now - self._last_round > self._seconds
        if self._connected_since is None or was_frozen:
            self._connected_since = began
        self._last_round = now
        taken = self._leases.reap(expired=began - self._connected_since >= self._seconds / RENEWALS)
        for one in taken:
            LOG.warning("%s: %s; %s", one, one.reason, "failed" if one.failed else "it waits")
            self._on_taken(one)
        return taken

    def _keep(self) -> None:
        while not self._stopped.wait(self._seconds / RENEWALS):
            try:
                self.keep_once()
            except DATABASE_ERRORS as error:
                if self._connected_since is not None:
                    LOG.warning("leases could not be renewed: %s; trying on", explain(error))
                self._connected_since = None
