"""What a pack's program is compiled for, and how."""

import math
from dataclasses import dataclass
from typing import Final, Literal

import jax

from trainer.architecture import Architecture
from trainer.packed.convolution import Lowering
from trainer.precision import Precision

SCORING_BATCH: Final = 100
"""Images a step when scoring, for each slot."""

Products = Literal["tf32", "highest"]
"""How exactly float32 is multiplied: with 10 bits of the mantissa where a GPU is fast at it, or with all."""
LONGEST_BLOCK: Final = 125
"""Steps of a loop of fixed length: a fifth of the article's epoch, below a second with 64 slots on a GPU (an
estimate), and too many for the call to count."""


@dataclass(frozen=True)
class Build:
    """How a program is made; results are the same but for rounding.

    Attributes:
        lowering: How convolutions are told.
        products: How exactly float32 is multiplied.
        block: Steps of a compiled loop of fixed length, at least 1; None for loops whose length is told at
            each call. A GPU waits before each step of the latter to be told whether there is one.
    """

    lowering: Lowering
    products: Products
    block: int | None


@dataclass(frozen=True)
class Shape:
    """What a program is compiled for.

    Attributes:
        architecture: The network's.
        batch_size: Images a step of each slot.
        augments: Whether images are augmented, by each slot's numbers.
        slots: How many.
        train_images: How many there are to train on.
        validation_images: How many there are to validate on.
        precision: What is computed in.
    """

    architecture: Architecture
    batch_size: int
    augments: bool
    slots: int
    train_images: int
    validation_images: int
    precision: Precision

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-self.train_images // self.batch_size)

    @property
    def scoring_steps(self) -> int:
        """Of a validation."""
        return -(-self.validation_images // SCORING_BATCH)


def choose_build(steps: int) -> Build:
    """How to make a program whose epochs have so many steps, for the device at hand.

    On a CPU steps are long, and looked at one by one where they take seconds. Elsewhere an epoch is cut in
    equal blocks. What is best for convolutions on a GPU is not measured yet.
    """
    if jax.default_backend() == "cpu":
        return Build("patches", "highest", None)
    blocks = math.ceil(steps / LONGEST_BLOCK)
    return Build("patches", "tf32", math.ceil(steps / blocks))
