"""The range of one hyperparameter: numbers between two bounds, or a choice of names."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from search.errors import SpaceError
from trainer.limits import CHOICES, LIMITS, shown
from trainer.recipe import Recipe, Value

if TYPE_CHECKING:
    # Optuna takes half a second to import, which `cnn-search --help` must not.
    from optuna.trial import BaseTrial

__all__ = [
    "CHOICES",
    "SEARCHABLE",
    "Choices",
    "NumberRange",
    "Range",
    "check_bound",
    "did_you_mean",
    "fixed_range",
    "range_from_dict",
]

SEARCHABLE: Final = tuple(field.name for field in dataclasses.fields(Recipe) if field.name != "seed")
"""The fields a space may range over, in the order they are suggested. A seed is no hyperparameter."""


@dataclass(frozen=True)
class NumberRange:
    """The closed range of a recipe's numeric field, of whole numbers where the field is one.

    Attributes:
        field: One of `trainer.recipe.LIMITS` but `seed`, whose limits `low` and `high` keep.
        low: The smallest value.
        high: The largest value; equal to `low` it holds the field at that value.
        log: Whether equal ratios, rather than equal differences, are equally likely; needs `low` above 0.
        reason: Why this range, in one line, with its source where there is one.

    Raises:
        SpaceError: A value has the wrong type, lies outside the field's limits, or the bounds are reversed.
    """

    field: str
    low: int | float
    high: int | float
    log: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        """Check the values and give the bounds the field's own type."""
        _check_field(self.field, [name for name in SEARCHABLE if name not in CHOICES])
        _check_reason(self.field, self.reason)
        for key in ("low", "high"):
            object.__setattr__(self, key, check_bound(self.field, key, getattr(self, key)))
        if not isinstance(self.log, bool):
            raise SpaceError(f"{self.field}: log must be true or false, got {self.log!r}", key="log")
        if self.low > self.high:
            raise SpaceError(
                f"{self.field}: low {_number(self.low)} is above high {_number(self.high)};"
                " swap them, or give both where only one is given",
                key="high",
            )
        if self.log and self.low <= 0:
            raise SpaceError(
                f"{self.field}: a log range needs a low above 0, got {_number(self.low)};"
                " raise low or leave log out",
                key="log",
            )

    def __str__(self) -> str:
        """The range as tables and messages show it: `0.0001 to 0.1 (log)`."""
        if self.single:
            return f"{_number(self.low)} (fixed)"
        return f"{_number(self.low)} to {_number(self.high)}{' (log)' if self.log else ''}"

    @property
    def single(self) -> bool:
        """Whether the field is held at one value, so that there is nothing to search."""
        return self.low == self.high

    def holds(self, value: Value) -> bool:
        """Whether `value` lies in the range."""
        return not isinstance(value, str) and self.low <= value <= self.high

    def suggest(self, trial: "BaseTrial") -> Value:
        """A value of the range, from `trial`; one value alone is no parameter of the trial."""
        if self.single:
            return self.low
        if LIMITS[self.field].kind is int:
            return trial.suggest_int(self.field, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.field, self.low, self.high, log=self.log)

    def to_dict(self) -> dict[str, Any]:
        """The range as JSON-ready values, without its field."""
        return {"low": self.low, "high": self.high, "log": self.log, "reason": self.reason}


@dataclass(frozen=True)
class Choices:
    """The values that a recipe's field of names, or of false and true, may take.

    Attributes:
        field: One of `CHOICES`.
        choices: One or more of its values; kept in `CHOICES`' order, because Optuna refuses a study's choices
            in another order than before.
        reason: Why these, in one line, with the source where there is one.

    Raises:
        SpaceError: There is no choice, an unknown one, or the same twice.
    """

    field: str
    choices: tuple[str | bool, ...]
    reason: str = ""

    def __post_init__(self) -> None:
        """Check the choices and put them in order."""
        _check_field(self.field, list(CHOICES))
        _check_reason(self.field, self.reason)
        allowed = CHOICES[self.field]
        names = ", ".join(map(shown, allowed))
        if not isinstance(self.choices, (list, tuple)) or not self.choices:
            raise SpaceError(
                f"{self.field}: choices must be a list of one or more of {names}, got {self.choices!r}",
                key="choices",
            )
        for choice in self.choices:
            # 1 equals True.
            if not any(type(choice) is type(known) and choice == known for known in allowed):
                hint = did_you_mean(choice, map(shown, allowed))
                if isinstance(choice, str) and choice in map(shown, allowed):
                    hint = "; write it without quotes"
                raise SpaceError(
                    f"{self.field} must be one of {names}, got {choice!r}{hint}",
                    key="choices",
                )
            if self.choices.count(choice) > 1:
                raise SpaceError(
                    f"{self.field}: choices names {choice!r} more than once; name it once", key="choices"
                )
        object.__setattr__(self, "choices", tuple(name for name in allowed if name in self.choices))

    def __str__(self) -> str:
        """The choices as tables and messages show them."""
        names = ", ".join(map(shown, self.choices))
        return f"{names} (fixed)" if self.single else names

    @property
    def single(self) -> bool:
        """Whether the field is held at one value, so that there is nothing to search."""
        return len(self.choices) == 1

    def holds(self, value: Value) -> bool:
        """Whether `value` is one of the choices."""
        return value in self.choices

    def suggest(self, trial: "BaseTrial") -> Value:
        """One of the choices, from `trial`; one choice alone is no parameter of the trial."""
        if self.single:
            return self.choices[0]
        return cast(Value, trial.suggest_categorical(self.field, self.choices))

    def to_dict(self) -> dict[str, Any]:
        """The choices as JSON-ready values, without their field."""
        return {"choices": list(self.choices), "reason": self.reason}


Range = NumberRange | Choices


def fixed_range(field: str, value: Any, reason: str) -> Range:
    """The range that holds `field` at `value`.

    Raises:
        SpaceError: The field is unknown, or cannot hold the value.
    """
    if field in CHOICES:
        return Choices(field, (value,), reason)
    return NumberRange(field, value, value, reason=reason)


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the known one it resembles, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1) if isinstance(word, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def check_bound(field: str, key: str, value: object) -> int | float:
    """`value` as the field's type; a whole number is a fine float, but never the other way round."""
    limits = LIMITS[field]
    wanted = (int, float) if limits.kind is float else (int,)
    # A comparison with NaN is false, so it is refused here as well.
    if isinstance(value, bool) or not isinstance(value, wanted) or not limits.low <= value <= limits.high:
        raise SpaceError(f"{field} must be {limits}, got {value!r}", key=key)
    return limits.kind(value)


def _number(value: int | float) -> str:
    """`value` with all the digits it needs and no others, so that what differs looks different."""
    return repr(value).removesuffix(".0")


def _check_field(field: str, known: list[str]) -> None:
    if field not in known:
        raise SpaceError(f"unknown field {field!r}; known are {', '.join(known)}{did_you_mean(field, known)}")


def _check_reason(field: str, reason: object) -> None:
    if not isinstance(reason, str):
        raise SpaceError(f"{field}: reason must be text, got {reason!r}", key="reason")


def range_from_dict(field: str, values: Mapping[str, Any]) -> Range:
    """The range of `field` whose `to_dict` gave `values`."""
    return Choices(field, **values) if field in CHOICES else NumberRange(field, **values)
