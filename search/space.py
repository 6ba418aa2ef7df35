"""The ranges a study draws its recipes from, and the way between a recipe and an Optuna trial."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.conditions import CONDITIONS, applies
from search.errors import SpaceError, StudyError
from search.ranges import SEARCHABLE, Choices, NumberRange, Range, check_bound, fixed_range, range_from_dict
from trainer.architecture import Architecture
from trainer.recipe import ARTICLE, Recipe, Value

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


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

    @property
    def max_epochs(self) -> int:
        """Epochs of the longest trial."""
        epochs = self.range_of("epochs")
        if isinstance(epochs, Choices):
            raise TypeError(f"epochs is a number, and has the range {epochs}")
        return int(epochs.high)

    def replace(self, range_: Range) -> "Space":
        """The space with `range_` in the place of its field's own, if any."""
        others = tuple(other for other in self.ranges if other.field != range_.field)
        return Space(self.name, (*others, range_))

    def cap_epochs(self, max_epochs: int) -> "Space":
        """The space with no more than `max_epochs` epochs; a range above it shrinks to that one value.

        Raises:
            SpaceError: `max_epochs` is not a number of epochs that a recipe may have.
        """
        cap = int(check_bound("epochs", "high", max_epochs))
        epochs = self.range_of("epochs")
        if isinstance(epochs, Choices) or epochs.high <= cap:
            return self
        reason = f"{epochs.reason}; here at most {cap}" if epochs.reason else f"at most {cap}"
        return self.replace(dataclasses.replace(epochs, low=min(epochs.low, cap), high=cap, reason=reason))

    @property
    def conditional(self) -> tuple[str, ...]:
        """The fields searched in some trials and not in others, as another searched field has it."""
        return tuple(
            range_.field
            for range_ in self.ranges
            if range_.field in CONDITIONS and not self.range_of(CONDITIONS[range_.field].field).single
        )

    def means_something(self, field: str) -> bool:
        """Whether `field` means something in any of its recipes."""
        condition = CONDITIONS.get(field)
        if condition is None:
            return True
        other = self.range_of(condition.field)
        return any(map(condition.holds, other.choices if isinstance(other, Choices) else (other.high,)))

    def count_largest_network(self) -> int:
        """The parameters of the largest network among its recipes, whether or not a recipe may have it.

        More of anything makes a network larger, but for blocks and head, which are tried one by one.
        """

        def most(field: str) -> Any:
            range_ = self.range_of(field)
            return max(range_.choices) if isinstance(range_, Choices) else range_.high

        largest = ("width", "convolutions", "batch_normalization", "residual", "dense_units")
        values = {**ARTICLE.to_dict(), **{field: most(field) for field in largest}}
        values["residual"] &= applies("residual", values)
        blocks, heads = self.range_of("blocks"), self.range_of("head")
        if isinstance(blocks, Choices) or isinstance(heads, NumberRange):
            raise TypeError(f"blocks is a number and head is none: {blocks}, {heads}")
        return max(
            Architecture.of({**values, "blocks": number, "head": head}).count_parameters()
            for number in range(int(blocks.low), int(blocks.high) + 1)
            for head in heads.choices
        )

    def describe(self) -> list[tuple[str, str, str]]:
        """Rows of a table: every field a space may range over, its range as text, the reason for it.

        A range that means nothing in any recipe is "none".
        """
        conditional = self.conditional
        rows = []
        for range_ in (self.range_of(field) for field in SEARCHABLE):
            text, reason = str(range_), range_.reason
            if not range_.single and not self.means_something(range_.field):
                held = self.range_of(CONDITIONS[range_.field].field)
                text, reason = "none", f"means nothing where {held.field} is {held}"
            elif range_.field in conditional:
                text += f", {CONDITIONS[range_.field]}"
            rows.append((range_.field, text, reason))
        return rows

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
            ranges = tuple(range_from_dict(field, range_) for field, range_ in values["ranges"].items())
            return cls(values["name"], ranges)
        except (KeyError, TypeError, AttributeError) as exc:
            raise SpaceError(
                f"not a search space of this version of cnn-search ({exc}): {values!r};"
                " use the version that made it, or a new study"
            ) from exc


def suggest(trial: "BaseTrial", space: Space, seed: int) -> Recipe:
    """A recipe for a trial that the sampler is to fill; fields outside the space keep the article's value.

    A trial that was enqueued with a recipe of its own, as trial 0 is, may lie outside the space: it takes
    that recipe and `record_params`.

    Args:
        trial: A running trial, or one of fixed parameters; its parameters are the fields with more than one
            value that mean something in the trial (`search.conditions`), suggested in the recipe's order,
            those that depend on others last.
        space: Where to draw from.
        seed: The recipe's seed, which is not searched.

    Raises:
        trainer.errors.RecipeError: The seed is out of range, or the trial holds a value that no recipe may.
    """
    values: dict[str, Value] = {**ARTICLE.to_dict(), "seed": seed}
    conditional = space.conditional

    def turn(range_: Range) -> int:
        """What others depend on comes first: what is held, then what is drawn."""
        if range_.field in conditional:
            return 2
        return 0 if range_.single and range_.field not in CONDITIONS else 1

    for range_ in sorted(space.ranges, key=turn):
        if applies(range_.field, values):
            values[range_.field] = range_.suggest(trial)
    return Recipe.from_dict(values)


def params_of(recipe: Recipe, space: Space) -> dict[str, Value]:
    """What to enqueue so that Optuna's parameters of a trial are `recipe`'s.

    Only values that the space's searched fields hold are given. A number out of its range would make Optuna
    warn (`Trial._is_fixed_param`, Optuna 5.0), an unknown choice makes it raise, and moving either into the
    range would record a result at a point that was never tried.

    Returns:
        The values by field: all of the searched ones that mean something in the recipe, where it is a point
        of the space.
    """
    values = recipe.to_dict()
    return {
        range_.field: values[range_.field]
        for range_ in space.ranges
        if not range_.single and applies(range_.field, values) and range_.holds(values[range_.field])
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
