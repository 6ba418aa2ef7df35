"""What the article "[Deep Learning Lab] Episode-2: CIFAR-10" reports, for comparison."""

from dataclasses import dataclass
from typing import Final

BAND: Final = (0.77, 0.78)
"""The accuracy that the article sums its results up as, "77-78 %"; test set, one run each."""


@dataclass(frozen=True)
class ArticleResult:
    """One of the article's runs, scored on the 10,000 test images.

    Attributes:
        epochs: How long it trained.
        percent: Accuracy in percent.
        loss: Mean cross-entropy.
    """

    epochs: int
    percent: float
    loss: float


ARTICLE_RESULTS: Final = (
    ArticleResult(150, 78.22, 0.646),
    ArticleResult(200, 77.77, 0.670),
    ArticleResult(100, 77.37, 0.670),
)
"""The article's three runs, the best first."""
