"""What replayed searches ended with, to be trained in earnest: is it as good as the surrogate says?"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search.confirm.plan import without_seed
from trainer.recipe import Recipe

LAST = 3
"""Epochs whose mean a recipe is worth; a single one is noisy."""


@dataclass(frozen=True)
class Found:
    """The best recipe of a replayed search.

    Attributes:
        recipe: For as many epochs as recorded curves have.
        expected: The mean accuracy in [0, 1] of its last `LAST` epochs, as the surrogate has it.
    """

    recipe: Recipe
    expected: float


def write_found(path: Path, found: Iterable[Found]) -> None:
    """Write them to `path` as lines of JSON, each recipe once, whatever its seed."""
    once = {without_seed(one.recipe): one for one in found}
    lines = [json.dumps({"recipe": one.recipe.to_dict(), "expected": one.expected}) for one in once.values()]
    path.write_text("".join(f"{line}\n" for line in lines))


def read_found(path: Path) -> list[Found]:
    """What `write_found` wrote to `path`."""
    lines = map(json.loads, path.read_text().splitlines())
    return [Found(Recipe.from_dict(line["recipe"]), line["expected"]) for line in lines]


def describe_found(found: Sequence[Found], curves: Mapping[Recipe, Sequence[float]]) -> str:
    """How much better or worse they are than expected, those that `curves` has, in points."""
    measured = {
        one: float(np.mean(curves[one.recipe][-LAST:]))
        for one in found
        if len(curves.get(one.recipe, ())) == one.recipe.epochs
    }
    if not measured:
        return f"none of {len(found)} recipes that searches found was trained to its end"
    errors = 100 * np.array([accuracy - one.expected for one, accuracy in measured.items()])
    return (
        f"{len(measured)} of {len(found)} recipes that searches found:"
        f" expected {100 * np.mean([one.expected for one in measured]):.2f} % on average,"
        f" measured {100 * np.mean(list(measured.values())):.2f} % ({np.mean(errors):+.2f} points,"
        f" standard deviation {np.std(errors):.2f}); the best {100 * max(measured.values()):.2f} %"
    )
