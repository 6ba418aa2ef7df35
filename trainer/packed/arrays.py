"""The arrays of a pack, slot by slot, and a state as a slot's part of them."""

from typing import Any, NamedTuple

import jax
import numpy as np

from trainer.optimizer import MOMENTS
from trainer.packed.optimizer import Moments
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.state import EpochResult, TrainingState
from trainer.weights import weights_of


class Images(NamedTuple):
    """A split on the device: images uint8 (n, 32, 32, 3), labels int32 (n,)."""

    images: jax.Array
    labels: jax.Array


class Arrays(NamedTuple):
    """What training changes, on the device or on the host; the first axis is the slot's.

    Attributes:
        weights: By path, float32.
        moments: Of each trained weight, by path.
        iteration: Steps done, int32.
    """

    weights: dict[str, Any]
    moments: dict[str, Moments]
    iteration: Any


class Numbers(NamedTuple):
    """What an epoch of each slot is trained by; the first axis is the slot's.

    Attributes:
        seed: uint32.
        epoch: From 1, uint32.
        optimizer: Index into `trainer.limits.OPTIMIZERS`, int32.
        learning_rate: float32.
        weight_decay: float32.
        label_smoothing: float32.
        dropout: Rates, float32 (slots, blocks + 1).
        augmentation: As `trainer.packed.augmentation.numbers_of` has them, float32 (slots, 5).
    """

    seed: Any
    epoch: Any
    optimizer: Any
    learning_rate: Any
    weight_decay: Any
    label_smoothing: Any
    dropout: Any
    augmentation: Any


class Sums(NamedTuple):
    """Summed cross-entropy, float32 (slots,), and images classified rightly, int32 (slots,)."""

    loss: jax.Array
    hits: jax.Array


def to_arrays(state: TrainingState) -> Arrays:
    """A state's arrays as a slot has them: zeros for the moments that its optimizer does not keep."""
    names = MOMENTS[state.recipe.optimizer]
    iteration, _, *kept = state.optimizer
    weights, moments, left = {}, {}, iter(kept)
    for weight, array in zip(weights_of(state.recipe.architecture), state.weights, strict=True):
        weights[weight.path] = array
        if weight.is_trained:
            mine = {name: next(left) for name in names}
            moments[weight.path] = Moments(
                *(mine.get(name, np.zeros_like(array)) for name in Moments._fields)
            )
    return Arrays(weights, moments, iteration.astype(np.int32))


def to_state(
    recipe: Recipe, precision: Precision, history: tuple[EpochResult, ...], arrays: Arrays
) -> TrainingState:
    """A slot's arrays, on the host, as a state with the variables of its optimizer."""
    rate = history[-1].learning_rate if history else recipe.learning_rate
    weights = weights_of(recipe.architecture)
    trained = [weight.path for weight in weights if weight.is_trained]
    kept = [getattr(arrays.moments[path], name) for path in trained for name in MOMENTS[recipe.optimizer]]
    optimizer = (np.array(arrays.iteration, np.int64), np.array(rate, np.float32), *kept)
    return TrainingState(
        recipe,
        precision,
        tuple(arrays.weights[weight.path] for weight in weights),
        optimizer,
        history,
        "packed",
    )
