"""When a study's validation accuracy first came to a value: the article's, or the study's target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from search.progress_axes import first_start, in_order_of_end, seconds_since
from search.summary import TrialSummary
from trainer.article import ARTICLE_RESULTS
from trainer.recipe import ARTICLE

BASELINE: Final = next(one.percent / 100 for one in ARTICLE_RESULTS if one.epochs == ARTICLE.epochs)
"""What the article reports after its 100 epochs, 0.7737; of the test images, which no search looks at."""


@dataclass(frozen=True)
class Milestone:
    """The first complete trial with a model whose value is `value` or more, and what was spent until its end.

    Where there is none yet: what was spent until the last end of any, or before the first one so far.

    Attributes:
        value: A validation accuracy in [0, 1].
        trial: The trial's number; None where there is none yet.
        seconds: From the first trial's beginning to that end, so far to the last end of any; breaks between
            two runs count. None before any trial has ended.
        epochs: Epochs trained until then, in all trials. One that ran at that moment counts with those that
            it had time for since its beginning, at the pace of all of its epochs and without a break; where
            its pace is not known, with all that it has reported. Epochs that were lost with a worker and
            trained again count once.
        trials: How many trials had ended, in whatever state, with this one.
    """

    value: float
    trial: int | None
    seconds: float | None
    epochs: int
    trials: int


def find_milestone(trials: Sequence[TrialSummary], value: float) -> Milestone:
    """When the study of these trials, given in any order, first came to `value`."""
    ended = in_order_of_end(trials)
    for count, trial in enumerate(ended, start=1):
        if trial.value is None or trial.ended is None or not trial.has_model:
            continue
        if value <= trial.value < math.inf:
            epochs = sum(_epochs_until(trial.ended, one) for one in trials)
            return Milestone(value, trial.number, seconds_since(first_start(trials), trial), epochs, count)
    if not ended or (last := ended[-1].ended) is None:
        return Milestone(value, None, None, sum(trial.epochs_done for trial in trials), 0)
    seconds = seconds_since(first_start(trials), ended[-1])
    return Milestone(value, None, seconds, sum(_epochs_until(last, trial) for trial in trials), len(ended))


def milestone_lines(trials: Sequence[TrialSummary], target: float | None) -> list[str]:
    """A line for the article's result, and one for the target where there is one."""
    lines = [_describe(find_milestone(trials, BASELINE), "matched", "the article's")]
    if target is not None:
        lines.append(_describe(find_milestone(trials, target), "reached", "the target of"))
    return lines


def milestones_json(trials: Sequence[TrialSummary], target: float | None) -> dict[str, Any]:
    """The same as JSON-ready values: `baseline` and `target`, the latter null where there is none.

    Each has its value, and trial, seconds, epochs and trials, which are null until it is reached.
    """
    return {
        "baseline": _to_json(find_milestone(trials, BASELINE)),
        "target": None if target is None else _to_json(find_milestone(trials, target)),
    }


def percent_text(value: float) -> str:
    """`77.37 %`: two decimals, and more only where `value` has more."""
    text = f"{100 * value:.2f}"
    return f"{text if math.isclose(float(text) / 100, value) else f'{100 * value:.10g}'} %"


def target_text(target: float) -> str:
    """What comes after "the study's" where a command tells the target of a study."""
    return f"target, a validation accuracy of {percent_text(target)}"


def describe_duration(seconds: float) -> str:
    """A time span, at least 0, in a few characters: `45 s`, `12 min`, `2 h 10 min`, `3 days 4 h`."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} days {hours % 24} h"


def _epochs_until(moment: datetime, trial: TrialSummary) -> int:
    """Epochs that `trial` had trained at that moment, as far as it tells."""
    if trial.ended is not None and trial.ended <= moment:
        return trial.epochs_done
    if trial.started is None or trial.started >= moment:
        return 0
    pace = (trial.seconds or 0.0) / max(trial.epochs_done, 1)
    # What other programs may have set as seconds can be any number.
    if not pace > 0:
        return trial.epochs_done
    return min(trial.epochs_done, int((moment - trial.started).total_seconds() / pace))


def _describe(milestone: Milestone, verb: str, whose: str) -> str:
    spent = _spent(milestone)
    goal = f"{whose} {percent_text(milestone.value)}"
    if milestone.trial is None:
        return f"validation accuracy has not {verb} {goal} yet{f', after {spent}' if spent else ''}"
    return f"validation accuracy {verb} {goal} after {spent}, by trial {milestone.trial}"


def _spent(milestone: Milestone) -> str:
    """`31 min, 214 epochs and 23 trials`, as far as there is something to tell."""
    parts = [
        f"{number} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((milestone.epochs, "epoch"), (milestone.trials, "trial"))
        if number
    ]
    if milestone.seconds is not None:
        parts.insert(0, describe_duration(milestone.seconds))
    return " and ".join([", ".join(parts[:-1]), *parts[-1:]] if len(parts) > 1 else parts)


def _to_json(milestone: Milestone) -> dict[str, Any]:
    is_reached = milestone.trial is not None
    return {
        "value": milestone.value,
        "trial": milestone.trial,
        "seconds": milestone.seconds if is_reached else None,
        "epochs": milestone.epochs if is_reached else None,
        "trials": milestone.trials if is_reached else None,
    }
