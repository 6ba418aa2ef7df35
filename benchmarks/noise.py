"""How much of a recorded learning curve is chance."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from curves import CHANCE, Curve, fill

from trainer.recipe import Recipe


def measure_spread(curves: Sequence[Curve], epochs: int) -> float:
    """Standard deviation of a whole curve by its seed, from recipes trained twice that learn something."""
    pairs: dict[Recipe, list[Curve]] = {}
    for curve in curves:
        pairs.setdefault(dataclasses.replace(curve.recipe, seed=0), []).append(curve)
    differences = []
    for pair in pairs.values():
        if len(pair) == 2:
            first, second = fill(pair, epochs)
            if min(first[-1], second[-1]) > 2 * CHANCE:
                differences.append(float((first - second)[epochs // 3 :].mean()))
    # A difference has twice one's variance.
    return float(np.sqrt(np.mean(np.square(differences)) / 2)) if differences else 0.0


def measure_wobble(accuracies: Sequence[float]) -> float:
    """Standard deviation of single epochs around a training's smooth curve, past its first third."""
    steps = np.diff(accuracies[len(accuracies) // 3 :])
    # So are steps of what is independent from epoch to epoch; never 0, its logarithm is learnt.
    return max(0.001, float(np.std(steps)) / 2**0.5) if len(steps) else 0.001
