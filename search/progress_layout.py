"""The frame of the progress plot: axes, title, band and notes."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from search.report import BAND_PERCENT, is_articles_recipe
from search.summary import STATES, TrialSummary, best_trial
from trainer.article import BAND

ARTICLE_COLOUR: Final = "#ea580c"
INK: Final = "#1e293b"
FAINT_INK: Final = "#64748b"
GRID: Final = "#eef2f6"
FONT: Final = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

VIEW_POINTS: Final = 30.0
"""The axis reaches this many percentage points below the best: failures at 10 % must not squash the rest."""


@dataclass(frozen=True)
class Clock:
    """The x axis: time since `start`, in `unit`s of `unit_seconds`."""

    start: datetime
    unit: str
    unit_seconds: float

    def at(self, moment: datetime) -> float:
        """Where `moment` stands on the axis."""
        return round((moment - self.start).total_seconds() / self.unit_seconds, 4)


@dataclass(frozen=True)
class Point:
    """A trial where it is drawn; `percent` is its value, or what it reported last."""

    trial: TrialSummary
    ended: datetime
    percent: float


def build_layout(
    trials: Sequence[TrialSummary], points: Sequence[Point], clock: Clock | None, study_name: str
) -> dict[str, Any]:
    """Plotly's layout for these trials, of which `points` are drawn; without a template."""
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


def _percent_range(points: Sequence[Point]) -> tuple[float, float]:
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


def _annotations(points: Sequence[Point], low: float) -> list[dict[str, Any]]:
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
