"""The progress plot shows every trial that ended, where it ended, and the article's results to reach."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.graph_objects import Figure  # type: ignore[import-untyped]  # plotly ships no types

from search.progress import DETAIL_LIMIT, MARKERS, NEWEST, best_so_far, draw_progress, progress_page
from search.progress_axes import Against
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


def figure(
    trials: list[TrialSummary],
    study_name: str = "cifar10",
    against: Against = "time",
    most_points: int | None = None,
    target: float | None = None,
) -> dict[str, Any]:
    """The figure as a browser gets it."""
    made = draw_progress(trials, study_name, against, most_points, target)
    drawn: dict[str, Any] = json.loads(json.dumps(made))
    return drawn


def trace(drawn: dict[str, Any], name: str) -> dict[str, Any]:
    """The one trace called `name`."""
    [found] = [trace for trace in drawn["data"] if trace["name"] == name]
    return dict(found)


def places(drawn: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Where each trial stands, by its number."""
    return {
        int(text.split("<br>")[0]): (x, y)
        for trace in drawn["data"]
        if trace["name"] in MARKERS
        for text, x, y in zip(trace["text"], trace["x"], trace["y"], strict=True)
    }


def subtitle(drawn: dict[str, Any]) -> list[str]:
    """The lines under the title."""
    text: str = drawn["layout"]["title"]["subtitle"]["text"]
    return text.split("<br>")


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
    assert subtitle(drawn) == ["1 failed · 1 running · 1 waiting", "77.37 % not reached yet"]


@pytest.mark.parametrize("accuracy", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_drawn(accuracy: float) -> None:
    """A diverged trial whose last report is NaN or infinite leaves the figure valid."""
    drawn = figure([summary(1, "diverged", accuracy), summary(2)])
    assert [trace["name"] for trace in drawn["data"]] == ["complete", "best so far"]


def test_against_trials_they_stand_in_order_of_their_end() -> None:
    """A trial stands at how many had ended with it, whatever its number, those without a result included."""
    trials = [
        summary(0, minute=30),
        summary(1, "failed", None, minute=10),
        summary(2, "pruned", 0.5, minute=20),
        summary(3, "running"),
        summary(4, minute=300),
    ]
    drawn = figure(trials, against="trials")

    assert {number: x for number, (x, _) in places(drawn).items()} == {2: 2, 0: 3, 4: 4}
    assert trace(drawn, "best so far")["x"] == [3, 4]
    assert drawn["layout"]["xaxis"]["title"]["text"] == "trials that have ended"
    assert drawn["layout"]["xaxis"]["dtick"] == 1
    assert (
        "dtick" not in figure([summary(number) for number in range(11)], against="trials")["layout"]["xaxis"]
    )


def test_both_axes_show_the_same() -> None:
    """The two figures differ in the places, and in the name of the axis, alone."""
    trials = [summary(n, ("complete", "pruned")[n % 2], 0.7 + n / 100, minute=9.0 * n) for n in range(12)]
    by_time, by_trials = figure(trials), figure(trials, against="trials")
    assert by_time != by_trials
    for drawn in (by_time, by_trials):
        del drawn["layout"]["xaxis"]
        for placed in (*drawn["data"], *drawn["layout"]["annotations"]):
            if placed.get("xref") != "paper":
                del placed["x"]
    assert by_time == by_trials


def test_times_have_four_digits() -> None:
    """The last place has four digits wherever its decimal point is, so that each costs few bytes."""
    for minutes, x in ((1 / 90, 0.01111), (1234 / 7, 2.938), (100_000 / 7, 238.1), (4_000_000 / 7, 9524)):
        assert places(figure([summary(1, minute=minutes)]))[1][0] == x


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


def test_a_trial_without_a_model_is_no_step() -> None:
    """As it is not the best trial either: another program told its value."""
    trials = [
        summary(1, accuracy=0.7, minute=1),
        replace(summary(2, accuracy=0.78, minute=2), has_model=False),
    ]
    drawn = figure(trials)
    assert trace(drawn, "best so far")["y"] == [70, 70]
    assert subtitle(drawn)[1] == "77.37 % not reached yet"
    assert places(drawn)[2] == (2, 78)


def test_a_tie_is_no_step() -> None:
    """A trial as good as the best before it changes nothing."""
    assert [trial.number for trial in best_so_far([summary(1, minute=1), summary(2, minute=2)])] == [1]


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
    points = [y for trace in figured["data"] if trace["name"] in MARKERS for y in trace["y"]]
    below = sum(y < low for y in points)
    assert low < 77 and high > 78 and all(y <= high for y in points)
    assert any(f"▾ {below} trial" in text for text in texts(figured)) == (below > 0)


def test_the_articles_results_are_lines_over_its_band() -> None:
    """The band lies from 77 to 78 % and a line at each result, behind the points and over the whole width."""
    drawn = figure([summary(1)])
    band, *lines = drawn["layout"]["shapes"]
    assert (band["y0"], band["y1"]) == (77, 78)
    assert [line["y0"] for line in lines] == [line["y1"] for line in lines] == [78.22, 77.77, 77.37]
    for shape in (band, *lines):
        assert (shape["x0"], shape["x1"], shape["xref"], shape["layer"]) == (0, 1, "paper", "below")


def test_the_articles_results_have_labels_beside_the_plot() -> None:
    """Each says its epochs and its value at its line's height; they are a line of text apart, in order."""
    labels = [note for note in figure([summary(1)])["layout"]["annotations"] if note["x"] == 1]
    assert [(label["text"], label["y"]) for label in labels] == [
        ("150 ep.: 78.22 %", 78.22),
        ("200 ep.: 77.77 %", 77.77),
        ("100 ep.: 77.37 %", 77.37),
        ("article: 77-78 %<br>(test set)", 77.37),
    ]
    shifts = [label["yshift"] for label in labels]
    assert all(above - below >= 13 for above, below in pairwise(shifts))
    assert all(label["xanchor"] == "left" for label in labels)


@pytest.mark.parametrize(("against", "place"), [("time", 130), ("trials", 3)])
def test_the_first_at_the_baseline_is_marked(against: Against, place: float) -> None:
    """The subtitle says when and which, a ring stands around it, with a line down to the axis."""
    trials = [
        summary(0, accuracy=0.7736, minute=60),
        summary(5, "pruned", 0.79, minute=70),
        summary(3, accuracy=0.7737, minute=130),
        summary(4, accuracy=0.78, minute=140),
    ]
    drawn = figure(trials, against=against)
    unit = 60 if against == "time" else 1

    assert subtitle(drawn)[1] == "77.37 % first reached after 2 h 10 min, by trial 3"
    ring = trace(drawn, "first at 77.37 %")
    assert ring["x"] == [pytest.approx(place / unit, abs=1e-3)] * 2
    assert ring["y"] == [77.37, drawn["layout"]["yaxis"]["range"][0]]
    assert ring["marker"]["size"][1] == 0
    (label,) = (one for one in drawn["layout"]["annotations"] if one["text"] == "after 2 h 10 min")
    assert (label["x"], label["xanchor"]) == (ring["x"][0], "right" if place == 130 else "left")


def test_a_baseline_not_reached_is_not_marked() -> None:
    """Also where a pruned trial was above it for a while, for no model is stored of it."""
    drawn = figure([summary(0, accuracy=0.7736), summary(1, "pruned", 0.79)])
    assert subtitle(drawn)[1] == "77.37 % not reached yet"
    assert [trace["name"] for trace in drawn["data"]] == ["pruned", "complete", "best so far"]


def test_a_target_is_a_line_with_its_name() -> None:
    """Over the whole width and in the first view, however far it is; its mark differs from the article's."""
    for target, text in ((0.8, "target: 80.00 %"), (0.9, "target: 90.00 %"), (0.42, "target: 42.00 %")):
        drawn = figure([summary(1, accuracy=0.775)], target=target)
        *_, line = drawn["layout"]["shapes"]
        assert (line["y0"], line["y1"]) == (pytest.approx(100 * target),) * 2
        assert (line["x0"], line["x1"], line["xref"]) == (0, 1, "paper")
        low, high = drawn["layout"]["yaxis"]["range"]
        assert low < 100 * target < high
        assert text in texts(drawn)
        assert Figure(drawn).to_plotly_json()["data"] == drawn["data"]
    assert not any("target" in text for text in [*texts(figure([])), *subtitle(figure([]))])
    assert len(figure([])["layout"]["shapes"]) == 4


@pytest.mark.parametrize("against", ["time", "trials"])
def test_the_target_and_the_article_are_marked_each(against: Against) -> None:
    """With when it was, at different heights; the subtitle has a line for each."""
    trials = [summary(1, accuracy=0.774, minute=30), summary(2, accuracy=0.781, minute=45)]
    drawn = figure(trials, against=against, target=0.78)
    assert subtitle(drawn)[1:] == [
        "77.37 % first reached after 30 min, by trial 1",
        "target 78.00 % first reached after 45 min, by trial 2",
    ]
    places = {"time": (30, 45), "trials": (1, 2)}[against]
    for at, name in enumerate(("first at 77.37 %", "first at 78.00 %")):
        assert trace(drawn, name)["x"] == [places[at]] * 2
    labels = [note for note in drawn["layout"]["annotations"] if note["text"].startswith("after")]
    assert [(label["text"], label["x"]) for label in labels] == [
        ("after 30 min", places[0]),
        ("after 45 min", places[1]),
    ]
    assert labels[1]["yshift"] - labels[0]["yshift"] >= 14
    assert (
        len({trace(drawn, name)["line"]["color"] for name in ("first at 77.37 %", "first at 78.00 %")}) == 2
    )


def test_a_trial_that_reaches_both_is_marked_once() -> None:
    """And a target that is the article's result is no second goal."""
    trials = [summary(1, accuracy=0.785, minute=30)]
    drawn = figure(trials, target=0.78)
    assert trace(drawn, "first at 77.37 % and 78.00 %")["y"][0] == 78.5
    assert texts(drawn).count("after 30 min") == 1
    assert figure(trials, target=0.7737) == figure(trials)


def test_a_target_below_the_article_is_marked_by_itself() -> None:
    """In its own colour, while the article's result is still out of reach."""
    trials = [summary(1, accuracy=0.72, minute=30)]
    drawn = figure(trials, target=0.7)
    assert trace(drawn, "first at 70.00 %")["line"]["color"] == drawn["layout"]["shapes"][-1]["line"]["color"]
    assert subtitle(drawn)[1:] == [
        "77.37 % not reached yet",
        "target 70.00 % first reached after 30 min, by trial 1",
    ]


def test_the_articles_recipe_is_a_star() -> None:
    """Trial 0 with the article's recipe, epochs aside, is marked; another trial 0 is not."""
    article = Recipe.from_dict({**ARTICLE.to_dict(), "epochs": 3, "seed": 9})
    star = trace(figure([summary(0, recipe=article), summary(1)]), "article's recipe")
    assert (star["marker"]["symbol"], star["y"]) == ("star", [70])
    assert "article's recipe" not in [trace["name"] for trace in figure([summary(0)])["data"]]


def test_failures_at_ten_percent_do_not_squash_the_rest() -> None:
    """The first view leaves out what lies far below the best, and says how many and how low."""
    drawn = figure([summary(1, accuracy=0.75), summary(2, "diverged", 0.1), summary(3, "pruned", 0.2)])
    assert drawn["layout"]["yaxis"]["range"][0] > 40
    assert "▾ 2 trials below, down to 10.0 %: double-click" in texts(drawn)
    assert trace(drawn, "diverged")["y"] == [10]


def test_an_empty_study_says_so() -> None:
    """Without a result the plot still has what to reach, and says that there is nothing yet."""
    drawn = figure([])
    assert "No trial has ended with a result yet" in texts(drawn)
    assert len(drawn["layout"]["shapes"]) == 4
    assert subtitle(drawn) == ["no trials", "77.37 % not reached yet"]


def test_only_pruned_trials_draw_no_line() -> None:
    """A study without a complete trial has its points but no best so far."""
    drawn = figure([summary(1, "pruned", 0.4), summary(2, "pruned", 0.5)])
    assert [trace["name"] for trace in drawn["data"]] == ["pruned"]
    assert "no model yet" in drawn["layout"]["title"]["text"]


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


def test_a_long_name_leaves_room_for_the_result() -> None:
    """It is cut where the title would end beyond the page's edge."""
    title = figure([summary(1)], "x" * 29 + "yz")["layout"]["title"]["text"]
    assert title == f"<b>{'x' * 29}…</b>: best so far <b>70.00 %</b>, trial 1"


def long_study(trials: int) -> list[TrialSummary]:
    """A study with all states and few records, one trial a minute; the first has the article's recipe."""
    states = ("complete", "pruned", "diverged", "failed")
    made = [
        summary(n, states[n % 4], 0.5 + 0.2 * (n * 0.618 % 1) + n * 1e-5, minute=n + 1, note=states[n % 4])
        for n in range(1, trials)
    ]
    # It ends among others, and is no record.
    return [summary(0, accuracy=0.45, minute=1701.5, recipe=ARTICLE), *made]


@pytest.mark.parametrize("against", ["time", "trials"])
def test_all_trials_are_drawn_where_there_is_no_bound(against: Against) -> None:
    """Each with its recipe; the bound itself is within bounds."""
    for most_points in (None, 1000):
        drawn = figure(long_study(1000), against=against, most_points=most_points)
        assert sorted(places(drawn)) == list(range(1000))
        assert "drawn" not in subtitle(drawn)[1]
    assert all(
        "dropout" in text for trace in figure(long_study(1000))["data"] for text in trace.get("text", [])
    )


def test_a_bound_keeps_what_matters() -> None:
    """Records, the article's trial and the newest stay, and the subtitle says how many there are."""
    trials = long_study(5000)
    steps = best_so_far(trials)
    drawn = figure(trials, most_points=600)
    shown = places(drawn)

    assert len(shown) == 600
    assert {trial.number for trial in steps} | {0} | set(range(5000 - NEWEST, 5000)) <= set(shown)
    assert trace(drawn, "best so far")["x"][:-1] == [shown[trial.number][0] for trial in steps]
    assert trace(drawn, "article's recipe")["y"] == [45]
    assert subtitle(drawn)[1] == "77.37 % not reached yet · 600 of 5000 trials drawn"
    everything = places(figure(trials))
    assert all(everything[number] == place for number, place in shown.items())


def test_a_bound_thins_evenly_and_steadily() -> None:
    """No stretch of the study stays empty, and one more trial takes one other away at most."""
    before = set(places(figure(long_study(5000), most_points=600)))
    after = set(places(figure(long_study(5001), most_points=600)))

    for start in range(0, 5000, 100):
        assert 6 <= len(before & set(range(start, start + 100 - NEWEST))) <= 16
    # Of those that are no longer among the newest one goes as well.
    assert len(before - after) <= 2


def test_a_bound_holds_where_each_trial_is_a_record() -> None:
    """Then the steps are thinned too, but for the first and the last one."""
    trials = [summary(n, accuracy=0.5 + n * 1e-4, minute=n + 1) for n in range(3000)]
    drawn = figure(trials, most_points=600)
    best = trace(drawn, "best so far")
    assert len(places(drawn)) == 600
    assert len(best["y"]) == 301
    assert (best["y"][0], best["y"][-1]) == (50, 79.99)
    with pytest.raises(ValueError, match="most_points is 99; give 100 or more, or None"):
        figure(trials, most_points=99)


def test_short_hover_texts_beyond_some_points() -> None:
    """A figure with a bound tells only optimizer and learning rate of its trials where they are many."""
    few, many = (figure(long_study(n), most_points=600) for n in (DETAIL_LIMIT, DETAIL_LIMIT + 1))
    assert all("dropout" in text for trace in few["data"] for text in trace.get("text", []))
    assert trace(many, "pruned")["text"][0] == "1<br>adam lr 0.0012"


@pytest.mark.parametrize("against", ["time", "trials"])
@pytest.mark.parametrize("trials", [0, 1, 12, 700])
def test_plotly_knows_all_that_is_in_it(trials: int, against: Against) -> None:
    """Its own check refuses properties and values that it would not draw; nothing brings a template."""
    study = [*long_study(trials), summary(trials, accuracy=0.775)] if trials else []
    drawn = figure(study, against=against, most_points=600)
    assert Figure(drawn).to_plotly_json()["data"] == drawn["data"]
    assert "template" not in drawn["layout"]


def test_the_page_is_self_contained() -> None:
    """The page brings plotly along and has an escaped title."""
    page = progress_page([summary(1)], "a<b")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "<title>a&lt;b: progress</title>" in page
    assert "Plotly.newPlot" in page and '<script src="http' not in page


def test_the_page_has_buttons_for_its_axis() -> None:
    """Each moves every trace to its places on one of the axes, and names it."""
    trials = [summary(0, accuracy=0.78), summary(1, "pruned", minute=20)]
    page = progress_page(trials, "cifar10", 0.9)
    start = page.rindex('"updatemenus":') + len('"updatemenus":')
    [menu] = json.JSONDecoder().raw_decode(page, start)[0]
    for button, against in zip(menu["buttons"], ("time", "trials"), strict=True):
        drawn = figure(trials, against=against, target=0.9)
        moved, named = button["args"]
        assert button["method"] == "update" and button["label"] == against
        assert moved == {"x": [trace["x"] for trace in drawn["data"]]}
        assert named["annotations"] == drawn["layout"]["annotations"]
        assert named["xaxis.title.text"] == drawn["layout"]["xaxis"]["title"]["text"]
    assert "updatemenus" not in figure(trials)["layout"]
