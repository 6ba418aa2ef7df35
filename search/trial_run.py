"""One trial while a process runs it: what is written to the study, and in which order."""

import time
from typing import Final

from optuna.trial import Trial, TrialState

from search.claims import CLAIM_KEY, own_claim, release_trial
from search.events import TrialEnded
from search.space import record_params, suggest
from search.study import OpenStudy
from search.summary import (
    DIVERGED_KEY,
    FAILURE_KEY,
    RECIPE_KEY,
    SECONDS_KEY,
    best_trial,
    summarise_trial,
    summarise_trials,
)
from storage.database import explain
from storage.trial_files import NamedFile, attach_file, drop_checkpoint, read_checkpoint, save_checkpoint
from trainer.evaluation import Evaluator
from trainer.model_file import model_from_bytes, model_to_bytes
from trainer.recipe import Recipe
from trainer.state import EpochResult, TrainingState, history_to_csv
from trainer.training import TrainingResult

FAILURE_LENGTH: Final = 500
"""Longest reason kept on a trial, in characters; TensorFlow's can fill pages."""
CHECKPOINT_SECONDS: Final = 60.0
"""A running trial's state is stored this often, at the end of an epoch: what a kill -9 can cost."""


class TrialRun:
    """A running trial's writes: files before states, so that a crash leaves nothing that points nowhere."""

    def __init__(self, opened: OpenStudy, trial: Trial) -> None:
        """The run of `trial`, which is in state RUNNING."""
        self._opened, self._trial = opened, trial
        self._storage, self._store = opened.database.storage, opened.database.artifacts
        self._state: TrainingState | None = None
        self._stored_at = time.monotonic()
        self._trial.set_user_attr(CLAIM_KEY, own_claim())
        self._reported = set(self._storage.get_trial(trial._trial_id).intermediate_values)

    def settle_recipe(self) -> Recipe:
        """The trial's recipe: the one it was enqueued or handed back with, else one drawn now."""
        settings = self._opened.settings
        space = settings.capped_space
        remembered = self._trial.user_attrs.get(RECIPE_KEY)
        if remembered is None:
            recipe = suggest(self._trial, space, settings.trial_seed(self._trial.number))
            self._trial.set_user_attr(RECIPE_KEY, recipe.to_dict())
        else:
            recipe = Recipe.from_dict(remembered)
            record_params(self._trial, space, recipe)
        return recipe

    def read_state(self) -> TrainingState | None:
        """Where the trial goes on from, None where it begins."""
        content = read_checkpoint(self._store, self._storage, self._trial._trial_id)
        self._state = None if content is None else TrainingState.from_bytes(content)
        return self._state

    def report(self, result: EpochResult, state: TrainingState) -> bool:
        """Report an epoch's validation accuracy; one that an earlier run reported stays as it is.

        Returns:
            Whether it was reported now.
        """
        self._state = state
        if is_new := result.epoch not in self._reported:
            self._trial.report(result.validation_accuracy, result.epoch)
        if time.monotonic() - self._stored_at >= CHECKPOINT_SECONDS:
            self._save_state()
        return is_new

    def finish(self, result: TrainingResult, evaluator: Evaluator) -> None:
        """Store what the trial came to, its files before its state."""
        value = None
        if result.status == "finished":
            content = model_to_bytes(result.build_model())
            value = evaluator.score(model_from_bytes(content)).accuracy
            self._attach(f"trial-{self._trial.number}-{value:.4f}.h5", "application/x-hdf5", content)
        elif result.status == "diverged":
            self._trial.set_user_attr(DIVERGED_KEY, result.diverged_epoch)
        self._tell(TrialState.PRUNED if value is None else TrialState.COMPLETE, value)

    def fail(self, error: Exception) -> None:
        """Record why the trial failed."""
        self._trial.set_user_attr(FAILURE_KEY, f"{type(error).__name__}: {explain(error)}"[:FAILURE_LENGTH])
        self._tell(TrialState.FAIL, None)

    def hand_back(self) -> None:
        """Keep the trial for whoever asks next, who goes on from its last full epoch."""
        try:
            self._save_state()
        finally:
            # Also where the state cannot be stored: better begin again than stay running for ever.
            release_trial(self._opened, self._trial._trial_id)

    def ended(self) -> TrialEnded:
        """What the trial is now."""
        trial = summarise_trial(self._storage.get_trial(self._trial._trial_id))
        best = best_trial(summarise_trials(self._opened.study))
        return TrialEnded(trial.number, trial.state, trial.value, trial.note, best.value if best else None)

    def _save_state(self) -> None:
        if self._state is None:
            return
        save_checkpoint(self._store, self._storage, self._trial._trial_id, self._state.to_bytes())
        self._record_seconds(self._state)
        self._stored_at = time.monotonic()

    def _tell(self, state: TrialState, value: float | None) -> None:
        if self._state is not None:
            table = history_to_csv(self._state.history).encode()
            self._attach(f"trial-{self._trial.number}-history.csv", "text/csv", table)
            self._record_seconds(self._state)
        drop_checkpoint(self._store, self._storage, self._trial._trial_id)
        self._opened.study.tell(self._trial.number, value, state)

    def _record_seconds(self, state: TrainingState) -> None:
        # Optuna's own start time is that of the last process alone.
        self._trial.set_user_attr(SECONDS_KEY, round(sum(epoch.seconds for epoch in state.history), 3))

    def _attach(self, filename: str, mimetype: str, content: bytes) -> None:
        file = NamedFile(filename, mimetype, content)
        attach_file(self._store, self._storage, self._trial._trial_id, file)
