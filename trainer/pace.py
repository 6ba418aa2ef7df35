"""How much to do between two looks at the outside world: about a second's worth, whatever the network."""

from typing import Final

MOST_IMAGES: Final = 3200
"""Fifty of the article's steps: about a second on two cores, too rare to cost anything."""
SLOW_SECONDS: Final = 1.5
"""From here on, half as many images are taken the next time."""
FAST_SECONDS: Final = 0.5
"""Up to here, twice as many."""


class Pace:
    """The number of images to train on before the next look, learned from how long the last ones took.

    It begins with a single step, which also traces the program; nobody knows yet what a step costs. Networks
    and batches that are searched differ in it by a factor of a hundred.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._images = 1

    def steps(self, batch_size: int) -> int:
        """How many steps of that many images to take, at least 1."""
        return max(self._images // batch_size, 1)

    def note(self, images: int, seconds: float) -> None:
        """So many images, those of the steps just taken, took so long."""
        if seconds > SLOW_SECONDS:
            self._images = max(images // 2, 1)
        elif seconds < FAST_SECONDS:
            self._images = min(max(self._images, 2 * images), MOST_IMAGES)
