"""What a model takes images for that nobody has labelled."""

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.device import telling_out_of_memory
from trainer.evaluation import BATCH, describe_outputs, measure_outputs, scale


def predict(
    model: keras.Model, images: npt.NDArray[np.uint8], origin: str = "stored model"
) -> npt.NDArray[np.float32]:
    """The probability of each class for each image.

    Args:
        model: Maps images in [0, 1] to class probabilities.
        images: uint8 (n, 32, 32, 3), n at least 1.
        origin: Names the model in errors.

    Returns:
        float32 (n, 10), rows that sum up to 1.

    Raises:
        ModelError: What the model gives is no probability.
        OutOfMemoryError: The device had no memory left.
    """
    with telling_out_of_memory():
        parts = [
            np.asarray(model(scale(tf.constant(images[first : first + BATCH]), tf.float32), training=False))
            for first in range(0, len(images), BATCH)
        ]
        probabilities = np.concatenate(parts).astype(np.float32)
        describe_outputs(measure_outputs(probabilities)).check(origin)
    return probabilities
