"""How a study draws its recipes, and which trials it stops early."""

import dataclasses

import optuna
import pytest
from optuna.trial import TrialState

from search.named_spaces import NAMED
from search.ranges import Choices, NumberRange
from search.space import Space, params_of, suggest
from search.start_points import POINTS, start_points
from search.strategy import attach_strategy
from search.study import OpenStudy, Wishes, open_or_create_study
from storage.database import Database, open_database
from trainer.recipe import ARTICLE

NO_STARTS = NAMED["article"].replace(Choices("optimizer", ("sgd", "momentum")))
"""A space without a start point."""


def draw(opened: OpenStudy, count: int = 3) -> list[float]:
    """The learning rates of the next trials that a process draws."""
    study = attach_strategy(opened)
    rates = []
    for _ in range(count):
        trial = study.ask()
        rates.append(trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True))
        study.tell(trial, 0.5)
    return rates


def test_each_trial_has_draws_of_its_own(url: str) -> None:
    """A second run, or a worker beside the first, does not repeat its recipes."""
    database = open_database(url)
    opened, _ = open_or_create_study(database, "s", Wishes(seed=3))
    first_run = draw(opened)[2:]
    together = [attach_strategy(opened) for _ in range(2)]
    second_run = [study.ask().suggest_float("learning_rate", 1e-4, 1e-1, log=True) for study in together]

    assert len({*first_run, *second_run}) == 1 + 2
    database.close()


def test_an_interruption_does_not_change_what_is_drawn(database: Database) -> None:
    """Three trials in one process draw what three processes of one trial each do."""
    whole, parts = (open_or_create_study(database, name, Wishes(seed=3))[0] for name in "ab")

    assert draw(whole, 3) == [rate for _ in range(3) for rate in draw(parts, 1)]


def test_the_same_seed_draws_the_same_recipes(database: Database) -> None:
    """In a study of the same age; another seed draws others."""
    draws = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        opened, _ = open_or_create_study(database, name, Wishes(seed=seed))
        draws[name] = draw(opened)

    assert draws["a"] == draws["b"]
    assert draws["a"][:2] == draws["c"][:2] == [0.01, 0.001]
    assert set(draws["a"][2:]).isdisjoint(draws["c"][2:])


def test_the_sampler_learns_from_fields_that_some_trials_have(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Past its first random trials it draws recipes of the space, in silence, and prefers what did well."""
    space = NAMED["schedules"]
    opened, _ = open_or_create_study(database, "s", Wishes(space))
    study = attach_strategy(opened)
    optuna.logging.enable_propagation()
    try:
        recipes = []
        for number in range(40):
            trial = study.ask()
            recipe = suggest(trial, space, number)
            assert trial.params == params_of(recipe, space)
            study.tell(trial, recipe.step_at if recipe.schedule == "step" else 0.0)
            recipes.append(recipe)
    finally:
        optuna.logging.disable_propagation()
    assert not [record for record in caplog.records if record.levelname != "INFO"]
    steps = [recipe.schedule == "step" for recipe in recipes]
    assert sum(steps[20:]) > sum(steps[:20])


@pytest.mark.parametrize("name", ["article", "everything"])
def test_most_trials_may_take_all_epochs(database: Database, name: str) -> None:
    """Before and after the sampler has learnt, with conditions and without; others draw any number."""
    space = NAMED[name].cap_epochs(50)
    study = attach_strategy(open_or_create_study(database, "s", Wishes(space))[0])
    epochs = []
    for number in range(40):
        trial = study.ask()
        recipe = suggest(trial, space, number)
        assert trial.params["epochs"] == recipe.epochs
        # Short ones look best.
        study.tell(trial, 1 / recipe.epochs)
        epochs.append(recipe.epochs)
    first = 1 + len(start_points(space))
    assert epochs[1:first] == [50] * (first - 1)
    drawn = epochs[first:]
    assert 23 <= drawn.count(50) <= 37
    assert len({*drawn}) > 3
    assert all(5 <= one <= 50 for one in drawn)


def test_how_long_a_trial_may_take_says_nothing_about_its_recipe(database: Database) -> None:
    """Long and short ones have the same dropout, all of the range, while recipes are drawn at random."""
    space = NAMED["article"].cap_epochs(50)
    study = attach_strategy(open_or_create_study(database, "s", Wishes(space))[0])
    # None has ended, so nothing is modelled.
    recipes = [suggest(study.ask(), space, number) for number in range(80)][2:]
    for is_long in (True, False):
        rates = [recipe.dropout_block1 for recipe in recipes if (recipe.epochs == 50) == is_long]
        assert len(rates) > 8
        assert min(rates) < 0.2
        assert max(rates) > 0.48


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("article", [1]), ("augmented", [1]), ("schedules", [1]), ("architecture", [1]), ("everything", [0, 1])],
)
def test_the_first_trials_are_recipes_that_are_known_to_be_good(
    database: Database, name: str, numbers: list[int]
) -> None:
    """As far as the space has them, once each whoever asks, the rest as in the article, for all epochs.

    Uncapped, they are trained as long as the article's.
    """
    space = NAMED[name].cap_epochs(50)
    opened, _ = open_or_create_study(database, "s", Wishes(space, seed=3))
    recipes = [suggest(attach_strategy(opened).ask(), space, 7) for _ in range(4)]
    wanted = [dataclasses.replace(ARTICLE, **POINTS[number], epochs=50, seed=7) for number in numbers]
    long, _ = open_or_create_study(database, "long", Wishes(NAMED[name]))
    assert [suggest(attach_strategy(long).ask(), NAMED[name], 7).epochs for _ in range(2)] == [100, 100]
    assert recipes[1 : 1 + len(numbers)] == wanted
    assert not any(recipe in wanted for recipe in recipes[1 + len(numbers) :])


def test_a_space_without_a_start_point_s_values_does_not_try_a_part_of_it(database: Database) -> None:
    """Adam's usual rate is a poor one for another optimizer."""
    assert start_points(NO_STARTS) == ()
    opened, _ = open_or_create_study(database, "s", Wishes(NO_STARTS))
    study = attach_strategy(opened)
    assert [suggest(study.ask(), NO_STARTS, 0).learning_rate for _ in range(2)][1] != 0.001
    narrow = NAMED["article"].replace(NumberRange("dropout_dense", 0.3, 0.6))
    assert start_points(narrow) == ()


def report(
    study: optuna.Study, values: list[float], draw_from: Space | None = None
) -> tuple[optuna.Trial, list[bool]]:
    """A trial that reported these, epoch by epoch, and the pruner's verdict after each.

    With a space it draws its recipe first, as a worker's does.
    """
    trial = study.ask()
    if draw_from is not None:
        suggest(trial, draw_from, 0)
    verdicts = []
    for epoch, value in enumerate(values, start=1):
        trial.report(value, epoch)
        verdicts.append(trial.should_prune())
    return trial, verdicts


def test_the_second_trial_can_be_pruned_but_not_after_epoch_1(database: Database) -> None:
    """Trial 0 alone is the yardstick of trial 1; trial 0 itself has none."""
    study = attach_strategy(open_or_create_study(database, "s", Wishes(NO_STARTS, max_epochs=8))[0])
    assert report(study, [0.3, 0.5, 0.6])[1] == [False, False, False]

    assert report(study, [0.1, 0.49])[1] == [False, True]
    assert report(study, [0.1, 0.51, 0.2])[1] == [False, False, False]


def test_a_trial_goes_on_in_the_upper_half_of_all_that_got_there(database: Database) -> None:
    """Pruned and running trials count, so that one good trial does not stop all others; each rung judges."""
    study = attach_strategy(open_or_create_study(database, "s", Wishes(NO_STARTS, max_epochs=8))[0])
    report(study, [0.3, 0.9])
    for value in (0.1, 0.2):
        trial, verdicts = report(study, [0.3, value])
        assert verdicts == [False, True]
        study.tell(trial, state=TrialState.PRUNED)

    assert report(study, [0.3, 0.6, 0.6, 0.6])[1] == [False, False, False, False]
    assert report(study, [0.3, 0.15])[1] == [False, True]
    assert report(study, [0.3, 0.7, 0.7, 0.5])[1] == [False, False, False, True]


@pytest.mark.parametrize(("max_epochs", "rung"), [(3, 2), (50, 2), (100, 4), (None, 8)])
def test_the_first_rung_grows_with_the_longest_trial(
    database: Database, max_epochs: int | None, rung: int
) -> None:
    """Long trials are not judged by a beginning that says little about their end."""
    study = attach_strategy(open_or_create_study(database, "s", Wishes(NO_STARTS, max_epochs=max_epochs))[0])
    report(study, [0.5] * rung)
    assert report(study, [0.4] * rung)[1] == [False] * (rung - 1) + [True]


def test_the_first_trials_are_judged_and_never_stopped(database: Database) -> None:
    """The article's recipe and both start points are spared; what they reached counts for the others."""
    space = NAMED["everything"].cap_epochs(8)
    study = attach_strategy(open_or_create_study(database, "s", Wishes(space))[0])
    for value in (0.5, 0.1, 0.2):
        assert report(study, [value] * 4, space)[1] == [False] * 4

    assert report(study, [0.15] * 2, space)[1] == [False, True]
    assert report(study, [0.3] * 4, space)[1] == [False] * 4


def test_an_enqueued_trial_in_a_start_point_s_place_is_as_it_was_asked_for(database: Database) -> None:
    """What was not given is drawn, not taken from the point, and it is judged like any other."""
    space = NAMED["article"].cap_epochs(8)
    study = attach_strategy(open_or_create_study(database, "s", Wishes(space))[0])
    study.enqueue_trial({"optimizer": "sgd", "learning_rate": 0.1})
    report(study, [0.5] * 4, space)

    assert report(study, [0.1] * 2, space)[1] == [False, True]
    params = study.trials[1].params
    assert (params["optimizer"], params["learning_rate"]) == ("sgd", 0.1)
    assert params["dropout_block1"] != POINTS[1]["dropout_block1"]


@pytest.mark.parametrize(
    "range_",
    [
        NumberRange("batch_size", 128, 256),
        NumberRange("width", 1.5, 1.8),
        Choices("activation", ("elu", "gelu")),
        Choices("schedule", ("step",)),
    ],
)
def test_a_start_point_is_the_article_s_in_all_that_it_does_not_say(range_: NumberRange | Choices) -> None:
    """A space that lacks the article's value of another field has no start point with a random one."""
    assert start_points(NAMED["everything"].replace(range_)) == ()
