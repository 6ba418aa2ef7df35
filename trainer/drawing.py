"""How the project's pictures look: their size, colours, axes and bytes, shared by all of them.

Matplotlib is imported when the first one is drawn: where it does not load, there are no pictures, and nothing
else is missing.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.article import BAND

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_SIZE: Final = (1080, 1008)
"""Width and height of learning curves in pixels: twice what a page gives them, for sharp screens."""
INK: Final = "#1e293b"
FAINT_INK: Final = "#64748b"
TRAINING: Final = "#94a3b8"
VALIDATION: Final = "#2563eb"
LINE_WIDTH: Final = 2.0

_DPI: Final = 180
GRID_WIDTH: Final = 72 * 2 / _DPI
"""In points: two whole pixels."""
_COLOURS: Final = 40
"""Of the PNG's palette; a file of all colours is three times as large."""
_GRID: Final = "#e2e8f0"
_ARTICLE: Final = "#fed7aa"
_STEPS: Final = (1, 2, 5, 10)
"""Between ticks, times a power of ten."""
_MOST: Final = 1e6
"""Where a loss is cut off: axes to 1e308 overflow, and a curve that far up says no more."""


def begin_curves(title: str, key_rows: int = 1) -> "tuple[Figure, Axes, Axes]":
    """An empty figure of `CURVES_SIZE` with axes for accuracy, the article's band in them, and for loss.

    Args:
        title: One line; some 60 characters have room.
        key_rows: How many rows the key to the lines will take, three lines each.
    """
    figure = begin_figure(CURVES_SIZE, title)
    height = 0.345 - 0.037 * (key_rows - 1)
    upper, lower = figure.add_axes((0.105, 0.485, 0.865, height)), figure.add_axes((0.105, 0.095, 0.865, 0.3))
    low, high = (100 * bound for bound in BAND)
    upper.axhspan(low, high, color=_ARTICLE, linewidth=0, label=f"the article, {low:.0f}-{high:.0f} % (test)")
    return figure, upper, lower


def finish_curves(
    figure: "Figure", upper: "Axes", lower: "Axes", percent: Sequence[float], losses: Sequence[float]
) -> bytes:
    """The PNG of a figure that `begin_curves` began, with ranges, titles and key for what was drawn.

    Args:
        figure: Of both axes.
        upper: Accuracy by epoch.
        lower: Loss by epoch.
        percent: All that `upper` is to show.
        losses: All that `lower` is to show.
    """
    # The band is always in view.
    _set_range(upper, [*percent, *(100 * bound for bound in BAND)], least=10)
    _set_range(lower, losses, least=0.5)
    # Not beside the axes, where long numbers may stand.
    upper.set_title("accuracy in %", loc="left", color=FAINT_INK, fontsize=10)
    lower.set_title("loss", loc="left", color=FAINT_INK, fontsize=10)
    lower.set_xlabel("epoch", color=FAINT_INK, fontsize=10)
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
        labelcolor=INK,
    )
    return to_png(figure)


def cut_off(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The values as axes can show them: NaN for those that are none, and no more than a million."""
    return np.where(np.isfinite(values), np.minimum(values, _MOST), np.nan)


def style_epochs(axes: "Axes", first: int, last: int) -> None:
    """Let `axes` show the epochs `first` to `last` on x, and round numbers on y."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    style_axes(axes)
    room = 0.02 * (last - first) or 0.5
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=_STEPS, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def begin_figure(size: tuple[int, int], title: str) -> "Figure":
    """An empty figure of that many pixels, its title at the top left."""
    # Not by pyplot, which keeps every figure and chooses a screen's backend.
    from matplotlib.figure import Figure

    figure = Figure((size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor="white")
    # A name with two dollar signs is no formula.
    figure.text(
        0.02, 1 - 27 / size[1], title, color=INK, fontsize=12, weight="bold", va="top", parse_math=False
    )
    return figure


def style_axes(axes: "Axes") -> None:
    """Grid lines and nothing else around the data."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(True, color=_GRID, linewidth=GRID_WIDTH)
    axes.tick_params(length=0, labelsize=10, labelcolor=FAINT_INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _set_range(axes: "Axes", values: Sequence[float], *, least: float) -> None:
    """Show all of the values, with some room; `least` is shown at least, so that noise looks like it."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    room = max(0.06 * (high - low), (least - (high - low)) / 2)
    # There is nothing below 0, of neither loss nor accuracy.
    axes.set_ylim(max(low - room, 0.0), high + room)


def to_png(figure: "Figure") -> bytes:
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
