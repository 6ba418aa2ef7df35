"""The variables of Keras's optimizers without Keras: which there are, in its order, and their beginning."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trainer.recipe import Recipe
from trainer.weights import weights_of

MOMENTUM: Final = 0.9
"""The article's momentum; Keras holds it as a Python float, so it is part of the optimizer's name here."""

MOMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "sgd": (),
    "momentum": ("momentum",),
    "nesterov": ("momentum",),
    "rmsprop": ("velocity",),
    "adam": ("momentum", "velocity"),
}
"""What an optimizer (`trainer.limits.OPTIMIZERS`) keeps of a trained weight: Keras's names, in its order."""


def initial_variables(recipe: Recipe) -> tuple[npt.NDArray[Any], ...]:
    """The variables of the recipe's optimizer before the first step: step counter, learning rate, moments.

    The moments of a weight stand together, in the order of `MOMENTS`, and the weights in their own
    (Keras 3.15, whose counter is of 64 bits with TensorFlow).
    """
    counter, rate = np.array(0, np.int64), np.array(recipe.learning_rate, np.float32)
    trained = [weight for weight in weights_of(recipe.architecture) if weight.is_trained]
    moments = (np.zeros(weight.shape, np.float32) for weight in trained for _ in MOMENTS[recipe.optimizer])
    return counter, rate, *moments
