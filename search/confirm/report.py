"""A round and what its trials came to, as one value that tables, lines, JSON and page are made of."""

from dataclasses import dataclass
from typing import Final

from search.confirm.plan import ConfirmPlan
from search.confirm.round import Round
from search.confirm.standing import Standing
from search.confirm.statistics import Difference, Interval, median_index
from search.recipe_words import describe_beyond, describe_dropouts, describe_optimizer
from trainer.recipe import Recipe

REFERENCE: Final = "the article's"
"""What tables call the yardstick's recipe."""


@dataclass(frozen=True)
class RoundReport:
    """A round and what its trials came to, for readers.

    Attributes:
        round: The round.
        standing: Its trials.
        opening: Which opening of the test set by the study's rounds this one is or would be, from 1.
        before: What the rounds before came to, each with its number.
    """

    round: Round
    standing: Standing
    opening: int
    before: tuple[str, ...] = ()

    @property
    def plan(self) -> ConfirmPlan:
        """The round's."""
        return self.round.plan

    def mean(self, index: int) -> Interval | None:
        """The mean of a recipe of the plan over its seeds; None before the verdict, too."""
        verdict = self.round.verdict
        return None if verdict is None else (*verdict.decision.means, verdict.decision.reference)[index]

    def difference(self, index: int) -> Difference | None:
        """How much better a recipe of the plan is than the article's; None of that itself."""
        verdict = self.round.verdict
        if verdict is None or index >= len(self.plan.candidates):
            return None
        return verdict.decision.differences[index]

    @property
    def is_won(self) -> bool:
        """Whether there is a winner that the test set does not speak against."""
        return self.round.winner is not None and self.round.is_upheld is not False

    @property
    def median_trial(self) -> int | None:
        """The number of the winner's trial on its median seed, by validation, in the companion."""
        verdict = self.round.verdict
        if verdict is None or verdict.winner is None or self.round.winner is None:
            return None
        outcomes = self.standing.outcomes[verdict.winner]
        return outcomes[median_index([outcome.value or 0.0 for outcome in outcomes])].trial


def recipe_name(plan: ConfirmPlan, index: int) -> str:
    """What tables call a recipe of the plan: `trial 17`, or the article's."""
    return f"trial {plan.candidates[index].trial}" if index < len(plan.candidates) else REFERENCE


def trained_name(plan: ConfirmPlan, index: int) -> str:
    """A recipe of the plan beside trials of the companion, which have numbers of their own."""
    name = recipe_name(plan, index)
    return f"{name} of the search" if index < len(plan.candidates) else f"{name} recipe"


def no_winner_text(one: Round) -> str:
    """Why a round chose no recipe, in a few words; of a round that has a verdict."""
    differences = () if one.verdict is None else one.verdict.decision.differences
    if one.plan.reference is None:
        return "no winner: each recipe lacks a seed"
    if not any(differences):
        return "no winner: there is nothing to compare"
    if any(difference is not None and difference.low > 0 for difference in differences):
        return "no winner: what is beyond noise lacks a seed"
    return "no winner beyond noise"


def recipe_text(recipe: Recipe) -> str:
    """A recipe in words, without its seed."""
    words = f"{describe_optimizer(recipe)}, dropout {describe_dropouts(recipe)}, {recipe.epochs} epochs"
    beyond = describe_beyond(recipe)
    return f"{words}, {beyond}" if beyond else words


def points_text(interval: Interval) -> str:
    """The bounds of a difference, in percentage points."""
    return f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"


def difference_text(difference: Difference) -> str:
    """A difference on the test images with its interval, and what that means."""
    told = "beyond noise" if difference.low > 0 else "not beyond noise"
    if difference.mean <= 0:
        told = "not above 0"
    return f"{100 * difference.mean:+.2f} points, 95 % interval {points_text(difference)}: {told}"
