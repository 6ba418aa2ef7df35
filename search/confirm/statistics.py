"""Means over seeds, their intervals, and what is a winner beyond noise: functions of numbers alone.

The seeds are the sample. A recipe's accuracy on one seed, of the validation images as they are, is taken for
a draw from a normal distribution; recipes trained on the same seed may have anything in common.
"""

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEVEL: Final = 0.95
"""Of every interval; where several are compared, of all of them together."""
ROUNDING: Final = 1 / 10_000 / math.sqrt(6)
"""Least standard deviation of a difference: of two accuracies of 10,000 images, each rounded to an image.

A smaller one was measured by luck: two seeds that happen to agree would leave an interval of no width.
"""


@dataclass(frozen=True)
class Interval:
    """A mean, and the interval around it that covers the true one in `LEVEL` of all cases."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """What the accuracies came to.

    Attributes:
        means: Of each candidate over its seeds; None where fewer than two have a value.
        reference: The same of the reference; None without one, too.
        differences: Of each candidate to the reference, over the seeds that both have, with intervals that
            hold for all candidates together; None where fewer than two seeds have both, and without a
            reference.
        winner: The index of the candidate that won, None where none did.
    """

    means: tuple[Interval | None, ...]
    reference: Interval | None
    differences: tuple[Interval | None, ...]
    winner: int | None


@dataclass(frozen=True)
class FigureComparison:
    """The test accuracies of a recipe's models beside a published figure, all in [0, 1].

    The interval covers two things: that other seeds would give other models, t s / sqrt(n), and that other
    test images would give other accuracies, z sqrt(p (1 - p) / images), once, as both are scored on the same
    images (so does `cnn-search baseline`). They are independent, so their squares add up.

    Attributes:
        interval: Of the recipe's accuracy.
        of_seeds: The half-width that seeds alone account for.
        of_images: The half-width that the test set's size alone accounts for.
        figure: The published one.
    """

    interval: Interval
    of_seeds: float
    of_images: float
    figure: float

    @property
    def is_beyond(self) -> bool:
        """Whether the whole interval lies above the figure."""
        return self.interval.low > self.figure


def mean_interval(values: Sequence[float], comparisons: int = 1) -> Interval | None:
    """The mean of `values` with Student's t interval; None for fewer than two.

    Args:
        values: One for each seed.
        comparisons: How many such intervals are to hold together, by Bonferroni's inequality: each one's
            error is that part of 1 - `LEVEL`, which is enough however they depend on each other.
    """
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    deviation = max(statistics.stdev(values), ROUNDING)
    half = _quantile(len(values) - 1, comparisons) * deviation / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def decide_against_reference(
    candidates: Sequence[Sequence[float | None]], reference: Sequence[float | None]
) -> Decision:
    """Which candidate is better than the reference beyond noise.

    The winner is the candidate of the highest mean among those whose interval of the difference lies above
    0; these intervals hold together, so that with no better candidate one is named in at most 2.5 % of all
    cases. One that lacks a seed, because its training diverged or failed there, cannot win.

    Args:
        candidates: The accuracies of each by seed; None where there is none.
        reference: The reference's, of the same seeds. A seed that it lacks is left out: that it failed there
            is not held against it.
    """
    differences = tuple(
        mean_interval(
            [
                mine - theirs
                for mine, theirs in zip(values, reference, strict=True)
                if mine is not None and theirs is not None
            ],
            len(candidates),
        )
        for values in candidates
    )
    above = [
        index
        for index, difference in enumerate(differences)
        if difference is not None and difference.low > 0 and None not in candidates[index]
    ]
    return Decision(
        tuple(map(_mean_of_known, candidates)),
        _mean_of_known(reference),
        differences,
        _highest(candidates, above),
    )


def decide_highest(candidates: Sequence[Sequence[float | None]]) -> Decision:
    """The candidate of the highest mean among those that lack no seed; what it is worth is not said by it.

    Args:
        candidates: The accuracies of each by seed; None where there is none.
    """
    whole = [index for index, values in enumerate(candidates) if None not in values]
    means = tuple(map(_mean_of_known, candidates))
    return Decision(means, None, (None,) * len(candidates), _highest(candidates, whole))


def compare_with_figure(accuracies: Sequence[float], images: int, figure: float) -> FigureComparison:
    """A recipe's test accuracies, one for each of at least two seeds, beside a published one.

    Args:
        accuracies: In [0, 1], all of the same `images`.
        images: How many test images there are.
        figure: The published accuracy of the same images, in [0, 1].

    Raises:
        ValueError: There are fewer than two accuracies.
    """
    seeds = mean_interval(accuracies)
    if seeds is None:
        raise ValueError(f"{len(accuracies)} accuracies have no spread; give two or more")
    share = seeds.mean
    of_images = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt(share * (1 - share) / images)
    of_seeds = seeds.high - seeds.mean
    half = math.hypot(of_seeds, of_images)
    return FigureComparison(Interval(share, share - half, share + half), of_seeds, of_images, figure)


def median_index(values: Sequence[float]) -> int:
    """The index of the median, the lower of two middle ones, the first of equals; of at least one value."""
    return sorted(range(len(values)), key=lambda index: (values[index], index))[(len(values) - 1) // 2]


@functools.cache
def _quantile(freedom: int, comparisons: int) -> float:
    # It takes a second to import, which commands that only read a verdict need not wait.
    from scipy import stats

    return float(stats.t.ppf(1 - (1 - LEVEL) / (2 * comparisons), freedom))


def _mean_of_known(values: Sequence[float | None]) -> Interval | None:
    return mean_interval([value for value in values if value is not None])


def _highest(candidates: Sequence[Sequence[float | None]], among: Sequence[int]) -> int | None:
    """The first of `among` whose candidate has the highest mean; these lack no value."""

    def mean(index: int) -> float:
        return statistics.fmean(value for value in candidates[index] if value is not None)

    return max(among, key=mean, default=None)
