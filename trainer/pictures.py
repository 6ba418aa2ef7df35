"""The article's two pictures of the data: ten random images of each class, and 24 random images."""

import os
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trainer.cifar10 import CLASS_NAMES, Split
from trainer.errors import DataError

IMAGES_PER_CLASS: Final = 10
COLUMNS: Final = 8

_SCALE: Final = 3
_TILE: Final = 32 * _SCALE
_GAP: Final = 8
_MARGIN: Final = 20
_FONT_SIZE: Final = 18
_NAME_WIDTH: Final = 112
_CAPTION_HEIGHT: Final = 28
_BACKGROUND: Final = "white"
_INK: Final = "#222222"


def draw_classes(data: Split, seed: int = 0) -> Image.Image:
    """A row for each class: its name and ten random images of it, none twice, or all if there are fewer.

    Args:
        data: Where the images come from.
        seed: Fixes which.

    Returns:
        RGB, on white, each image three times its size.
    """
    generator = np.random.default_rng(seed)
    width = 2 * _MARGIN + _NAME_WIDTH + IMAGES_PER_CLASS * (_TILE + _GAP) - _GAP
    height = 2 * _MARGIN + len(CLASS_NAMES) * (_TILE + _GAP) - _GAP
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_FONT_SIZE)
    for label, name in enumerate(CLASS_NAMES):
        top = _MARGIN + label * (_TILE + _GAP)
        pen.text((_MARGIN, top + _TILE // 2), name, fill=_INK, font=font, anchor="lm")
        members = np.flatnonzero(data.labels == label)
        chosen = generator.choice(members, min(IMAGES_PER_CLASS, len(members)), replace=False)
        for column, index in enumerate(chosen):
            left = _MARGIN + _NAME_WIDTH + column * (_TILE + _GAP)
            picture.paste(_tile(data.images[index]), (left, top))
    return picture


def draw_random(data: Split, seed: int = 0, count: int = 24) -> Image.Image:
    """Random images, none twice, in rows of eight, each with its class below.

    Args:
        data: Where the images come from.
        seed: Fixes which.
        count: How many, from 1 to `len(data)`.

    Returns:
        RGB, on white, each image three times its size.

    Raises:
        DataError: `count` lies outside its range.
    """
    if not 1 <= count <= len(data):
        raise DataError(f"cannot draw {count} of {len(data)} images; ask for 1 to {len(data)}")
    chosen = np.random.default_rng(seed).choice(len(data), count, replace=False)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    width = 2 * _MARGIN + columns * (_TILE + _GAP) - _GAP
    height = 2 * _MARGIN + rows * (_TILE + _CAPTION_HEIGHT + _GAP) - _GAP
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_FONT_SIZE)
    for place, index in enumerate(chosen):
        row, column = divmod(place, columns)
        left = _MARGIN + column * (_TILE + _GAP)
        top = _MARGIN + row * (_TILE + _CAPTION_HEIGHT + _GAP)
        picture.paste(_tile(data.images[index]), (left, top))
        centre = (left + _TILE // 2, top + _TILE + _CAPTION_HEIGHT // 2)
        pen.text(centre, CLASS_NAMES[data.labels[index]], fill=_INK, font=font, anchor="mm")
    return picture


def write_pictures(data: Split, folder: Path, seed: int = 0) -> list[Path]:
    """Write `classes.png` and `random.png` to a folder, which is created if need be.

    Each file appears whole or not at all, and replaces an older one.

    Raises:
        DataError: The folder cannot be written to, or there are fewer than 24 images.
    """
    pictures = {"classes.png": draw_classes(data, seed), "random.png": draw_random(data, seed)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pictures-", dir=folder) as temporary:
            for name, picture in pictures.items():
                new = Path(temporary) / name
                picture.save(new)
                os.replace(new, folder / name)
    except OSError as exc:
        raise DataError(
            f"cannot write pictures to {folder}: {exc.strerror or exc}; give another folder"
        ) from exc
    return [folder / name for name in pictures]


def _tile(image: NDArray[np.uint8]) -> Image.Image:
    """One image, uint8 (32, 32, 3), enlarged without smoothing: what the model sees is what is shown."""
    return Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.NEAREST)
