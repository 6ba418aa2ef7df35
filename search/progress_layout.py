"""The frame of the progress plot: axes, title, the article's results and notes."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from search.milestone import Milestone
from search.progress_axes import Axis, shorten
from search.progress_goals import goal_labels, goal_lines, level_line, target_lines
from search.report import BAND_PERCENT, is_articles_recipe
from search.summary import STATES, TrialSummary, best_trial
from trainer.article import ARTICLE_RESULTS, BAND

ARTICLE_COLOUR: Final = "#ea580c"
INK: Final = "#1e293b"
FAINT_INK: Final = "#64748b"
GRID: Final = "#eef2f6"
FONT: Final = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

LABEL_STEP: Final = 14
"""Between the labels of the article's results, in pixels; the results themselves lie closer."""
VIEW_POINTS: Final = 30.0
"""The axis reaches this many percentage points below the best: failures at 10 % must not squash the rest."""
NAME_LENGTH: Final = 30
"""Longest study name in the title, in characters: the result behind it has to be seen too."""


@dataclass(frozen=True)
class Point:
    """A trial that ended; `percent` is its value, or what it reported last."""

    trial: TrialSummary
    ended: datetime
    percent: float

    @property
    def y(self) -> float:
        """`percent`, in as few characters as JSON can say it."""
        return shorten(self.percent, 2)


@dataclass(frozen=True)
class Frame:
    """What there is to draw.

    Attributes:
        study_name: For the title.
        axis: The x axis.
        points: All trials that ended with a result.
        drawn: How many of them are drawn.
        goals: The article's result, and the target where there is another one.
    """

    study_name: str
    axis: Axis
    points: Sequence[Point]
    drawn: int
    goals: Sequence[Milestone]


def build_layout(trials: Sequence[TrialSummary], frame: Frame) -> dict[str, Any]:
    """Plotly's layout for these trials, without a template."""
    low, high = _percent_range(frame)
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": "#cbd5e1", "ticks": "", "automargin": True}
    return {
        "title": _title(trials, frame),
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "margin": {"l": 62, "r": 116, "t": 72 + 24 * len(frame.goals), "b": 96},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "#ffffff",
            "bordercolor": "#cbd5e1",
            "align": "left",
            "font": {"color": INK},
        },
        # The dashboard draws the figure again every few seconds: what a user zoomed into or hid stays so.
        "uirevision": "progress",
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0.01,
            "xref": "container",
            "xanchor": "left",
            "y": 0.01,
            "yref": "container",
            "yanchor": "bottom",
            "traceorder": "reversed",
            "font": {"size": 11},
        },
        "modebar": {"remove": ["select2d", "lasso2d", "sendChartToCloud"], "color": "#cbd5e1"},
        "xaxis": {
            **axis,
            "title": _axis_title(frame.axis.title),
            "rangemode": "tozero",
            "showline": True,
            **({} if frame.axis.dtick is None else {"dtick": frame.axis.dtick}),
            **({} if frame.points else {"range": [0, 1], "showticklabels": False}),
        },
        "yaxis": {
            **axis,
            "title": _axis_title("validation accuracy"),
            "range": [low, high],
            "ticksuffix": " %",
        },
        "shapes": [
            _band(),
            *(level_line(one.percent, ARTICLE_COLOUR, "dot", 1) for one in ARTICLE_RESULTS),
            *target_lines(frame.goals),
        ],
        "annotations": _annotations(frame, low),
    }


def _axis_title(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 13, "color": FAINT_INK}, "standoff": 10}


def _title(trials: Sequence[TrialSummary], frame: Frame) -> dict[str, Any]:
    best = best_trial(list(trials))
    name = frame.study_name
    name = html.escape(name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…")
    if best is not None and best.value is not None:
        text = f"<b>{name}</b>: best so far <b>{100 * best.value:.2f} %</b>, trial {best.number}"
    else:
        text = f"<b>{name}</b>: no model yet"
    return {
        "text": text,
        "font": {"size": 19},
        "subtitle": {
            "text": "<br>".join([_count_states(trials), *_milestones(frame)]),
            "font": {"size": 12, "color": FAINT_INK},
        },
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
    }


def _count_states(trials: Sequence[TrialSummary]) -> str:
    counts = {state: sum(trial.state == state for trial in trials) for state in STATES}
    return " · ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trials"


def _milestones(frame: Frame) -> list[str]:
    """When the goals were first reached; and how many trials are drawn, if not all."""
    lines = goal_lines(frame.goals)
    if frame.drawn < len(frame.points):
        lines[0] += f" · {frame.drawn} of {len(frame.points)} trials drawn"
    return lines


def _percent_range(frame: Frame) -> tuple[float, float]:
    """The y axis as first shown: what is to be reached, the best, and what lies within `VIEW_POINTS` below.

    A double click on the plot shows everything.
    """
    points, goals = frame.points, [ARTICLE_RESULTS[0].percent, *(100 * goal.value for goal in frame.goals)]
    top = max([*goals, *(point.percent for point in points)])
    # Measured from the best complete trial: one that diverged may have been high before.
    complete = [point.percent for point in points if point.trial.state == "complete"]
    best = max(complete or [point.percent for point in points], default=100 * BAND[0])
    shown = [point.percent for point in points if point.percent >= best - VIEW_POINTS]
    shown += [point.percent for point in points if is_articles_recipe(point.trial)]
    bottom = min([100 * BAND[0] - 10, *goals, *shown])
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


def _annotations(frame: Frame, low: float) -> list[dict[str, Any]]:
    points, notes = frame.points, [*_article_labels(), *goal_labels(frame.goals, frame.axis)]
    below = [point.percent for point in points if point.percent < low]
    if below:
        notes.append(_corner_note(_lower_text(below)))
    if not points:
        notes.append(_empty_note())
    return notes


def _article_labels() -> list[dict[str, Any]]:
    """Beside the plot, where no trial is in their way: a label for each result's line, and whose they are."""
    middle = len(ARTICLE_RESULTS) // 2
    # They keep to the order of their lines, a line of text apart.
    labels = [
        _side_label(
            f"{one.epochs} ep.: {one.percent:.2f} %", one.percent, "middle", LABEL_STEP * (middle - at)
        )
        for at, one in enumerate(ARTICLE_RESULTS)
    ]
    below = -LABEL_STEP * (middle + 1)
    return [
        *labels,
        _side_label(f"article: {BAND_PERCENT}<br>(test set)", ARTICLE_RESULTS[-1].percent, "top", below),
    ]


def _side_label(text: str, percent: float, anchor: str, shift: int) -> dict[str, Any]:
    return {
        "text": text,
        "xref": "paper",
        "x": 1,
        "y": percent,
        "xanchor": "left",
        "yanchor": anchor,
        "xshift": 4,
        "yshift": shift,
        "align": "left",
        "showarrow": False,
        "font": {"color": ARTICLE_COLOUR, "size": 11},
    }


def _lower_text(below: Sequence[float]) -> str:
    if len(below) == 1:
        return f"▾ 1 trial below, at {below[0]:.1f} %: double-click"
    return f"▾ {len(below)} trials below, down to {min(below):.1f} %: double-click"


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
