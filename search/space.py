"""The ranges a study draws its recipes from, and the way between a recipe and an Optuna trial."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from search.errors import SpaceError, StudyError
from trainer.recipe import ARTICLE, LIMITS, OPTIMIZERS, Recipe

if TYPE_CHECKING:
    # Optuna takes half a second to import, which `cnn-search --help` must not.
    from optuna.trial import BaseTrial

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {"optimizer": OPTIMIZERS}
"""What each field that is not a number may hold."""

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
            object.__setattr__(self, key, _bound(self.field, key, getattr(self, key)))
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

    def holds(self, value: float | str) -> bool:
        """Whether `value` lies in the range."""
        return not isinstance(value, str) and self.low <= value <= self.high

    def suggest(self, trial: "BaseTrial") -> int | float | str:
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
    """The values that a recipe's field of names may take.

    Attributes:
        field: One of `CHOICES`.
        choices: One or more of its values; kept in `CHOICES`' order, because Optuna refuses a study's choices
            in another order than before.
        reason: Why these, in one line, with the source where there is one.

    Raises:
        SpaceError: There is no choice, an unknown one, or the same twice.
    """

    field: str
    choices: tuple[str, ...]
    reason: str = ""

    def __post_init__(self) -> None:
        """Check the choices and put them in order."""
        _check_field(self.field, list(CHOICES))
        _check_reason(self.field, self.reason)
        allowed = CHOICES[self.field]
        if not isinstance(self.choices, (list, tuple)) or not self.choices:
            raise SpaceError(
                f"{self.field}: choices must be a list of one or more of {', '.join(allowed)},"
                f" got {self.choices!r}",
                key="choices",
            )
        for choice in self.choices:
            if choice not in allowed:
                raise SpaceError(
                    f"{self.field} must be one of {', '.join(allowed)}, got {choice!r}"
                    f"{did_you_mean(choice, allowed)}",
                    key="choices",
                )
            if self.choices.count(choice) > 1:
                raise SpaceError(
                    f"{self.field}: choices names {choice!r} more than once; name it once", key="choices"
                )
        object.__setattr__(self, "choices", tuple(name for name in allowed if name in self.choices))

    def __str__(self) -> str:
        """The choices as tables and messages show them."""
        return f"{self.choices[0]} (fixed)" if self.single else ", ".join(self.choices)

    @property
    def single(self) -> bool:
        """Whether the field is held at one value, so that there is nothing to search."""
        return len(self.choices) == 1

    def holds(self, value: float | str) -> bool:
        """Whether `value` is one of the choices."""
        return value in self.choices

    def suggest(self, trial: "BaseTrial") -> int | float | str:
        """One of the choices, from `trial`; one choice alone is no parameter of the trial."""
        return self.choices[0] if self.single else trial.suggest_categorical(self.field, self.choices)

    def to_dict(self) -> dict[str, Any]:
        """The choices as JSON-ready values, without their field."""
        return {"choices": list(self.choices), "reason": self.reason}


Range = NumberRange | Choices


@dataclass(frozen=True)
class Space:
    """What a study searches: a range for each field that does not simply keep the article's value.

    Attributes:
        name: What the user calls it: a key of `NAMED`, or a file's name.
        ranges: One for each field that the space speaks of, kept in `SEARCHABLE`'s order.

    Raises:
        SpaceError: Two ranges are of the same field.
    """

    name: str
    ranges: tuple[Range, ...]

    def __post_init__(self) -> None:
        """Check that each field has one range, and put them in order."""
        if not isinstance(self.name, str):
            raise SpaceError(f"a space's name must be text, got {self.name!r}")
        fields = [range_.field for range_ in self.ranges]
        for field in fields:
            if fields.count(field) > 1:
                raise SpaceError(f"{field} has {fields.count(field)} ranges in one space; keep one")
        ordered = sorted(self.ranges, key=lambda range_: SEARCHABLE.index(range_.field))
        object.__setattr__(self, "ranges", tuple(ordered))

    def range_of(self, field: str) -> Range:
        """The range of `field`: where the space does not speak of it, the article's value alone."""
        for range_ in self.ranges:
            if range_.field == field:
                return range_
        return fixed_range(field, getattr(ARTICLE, field), "the article's value, not searched")

    def replace(self, range_: Range) -> "Space":
        """The space with `range_` in the place of its field's own, if any."""
        others = tuple(other for other in self.ranges if other.field != range_.field)
        return Space(self.name, (*others, range_))

    def cap_epochs(self, max_epochs: int) -> "Space":
        """The space with no more than `max_epochs` epochs; a range above it shrinks to that one value.

        Raises:
            SpaceError: `max_epochs` is not a number of epochs that a recipe may have.
        """
        cap = int(_bound("epochs", "high", max_epochs))
        epochs = self.range_of("epochs")
        if isinstance(epochs, Choices) or epochs.high <= cap:
            return self
        reason = f"{epochs.reason}; here at most {cap}" if epochs.reason else f"at most {cap}"
        return self.replace(dataclasses.replace(epochs, low=min(epochs.low, cap), high=cap, reason=reason))

    def describe(self) -> list[tuple[str, str, str]]:
        """Rows of a table: every field a space may range over, its range as text, the reason for it."""
        ranges = [self.range_of(field) for field in SEARCHABLE]
        return [(range_.field, str(range_), range_.reason) for range_ in ranges]

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON-ready values, for a study to remember."""
        return {"name": self.name, "ranges": {range_.field: range_.to_dict() for range_ in self.ranges}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Space":
        """The space that `to_dict` gave.

        Raises:
            SpaceError: `values` is not a space that this version knows.
        """
        try:
            ranges = tuple(_range_from_dict(field, range_) for field, range_ in values["ranges"].items())
            return cls(values["name"], ranges)
        except (KeyError, TypeError, AttributeError) as exc:
            raise SpaceError(
                f"not a search space of this version of cnn-search ({exc}): {values!r};"
                " use the version that made it, or a new study"
            ) from exc


def fixed_range(field: str, value: Any, reason: str) -> Range:
    """The range that holds `field` at `value`.

    Raises:
        SpaceError: The field is unknown, or cannot hold the value.
    """
    if field in CHOICES:
        return Choices(field, (value,), reason)
    return NumberRange(field, value, value, reason=reason)


def suggest(trial: "BaseTrial", space: Space, seed: int) -> Recipe:
    """A recipe for a trial that the sampler is to fill; fields outside the space keep the article's value.

    A trial that was enqueued with a recipe of its own, as trial 0 is, may lie outside the space: it takes
    that recipe and `record_params`.

    Args:
        trial: A running trial, or one of fixed parameters; its parameters are the fields with more than one
            value, suggested in the recipe's order.
        space: Where to draw from.
        seed: The recipe's seed, which is not searched.

    Raises:
        trainer.errors.RecipeError: The seed is out of range, or the trial holds a value that no recipe may.
    """
    values = {range_.field: range_.suggest(trial) for range_ in space.ranges}
    return Recipe.from_dict({**ARTICLE.to_dict(), **values, "seed": seed})


def params_of(recipe: Recipe, space: Space) -> dict[str, int | float | str]:
    """What to enqueue so that Optuna's parameters of a trial are `recipe`'s.

    Only values that the space's searched fields hold are given. A number out of its range would make Optuna
    warn (`Trial._is_fixed_param`, Optuna 5.0), an unknown choice makes it raise, and moving either into the
    range would record a result at a point that was never tried.

    Returns:
        The values by field: all of the searched ones where the recipe is a point of the space.
    """
    values = recipe.to_dict()
    return {
        range_.field: values[range_.field]
        for range_ in space.ranges
        if not range_.single and range_.holds(values[range_.field])
    }


def record_params(trial: "BaseTrial", space: Space, recipe: Recipe) -> None:
    """Record `recipe` as the parameters of `trial`, which was enqueued with `params_of(recipe, space)`.

    Samplers learn from parameters, and the dashboard shows them. Optuna's multivariate TPE models together
    the parameters that *all* finished trials have, so a trial with none would leave it nothing to model.

    Raises:
        StudyError: The trial was enqueued with other parameters.
    """
    for field, value in params_of(recipe, space).items():
        recorded = space.range_of(field).suggest(trial)
        if recorded != value:
            raise StudyError(
                f"trial {trial.number} has {field} {recorded!r}, its recipe {value!r};"
                " enqueue it with params_of(recipe, space)"
            )


def difference(remembered: Space, given: Space) -> list[str]:
    """How `given` would search otherwise than `remembered`, one line a field; empty where it would not.

    Names and reasons do not count, nor whether a fixed value is the article's by default or by statement.
    """
    pairs = [(field, str(remembered.range_of(field)), str(given.range_of(field))) for field in SEARCHABLE]
    return [
        f"{field}: the study has {ours}, --space gives {theirs}"
        for field, ours, theirs in pairs
        if ours != theirs
    ]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the known one it resembles, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1) if isinstance(word, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _bound(field: str, key: str, value: object) -> int | float:
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


def _range_from_dict(field: str, values: Mapping[str, Any]) -> Range:
    return Choices(field, **values) if field in CHOICES else NumberRange(field, **values)


_DROPOUT_REASON: Final = (
    "from none to a little over the 0.2-0.5 usual for hidden units"
    " (Srivastava et al. 2014, JMLR 15, appendix A); the article has {article}"
)

NAMED: Final[Mapping[str, Space]] = {
    "article": Space(
        "article",
        (
            *(
                NumberRange(field, 0.0, 0.6, reason=_DROPOUT_REASON.format(article=getattr(ARTICLE, field)))
                for field in ("dropout_block1", "dropout_block2", "dropout_block3", "dropout_dense")
            ),
            NumberRange(
                "learning_rate",
                1e-4,
                1e-1,
                log=True,
                reason="ratios matter, not differences (Bengio 2012, arXiv:1206.5533); holds the"
                " article's 0.01, Adam's usual 0.001, and the 0.1 at which plain SGD steps as far as momentum"
                " 0.9 does at 0.01",
            ),
            Choices("optimizer", OPTIMIZERS, reason="the article names another optimizer as its next step"),
            NumberRange(
                "epochs",
                5,
                200,
                log=True,
                reason="each doubling of the cost is equally likely; 200 is the article's longest run",
            ),
        ),
    ),
}
"""The spaces that `--space NAME` knows."""
