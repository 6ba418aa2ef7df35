"""What an untried recipe's learning curve would be, learnt from recorded ones."""

import warnings
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from curves import Table, fill, is_article, split
from noise import draw_noise, find_residuals, measure_wobble
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from traces import Array

from trainer.recipe import OPTIMIZERS, Recipe

DROPOUTS: Final = ("dropout_block1", "dropout_block2", "dropout_block3", "dropout_dense")
COMPONENTS: Final = 4
"""Principal components of the curves that are learnt."""

Model = Callable[[Array], Array]
"""From a recipe's features to what was learnt of it, both of one dimension."""


def features(recipe: Recipe) -> Array:
    """A recipe of the space `article` as numbers of about the same scale, (4 + 1 + optimizers,)."""
    dropouts = [float(getattr(recipe, name)) / 0.6 for name in DROPOUTS]
    rate = (np.log10(recipe.learning_rate) + 4) / 3
    return np.array([*dropouts, rate, *(float(recipe.optimizer == name) for name in OPTIMIZERS)])


def logit(accuracies: Array) -> Array:
    """Where equal steps are about equally hard."""
    clipped = np.clip(accuracies, 0.02, 0.98)
    return np.asarray(np.log(clipped / (1 - clipped)))


def fit_processes(inputs: Array, outputs: Array) -> Model:
    """A Gaussian process for each column of `outputs`; hopeful where it knows nothing."""
    kernel = ConstantKernel(1.0) * Matern(np.ones(inputs.shape[1]), (0.05, 50.0), nu=2.5)
    kernel += WhiteKernel(0.1, (1e-4, 2.0))
    with warnings.catch_warnings():
        # A length scale at its bound says that a hyperparameter hardly matters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        models = [
            GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(inputs, column)
            for column in outputs.T
        ]
    return lambda one: np.array([float(model.predict(one[None])[0]) for model in models])


def fit_trees(inputs: Array, outputs: Array) -> Model:
    """Randomised trees, which never tell of anything better than what they have seen."""
    forest = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0).fit(inputs, outputs)
    # Of a single recipe the forest's own method takes twenty times as long.
    trees = [tree.tree_ for tree in forest.estimators_]
    return lambda one: np.asarray(
        np.mean([tree.predict(one[None].astype(np.float32))[0, :, 0] for tree in trees], axis=0)
    )


def fit_both(inputs: Array, outputs: Array) -> Model:
    """The mean of the two: what one makes up, the other does not."""
    models = fit_processes(inputs, outputs), fit_trees(inputs, outputs)
    return lambda one: np.asarray(np.mean([model(one) for model in models], axis=0))


KINDS: Final[Mapping[str, Callable[[Array, Array], Model]]] = {
    "both": fit_both,
    "gp": fit_processes,
    "trees": fit_trees,
}


class Surrogate:
    """Mean curves of recipes, and noise around them like that of second seeds.

    Attributes:
        space: The name of the space that they are of.
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
            hold_out: Indices of other recipes' curves that are not to be learnt from.
        """
        self.space = table.space
        articles, self.random = split(table)
        self.article = fill(articles, max(len(curve.accuracies) for curve in articles)).mean(axis=0)
        self.epochs = max(len(curve.accuracies) for curve in self.random)
        others = [curve for index, curve in enumerate(self.random) if index not in hold_out]
        learnt = [*others, *articles]
        inputs = np.stack([features(curve.recipe) for curve in learnt])
        outputs = logit(fill(learnt, self.epochs))
        self._centre = outputs.mean(axis=0)
        _, _, axes = np.linalg.svd(outputs - self._centre, full_matrices=False)
        self._axes = axes[:COMPONENTS]
        self._model = KINDS[kind](inputs, (outputs - self._centre) @ self._axes.T)
        self._residuals = find_residuals(learnt, self.epochs)
        wobbles = np.array([[measure_wobble(curve.accuracies[: self.epochs])] for curve in learnt])
        self._restlessness = fit_processes(inputs, np.log(wobbles))
        self._article_wobble = float(wobbles[len(others) :].mean())
        self._known: dict[bytes, tuple[Array, float]] = {}

    def mean(self, recipe: Recipe) -> Array:
        """The expected accuracies after each epoch, (epochs,); the article's as recorded."""
        return self._tell(recipe)[0]

    def draw(self, recipe: Recipe, random: np.random.Generator) -> Array:
        """The accuracies of one training, (epochs,): another seed is another draw."""
        mean, wobble = self._tell(recipe)
        return np.asarray(np.clip(mean + wobble * draw_noise(self._residuals, random), 0.0, 1.0))

    def _tell(self, recipe: Recipe) -> tuple[Array, float]:
        """The mean curve, and how much single epochs are off it."""
        if is_article(recipe):
            return self.article[: self.epochs], self._article_wobble
        inputs = features(recipe)
        key = inputs.tobytes()
        if key not in self._known:
            curve = 1 / (1 + np.exp(-(self._centre + self._model(inputs) @ self._axes)))
            self._known[key] = curve, float(np.exp(self._restlessness(inputs)[0]))
        return self._known[key]
