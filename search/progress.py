"""The progress plot: every trial, the best so far, and the article's band to reach."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from search.progress_layout import ARTICLE_COLOUR, Clock, Point, build_layout
from search.report import describe_dropouts, describe_optimizer, is_articles_recipe
from search.summary import TrialSummary

if TYPE_CHECKING:
    from plotly.graph_objects import Figure  # type: ignore[import-untyped]  # plotly ships no types

BEST_COLOUR: Final = "#2563eb"
RIM: Final = {"width": 1, "color": "#ffffff"}
DETAIL_LIMIT: Final = 500
"""Above this many points a hover text is the trial's number alone, and the points are smaller.

The dashboard sends the figure at each poll: a point then costs about 20 bytes instead of 100.
"""
CROWD_SIZE: Final = 5
"""Diameter in pixels of one of more than `DETAIL_LIMIT` points."""
NOTE_LENGTH: Final = 60
"""Longest note on hover, in characters."""
HOURS_FROM: Final = 120.0
"""Studies longer than this many minutes are drawn in hours."""


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
"""How a state's trials are drawn, later states over earlier; running ones have no time to stand at."""


def draw_progress(trials: Sequence[TrialSummary], study_name: str) -> "Figure":
    """The study's progress as one small figure, without a template.

    A trial is drawn where it ended, at its value, or at what it reported last. Trials that run, or that ended
    before they reported anything, have no place in the plot and are counted in its subtitle.

    Args:
        trials: In any order.
        study_name: For the title.
    """
    from plotly.graph_objects import Figure

    points = _points(trials)
    clock = _clock(trials)
    traces = [] if clock is None else _traces(trials, points, clock)
    figure = Figure(data=traces, layout=build_layout(trials, points, clock, study_name))
    figure.layout.template = None
    return figure


def progress_page(trials: Sequence[TrialSummary], study_name: str) -> str:
    """The progress plot as one self-contained HTML page of about 5 MB."""
    plot = draw_progress(trials, study_name).to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="progress",
        config={"responsive": True, "displaylogo": False},
    )
    return _PAGE.format(title=html.escape(f"{study_name}: progress"), plot=plot)


def best_so_far(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """The complete trials that, when they ended, were better than every one before, in order of their end."""
    ended = [trial for trial in trials if trial.value is not None and trial.ended is not None]
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


def _points(trials: Sequence[TrialSummary]) -> list[Point]:
    """The trials that ended and have a finite accuracy."""
    points = []
    for trial in trials:
        accuracy = trial.last_value if trial.value is None else trial.value
        if trial.ended is not None and accuracy is not None and math.isfinite(accuracy):
            points.append(Point(trial, trial.ended, round(100 * accuracy, 2)))
    return points


def _clock(trials: Sequence[TrialSummary]) -> Clock | None:
    """The axis from the first start to the last end; None before any trial ended."""
    ends = [trial.ended for trial in trials if trial.ended is not None]
    if not ends:
        return None
    start = min([*(trial.started for trial in trials if trial.started is not None), min(ends)])
    minutes = (max(ends) - start).total_seconds() / 60
    return Clock(start, "hours", 3600.0) if minutes > HOURS_FROM else Clock(start, "minutes", 60.0)


def _traces(trials: Sequence[TrialSummary], points: Sequence[Point], clock: Clock) -> list[dict[str, Any]]:
    by_state = ((state, [point for point in points if point.trial.state == state]) for state in MARKERS)
    detailed = len(points) <= DETAIL_LIMIT
    states = [_state_trace(state, members, clock, detailed) for state, members in by_state if members]
    steps = best_so_far(trials)
    best = [_best_trace(steps, max(point.ended for point in points), clock)] if steps else []
    article = [_article_trace(point, clock) for point in points if is_articles_recipe(point.trial)]
    return [*states, *best, *article]


def _state_trace(state: str, points: Sequence[Point], clock: Clock, detailed: bool) -> dict[str, Any]:
    marker = MARKERS[state]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": state,
        "x": [clock.at(point.ended) for point in points],
        "y": [point.percent for point in points],
        "text": [_hover(point.trial, detailed) for point in points],
        "hovertemplate": "<b>%{y:.2f} %</b>  trial %{text}<extra></extra>",
        "marker": {
            "symbol": marker.symbol,
            "size": marker.size if detailed else CROWD_SIZE,
            "color": marker.colour,
            # A thin symbol is nothing but its outline; the others get a rim, to be told apart in a crowd.
            "line": {"width": 1.5, "color": marker.colour} if "thin" in marker.symbol else RIM,
        },
    }


def _hover(trial: TrialSummary, detailed: bool) -> str:
    """What a point says besides its value, in plotly's HTML."""
    if not detailed:
        return str(trial.number)
    lines = [str(trial.number)]
    if trial.recipe is not None:
        lines.append(f"{describe_optimizer(trial.recipe)}, {trial.recipe.epochs} epochs")
        lines.append(f"dropout {describe_dropouts(trial.recipe)}")
    if trial.note:
        short = trial.note if len(trial.note) <= NOTE_LENGTH else trial.note[: NOTE_LENGTH - 1] + "…"
        lines.append(html.escape(short))
    return "<br>".join(lines)


def _best_trace(steps: Sequence[TrialSummary], last_end: datetime, clock: Clock) -> dict[str, Any]:
    """The step line through `steps`, drawn on to the last end of any trial."""
    times = [clock.at(trial.ended) for trial in steps if trial.ended is not None]
    values = [round(100 * trial.value, 2) for trial in steps if trial.value is not None]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "best so far",
        "x": [*times, clock.at(last_end)],
        "y": [*values, values[-1]],
        "line": {"shape": "hv", "color": BEST_COLOUR, "width": 2.5},
        # The records stand out; the last point only draws the line on. Without an opacity plotly makes
        # points whose sizes are a list translucent.
        "marker": {"size": [*(10 for _ in steps), 0], "opacity": 1, "color": BEST_COLOUR, "line": RIM},
        "hoverinfo": "skip",
    }


def _article_trace(point: Point, clock: Clock) -> dict[str, Any]:
    """A star over the article's own trial, whose hover text is the point's below."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "the article's recipe",
        "x": [clock.at(point.ended)],
        "y": [point.percent],
        "marker": {"symbol": "star", "size": 17, "color": ARTICLE_COLOUR, "line": RIM},
        "hoverinfo": "skip",
    }
