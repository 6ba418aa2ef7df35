"""What an untried recipe's learning curve would be, learnt from recorded ones."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from curves import Curve, Table
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from trainer.recipe import ARTICLE, OPTIMIZERS, Recipe

Array = npt.NDArray[np.float64]
DROPOUTS: Final = ("dropout_block1", "dropout_block2", "dropout_block3", "dropout_dense")
COMPONENTS: Final = 4
"""Principal components of the curves that are learnt."""
CHANCE: Final = 0.1
"""Accuracy of ten classes without learning; what a curve stays at that left the numbers."""


def features(recipe: Recipe) -> Array:
    """A recipe of the space `article` as numbers of about the same scale, (4 + 1 + optimizers,)."""
    dropouts = [float(getattr(recipe, name)) / 0.6 for name in DROPOUTS]
    rate = (np.log10(recipe.learning_rate) + 4) / 3
    return np.array([*dropouts, rate, *(float(recipe.optimizer == name) for name in OPTIMIZERS)])


def fill(curves: Sequence[Curve], epochs: int) -> Array:
    """The first accuracies of each curve, (curves, epochs); where one left the numbers, chance."""
    rows = np.full((len(curves), epochs), CHANCE)
    for row, curve in zip(rows, curves, strict=True):
        length = min(epochs, len(curve.accuracies))
        row[:length] = curve.accuracies[:length]
    return rows


def logit(accuracies: Array) -> Array:
    """Where equal steps are about equally hard."""
    clipped = np.clip(accuracies, 0.02, 0.98)
    return np.asarray(np.log(clipped / (1 - clipped)))


class Surrogate:
    """Mean curves of recipes, and noise around them like that of second seeds.

    Attributes:
        epochs: Length of its curves.
        article: The article's recipe's mean curve, recorded, over its own epochs.
    """

    def __init__(
        self,
        table: Table,
        kind: str = "gp",
        hold_out: frozenset[int] = frozenset(),
    ) -> None:
        """Learn the curves of `table`.

        Args:
            table: What was recorded.
            kind: "gp", a Gaussian process for each principal component, or "trees".
            hold_out: Indices of random recipes' curves that are not to be learnt from.
        """
        articles, self.random = split(table)
        self.article = fill(articles, max(len(curve.accuracies) for curve in articles)).mean(axis=0)
        self.epochs = max(len(curve.accuracies) for curve in self.random)
        learnt = [curve for index, curve in enumerate(self.random) if index not in hold_out]
        inputs = np.stack([features(curve.recipe) for curve in learnt])
        outputs = logit(fill(learnt, self.epochs))
        self._centre = outputs.mean(axis=0)
        _, _, axes = np.linalg.svd(outputs - self._centre, full_matrices=False)
        self._axes = axes[:COMPONENTS]
        scores = (outputs - self._centre) @ self._axes.T
        self._models = [_fit(kind, inputs, column) for column in scores.T]
        self._spread, self._wobble = measure_noise(self.random, self.epochs)
        self._known: dict[bytes, Array] = {}

    def mean(self, recipe: Recipe) -> Array:
        """The expected accuracies after each epoch, (epochs,)."""
        inputs = features(recipe)
        key = inputs.tobytes()
        if key not in self._known:
            scores = np.array([float(model.predict(inputs[None])[0]) for model in self._models])
            self._known[key] = 1 / (1 + np.exp(-(self._centre + scores @ self._axes)))
        return self._known[key]

    def draw(self, recipe: Recipe, random: np.random.Generator) -> Array:
        """The accuracies of one training, (epochs,): another seed is another draw."""
        is_article = recipe == ARTICLE.__class__.from_dict(
            {**ARTICLE.to_dict(), "epochs": recipe.epochs, "seed": recipe.seed}
        )
        mean = self.article[: self.epochs] if is_article else self.mean(recipe)
        noise = random.normal(0, self._spread) + random.normal(0, self._wobble, len(mean))
        return np.asarray(np.clip(mean + noise, 0.0, 1.0))


def split(table: Table) -> tuple[list[Curve], list[Curve]]:
    """The article's curves, and the random recipes'."""
    mine = {"epochs": ARTICLE.epochs, "seed": ARTICLE.seed}
    is_article = [Recipe.from_dict({**curve.recipe.to_dict(), **mine}) == ARTICLE for curve in table.curves]
    articles = [curve for curve, own in zip(table.curves, is_article, strict=True) if own]
    return articles, [curve for curve, own in zip(table.curves, is_article, strict=True) if not own]


def measure_noise(curves: Sequence[Curve], epochs: int) -> tuple[float, float]:
    """Standard deviations, from recipes trained with two seeds that learn something.

    Returns:
        Of a seed's whole curve, and of single epochs around it.
    """
    pairs: dict[bytes, list[Curve]] = {}
    for curve in curves:
        pairs.setdefault(features(curve.recipe).tobytes(), []).append(curve)
    differences = []
    for pair in pairs.values():
        if len(pair) == 2:
            first, second = fill(pair, epochs)
            if min(first[-1], second[-1]) > 2 * CHANCE:
                differences.append((first - second)[epochs // 3 :])
    if len(differences) < 3:
        return 0.005, 0.008
    rows = np.stack(differences)
    # A difference has twice one's variance.
    spread = float(np.sqrt(np.mean(rows.mean(axis=1) ** 2) / 2))
    wobble = float(np.sqrt(np.mean((rows - rows.mean(axis=1, keepdims=True)) ** 2) / 2))
    return spread, wobble


def _fit(kind: str, inputs: Array, outputs: Array) -> Any:
    if kind == "trees":
        return ExtraTreesRegressor(500, min_samples_leaf=2, random_state=0).fit(inputs, outputs)
    kernel = ConstantKernel(1.0) * Matern(np.ones(inputs.shape[1]), (0.05, 50.0), nu=2.5)
    kernel += WhiteKernel(0.1, (1e-4, 2.0))
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(inputs, outputs)
