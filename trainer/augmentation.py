"""What is done to pictures at random while training, and how strongly."""

import math
from dataclasses import dataclass
from typing import Final

from trainer.architecture import SIDE
from trainer.recipe import Recipe

CENTRE: Final = (SIDE - 1) / 2
DRAWS: Final = 7
"""Random numbers of a picture, whatever is switched on: flip, shift right and down, rotation, zoom, cutout's
column and row. What is switched off does not change the draws of what is on."""
MEAN_COLOUR: Final = (0.4914, 0.4822, 0.4465)
"""CIFAR-10's own, in [0, 1]: what a cut-out square shows."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to pictures; how strongly is no part of it.

    Attributes:
        flips: Whether half of them are mirrored, left to right.
        moves: Whether they are shifted, rotated or zoomed.
        cuts: Whether a square is cut out of each.
    """

    flips: bool = False
    moves: bool = False
    cuts: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> "Augmentation":
        """The recipe's."""
        moves = recipe.shift > 0 or recipe.rotation > 0 or recipe.zoom > 0
        return cls(flips=recipe.flip, moves=moves, cuts=recipe.cutout > 0)

    def __bool__(self) -> bool:
        """Whether anything is done."""
        return self.flips or self.moves or self.cuts


def strengths(recipe: Recipe) -> tuple[float, float, float, float]:
    """How strongly the recipe augments: pixels of shift, radians, zoom, pixels of the cut-out's side."""
    return (
        float(round(recipe.shift * SIDE)),
        math.radians(recipe.rotation),
        recipe.zoom,
        float(recipe.cutout),
    )
