"""How often a worker says that it lives, and stores what its trial has come to."""

from dataclasses import dataclass
from typing import Final

LEASE_SECONDS: Final = 60.0
"""How long a worker may be silent before others take its trials."""


@dataclass(frozen=True)
class CheckpointPolicy:
    """When a running trial's state is stored, always at the end of an epoch: what a kill -9 can cost.

    Attributes:
        seconds: After so many seconds since the last time.
        epochs: After so many epochs since the last time; None for no matter how many.
    """

    seconds: float = 60.0
    epochs: int | None = None
