"""Score a model on a split, always in float32, so that a stored file has one score."""

import functools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.cifar10 import CLASS_NAMES
from trainer.device import DeviceSplit, telling_out_of_memory
from trainer.errors import ModelError
from trainer.recent import Recent

BATCH: Final = 100
"""Images a step when scoring: as fast as 500 on two cores, with a fifth of its memory for activations."""

PIECE: Final = 10 * BATCH
"""Images between two looks at the outside world: seconds of the largest networks."""

PROGRAMS: Final = 4
"""Programs of scoring that are kept, those of the architectures scored last."""

TOLERANCE: Final = 1e-3
"""How far from 1 an image's probabilities may sum up."""


@dataclass(frozen=True, eq=False)
class Score:
    """What a model makes of a split.

    Attributes:
        loss: Mean cross-entropy.
        accuracy: Share of images classified rightly, in [0, 1]: the confusion's diagonal over `images`.
        images: How many were scored.
        confusion: int32 (10, 10), read-only: how many images of a class, the row, were taken for a class, the
            column, both indices into `CLASS_NAMES`.
        hits: bool (images,), read-only: which images were classified rightly.
    """

    loss: float
    accuracy: float
    images: int
    confusion: npt.NDArray[np.int32]
    hits: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outputs:
    """What a model's answers are like.

    Attributes:
        low: The least of them, where all are numbers.
        high: The largest.
        numbers: Whether all of them are numbers, infinite ones included.
        probabilities: Whether none is below 0 and each image's sum up to 1, as far as `TOLERANCE` tells.
    """

    low: float
    high: float
    numbers: bool
    probabilities: bool

    def check(self, origin: str) -> None:
        """See that they are probabilities.

        Args:
            origin: Names the model in the error.

        Raises:
            ModelError: They are not: nothing that is made of them would mean anything.
        """
        if not self.numbers:
            raise ModelError(f"{origin}: the model gives NaN: its training diverged; take an earlier one")
        if not self.probabilities:
            raise ModelError(
                f"{origin}: the model gives no probabilities, but numbers from {self.low:.3g} to "
                f"{self.high:.3g}; its last layer should be a softmax"
            )


_Sums = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""Summed loss, float64 (); confusion, int32 (10, 10); `measure_outputs` of all, float32 (4,)."""
_Run = Callable[..., tuple[_Sums, tf.Tensor]]
"""What `Evaluator._score` is as a program."""


class Evaluator:
    """Scores models on one split; a program is traced once for each architecture."""

    def __init__(self, split: DeviceSplit) -> None:
        """An evaluator for `split`."""
        self._split = split
        self._programs: Recent[str, tuple[keras.Model, _Run]] = Recent(PROGRAMS)

    def score(
        self, model: keras.Model, look: Callable[[], None] = lambda: None, *, checked_as: str | None = None
    ) -> Score:
        """The scores of `model`, which maps images in [0, 1] to class probabilities.

        Args:
            model: What to score.
            look: Called between pieces of the split; what it raises ends the scoring.
            checked_as: See that it does give probabilities; names it in the error. None takes it for granted,
                as of a trial's, whose training looks for NaN itself.

        Raises:
            ModelError: It was to be checked, and gives none.
            OutOfMemoryError: The device had no memory left.
        """
        with telling_out_of_memory():
            (loss, counts, outputs), hits = self._sum(model, look)
        if checked_as is not None:
            describe_outputs(outputs).check(checked_as)
        images, confusion = len(self._split), counts.numpy()
        # It may be TensorFlow's own memory.
        confusion.flags.writeable = False
        hits.flags.writeable = False
        return Score(float(loss) / images, int(confusion.trace()) / images, images, confusion, hits)

    def _sum(self, model: keras.Model, look: Callable[[], None]) -> tuple[_Sums, npt.NDArray[np.bool_]]:
        """The sums over the split, and which images were classified rightly, (images,)."""
        resident, run = self._programs.get(_describe_architecture(model), lambda: self._program(model))
        resident.set_weights(model.get_weights())
        classes = len(CLASS_NAMES)
        sums: _Sums = (
            tf.zeros([], tf.float64),
            tf.zeros([classes, classes], tf.int32),
            tf.fill([4], -math.inf),
        )
        found = [np.zeros(0, np.bool_)]
        for first, last in pieces(len(self._split), look):
            sums, hits = run(tf.constant(first), tf.constant(last), *sums)
            found.append(hits.numpy())
        return sums, np.concatenate(found)

    def _program(self, model: keras.Model) -> tuple[keras.Model, _Run]:
        resident = keras.models.clone_model(model)
        return resident, tf.function(functools.partial(self._score, resident))

    def _score(
        self,
        model: keras.Model,
        first: tf.Tensor,
        last: tf.Tensor,
        loss: tf.Tensor,
        confusion: tf.Tensor,
        outputs: tf.Tensor,
    ) -> tuple[_Sums, tf.Tensor]:
        """The sums, with those of images `first` to `last` - 1 added batch by batch, and their hits."""
        classes = len(CLASS_NAMES)
        # The last batch may be smaller than the others.
        hits = tf.TensorArray(tf.bool, size=0, dynamic_size=True, infer_shape=False, element_shape=[None])
        for begin in tf.range(first, last, BATCH):
            # Ten batches at once would take ten times the memory.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            end = tf.minimum(begin + BATCH, last)
            labels = self._split.labels[begin:end]
            probabilities = model(scale(self._split.images[begin:end], tf.float32), training=False)
            losses = keras.ops.sparse_categorical_crossentropy(labels, probabilities)
            loss += tf.cast(tf.reduce_sum(losses), tf.float64)
            chosen = choose_classes(probabilities)
            confusion += tf.math.confusion_matrix(labels, chosen, classes)
            outputs = tf.maximum(outputs, measure_outputs(probabilities))
            hits = hits.write(hits.size(), chosen == labels)
        return (loss, confusion, outputs), hits.concat()


def measure_outputs(outputs: tf.Tensor) -> tf.Tensor:
    """What is to be known of a batch's outputs, (n, 10): float32 (4,), for `describe_outputs`.

    Of several batches, the largest of each. What is NaN counts by itself: a maximum may drop it.
    """
    outputs = tf.cast(outputs, tf.float32)
    numbers = tf.where(tf.math.is_nan(outputs), 0.0, outputs)
    off = tf.abs(tf.reduce_sum(numbers, axis=1) - 1)
    return tf.stack(
        [
            -tf.reduce_min(numbers),
            tf.reduce_max(numbers),
            # Infinities of both signs sum up to NaN.
            tf.reduce_max(tf.where(tf.math.is_nan(off), math.inf, off)),
            tf.cast(tf.reduce_any(tf.math.is_nan(outputs)), tf.float32),
        ]
    )


def describe_outputs(measured: tf.Tensor) -> Outputs:
    """What `measure_outputs` gave, as values."""
    least, high, off, nan = map(float, measured.numpy())
    return Outputs(-least, high, numbers=not nan, probabilities=least <= 0 and off <= TOLERANCE)


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
