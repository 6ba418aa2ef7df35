"""The pictures of trainer.pictures, over the sample."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sample
from PIL import Image

from trainer.cifar10 import Split
from trainer.errors import DataError
from trainer.pictures import draw_classes, draw_random, write_pictures

TRAIN = sample.load().train


def pixels(picture: Image.Image) -> bytes:
    """What the picture shows."""
    return picture.tobytes()


@pytest.mark.parametrize("draw", [draw_classes, draw_random])
def test_seed_fixes_the_picture(draw: Callable[[Split, int], Image.Image]) -> None:
    """The same seed draws the same picture, another seed another one."""
    assert pixels(draw(TRAIN, 1)) == pixels(draw(TRAIN, 1))
    assert pixels(draw(TRAIN, 1)) != pixels(draw(TRAIN, 2))


def test_class_rows_hold_their_own_class() -> None:
    """Each row shows only images of its class: with one colour a class, a row has one colour."""
    colours = np.arange(10, dtype=np.uint8) * 20
    labels = np.repeat(np.arange(10, dtype=np.uint8), 12)
    images = np.broadcast_to(colours[labels][:, None, None, None], (120, 32, 32, 3)).copy()
    picture = np.asarray(draw_classes(Split(images, labels), 0))
    seen = [int(value) for value in dict.fromkeys(picture[:, 200, 0].tolist()) if value != 255]
    assert seen == colours.tolist()


def test_random_images_are_the_count_asked_for() -> None:
    """The grid holds `count` images, none twice: with a colour an image, as many colours as images."""
    images = np.zeros((24, 32, 32, 3), np.uint8)
    images[..., 0] = np.arange(24, dtype=np.uint8)[:, None, None]
    images[..., 1] = 7
    picture = np.asarray(draw_random(Split(images, np.zeros(24, np.uint8)), 0))
    shown = picture[(picture[..., 1] == 7) & (picture[..., 2] == 0)]
    assert sorted(set(shown[:, 0].tolist())) == list(range(24))


@pytest.mark.parametrize("count", [0, 321])
def test_random_count_is_bounded(count: int) -> None:
    """None, or more images than there are, is an error which gives the bounds."""
    with pytest.raises(DataError, match=f"cannot draw {count} of 320 images"):
        draw_random(TRAIN, 0, count)


def test_few_images_of_a_class_leave_places_empty() -> None:
    """A class with fewer than ten images, or none, shortens its row."""
    assert draw_classes(TRAIN.first(5), 0).size == draw_classes(TRAIN, 0).size


def test_pictures_are_written_and_replaced(tmp_path: Path) -> None:
    """Both files appear in a folder that is created, replace older ones, and leave nothing else behind."""
    folder = tmp_path / "new" / "pictures"
    write_pictures(TRAIN, folder, 1)
    paths = write_pictures(TRAIN, folder, 2)
    assert paths == [folder / "classes.png", folder / "random.png"]
    assert sorted(folder.iterdir()) == paths
    with Image.open(paths[0]) as picture:
        assert pixels(picture) == pixels(draw_classes(TRAIN, 2))


def test_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    """A folder that cannot be made is named."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot write pictures to .*file"):
        write_pictures(TRAIN, tmp_path / "file")
