"""What the article "[Deep Learning Lab] Episode-2: CIFAR-10" reports, for comparison."""

from typing import Final

BAND: Final = (0.77, 0.78)
"""The accuracy that the article sums its results up as, "77-78 %"; test set, one run each."""

ARTICLE_RESULTS: Final = ((150, 78.22), (200, 77.77), (100, 77.37))
"""Epochs and test accuracy in percent of the article's three runs, the best first."""
