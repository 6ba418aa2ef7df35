"""The two pictures of a trial: what they show, for which numbers, and that it is the same each time."""

import io
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.cifar10 import CLASS_NAMES
from trainer.figures import CONFUSION_SIZE, CURVES_SIZE, draw_confusion, draw_curves
from trainer.state import EpochResult

VALIDATION = (37, 99, 235)
TRAINING = (148, 163, 184)
BAND = (254, 215, 170)
MOST_BYTES = 40_000


def history_of(epochs: int) -> list[EpochResult]:
    """Curves as they are: fast, then slow, with noise."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.01, (epochs, 4))
    done = 1 - np.exp(-np.arange(1, epochs + 1) / 20)
    shapes = np.stack([1.9 - 1.4 * done, 0.3 + 0.5 * done, 1.7 - done, 0.35 + 0.43 * done], axis=1)
    return [
        EpochResult(epoch, *map(float, numbers), learning_rate=0.01, seconds=9.0)
        for epoch, numbers in enumerate(shapes + noise, start=1)
    ]


def confusion_of(images: int, accuracy: float = 0.77) -> np.ndarray:
    """Ten classes of so many images each, the wrong ones anywhere."""
    generator = np.random.default_rng(0)
    shares = np.full((10, 10), (1 - accuracy) / 9)
    np.fill_diagonal(shares, accuracy)
    return np.stack([generator.multinomial(images, row) for row in shares]).astype(np.int32)


def pixels_of(png: bytes) -> np.ndarray:
    """What the PNG shows, uint8 (height, width, 3)."""
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def count(png: bytes, colour: tuple[int, int, int]) -> int:
    """How many pixels have that colour, as far as the palette has it."""
    return int((np.abs(pixels_of(png).astype(int) - colour).max(axis=2) <= 8).sum())


def cell(pixels: np.ndarray, row: int, column: int) -> np.ndarray:
    """The inside of one of a confusion's cells, uint8 (height, width, 3); no digit reaches its corners."""
    width, height = CONFUSION_SIZE
    side = 0.07 * width
    left, top = 0.18 * width + column * side, 0.83 * height - (10 - row) * side
    return pixels[int(top) + 6 : int(top + side) - 6, int(left) + 6 : int(left + side) - 6]


def shades_of(png: bytes) -> np.ndarray:
    """How light a confusion's cells are, (10, 10), in [0, 1]."""
    pixels = pixels_of(png)
    corners = [[cell(pixels, row, column)[0, 0] for column in range(10)] for row in range(10)]
    return luminance(np.array(corners))


def luminance(pixels: np.ndarray) -> np.ndarray:
    """The relative luminance of sRGB colours, in [0, 1] (WCAG 2.2)."""
    values = pixels / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize(
    ("draw", "size"),
    [
        (lambda: draw_curves(history_of(100), "Trial 0"), CURVES_SIZE),
        (lambda: draw_confusion(confusion_of(1000), "Trial 0"), CONFUSION_SIZE),
    ],
    ids=["curves", "confusion"],
)
def test_a_picture_is_a_small_png_that_says_nothing_of_when(
    draw: Callable[[], bytes], size: tuple[int, int]
) -> None:
    """Its size is the one that is named, its bytes are the same each time, and carry no metadata."""
    png = draw()

    assert png == draw()
    assert len(png) < MOST_BYTES
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        assert (picture.format, picture.size, picture.info) == ("PNG", size, {})


def test_every_epoch_and_every_number_of_it_changes_the_curves() -> None:
    """Training and validation, accuracy and loss; what is not drawn changes nothing."""
    history = history_of(20)
    png = draw_curves(history, "Trial 0")

    for index, name in enumerate(("loss", "accuracy", "validation_loss", "validation_accuracy")):
        other = list(history)
        other[5 * index] = replace(other[5 * index], **{name: getattr(other[5 * index], name) + 0.1})
        assert draw_curves(other, "Trial 0") != png, name
    assert draw_curves(history[:-1], "Trial 0") != png
    assert draw_curves(history, "Trial 1") != png
    slower = [replace(result, seconds=100.0, learning_rate=0.1) for result in history]
    assert draw_curves(slower, "Trial 0") == png


@pytest.mark.parametrize("epochs", [1, 2, 30, 31, 200])
def test_validation_stands_out_against_training_in_both_panels(epochs: int) -> None:
    """One epoch has no line, and shows its points all the same."""
    png = draw_curves(history_of(epochs), "Trial 0")
    pixels = pixels_of(png)
    legend, upper, lower = pixels[:110], pixels[140 : CURVES_SIZE[1] // 2], pixels[CURVES_SIZE[1] // 2 :]

    for panel in (legend, upper, lower):
        for colour in (VALIDATION, TRAINING):
            close = np.abs(panel.astype(int) - colour).max(axis=2) <= 8
            assert close.sum() > 50, colour


@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.775, 1.0])
def test_the_articles_band_is_always_in_view(accuracy: float) -> None:
    """However far from it the trial is; it lies across the whole panel."""
    history = [replace(result, accuracy=accuracy, validation_accuracy=accuracy) for result in history_of(5)]

    pixels = pixels_of(draw_curves(history, "Trial 0"))

    panel = pixels[140 : CURVES_SIZE[1] // 2]
    rows = (np.abs(panel.astype(int) - BAND).max(axis=2) <= 8).sum(axis=1)
    assert (rows > 0.5 * CURVES_SIZE[0]).any()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e308, 3.4e38])
@pytest.mark.parametrize("where", [[0], [4], [9], list(range(10))], ids=["first", "middle", "last", "all"])
def test_numbers_that_are_none_leave_a_gap(number: float, where: list[int]) -> None:
    """The rest is drawn; nothing warns, and no axis overflows."""
    history = history_of(10)
    for index in where:
        history[index] = replace(history[index], loss=number, validation_loss=number)

    png = draw_curves(history, "Trial 0")

    assert pixels_of(png).shape == (CURVES_SIZE[1], CURVES_SIZE[0], 3)
    assert png != draw_curves(history_of(10), "Trial 0")
    assert count(png, VALIDATION) > 500


def test_a_point_between_two_gaps_is_seen() -> None:
    """It has no line to be seen by, however many epochs there are."""
    nothing = {"validation_loss": math.nan, "validation_accuracy": math.nan}
    empty = [replace(result, **nothing) for result in history_of(100)]
    single = [*empty[:50], history_of(100)[50], *empty[51:]]

    # The key alone has the colour as well.
    alone = count(draw_curves(empty, "t"), VALIDATION)
    assert 50 < alone < count(draw_curves(single, "t"), VALIDATION)


def test_curves_without_an_epoch_are_refused() -> None:
    """Instead of empty axes."""
    with pytest.raises(ValueError, match="give at least one epoch"):
        draw_curves([], "Trial 0")


@pytest.mark.parametrize("class_", range(10), ids=CLASS_NAMES)
def test_a_row_is_the_true_class_a_column_the_predicted_one(class_: int) -> None:
    """Images of a class that are all taken for the next one make one dark cell, at that place."""
    confusion = np.zeros((10, 10), int)
    confusion[class_, (class_ + 1) % 10] = 7
    png = draw_confusion(confusion, "Trial 0")

    dark = np.argwhere(shades_of(png) < 0.2)

    assert dark.tolist() == [[class_, (class_ + 1) % 10]]


def test_a_cells_shade_is_its_share_of_its_row() -> None:
    """Rows of few and of many images with equal shares look alike; a larger share is darker."""
    confusion = np.outer([1, 2, 5, 10, 20, 50, 100, 200, 500, 900], np.arange(10))
    png = draw_confusion(confusion, "Trial 0")

    shades = shades_of(png)

    np.testing.assert_allclose(shades, np.broadcast_to(shades[0], (10, 10)), atol=0.02)
    assert (np.diff(shades[0]) < 0).all()
    assert shades[0, 0] == 1


def test_small_shares_can_be_told_apart_in_a_busy_confusion() -> None:
    """The palette has no room for every blend of digit and cell; the cells' own shades must be in it."""
    confusion = confusion_of(1000)
    confusion[0] = [700, 10, 20, 30, 40, 50, 60, 90, 0, 0]
    shades = shades_of(draw_confusion(confusion, "Trial 0"))

    # 0, 1, 2, 4, 6, 9 and 70 %.
    assert (np.diff(shades[0, [9, 1, 2, 4, 6, 7, 0]]) < -0.01).all()


def test_counts_can_be_read_on_every_shade() -> None:
    """The digits' contrast to their cell is at least 3:1, what WCAG 2.2 asks of large text."""
    for first in (0, 25, 50, 75):
        shares = np.linspace(first, first + 25, 10).round().astype(int)
        confusion = np.zeros((10, 10), int)
        confusion[:, 0], confusion[:, 1] = shares, 100 - shares
        pixels = pixels_of(draw_confusion(confusion, "Trial 0"))
        for row in range(10):
            for column in (0, 1, 2):
                light = luminance(cell(pixels, row, column))
                assert (light.max() + 0.05) / (light.min() + 0.05) > 3, (shares[row], column)


def test_every_image_changes_the_confusion() -> None:
    """One image more of any class, taken for any other."""
    confusion = confusion_of(50)
    png = draw_confusion(confusion, "Trial 0")

    for row in (0, 4, 9):
        other = confusion.copy()
        other[row, (3 * row + 1) % 10] += 1
        assert draw_confusion(other, "Trial 0") != png
    assert draw_confusion(confusion.T, "Trial 0") != png
    assert draw_confusion(confusion, "Trial 1") != png
    assert draw_confusion(confusion.astype(np.int64), "Trial 0") == png


@pytest.mark.parametrize(
    "confusion",
    [
        np.zeros((10, 10), int),
        np.diag([8, 0, 7, 8, 9, 0, 6, 10, 8, 8]),
        np.eye(10, dtype=int) * 10_000,
        np.full((10, 10), 5_000),
    ],
    ids=["no image", "classes without images", "perfect", "chance"],
)
def test_every_confusion_can_be_drawn(confusion: np.ndarray) -> None:
    """Nothing warns of a division by nought; what was given stays as it was."""
    before = confusion.copy()

    assert pixels_of(draw_confusion(confusion, "Trial 0")).shape == (CONFUSION_SIZE[1], CONFUSION_SIZE[0], 3)

    np.testing.assert_array_equal(confusion, before)


@pytest.mark.parametrize("shape", [(9, 9), (10,), (10, 10, 1)])
def test_a_confusion_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """With the shape that it has."""
    with pytest.raises(ValueError, match=r"has the shape \(10, 10\), got"):
        draw_confusion(np.zeros(shape, int), "Trial 0")


@pytest.mark.parametrize("title", ["a $5 and a $6 trial", r"$\frac$", "%s {x} <b>", "x" * 300, ""])
def test_a_title_is_text_whatever_it_is(title: str) -> None:
    """Dollar signs make no formula, and a long one no wider picture."""
    assert pixels_of(draw_curves(history_of(3), title)).shape[1] == CURVES_SIZE[0]
    assert pixels_of(draw_confusion(confusion_of(10), title)).shape[1] == CONFUSION_SIZE[0]


def test_threads_draw_side_by_side() -> None:
    """Each gets the picture that it would get alone."""
    histories = [history_of(epochs) for epochs in (1, 5, 40)]
    alone = [draw_curves(history, "Trial 0") for history in histories]

    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda history: draw_curves(history, "Trial 0"), histories * 2))

    assert together == alone * 2


def test_matplotlib_comes_with_the_first_picture_and_pyplot_never(python: Callable[..., Any]) -> None:
    """Without a warning, or a change of matplotlib's settings for others."""
    script = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np
from trainer.figures import draw_confusion, draw_curves
from trainer.state import EpochResult
print("matplotlib" in sys.modules)
import matplotlib
def settings():
    # To look up the backend would choose one, by pyplot.
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

before = settings()
draw_curves([EpochResult(1, 1.0, 0.5, 1.0, 0.5, 0.01, 1.0)], "t")
draw_confusion(np.eye(10, dtype=int), "t")
print("matplotlib.pyplot" in sys.modules, settings() == before)
"""
    assert python(script).split() == ["False", "False", "True"]
