"""A worker: takes trials of a study one after another, trains them, and leaves the study right in the end."""

from collections.abc import Callable

from optuna.trial import Trial

from search.events import EpochEnded, Event, StepsDone, TrialStarted
from search.study import OpenStudy, attach_strategy
from search.trial_run import TrialRun
from storage.errors import TrialLimitReached
from trainer.cifar10 import Cifar10
from trainer.evaluation import Evaluator
from trainer.precision import Precision
from trainer.state import EpochResult, TrainingState
from trainer.training import Trainer


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
        must_stop: Callable[[], bool] = lambda: False,
        time_is_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """A worker for `opened`.

        Args:
            opened: The study.
            data: CIFAR-10, of which the test images are not touched.
            emit: Told what happens.
            precision: What to train in. A value is that of the stored model, in float32, all the same.
            must_stop: Asked about once a second; when true, the running trial is handed back at once, to go
                on from its last full epoch.
            time_is_up: Asked after each epoch; when true, the running trial is handed back as it is.
        """
        self._opened = opened
        self._study = attach_strategy(opened)
        self._emit = emit
        self._must_stop, self._time_is_up = must_stop, time_is_up
        self._trainer = Trainer(data.train.first(opened.settings.train_samples), data.validation, precision)
        self._evaluator = Evaluator(self._trainer.validation)

    def run(self, total: int | None) -> None:
        """Run trials until the study has `total` of them, over all workers, or until told to stop.

        Raises:
            Exception: What a trial raised; the trial is recorded as failed, with the reason, before.
        """
        self._opened.database.limit_trials(self._study, total)
        while not self._must_stop() and not self._time_is_up():
            try:
                trial = self._study.ask()
            except TrialLimitReached:
                return
            run = TrialRun(self._opened, trial)
            try:
                self._train(trial, run)
            except Interrupted:
                run.hand_back()
            except Exception as error:
                run.fail(error)
                raise
            finally:
                self._emit(run.ended())

    def _train(self, trial: Trial, run: TrialRun) -> None:
        recipe = run.settle_recipe()
        state = run.read_state()
        self._emit(TrialStarted(trial.number, recipe, 1 if state is None else state.epoch + 1))

        def on_steps(epoch: int, done: int, total: int) -> None:
            self._emit(StepsDone(trial.number, epoch, done, total))
            if self._must_stop():
                raise Interrupted

        def on_epoch(result: EpochResult, state: TrainingState) -> bool:
            is_new = run.report(result, state)
            self._emit(EpochEnded(trial.number, result))
            if state.epoch < recipe.epochs:
                # Where an earlier run got further, Optuna would judge by that run's last epoch.
                if is_new and trial.should_prune():
                    return True
                if self._time_is_up():
                    raise Interrupted
            return False

        run.finish(
            self._trainer.train(recipe, state=state, on_epoch=on_epoch, on_steps=on_steps), self._evaluator
        )
