"""The hyperparameters of one trial, as a value that checks itself."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from trainer.errors import RecipeError

OPTIMIZERS: Final = ("sgd", "momentum", "nesterov", "rmsprop", "adam")
"""By name: plain SGD, SGD with momentum 0.9, the same with Nesterov's look-ahead, RMSprop, Adam."""


@dataclass(frozen=True)
class Limits:
    """The closed range of a numeric field; `kind` is the type its values have."""

    kind: type[int] | type[float]
    low: float
    high: float

    def __str__(self) -> str:
        """The range as an error message shows it."""
        return f"{'a whole number' if self.kind is int else 'a number'} from {self.low:g} to {self.high:g}"


LIMITS: Final[Mapping[str, Limits]] = {
    "dropout_block1": Limits(float, 0.0, 0.95),
    "dropout_block2": Limits(float, 0.0, 0.95),
    "dropout_block3": Limits(float, 0.0, 0.95),
    "dropout_dense": Limits(float, 0.0, 0.95),
    "learning_rate": Limits(float, 1e-8, 10.0),
    "epochs": Limits(int, 1, 10_000),
    "batch_size": Limits(int, 1, 10_000),
    "seed": Limits(int, 0, 2**31 - 1),
}


@dataclass(frozen=True)
class Recipe:
    """One trial's hyperparameters; the defaults are the article's.

    Attributes:
        dropout_block1: Dropout rate after the 32-filter block, in [0, 0.95].
        dropout_block2: Dropout rate after the 64-filter block, in [0, 0.95].
        dropout_block3: Dropout rate after the 128-filter block, in [0, 0.95].
        dropout_dense: Dropout rate after the 80-unit dense layer, in [0, 0.95].
        learning_rate: Step size of the optimizer, in [1e-8, 10].
        optimizer: One of `OPTIMIZERS`.
        epochs: Passes over the training images, at least 1.
        batch_size: Images a step, at least 1.
        seed: Fixes the initial weights, the shuffling and the dropout masks, in [0, 2**31).

    Raises:
        RecipeError: A field has the wrong type or lies outside its range.
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

    def __post_init__(self) -> None:
        """Check every field against its range."""
        for name, limits in LIMITS.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), limits))
        if self.optimizer not in OPTIMIZERS:
            raise RecipeError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")

    def to_dict(self) -> dict[str, float | int | str]:
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


ARTICLE: Final = Recipe()
"""The article's own recipe: SGD(0.01, momentum 0.9), dropout 0.3 / 0.3 / 0.4 / 0.3, batch 64, 100 epochs."""
