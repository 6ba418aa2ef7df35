"""trainer.picture_input: pictures of every kind that people have, made by Pillow, and files that are none."""

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample
from PIL import Image

from trainer.errors import PictureError
from trainer.picture_input import PictureInput, read_picture, read_picture_file

REAL = sample.load().x_test[0]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def read(image: Image.Image, kind: str, **options: Any) -> PictureInput:
    """The picture, saved as `kind` and read again."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return read_picture_file(file)


def quarters(size: int = 64) -> Image.Image:
    """Red, green, blue and white, from the upper left to the lower right."""
    image = Image.new("RGB", (2, 2))
    image.putdata([RED, GREEN, BLUE, WHITE])
    return image.resize((size, size), Image.Resampling.NEAREST)


def corners(picture: PictureInput) -> list[tuple[int, ...]]:
    """The colours of the four quarters' middles, from the upper left to the lower right, to 0 or 255."""
    pixels = picture.pixels.astype(int)
    assert picture.pixels.shape == (32, 32, 3)
    assert picture.pixels.dtype == np.uint8
    return [
        tuple(int(255 * round(value / 255)) for value in pixels[row, column])
        for row in (8, 24)
        for column in (8, 24)
    ]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM", "TGA"])
def test_an_image_of_the_data_stays_as_it_is(kind: str) -> None:
    """32x32 pixels, saved without loss, are the bytes that `evaluate` scores."""
    palette = Image.fromarray(REAL) if kind != "GIF" else Image.fromarray(REAL).quantize(256)

    picture = read(palette, kind)

    np.testing.assert_array_equal(picture.pixels, np.asarray(palette.convert("RGB")))
    assert picture.notes == ()


@pytest.mark.parametrize("size", [1, 2, 31, 33, 257, 1001])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
        ("AVIF", {"subsampling": "4:4:4"}),
    ],
)
def test_any_size_and_format_will_do(size: int, kind: str, options: dict[str, Any]) -> None:
    """Each quarter of the picture is where it was."""
    picture = read(quarters(max(size, 2)).crop((0, 0, size, size)), kind, **options)

    expected = [RED] * 4 if size == 1 else [RED, GREEN, BLUE, WHITE]
    assert corners(picture) == expected


def test_pictures_are_averaged_down() -> None:
    """A fine chessboard is grey, not black or white as the pixels that a plain choice would hit."""
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255
    picture = read(Image.fromarray(board.astype(np.uint8)), "PNG")
    assert set(np.unique(picture.pixels)) <= {127, 128}


@pytest.mark.parametrize(("width", "height"), [(640, 64), (64, 640), (9000, 300), (300, 9000), (5001, 1)])
def test_the_square_in_the_middle_counts(width: int, height: int) -> None:
    """Nothing is squeezed: of a long picture the middle is seen, and that is said."""
    side = min(width, height)
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, ((width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2))

    picture = read(image, "PNG")

    assert corners(picture) == [BLUE] * 4
    assert picture.notes == ("cut to the square in its middle",)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, 255),
        ("L", 200, 200),
        ("LA", (200, 255), 200),
        ("I;16", 51_400, 200),
        ("I", 51_400, 200),
        ("CMYK", (0, 0, 0, 55), 200),
        ("RGBA", (200, 200, 200, 255), 200),
    ],
)
def test_grey_of_every_kind_is_the_same_grey(mode: str, value: Any, expected: int) -> None:
    """Bits, bytes, two bytes, inks and opaque pictures alike."""
    kind = {"CMYK": "TIFF", "I": "TIFF"}.get(mode, "PNG")
    picture = read(Image.new(mode, (40, 40), value), kind)
    assert np.unique(picture.pixels).tolist() == [expected]


@pytest.mark.parametrize(
    ("largest", "white"), [(1.0, 1.0), (0.4, 1.0), (255.0, 255.0), (30_000.0, 65_535.0), (1e9, 1e9)]
)
def test_floats_are_scaled_to_what_they_most_likely_are(largest: float, white: float) -> None:
    """From 0 to 1, to 255 or to 65,535; values that are no numbers are black."""
    values = np.full((40, 40), largest, np.float32)
    values[:20] = np.nan
    picture = read(Image.fromarray(values), "TIFF")
    assert picture.pixels[24, 8, 0] == round(255 * largest / white)
    assert picture.pixels[8, 8].tolist() == [0, 0, 0]


def test_a_cmyk_jpeg_has_its_colours() -> None:
    """Adobe's JPEGs are stored inverted; the red stays red."""
    assert corners(read(quarters().convert("CMYK"), "JPEG", quality=95)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "ICO"])
def test_transparent_parts_are_white(kind: str) -> None:
    """Not the colour that lies hidden below them; and it is said."""
    image = quarters().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 32))

    picture = read(image, kind, **({"lossless": True} if kind == "WEBP" else {}))

    assert corners(picture) == [WHITE, GREEN, BLUE, WHITE]
    assert picture.notes == ("transparent, laid on white",)


def test_half_transparent_is_half_white() -> None:
    """Black of half the opacity is grey, in a large picture too, whose pixels are averaged first."""
    picture = read(Image.new("RGBA", (1024, 1024), (0, 0, 0, 128)), "PNG")
    assert np.unique(picture.pixels).tolist() == [127]


def test_a_palette_with_a_transparent_colour() -> None:
    """A PNG's palette says which of its colours shows nothing."""
    image = quarters().quantize(4)
    picture = read(image, "PNG", transparency=image.getpixel((0, 0)))
    assert corners(picture) == [WHITE, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("size", [64, 1100])
def test_a_16_bit_grey_that_is_transparent_is_white(size: int) -> None:
    """That value alone, not its neighbours, which are the same in 8 bits."""
    values = np.full((size, size), 1000, np.uint16)
    values[:, : size // 2] = 1001
    picture = read(Image.fromarray(values), "PNG", transparency=1000)

    assert (picture.pixels[16, 8].tolist(), picture.pixels[16, 24].tolist()) == ([4, 4, 4], [255, 255, 255])
    assert picture.notes == ("transparent, laid on white",)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_opaque_alpha_channel_is_no_transparency(mode: str) -> None:
    """Most programs write one into every PNG; nothing was laid on white."""
    assert read(quarters().convert(mode), "PNG").notes == ()
    assert read(Image.fromarray(np.full((40, 40), 9, np.uint16)), "PNG", transparency=8).notes == ()


def test_values_that_are_no_numbers_are_told() -> None:
    """A picture of them alone is black, which is no answer of the model's to anything seen."""
    picture = read(Image.fromarray(np.full((40, 40), np.nan, np.float32)), "TIFF")
    assert np.unique(picture.pixels).tolist() == [0]
    assert picture.notes == ("black where its values are no numbers",)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(kind: str, orientation: int) -> None:
    """However the camera was held, up is up: all eight ways, in every format that says so."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = quarters(600)
    held = image.transpose(undo[orientation]) if orientation in undo else image
    exif = Image.Exif()
    exif[0x0112] = orientation

    picture = read(held, kind, exif=exif)

    assert corners(picture) == [RED, GREEN, BLUE, WHITE]
    # For a picture that looks otherwise in a program that does not turn it.
    assert picture.notes == (() if orientation == 1 else ("turned as its EXIF data say",))


def test_damaged_exif_keeps_nobody_from_looking() -> None:
    """The picture is read as it is."""
    assert corners(read(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)) == [
        RED,
        GREEN,
        BLUE,
        WHITE,
    ]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_counts(kind: str) -> None:
    """And how many there are is said."""
    others = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (10, 20)]
    picture = read(quarters(), kind, save_all=True, append_images=others)
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]
    assert picture.notes == ("the first of 3 frames",)


def test_a_photograph_with_its_preview_is_no_animation() -> None:
    """Phones write a second picture into the file (MPO)."""
    picture = read(quarters(), "MPO", save_all=True, append_images=[quarters(16)], quality=95)
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]
    assert picture.notes == ()


@pytest.mark.parametrize("mode", ["P", "1", "L", "I;16"])
def test_a_large_picture_takes_little_more_memory_than_itself(mode: str, tmp_path: Path) -> None:
    """36 million pixels, of which each would take four bytes more in colour."""
    path = tmp_path / "large.png"
    Image.new(mode, (6000, 6000), 1).save(path)
    script = f"""
import resource, sys
from pathlib import Path
from trainer.picture_input import read_picture
from PIL import Image
Image.init()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = read_picture(Path({str(path)!r}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    itself = 6000 * 6000 * (2 if mode == "I;16" else 1)
    assert 1024 * int(done.stdout) < itself + 60_000_000


def test_a_large_photograph_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG is never there in full: an eighth of its sides is enough."""
    sizes = []
    crop = Image.Image.crop
    monkeypatch.setattr(
        Image.Image, "crop", lambda self, *rest: (sizes.append(self.size), crop(self, *rest))[1]
    )
    assert corners(read(quarters(4096), "JPEG")) == [RED, GREEN, BLUE, WHITE]
    assert set(sizes) == {(512, 512)}


def test_a_bomb_is_refused() -> None:
    """A small file that would decode to gigabytes is not decoded."""
    file = io.BytesIO()
    Image.new("1", (15_000, 15_000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    file.seek(0)
    with pytest.raises(PictureError, match="more than 179 million pixels"):
        read_picture_file(file)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_truncated_picture_is_refused(kind: str, share: float) -> None:
    """A download that broke off is told, not guessed at."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(file, kind)
    whole = file.getvalue()
    with pytest.raises(PictureError, match="damaged"):
        read_picture_file(io.BytesIO(whole[: int(len(whole) * share)]))


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "ICO", "TGA", "AVIF"]
)
def test_damaged_bytes_are_refused_or_read(kind: str) -> None:
    """Whatever bytes are wrong, the outcome is a picture or a `PictureError` of one line."""
    file = io.BytesIO()
    Image.fromarray(REAL).save(file, kind)
    whole = np.frombuffer(file.getvalue(), np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(60):
        content = whole.copy()
        where = generator.integers(0, len(content), 4)
        content[where] = generator.integers(0, 256, 4)
        try:
            assert read_picture_file(io.BytesIO(content.tobytes())).pixels.shape == (32, 32, 3)
        except PictureError as error:
            assert str(error)
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "is a folder; name the pictures in it"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("a letter"), "no picture, or a damaged one; PNG, JPEG"),
        (lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "no picture"),
        (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "no picture"),
        (lambda path: path.symlink_to(path), "cannot be read: "),
    ],
    ids=["missing", "folder", "empty", "text", "svg", "eps", "loop"],
)
def test_what_is_no_picture_is_refused(make: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    """With the reason, which the caller puts after the name."""
    path = tmp_path / "some.png"
    make(path)
    with pytest.raises(PictureError, match=f"^{reason}"):
        read_picture(path)


def test_a_name_that_cannot_be_is_refused() -> None:
    """Too long, or with a zero byte."""
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(PictureError, match=r"^cannot be read: "):
            read_picture(Path(name))


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    """A JPEG that is called .png, and one without any ending."""
    for name in ("photo.png", "photo"):
        quarters().save(tmp_path / name, "JPEG", quality=95)
        assert corners(read_picture(tmp_path / name)) == [RED, GREEN, BLUE, WHITE]


def test_a_pipe_can_be_read(tmp_path: Path) -> None:
    """As a shell's `<(command)` gives one: what cannot seek is read whole."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    file = io.BytesIO()
    quarters().save(file, "PNG")
    writer = threading.Thread(target=path.write_bytes, args=(file.getvalue(),))
    writer.start()
    picture = read_picture(path)
    writer.join()
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]
