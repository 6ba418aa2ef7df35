"""One trial while a worker runs it: what is written to the study, and when."""

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from optuna.trial import Trial, TrialState

from search.events import TrialEnded
from search.hits import HITS_KEY, pack_hits
from search.policy import CheckpointPolicy
from search.space import record_params, suggest
from search.study import MAX_RETRIES, OpenStudy
from search.summary import (
    DIVERGED_KEY,
    PRECISION_KEY,
    RECIPE_KEY,
    SECONDS_KEY,
    TRACEBACK_KEY,
    WORKER_KEY,
    summarise_trial,
)
from storage.claimed_trial import NamedFile
from storage.errors import DamagedFileError
from storage.leases import FAILURE_KEY
from storage.outages import explain
from storage.process import Identity
from trainer.errors import DeviceError
from trainer.evaluation import Evaluator, Score
from trainer.figures import draw_confusion, draw_curves
from trainer.model import forget_models
from trainer.model_file import model_from_bytes
from trainer.recipe import Recipe
from trainer.state import EngineKind, EpochResult, StateError, TrainingState, history_to_csv
from trainer.training import TrainingResult

FAILURE_LENGTH: Final = 500
"""Longest reason kept on a trial, in characters; TensorFlow's can fill pages."""
TRACEBACK_LENGTH: Final = 4000
"""The end of a traceback that is kept, in characters."""
PASSING: Final = (DeviceError, MemoryError, OSError)
"""Failures that another try may not meet: memory that others fill, a device or a connection that broke, a
full disk."""
LOG: Final = logging.getLogger(__name__)


class TrialRun:
    """A running trial's writes."""

    def __init__(
        self,
        opened: OpenStudy,
        trial: Trial,
        identity: Identity,
        policy: CheckpointPolicy,
        engine: EngineKind = "tensorflow",
    ) -> None:
        """The run of `trial`, which the worker `identity` has just asked for, in that engine."""
        self.taken_at = time.monotonic()
        self._opened, self._trial, self._policy = opened, trial, policy
        self._claimed = opened.database.claimed(opened.artifacts, trial._trial_id)
        self._worker = {"host": identity.host, "pid": identity.pid, "gpu": identity.gpu, "engine": engine}
        self._stored_at, self._stored_epoch = time.monotonic(), 0
        # Optuna has just read the trial.
        self._reported = set(trial._cached_frozen_trial.intermediate_values)

    @property
    def trial_id(self) -> int:
        """The trial's id in the database."""
        return int(self._trial._trial_id)

    def settle_recipe(self) -> Recipe:
        """The trial's recipe: the one it was enqueued or handed back with, else one drawn now."""
        settings = self._opened.settings
        space = settings.capped_space
        remembered = self._trial.user_attrs.get(RECIPE_KEY)
        if remembered is None:
            recipe = suggest(self._trial, space, settings.trial_seed(self._trial.number))
        else:
            recipe = Recipe.from_dict(remembered)
            record_params(self._trial, space, recipe)
        self._claimed.set_user_attrs({RECIPE_KEY: recipe.to_dict(), WORKER_KEY: self._worker})
        return recipe

    def read_state(self) -> TrainingState | None:
        """Where the trial goes on from, None where it begins, or begins anew: its checkpoint is damaged."""
        state = None
        try:
            content = self._claimed.read_checkpoint()
            state = None if content is None else TrainingState.from_bytes(content)
        except (DamagedFileError, StateError) as error:
            self.begin_anew(error)
        self._stored_epoch = 0 if state is None else state.epoch
        return state

    def begin_anew(self, reason: Exception) -> None:
        """Forget the checkpoint, which is of no use for that reason.

        Epochs can be trained again; a trial that fails is lost, through no fault of its own.
        """
        LOG.warning("trial %d begins anew: %s", self._trial.number, reason)
        self._stored_epoch = 0

    def report(self, result: EpochResult, save: Callable[[], TrainingState]) -> bool:
        """Report an epoch's validation accuracy; one that an earlier run reported stays as it is.

        Args:
            result: The epoch's figures.
            save: Gives the state after it, where it is time to store it.

        Returns:
            Whether it was reported now.
        """
        if is_new := result.epoch not in self._reported:
            self._trial.report(result.validation_accuracy, result.epoch)
        policy = self._policy
        epochs = result.epoch - self._stored_epoch
        if time.monotonic() - self._stored_at >= policy.seconds or epochs >= (policy.epochs or epochs + 1):
            state = save()
            self._claimed.save_checkpoint(state.to_bytes(), _seconds(state.history))
            self._stored_at, self._stored_epoch = time.monotonic(), result.epoch
        return is_new

    def finish(
        self,
        result: TrainingResult,
        evaluator: Evaluator,
        look: Callable[[], None],
        *,
        draws: bool = True,
    ) -> None:
        """Store what the trial came to.

        Args:
            result: Of its training.
            evaluator: Scores its model.
            look: Called about once a second meanwhile; what it raises leaves the trial as it was.
            draws: Whether there is time for pictures.
        """
        number, outcome = self._trial.number, "pruned"
        score: Score | None = None
        files: list[NamedFile] = []
        attrs: dict[str, Any] = {}
        if result.status == "finished":
            content = result.to_h5(self._opened.settings.train_samples)
            score = evaluator.score(model_from_bytes(content), look)
            outcome = f"{100 * score.accuracy:.2f} %"
            if self._opened.confirms is not None:
                # What is compared there is compared image by image.
                attrs[HITS_KEY] = pack_hits(score.hits)
            name = f"trial-{number}-{score.accuracy:.4f}.h5"
            files.append(NamedFile("model", name, "application/x-hdf5", content))
        elif result.status == "diverged":
            outcome = "diverged"
            attrs[DIVERGED_KEY] = result.diverged_epoch
        history = result.history
        if history:
            table = history_to_csv(history).encode()
            files.append(NamedFile("history", f"trial-{number}-history.csv", "text/csv", table))
            attrs.update(_seconds(history))
            attrs[PRECISION_KEY] = result.state.precision
        # What storing and scoring leave is room enough for drawing.
        forget_models()
        if draws:
            files += _draw_pictures(number, history, score, outcome)
        if score is not None:
            self._claimed.finish(TrialState.COMPLETE, score.accuracy, files, attrs)
            return
        # Optuna gives a pruned trial its last report as value.
        last = history[-1].validation_accuracy if history else None
        self._claimed.finish(TrialState.PRUNED, last, files, attrs)

    def fail(self, error: Exception) -> bool:
        """Record what went wrong; a failure that can pass leaves the trial to another try, up to a bound.

        Returns:
            Whether the trial has another try.
        """
        reason = describe_failure(error)
        attrs = {TRACEBACK_KEY: "".join(traceback.format_exception(error))[-TRACEBACK_LENGTH:]}
        if isinstance(error, PASSING):
            return not self._claimed.give_up(reason, attrs, MAX_RETRIES)
        self._claimed.finish(TrialState.FAIL, None, attrs={**attrs, FAILURE_KEY: reason})
        return False

    def hand_back(self, save: Callable[[], TrainingState] | None) -> None:
        """Keep the trial for whoever asks next.

        Args:
            save: Gives the state to go on from; None leaves it at the checkpoint that there is, and so does
                a state that cannot be had any more.
        """
        try:
            state = None if save is None else save()
        # It may be on a device that has failed.
        except Exception as error:  # noqa: BLE001
            LOG.warning(
                "trial %d goes on from its last checkpoint: %s: %s",
                self._trial.number,
                type(error).__name__,
                explain(error),
            )
            state = None
        if state is None:
            self._claimed.hand_back(None, {})
        else:
            self._claimed.hand_back(state.to_bytes(), _seconds(state.history))

    def let_go(self) -> None:
        """Write nothing more: the trial is over for this worker, or another's."""
        self._claimed.let_go()

    def ended(self) -> TrialEnded:
        """What the trial is now."""
        trial = summarise_trial(self._opened.database.storage.get_trial(self.trial_id))
        try:
            best = self._opened.study.best_value
        except ValueError:
            # None is complete yet.
            best = None
        return TrialEnded(trial.number, trial.state, trial.value, trial.note, best)


def describe_failure(error: Exception) -> str:
    """What a trial failed with, in a line that is kept."""
    return f"{type(error).__name__}: {explain(error)}"[:FAILURE_LENGTH]


def _seconds(history: Sequence[EpochResult]) -> dict[str, float]:
    # Optuna's own times would count what the trial waited.
    return {SECONDS_KEY: round(sum(epoch.seconds for epoch in history), 3)}


def _draw_pictures(
    number: int, history: Sequence[EpochResult], score: Score | None, outcome: str
) -> list[NamedFile]:
    """The pictures of a trial's end, without those that cannot be drawn.

    Args:
        number: The trial's.
        history: Its learning curves are drawn if there is an epoch.
        score: Of its model, if it has one; its confusion is drawn.
        outcome: A word on the curves.
    """
    drawings: dict[str, partial[bytes]] = {}
    if history:
        title = f"Trial {number}: {outcome} after epoch {history[-1].epoch}"
        drawings["curves"] = partial(draw_curves, history, title)
    if score is not None:
        title = f"Trial {number}: {outcome} of {score.images:,} validation images"
        drawings["confusion"] = partial(draw_confusion, score.confusion, title)
    files = []
    for kind, draw in drawings.items():
        try:
            content = draw()
        # Whatever a picture meets (no memory, no font, a library that does not load), hours of training are
        # worth more than it.
        except Exception as error:  # noqa: BLE001
            reason = f"{type(error).__name__}: {explain(error)}"
            LOG.warning("trial %d: its %s could not be drawn: %s", number, kind, reason)
            continue
        files.append(NamedFile(kind, f"trial-{number}-{kind}.png", "image/png", content))
    return files
