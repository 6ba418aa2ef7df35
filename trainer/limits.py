"""What each field of a recipe may hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

OPTIMIZERS: Final = ("sgd", "momentum", "nesterov", "rmsprop", "adam")
"""By name: plain SGD, SGD with momentum 0.9, the same with Nesterov's look-ahead, RMSprop, Adam."""

SCHEDULES: Final = ("constant", "step", "cosine", "warmup_cosine", "plateau")
"""How the learning rate changes from epoch to epoch (`trainer.schedule`)."""

ACTIVATIONS: Final = ("relu", "leaky_relu", "elu", "gelu", "silu")
"""Keras's, by its names."""

HEADS: Final = ("dense", "pooling")
"""What follows the blocks: the article's flattening and dense layer, or the mean over the image."""


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
    "step_at": Limits(float, 0.0, 1.0),
    "step_factor": Limits(float, 0.001, 1.0),
    "warmup": Limits(float, 0.0, 1.0),
    "plateau_patience": Limits(float, 0.0, 1.0),
    "plateau_factor": Limits(float, 0.001, 1.0),
    "weight_decay": Limits(float, 0.0, 1.0),
    "label_smoothing": Limits(float, 0.0, 0.9),
    "shift": Limits(float, 0.0, 0.5),
    "rotation": Limits(float, 0.0, 180.0),
    "zoom": Limits(float, 0.0, 0.5),
    "cutout": Limits(int, 0, 32),
    "width": Limits(float, 0.25, 4.0),
    "blocks": Limits(int, 1, 5),
    "convolutions": Limits(int, 1, 4),
    "dense_units": Limits(int, 1, 1024),
}
"""Of each field that is a number."""

CHOICES: Final[Mapping[str, tuple[str | bool, ...]]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "flip": (False, True),
    "whitening": (False, True),
    "activation": ACTIVATIONS,
    "batch_normalization": (False, True),
    "residual": (False, True),
    "head": HEADS,
}
"""What each field that is not a number may hold."""


def shown(value: object) -> str:
    """A choice as JSON and TOML spell it, without quotes: `adam`, `true`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
