"""What goes on behind the pages: trials are read in advance, stale claims taken back, plots kept right."""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from search.policy import LEASE_SECONDS
from search.published_progress import PublishedProgress
from search.study import SETTINGS_KEY, OpenStudy, open_study
from search.summary import TrialSummary, count_ended, summarise_trials
from storage.companions import IDENTITY_KEY
from storage.database import Database
from storage.keeper import LeaseKeeper
from storage.outages import DATABASE_ERRORS, explain

REFRESH_SECONDS: Final = 10.0
"""How often the trials are read; optuna-dashboard shows those of a long study no fresher."""
LOG: Final = logging.getLogger(__name__)


@dataclass(eq=False)
class Watched:
    """A study as it was last seen.

    Attributes:
        opened: The study.
        identity: Its id, and what tells it from another one that gets this id later.
        trials: Its trials, by number.
        last_report: When an epoch was last reported, in seconds since the epoch; None before the first. Known
            from what was seen to change, and before that from when trials began and ended.
        target: The validation accuracy at which the study stops; None for none.
    """

    opened: OpenStudy
    identity: tuple[int, str | None]
    progress: PublishedProgress
    keeper: LeaseKeeper
    trials: list[TrialSummary] = field(default_factory=list)
    last_report: float | None = None
    target: float | None = None

    def look(self, now: float) -> None:
        """Read the trials, and have the plot drawn that fits them."""
        before, trials = self.trials, summarise_trials(self.opened.study)
        self.last_report = _last_report(before, trials, self.last_report, now)
        target_before, self.target = self.target, self.opened.database.target(self.opened.study).read()
        self.trials = trials
        if count_ended(trials) != count_ended(before) or self.target != target_before:
            self.progress.note()
        self.progress.update()


class Upkeep:
    """Watches all of the database's studies, in a thread."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """The upkeep of `database`; `clock` tells seconds since the epoch."""
        self.now = clock
        self._database = database
        self._watched: dict[str, Watched] = {}
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._failed_at = 0.0
        self._complaints: dict[str, str] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="upkeep", daemon=True)

    def start(self) -> None:
        """Read everything once, and begin.

        Raises:
            SQLAlchemyError: The database cannot be reached.
        """
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """End the threads."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=REFRESH_SECONDS)
        for watched in self._watched.values():
            watched.keeper.stop()

    def look(self) -> dict[str, Watched]:
        """The studies of this project as they are now, by name, all of them read anew.

        Raises:
            SQLAlchemyError: The database cannot be reached.
        """
        came = time.monotonic()
        with self._lock:
            # Whoever waited here while another one lost patience need not lose it once more.
            if self._failure is not None and self._failed_at > came:
                raise self._failure
            try:
                self._look()
            except DATABASE_ERRORS as error:
                self._failure, self._failed_at = error, time.monotonic()
                raise
            return dict(self._watched)

    def _look(self) -> None:
        found = {
            study.study_name: (study._study_id, study.system_attrs.get(IDENTITY_KEY))
            for study in self._database.storage.get_all_studies()
            if SETTINGS_KEY in study.user_attrs
        }
        for name, watched in list(self._watched.items()):
            # A study of the same name and id may be another one by now.
            if found.get(name) != watched.identity:
                watched.keeper.stop()
                self._database.forget_study(watched.identity[0])
                del self._watched[name]
        for name, identity in found.items():
            try:
                if name not in self._watched:
                    self._watched[name] = self._watch(name, identity)
                self._watched[name].look(self.now())
            except DATABASE_ERRORS:
                raise
            # Deleted meanwhile, of another version, or with attributes that another program has set: its
            # pages are optuna-dashboard's alone, and other studies are looked at all the same.
            except Exception as error:  # noqa: BLE001
                if self._complaints.get(name) != str(error):
                    LOG.warning("study %r is not watched: %s: %s", name, type(error).__name__, error)
                self._complaints[name] = str(error)

    def fingerprint(self, study_id: int) -> str | None:
        """A text that stays equal as long as nothing about a study changes; None for one not watched."""
        for watched in self.look().values():
            if watched.identity[0] == study_id:
                storage = self._database.storage
                try:
                    attrs = [storage.get_study_system_attrs(study_id), storage.get_study_user_attrs(study_id)]
                except KeyError:
                    # Deleted just now.
                    return None
                # A trial changes with its state, with a report, and when its worker has drawn its recipe.
                trials = [
                    (trial.state, trial.retries, trial.epochs_done, trial.recipe is None)
                    for trial in watched.trials
                ]
                return json.dumps([attrs, trials], sort_keys=True)
        return None

    def _watch(self, name: str, identity: tuple[int, str | None]) -> Watched:
        opened = open_study(self._database, name)
        progress = PublishedProgress(opened)
        keeper = LeaseKeeper(opened.leases(), LEASE_SECONDS, on_taken=lambda _: progress.note())
        keeper.start()
        return Watched(opened, identity, progress, keeper)

    def _keep(self) -> None:
        while not self._stopped.wait(REFRESH_SECONDS):
            try:
                self.look()
            # Whatever it is, the next look may find it gone; without this thread nothing would look.
            except Exception as error:  # noqa: BLE001
                LOG.warning("the studies could not be read: %s; trying on", explain(error))


def _last_report(
    before: list[TrialSummary], trials: list[TrialSummary], known: float | None, now: float
) -> float | None:
    """When an epoch was last reported; the database keeps no times of reports."""
    epochs = sum(trial.epochs_done for trial in trials)
    if before and epochs > sum(trial.epochs_done for trial in before):
        return now
    if known is not None:
        return known
    # At the first look: no later than the last trial with a report began or ended.
    reported = [trial for trial in trials if trial.epochs_done > 0]
    times = [time for trial in reported for time in (trial.started, trial.ended) if time is not None]
    return max((time.timestamp() for time in times), default=None)
