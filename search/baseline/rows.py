"""A baseline run's figures over its seeds, and what chance explains of how they differ from the article's."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from search.baseline.record import BaselineRecord, SeedRun
from trainer.article import ARTICLE_RESULTS, ArticleResult
from trainer.cifar10 import TRAIN_IMAGES

LAST_EPOCHS: Final = 20
"""How many epochs before a score tell how much one seed's accuracy moves by itself."""
SIGMAS: Final = 2.0
"""Chance explains a difference up to so many standard deviations of it: 95 % of those that it makes."""


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Attributes:
        mean: Of all seeds.
        deviation: Sample standard deviation; None for a single seed.
    """

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Comparison:
    """Our accuracy against the article's, in percentage points.

    Two networks of the same worth differ for two reasons. Their seeds differ: s for the article's one run,
    and s / sqrt(k) for the mean of our k. And they are right on different images: an accuracy p of n images
    has a binomial standard deviation of b = sqrt(p (1 - p) / n). Both are scored on the same images, so b
    counts once: for networks that err independently of each other it would be sqrt(2) b, for networks that
    err on the same images nothing.

    Attributes:
        difference: Ours minus the article's.
        images: b, the part of the test set's size.
        seeds: s * sqrt(1 + 1 / k), the part of the seeds.
        from_epochs: Whether s is, for want of a second seed, the standard deviation of the validation
            accuracy over the seed's own last `LAST_EPOCHS`: at a constant rate it moves from epoch to epoch,
            and where it is scored is chance as well. Seeds differ by at least as much.
    """

    difference: float
    images: float
    seeds: float
    from_epochs: bool

    @property
    def explained(self) -> float:
        """How far apart chance alone puts two that are equal: `SIGMAS` standard deviations."""
        return SIGMAS * math.hypot(self.images, self.seeds)

    @property
    def is_inside(self) -> bool:
        """Whether chance explains the difference."""
        return abs(self.difference) <= self.explained


@dataclass(frozen=True)
class Row:
    """What the seeds came to at one epoch.

    Attributes:
        epoch: After which the models were scored.
        seeds: How many are scored there.
        accuracy: On the test images, in percent.
        loss: On the test images.
        validation: Accuracy on the validation images, in percent.
        article: The article's result for as many epochs, None where it has none.
        comparison: With it; None where there is none, or where fewer images were trained on.
        images: How many test images there are.
    """

    epoch: int
    seeds: int
    accuracy: Spread
    loss: Spread
    validation: Spread
    article: ArticleResult | None
    comparison: Comparison | None
    images: int


def rows_of(record: BaselineRecord) -> list[Row]:
    """A row for each epoch at which a seed is scored, ascending."""
    rows = []
    for epoch in record.epochs():
        scores = [score for run in record.runs if (score := run.score_at(epoch)) is not None]
        accuracy = Spread.of([100 * score.test.accuracy for score in scores])
        article = next((result for result in ARTICLE_RESULTS if result.epochs == epoch), None)
        comparison, images = None, scores[0].test.images
        if article is not None and is_articles_experiment(record):
            moved = _moved(next(run for run in record.runs if run.score_at(epoch) is not None), epoch)
            comparison = compare(accuracy, len(scores), article, images, moved)
        rows.append(
            Row(
                epoch,
                len(scores),
                accuracy,
                Spread.of([score.test.loss for score in scores]),
                Spread.of([100 * score.validation.accuracy for score in scores]),
                article,
                comparison,
                images,
            )
        )
    return rows


def is_articles_experiment(record: BaselineRecord) -> bool:
    """Whether it is trained on as many images as the article's."""
    return record.settings.train_samples == TRAIN_IMAGES


def compare(accuracy: Spread, seeds: int, article: ArticleResult, images: int, moved: float) -> Comparison:
    """The mean `accuracy` of so many `seeds`, in percent of `images` test images, against the article's.

    `moved` is by how many points a single seed's accuracy moves from epoch to epoch (standard deviation).
    """
    share = article.percent / 100
    spread = moved if accuracy.deviation is None else accuracy.deviation
    return Comparison(
        accuracy.mean - article.percent,
        images=100 * math.sqrt(share * (1 - share) / images),
        seeds=spread * math.sqrt(1 + 1 / seeds),
        from_epochs=accuracy.deviation is None,
    )


def _moved(run: SeedRun, epoch: int) -> float:
    """The standard deviation of a seed's validation accuracy over the epochs up to `epoch`, in points."""
    last = run.history[max(0, epoch - LAST_EPOCHS) : epoch]
    return 100 * statistics.stdev(result.validation_accuracy for result in last) if len(last) > 1 else 0.0
