"""A study's trials as plain values, for tables, figures and JSON."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from storage.leases import FAILURE_KEY, RETRIES_KEY
from storage.trial_rows import META_PREFIX
from trainer.errors import RecipeError
from trainer.recipe import Recipe

STATES: Final = ("complete", "pruned", "diverged", "failed", "running", "waiting")
"""A trial's states as people read them: Optuna's own, and those pruned for leaving the numbers."""

ENDED: Final = STATES[:4]
"""Those that no trial leaves."""

DIVERGED_KEY: Final = "diverged_epoch"
"""Trial user attribute: the epoch, from 1, in which a loss or a weight became NaN or infinite."""
PRECISION_KEY: Final = "precision"
"""Trial user attribute: what it was trained in, "float32" or "bfloat16"."""
RECIPE_KEY: Final = "recipe"
"""Trial user attribute: the recipe, as `Recipe.to_dict` gives it."""
SECONDS_KEY: Final = "seconds"
"""Trial user attribute: wall time of the epochs so far, over all processes that ran the trial."""
TRACEBACK_KEY: Final = "traceback"
"""Trial user attribute: where a trial failed."""
WORKER_KEY: Final = "worker"
"""Trial user attribute: host, process and GPU of the worker that has it or had it last."""


@dataclass(frozen=True)
class TrialSummary:
    """One trial as a reader sees it.

    Attributes:
        number: The trial's number, from 0.
        state: One of `STATES`.
        value: Validation accuracy in [0, 1] of the stored model; None unless complete.
        last_value: The validation accuracy reported last, None before the first epoch's end.
        epochs_done: Epochs reported.
        recipe: What the trial trains; None while it waits and nothing is sampled.
        started: When it began, None while it waits.
        ended: When it ended, None until then.
        note: Why it did not complete, empty where there is nothing to say.
        seconds: Wall time of its epochs, over all processes that ran it; None before any is known.
        retries: How often it was taken from a worker that could not finish it.
        has_model: Whether a complete trial has a model; those of other programs have none.
    """

    number: int
    state: str
    value: float | None
    last_value: float | None
    epochs_done: int
    recipe: Recipe | None
    started: datetime | None
    ended: datetime | None
    note: str
    seconds: float | None = None
    retries: int = 0
    has_model: bool = True


def summarise_trials(study: Study) -> list[TrialSummary]:
    """All trials of `study`, by number."""
    return [summarise_trial(trial) for trial in study.get_trials(deepcopy=False)]


def summarise_trial(trial: FrozenTrial) -> TrialSummary:
    """One trial of a study."""
    last_step = trial.last_step
    state = _state(trial)
    return TrialSummary(
        number=trial.number,
        state=state,
        value=trial.value if state == "complete" else None,
        last_value=None if last_step is None else trial.intermediate_values[last_step],
        epochs_done=last_step or 0,
        recipe=_recipe(trial.user_attrs),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
        note=_note(trial),
        seconds=_seconds(trial.user_attrs),
        retries=_retries(trial.user_attrs),
        has_model=state == "complete" and _has_model(trial.system_attrs),
    )


def count_ended(trials: Iterable[TrialSummary]) -> int:
    """How many of the trials are over."""
    return sum(trial.state in ENDED for trial in trials)


def best_trial(trials: list[TrialSummary]) -> TrialSummary | None:
    """The complete trial with a model of highest value, the earlier of equals; None where there is none."""
    complete = [trial for trial in trials if trial.value is not None and trial.has_model]
    return max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def _has_model(system_attrs: dict[str, Any]) -> bool:
    return any(key.startswith(META_PREFIX) and '.h5"' in str(meta) for key, meta in system_attrs.items())


def _state(trial: FrozenTrial) -> str:
    if DIVERGED_KEY in trial.user_attrs:
        return "diverged"
    return {TrialState.FAIL: "failed"}.get(trial.state, trial.state.name.lower())


def _recipe(user_attrs: dict[str, Any]) -> Recipe | None:
    """The recipe that the trial's worker recorded; None too where another version's cannot be read."""
    try:
        return Recipe.from_dict(user_attrs[RECIPE_KEY])
    except (KeyError, TypeError, RecipeError):
        return None


# What other programs may have set is read with care: one odd trial must not hide the others.
def _retries(user_attrs: dict[str, Any]) -> int:
    recorded = user_attrs.get(RETRIES_KEY)
    total = recorded.get("total") if isinstance(recorded, dict) else None
    return total if isinstance(total, int) else 0


def _seconds(user_attrs: dict[str, Any]) -> float | None:
    seconds = user_attrs.get(SECONDS_KEY)
    return seconds if isinstance(seconds, int | float) else None


def _note(trial: FrozenTrial) -> str:
    if DIVERGED_KEY in trial.user_attrs:
        return f"left the numbers in epoch {trial.user_attrs[DIVERGED_KEY]}"
    if trial.state == TrialState.PRUNED:
        return f"pruned after epoch {trial.last_step}"
    # A trial that went on elsewhere keeps the reason; it explains nothing once the trial has come through.
    if trial.state in (TrialState.FAIL, TrialState.WAITING):
        return str(trial.user_attrs.get(FAILURE_KEY, ""))
    return ""
