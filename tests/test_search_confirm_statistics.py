"""search.confirm.statistics: intervals that hold as often as they say, verdicts that noise rarely makes."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from search.confirm.plan import ConfirmPlan, ConfirmWish, make_plan
from search.confirm.standing import Outcome, Standing
from search.confirm.statistics import (
    Decision,
    Interval,
    compare_with_figure,
    decide_against_reference,
    decide_highest,
    mean_interval,
    median_index,
    paired_difference,
)
from search.confirm.verdict import Verdict, decide
from search.named_spaces import NAMED
from search.study import Settings
from search.summary import TrialSummary
from trainer.recipe import Recipe

SETTINGS = Settings(NAMED["article"], seed=7)
STUDIES = 200
"""Simulated; of a chance of 2.5 %, 5 of them, and more than 20 in one of 10**7 cases."""
SCORED = 1000
"""Images of a simulated split. Of ten times as many, each noise in points is smaller by the root of ten, and
all of them are in the same proportion to each other."""
POINT = math.sqrt(10) / 100
"""So many of the simulated accuracy's points are one of 10,000 images."""
SHARES = np.concatenate([np.full(400, 0.99), np.linspace(0.95, 0.05, 200), np.full(400, 0.85)])
"""How often a seed classifies each image rightly: on average 0.836, with a deviation of 0.3 points."""


def complete_trial(number: int, value: float, recipe: Recipe) -> TrialSummary:
    """A trial that came through."""
    return TrialSummary(number, "complete", value, value, recipe.epochs, recipe, None, None, "")


RECIPES = [Recipe(dropout_dense=number / 100, seed=7 + number) for number in range(50)]


class Simulated:
    """A study whose recipes are equal, but for what these images do to each of them."""

    def __init__(self, chance: np.random.Generator, image_effect: float) -> None:
        """50 recipes; on these images their accuracies differ by `image_effect` points, whatever the seed."""
        self._chance = chance
        spread = image_effect * POINT * math.sqrt(SCORED)
        own = chance.standard_normal((50, SCORED), np.float32)
        self._shares = np.clip(SHARES + spread * own, 0, 1).astype(np.float32)
        # What is cut off at 0 and 1 would be less of an effect, and the same for all recipes.
        self._shares += np.mean(SHARES - self._shares.mean(axis=0))
        values = self.train(np.arange(50)).mean(axis=1)
        found = [complete_trial(number, float(values[number]), RECIPES[number]) for number in range(1, 50)]
        self.trials = [complete_trial(0, float(values[0]), SETTINGS.article_recipe), *found]

    def train(self, recipes: NDArray[np.int_], better: float = 0.0) -> NDArray[np.bool_]:
        """Each of them on one seed more: bool (recipes, images). The first is `better` by so many points."""
        shares = self._shares[recipes]
        # Of each image the same part of its errors goes: a lift would be cut off where there are few.
        errors = 1 - shares[0]
        shares[0] += better * POINT * errors / errors.mean()
        return self._chance.random((len(recipes), SCORED), np.float32) < shares

    def decide(self, plan: ConfirmPlan, better: float = 0.0) -> Decision:
        """What a round of it comes to."""
        recipes = np.array([*(candidate.trial for candidate in plan.candidates), 0])
        hits = np.stack([self.train(recipes, better) for _ in plan.seeds], axis=1)
        *candidates, reference = [list(one) for one in hits]
        return decide_against_reference(candidates, reference)


def simulate(wish: ConfirmWish, better: float, studies: int, image_effect: float = 0.0) -> int:
    """In how many of so many studies the whole way, from the search to the verdict, names a winner.

    Args:
        wish: What is asked for.
        better: By how many points the best recipe of the search is better than the others.
        studies: How many.
        image_effect: As `Simulated` has it.
    """
    chance = np.random.default_rng(20261123)
    winners = 0
    for _ in range(studies):
        study = Simulated(chance, image_effect)
        plan = make_plan("s", "i", SETTINGS, study.trials, wish)
        winners += study.decide(plan, better).winner is not None
    return winners


@pytest.mark.parametrize(
    ("wish", "image_effect"),
    [
        (ConfirmWish(), 0.0),
        (ConfirmWish(), 0.15),
        (ConfirmWish(top=1, seeds=2), 0.0),
        (ConfirmWish(top=8, seeds=10), 0.1),
        (ConfirmWish(seeds=20), 0.1),
        (ConfirmWish(seeds=20), 0.15),
    ],
)
def test_where_only_noise_differs_there_is_no_winner(wish: ConfirmWish, image_effect: float) -> None:
    """In at least 90 of 100 studies, although the best of n on these images are taken.

    An effect of the images stays, however many seeds there are: an interval over seeds alone names a winner
    in 37 of 100 with 0.15 points of it and 20 seeds.
    """
    winners = simulate(wish, 0.0, STUDIES, image_effect)

    assert winners <= 0.1 * STUDIES


def test_a_recipe_that_is_better_is_found() -> None:
    """By 1.3 points, in nearly all studies."""
    assert simulate(ConfirmWish(), 1.3, 100) >= 85


def test_more_seeds_find_smaller_differences() -> None:
    """Half a point among 3 recipes: rarely with 3 seeds, nearly always with 20."""
    few, many = (simulate(ConfirmWish(seeds=seeds), 0.5, 100) for seeds in (3, 20))

    assert few < 40
    assert many > 80


def hits(*counts: int, images: int = 10_000) -> list[NDArray[np.bool_]]:
    """So many of the images classified rightly on each seed, the first ones."""
    return [np.arange(images) < count for count in counts]


def test_a_difference_covers_seeds_and_images() -> None:
    """By both variances of Satterthwaite's sum: here of 3 seeds and 4 images, by hand."""
    mine = [np.array(one, bool) for one in ([1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1])]
    theirs = [np.array(one, bool) for one in ([1, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 0])]
    # By seed 2/4, 0 and 3/4; by image 0, 1, 2/3 and 0.
    of_seeds, of_images = np.var([0.5, 0.0, 0.75], ddof=1) / 3, np.var([0, 1, 2 / 3, 0], ddof=1) / 4
    freedom = (of_seeds + of_images) ** 2 / (of_seeds**2 / 2 + of_images**2 / 3)

    found, together = paired_difference(mine, theirs), paired_difference(mine, theirs, 5)

    assert found is not None
    assert together is not None
    assert found.mean == pytest.approx(5 / 12)
    assert (found.error_of_seeds**2, found.error_of_images**2) == pytest.approx((of_seeds, of_images))
    error = math.sqrt(of_seeds + of_images)
    assert (found.high - found.mean) / error == pytest.approx(stats.t.ppf(0.975, freedom))
    assert (together.mean - together.low) / error == pytest.approx(stats.t.ppf(0.995, freedom))
    assert paired_difference(mine[:1], theirs[:1]) is None
    assert paired_difference([mine[0], None, mine[2]], [None, *theirs[1:]]) is None
    left_out = paired_difference([*mine, None, mine[0]], [*theirs, theirs[0], None])
    assert left_out == found


def test_an_interval_is_students() -> None:
    """Of the mean of 1, 2, 3 with t(2) = 4.303."""
    alone = mean_interval([1.0, 2.0, 3.0])

    assert alone is not None
    assert (alone.mean, alone.low) == (2.0, pytest.approx(2 - 4.302653 / math.sqrt(3)))
    assert alone.high - 2 == pytest.approx(2 - alone.low)
    assert mean_interval([1.0]) is None
    assert mean_interval([]) is None


def test_an_accuracys_interval_stays_between_0_and_1() -> None:
    """Two seeds give one that would leave it, at either end; what it says of a figure is the same."""
    low, high = decide_highest([[0.1, 0.2], [0.8, 0.95]]).means
    of_hits = decide_against_reference([hits(1000, 2000)], hits(9900, 9000))
    figure = compare_with_figure([0.1, 0.2], 10_000, 0.05)

    assert low is not None
    assert high is not None
    assert (low.low, low.mean) == (0.0, pytest.approx(0.15))
    assert 0.15 + 12.7 * 0.05 == pytest.approx(low.high, rel=1e-2)
    assert (high.mean, high.high) == (pytest.approx(0.875), 1.0)
    assert of_hits.means == (low,)
    assert of_hits.reference is not None
    assert of_hits.reference.high == 1.0
    assert of_hits.differences[0] is not None
    assert of_hits.differences[0].low < -1
    assert (figure.interval.low, figure.is_beyond) == (0.0, False)
    assert figure.of_seeds == pytest.approx(low.high - low.mean)


def test_a_stored_verdict_of_before_is_read_within_bounds() -> None:
    """Its means; a difference stays as it was."""
    decision = decide_against_reference([hits(1000, 2000)], hits(9900, 9000))
    stored = Verdict(decision, "2026-11-23T12:00:00+00:00", "h").to_dict()
    stored["decision"]["means"] = ({"mean": 0.15, "low": -0.48, "high": 0.78},)
    stored["decision"]["reference"] = {"mean": 0.945, "low": 0.37, "high": 1.52}

    read = Verdict.from_dict(stored).decision

    assert read.means == (Interval(0.15, 0.0, 0.78),)
    assert read.reference == Interval(0.945, 0.37, 1.0)
    assert read.differences == decision.differences


def test_the_intervals_of_all_differences_hold_together() -> None:
    """In 95 % of all cases none of five misses, although all have the same reference in them."""
    chance = np.random.default_rng(1)
    good = 0
    for _ in range(200):
        one = Simulated(chance, 0.0)
        plan = make_plan("s", "i", SETTINGS, one.trials, ConfirmWish(top=5))
        good += all(d is not None and d.low <= 0 <= d.high for d in one.decide(plan).differences)

    assert good >= 180


def test_seeds_that_happen_to_agree_prove_nothing() -> None:
    """A spread of nothing is rounding: the interval still has a width."""
    decision = decide_against_reference([hits(7701, 7711)], hits(7700, 7710))
    (difference,) = decision.differences

    assert difference is not None
    assert difference.low < 0 < difference.high
    assert decision.winner is None
    same = paired_difference(hits(7700, 7700), hits(7700, 7700))
    assert same is not None
    assert same.low < 0 < same.high


def test_the_winner_has_the_highest_mean_of_those_above_noise() -> None:
    """A higher mean whose interval reaches 0 does not win, and the first of equals does."""
    reference = hits(7000, 7100, 7200, 7300)
    steady, steadier = hits(7200, 7300, 7400, 7500), hits(7400, 7500, 7600, 7700)
    wild = hits(7000, 8000, 7000, 8000)

    assert decide_against_reference([wild, steady], reference).winner == 1
    assert decide_against_reference([steady, steadier], reference).winner == 1
    assert decide_against_reference([steady, steady], reference).winner == 0
    assert decide_against_reference([reference, wild], reference).winner is None


def test_who_lacks_a_seed_cannot_win() -> None:
    """It diverged there; its interval is that of the others. What the reference lacks is left out for all."""
    reference = hits(7000, 7100, 7200, 7300)
    lacking = [hits(7500)[0], None, *hits(7700, 7800)]
    decision = decide_against_reference([lacking], reference)

    assert decision.winner is None
    assert decision.differences[0] is not None
    assert decision.differences[0].low > 0
    whole = hits(7500, 7600, 7700, 7800)
    assert decide_against_reference([whole], [reference[0], None, *reference[2:]]).winner == 0
    nothing = decide_against_reference([whole[:2]], [reference[0], None])
    assert (nothing.winner, nothing.differences, nothing.reference) == (None, (None,), None)
    assert decide_highest([[0.7, None, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4]]).winner == 1
    assert decide_highest([[0.7, None]]).winner is None


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
    plan = make_plan(
        "s", "i", SETTINGS, Simulated(np.random.default_rng(3), 0.0).trials, ConfirmWish(seeds=2)
    )
    ended = [Outcome(number, 1, "complete", 0.7) for number in range(8)]
    running = dataclasses.replace(ended[0], state="running", value=None)
    standing = Standing(((running, ended[1]), *((one, one) for one in ended[2:5])))

    with pytest.raises(ValueError, match="7 of 8 trials have ended"):
        decide(plan, standing, lambda: [])
