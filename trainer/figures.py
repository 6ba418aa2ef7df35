"""A trial's two pictures: its learning curves, and which classes its model takes for which.

Matplotlib is imported when the first one is drawn: where it does not load, trials lack their pictures and
nothing else.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.article import BAND
from trainer.cifar10 import CLASS_NAMES
from trainer.state import EpochResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_SIZE: Final = (1080, 1008)
"""Width and height of the learning curves in pixels: twice what a page gives them, for sharp screens."""
CONFUSION_SIZE: Final = (1080, 1062)

_DPI: Final = 180
_GRID_WIDTH: Final = 72 * 2 / _DPI
"""In points: two whole pixels."""
_LINE_WIDTH: Final = 2.0
_COLOURS: Final = 40
"""Of the PNG's palette; a file of all colours is three times as large."""
_INK: Final = "#1e293b"
_FAINT_INK: Final = "#64748b"
_GRID: Final = "#e2e8f0"
_TRAINING: Final = "#94a3b8"
_VALIDATION: Final = "#2563eb"
_ARTICLE: Final = "#fed7aa"
_SHADES: Final = ("#ffffff", "#bfdbfe", "#60a5fa", "#2563eb", "#1e3a8a")
"""Of a confusion's cells, from no image of the row's class to all of them."""
_LEVELS: Final = 32
"""As many shades as an eye tells apart; more would not all have a place in the palette."""
_GAMMA: Final = 0.6
"""Below 1, so that the few images that are taken for another class can be told from none."""
_STEPS: Final = (1, 2, 5, 10)
"""Between ticks, times a power of ten."""
_MOST: Final = 1e6
"""Where a loss is cut off: axes to 1e308 overflow, and a curve that far up says no more."""


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
    figure = _begin(CURVES_SIZE, title)
    upper, lower = figure.add_axes((0.105, 0.485, 0.865, 0.345)), figure.add_axes((0.105, 0.095, 0.865, 0.3))
    low, high = (100 * bound for bound in BAND)
    upper.axhspan(low, high, color=_ARTICLE, linewidth=0, label=f"the article, {low:.0f}-{high:.0f} % (test)")
    epochs = np.array([result.epoch for result in history])
    percent = _plot(upper, epochs, history, lambda one: (100 * one.accuracy, 100 * one.validation_accuracy))
    losses = _plot(lower, epochs, history, lambda one: (one.loss, one.validation_loss))
    # The band is always in view.
    _set_range(upper, [*percent, low, high], least=10)
    _set_range(lower, losses, least=0.5)
    # Not beside the axes, where long numbers may stand.
    upper.set_title("accuracy in %", loc="left", color=_FAINT_INK, fontsize=10)
    lower.set_title("loss", loc="left", color=_FAINT_INK, fontsize=10)
    lower.set_xlabel("epoch", color=_FAINT_INK, fontsize=10)
    upper.tick_params(labelbottom=False)
    handles, names = upper.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        names[::-1],
        loc="upper left",
        bbox_to_anchor=(0.02, 0.925),
        ncols=3,
        frameon=False,
        fontsize=10,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.4,
        labelcolor=_INK,
    )
    return _to_png(figure)


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
    figure = _begin(CONFUSION_SIZE, title)
    axes = figure.add_axes((0.18, 0.17, 0.7, 0.7 * CONFUSION_SIZE[0] / CONFUSION_SIZE[1]))
    # Not imshow, which takes 40 MB to scale a hundred numbers to so many pixels.
    axes.pcolormesh(colours, edgecolors="white", linewidth=_GRID_WIDTH)
    axes.invert_yaxis()
    _style(axes)
    axes.grid(False)
    middles = np.arange(classes) + 0.5
    axes.set_xticks(middles, CLASS_NAMES, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(middles, CLASS_NAMES)
    axes.tick_params(labelcolor=_INK)
    axes.set_xlabel("predicted class", color=_FAINT_INK, fontsize=10)
    axes.set_ylabel("true class", color=_FAINT_INK, fontsize=10)
    for (row, column), count in np.ndenumerate(confusion):
        ink = "white" if _luminance(colours[row, column]) < 0.5 else _INK if count else _FAINT_INK
        axes.text(
            column + 0.5, row + 0.5, f"{count}", color=ink, ha="center", va="center_baseline", fontsize=9
        )
    beside = classes + 0.15
    axes.text(beside, -0.35, "right", color=_FAINT_INK, fontsize=10, va="center_baseline")
    for row, right in enumerate(shares.diagonal()):
        share = f"{100 * right:.1f} %" if confusion[row].any() else "n/a"
        axes.text(beside, row + 0.5, share, color=_INK, fontsize=10, va="center_baseline")
    return _to_png(figure)


def _begin(size: tuple[int, int], title: str) -> "Figure":
    """An empty figure of that many pixels, its title at the top left."""
    # Not by pyplot, which keeps every figure and chooses a screen's backend.
    from matplotlib.figure import Figure

    figure = Figure((size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor="white")
    # A name with two dollar signs is no formula.
    figure.text(
        0.02, 1 - 27 / size[1], title, color=_INK, fontsize=12, weight="bold", va="top", parse_math=False
    )
    return figure


def _style(axes: "Axes") -> None:
    """Grid lines and nothing else around the data."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(True, color=_GRID, linewidth=_GRID_WIDTH)
    axes.tick_params(length=0, labelsize=10, labelcolor=_FAINT_INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _plot(
    axes: "Axes",
    epochs: npt.NDArray[Any],
    history: Sequence[EpochResult],
    pair: Callable[[EpochResult], tuple[float, float]],
) -> list[float]:
    """Draw training and validation over the epochs, and give the numbers that are drawn."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    _style(axes)
    values = np.array([pair(one) for one in history])
    values = np.where(np.isfinite(values), np.minimum(values, _MOST), np.nan)
    # A point between two gaps, or alone, has no line.
    size = 6.0 if len(epochs) <= 30 else _LINE_WIDTH
    for column, (name, colour) in enumerate((("training", _TRAINING), ("validation", _VALIDATION))):
        (line,) = axes.plot(epochs, values[:, column], color=colour, linewidth=_LINE_WIDTH, label=name)
        line.set(marker="o", markersize=size, markeredgewidth=0)
    room = 0.02 * (epochs[-1] - epochs[0]) or 0.5
    axes.set_xlim(epochs[0] - room, epochs[-1] + room)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=_STEPS, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return [float(value) for value in values[np.isfinite(values)]]


def _set_range(axes: "Axes", values: Sequence[float], *, least: float) -> None:
    """Show all of the values, with some room; `least` is shown at least, so that noise looks like it."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    room = max(0.06 * (high - low), (least - (high - low)) / 2)
    # There is nothing below 0, of neither loss nor accuracy.
    axes.set_ylim(max(low - room, 0.0), high + room)


def _luminance(colour: npt.NDArray[Any]) -> float:
    """How light a colour (red, green, blue, ... in [0, 1]) is to the eye, in [0, 1] (ITU-R BT.709)."""
    return float(colour[:3] @ (0.2126, 0.7152, 0.0722))


def _to_png(figure: "Figure") -> bytes:
    """The figure as a PNG with a palette, without metadata."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's own types leave it out
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # so here
    picture = Image.fromarray(pixels[:, :, :3])
    file = io.BytesIO()
    # Not by savefig, which names its version.
    # The median cut alone has no place for a colour of few pixels, such as a key to the lines.
    picture = picture.quantize(_COLOURS, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
