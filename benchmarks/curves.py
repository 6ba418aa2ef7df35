"""Recorded learning curves as a compact file."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.recipe import ARTICLE, Recipe


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
