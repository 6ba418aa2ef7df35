"""The progress plot: every trial, the best so far, and the article's band to reach."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from search.report import BAND_PERCENT, describe_dropouts, describe_optimizer, is_articles_recipe
from search.summary import STATES, TrialSummary, best_trial
from trainer.article import BAND

if TYPE_CHECKING:
    from plotly.graph_objects import Figure  # type: ignore[import-untyped]  # plotly ships no types

BEST_COLOUR: Final = "#2563eb"
ARTICLE_COLOUR: Final = "#ea580c"
INK: Final = "#1e293b"
FAINT_INK: Final = "#64748b"
RIM: Final = {"width": 1, "color": "#ffffff"}
GRID: Final = "#eef2f6"
FONT: Final = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

DETAIL_LIMIT: Final = 500
"""Above this many points a hover text is the trial's number alone, and the points are smaller.

The dashboard sends the figure at each poll: a point then costs about 20 bytes instead of 100.
"""
CROWD_SIZE: Final = 5
"""Diameter in pixels of one of more than `DETAIL_LIMIT` points."""
NOTE_LENGTH: Final = 60
"""Longest note on hover, in characters."""
VIEW_POINTS: Final = 30.0
"""The axis reaches this many percentage points below the best: failures at 10 % must not squash the rest."""
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


@dataclass(frozen=True)
class _Clock:
    """The x axis: time since `start`, in `unit`s of `unit_seconds`."""

    start: datetime
    unit: str
    unit_seconds: float

    def at(self, moment: datetime) -> float:
        return round((moment - self.start).total_seconds() / self.unit_seconds, 4)


@dataclass(frozen=True)
class _Point:
    """A trial where it is drawn; `percent` is its value, or what it reported last."""

    trial: TrialSummary
    ended: datetime
    percent: float


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
    figure = Figure(data=traces, layout=_layout(trials, points, clock, study_name))
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


def _points(trials: Sequence[TrialSummary]) -> list[_Point]:
    """The trials that ended and have a finite accuracy."""
    points = []
    for trial in trials:
        accuracy = trial.last_value if trial.value is None else trial.value
        if trial.ended is not None and accuracy is not None and math.isfinite(accuracy):
            points.append(_Point(trial, trial.ended, round(100 * accuracy, 2)))
    return points


def _clock(trials: Sequence[TrialSummary]) -> _Clock | None:
    """The axis from the first start to the last end; None before any trial ended."""
    ends = [trial.ended for trial in trials if trial.ended is not None]
    if not ends:
        return None
    start = min([*(trial.started for trial in trials if trial.started is not None), min(ends)])
    minutes = (max(ends) - start).total_seconds() / 60
    return _Clock(start, "hours", 3600.0) if minutes > HOURS_FROM else _Clock(start, "minutes", 60.0)


def _traces(trials: Sequence[TrialSummary], points: Sequence[_Point], clock: _Clock) -> list[dict[str, Any]]:
    by_state = ((state, [point for point in points if point.trial.state == state]) for state in MARKERS)
    detailed = len(points) <= DETAIL_LIMIT
    states = [_state_trace(state, members, clock, detailed) for state, members in by_state if members]
    steps = best_so_far(trials)
    best = [_best_trace(steps, max(point.ended for point in points), clock)] if steps else []
    article = [_article_trace(point, clock) for point in points if is_articles_recipe(point.trial)]
    return [*states, *best, *article]


def _state_trace(state: str, points: Sequence[_Point], clock: _Clock, detailed: bool) -> dict[str, Any]:
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


def _best_trace(steps: Sequence[TrialSummary], last_end: datetime, clock: _Clock) -> dict[str, Any]:
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


def _article_trace(point: _Point, clock: _Clock) -> dict[str, Any]:
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


def _layout(
    trials: Sequence[TrialSummary], points: Sequence[_Point], clock: _Clock | None, study_name: str
) -> dict[str, Any]:
    low, high = _percent_range(points)
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": "#cbd5e1", "ticks": "", "automargin": True}
    unit = "minutes" if clock is None else clock.unit
    return {
        "title": _title(trials, study_name),
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "margin": {"l": 70, "r": 28, "t": 84, "b": 90},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "#ffffff",
            "bordercolor": "#cbd5e1",
            "align": "left",
            "font": {"color": INK},
        },
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 0.01,
            "yref": "container",
            "yanchor": "bottom",
            "traceorder": "reversed",
        },
        "modebar": {"remove": ["select2d", "lasso2d", "sendChartToCloud"], "color": "#cbd5e1"},
        "xaxis": {
            **axis,
            "title": _axis_title(f"{unit} since the first trial began"),
            "rangemode": "tozero",
            "showline": True,
            **({} if points else {"range": [0, 1], "showticklabels": False}),
        },
        "yaxis": {
            **axis,
            "title": _axis_title("validation accuracy"),
            "range": [low, high],
            "ticksuffix": " %",
        },
        "shapes": [_band()],
        "annotations": _annotations(points, low),
    }


def _axis_title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13, "color": FAINT_INK}, "standoff": 10}


def _title(trials: Sequence[TrialSummary], study_name: str) -> dict[str, Any]:
    best = best_trial(list(trials))
    name = html.escape(study_name)
    if best is not None and best.value is not None:
        text = f"<b>{name}</b>: best so far <b>{100 * best.value:.2f} %</b>, trial {best.number}"
    else:
        text = f"<b>{name}</b>: no complete trial yet"
    counts = {state: sum(trial.state == state for trial in trials) for state in STATES}
    said = " · ".join(f"{count} {state}" for state, count in counts.items() if count)
    return {
        "text": text,
        "font": {"size": 19},
        "subtitle": {"text": said or "no trials", "font": {"size": 13, "color": FAINT_INK}},
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
    }


def _percent_range(points: Sequence[_Point]) -> tuple[float, float]:
    """The y axis as first shown: the band, the best, the yardstick, and what lies within `VIEW_POINTS` below.

    A double click on the plot shows everything.
    """
    top = max([100 * BAND[1], *(point.percent for point in points)])
    # Measured from the best complete trial: one that diverged may have been high before.
    complete = [point.percent for point in points if point.trial.state == "complete"]
    best = max(complete or [point.percent for point in points], default=100 * BAND[0])
    shown = [point.percent for point in points if point.percent >= best - VIEW_POINTS]
    shown += [point.percent for point in points if is_articles_recipe(point.trial)]
    bottom = min([100 * BAND[0] - 10, *shown])
    room = 0.06 * (top - bottom)
    return round(max(bottom - room, 0.0), 1), round(min(top + 1.5 * room, 100.0), 1)


def _band() -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": round(100 * BAND[0], 2),
        "y1": round(100 * BAND[1], 2),
        "fillcolor": ARTICLE_COLOUR,
        "opacity": 0.16,
        "line": {"width": 0},
        "layer": "below",
    }


def _annotations(points: Sequence[_Point], low: float) -> list[dict[str, Any]]:
    notes = [
        {
            "text": f"the article: {BAND_PERCENT} (test set)",
            "xref": "paper",
            "x": 0.006,
            "y": round(100 * BAND[1], 2),
            "xanchor": "left",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"color": ARTICLE_COLOUR, "size": 12},
        }
    ]
    below = [point.percent for point in points if point.percent < low]
    if below:
        notes.append(_corner_note(_lower_text(below)))
    if not points:
        notes.append(_empty_note())
    return notes


def _lower_text(below: Sequence[float]) -> str:
    if len(below) == 1:
        return f"▾ 1 trial lies below, at {below[0]:.1f} %: double-click to see it"
    return f"▾ {len(below)} trials lie below, down to {min(below):.1f} %: double-click to see them"


def _corner_note(text: str) -> dict[str, Any]:
    return {
        "text": text,
        "xref": "paper",
        "yref": "paper",
        "x": 0.994,
        "y": 0.01,
        "xanchor": "right",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"color": FAINT_INK, "size": 12},
        "bgcolor": "rgba(255,255,255,0.8)",
    }


def _empty_note() -> dict[str, Any]:
    return {
        "text": "No trial has ended with a result yet",
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.45,
        "showarrow": False,
        "font": {"color": FAINT_INK, "size": 17},
    }
