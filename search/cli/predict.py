"""`cnn-search predict`."""

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from search.cli.options import debug_option, json_option
from search.cli.terminal import complain, show
from search.output import show_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from trainer.picture_input import PictureInput

STDIN: Final = "-"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("pictures", metavar="IMAGE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--top",
    type=click.IntRange(1, 10),
    default=3,
    show_default=True,
    help="How many classes to name for each picture, the likeliest first.",
)
@json_option
@debug_option
def predict(model: Path, pictures: tuple[str, ...], top: int, as_json: bool) -> int:
    """Name what pictures show, by the model in the file MODEL (.h5).

    Pictures may have any size and any usual format; - reads one from stdin. Of each, the square in the
    middle counts, which is brought to 32x32, upright by its EXIF data, on white where it is transparent.
    One that cannot be read is told, and the others are named all the same; the exit code is 1 then.
    """
    from trainer.record import read_model_bytes

    # First: a thousand pictures are read in vain without it.
    content = read_model_bytes(model)
    read = [_read(name) for name in pictures]
    # A model's answer takes TensorFlow's seconds, which nobody need wait for without a picture.
    seen = [one.pixels for one in read if not isinstance(one, str)]
    probabilities = iter(_predict(content, show_name(model), seen))
    results: list[dict[str, Any]] = []
    for name, one in zip(pictures, read, strict=True):
        if isinstance(one, str):
            results.append({"file": name, "error": one})
        else:
            results.append(
                {"file": name, **_name_classes(next(probabilities), top), "notes": list(one.notes)}
            )
    if as_json:
        click.echo(json.dumps({"model": str(model), "pictures": results}, indent=2))
    for result in results:
        if "error" in result:
            complain(f"{show_name(result['file'])}: {result['error']}")
        elif not as_json:
            show(_line(result))
    return 1 if any("error" in result for result in results) else 0


def _read(name: str) -> "PictureInput | str":
    """The picture of that name, or what is wrong with it."""
    from trainer.errors import PictureError
    from trainer.picture_input import read_picture, read_picture_file

    try:
        if name == STDIN:
            if sys.stdin is None:
                return "stdin is closed"
            return read_picture_file(io.BytesIO(sys.stdin.buffer.read()))
        return read_picture(Path(name))
    except PictureError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _predict(content: bytes, origin: str, images: "list[npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
    """Probabilities, float32 (n, 10), for images, uint8 (32, 32, 3), by a model's `.h5`."""
    import numpy as np

    from search.runtime import start_tensorflow

    if not images:
        return np.zeros((0, 10), np.float32)
    start_tensorflow()
    from trainer.model_file import model_from_bytes
    from trainer.prediction import predict as predict_images

    return predict_images(model_from_bytes(content, origin), np.stack(images), origin)


def _name_classes(probabilities: "npt.NDArray[np.float32]", top: int) -> dict[str, Any]:
    """The `top` likeliest classes, the first of equals first."""
    import numpy as np

    from trainer.cifar10 import CLASS_NAMES

    order = np.argsort(-probabilities, kind="stable")[:top]
    return {
        "classes": [CLASS_NAMES[index] for index in order],
        "probabilities": [float(probabilities[index]) for index in order],
    }


def _line(result: dict[str, Any]) -> str:
    pairs = zip(result["classes"], result["probabilities"], strict=True)
    named = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in pairs)
    notes = f" ({'; '.join(result['notes'])})" if result["notes"] else ""
    return f"{show_name(result['file'])}: {named}{notes}"
