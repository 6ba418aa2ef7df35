"""A step of Keras's optimizers for several trials, each with the one of its own.

All are computed and one is taken: they are a few operations an element, and moving the elements is what takes
the time.
"""

from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp

from trainer.limits import OPTIMIZERS
from trainer.optimizer import MOMENTUM

RHO: Final = 0.9
RMSPROP_EPSILON: Final = 1e-7
BETA_1: Final = 0.9
BETA_2: Final = 0.999
ADAM_EPSILON: Final = 1e-7
"""Keras's defaults (3.15)."""

WITH_MOMENTUM, NESTEROV, RMSPROP, ADAM = map(OPTIMIZERS.index, ("momentum", "nesterov", "rmsprop", "adam"))


class Moments(NamedTuple):
    """What optimizers keep of a weight, (slots, ...) each; zeros where a slot's keeps none."""

    momentum: Any
    velocity: Any


class Steps(NamedTuple):
    """What is the same for all weights of a slot, (slots,) each.

    Attributes:
        optimizer: Index into `trainer.limits.OPTIMIZERS`, int32.
        learning_rate: float32.
        weight_decay: float32.
        iteration: Steps done before, int32.
    """

    optimizer: jax.Array
    learning_rate: jax.Array
    weight_decay: jax.Array
    iteration: jax.Array


def step_weight(
    steps: Steps, weight: jax.Array, moments: Moments, gradient: jax.Array
) -> tuple[jax.Array, Moments]:
    """A weight, (slots, ...), and its moments after a step along its gradient, by Keras's formulas.

    Decay comes first, and knows nothing of the gradient.
    """

    def spread(values: jax.Array) -> jax.Array:
        return values.reshape(-1, *[1] * (weight.ndim - 1))

    optimizer, rate = spread(steps.optimizer), spread(steps.learning_rate)
    weight = weight - weight * spread(steps.weight_decay) * rate

    rolling = moments.momentum * MOMENTUM - gradient * rate
    ahead = rolling * MOMENTUM - gradient * rate

    square = jnp.square(gradient)
    mean_square = RHO * moments.velocity + (1 - RHO) * square
    scaled = rate * gradient / jnp.sqrt(mean_square + RMSPROP_EPSILON)

    first = moments.momentum + (gradient - moments.momentum) * (1 - BETA_1)
    second = moments.velocity + (square - moments.velocity) * (1 - BETA_2)
    number = (steps.iteration + 1).astype(jnp.float32)
    correction = jnp.sqrt(1 - jnp.float32(BETA_2) ** number) / (1 - jnp.float32(BETA_1) ** number)
    adam = first * (rate * spread(correction)) / (jnp.sqrt(second) + ADAM_EPSILON)

    rolls = (optimizer == WITH_MOMENTUM) | (optimizer == NESTEROV)
    is_adam, is_rmsprop = optimizer == ADAM, optimizer == RMSPROP
    change = jnp.where(is_adam, -adam, -gradient * rate)
    change = jnp.where(is_rmsprop, -scaled, change)
    change = jnp.where(optimizer == WITH_MOMENTUM, rolling, change)
    change = jnp.where(optimizer == NESTEROV, ahead, change)
    momentum = jnp.where(is_adam, first, jnp.where(rolls, rolling, moments.momentum))
    velocity = jnp.where(is_adam, second, jnp.where(is_rmsprop, mean_square, moments.velocity))
    return weight + change, Moments(momentum, velocity)
