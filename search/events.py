"""What a worker tells whoever watches it: plain values that also travel between processes."""

from dataclasses import dataclass

from trainer.recipe import Recipe
from trainer.state import EpochResult


@dataclass(frozen=True)
class TrialStarted:
    """Trial `number` begins at epoch `first_epoch` (over 1 when it goes on from a checkpoint)."""

    number: int
    recipe: Recipe
    first_epoch: int


@dataclass(frozen=True)
class StepsDone:
    """Within `epoch`, counted from 1, `done` of `total` steps are over."""

    number: int
    epoch: int
    done: int
    total: int


@dataclass(frozen=True)
class EpochEnded:
    """One epoch of trial `number` is over and reported to the study."""

    number: int
    result: EpochResult


@dataclass(frozen=True)
class TrialEnded:
    """Trial `number` is over, was handed back (`state` "waiting") or is another worker's now ("taken").

    `value` is the validation accuracy of the stored model, None where none was stored.
    `note` says why a trial did not complete, in a few words; empty for a complete one.
    `best_value` is the study's best so far, None before the first complete trial.
    """

    number: int
    state: str
    value: float | None
    note: str
    best_value: float | None


@dataclass(frozen=True)
class Notice:
    """What a worker met that concerns no single trial, such as a database that is away; one line."""

    text: str


TrialEvent = TrialStarted | StepsDone | EpochEnded | TrialEnded
Event = TrialEvent | Notice
