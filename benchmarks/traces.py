"""How a replayed search went."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.recipe import Recipe

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """The best of a search by epochs spent.

    Attributes:
        epochs: Epochs spent by all workers whenever a trial completed that was the best so far, in order.
        values: Its value, an accuracy in [0, 1].
        truths: What its recipe is worth: the mean over seeds, which no search gets to see.
        trials: Trials begun.
        winner: The recipe of the best; None before any trial completed.
    """

    epochs: Array
    values: Array
    truths: Array
    trials: int
    winner: Recipe | None = None

    def at(self, budget: int, *, truth: bool = False) -> float:
        """The best value, or what it is worth, after so many epochs; -inf before any trial completed."""
        index = int(np.searchsorted(self.epochs, budget, side="right")) - 1
        return float((self.truths if truth else self.values)[index]) if index >= 0 else float("-inf")

    def epochs_to(self, target: float, *, truth: bool = False) -> float:
        """Epochs spent until the best value, or its worth, was `target` or more; inf where it never was."""
        reached = np.flatnonzero((self.truths if truth else self.values) >= target)
        return float(self.epochs[reached[0]]) if len(reached) else float("inf")
