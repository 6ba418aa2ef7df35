"""The progress plot's two x axes: time, and how many trials have ended."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from search.summary import TrialSummary

Against = Literal["time", "trials"]
"""What the x axis of the progress plot is."""
HOURS_FROM: Final = 120.0
"""Studies longer than this many minutes are drawn in hours."""
FEW_TRIALS: Final = 10
"""Up to so many trials, each has a tick of its own."""


@dataclass(frozen=True)
class Axis:
    """An x axis.

    Attributes:
        title: What it shows, with the unit.
        places: Where each trial that ended stands, by its number.
        end: Where the last one stands.
        dtick: The distance of its ticks; None leaves it to plotly.
    """

    title: str
    places: Mapping[int, float]
    end: float
    dtick: int | None = None


def time_axis(trials: Sequence[TrialSummary]) -> Axis:
    """Time from the first start to each end, in minutes or hours, to a thousandth of the whole or better."""
    ended = in_order_of_end(trials)
    if not ended:
        return Axis("minutes since the first trial began", {}, 0)
    start = first_start(trials)
    seconds = {trial.number: seconds_since(start, trial) for trial in ended}
    longest = seconds[ended[-1].number]
    unit, unit_seconds = ("hours", 3600.0) if longest > 60 * HOURS_FROM else ("minutes", 60.0)
    # Four digits at the end of the axis, wherever its decimal point is.
    decimals = 3 - math.floor(math.log10(longest / unit_seconds)) if longest > 0 else 0
    places = {number: shorten(after / unit_seconds, decimals) for number, after in seconds.items()}
    return Axis(f"{unit} since the first trial began", places, places[ended[-1].number])


def trials_axis(trials: Sequence[TrialSummary]) -> Axis:
    """How many trials had ended, in whatever state, at each one's end; the first stands at 1.

    Not their numbers: a long trial with a low number says nothing about the best until it ends.
    """
    places = {trial.number: at for at, trial in enumerate(in_order_of_end(trials), start=1)}
    return Axis("trials that have ended", places, len(places), 1 if len(places) <= FEW_TRIALS else None)


def in_order_of_end(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """The trials that have ended, the first to end first."""
    ended = [trial for trial in trials if trial.ended is not None]
    return sorted(ended, key=lambda trial: (trial.ended or datetime.max, trial.number))


def first_start(trials: Sequence[TrialSummary]) -> datetime:
    """When the first trial began, as far as is known; at least one has ended."""
    ends = [trial.ended for trial in trials if trial.ended is not None]
    return min([*(trial.started for trial in trials if trial.started is not None), min(ends)])


def seconds_since(start: datetime, trial: TrialSummary) -> float:
    """From `start` to the end of `trial`, which has ended."""
    return ((trial.ended or start) - start).total_seconds()


def shorten(number: float, decimals: int) -> float:
    """`number` rounded; a whole one as int, which JSON writes without `.0`."""
    rounded = round(number, decimals)
    return int(rounded) if rounded == int(rounded) else rounded
