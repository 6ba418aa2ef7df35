"""search.confirm.statistics: intervals that hold as often as they say, verdicts that noise rarely makes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.confirm.plan import ConfirmPlan, ConfirmWish, make_plan
from search.confirm.standing import Outcome, Standing
from search.confirm.statistics import (
    compare_with_figure,
    decide_against_reference,
    decide_highest,
    mean_interval,
    median_index,
)
from search.confirm.verdict import decide
from search.named_spaces import NAMED
from search.study import Settings
from search.summary import TrialSummary
from trainer.recipe import Recipe

SETTINGS = Settings(NAMED["article"], seed=7)
STUDIES = 600
"""Simulated; of a chance of 2.5 %, 15 of them, and more than 60 in one of 10**16 cases."""
SEED_NOISE = 0.004
"""Standard deviation of an accuracy from seed to seed, about what CIFAR-10's baseline has."""


def complete_trial(number: int, value: float, recipe: Recipe) -> TrialSummary:
    """A trial that came through."""
    return TrialSummary(number, "complete", value, value, recipe.epochs, recipe, None, None, "")


RECIPES = [Recipe(dropout_dense=number / 100, seed=7 + number) for number in range(50)]


def search_by_luck(chance: np.random.Generator) -> list[TrialSummary]:
    """A search in which all recipes are equally good, and differ by noise."""
    values = 0.77 + SEED_NOISE * chance.normal(size=50)
    found = [complete_trial(number, float(values[number]), RECIPES[number]) for number in range(1, 50)]
    return [complete_trial(0, 0.77, SETTINGS.article_recipe), *found]


def train(plan: ConfirmPlan, chance: np.random.Generator, better: float = 0.0) -> Standing:
    """A round's trials: what a seed is good for is common to all recipes, the rest is each one's own.

    The first candidate is better than the others by `better`.
    """
    common = SEED_NOISE * chance.normal(size=len(plan.seeds)) * math.sqrt(0.3)
    outcomes = []
    for index in range(len(plan.recipes())):
        own = SEED_NOISE * chance.normal(size=len(plan.seeds)) * math.sqrt(0.7)
        values = 0.77 + (better if index == 0 else 0.0) + common + own
        outcomes.append(
            tuple(
                Outcome(plan.run_of(index, at), seed, "complete", round(float(values[at]), 4))
                for at, seed in enumerate(plan.seeds)
            )
        )
    return Standing(tuple(outcomes))


def simulate(wish: ConfirmWish, better: float, studies: int) -> int:
    """In how many of so many studies the whole way, from the search to the verdict, names a winner."""
    chance = np.random.default_rng(20261123)
    winners = 0
    for _ in range(studies):
        plan = make_plan("s", "i", SETTINGS, search_by_luck(chance), wish)
        winners += decide(plan, train(plan, chance, better)).winner is not None
    return winners


@pytest.mark.parametrize(
    "wish",
    [ConfirmWish(), ConfirmWish(top=1, seeds=2), ConfirmWish(top=8, seeds=10), ConfirmWish(top=5, seeds=3)],
)
def test_where_only_noise_differs_there_is_no_winner(wish: ConfirmWish) -> None:
    """In at least 90 of 100 studies, best of n and all; in fact 2.5 % are named a winner at most."""
    winners = simulate(wish, 0.0, STUDIES)

    assert winners <= 0.1 * STUDIES
    assert winners <= 0.025 * STUDIES + 4 * math.sqrt(0.025 * 0.975 * STUDIES)


def test_a_recipe_that_is_better_is_found() -> None:
    """Here by six standard errors of a mean difference, which are 1.3 points."""
    deviation = SEED_NOISE * math.sqrt(2 * 0.7)
    better = 6 * deviation / math.sqrt(5)

    assert simulate(ConfirmWish(), better, 200) >= 170


def test_more_seeds_find_smaller_differences() -> None:
    """Half a point among 3 recipes: rarely with 3 seeds, nearly always with 20."""
    few, many = (simulate(ConfirmWish(seeds=seeds), 0.005, 100) for seeds in (3, 20))

    assert few < 40
    assert many > 80


def test_an_interval_is_students() -> None:
    """Of the mean of 1, 2, 3 with t(2) = 4.303, and with two comparisons with t(2) at 98.75 %."""
    alone, together = mean_interval([1.0, 2.0, 3.0]), mean_interval([1.0, 2.0, 3.0], comparisons=2)

    assert alone is not None
    assert together is not None
    assert (alone.mean, alone.low) == (2.0, pytest.approx(2 - 4.302653 / math.sqrt(3)))
    assert alone.high - 2 == pytest.approx(2 - alone.low)
    assert together.high == pytest.approx(2 + 6.205347 / math.sqrt(3))
    assert mean_interval([1.0]) is None
    assert mean_interval([]) is None


def test_the_intervals_of_all_differences_hold_together() -> None:
    """In 95 % of all cases none of five misses, although all have the same reference in them."""
    chance = np.random.default_rng(1)
    good = 0
    for _ in range(1000):
        values = 0.77 + SEED_NOISE * chance.normal(size=(6, 5))
        decision = decide_against_reference(values[:5].tolist(), values[5].tolist())
        good += all(one is not None and one.low <= 0 <= one.high for one in decision.differences)

    assert good >= 940


def test_seeds_that_happen_to_agree_prove_nothing() -> None:
    """A spread of nothing is rounding: the interval still has a width."""
    decision = decide_against_reference([[0.7701, 0.7711]], [0.77, 0.771])
    (difference,) = decision.differences

    assert difference is not None
    assert difference.low < 0 < difference.high
    assert decision.winner is None


def test_the_winner_has_the_highest_mean_of_those_above_noise() -> None:
    """A higher mean whose interval reaches 0 does not win, and the first of equals does."""
    reference = [0.70, 0.71, 0.72, 0.73]
    steady = [value + 0.01 for value in reference]
    wild = [0.70, 0.80, 0.70, 0.80]

    assert decide_against_reference([wild, steady], reference).winner == 1
    assert decide_against_reference([steady, [v + 0.02 for v in reference]], reference).winner == 1
    assert decide_against_reference([steady, steady], reference).winner == 0
    assert decide_against_reference([reference, wild], reference).winner is None


def test_who_lacks_a_seed_cannot_win() -> None:
    """It diverged there; its interval is that of the others. What the reference lacks is left out for all."""
    reference: list[float | None] = [0.70, 0.71, 0.72, 0.73]
    lacking: list[float | None] = [0.75, None, 0.77, 0.78]
    decision = decide_against_reference([lacking], reference)

    assert decision.winner is None
    assert decision.differences[0] is not None
    assert decision.differences[0].low > 0
    assert decide_against_reference([[0.75, 0.76, 0.77, 0.78]], [0.70, None, 0.72, 0.73]).winner == 0
    nothing = decide_against_reference([[0.75, 0.76]], [0.70, None])
    assert (nothing.winner, nothing.differences, nothing.reference) == (None, (None,), None)
    assert decide_highest([lacking, [0.1, 0.2, 0.3, 0.4]]).winner == 1
    assert decide_highest([lacking]).winner is None


def test_a_figure_is_met_beyond_noise_or_not() -> None:
    """The test set's own size counts: its 0.4 points are the most of the noise of many seeds."""
    accuracies = [0.785, 0.787, 0.786, 0.786, 0.786]
    far, near = (compare_with_figure(accuracies, 10_000, figure) for figure in (0.77, 0.7822))

    assert far.is_beyond
    assert not near.is_beyond
    assert near.interval.mean > near.figure
    assert near.of_images == pytest.approx(1.96 * math.sqrt(0.786 * 0.214 / 10_000), rel=1e-3)
    half = near.interval.high - near.interval.mean
    assert half == pytest.approx(math.hypot(near.of_seeds, near.of_images))
    with pytest.raises(ValueError, match="1 accuracies"):
        compare_with_figure([0.7], 10_000, 0.7)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_median_is_one_of_the_values(values: Sequence[float]) -> None:
    """Of an even number the lower of the two in the middle."""
    median = values[median_index(values)]

    assert sorted(values)[(len(values) - 1) // 2] == median


def test_nothing_is_decided_before_the_end() -> None:
    """Whoever could look could stop when it looks good."""
    chance = np.random.default_rng(3)
    plan = make_plan("s", "i", SETTINGS, search_by_luck(chance), ConfirmWish())
    standing = train(plan, chance)
    first: Any = standing.outcomes[0]
    running = dataclasses.replace(first[0], state="running", value=None)
    standing = Standing(((running, *first[1:]), *standing.outcomes[1:]))

    with pytest.raises(ValueError, match="19 of 20 trials have ended"):
        decide(plan, standing)
