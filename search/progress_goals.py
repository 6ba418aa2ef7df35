"""What is to be reached in the progress plot: the target's line, and when each goal was first reached."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from search.milestone import Milestone, describe_duration, percent_text
from search.progress_axes import Axis, shorten

BEST_COLOUR: Final = "#2563eb"
TARGET_COLOUR: Final = "#059669"
FAR_RIGHT: Final = 0.75
"""Beyond this part of the x axis, a goal's time stands to the left of its line."""


@dataclass(frozen=True)
class Mark:
    """That a trial was the first to reach a goal, or both.

    Attributes:
        name: What it reached, "77.37 %".
        number: The trial's.
        text: When that was.
        colour: Of all that is drawn for it.
        lift: How many pixels over the x axis the text stands: over the note in the plot's corner, each of two
            for itself.
    """

    name: str
    number: int
    text: str
    colour: str
    lift: int


def find_marks(goals: Sequence[Milestone]) -> list[Mark]:
    """The marks of the goals: of the article's result, and of the target where that is another one."""
    marks: list[Mark] = []
    for goal, colour, lift in zip(goals, (BEST_COLOUR, TARGET_COLOUR), (24, 42), strict=False):
        if goal.trial is None or goal.seconds is None:
            continue
        name = percent_text(goal.value)
        if marks and marks[0].number == goal.trial:
            return [replace(marks[0], name=f"{marks[0].name} and {name}")]
        marks.append(Mark(name, goal.trial, f"after {describe_duration(goal.seconds)}", colour, lift))
    return marks


def goal_lines(goals: Sequence[Milestone]) -> list[str]:
    """When each was first reached, for the subtitle."""
    return [f"{which}{_describe(goal)}" for which, goal in zip(("", "target "), goals, strict=False)]


def target_lines(goals: Sequence[Milestone]) -> list[dict[str, Any]]:
    """The target's line, where there is a target."""
    return [level_line(_percent(goal), TARGET_COLOUR, "dash", 1.5) for goal in goals[1:]]


def level_line(percent: float, colour: str, dash: str, width: float) -> dict[str, Any]:
    """A line at that height over the whole width, behind the points."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": percent,
        "y1": percent,
        "line": {"color": colour, "width": width, "dash": dash},
        "layer": "below",
    }


def goal_labels(goals: Sequence[Milestone], axis: Axis) -> list[dict[str, Any]]:
    """The target's name over its line, and beside the line of each mark when that was.

    The name is in the corner where few trials are: beside the plot the article's labels are.
    """
    names = [
        _label(f"target: {percent_text(goal.value)}", TARGET_COLOUR, xref="paper", x=0.006, y=_percent(goal))
        for goal in goals[1:]
    ]
    return [*names, *(_time_label(mark, axis) for mark in find_marks(goals))]


def draw_mark(mark: Mark, axis: Axis, percent: float, low: float) -> dict[str, Any]:
    """A ring around the trial, which is drawn at `percent`, and a line down to the x axis at `low`."""
    place = axis.places[mark.number]
    return trace(
        f"first at {mark.name}",
        "lines+markers",
        [place, place],
        [percent, low],
        line={"color": mark.colour, "width": 1.5, "dash": "dot"},
        # Without an opacity plotly makes points whose sizes are a list translucent.
        marker={
            "symbol": "circle-open",
            "size": [18, 0],
            "opacity": 1,
            "color": mark.colour,
            "line": {"width": 2, "color": mark.colour},
        },
        hoverinfo="skip",
    )


def trace(name: str, mode: str, x: list[float], y: list[float], **look: Any) -> dict[str, Any]:
    """A trace of the plot."""
    # By its uid a trace is known again in a later figure: hidden in the legend, it stays hidden.
    return {"type": "scatter", "mode": mode, "name": name, "uid": name, "x": x, "y": y, **look}


def _time_label(mark: Mark, axis: Axis) -> dict[str, Any]:
    place = axis.places[mark.number]
    beside = {"xanchor": "right", "xshift": -4} if place > FAR_RIGHT * axis.end else {"xshift": 4}
    return _label(mark.text, mark.colour, x=place, yref="paper", y=0, yshift=mark.lift, **beside)


def _label(text: str, colour: str, **place: Any) -> dict[str, Any]:
    """A text that can be read over points."""
    look = {"showarrow": False, "font": {"color": colour, "size": 11}, "bgcolor": "rgba(255,255,255,0.85)"}
    return {"text": text, "xanchor": "left", "yanchor": "bottom", **look, **place}


def _describe(goal: Milestone) -> str:
    if goal.trial is None or goal.seconds is None:
        return f"{percent_text(goal.value)} not reached yet"
    after = describe_duration(goal.seconds)
    return f"{percent_text(goal.value)} first reached after {after}, by trial {goal.trial}"


def _percent(goal: Milestone) -> float:
    return shorten(100 * goal.value, 4)
