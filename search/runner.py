"""What trains a worker's trials: the same for one at a time and for several in a program."""

from collections.abc import Sequence
from typing import Protocol

from search.running_trial import RunningTrial


class Runner(Protocol):
    """Takes trials and trains them; those that ended come out again."""

    @property
    def has_room(self) -> bool:
        """Whether it takes another trial now."""

    @property
    def is_idle(self) -> bool:
        """Whether it has no trial."""

    def admit(self, running: RunningTrial) -> None:
        """Take a trial, which has not begun; only where there is room."""

    def advance(self) -> None:
        """Train for a while: to the end of a trial, or of an epoch of several.

        Raises:
            SQLAlchemyError: The database is away. So for `StorageInternalError`.
            OutsideStoreError: A trial's files cannot be kept.
        """

    def take_ended(self) -> Sequence[RunningTrial]:
        """The trials that have ended since it was last asked, each with its end."""

    def close(self, *, saves: bool = True) -> None:
        """Hand back what runs, and finish what is being finished; raises what `advance` does.

        Args:
            saves: Whether the states are stored; else trials go on from their last checkpoints.
        """

    def drop(self) -> None:
        """Leave all as it is: trials go on elsewhere when their leases have run out."""
