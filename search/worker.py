"""A worker: takes trials of a study one after another, trains them, and leaves the study right in the end.

Where a companion confirms the study's best recipes (`search.confirm`), its trials come first.
"""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from optuna.trial import Trial

from search.errors import SearchError
from search.events import EpochEnded, Event, StepsDone, TrialEnded, TrialStarted
from search.policy import LEASE_SECONDS, CheckpointPolicy
from search.served_study import Companions, ServedStudy
from search.strategy import is_hopeless
from search.study import OpenStudy
from search.target_watch import TargetWatch
from search.trial_run import TrialRun
from storage.errors import LeaseLost, OutsideStoreError, StorageError, TrialLimitReached
from storage.keeper import LeaseKeeper
from storage.outages import DATABASE_ERRORS, explain
from storage.process import Identity, own_identity
from trainer.cifar10 import Cifar10
from trainer.evaluation import Evaluator
from trainer.model import forget_models
from trainer.precision import Precision
from trainer.state import EpochResult, StateError, TrainingState
from trainer.training import Trainer

FAILURES_IN_A_ROW: Final = 3
"""A worker that fails this many trials one after another is broken itself, and ends."""
TRIALS_OF_KERNELS: Final = 20
"""Kernels are freed once in so many trials: some 10 MB grow until then, 0.2 s are lost after it."""
REST_SECONDS: Final = 1.0
"""How often a worker without a trial looks for one, and how long it rests after a failure that may pass."""


class Interrupted(Exception):
    """The worker is to stop in the middle of a trial."""


class Worker:
    """Trains a study's trials in this process, one at a time."""

    def __init__(
        self,
        opened: OpenStudy,
        data: Cifar10,
        emit: Callable[[Event], None],
        *,
        precision: Precision = "float32",
        jit_compile: bool = False,
        must_stop: Callable[[], bool] = lambda: False,
        time_is_up: Callable[[], bool] = lambda: False,
        identity: Identity | None = None,
        lease_seconds: float = LEASE_SECONDS,
        policy: CheckpointPolicy | None = None,
    ) -> None:
        """A worker for `opened`.

        Args:
            opened: The study.
            data: CIFAR-10, of which the test images are not touched.
            emit: Told what happens.
            precision: What to train in. A value is that of the stored model, in float32, all the same.
            jit_compile: Let XLA compile the training; for GPUs.
            must_stop: Asked about once a second; when true, the running trial is handed back at once, to go
                on from its last full epoch.
            time_is_up: Asked after each epoch; when true, the running trial is handed back as it is.
            identity: Who this is to other workers; None for this process, on the CPU.
            lease_seconds: How long it may be silent before others take its trials.
            policy: When a running trial's state is stored; None for the default.
        """
        self._opened = opened
        self._served = ServedStudy.of(opened, emit)
        self._companions = Companions(opened, emit)
        self._must_stop, self._time_is_up = must_stop, time_is_up
        self._trainer = Trainer(
            data.train.first(opened.settings.train_samples),
            data.validation,
            precision,
            jit_compile=jit_compile,
        )
        self._evaluator = Evaluator(self._trainer.validation)
        self._identity = own_identity() if identity is None else identity
        self._leases, self._policy = opened.leases(), policy or CheckpointPolicy()
        self._target = TargetWatch(opened.database.target(opened.study))
        self._trials = 0
        self._keeper = LeaseKeeper(
            self._leases, lease_seconds, self._identity, on_taken=lambda _: self._served.progress.note()
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
        failures: list[str] = []
        self._served.sweep()
        while not self._is_over():
            self._opened.database.release_strays()
            asked = self._ask()
            if asked is None:
                if self._is_done():
                    for served in (self._served, *self._companions.served()):
                        served.sweep()
                    return
                self._served.progress.update()
                self._rest()
                continue
            failure = self._run_trial(*asked)
            failures = [*failures, failure] if failure else []
            if len(failures) >= FAILURES_IN_A_ROW:
                raise SearchError(
                    f"{len(failures)} trials failed one after another, the last with {failures[-1]}; "
                    "mend that before starting the worker again"
                )
            if failure:
                self._rest()

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

    def _run_trial(self, served: ServedStudy, trial: Trial) -> str:
        """Run one trial to its end here; what it failed with, else empty."""
        opened = served.opened
        run = TrialRun(opened, trial, self._identity, self._policy)
        failure = ""
        try:
            try:
                self._train(served, trial, run)
            except Interrupted:
                run.hand_back()
            except (LeaseLost, *DATABASE_ERRORS):
                raise
            except OutsideStoreError:
                # The trial is not to blame, and where its files cannot be kept no other one fares better.
                opened.database.claimed(opened.artifacts, run.trial_id).hand_back(None, {})
                if not self._must_stop():
                    raise
            # Whatever a trial meets is recorded on it, and must not end those that would come after it.
            except Exception as error:  # noqa: BLE001
                failure = f"{type(error).__name__}: {explain(error)}"
                run.fail(error)
        except LeaseLost:
            served.emit(TrialEnded(trial.number, "taken", None, "another worker has it", None))
            return ""
        finally:
            run.let_go()
            self._trials += 1
            forget_models(kernels=self._trials % TRIALS_OF_KERNELS == 0)
        served.emit(run.ended())
        self._target.note()
        served.progress.note()
        self._served.progress.update()
        return failure

    def _train(self, served: ServedStudy, trial: Trial, run: TrialRun) -> None:
        recipe = run.settle_recipe()
        state = run.read_state()
        served.emit(TrialStarted(trial.number, recipe, 1 if state is None else state.epoch + 1))

        def on_steps(epoch: int, done: int, total: int) -> None:
            served.emit(StepsDone(trial.number, epoch, done, total))
            look()

        def look() -> None:
            if self._must_stop():
                raise Interrupted
            if self._keeper.has_lost(run.trial_id, run.taken_at):
                raise LeaseLost(f"trial {trial.number} was taken from this worker")

        def on_epoch(result: EpochResult, state: TrainingState) -> bool:
            is_new = run.report(result, state)
            served.emit(EpochEnded(trial.number, result))
            self._served.progress.update()
            if state.epoch < recipe.epochs:
                # Where an earlier run got further, Optuna would judge by that run's last epoch.
                if is_new and is_hopeless(trial):
                    return True
                if self._time_is_up() or (served is self._served and self._target.is_reached()):
                    raise Interrupted
            return False

        train = partial(self._trainer.train, recipe, on_epoch=on_epoch, on_steps=on_steps)
        try:
            result = train(state=state)
        except StateError as error:
            # Of another version of this program, say; it is told before anything is trained.
            run.begin_anew(error)
            result = train()
        run.finish(result, self._evaluator, look)

    def _is_over(self) -> bool:
        return self._must_stop() or self._time_is_up()

    def _rest(self) -> None:
        until = time.monotonic() + REST_SECONDS
        while time.monotonic() < until and not self._is_over():
            time.sleep(0.05)
