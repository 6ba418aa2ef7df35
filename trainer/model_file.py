"""A model as an `.h5` file: written to bytes, and read back with what can be wrong about a file told."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import absl.logging
import keras

from trainer.errors import ModelError
from trainer.model import CLASSES, IMAGE_SHAPE
from trainer.record import TrainingRecord, read_model_bytes, write_record


def model_to_bytes(model: keras.Model, record: TrainingRecord | None = None) -> bytes:
    """The `.h5` file of `model`, optimizer state included when it is compiled.

    Args:
        model: What to store.
        record: Its training, for whoever goes on with it; None leaves it out.
    """
    with tempfile.TemporaryDirectory(prefix="cnn-search-") as folder:
        path = Path(folder) / "model.h5"
        with _without_keras_warnings():
            model.save(path)
        if record is not None:
            write_record(path, record)
        return path.read_bytes()


def load_model(path: Path) -> keras.Model:
    """The model in an `.h5` file, for inference (not compiled).

    Raises:
        ModelError: The file is missing, is no HDF5 file, or no model for 32x32x3 images and ten classes.
    """
    return model_from_bytes(read_model_bytes(path), origin=str(path))


def model_from_bytes(content: bytes, origin: str = "stored model", *, compiled: bool = False) -> keras.Model:
    """The model in the bytes of an `.h5` file.

    Args:
        content: The file.
        origin: Names it in errors.
        compiled: Compile it as the file says, if it says so; without that, as `load_model` gives it.

    Raises:
        ModelError: The bytes are no model for 32x32x3 images and ten classes.
    """
    with tempfile.TemporaryDirectory(prefix="cnn-search-") as folder:
        # Keras chooses the reader by the name's ending, which a user's file need not have.
        path = Path(folder) / "model.h5"
        path.write_bytes(content)
        try:
            with _without_keras_warnings():
                model = keras.models.load_model(path, compile=compiled, safe_mode=True)
        # Keras and h5py raise whatever they stumble over in a file that is damaged or another program's:
        # OSError, ValueError, KeyError, TypeError and AttributeError were seen.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
            raise ModelError(f"{origin}: an HDF5 file, but no Keras model that loads: {reason}") from error
    shapes = (model.input_shape, model.output_shape)
    if shapes != ((None, *IMAGE_SHAPE), (None, CLASSES)):
        batch = shapes[0][0] if isinstance(shapes[0], tuple) and shapes[0] else None
        if shapes == ((batch, *IMAGE_SHAPE), (batch, CLASSES)):
            raise ModelError(
                f"{origin}: the model takes {batch} images at a time, no more and no fewer; build it without "
                f"a fixed batch size, with keras.Input({IMAGE_SHAPE}), and give it these weights"
            )
        raise ModelError(
            f"{origin}: the model maps {shapes[0]} to {shapes[1]}, not 32x32x3 images to 10 classes"
        )
    return model


@contextlib.contextmanager
def _without_keras_warnings() -> Iterator[None]:
    """Silence Keras's advice to save as `.keras`, the article's format being `.h5`, and that on metrics."""
    logger = absl.logging.get_absl_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
