"""The tables and dicts say which trial is best, what it is, and what its value is not."""

import dataclasses
import json
from datetime import datetime, timedelta
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from search.named_spaces import NAMED
from search.recipe_words import ARTICLES_OWN
from search.report import (
    best_report,
    compare_with_band,
    is_articles_recipe,
    settings_lines,
    status_json,
    trial_json,
    trials_table,
)
from search.study import Settings
from search.summary import STATES, TrialSummary
from trainer.recipe import ARTICLE, Recipe

START = datetime(2026, 11, 3, 10, 0)
RECIPE = Recipe(dropout_dense=0.25, learning_rate=0.0012, optimizer="adam", epochs=12)


def summary(
    number: int, state: str = "complete", accuracy: float | None = 0.7, recipe: Recipe | None = RECIPE
) -> TrialSummary:
    """A trial of three minutes."""
    over = state not in ("running", "waiting")
    return TrialSummary(
        number=number,
        state=state,
        value=accuracy if state == "complete" else None,
        last_value=accuracy,
        epochs_done=3,
        recipe=recipe,
        started=None if state == "waiting" else START,
        ended=START + timedelta(minutes=3) if over else None,
        note="",
    )


def rendered(renderable: RenderableType, width: int = 120) -> str:
    """What a terminal of `width` columns would show, without colours."""
    console = Console(file=StringIO(), width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_table_is_sorted_best_first() -> None:
    """Complete trials come best first, then the others that ended, the running, the waiting."""
    trials = [
        summary(0, "waiting", None, None),
        summary(1, "running", 0.5),
        summary(2, "pruned", 0.9),
        summary(3, accuracy=0.6),
        summary(4, accuracy=0.7),
    ]
    rows = rendered(trials_table(trials)).splitlines()[2:]
    assert [row.lstrip("* ").split()[0] for row in rows] == ["4", "3", "2", "1", "0"]
    assert rows[0].startswith("*") and not any(row.startswith("*") for row in rows[1:])


def test_a_row_tells_the_recipe() -> None:
    """A row has value, epochs, minutes, dropouts, learning rate and optimizer, in 80 columns too."""
    for width in (80, 120):
        row = rendered(trials_table([summary(4, accuracy=0.7123)]), width).splitlines()[-1]
        assert row.split() == "* 4 complete 71.23 3/12 3.0 0.30/0.30/0.40/0.25 0.0012 adam".split()


def test_a_value_without_a_model_stands_in_parentheses() -> None:
    """What a pruned trial reported last is not shown as a value."""
    assert "(45.10)" in rendered(trials_table([summary(1, "pruned", 0.451)]))


def test_the_table_says_what_it_leaves_out() -> None:
    """Over the limit the caption counts the trials not shown, by state; under it there is none."""
    trials = [*(summary(number) for number in range(5)), summary(5, "running")]
    assert "4 more not shown: 3 complete, 1 running" in rendered(trials_table(trials, limit=2))
    assert "not shown" not in rendered(trials_table(trials))


def test_the_best_report_compares_with_the_article() -> None:
    """The report has the value beside the article's, in points, the yardstick of the study and each field."""
    article = Recipe.from_dict({**ARTICLE.to_dict(), "epochs": 3})
    shown = rendered(best_report([summary(0, accuracy=0.70, recipe=article), summary(5, accuracy=0.75)]))
    assert "Trial 5: validation accuracy 75.00 %, the best of 2 complete trials" in shown
    assert "77-78 % on the test set: this is 2.00 points below" in shown
    assert "(trial 0, 3 epochs) reached 70.00 %: this is +5.00 points" in shown
    fields = {line[:14].strip(): line[14:].split() for line in shown.splitlines()}
    assert fields["optimizer"] == ["adam", "momentum"]
    assert fields["learning rate"] == ["0.0012", "0.01"]
    assert all(name.replace("_", " ") in fields for name in ARTICLES_OWN)
    assert "schedule" not in fields


def test_what_goes_beyond_the_article_is_shown_where_there_is_any() -> None:
    """The table tells it below, trial by trial, the best report field by field, in 80 columns too."""
    recipe = dataclasses.replace(RECIPE, schedule="cosine", label_smoothing=0.1)
    trials = [summary(1, accuracy=0.6), summary(2, accuracy=0.7, recipe=recipe)]
    assert "trial 1" not in rendered(trials_table(trials[:1]))
    lines = rendered(trials_table(trials, limit=1), 80).splitlines()
    assert [line.strip() for line in lines[-2:]] == [
        "1 more not shown: 1 complete",
        "trial 2: cosine, smoothing 0.1",
    ]
    fields = {line[:16].strip(): line[16:].split() for line in rendered(best_report(trials)).splitlines()}
    assert fields["schedule"] == ["cosine", "constant"]
    assert "warmup" not in fields


def test_the_settings_say_what_is_searched_and_no_more() -> None:
    """Fields held where the article has them go without saying, but for the article's own numbers."""
    article = settings_lines(Settings(NAMED["article"]))
    assert "batch_size: 64 (fixed)" in article
    assert not any("schedule" in line for line in article)
    schedules = settings_lines(Settings(NAMED["schedules"]))
    assert "step_at: 0.3 to 0.95, where schedule is step" in schedules


def test_the_best_report_warns_of_the_flattery() -> None:
    """The highest of many flatters and a single one does not, but neither is a test result."""
    many, one = rendered(best_report([summary(1), summary(2)])), rendered(best_report([summary(1)]))
    assert "not yet a test result" in many and "not yet a test result" in one
    assert "flatters" in many and "flatters" not in one
    assert "`cnn-search confirm` train the recipe again with other seeds" in " ".join(many.split())
    told = rendered(best_report([summary(1), summary(2)], advises=False))
    assert "flatters" in told and "other seeds" not in told


def test_the_best_report_of_nothing() -> None:
    """Without a complete trial the report says so and what there is."""
    assert "No trial is complete yet; 1 pruned, 1 running" in rendered(
        best_report([summary(1, "pruned"), summary(2, "running")])
    )
    assert "the study has no trials" in rendered(best_report([]))


def test_where_a_value_stands_to_the_band() -> None:
    """Above, within and below the article's 77-78 % are told apart, its edges being within."""
    assert compare_with_band(0.80) == "2.00 points above"
    assert compare_with_band(0.70) == "7.00 points below"
    assert compare_with_band(0.77) == compare_with_band(0.78) == "within it"


def test_only_trial_0_with_the_articles_recipe_is_the_yardstick() -> None:
    """Another trial with the same recipe, or a trial 0 with another recipe, is not the study's yardstick."""
    assert is_articles_recipe(summary(0, recipe=ARTICLE))
    assert not is_articles_recipe(summary(1, recipe=ARTICLE))
    assert not is_articles_recipe(summary(0))
    assert not is_articles_recipe(summary(0, recipe=None))


@given(st.lists(st.tuples(st.sampled_from(STATES), st.none() | st.floats(), st.sampled_from([None, RECIPE]))))
def test_any_study_becomes_strict_json(drawn: list[tuple[str, float | None, Recipe | None]]) -> None:
    """Whatever the trials reported, NaN included, the dict is JSON by the letter and renders as a table."""
    drawn = [(state, 0.5 if state == "complete" else value, recipe) for state, value, recipe in drawn]
    trials = [summary(number, *rest) for number, rest in enumerate(drawn)]
    status = json.loads(json.dumps(status_json("s", trials, {"space": "article"}), allow_nan=False))
    assert sum(status["states"].values()) == len(trials) == len(status["trials"])
    assert status["epochs_trained"] == 3 * len(trials)
    assert rendered(trials_table(trials)) and rendered(best_report(trials))


def test_status_json_has_the_best_and_the_settings() -> None:
    """The dict names the study, its settings, its best trial and every state, empty ones too."""
    status = status_json("cifar10", [summary(2, accuracy=0.7), summary(1, accuracy=0.8)], {"seed": 3})
    assert status["study"] == "cifar10" and status["settings"] == {"seed": 3}
    assert status["best"] == trial_json(summary(1, accuracy=0.8))
    assert status["states"] == {**dict.fromkeys(STATES, 0), "complete": 2}
    assert [trial["number"] for trial in status["trials"]] == [1, 2]
    assert status_json("cifar10", [], {})["best"] is None


def test_trial_json_is_complete() -> None:
    """A trial's dict holds its fields, its recipe, ISO times and its seconds."""
    assert trial_json(summary(1)) == {
        "number": 1,
        "state": "complete",
        "value": 0.7,
        "last_value": 0.7,
        "epochs_done": 3,
        "recipe": RECIPE.to_dict(),
        "started": "2026-11-03T10:00:00",
        "ended": "2026-11-03T10:03:00",
        "seconds": 180.0,
        "note": "",
    }
