"""The hyperparameters of one trial, as a value that checks itself."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from trainer.architecture import MAX_PARAMETERS, Architecture, of_last
from trainer.errors import RecipeError
from trainer.limits import ACTIVATIONS, CHOICES, HEADS, LIMITS, OPTIMIZERS, SCHEDULES, Limits, shown

__all__ = [
    "ACTIVATIONS",
    "ARTICLE",
    "CHOICES",
    "HEADS",
    "LIMITS",
    "OPTIMIZERS",
    "SCHEDULES",
    "Limits",
    "Recipe",
    "Value",
]

Value = float | int | str | bool
"""What a field holds."""


@dataclass(frozen=True)
class Recipe:
    """One trial's hyperparameters; the defaults are the article's.

    Attributes:
        dropout_block1: Dropout rate after the 32-filter block, in [0, 0.95].
        dropout_block2: Dropout rate after the 64-filter block, in [0, 0.95].
        dropout_block3: Dropout rate after the 128-filter block, and any that follow, in [0, 0.95].
        dropout_dense: Dropout rate before the classes, after the 80-unit dense layer, in [0, 0.95].
        learning_rate: Step size of the optimizer, in [1e-8, 10].
        optimizer: One of `OPTIMIZERS`.
        epochs: Passes over the training images, at least 1.
        batch_size: Images a step, at least 1.
        seed: Fixes the initial weights, the shuffling and the dropout masks, in [0, 2**31).
        schedule: How the learning rate changes from epoch to epoch, one of `SCHEDULES` (`trainer.schedule`).
        step_at: Share of the epochs after which schedule "step" changes the rate, in [0, 1].
        step_factor: What it multiplies the rate by then, in [0.001, 1].
        warmup: Share of the epochs over which schedule "warmup_cosine" raises the rate, in [0, 1].
        plateau_patience: Share of the epochs that schedule "plateau" waits for a better validation loss, in
            [0, 1], but at least an epoch.
        plateau_factor: What it multiplies the rate by when it has waited in vain, in [0.001, 1].
        weight_decay: A step first multiplies each trained weight, biases and all, by 1 - learning rate x
            `weight_decay`, in [0, 1]: Keras's `weight_decay` of an optimizer, decoupled from the gradient
            (Loshchilov and Hutter 2019, arXiv:1711.05101).
        label_smoothing: Share of a label that is spread evenly over all classes in training, in [0, 0.9]
            (Szegedy et al. 2016, arXiv:1512.00567). Validation losses have none.
        flip: Whether half of the training images are mirrored, left to right (`trainer.augmentation`).
        shift: They are shifted by up to this share of their side in each direction, in [0, 0.5].
        rotation: They are rotated by up to so many degrees either way, in [0, 180].
        zoom: They are made larger or smaller by up to this share, in [0, 0.5].
        cutout: Side in pixels of the square that is cut out of each, in [0, 32].
        whitening: Whether the model gives each image zero mean and unit variance before all else, in training
            and ever after.

    Raises:
        RecipeError: A field has the wrong type or lies outside its range, or the network has more than
            `trainer.architecture.MAX_PARAMETERS`.
    """

    dropout_block1: float = 0.3
    dropout_block2: float = 0.3
    dropout_block3: float = 0.4
    dropout_dense: float = 0.3
    learning_rate: float = 0.01
    optimizer: str = "momentum"
    epochs: int = 100
    batch_size: int = 64
    seed: int = 0

    schedule: str = "constant"
    step_at: float = 0.5
    step_factor: float = 0.1
    warmup: float = 0.05
    plateau_patience: float = 0.1
    plateau_factor: float = 0.1
    weight_decay: float = 0.0
    label_smoothing: float = 0.0

    flip: bool = False
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    cutout: int = 0
    whitening: bool = False

    activation: str = "relu"
    width: float = 1.0
    blocks: int = 3
    convolutions: int = 1
    batch_normalization: bool = False
    residual: bool = False
    head: str = "dense"
    dense_units: int = 80

    def __post_init__(self) -> None:
        """Check every field against its range."""
        for name, limits in LIMITS.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), limits))
        for name, choices in CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        parameters = self.architecture.count_parameters()
        if parameters > MAX_PARAMETERS:
            raise RecipeError(
                f"a network of {parameters:,} parameters is above the bound of {MAX_PARAMETERS:,};"
                " lower width, blocks, convolutions or dense_units"
            )

    @property
    def architecture(self) -> Architecture:
        """The shape of its network."""
        return Architecture.of(vars(self))

    @property
    def dropout_rates(self) -> tuple[float, ...]:
        """The rates in the network's order; a block beyond the third has the third's."""
        rates = (self.dropout_block1, self.dropout_block2, self.dropout_block3)
        return (*(of_last(rates, block) for block in range(self.blocks)), self.dropout_dense)

    def to_dict(self) -> dict[str, Value]:
        """The recipe as JSON-ready values, in field order."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """The recipe that `to_dict` gave.

        Raises:
            RecipeError: A key is unknown, or a value lies outside its range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise RecipeError(f"a recipe has no field {name!r}; its fields are {', '.join(known)}")
        return cls(**values)


def _checked(name: str, value: object, limits: Limits) -> int | float:
    """`value` as the field's type; a whole number is a fine float, but never the other way round."""
    wanted = (int, float) if limits.kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise RecipeError(f"{name} must be {limits}, got {value!r}")
    # NaN fails every comparison.
    if not limits.low <= value <= limits.high:
        raise RecipeError(f"{name} must be {limits}, got {value!r}")
    return limits.kind(value)


def _check_choice(name: str, value: object, choices: tuple[str | bool, ...]) -> None:
    # 1 equals True, and a list has no hash.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise RecipeError(f"{name} must be one of {', '.join(map(shown, choices))}, got {value!r}")


ARTICLE: Final = Recipe()
"""The article's own recipe: SGD(0.01, momentum 0.9), dropout 0.3 / 0.3 / 0.4 / 0.3, batch 64, 100 epochs."""
