"""Whether a study's target is reached, for a worker that asks often."""

import math
import time
from typing import Final

from storage.target import Target

LOOK_SECONDS: Final = 2.0
"""The least time between two looks, but for those after a trial's end: an epoch may take 0.1 s on a GPU."""


class TargetWatch:
    """Looks into the database from time to time; in between the answer is the one from there.

    So a target that anybody sets or lifts, and a trial that reaches it anywhere, is heard of within a trial.
    """

    def __init__(self, target: Target) -> None:
        """Nothing is read before the first question."""
        self._target = target
        self._is_reached = False
        self._not_before = -math.inf

    def note(self) -> None:
        """Say that a trial has ended: the next question looks at once."""
        self._not_before = -math.inf

    def is_reached(self) -> bool:
        """Whether the target is reached.

        Raises:
            SQLAlchemyError: The database is away for longer than patience lasts.
        """
        if time.monotonic() >= self._not_before:
            self._is_reached = self._target.is_reached()
            self._not_before = time.monotonic() + LOOK_SECONDS
        return self._is_reached
