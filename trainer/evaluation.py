"""Score a model on a split, always in float32, so that a stored file has one score."""

from dataclasses import dataclass
from typing import Final

import keras
import tensorflow as tf

from trainer.cifar10 import Split
from trainer.model import build_model
from trainer.recipe import ARTICLE

BATCH: Final = 500
"""Images a step when scoring; large enough to keep two cores busy, small enough for 100 MB of activations."""


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy and accuracy in [0, 1] over `images` images."""

    loss: float
    accuracy: float
    images: int


class Evaluator:
    """Scores models on one split; its program is traced once, however many models it scores.

    The images lie on the device as uint8 from the first score on.
    """

    def __init__(self, split: Split) -> None:
        """An evaluator for `split`: images uint8 (n, 32, 32, 3), labels (n,)."""
        self._images = tf.constant(split.images)
        self._labels = tf.constant(split.labels, tf.int32)
        self._model = build_model(ARTICLE)
        self._run = tf.function(self._score)

    def score(self, model: keras.Model) -> Score:
        """The scores of `model`, an instance of the baseline CNN with any weights."""
        self._model.set_weights(model.get_weights())
        loss, hits = self._run()
        images = len(self._labels)
        return Score(float(loss) / images, int(hits) / images, images)

    def _score(self) -> tuple[tf.Tensor, tf.Tensor]:
        images = len(self._labels)
        loss, hits = tf.zeros([], tf.float64), tf.zeros([], tf.int32)
        for first in tf.range(0, images, BATCH):
            last = tf.minimum(first + BATCH, images)
            labels = self._labels[first:last]
            probabilities = self._model(scale(self._images[first:last], tf.float32), training=False)
            losses = keras.ops.sparse_categorical_crossentropy(labels, probabilities)
            loss += tf.cast(tf.reduce_sum(losses), tf.float64)
            hits += count_hits(labels, probabilities)
        return loss, hits


def scale(images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Bytes to [0, 1], the article's scaling: uint8 (n, 32, 32, 3) to `dtype` of the same shape."""
    return tf.cast(images, dtype) / 255


def count_hits(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """How many labels, int32 (n,), are the index of the largest of their scores (n, classes)."""
    return tf.reduce_sum(tf.cast(tf.argmax(scores, axis=1, output_type=tf.int32) == labels, tf.int32))
