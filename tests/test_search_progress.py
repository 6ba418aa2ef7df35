"""The progress plot shows every trial that ended, where it ended, and the article's band to reach."""

import json
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.progress import MARKERS, best_so_far, draw_progress, progress_page
from search.summary import TrialSummary
from trainer.recipe import ARTICLE, Recipe

START = datetime(2026, 11, 3, 10, 0)
RECIPE = Recipe(learning_rate=0.0012, optimizer="adam", epochs=12)


def summary(
    number: int,
    state: str = "complete",
    accuracy: float | None = 0.7,
    minute: float = 10.0,
    recipe: Recipe | None = RECIPE,
    note: str = "",
) -> TrialSummary:
    """A trial that began with the study and ended `minute` minutes later."""
    return TrialSummary(
        number=number,
        state=state,
        value=accuracy if state == "complete" else None,
        last_value=accuracy,
        epochs_done=3,
        recipe=recipe,
        started=None if state == "waiting" else START,
        ended=None if state in ("running", "waiting") else START + timedelta(minutes=minute),
        note=note,
    )


def figure(trials: list[TrialSummary], study_name: str = "cifar10") -> dict[str, Any]:
    """The figure as a browser gets it."""
    drawn: dict[str, Any] = json.loads(draw_progress(trials, study_name).to_json())
    return drawn


def trace(drawn: dict[str, Any], name: str) -> dict[str, Any]:
    """The one trace called `name`."""
    [found] = [trace for trace in drawn["data"] if trace["name"] == name]
    return dict(found)


def texts(drawn: dict[str, Any]) -> list[str]:
    """What the annotations say."""
    return [annotation["text"] for annotation in drawn["layout"]["annotations"]]


def test_trials_stand_at_their_end_and_value() -> None:
    """A trial stands at the minute it ended, at its value or at what it reported last, in percent."""
    drawn = figure([summary(1, minute=5, accuracy=0.7123), summary(2, "pruned", 0.5, minute=2)])
    assert (trace(drawn, "complete")["x"], trace(drawn, "complete")["y"]) == ([5], [71.23])
    assert (trace(drawn, "pruned")["x"], trace(drawn, "pruned")["y"]) == ([2], [50])
    assert drawn["layout"]["xaxis"]["title"]["text"].startswith("minutes")


def test_long_studies_are_drawn_in_hours() -> None:
    """A study of more than two hours has an axis in hours."""
    drawn = figure([summary(1, minute=180)])
    assert trace(drawn, "complete")["x"] == [3]
    assert drawn["layout"]["xaxis"]["title"]["text"].startswith("hours")


def test_states_look_different() -> None:
    """Each state has its own colour and its own symbol."""
    drawn = figure([summary(number, state) for number, state in enumerate(MARKERS)])
    looks = {state: trace(drawn, state)["marker"] for state in MARKERS}
    assert len({look["color"] for look in looks.values()}) == len(MARKERS)
    assert len({look["symbol"] for look in looks.values()}) == len(MARKERS)


def test_running_trials_are_counted_not_drawn() -> None:
    """A running, a waiting and a silently failed trial have no point but are in the subtitle."""
    drawn = figure([summary(1, "running"), summary(2, "waiting", None), summary(3, "failed", None)])
    assert drawn["data"] == []
    assert drawn["layout"]["title"]["subtitle"]["text"] == "1 failed · 1 running · 1 waiting"


@pytest.mark.parametrize("accuracy", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_drawn(accuracy: float) -> None:
    """A diverged trial whose last report is NaN or infinite leaves the figure valid."""
    drawn = figure([summary(1, "diverged", accuracy), summary(2)])
    assert [trace["name"] for trace in drawn["data"]] == ["complete", "best so far"]


def test_best_so_far_steps_over_complete_trials_only() -> None:
    """The step line rises at each better complete trial and goes on to the last end of any trial."""
    drawn = figure(
        [
            summary(1, accuracy=0.60, minute=1),
            summary(2, accuracy=0.55, minute=2),
            summary(3, "pruned", 0.79, minute=3),
            summary(4, accuracy=0.70, minute=4),
            summary(5, "pruned", 0.40, minute=9),
        ]
    )
    best = trace(drawn, "best so far")
    assert (best["x"], best["y"]) == ([1, 4, 9], [60, 70, 70])
    assert best["line"]["shape"] == "hv"


ANY_TRIALS = st.lists(
    st.tuples(st.sampled_from(["complete", "pruned", "running"]), st.floats(0, 1), st.integers(0, 20))
)


@given(ANY_TRIALS)
def test_best_so_far_is_the_running_maximum(drawn: list[tuple[str, float, int]]) -> None:
    """Whatever the trials, the steps are the running maximum over the complete ones in order of end."""
    trials = [summary(number, *rest) for number, rest in enumerate(drawn)]
    complete = [trial for trial in trials if trial.state == "complete"]
    complete.sort(key=lambda trial: (trial.ended or START, trial.number))
    maxima = list(accumulate((trial.value or 0.0 for trial in complete), max))
    rises = [value for at, value in enumerate(maxima) if at == 0 or value > maxima[at - 1]]
    assert [trial.value for trial in best_so_far(trials)] == rises


@given(ANY_TRIALS)
def test_every_point_is_seen_or_counted(drawn: list[tuple[str, float, int]]) -> None:
    """Whatever the trials, those under the first view's lower edge are counted, and the band is in it."""
    figured = figure([summary(number, *rest) for number, rest in enumerate(drawn)])
    low, high = figured["layout"]["yaxis"]["range"]
    points = [y for trace in figured["data"] if trace["mode"] == "markers" for y in trace["y"]]
    below = sum(y < low for y in points)
    assert low < 77 and high > 78 and all(y <= high for y in points)
    assert any(f"▾ {below} trial" in text for text in texts(figured)) == (below > 0)


def test_the_articles_band_is_shaded_and_named() -> None:
    """The band lies from 77 to 78 % behind the points, over the whole width, with a label."""
    drawn = figure([summary(1)])
    [band] = drawn["layout"]["shapes"]
    assert (band["y0"], band["y1"], band["x0"], band["x1"], band["xref"]) == (77, 78, 0, 1, "paper")
    assert band["layer"] == "below"
    assert "the article: 77-78 % (test set)" in texts(drawn)


def test_the_articles_recipe_is_a_star() -> None:
    """Trial 0 with the article's recipe, epochs aside, is marked; another trial 0 is not."""
    article = Recipe.from_dict({**ARTICLE.to_dict(), "epochs": 3, "seed": 9})
    star = trace(figure([summary(0, recipe=article), summary(1)]), "the article's recipe")
    assert (star["marker"]["symbol"], star["y"]) == ("star", [70])
    assert "the article's recipe" not in [trace["name"] for trace in figure([summary(0)])["data"]]


def test_failures_at_ten_percent_do_not_squash_the_rest() -> None:
    """The first view leaves out what lies far below the best, and says how many and how low."""
    drawn = figure([summary(1, accuracy=0.75), summary(2, "diverged", 0.1), summary(3, "pruned", 0.2)])
    assert drawn["layout"]["yaxis"]["range"][0] > 40
    assert "▾ 2 trials lie below, down to 10.0 %: double-click to see them" in texts(drawn)
    assert trace(drawn, "diverged")["y"] == [10]


def test_an_empty_study_says_so() -> None:
    """Without a result the plot still has its band and says that there is nothing yet."""
    drawn = figure([])
    assert "No trial has ended with a result yet" in texts(drawn)
    assert len(drawn["layout"]["shapes"]) == 1


def test_only_pruned_trials_draw_no_line() -> None:
    """A study without a complete trial has its points but no best so far."""
    drawn = figure([summary(1, "pruned", 0.4), summary(2, "pruned", 0.5)])
    assert [trace["name"] for trace in drawn["data"]] == ["pruned"]
    assert "no complete trial yet" in drawn["layout"]["title"]["text"]


def test_hover_tells_recipe_and_note() -> None:
    """A point's text holds number, optimizer, learning rate, dropouts and a note cut to one short line."""
    trial = summary(7, "failed", recipe=RECIPE, note="<out of memory> " + 100 * "x")
    [text] = trace(figure([trial]), "failed")["text"]
    for part in ("7<br>", "adam lr 0.0012", "0.30/0.30/0.40/0.30", "&lt;out of memory&gt;"):
        assert part in text
    assert len(text) < 150


def test_names_are_text_not_markup() -> None:
    """A study's name cannot bring tags into the title."""
    assert "<i>" not in figure([], "<i>x</i>")["layout"]["title"]["text"]


def test_the_figure_is_small_and_without_a_template() -> None:
    """The figure has no template and few bytes, for the dashboard sends it at each poll."""
    assert "template" not in figure([summary(1)])["layout"]
    few = [summary(number, minute=number) for number in range(100)]
    many = [summary(number, ("complete", "pruned")[number % 2], minute=number) for number in range(5000)]
    assert len(draw_progress(few, "cifar10").to_json()) < 20_000
    assert len(draw_progress(many, "cifar10").to_json()) < 130_000


def test_the_page_is_self_contained() -> None:
    """The page brings plotly along and has an escaped title."""
    page = progress_page([summary(1)], "a<b")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "<title>a&lt;b: progress</title>" in page
    assert "Plotly.newPlot" in page and '<script src="http' not in page
