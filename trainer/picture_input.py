"""Pictures of any kind as the 32x32 images that models take."""

import io
import math
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from trainer.errors import PictureError

FORMATS: Final = tuple("PNG JPEG MPO WEBP AVIF GIF BMP DIB TIFF JPEG2000 PPM TGA ICO".split())
"""Pillow's names of what is read. Not all it knows: it hands EPS to a program of its own, Ghostscript."""
SIDE: Final = 32
BACKGROUND: Final = (255, 255, 255)
"""What shows through a transparent picture: white, as on most pages that such pictures are made for."""

_MOST_PIXELS: Final = 2 * 89_478_485
"""Pillow's own limit, beyond which it opens nothing: such a picture decodes to 0.7 GB."""
_FIRST_SIDE: Final = 8 * SIDE
"""A large picture is averaged down to about so many pixels on its short side before anything else."""
_STRIP_PIXELS: Final = 1 << 20
"""How many pixels are converted at once."""
_ORIENTATION: Final = 0x0112
"""EXIF's tag for how the camera was held."""


@dataclass(frozen=True, eq=False)
class PictureInput:
    """A picture as a model takes it.

    Attributes:
        pixels: uint8 (32, 32, 3), red-green-blue in [0, 255].
        notes: What was done that is not obvious, such as "the first of 12 frames"; often empty.
    """

    pixels: npt.NDArray[np.uint8]
    notes: tuple[str, ...]


def read_picture(path: Path) -> PictureInput:
    """The picture in a file, by its content, not its name.

    It is turned as its EXIF data say, laid on white where it is transparent, cut to the square in its
    middle, and brought to 32x32 by Pillow's antialiased bicubic filter. One of 32x32 stays as it is.

    Raises:
        PictureError: There is no such file, or it is no picture that can be read.
    """
    try:
        if path.is_dir():
            raise PictureError("is a folder; name the pictures in it")
        with path.open("rb") as file:
            return read_picture_file(file)
    except FileNotFoundError as error:
        raise PictureError("no such file") from error
    except (OSError, ValueError) as error:
        # ValueError: a name that no file can have.
        raise PictureError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_picture_file(file: BinaryIO) -> PictureInput:
    """The picture in an open file, as `read_picture` gives it.

    Raises:
        PictureError: It is no picture that can be read.
        OSError: The file cannot be read.
    """
    content: BinaryIO = file if file.seekable() else io.BytesIO(file.read())
    if not content.read(1):
        raise PictureError("the file is empty")
    content.seek(0)
    with warnings.catch_warnings():
        # What Pillow warns of (odd metadata, a large picture) keeps nobody from looking at it.
        warnings.simplefilter("ignore")
        try:
            with Image.open(content, formats=_known_formats()) as image:
                return _prepare(image)
        except PictureError:
            raise
        except Image.DecompressionBombError as error:
            raise PictureError(
                f"more than {_MOST_PIXELS / 1e6:.0f} million pixels; make it smaller"
            ) from error
        except UnidentifiedImageError as error:
            raise PictureError(
                "no picture, or a damaged one; PNG, JPEG, WebP, AVIF, GIF, BMP and TIFF are read"
            ) from error
        except MemoryError as error:
            raise PictureError("too large for this machine's memory; make it smaller") from error
        # Pillow's readers raise whatever they stumble over in a damaged file: OSError, SyntaxError,
        # ValueError, EOFError, struct.error and others.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).split("\n")[0][:120]
            raise PictureError(f"a damaged picture: {reason}") from error


def _known_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with; it fails on others."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _prepare(image: Image.Image) -> PictureInput:
    """From an opened picture to the 32x32 pixels."""
    notes = []
    frames = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
    # An MPO is a photograph with a preview of itself.
    if frames > 1 and image.format != "MPO":
        notes.append(f"the first of {frames} frames")
    # A JPEG can be decoded at half, a quarter or an eighth of its size, in a fraction of the memory and time.
    image.draft(None, (_FIRST_SIDE, _FIRST_SIDE))
    # Pillow turns a TIFF itself while it loads it, and forgets then that it did. Others are not asked yet: a
    # PNG would be loaded for it, and what is wrong with the file would be lost.
    turned = image.format == "TIFF" and _read_orientation(image) != 1
    image.load()
    orientation = _read_orientation(image)
    small, more_notes = _reduce(image)
    notes += more_notes
    if orientation != 1:
        small.getexif()[_ORIENTATION] = orientation
        small = ImageOps.exif_transpose(small)
    if turned or orientation != 1:
        notes.append("turned as its EXIF data say")
    if small.width != small.height:
        notes.append("cut to the square in its middle")
    square = ImageOps.fit(small, (SIDE, SIDE), Image.Resampling.BICUBIC)
    return PictureInput(np.asarray(square, np.uint8), tuple(notes))


def _read_orientation(image: Image.Image) -> int:
    """How the picture is to be turned, EXIF's 2 to 8; 1 for not at all, or where its EXIF is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return 1
    return orientation if orientation in range(2, 9) else 1


def _reduce(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The picture in red-green-blue, on white, averaged down so that a large one is small; and its notes.

    Strip by strip: a palette's colours or a transparent picture on white would take five times its memory.
    """
    factor = max(1, min(image.size) // _FIRST_SIDE)
    rows = factor * max(1, _STRIP_PIXELS // (image.width * factor))
    white = _find_white(image, rows)
    small = Image.new("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    transparent = without_numbers = False
    for top, strip in _cut(image, rows):
        without_numbers |= strip.mode == "F" and not np.isfinite(np.asarray(strip)).all()
        if white is not None:
            strip = _to_eight_bits(strip, white)
        shows_through = _is_transparent(strip)
        transparent |= shows_through
        opaque = _on_white(strip) if shows_through else strip.convert("RGB")
        small.paste(opaque.reduce(factor), (0, top // factor))
    notes = ["transparent, laid on white"] if transparent else []
    return small, [*notes, *(["black where its values are no numbers"] if without_numbers else [])]


def _cut(image: Image.Image, rows: int) -> Iterator[tuple[int, Image.Image]]:
    """The picture in strips of so many rows, each with the row it begins at."""
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _find_white(image: Image.Image, rows: int) -> float | None:
    """The value that is white in a grey picture of more than 8 bits; None for any other picture.

    For whole numbers it is 65,535, or the largest value where that is more. For floats it is the smallest of
    1, 255 and 65,535 that no value exceeds, else the largest value.
    """
    if image.mode not in ("I", "F"):
        return 65_535.0 if image.mode.startswith("I;16") else None
    largest = max(float(_finite(strip).max()) for _, strip in _cut(image, rows))
    whites = (1.0, 255.0, 65_535.0) if image.mode == "F" else (65_535.0,)
    return next((white for white in whites if largest <= white), largest)


def _to_eight_bits(image: Image.Image, white: float) -> Image.Image:
    """A grey picture of more than 8 bits in 8: Pillow itself would cut values off at 255.

    With an alpha channel where the file names a value that is transparent: in 8 bits, others would equal it.
    """
    grey = Image.fromarray(np.clip(np.rint(_finite(image) * (255 / white)), 0, 255).astype(np.uint8))
    hidden = image.info.get("transparency")
    if not isinstance(hidden, int):
        return grey
    alpha = Image.fromarray(np.where(np.asarray(image) == hidden, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def _finite(image: Image.Image) -> npt.NDArray[np.float64]:
    """The values of a grey picture, 0 for those that are no number."""
    values = np.asarray(image, np.float64)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if image.mode == "F" else values


def _is_transparent(image: Image.Image) -> bool:
    """Whether anything shows through it; many a picture has an alpha channel that is opaque everywhere."""
    if not image.has_transparency_data:
        return False
    return bool(np.asarray(image.convert("RGBA").getchannel("A")).min() < 255)


def _on_white(image: Image.Image) -> Image.Image:
    """A transparent picture in red-green-blue, on white."""
    picture = image.convert("RGBA")
    background = Image.new("RGBA", picture.size, (*BACKGROUND, 255))
    return Image.alpha_composite(background, picture).convert("RGB")
