"""The shape of a network: what it is made of, and how large it is, without Keras."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

Number = TypeVar("Number", int, float)

SIDE: Final = 32
"""Of an image, in pixels; each block halves it."""
CHANNELS: Final = 3
CLASSES: Final = 10
FILTERS: Final = (32, 64, 128)
"""The article's, block by block."""
FILTERS_STEP: Final = 8
"""Numbers of filters are multiples of this, as in MobileNet (Howard et al. 2017, arXiv:1704.04861), whose
width multiplier `width` is: processors take no longer for them, and fewer networks have to be traced."""
FIELDS: Final = (
    *("width", "blocks", "convolutions", "activation", "batch_normalization", "residual"),
    *("head", "dense_units", "whitening"),
)
"""Fields of a recipe that its network's shape is made of."""
MAX_PARAMETERS: Final = 3_000_000
"""Of any network; the article's has 257,978. With Adam's moments a stored model then has 36 MB at most."""
WHITENING_EPSILON: Final = 1 / (SIDE * SIDE * CHANNELS)
"""Added to an image's variance: the square of `tf.image.per_image_standardization`'s least deviation."""
MONOTONE: Final = ("relu", "leaky_relu", "elu")
"""The activations that do not fall anywhere: they and the maximum of a pool may change places."""


@dataclass(frozen=True)
class Architecture:
    """What two networks must have in common to share a program.

    Attributes:
        filters: Of the convolutions of each block.
        convolutions: In each block.
        activation: One of `trainer.limits.ACTIVATIONS`.
        batch_normalization: Whether each convolution is normalised.
        residual: Whether a block's input is added to its output.
        dense_units: Of the dense layer; 0 where the head pools over the image instead.
        whitening: Whether each image is given zero mean and unit variance first.
    """

    filters: tuple[int, ...] = FILTERS
    convolutions: int = 1
    activation: str = "relu"
    batch_normalization: bool = False
    residual: bool = False
    dense_units: int = 80
    whitening: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Architecture":
        """That of a recipe's values, by field, whether or not a recipe may have them.

        A block beyond the article's three is like the third.
        """
        width, blocks = values["width"], range(values["blocks"])
        return cls(
            filters=tuple(_scaled(of_last(FILTERS, block), width) for block in blocks),
            convolutions=values["convolutions"],
            activation=values["activation"],
            batch_normalization=values["batch_normalization"],
            residual=values["residual"],
            dense_units=values["dense_units"] if values["head"] == "dense" else 0,
            whitening=values["whitening"],
        )

    def count_parameters(self) -> int:
        """All weights, as Keras counts them: moving averages of batch normalisation too."""
        total, channels = 0, CHANNELS
        # Gamma, beta, and the moving mean and variance.
        normalised = 4 if self.batch_normalization else 0
        for filters in self.filters:
            if self.residual and channels != filters:
                total += (channels + 1 + normalised) * filters
            for _ in range(self.convolutions):
                total += (9 * channels + 1 + normalised) * filters
                channels = filters
        if self.dense_units:
            side = SIDE >> len(self.filters)
            total += (side * side * channels + 1) * self.dense_units
            channels = self.dense_units
        return total + (channels + 1) * CLASSES


def of_last(values: tuple[Number, ...], index: int) -> Number:
    """The value at `index`, or the last one where there are no more."""
    return values[min(index, len(values) - 1)]


def _scaled(filters: int, width: float) -> int:
    return max(round(filters * width / FILTERS_STEP), 1) * FILTERS_STEP
