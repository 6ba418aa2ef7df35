"""The results that the article "[Deep Learning Lab] Episode-2: CIFAR-10" reports, for comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class PublishedResult:
    """Scores on the 10,000 test images after some epochs: accuracy in [0, 1] and mean cross-entropy."""

    accuracy: float
    loss: float


PUBLISHED: Final[Mapping[int, PublishedResult]] = {
    100: PublishedResult(0.7737, 0.670),
    150: PublishedResult(0.7822, 0.646),
    200: PublishedResult(0.7777, 0.670),
}
"""The article's three runs, by epochs."""

BAND: Final = (0.77, 0.78)
"""The accuracy that the article sums its results up as, "77-78 %"; test set, one run each."""
