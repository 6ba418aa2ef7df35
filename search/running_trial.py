"""A trial while a worker has it: what happens epoch by epoch, and how it ends, whatever happens."""

from collections.abc import Callable
from dataclasses import dataclass

from optuna.trial import Trial

from search.events import EpochEnded, StepsDone, TrialEnded, TrialStarted
from search.served_study import ServedStudy
from search.trial_run import TrialRun, describe_failure
from storage.errors import LeaseLost, OutsideStoreError
from storage.outages import DATABASE_ERRORS
from trainer.evaluation import Evaluator
from trainer.recipe import Recipe
from trainer.state import EpochResult, StateError, TrainingState
from trainer.training import TrainingResult


class Interrupted(Exception):
    """The trial is to be handed back."""


@dataclass(frozen=True, eq=False)
class Terms:
    """What a worker lets its trials go by.

    Attributes:
        must_stop: Asked about once a second; when true, a trial is handed back at once, to go on from its
            last full epoch.
        time_is_up: Asked after each epoch; when true, a trial is handed back as it is.
        target_is_reached: Asked after each epoch of a trial of the worker's own study, with the same effect.
        has_lost: Whether the trial of that id, taken at that time, is no longer the worker's.
        after_epoch: Called after each epoch that was reported.
    """

    must_stop: Callable[[], bool]
    time_is_up: Callable[[], bool]
    target_is_reached: Callable[[], bool]
    has_lost: Callable[[int, float], bool]
    after_epoch: Callable[[], None]


class RunningTrial:
    """A trial that a worker trains.

    Whatever may fail in between is done by `attempt`, which ends the trial as befits what happened.

    Attributes:
        served: The study that it is of.
        recipe: What it trains; there after `begin`.
        state: What it goes on from, None from its beginning; there after `begin`.
        epochs: Epochs done, here or before.
        failure: What it failed with, in a line; else empty.
        end: What is told of its end; None while it runs here.
    """

    recipe: Recipe
    state: TrainingState | None

    def __init__(self, served: ServedStudy, trial: Trial, run: TrialRun, terms: Terms, *, own: bool) -> None:
        """The trial that `run` writes of; `own` if its study is the worker's and no companion."""
        self.served, self._trial, self._run, self._terms, self._own = served, trial, run, terms, own
        self._save: Callable[[], TrainingState] | None = None
        self.epochs = 0
        self.failure = ""
        self.end: TrialEnded | None = None

    @property
    def number(self) -> int:
        """The trial's, in its study."""
        return self._trial.number

    def begin(self) -> None:
        """Settle what it trains, and from where."""
        self.recipe, self.state = self._run.settle_recipe(), self._run.read_state()
        self.epochs = 0 if self.state is None else self.state.epoch
        self.served.emit(TrialStarted(self.number, self.recipe, self.epochs + 1))

    def begin_anew(self, error: StateError) -> None:
        """Forget the state that it was to go on from, which is of no use."""
        self.state, self.epochs = None, 0
        self._run.begin_anew(error)

    def check_stop(self) -> None:
        """Go on, or not.

        Raises:
            Interrupted: The worker is to stop.
        """
        if self._terms.must_stop():
            raise Interrupted

    def look(self) -> None:
        """Go on, or not.

        Raises:
            Interrupted: The worker is to stop.
            LeaseLost: Another worker has the trial.
        """
        self.check_stop()
        self.check_lease()

    def check_lease(self) -> None:
        """Go on, or not.

        Raises:
            LeaseLost: Another worker has the trial.
        """
        if self._terms.has_lost(self._run.trial_id, self._run.taken_at):
            raise LeaseLost(f"trial {self.number} was taken from this worker")

    def note_steps(self, epoch: int, done: int, total: int) -> None:
        """Tell how far an epoch is."""
        self.served.emit(StepsDone(self.number, epoch, done, total))

    def note_epoch(self, result: EpochResult, save: Callable[[], TrainingState]) -> bool:
        """Report an epoch.

        Args:
            result: Its figures.
            save: Gives the state after the last full epoch, this one or a later one.

        Returns:
            Whether the trial is to be pruned.

        Raises:
            Interrupted: It is to be handed back as it is.
        """
        self._save, self.epochs = save, result.epoch
        is_new = self._run.report(result, save)
        self.served.emit(EpochEnded(self.number, result))
        self._terms.after_epoch()
        if result.epoch < self.recipe.epochs:
            # Where an earlier run got further, Optuna would judge by that run's last epoch.
            if is_new and self._trial.should_prune():
                return True
            if self._terms.time_is_up() or (self._own and self._terms.target_is_reached()):
                raise Interrupted
        return False

    def keep(self, state: TrainingState) -> None:
        """Let this be what it goes on from if it is handed back, in place of what `note_epoch` was given."""
        self.state = state
        self._save = lambda: state

    def finish(self, result: TrainingResult, evaluator: Evaluator) -> None:
        """Store what it came to; for `attempt`, as its last work.

        A worker that is to stop has no time for pictures.
        """
        self.keep(result.state)
        self._run.finish(result, evaluator, self.look, draws=not self._terms.must_stop())

    def attempt(self, work: Callable[[], None], *, is_last: bool = False) -> None:
        """Do `work`; an exception ends the trial here.

        An interruption hands it back, a failure is recorded on it, and a lost lease leaves it to who has it.

        Args:
            work: What to do.
            is_last: Whether the trial has ended after it.

        Raises:
            SQLAlchemyError: The database is away. The trial goes on elsewhere when its lease has run out.
            StorageInternalError: The same.
            OutsideStoreError: Its files cannot be kept; it was handed back.
        """
        stays = False
        try:
            try:
                work()
                stays = not is_last
            except Interrupted:
                self._run.hand_back(self._save)
            except (LeaseLost, *DATABASE_ERRORS):
                raise
            except OutsideStoreError:
                # The trial is not to blame, and where its files cannot be kept no other one fares better.
                self._run.hand_back(None)
                if not self._terms.must_stop():
                    raise
            # Whatever a trial meets is recorded on it, and must not end those that would come after it.
            except Exception as error:  # noqa: BLE001
                self.failure = describe_failure(error)
                self._run.fail(error)
            if not stays:
                self.end = self._run.ended()
        except LeaseLost:
            self.end = TrialEnded(self.number, "taken", None, "another worker has it", None)
        finally:
            if not stays:
                self._run.let_go()
                # What it would be saved from may be a pack.
                self._save = None

    def hand_back(self, *, saves: bool = True) -> None:
        """Leave it to whoever asks next, who goes on from its last full epoch.

        Args:
            saves: Whether that is stored now; else it goes on from its last checkpoint.
        """
        if not saves:
            self._save = None
        self.attempt(_interrupt, is_last=True)


def _interrupt() -> None:
    raise Interrupted
