"""Which hyperparameters mean something only where another one has certain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trainer.limits import shown
from trainer.recipe import Value


@dataclass(frozen=True)
class Condition:
    """What a field needs of another field, which itself needs nothing.

    Attributes:
        field: The other field.
        values: What it may be, if it is a field of names.
        at_least: The least that it may be, if it is a number.
    """

    field: str
    values: tuple[str | bool, ...] = ()
    at_least: int = 0

    def holds(self, value: Value) -> bool:
        """Whether the other field's value is one of those."""
        return value in self.values if self.values else not isinstance(value, str) and value >= self.at_least

    def __str__(self) -> str:
        """The condition as tables and messages show it: `where schedule is step`."""
        wanted = " or ".join(map(shown, self.values)) if self.values else f"at least {self.at_least}"
        return f"where {self.field} is {wanted}"


CONDITIONS: Final[Mapping[str, Condition]] = {
    "dropout_block2": Condition("blocks", at_least=2),
    "dropout_block3": Condition("blocks", at_least=3),
    "step_at": Condition("schedule", ("step",)),
    "step_factor": Condition("schedule", ("step",)),
    "warmup": Condition("schedule", ("warmup_cosine",)),
    "plateau_patience": Condition("schedule", ("plateau",)),
    "plateau_factor": Condition("schedule", ("plateau",)),
    # Of a single convolution the sum with its input is a convolution again.
    "residual": Condition("convolutions", at_least=2),
    "dense_units": Condition("head", ("dense",)),
}
"""By field; a field that is not here always means something."""


def applies(field: str, values: Mapping[str, Value]) -> bool:
    """Whether `field` means something in a recipe of those values."""
    condition = CONDITIONS.get(field)
    return condition is None or condition.holds(values[condition.field])
