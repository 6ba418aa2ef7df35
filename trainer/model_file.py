"""A model as an `.h5` file: written to bytes, and read back with what can be wrong about a file told."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import absl.logging
import keras

from trainer.errors import ModelError
from trainer.model import CLASSES, IMAGE_SHAPE

HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"


def model_to_bytes(model: keras.Model) -> bytes:
    """The `.h5` file of `model`, optimizer state included when it is compiled."""
    with tempfile.TemporaryDirectory(prefix="cnn-search-") as folder:
        path = Path(folder) / "model.h5"
        with _without_legacy_warning():
            model.save(path)
        return path.read_bytes()


def load_model(path: Path) -> keras.Model:
    """The model in an `.h5` file, for inference (not compiled).

    Raises:
        ModelError: The file is missing, is no HDF5 file, or no model for 32x32x3 images and ten classes.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; `cnn-search best --output best.h5` writes one")
    try:
        with path.open("rb") as file:
            if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
                raise ModelError(f"{path}: not an .h5 model; give a file that `cnn-search best` wrote")
            return model_from_bytes(HDF5_SIGNATURE + file.read(), origin=str(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def model_from_bytes(content: bytes, origin: str = "stored model") -> keras.Model:
    """The model in the bytes of an `.h5` file, as `load_model` gives it; `origin` names it in errors."""
    with tempfile.TemporaryDirectory(prefix="cnn-search-") as folder:
        # Keras chooses the reader by the name's ending, which a user's file need not have.
        path = Path(folder) / "model.h5"
        path.write_bytes(content)
        try:
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        # Keras and h5py raise whatever they stumble over in a file that is damaged or another program's:
        # OSError, ValueError, KeyError, TypeError and AttributeError were seen.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
            raise ModelError(f"{origin}: an HDF5 file, but no Keras model that loads: {reason}") from error
    shapes = (model.input_shape, model.output_shape)
    if shapes != ((None, *IMAGE_SHAPE), (None, CLASSES)):
        raise ModelError(
            f"{origin}: the model maps {shapes[0]} to {shapes[1]}, not 32x32x3 images to 10 classes"
        )
    return model


@contextlib.contextmanager
def _without_legacy_warning() -> Iterator[None]:
    """Silence Keras's advice to save as `.keras`: the article's format is `.h5`."""
    logger = absl.logging.get_absl_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
