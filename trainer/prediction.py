"""What a model takes images for that nobody has labelled."""

from typing import Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.device import telling_out_of_memory
from trainer.errors import ModelError
from trainer.evaluation import BATCH, scale

TOLERANCE: Final = 1e-3
"""How far from 1 an image's probabilities may sum up."""


def predict(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The probability of each class for each image.

    Args:
        model: Maps images in [0, 1] to class probabilities.
        images: uint8 (n, 32, 32, 3), n at least 1.

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
    # NaN fails every comparison.
    if not (probabilities.min() >= 0 and np.abs(probabilities.sum(axis=1) - 1).max() <= TOLERANCE):
        raise ModelError(
            f"the model gives no probabilities, but numbers from {probabilities.min():.3g} to "
            f"{probabilities.max():.3g}; its last layer should be a softmax"
        )
    return probabilities
