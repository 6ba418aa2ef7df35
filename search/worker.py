"""A worker: takes trials of a study one after another, trains them, and leaves the study right in the end.

Where a companion confirms the study's best recipes (`search.confirm`), its trials come first.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from optuna.trial import Trial

from search.errors import SearchError
from search.events import Event
from search.policy import LEASE_SECONDS, CheckpointPolicy
from search.runner import Runner
from search.running_trial import RunningTrial, Terms
from search.served_study import Companions, ServedStudy
from search.study import OpenStudy
from search.target_watch import TargetWatch
from search.trial_run import TrialRun
from storage.errors import OutsideStoreError, StorageError, TrialLimitReached
from storage.keeper import LeaseKeeper
from storage.outages import DATABASE_ERRORS, explain
from storage.process import Identity, own_identity
from trainer.state import EngineKind

FAILURES_IN_A_ROW: Final = 3
"""A worker that fails this many trials one after another is broken itself, and ends."""
REST_SECONDS: Final = 1.0
"""How often a worker without a trial looks for one, and how long it rests after a failure that may pass."""


class Worker:
    """Takes a study's trials, as many at a time as its runner has room for, until nothing is left to do."""

    def __init__(
        self,
        opened: OpenStudy,
        runner: Runner,
        emit: Callable[[Event], None],
        *,
        must_stop: Callable[[], bool] = lambda: False,
        time_is_up: Callable[[], bool] = lambda: False,
        identity: Identity | None = None,
        lease_seconds: float = LEASE_SECONDS,
        policy: CheckpointPolicy | None = None,
        engine: EngineKind = "tensorflow",
    ) -> None:
        """A worker for `opened`.

        Args:
            opened: The study.
            runner: Trains.
            emit: Told what happens.
            must_stop: Asked about once a second; when true, running trials are handed back at once, to go
                on from their last full epoch.
            time_is_up: Asked after each epoch; when true, the running trial is handed back as it is.
            identity: Who this is to other workers; None for this process, on the CPU.
            lease_seconds: How long it may be silent before others take its trials.
            policy: When a running trial's state is stored; None for the default.
            engine: The runner's, as trials tell it.
        """
        self._opened, self._runner, self._engine = opened, runner, engine
        self._served = ServedStudy.of(opened, emit)
        self._companions = Companions(opened, emit)
        self._must_stop, self._time_is_up = must_stop, time_is_up
        self._identity = own_identity() if identity is None else identity
        self._leases, self._policy = opened.leases(), policy or CheckpointPolicy()
        self._target = TargetWatch(opened.database.target(opened.study))
        self._failures: list[str] = []
        self._keeper = LeaseKeeper(
            self._leases, lease_seconds, self._identity, on_taken=lambda _: self._served.progress.note()
        )
        self._terms = Terms(
            must_stop,
            time_is_up,
            self._target.is_reached,
            self._keeper.has_lost,
            after_epoch=self._served.progress.update,
        )
        opened.database.work_as(self._identity)

    def run(self) -> None:
        """Run trials until the study has its total or reaches its target, or until told to stop.

        When a trial anywhere has reached the target, the study's one that runs here is handed back after its
        epoch; a companion's goes on. With the total reached it stays as long as other workers run trials, or
        a companion has any open: one that they lose or hand back is taken at once.

        Raises:
            SearchError: Several trials failed one after another; each is recorded with its reason.
            StorageError: The database was away for longer than patience lasts; what this worker ran goes on
                elsewhere once its leases have run out. Or it was the place outside the database where files
                are kept; then the trial was handed back.
        """
        try:
            self._opened.database.retries.run(self._keeper.start)
            try:
                self._take_trials()
                # Nobody may come after this worker who would draw its last trial.
                self._served.progress.update(force=True)
            finally:
                self._keeper.stop()
        except DATABASE_ERRORS as error:
            raise StorageError(f"{self._opened.database.shown_url}: {explain(error)}") from error

    def _take_trials(self) -> None:
        self._served.sweep()
        try:
            while not self._is_over():
                self._opened.database.release_strays()
                while self._runner.has_room and self._admit():
                    pass
                if self._runner.is_idle:
                    if self._is_done():
                        for served in (self._served, *self._companions.served()):
                            served.sweep()
                        return
                    self._served.progress.update()
                    self._rest()
                    continue
                self._runner.advance()
                self._note_ends(self._runner.take_ended())
                if self._failures and self._runner.is_idle:
                    self._rest()
        except DATABASE_ERRORS:
            self._runner.drop()
            raise
        except OutsideStoreError:
            self._close(saves=False)
            raise
        except BaseException:
            self._close()
            raise
        self._close()

    def _close(self, *, saves: bool = True) -> None:
        try:
            self._runner.close(saves=saves)
        finally:
            self._note_ends(self._runner.take_ended(), final=True)

    def _admit(self) -> bool:
        """Give the runner the next trial; whether there is one."""
        asked = self._ask()
        if asked is None:
            return False
        served, trial = asked
        run = TrialRun(served.opened, trial, self._identity, self._policy, self._engine)
        self._runner.admit(RunningTrial(served, trial, run, self._terms, own=served is self._served))
        return True

    def _note_ends(self, ended: Sequence[RunningTrial], *, final: bool = False) -> None:
        """Tell of trials that ended.

        Raises:
            SearchError: Several failed one after another, and it is not for the last time.
        """
        for one in ended:
            assert one.end is not None
            one.served.emit(one.end)
            if one.end.state == "taken":
                self._failures = []
                continue
            self._failures = [*self._failures, one.failure] if one.failure else []
            self._target.note()
            one.served.progress.note()
        if ended and not final:
            self._served.progress.update()
        if len(self._failures) >= FAILURES_IN_A_ROW and not final:
            raise SearchError(
                f"{len(self._failures)} trials failed one after another, the last with {self._failures[-1]}; "
                "mend that before starting the worker again"
            )

    def _ask(self) -> tuple[ServedStudy, Trial] | None:
        """The next trial and its study, a companion's that waits or one of its own; None for none now."""
        for companion in self._companions.find_waiting():
            # Others were faster, or somebody deleted it.
            with contextlib.suppress(TrialLimitReached, KeyError):
                return companion, companion.study.ask()
        if not self._target.is_reached():
            with contextlib.suppress(TrialLimitReached):
                return self._served, self._served.study.ask()
        return None

    def _is_done(self) -> bool:
        """Whether nothing can come any more, where there is no trial now."""
        if self._companions.are_open:
            return False
        # With the target reached, what waits is for a search with another one.
        return self._target.is_reached() or self._leases.count_open() == 0

    def _is_over(self) -> bool:
        return self._must_stop() or self._time_is_up()

    def _rest(self) -> None:
        until = time.monotonic() + REST_SECONDS
        while time.monotonic() < until and not self._is_over():
            time.sleep(0.05)
