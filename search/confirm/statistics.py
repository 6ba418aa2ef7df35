"""Means over seeds, their intervals, and what is a winner beyond noise: functions of numbers alone.

Where a recipe is compared with another one, both seeds and images are samples: seeds, since others would give
other models, and images, since the recipes were chosen on these very ones, and what one of them owes to these
images comes back with each seed. A mean alone is of the images as they are. Recipes trained on the same seed
may have anything in common.
"""

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from search.hits import Hits

LEVEL: Final = 0.95
"""Of every interval; where several are compared, of all of them together."""
IMAGES: Final = 10_000
"""How many validation images there are, and test images."""
ROUNDING: Final = 1 / math.sqrt(6)
"""Least standard deviation, in images, of a difference of two accuracies, each rounded to an image.

A smaller one was measured by luck: two seeds that happen to agree would leave an interval of no width.
"""


@dataclass(frozen=True)
class Interval:
    """A mean, and the interval around it that covers the true one in `LEVEL` of all cases."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """How much more accurate one recipe is than another one, both trained on the same seeds.

    The interval covers other seeds and other images.

    Attributes:
        error_of_seeds: The part of the mean's standard error that more seeds would lessen.
        error_of_images: The part that is of these images.
    """

    error_of_seeds: float
    error_of_images: float


@dataclass(frozen=True)
class Decision:
    """What the accuracies came to.

    Attributes:
        means: Of each candidate over its seeds, in [0, 1]; None where fewer than two have a value.
        reference: The same of the reference; None without one, too.
        differences: Of each candidate to the reference, over the seeds that both have, with intervals that
            hold for all candidates together; None where fewer than two seeds have both, and without a
            reference.
        winner: The index of the candidate that won, None where none did.
    """

    means: tuple[Interval | None, ...]
    reference: Interval | None
    differences: tuple[Difference | None, ...]
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


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The mean of `values`, one for each seed, with Student's t interval; None for fewer than two.

    It may reach beyond what the values can be: `accuracy_interval`.
    """
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    deviation = max(statistics.stdev(values), ROUNDING / IMAGES)
    half = _quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def accuracy_interval(mean: float, low: float, high: float) -> Interval:
    """The interval of an accuracy: as far as it lies in [0, 1]; no difference has such bounds.

    Student's t knows of no bounds: of two seeds it reaches 12.7 times as far from the mean as they do. Beyond
    0 and 1 no accuracy is, so that without that part the interval covers the true one as often.
    """
    return Interval(mean, max(low, 0.0), min(high, 1.0))


def paired_difference(
    mine: Sequence[Hits | None], theirs: Sequence[Hits | None], comparisons: int = 1
) -> Difference | None:
    """How much more accurate one recipe is than another; None where fewer than two seeds have both.

    The variance of the mean difference is that over seeds, of the n differences of accuracies, by n, plus
    that over images, of each image's difference averaged over the seeds, by their number. What seeds do to
    single images is in both, so that the sum is too large rather than too small: by the seeds' part at most.
    Student's t has the degrees of freedom of Satterthwaite (1946, Biometrics Bulletin 2) and Welch (1947,
    Biometrika 34).

    Args:
        mine: What the one classified rightly, by seed, all of the same images; None where there is no model.
        theirs: The other's, by the same seeds.
        comparisons: How many such intervals are to hold together, by Bonferroni's inequality: each one's
            error is that part of 1 - `LEVEL`, which is enough however they depend on each other.
    """
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return None
    seeds, images = len(pairs), len(pairs[0][0])
    # By image, summed over seeds; float64 holds these whole numbers exactly.
    of_images = np.zeros(images)
    of_seeds = []
    for own, other in pairs:
        difference = own.astype(np.float64) - other
        of_images += difference
        of_seeds.append(float(difference.mean()))
    variance_of_seeds = max(statistics.stdev(of_seeds), ROUNDING / images) ** 2 / seeds
    variance_of_images = float(np.var(of_images / seeds, ddof=1)) / images
    variance = variance_of_seeds + variance_of_images
    freedom = variance**2 / (variance_of_seeds**2 / (seeds - 1) + variance_of_images**2 / (images - 1))
    mean = statistics.fmean(of_seeds)
    half = _quantile(freedom, comparisons) * math.sqrt(variance)
    return Difference(
        mean, mean - half, mean + half, math.sqrt(variance_of_seeds), math.sqrt(variance_of_images)
    )


def decide_against_reference(
    candidates: Sequence[Sequence[Hits | None]], reference: Sequence[Hits | None]
) -> Decision:
    """Which candidate is better than the reference beyond noise.

    The winner is the candidate of the highest mean among those whose interval of the difference lies above
    0; these intervals hold together. One that lacks a seed, because its training diverged or failed there,
    cannot win.

    Were the candidates chosen without a look at these images, one would be named in at most 2.5 % of all
    cases where none is better. They are the best on these images, which the interval's width for other images
    makes up for in the most part: `tests/test_search_confirm_statistics.py` has the measure of it.

    Args:
        candidates: What each classified rightly, by seed; None where it left no model.
        reference: The reference's, on the same seeds. A seed that it lacks is left out: that it failed there
            is not held against it.
    """
    differences = tuple(paired_difference(hits, reference, len(candidates)) for hits in candidates)
    above = [
        index
        for index, difference in enumerate(differences)
        if difference is not None and difference.low > 0 and all(one is not None for one in candidates[index])
    ]
    accuracies = [_accuracies(hits) for hits in candidates]
    return Decision(
        tuple(map(_mean_of_known, accuracies)),
        _mean_of_known(_accuracies(reference)),
        differences,
        _highest(accuracies, above),
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
    return FigureComparison(accuracy_interval(share, share - half, share + half), of_seeds, of_images, figure)


def median_index(values: Sequence[float]) -> int:
    """The index of the median, the lower of two middle ones, the first of equals; of at least one value."""
    return sorted(range(len(values)), key=lambda index: (values[index], index))[(len(values) - 1) // 2]


@functools.cache
def _quantile(freedom: float, comparisons: int = 1) -> float:
    # It takes a second to import, which commands that only read a verdict need not wait.
    from scipy import stats

    return float(stats.t.ppf(1 - (1 - LEVEL) / (2 * comparisons), freedom))


def _accuracies(hits: Sequence[Hits | None]) -> list[float | None]:
    return [None if one is None else float(one.mean()) for one in hits]


def _mean_of_known(values: Sequence[float | None]) -> Interval | None:
    interval = mean_interval([value for value in values if value is not None])
    return None if interval is None else accuracy_interval(interval.mean, interval.low, interval.high)


def _highest(candidates: Sequence[Sequence[float | None]], among: Sequence[int]) -> int | None:
    """The first of `among` whose candidate has the highest mean; these lack no value."""

    def mean(index: int) -> float:
        return statistics.fmean(value for value in candidates[index] if value is not None)

    return max(among, key=mean, default=None)
