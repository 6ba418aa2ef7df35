"""A trial's two pictures: its learning curves, and which classes its model takes for which.

Matplotlib is imported when the first one is drawn: where it does not load, trials lack their pictures and
nothing else.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from trainer.cifar10 import CLASS_NAMES
from trainer.drawing import (
    CURVES_SIZE,
    FAINT_INK,
    GRID_WIDTH,
    INK,
    LINE_WIDTH,
    TRAINING,
    VALIDATION,
    begin_curves,
    begin_figure,
    cut_off,
    finish_curves,
    style_axes,
    style_epochs,
    to_png,
)
from trainer.state import EpochResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CONFUSION_SIZE", "CURVES_SIZE", "draw_confusion", "draw_curves"]

CONFUSION_SIZE: Final = (1080, 1062)

_SHADES: Final = ("#ffffff", "#bfdbfe", "#60a5fa", "#2563eb", "#1e3a8a")
"""Of a confusion's cells, from no image of the row's class to all of them."""
_LEVELS: Final = 32
"""As many shades as an eye tells apart; more would not all have a place in the palette."""
_GAMMA: Final = 0.6
"""Below 1, so that the few images that are taken for another class can be told from none."""


def draw_curves(history: Sequence[EpochResult], title: str) -> bytes:
    """Accuracy and loss by epoch, of training and validation, with the article's 77-78 % as a band.

    Numbers that are NaN or infinite leave a gap.

    Args:
        history: At least one epoch.
        title: One line; some 60 characters have room.

    Returns:
        A PNG of `CURVES_SIZE`; the same arguments give the same bytes.

    Raises:
        ValueError: The history is empty.
    """
    if not history:
        raise ValueError("a history without epochs has no curves; give at least one epoch")
    figure, upper, lower = begin_curves(title)
    epochs = np.array([result.epoch for result in history])
    percent = _plot(upper, epochs, history, lambda one: (100 * one.accuracy, 100 * one.validation_accuracy))
    losses = _plot(lower, epochs, history, lambda one: (one.loss, one.validation_loss))
    return finish_curves(figure, upper, lower, percent, losses)


def draw_confusion(confusion: npt.NDArray[Any], title: str) -> bytes:
    """How many images of each class were taken for each class, and the share of each that was right.

    A cell is the darker the larger its share of the images of its class.

    Args:
        confusion: Whole numbers, (10, 10): rows the true class, columns the predicted one, as in
            `trainer.evaluation.Score`.
        title: One line; some 60 characters have room.

    Returns:
        A PNG of `CONFUSION_SIZE`; the same arguments give the same bytes.

    Raises:
        ValueError: The array has another shape.
    """
    classes = len(CLASS_NAMES)
    if confusion.shape != (classes, classes):
        raise ValueError(f"a confusion has the shape {(classes, classes)}, got {confusion.shape}")
    from matplotlib.colors import LinearSegmentedColormap

    # A class without images has no share of anything.
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    colours = LinearSegmentedColormap.from_list("confusion", _SHADES, _LEVELS)(shares**_GAMMA)
    figure = begin_figure(CONFUSION_SIZE, title)
    axes = figure.add_axes((0.18, 0.17, 0.7, 0.7 * CONFUSION_SIZE[0] / CONFUSION_SIZE[1]))
    # Not imshow, which takes 40 MB to scale a hundred numbers to so many pixels.
    axes.pcolormesh(colours, edgecolors="white", linewidth=GRID_WIDTH)
    axes.invert_yaxis()
    style_axes(axes)
    axes.grid(False)
    middles = np.arange(classes) + 0.5
    axes.set_xticks(middles, CLASS_NAMES, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, CLASS_NAMES)
    axes.tick_params(labelcolor=INK)
    axes.set_xlabel("predicted class", color=FAINT_INK, fontsize=10)
    axes.set_ylabel("true class", color=FAINT_INK, fontsize=10)
    for (row, column), count in np.ndenumerate(confusion):
        ink = "white" if _luminance(colours[row, column]) < 0.5 else INK if count else FAINT_INK
        axes.text(
            column + 0.5, row + 0.5, f"{count}", color=ink, ha="center", va="center_baseline", fontsize=9
        )
    beside = classes + 0.15
    axes.text(beside, -0.35, "right", color=FAINT_INK, fontsize=10, va="center_baseline")
    for row, right in enumerate(shares.diagonal()):
        share = f"{100 * right:.1f} %" if confusion[row].any() else "n/a"
        axes.text(beside, row + 0.5, share, color=INK, fontsize=10, va="center_baseline")
    return to_png(figure)


def _plot(
    axes: "Axes",
    epochs: npt.NDArray[Any],
    history: Sequence[EpochResult],
    pair: Callable[[EpochResult], tuple[float, float]],
) -> list[float]:
    """Draw training and validation over the epochs, and give the numbers that are drawn."""
    style_epochs(axes, epochs[0], epochs[-1])
    values = cut_off(np.array([pair(one) for one in history]))
    # A point between two gaps, or alone, has no line.
    size = 6.0 if len(epochs) <= 30 else LINE_WIDTH
    for column, (name, colour) in enumerate((("training", TRAINING), ("validation", VALIDATION))):
        (line,) = axes.plot(epochs, values[:, column], color=colour, linewidth=LINE_WIDTH, label=name)
        line.set(marker="o", markersize=size, markeredgewidth=0)
    return [float(value) for value in values[np.isfinite(values)]]


def _luminance(colour: npt.NDArray[Any]) -> float:
    """How light a colour (red, green, blue, ... in [0, 1]) is to the eye, in [0, 1] (ITU-R BT.709)."""
    return float(colour[:3] @ (0.2126, 0.7152, 0.0722))
