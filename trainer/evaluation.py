"""Score a model on a split, always in float32, so that a stored file has one score."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import keras
import tensorflow as tf

from trainer.device import DeviceSplit

BATCH: Final = 200
"""Images a step when scoring: as fast as 500 on two cores, with 40 % of its memory for activations."""


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy and accuracy in [0, 1] over `images` images."""

    loss: float
    accuracy: float
    images: int


class Evaluator:
    """Scores models on one split; a program is traced once for each architecture."""

    def __init__(self, split: DeviceSplit) -> None:
        """An evaluator for `split`."""
        self._split = split
        self._programs: dict[str, tuple[keras.Model, Callable[[], tuple[tf.Tensor, tf.Tensor]]]] = {}

    def score(self, model: keras.Model) -> Score:
        """The scores of `model`, which maps images in [0, 1] to class probabilities."""
        architecture = _describe_architecture(model)
        if architecture not in self._programs:
            resident = keras.models.clone_model(model)
            self._programs[architecture] = resident, tf.function(functools.partial(self._score, resident))
        resident, run = self._programs[architecture]
        resident.set_weights(model.get_weights())
        loss, hits = run()
        images = len(self._split)
        return Score(float(loss) / images, int(hits) / images, images)

    def _score(self, model: keras.Model) -> tuple[tf.Tensor, tf.Tensor]:
        images = len(self._split)
        loss, hits = tf.zeros([], tf.float64), tf.zeros([], tf.int32)
        for first in tf.range(0, images, BATCH):
            # Ten batches at once would take ten times the memory.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            last = tf.minimum(first + BATCH, images)
            labels = self._split.labels[first:last]
            probabilities = model(scale(self._split.images[first:last], tf.float32), training=False)
            losses = keras.ops.sparse_categorical_crossentropy(labels, probabilities)
            loss += tf.cast(tf.reduce_sum(losses), tf.float64)
            hits += count_hits(labels, probabilities)
        return loss, hits


def _describe_architecture(model: keras.Model) -> str:
    """What two models must have in common to give the same scores for the same weights."""

    def prune(config: Any) -> Any:
        if isinstance(config, dict):
            # Dropout's, which do nothing when a model is scored.
            return {key: prune(value) for key, value in config.items() if key not in ("rate", "seed")}
        return [prune(value) for value in config] if isinstance(config, (list, tuple)) else config

    return json.dumps(prune(model.get_config()), sort_keys=True, default=str)


def scale(images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Bytes to [0, 1], the article's scaling: uint8 (n, 32, 32, 3) to `dtype` of the same shape."""
    return tf.cast(images, dtype) / 255


def count_hits(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """How many labels, int32 (n,), are the index of the largest of their scores (n, classes)."""
    return tf.reduce_sum(tf.cast(tf.argmax(scores, axis=1, output_type=tf.int32) == labels, tf.int32))
