"""The learning rate of each epoch: a function of the recipe and of the epochs before.

A rate holds for an epoch, as with Keras's `LearningRateScheduler` and `ReduceLROnPlateau`, which the article
names, so that the traced steps know nothing of schedules, and a trial goes on bit for bit from the end of any
epoch. Everything that a recipe counts in time is a share of its epochs: a cap on them keeps the shape.
"""

import math
from collections.abc import Sequence
from typing import Final

from trainer.recipe import Recipe

LEAST_IMPROVEMENT: Final = 1e-4
"""What a validation loss must fall by to count, `ReduceLROnPlateau`'s `min_delta`."""


def learning_rate(recipe: Recipe, validation_losses: Sequence[float]) -> float:
    """The rate of the epoch after those that gave `validation_losses`, one each; at least 0.

    - constant: the recipe's rate.
    - step: times `step_factor` in the epochs after the share `step_at`, at least in the last.
    - cosine: falls along half a cosine, from the recipe's rate in the first epoch towards 0, which the epoch
      after the last would have (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts).
    - warmup_cosine: rises in equal parts over the share `warmup` of the epochs, at least one, which stay
      below the recipe's rate (Goyal et al. 2017, arXiv:1706.02677, by epoch instead of by step), then as
      cosine.
    - plateau: times `plateau_factor` whenever the validation loss has not fallen for `plateau_patience` of
      the epochs, as `keras.callbacks.ReduceLROnPlateau` does.
    """
    rate, done = recipe.learning_rate, len(validation_losses)
    match recipe.schedule:
        case "step":
            # At the last epoch at the latest, but for a single one.
            step = min(_epochs(recipe, recipe.step_at), max(recipe.epochs - 1, 1))
            return rate * recipe.step_factor if done >= step else rate
        case "cosine":
            return rate * _cosine(done / recipe.epochs)
        case "warmup_cosine":
            # One epoch is left for the rate itself, and one for rising to it.
            rising = min(max(_epochs(recipe, recipe.warmup), 1 if recipe.warmup else 0), recipe.epochs - 1)
            if done < rising:
                return rate * (done + 1) / (rising + 1)
            return rate * _cosine((done - rising) / (recipe.epochs - rising))
        case "plateau":
            patience = max(_epochs(recipe, recipe.plateau_patience), 1)
            return rate * recipe.plateau_factor ** _plateaus(validation_losses, patience)
    return rate


def _epochs(recipe: Recipe, share: float) -> int:
    """The share of the recipe's epochs, a whole number of them."""
    return round(share * recipe.epochs)


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def _plateaus(losses: Sequence[float], patience: int) -> int:
    """How often `patience` epochs in a row did not better the best loss before them."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        if loss < best - LEAST_IMPROVEMENT:
            best, waited = loss, 0
            continue
        waited += 1
        if waited == patience:
            waited, count = 0, count + 1
    return count
