"""What replayed searches ended with, to be trained in earnest: is it as good as the surrogate says?"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.recipe import Recipe


@dataclass(frozen=True)
class Found:
    """The best recipe of a replayed search.

    Attributes:
        recipe: For as many epochs as recorded curves have.
        expected: The accuracy in [0, 1] that the surrogate says it has at its end.
    """

    recipe: Recipe
    expected: float


def write_found(path: Path, found: Iterable[Found]) -> None:
    """Write them to `path`, each recipe once, as lines of JSON."""
    lines = {one.recipe: {"recipe": one.recipe.to_dict(), "expected": one.expected} for one in found}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines.values()))


def read_found(path: Path) -> list[Found]:
    """What `write_found` wrote to `path`."""
    lines = map(json.loads, path.read_text().splitlines())
    return [Found(Recipe.from_dict(line["recipe"]), line["expected"]) for line in lines]


def describe_found(found: Sequence[Found], curves: Mapping[Recipe, Sequence[float]]) -> str:
    """How much better or worse they are than expected, those that `curves` has, in points."""
    # The mean of the last epochs, since the surrogate speaks of means and a single epoch is noisy.
    measured = {
        one: float(np.mean(curves[one.recipe][-3:]))
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
