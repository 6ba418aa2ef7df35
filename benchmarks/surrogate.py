"""What an untried recipe's learning curve would be, learnt from recorded ones."""

import warnings
from typing import Any, Final

import numpy as np
from curves import Table, fill, is_article, split
from noise import measure_spread, measure_wobble
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from traces import Array

from trainer.recipe import OPTIMIZERS, Recipe

DROPOUTS: Final = ("dropout_block1", "dropout_block2", "dropout_block3", "dropout_dense")
KINDS: Final = ("gp", "trees")
"""A Gaussian process for each principal component of the curves, or randomised trees."""
COMPONENTS: Final = 4
"""Principal components of the curves that are learnt."""


def features(recipe: Recipe) -> Array:
    """A recipe of the space `article` as numbers of about the same scale, (4 + 1 + optimizers,)."""
    dropouts = [float(getattr(recipe, name)) / 0.6 for name in DROPOUTS]
    rate = (np.log10(recipe.learning_rate) + 4) / 3
    return np.array([*dropouts, rate, *(float(recipe.optimizer == name) for name in OPTIMIZERS)])


def logit(accuracies: Array) -> Array:
    """Where equal steps are about equally hard."""
    clipped = np.clip(accuracies, 0.02, 0.98)
    return np.asarray(np.log(clipped / (1 - clipped)))


class Surrogate:
    """Mean curves of recipes, and noise around them like that of second seeds.

    Attributes:
        epochs: Length of its curves.
        random: The recorded curves of other recipes than the article's.
        article: The article's recipe's mean curve, recorded, over its own epochs.
    """

    def __init__(
        self,
        table: Table,
        kind: str,
        hold_out: frozenset[int] = frozenset(),
    ) -> None:
        """Learn the curves of `table`.

        Args:
            table: What was recorded.
            kind: One of `KINDS`.
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
        self._spread = measure_spread(self.random, self.epochs)
        wobbles = np.log([measure_wobble(curve.accuracies) for curve in learnt])
        self._restlessness = _fit(kind, inputs, wobbles)
        self._article_wobble = float(np.mean([measure_wobble(curve.accuracies) for curve in articles]))
        self._known: dict[bytes, tuple[Array, float]] = {}

    def mean(self, recipe: Recipe) -> Array:
        """The expected accuracies after each epoch, (epochs,); the article's as recorded."""
        return self._tell(recipe)[0]

    def draw(self, recipe: Recipe, random: np.random.Generator) -> Array:
        """The accuracies of one training, (epochs,): another seed is another draw."""
        mean, wobble = self._tell(recipe)
        noise = random.normal(0, self._spread) + random.normal(0, wobble, len(mean))
        return np.asarray(np.clip(mean + noise, 0.0, 1.0))

    def _tell(self, recipe: Recipe) -> tuple[Array, float]:
        """The mean curve, and how much single epochs are off it."""
        if is_article(recipe):
            return self.article[: self.epochs], self._article_wobble
        inputs = features(recipe)
        key = inputs.tobytes()
        if key not in self._known:
            scores = np.array([float(model.predict(inputs[None])[0]) for model in self._models])
            curve = 1 / (1 + np.exp(-(self._centre + scores @ self._axes)))
            self._known[key] = curve, float(np.exp(self._restlessness.predict(inputs[None])[0]))
        return self._known[key]


def _fit(kind: str, inputs: Array, outputs: Array) -> Any:
    if kind == "trees":
        return ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0).fit(inputs, outputs)
    kernel = ConstantKernel(1.0) * Matern(np.ones(inputs.shape[1]), (0.05, 50.0), nu=2.5)
    kernel += WhiteKernel(0.1, (1e-4, 2.0))
    with warnings.catch_warnings():
        # A length scale at its bound says that a hyperparameter hardly matters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(inputs, outputs)
