"""What a baseline run tells whoever watches it."""

from dataclasses import dataclass

from search.baseline.record import ModelScore
from search.events import Notice
from trainer.state import EpochResult


@dataclass(frozen=True)
class SeedStarted:
    """The run of `seed` begins at epoch `first_epoch`, over 1 when it goes on, and ends with `last_epoch`."""

    seed: int
    first_epoch: int
    last_epoch: int


@dataclass(frozen=True)
class SeedSteps:
    """Within `epoch`, from 1, of the run of `seed`, `done` of `total` steps are over."""

    seed: int
    epoch: int
    done: int
    total: int


@dataclass(frozen=True)
class SeedEpoch:
    """An epoch of the run of `seed` is over, and stored."""

    seed: int
    result: EpochResult


@dataclass(frozen=True)
class SeedScored:
    """The model of `seed` after one of the named epochs is stored and scored."""

    seed: int
    score: ModelScore


BaselineEvent = SeedStarted | SeedSteps | SeedEpoch | SeedScored | Notice
