"""Which of a study's recipes can train in one program: a space's shapes of network and batch."""

import itertools
import math
from collections.abc import Sequence
from typing import Final

from search.ranges import Choices, NumberRange
from search.space import Space
from trainer.architecture import FIELDS
from trainer.limits import LIMITS
from trainer.recipe import ARTICLE, Recipe

SHAPING: Final = ("batch_size", *FIELDS)
"""What recipes must have in common to train in one program."""
CHANGING: Final = ("flip", "shift", "rotation", "zoom", "cutout")
"""Fields of a recipe by which images are changed at random."""
MOST_SHAPES: Final = 4
"""Programs that are worth their compiling, memory and turns, one beside the other."""


def count_shapes(space: Space) -> float:
    """How many programs the recipes of a space need at most, infinity where a float shapes them."""
    return math.prod(_count(space.range_of(field)) for field in SHAPING)


def shares_programs(space: Space) -> bool:
    """Whether its recipes have few enough shapes to train in programs together."""
    return count_shapes(space) <= MOST_SHAPES


def shaped_recipes(space: Space) -> list[Recipe]:
    """A recipe of each shape that a space has, which shares programs."""
    values = [_values(space.range_of(field)) for field in SHAPING]
    others = typical_recipe(space).to_dict()
    return [
        Recipe.from_dict({**others, **dict(zip(SHAPING, chosen, strict=True))})
        for chosen in itertools.product(*values)
    ]


def typical_recipe(space: Space) -> Recipe:
    """A recipe of the only shape that the space has, or of one of them: the article's where it has that."""
    values = {field: _value(space, field) for field in (*SHAPING, *CHANGING)}
    return Recipe.from_dict({**ARTICLE.to_dict(), **values})


def changes_images(space: Space) -> bool:
    """Whether any of its recipes changes images at random."""
    unchanged = ARTICLE.to_dict()
    return any(
        not (range_ := space.range_of(field)).single or not range_.holds(unchanged[field])
        for field in CHANGING
    )


def _count(range_: Choices | NumberRange) -> float:
    if isinstance(range_, Choices):
        return len(range_.choices)
    if range_.single:
        return 1
    return range_.high - range_.low + 1 if LIMITS[range_.field].kind is int else math.inf


def _values(range_: Choices | NumberRange) -> Sequence[object]:
    """All values of a range that has few."""
    if isinstance(range_, Choices):
        return range_.choices
    if range_.single:
        return (LIMITS[range_.field].kind(range_.low),)
    return range(int(range_.low), int(range_.high) + 1)


def _value(space: Space, field: str) -> object:
    range_, article = space.range_of(field), getattr(ARTICLE, field)
    if range_.holds(article):
        return article
    return range_.choices[0] if isinstance(range_, Choices) else LIMITS[field].kind(range_.low)
