"""benchmarks/replay.py: what is told about searches on recorded curves, and the searches themselves."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from curves import Curve, Table, fill, split
from methods import DEFAULT, METHODS
from noise import draw_noise, find_residuals, measure_wobble
from replay_tables import Mark, interval, print_best, print_match, quantile, ratio
from simulation import be_quiet
from simulation import replay as search
from threadpoolctl import threadpool_limits
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
    trace = search(METHODS["random/none"], curves, SETTINGS, workers=3, budget_epochs=400)
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
    trace = search(METHODS["whole random/none"], RateCurves(), SETTINGS, workers=10, budget_epochs=10 * 26)
    assert len(trace.epochs) == 0
    assert trace.winner is None
    assert trace.trials == 10


def test_a_replay_repeats() -> None:
    """The same seed is the same search; another one is another."""
    one, two = (search(METHODS["whole tpe/hyperband"], RateCurves(0.02), SETTINGS, 2, 200) for _ in range(2))
    other = search(
        METHODS["whole tpe/hyperband"], RateCurves(0.02), Settings(NAMED["article"], 27, seed=4), 2, 200
    )
    assert one.values.tolist() == two.values.tolist()
    assert one.values.tolist() != other.values.tolist()


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        (DEFAULT, True),
        ("default: no TPE", True),
        ("default: no starts", False),
        ("no starts/no TPE", False),
        ("no starts: all epochs", False),
        ("no starts/halving3", False),
    ],
)
def test_parts_of_the_default_can_be_left_out(name: str, starts: bool) -> None:
    """The start point comes after trial 0, or not."""
    curves = RateCurves()
    search(METHODS[name], curves, SETTINGS, workers=1, budget_epochs=80)
    rates = [recipe.learning_rate for recipe in curves.drawn]
    assert (rates[FIRST_START] == 0.001) == starts


def test_all_trials_may_take_all_epochs() -> None:
    """Where a method says so; some of the default's may not."""
    shorts = {}
    for name in ("no starts: all epochs", "whole tpe/halving2", DEFAULT):
        curves = RateCurves()
        search(METHODS[name], curves, SETTINGS, workers=1, budget_epochs=400)
        shorts[name] = sum(recipe.epochs < 27 for recipe in curves.drawn)
    assert shorts.pop(DEFAULT) > 0
    assert set(shorts.values()) == {0}


def test_pruning_gets_more_trials_from_as_many_epochs() -> None:
    """Halving against none, with the same draws."""
    plain, halved = (
        search(METHODS[name], RateCurves(), SETTINGS, 1, 400)
        for name in ("whole random/none", "whole random/halving2")
    )
    assert halved.trials > 2 * plain.trials


def test_curves_that_left_the_numbers_are_filled_with_chance() -> None:
    """What such a recipe would be is no better than guessing."""
    assert fill([Curve(ARTICLE, (0.5, 0.6)), Curve(ARTICLE, (0.3,))], 2).tolist() == [[0.5, 0.6], [0.3, 0.1]]


def make_curves(early: float, late: float, wobble: float) -> list[Curve]:
    """Of 300 recipes, three seeds each, 60 epochs.

    Args:
        early: Standard deviation of what a seed does to the first ten epochs as a whole.
        late: Of what it does to all others as a whole, whatever it did early.
        wobble: Of single epochs.
    """
    random = np.random.default_rng(0)
    curves = []
    for index in range(300):
        for seed in (1, 2, 3):
            recipe = Recipe(epochs=60, learning_rate=0.001 * (1 + index / 100), seed=seed)
            luck = np.where(np.arange(60) < 10, random.normal(0, early), random.normal(0, late))
            accuracies = np.linspace(0.3, 0.6, 60) + luck + random.normal(0, wobble, 60)
            curves.append(Curve(recipe, tuple(map(float, accuracies))))
    return curves


def test_noise_is_that_of_second_seeds() -> None:
    """Early luck is as large as it is and says nothing of late luck; all in units of a recipe's wobble."""
    curves = make_curves(early=0.03, late=0.02, wobble=0.01)
    found = np.mean([measure_wobble(curve.accuracies) for curve in curves])
    assert found == pytest.approx(0.01, rel=0.1)
    residuals = find_residuals(curves, 60)
    assert residuals.shape == (900, 60)
    random = np.random.default_rng(1)
    noise = found * np.stack([draw_noise(residuals, random) for _ in range(2_000)])
    early, late = noise[:, :10], noise[:, 20:]
    assert early.mean(axis=1).std() == pytest.approx((0.03**2 + 0.01**2 / 10) ** 0.5, rel=0.1)
    assert late.mean(axis=1).std() == pytest.approx((0.02**2 + 0.01**2 / 40) ** 0.5, rel=0.1)
    assert (late - late.mean(axis=1, keepdims=True)).std() == pytest.approx(0.01, rel=0.1)
    assert abs(np.corrcoef(early.mean(axis=1), late.mean(axis=1))[0, 1]) < 0.15


def test_noise_is_not_learnt_of_what_learns_nothing() -> None:
    """A recipe that stays at chance has none; nor is there any where nothing was trained twice."""
    alone = [Curve(Recipe(epochs=3), (0.3, 0.4, 0.5))]
    stuck = [Curve(Recipe(epochs=3, learning_rate=0.1, seed=seed), (0.1, 0.1, 0.1)) for seed in (1, 2)]
    residuals = find_residuals([*alone, *stuck], 3)
    assert residuals.shape == (0, 3)
    assert draw_noise(residuals, np.random.default_rng(0)).tolist() == [0.0, 0.0, 0.0]


def test_a_curve_too_short_to_wobble_is_no_error() -> None:
    """Its logarithm is learnt, so it is not 0 either."""
    assert measure_wobble((0.1,)) > 0
    assert measure_wobble(()) > 0


def test_the_articles_curves_are_told_from_others() -> None:
    """By the recipe, whatever its seed and its epochs."""
    mine, other = Curve(Recipe(epochs=3, seed=8), (0.1,)), Curve(Recipe(optimizer="adam"), (0.1,))
    assert split(Table((mine, other), 10, 10)) == ([mine], [other])


@pytest.mark.parametrize("kind", ["both", "gp", "trees"])
def test_the_surrogate_tells_recorded_curves(kind: str) -> None:
    """The article's as they were recorded, others about so, with noise around them."""
    from surrogate import Surrogate

    random, known = np.random.default_rng(0), RateCurves(noise=0.01)
    rates = 10 ** random.uniform(-4, -1, 40)
    recipes = [replace(ARTICLE, epochs=27), *(Recipe(learning_rate=float(rate), epochs=27) for rate in rates)]
    seeds = [replace(recipe, seed=seed) for recipe in recipes for seed in (1, 2)]
    curves = tuple(Curve(recipe, tuple(map(float, known.draw(recipe, random)))) for recipe in seeds)
    surrogate = Surrogate(Table(curves, 10, 10), kind)
    articles = fill(split(Table(curves, 10, 10))[0], 27)
    assert surrogate.mean(Recipe(seed=5)) == pytest.approx(articles.mean(axis=0))
    untried = Recipe(learning_rate=0.002)
    assert surrogate.mean(untried) == pytest.approx(known.mean(untried), abs=0.03)
    draws = np.stack([surrogate.draw(untried, random) for _ in range(300)])
    assert draws.mean(axis=0) == pytest.approx(surrogate.mean(untried), abs=0.01)
    assert draws.std(axis=0).mean() == pytest.approx(0.01, rel=0.3)


def test_trees_promise_nothing_better_than_they_have_seen() -> None:
    """Whatever is asked; searches end where a surrogate is most hopeful."""
    from surrogate import fit_processes, fit_trees

    random = np.random.default_rng(0)
    inputs = random.uniform(0, 0.5, (30, 2))
    outputs = np.stack([inputs.sum(axis=1), -inputs[:, 0]], axis=1)
    asked = random.uniform(0, 1, (30, 2))
    # Threads would only wait for each other.
    with threadpool_limits(1):
        models = [fit(inputs, outputs) for fit in (fit_trees, fit_processes)]
        trees, processes = (np.stack([model(one) for one in asked]) for model in models)
    assert trees.shape == (30, 2)
    assert np.all(trees.max(axis=0) <= outputs.max(axis=0))
    assert processes[:, 0].max() > outputs[:, 0].max()


def test_guesses_are_judged_apart_where_searches_end() -> None:
    """What is promised of recipes that were not drawn, and is not there, is the bias."""
    from surrogate_tables import describe_guesses

    truth = np.array([0.1, 0.2, 0.4, 0.5, 0.5])
    guesses = np.array([0.1, 0.2, 0.4, 0.55, 0.53])
    ranks, explained, error, others, bias = describe_guesses(truth, guesses, np.arange(5) < 3)
    assert (ranks, explained, error) == pytest.approx((1.0, 1.0, 0.0))
    assert others == pytest.approx((17.0) ** 0.5)
    assert bias == pytest.approx(4.0)
