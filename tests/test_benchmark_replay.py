"""benchmarks/replay.py: what is told about searches on recorded curves, and the searches themselves."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from curves import Curve, Table, fill, split
from methods import DEFAULT, METHODS
from noise import measure_spread, measure_wobble
from replay_tables import Mark, interval, print_best, print_match, quantile, ratio
from simulation import be_quiet, replay
from traces import Array, Trace

from search.named_spaces import NAMED
from search.strategy import FIRST_START
from search.study import Settings
from trainer.recipe import ARTICLE, Recipe

INF = float("inf")
TRACE = Trace(np.array([27.0, 60.0, 90.0]), np.array([0.5, 0.6, 0.7]), np.array([0.55, 0.58, 0.56]), trials=9)
NOTHING = Trace(np.array([]), np.array([]), np.array([]), trials=4)
SETTINGS = Settings(NAMED["article"], max_epochs=27, seed=3)


@dataclass
class RateCurves:
    """Curves that rise to a height, which is higher the nearer the learning rate is to 0.003.

    Attributes:
        drawn: The recipes that were trained, in order.
    """

    noise: float = 0.0
    drawn: list[Recipe] = field(default_factory=list)

    def mean(self, recipe: Recipe) -> Array:
        """As the class says, (27,)."""
        height = 0.6 - 0.15 * abs(np.log10(recipe.learning_rate / 0.003))
        return np.asarray(height * (1 - np.exp(-np.arange(1, 28) / 8)))

    def draw(self, recipe: Recipe, random: np.random.Generator) -> Array:
        """The mean, and noise of each epoch's own."""
        self.drawn.append(recipe)
        return np.asarray(self.mean(recipe) + random.normal(0, self.noise, 27))


def test_the_best_by_epochs() -> None:
    """Of what had completed by then; nothing is worse than anything."""
    assert [TRACE.at(budget) for budget in (26, 27, 89, 90)] == [-INF, 0.5, 0.6, 0.7]
    assert TRACE.at(1_000, truth=True) == 0.56
    assert NOTHING.at(1_000) == -INF


def test_epochs_to_a_figure() -> None:
    """Values flatter: by what they are worth the last recipe is not better than the one before."""
    assert [TRACE.epochs_to(target) for target in (0.5, 0.65, 0.7, 0.71)] == [27, 90, 90, INF]
    assert [TRACE.epochs_to(target, truth=True) for target in (0.56, 0.59)] == [60, INF]
    assert NOTHING.epochs_to(0.1) == INF


def test_quantiles_count_what_never_got_there() -> None:
    """As the largest; and of an even number, the upper middle."""
    assert quantile([5.0, INF, 1.0], 0.5) == 5.0
    assert quantile([5.0, INF, 1.0, INF], 0.5) == INF
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.25) == 2.0
    assert quantile([1.0], 0.75) == 1.0


def test_a_ratio_is_a_bound_where_the_other_never_got_there() -> None:
    """And none at all where this one did not."""
    assert ratio(600.0, 200.0, 6_400) == "3.0x"
    assert ratio(INF, 200.0, 6_400) == ">32.0x"
    assert ratio(600.0, INF, 6_400) == "-"


def test_the_interval_of_a_ratio() -> None:
    """Holds the ratio of the medians, is one number without spread, and wide with it."""
    assert interval([600.0] * 20, [200.0] * 20, 6_400) == ("3.0x", "3.0x")
    random = np.random.default_rng(1)
    low, high = interval(
        list(600 * random.lognormal(0, 1, 20)), list(200 * random.lognormal(0, 1, 20)), 6_400
    )
    assert float(low[:-1]) < 3.0 < float(high[:-1])
    assert interval([INF] * 20, [200.0] * 20, 6_400) == (">32.0x", ">32.0x")


def test_tables_say_what_there_was_none_of(capsys: pytest.CaptureFixture[str]) -> None:
    """A method whose seeds found nothing has dashes and `never`, and no ratio."""
    rows = {"plain": [TRACE] * 3, "nothing": [NOTHING] * 3}
    print_best(rows, budget=200)
    print_match(rows, Mark("a mark", 0.65), 200, {"plain": 200})
    best, match = capsys.readouterr().out.strip().split("\n\n")
    assert [line.split() for line in best.splitlines()[1:]] == [
        ["plain", "70.00", "70.00", "56.00", "9", "3"],
        ["nothing", "-", "-", "-", "4", "3"],
    ]
    assert [line.split() for line in match.splitlines()[1:]] == [
        ["plain", "90", "90-90", "100%", "never", "1.0x"],
        ["nothing", "never", "never-never", "0%", "never", "-"],
    ]


def test_a_search_spends_its_epochs_and_tells_the_worth() -> None:
    """Trial 0 is the article's recipe, trained whole; values are noisy, what they are worth is not."""
    be_quiet()
    curves = RateCurves(noise=0.02)
    trace = replay(METHODS["random/none"], curves, SETTINGS, workers=3, budget_epochs=400)
    assert trace.epochs[-1] <= 400
    assert trace.trials == len(curves.drawn)
    assert curves.drawn[0].learning_rate == ARTICLE.learning_rate
    assert np.all(np.diff(trace.values) > 0)
    worths = {float(curves.mean(recipe)[recipe.epochs - 1]) for recipe in curves.drawn}
    assert set(trace.truths.tolist()) <= worths
    assert trace.winner is not None
    assert curves.mean(trace.winner)[trace.winner.epochs - 1] == trace.truths[-1]
    assert np.any(trace.values != trace.truths)


def test_workers_share_the_epochs() -> None:
    """With as many workers as trials of the budget, none has ended when it is spent."""
    trace = replay(METHODS["whole/none"], RateCurves(), SETTINGS, workers=10, budget_epochs=10 * 26)
    assert len(trace.epochs) == 0
    assert trace.winner is None
    assert trace.trials == 10


def test_a_replay_repeats() -> None:
    """The same seed is the same search; another one is another."""
    one, two = (replay(METHODS["tpe/hyperband"], RateCurves(0.02), SETTINGS, 2, 200) for _ in range(2))
    other = replay(METHODS["tpe/hyperband"], RateCurves(0.02), Settings(NAMED["article"], 27, seed=4), 2, 200)
    assert one.values.tolist() == two.values.tolist()
    assert one.values.tolist() != other.values.tolist()


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        (DEFAULT, True),
        ("default: no TPE", True),
        ("default: no starts", False),
        ("no starts/no TPE", False),
    ],
)
def test_parts_of_the_default_can_be_left_out(name: str, starts: bool) -> None:
    """The start point comes after trial 0, or not."""
    curves = RateCurves()
    replay(METHODS[name], curves, SETTINGS, workers=1, budget_epochs=80)
    rates = [recipe.learning_rate for recipe in curves.drawn]
    assert (rates[FIRST_START] == 0.001) == starts


def test_pruning_gets_more_trials_from_as_many_epochs() -> None:
    """Halving against none, with the same draws."""
    plain, halved = (
        replay(METHODS[name], RateCurves(), SETTINGS, 1, 400) for name in ("whole/none", "whole/halving2")
    )
    assert halved.trials > 2 * plain.trials


def test_curves_that_left_the_numbers_are_filled_with_chance() -> None:
    """What such a recipe would be is no better than guessing."""
    assert fill([Curve(ARTICLE, (0.5, 0.6)), Curve(ARTICLE, (0.3,))], 2).tolist() == [[0.5, 0.6], [0.3, 0.1]]


def make_curves(spread: float, wobble: float) -> list[Curve]:
    """Of 200 recipes, two seeds each, 60 epochs."""
    random = np.random.default_rng(0)
    curves = []
    for index in range(200):
        for seed in (1, 2):
            recipe = Recipe(epochs=60, learning_rate=0.001 * (1 + index / 100), seed=seed)
            noise = random.normal(0, spread) + random.normal(0, wobble, 60)
            curves.append(Curve(recipe, tuple(map(float, np.linspace(0.3, 0.6, 60) + noise))))
    return curves


@pytest.mark.parametrize(("spread", "wobble"), [(0.01, 0.004), (0.02, 0.02)])
def test_noise_is_measured_as_it_was_made(spread: float, wobble: float) -> None:
    """Apart: what a seed does to a whole curve, and what single epochs are off it."""
    curves = make_curves(spread, wobble)
    assert measure_spread(curves, 60) == pytest.approx(spread, rel=0.15)
    found = np.median([measure_wobble(curve.accuracies) for curve in curves])
    assert found == pytest.approx(wobble, rel=0.15)


def test_a_curve_too_short_to_wobble_is_no_error() -> None:
    """Its logarithm is learnt, so it is not 0 either."""
    assert measure_wobble((0.1,)) > 0
    assert measure_wobble(()) > 0
    assert measure_spread([Curve(ARTICLE, (0.5, 0.6))], 2) == 0


def test_the_articles_curves_are_told_from_others() -> None:
    """By the recipe, whatever its seed and its epochs."""
    mine, other = Curve(Recipe(epochs=3, seed=8), (0.1,)), Curve(Recipe(optimizer="adam"), (0.1,))
    assert split(Table((mine, other), 10, 10)) == ([mine], [other])


def test_the_surrogate_tells_recorded_curves() -> None:
    """The article's as they were recorded, others about so; where scikit-learn is there."""
    pytest.importorskip("sklearn")
    from surrogate import Surrogate

    random, known = np.random.default_rng(0), RateCurves()
    recipes = [ARTICLE, *(Recipe(learning_rate=float(10 ** random.uniform(-4, -1))) for _ in range(40))]
    curves = tuple(Curve(recipe, tuple(map(float, known.mean(recipe)))) for recipe in recipes)
    surrogate = Surrogate(Table(curves, 10, 10), "gp")
    assert surrogate.mean(Recipe(seed=5)) == pytest.approx(known.mean(ARTICLE))
    untried = Recipe(learning_rate=0.002)
    assert surrogate.mean(untried) == pytest.approx(known.mean(untried), abs=0.03)
    draws = np.stack([surrogate.draw(untried, random) for _ in range(50)])
    assert draws.mean(axis=0) == pytest.approx(surrogate.mean(untried), abs=0.02)
