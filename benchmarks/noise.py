"""How much of a recorded learning curve is chance."""

from collections.abc import Sequence

import numpy as np
from curves import CHANCE, Curve, fill
from traces import Array

from search.confirm.plan import without_seed
from trainer.recipe import Recipe


def find_residuals(curves: Sequence[Curve], epochs: int) -> Array:
    """What seeds did to recipes trained more than once, in units of each recipe's own wobble, (n, epochs).

    Early luck is larger than late luck, and says little of it; so whole curves of it are kept. Each has the
    variance of a single training, whatever the number of seeds. Recipes that learn nothing are left out.
    """
    groups: dict[Recipe, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(without_seed(curve.recipe), []).append(curve)
    residuals = [np.empty((0, epochs))]
    for group in groups.values():
        rows = fill(group, epochs)
        if len(group) > 1 and rows[:, -1].min() > 2 * CHANCE:
            wobble = np.mean([measure_wobble(row) for row in rows])
            # A mean of few lies nearer to each of them than the true one does.
            unbiased = (len(group) / (len(group) - 1)) ** 0.5
            residuals.append((rows - rows.mean(axis=0)) * unbiased / wobble)
    return np.concatenate(residuals)


def draw_noise(residuals: Array, random: np.random.Generator) -> Array:
    """Noise of one training with the variances and correlations of `residuals`, normal, (epochs,)."""
    count, epochs = residuals.shape
    return random.normal(size=count) @ residuals / count**0.5 if count else np.zeros(epochs)


def measure_wobble(accuracies: Sequence[float] | Array) -> float:
    """Standard deviation of single epochs around a training's smooth curve, past its first third."""
    steps = np.diff(accuracies[len(accuracies) // 3 :])
    # So are steps of what is independent from epoch to epoch; never 0, its logarithm is learnt.
    return max(0.001, float(np.std(steps)) / 2**0.5) if len(steps) else 0.001
