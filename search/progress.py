"""The progress plot: every trial, the best so far, and what the article reached."""

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from search.milestone import BASELINE, find_milestone
from search.progress_axes import Against, Axis, time_axis, trials_axis
from search.progress_goals import BEST_COLOUR, draw_mark, find_marks, trace
from search.progress_layout import ARTICLE_COLOUR, Frame, Point, build_layout
from search.recipe_words import describe_beyond, describe_dropouts, describe_optimizer
from search.report import is_articles_recipe
from search.summary import TrialSummary

RIM: Final = {"width": 1, "color": "#ffffff"}
CROWD: Final = 500
"""More points than this are drawn as small ones."""
CROWD_SIZE: Final = 5
"""Diameter in pixels of one of more than `CROWD` points."""
DETAIL_LIMIT: Final = 200
"""In a figure with a bound, more points than this have short hover texts: 25 bytes each instead of 70."""
NEWEST: Final = 25
"""So many of the last trials are drawn whatever the bound."""
GOLDEN_RATIO: Final = (math.sqrt(5) - 1) / 2
NOTE_LENGTH: Final = 60
"""Longest note on hover, in characters."""
HOVER_WIDTH: Final = 60
"""Longest line of what goes beyond the article on hover, in characters."""


@dataclass(frozen=True)
class _Marker:
    symbol: str
    colour: str
    size: int


MARKERS: Final = {
    "pruned": _Marker("x-thin", "#94a3b8", 7),
    "diverged": _Marker("triangle-down", "#e11d48", 8),
    "failed": _Marker("square", "#a855f7", 7),
    "complete": _Marker("circle", "#60a5fa", 9),
}
"""How a state's trials are drawn, later states over earlier; running ones have no place to stand at."""


def draw_progress(
    trials: Sequence[TrialSummary],
    study_name: str,
    against: Against = "time",
    most_points: int | None = None,
    target: float | None = None,
) -> dict[str, Any]:
    """The study's progress as plotly's JSON-ready `data` and `layout`, without a template.

    A trial is drawn where it ended, at its value, or at what it reported last. Trials that run, or that ended
    before they reported anything, have no place in the plot and are counted in its subtitle.

    It needs no plotly, which a worker would have to import first.

    Args:
        trials: In any order.
        study_name: For the title.
        against: What the x axis is: time since the first trial began, or how many trials had ended.
        most_points: Draw this many trials at most, at least `4 * NEWEST`: those that were the best when they
            ended, the article's, the newest, and others evenly from between. None draws all.
        target: The validation accuracy at which the study stops; None for none.

    Raises:
        ValueError: `most_points` is too low.
    """
    if most_points is not None and most_points < 4 * NEWEST:
        raise ValueError(f"most_points is {most_points}; give {4 * NEWEST} or more, or None for all")
    axis = time_axis(trials) if against == "time" else trials_axis(trials)
    points, steps = _points(trials), best_so_far(trials)
    goals = [find_milestone(trials, value) for value in dict.fromkeys((BASELINE, target or BASELINE))]
    drawn = points
    if most_points is not None and len(points) > most_points:
        steps = _evenly(steps, most_points // 2)
        drawn = _thin(points, steps, most_points)
    frame = Frame(study_name, axis, points, len(drawn), goals)
    layout = build_layout(trials, frame)
    is_short = most_points is not None and len(drawn) > DETAIL_LIMIT
    return {"data": _traces(drawn, steps, frame, layout["yaxis"]["range"][0], is_short), "layout": layout}


def progress_page(trials: Sequence[TrialSummary], study_name: str, target: float | None = None) -> str:
    """The progress plot as one self-contained HTML page of about 5 MB, with buttons for its two x axes."""
    from plotly.graph_objects import Figure  # type: ignore[import-untyped]  # plotly ships no types

    drawn = draw_progress(trials, study_name, target=target)
    # Kept out of the dashboard's figures: it draws them anew every few seconds, as they were published.
    drawn["layout"]["updatemenus"] = [
        _menu(drawn, draw_progress(trials, study_name, "trials", target=target))
    ]
    figure = Figure(drawn)
    figure.layout.template = None
    plot = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="progress",
        config={"responsive": True, "displaylogo": False},
    )
    return _PAGE.format(title=html.escape(f"{study_name}: progress"), plot=plot)


def best_so_far(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """The complete trials with a model that were better than all before when they ended, in that order."""
    ended = [trial for trial in trials if trial.value is not None and trial.has_model and trial.ended]
    ended.sort(key=lambda trial: (trial.ended or datetime.max, trial.number))
    steps: list[TrialSummary] = []
    for trial in ended:
        if not steps or (trial.value or 0.0) > (steps[-1].value or 0.0):
            steps.append(trial)
    return steps


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
html, body {{ height: 100%; margin: 0; background: #fff; }}
body > div {{ height: 100%; min-height: 360px; }}
</style>
</head>
<body>
{plot}
</body>
</html>
"""


def _menu(*figures: dict[str, Any]) -> dict[str, Any]:
    """Buttons that show the traces, which are the same otherwise, at each figure's places."""
    buttons = []
    for label, figure in zip(("time", "trials"), figures, strict=True):
        axis = figure["layout"]["xaxis"]
        changes = {
            "xaxis.title.text": axis["title"]["text"],
            "xaxis.dtick": axis.get("dtick"),
            "annotations": figure["layout"]["annotations"],
            **({"xaxis.autorange": True} if figure["data"] else {}),
        }
        places = {"x": [one["x"] for one in figure["data"]]}
        buttons.append({"label": label, "method": "update", "args": [places, changes]})
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "active": 0,
        "x": 1,
        "xanchor": "center",
        "y": 0,
        "yanchor": "top",
        "pad": {"t": 26},
        "font": {"size": 12},
        "bgcolor": "#ffffff",
        "bordercolor": "#cbd5e1",
    }


def _points(trials: Sequence[TrialSummary]) -> list[Point]:
    """The trials that ended and have a finite accuracy, in order of their end."""
    points = []
    for trial in trials:
        accuracy = trial.last_value if trial.value is None else trial.value
        if trial.ended is not None and accuracy is not None and math.isfinite(accuracy):
            points.append(Point(trial, trial.ended, round(100 * accuracy, 2)))
    points.sort(key=lambda point: (point.ended, point.trial.number))
    return points


def _thin(points: Sequence[Point], steps: Sequence[TrialSummary], most: int) -> list[Point]:
    """That many of the points: the steps, the article's, the newest, and others evenly from between."""
    wanted = {trial.number for trial in steps} | {point.trial.number for point in points[-NEWEST:]}
    kept = {
        at
        for at, point in enumerate(points)
        if point.trial.number in wanted or is_articles_recipe(point.trial)
    }
    others = (at for at in range(len(points)) if at not in kept)
    # Multiples of the golden ratio, modulo 1, spread evenly, and so do the places whose multiples are the
    # smallest. Of every n-th place, each new trial would move all.
    others_drawn = sorted(others, key=lambda at: at * GOLDEN_RATIO % 1)[: most - len(kept)]
    return [points[at] for at in sorted([*kept, *others_drawn])]


def _evenly(steps: Sequence[TrialSummary], most: int) -> list[TrialSummary]:
    """At most `most` of the steps, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(at * (len(steps) - 1) / (most - 1))] for at in range(most)]


def _traces(
    points: Sequence[Point],
    steps: Sequence[TrialSummary],
    frame: Frame,
    low: float,
    is_short: bool,
) -> list[dict[str, Any]]:
    axis = frame.axis
    by_state = ((state, [point for point in points if point.trial.state == state]) for state in MARKERS)
    is_crowd = len(points) > CROWD
    traces = [
        _state_trace(state, members, axis, is_crowd=is_crowd, is_short=is_short)
        for state, members in by_state
        if members
    ]
    if steps:
        traces.append(_best_trace(steps, axis))
    traces += [_article_trace(point, axis) for point in points if is_articles_recipe(point.trial)]
    heights = {point.trial.number: point.y for point in frame.points}
    return [*traces, *(draw_mark(mark, axis, heights[mark.number], low) for mark in find_marks(frame.goals))]


def _state_trace(
    state: str, points: Sequence[Point], axis: Axis, *, is_crowd: bool, is_short: bool
) -> dict[str, Any]:
    marker = MARKERS[state]
    return trace(
        state,
        "markers",
        [axis.places[point.trial.number] for point in points],
        [point.y for point in points],
        text=[_hover(point.trial, is_short) for point in points],
        hovertemplate="<b>%{y:.2f} %</b>  trial %{text}<extra></extra>",
        marker={
            "symbol": marker.symbol,
            "size": CROWD_SIZE if is_crowd else marker.size,
            "color": marker.colour,
            # A thin symbol is nothing but its outline; the others get a rim, to be told apart in a crowd.
            "line": {"width": 1.5, "color": marker.colour} if "thin" in marker.symbol else RIM,
        },
    )


def _hover(trial: TrialSummary, is_short: bool) -> str:
    """What a point says besides its value, in plotly's HTML."""
    lines = [str(trial.number)]
    if trial.recipe is not None and is_short:
        lines.append(describe_optimizer(trial.recipe))
    elif trial.recipe is not None:
        lines.append(f"{describe_optimizer(trial.recipe)}, {trial.recipe.epochs} epochs")
        lines.append(f"dropout {describe_dropouts(trial.recipe)}")
        lines += textwrap.wrap(describe_beyond(trial.recipe), HOVER_WIDTH)
    if trial.note and not is_short:
        short = trial.note if len(trial.note) <= NOTE_LENGTH else trial.note[: NOTE_LENGTH - 1] + "…"
        lines.append(html.escape(short))
    return "<br>".join(lines)


def _best_trace(steps: Sequence[TrialSummary], axis: Axis) -> dict[str, Any]:
    """The step line through `steps`, drawn on to the last end of any trial."""
    values = [round(100 * trial.value, 2) for trial in steps if trial.value is not None]
    return trace(
        "best so far",
        "lines+markers",
        [*(axis.places[trial.number] for trial in steps), axis.end],
        [*values, values[-1]],
        line={"shape": "hv", "color": BEST_COLOUR, "width": 2.5},
        # The records stand out; the last point only draws the line on. Without an opacity plotly makes
        # points whose sizes are a list translucent.
        marker={"size": [*(10 for _ in steps), 0], "opacity": 1, "color": BEST_COLOUR, "line": RIM},
        hoverinfo="skip",
    )


def _article_trace(point: Point, axis: Axis) -> dict[str, Any]:
    """A star over the article's own trial, whose hover text is the point's below."""
    return trace(
        "article's recipe",
        "markers",
        [axis.places[point.trial.number]],
        [point.y],
        marker={"symbol": "star", "size": 17, "color": ARTICLE_COLOUR, "line": RIM},
        hoverinfo="skip",
    )
