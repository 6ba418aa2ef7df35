"""Recorded learning curves, and the compact file that they are kept in."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from traces import Array

from trainer.recipe import ARTICLE, Recipe

CHANCE: Final = 0.1
"""Accuracy of ten classes without learning; what a curve stays at that left the numbers."""


@dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
        recipe: What was trained.
        accuracies: Validation accuracy in [0, 1] after each epoch, from epoch 1; shorter than the recipe's
            epochs where it left the numbers.
    """

    recipe: Recipe
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """What was recorded.

    Attributes:
        curves: The trainings.
        train_images: How many images each was trained on.
        validation_images: How many it was validated on.
        space: The name of the space that the recipes were drawn from.
    """

    curves: tuple[Curve, ...]
    train_images: int
    validation_images: int
    space: str = "article"


def pack(path: Path, table: Table) -> None:
    """Write `table` to `path`: recipes as what differs from the article's, accuracies as images."""
    longest = max(len(curve.accuracies) for curve in table.curves)
    hits = np.full((len(table.curves), longest), -1, np.int16)
    for row, curve in zip(hits, table.curves, strict=True):
        row[: len(curve.accuracies)] = np.rint(np.array(curve.accuracies) * table.validation_images)
    article = ARTICLE.to_dict()
    recipes = [
        {name: value for name, value in curve.recipe.to_dict().items() if value != article[name]}
        for curve in table.curves
    ]
    images = np.array([table.train_images, table.validation_images])
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file, recipes=np.array(json.dumps(recipes)), hits=hits, images=images, space=np.array(table.space)
        )
    partial.replace(path)


def read(path: Path) -> Table:
    """The curves that `pack` wrote to `path`."""
    with np.load(path) as file:
        train_images, validation_images = map(int, file["images"])
        curves = []
        for values, hits in zip(json.loads(str(file["recipes"])), file["hits"], strict=True):
            accuracies = hits[hits >= 0] / validation_images
            curves.append(
                Curve(Recipe.from_dict({**ARTICLE.to_dict(), **values}), tuple(map(float, accuracies)))
            )
        # Tables from before there was a name are of `article`.
        space = str(file["space"]) if "space" in file else "article"
    return Table(tuple(curves), train_images, validation_images, space)


def fill(curves: Sequence[Curve], epochs: int) -> Array:
    """The first accuracies of each curve, (curves, epochs); where one left the numbers, chance."""
    rows = np.full((len(curves), epochs), CHANCE)
    for row, curve in zip(rows, curves, strict=True):
        length = min(epochs, len(curve.accuracies))
        row[:length] = curve.accuracies[:length]
    return rows


def split(table: Table) -> tuple[list[Curve], list[Curve]]:
    """The article's curves, and the random recipes'."""
    articles = [curve for curve in table.curves if is_article(curve.recipe)]
    return articles, [curve for curve in table.curves if not is_article(curve.recipe)]


def is_article(recipe: Recipe) -> bool:
    """Whether it is the article's, for any number of epochs, with any seed."""
    return dataclasses.replace(recipe, epochs=ARTICLE.epochs, seed=ARTICLE.seed) == ARTICLE
