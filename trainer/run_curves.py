"""Learning curves of several runs of one recipe: each thin, their mean thick, with the epochs scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from trainer.drawing import (
    FAINT_INK,
    GRID_WIDTH,
    LINE_WIDTH,
    TRAINING,
    VALIDATION,
    begin_curves,
    cut_off,
    finish_curves,
    style_epochs,
)
from trainer.state import EpochResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEST: Final = "#b91c1c"
ARTICLE: Final = "#c2410c"
_THIN: Final = 0.5
_FADED: Final = 0.5
"""Opacity of a single run beside the mean."""
_OURS: Final = 5.0
_THEIRS: Final = 9.0
"""Larger than ours, and a ring, so that neither hides the other."""


@dataclass(frozen=True)
class ScoredEpoch:
    """What the runs came to on the test set at one epoch, and the article there.

    Attributes:
        epoch: Counted from 1.
        percent: Mean accuracy of the runs in percent.
        loss: Mean of their losses.
        article: The article's accuracy in percent and loss, None where it reports none.
    """

    epoch: int
    percent: float
    loss: float
    article: tuple[float, float] | None = None


def draw_runs(histories: Sequence[Sequence[EpochResult]], scored: Sequence[ScoredEpoch], title: str) -> bytes:
    """Accuracy and loss by epoch of all runs, of training and validation, with the scored epochs marked.

    The mean is that of all runs, and ends with the shortest of them. Numbers that are NaN or infinite leave a
    gap. A single run is its own mean.

    Args:
        histories: At least one, each of at least one epoch, from epoch 1.
        scored: The epochs to mark.
        title: One line; some 60 characters have room.

    Returns:
        A PNG of `trainer.drawing.CURVES_SIZE`; the same arguments give the same bytes.

    Raises:
        ValueError: There is no run, or one without an epoch.
    """
    if not histories or not all(histories):
        lengths = [len(run) for run in histories]
        raise ValueError(
            f"runs of {lengths} epochs have no curves; give at least one run, each of at least one epoch"
        )
    figure, upper, lower = begin_curves(title, key_rows=2)
    percent = _plot(upper, histories, lambda one: (100 * one.accuracy, 100 * one.validation_accuracy))
    losses = _plot(lower, histories, lambda one: (one.loss, one.validation_loss))
    percent += _mark(
        upper,
        [(one.epoch, one.percent, None if one.article is None else one.article[0]) for one in scored],
    )
    losses += _mark(
        lower, [(one.epoch, one.loss, None if one.article is None else one.article[1]) for one in scored]
    )
    return finish_curves(figure, upper, lower, percent, losses)


def _plot(
    axes: "Axes",
    histories: Sequence[Sequence[EpochResult]],
    pair: Callable[[EpochResult], tuple[float, float]],
) -> list[float]:
    """Draw training and validation of all runs and of their mean, and give the numbers that are drawn."""
    longest, shortest = max(map(len, histories)), min(map(len, histories))
    style_epochs(axes, 1, longest)
    runs: list[npt.NDArray[Any]] = [cut_off(np.array([pair(one) for one in run])) for run in histories]
    mean = np.mean([run[:shortest] for run in runs], axis=0)
    for column, (name, colour) in enumerate((("training", TRAINING), ("validation", VALIDATION))):
        for run in runs if len(runs) > 1 else []:
            axes.plot(_epochs(run), run[:, column], color=colour, linewidth=_THIN, alpha=_FADED)
        label = name if len(runs) == 1 else f"{name}, mean of {len(runs)}"
        (line,) = axes.plot(_epochs(mean), mean[:, column], color=colour, linewidth=LINE_WIDTH, label=label)
        # A point between two gaps, or alone, has no line.
        line.set(marker="o", markersize=6.0 if shortest <= 30 else LINE_WIDTH, markeredgewidth=0)
    return [float(value) for run in runs for value in run[np.isfinite(run)]]


def _mark(axes: "Axes", scored: Sequence[tuple[int, float, float | None]]) -> list[float]:
    """Mark epochs, each with our value on the test set and the article's, and give the values."""
    for epoch, _, _ in scored:
        axes.axvline(epoch, color=FAINT_INK, linewidth=GRID_WIDTH, linestyle=(0, (2, 3)), zorder=1)
    theirs = [(epoch, value) for epoch, _, value in scored if value is not None]
    ours = [(epoch, value) for epoch, value, _ in scored]
    looks: tuple[tuple[list[tuple[int, float]], dict[str, Any]], ...] = (
        (theirs, {"label": "the article's test", "marker": "o", "markersize": _THEIRS, "color": ARTICLE}),
        (ours, {"label": "test", "marker": "D", "markersize": _OURS, "color": TEST}),
    )
    for points, look in looks:
        if points:
            (line,) = axes.plot(*zip(*points, strict=True), linestyle="none", zorder=4, **look)
            line.set_markerfacecolor(TEST if points is ours else "none")
    return [value for _, value in (*theirs, *ours)]


def _epochs(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.arange(1, len(values) + 1)
