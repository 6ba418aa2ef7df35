"""Score a model on a split, always in float32, so that a stored file has one score."""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.cifar10 import CLASS_NAMES
from trainer.device import DeviceSplit, telling_out_of_memory
from trainer.recent import Recent

BATCH: Final = 100
"""Images a step when scoring: as fast as 500 on two cores, with a fifth of its memory for activations."""

PIECE: Final = 10 * BATCH
"""Images between two looks at the outside world: seconds of the largest networks."""

PROGRAMS: Final = 4
"""Programs of scoring that are kept, those of the architectures scored last."""


@dataclass(frozen=True, eq=False)
class Score:
    """What a model makes of a split.

    Attributes:
        loss: Mean cross-entropy.
        accuracy: Share of images classified rightly, in [0, 1]: the confusion's diagonal over `images`.
        images: How many were scored.
        confusion: int32 (10, 10), read-only: how many images of a class, the row, were taken for a class, the
            column, both indices into `CLASS_NAMES`.
    """

    loss: float
    accuracy: float
    images: int
    confusion: npt.NDArray[np.int32]


class Evaluator:
    """Scores models on one split; a program is traced once for each architecture."""

    def __init__(self, split: DeviceSplit) -> None:
        """An evaluator for `split`."""
        self._split = split
        self._programs: Recent[str, tuple[keras.Model, Callable[..., tuple[tf.Tensor, tf.Tensor]]]] = Recent(
            PROGRAMS
        )

    def score(self, model: keras.Model, look: Callable[[], None] = lambda: None) -> Score:
        """The scores of `model`, which maps images in [0, 1] to class probabilities.

        Args:
            model: What to score.
            look: Called between pieces of the split; what it raises ends the scoring.

        Raises:
            OutOfMemoryError: The device had no memory left.
        """
        with telling_out_of_memory():
            return self._score_all(model, look)

    def _score_all(self, model: keras.Model, look: Callable[[], None]) -> Score:
        resident, run = self._programs.get(_describe_architecture(model), lambda: self._program(model))
        resident.set_weights(model.get_weights())
        images, classes = len(self._split), len(CLASS_NAMES)
        loss, counts = tf.zeros([], tf.float64), tf.zeros([classes, classes], tf.int32)
        for first, last in pieces(images, look):
            loss, counts = run(tf.constant(first), tf.constant(last), loss, counts)
        confusion = counts.numpy()
        # It may be TensorFlow's own memory.
        confusion.flags.writeable = False
        return Score(float(loss) / images, int(confusion.trace()) / images, images, confusion)

    def _program(self, model: keras.Model) -> tuple[keras.Model, Callable[..., tuple[tf.Tensor, tf.Tensor]]]:
        resident = keras.models.clone_model(model)
        return resident, tf.function(functools.partial(self._score, resident))

    def _score(
        self, model: keras.Model, first: tf.Tensor, last: tf.Tensor, loss: tf.Tensor, confusion: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The sums, with those of images `first` to `last` - 1 added batch by batch."""
        classes = len(CLASS_NAMES)
        for begin in tf.range(first, last, BATCH):
            # Ten batches at once would take ten times the memory.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            end = tf.minimum(begin + BATCH, last)
            labels = self._split.labels[begin:end]
            probabilities = model(scale(self._split.images[begin:end], tf.float32), training=False)
            losses = keras.ops.sparse_categorical_crossentropy(labels, probabilities)
            loss += tf.cast(tf.reduce_sum(losses), tf.float64)
            confusion += tf.math.confusion_matrix(labels, choose_classes(probabilities), classes)
        return loss, confusion


def pieces(images: int, look: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """The first image of each piece of a split and the one after its last; looks between two pieces."""
    for first in range(0, images, PIECE):
        if first:
            look()
        yield first, min(first + PIECE, images)


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


def choose_classes(scores: tf.Tensor) -> tf.Tensor:
    """The index of the largest of each image's scores, the first of equals: (n, classes) to int32 (n,)."""
    return tf.argmax(scores, axis=1, output_type=tf.int32)


def count_hits(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """How many labels, int32 (n,), are the index of the largest of their scores (n, classes)."""
    return tf.reduce_sum(tf.cast(choose_classes(scores) == labels, tf.int32))
