"""The network that trials train, on the device, with the traced program that validates it."""

from collections.abc import Callable

import keras
import tensorflow as tf

from trainer.architecture import CLASSES, Architecture
from trainer.device import DeviceSplit
from trainer.evaluation import BATCH, count_hits, pieces, scale
from trainer.model import build_twin
from trainer.precision import Precision


class Network:
    """A CNN in one precision, with one set of weights, those of the trial that is loaded.

    Attributes:
        model: `build_twin`'s.
        precision: What it computes in.
        rates: Dropout rates of the loaded trial, float32 (blocks + 1,).
    """

    def __init__(
        self,
        architecture: Architecture,
        precision: Precision,
        validation: DeviceSplit,
        on_trace: Callable[[], None] = lambda: None,
    ) -> None:
        """The network of that architecture, to be validated on that split.

        `on_trace` is called when that is traced: once, whatever optimizers train the weights.
        """
        self.model = build_twin(precision, architecture)
        self.precision = precision
        self.rates = tf.Variable(tf.zeros([len(architecture.filters) + 1]), trainable=False)
        self._loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
        self._loss_of_shares = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
        self._on_trace = on_trace
        self._validation = validation
        self._run_validation = tf.function(self._trace_validation)

    def validate(self, look: Callable[[], None] = lambda: None) -> tuple[float, float]:
        """Mean cross-entropy and accuracy in [0, 1] over the validation images.

        Args:
            look: Called between pieces of them; what it raises ends the validation.
        """
        images = len(self._validation)
        loss, hits = tf.zeros([]), tf.zeros([], tf.int32)
        for first, last in pieces(images, look):
            loss, hits = self._run_validation(tf.constant(first), tf.constant(last), loss, hits)
        return float(loss) / images, int(hits) / images

    def loss(
        self, labels: tf.Tensor, logits: tf.Tensor, label_smoothing: tf.Variable | None = None
    ) -> tf.Tensor:
        """Cross-entropy summed over a batch.

        Args:
            labels: int32 (n,).
            logits: float32 (n, 10).
            label_smoothing: float32 (), in [0, 1); None for none.

        Returns:
            float32 ().
        """
        if label_smoothing is None:
            return self._loss(labels, logits)
        # Keras's formula; its own losses ask in Python whether there is any smoothing.
        shares = tf.one_hot(labels, CLASSES) * (1.0 - label_smoothing) + label_smoothing / CLASSES
        return self._loss_of_shares(shares, logits)

    def _trace_validation(
        self, first: tf.Tensor, last: tf.Tensor, loss: tf.Tensor, hits: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The sums, with those of images `first` to `last` - 1 added batch by batch."""
        self._on_trace()
        dtype = tf.as_dtype(self.precision)
        seed = tf.zeros([2], tf.int64)
        for begin in tf.range(first, last, BATCH):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            end = tf.minimum(begin + BATCH, last)
            labels = self._validation.labels[begin:end]
            inputs = scale(self._validation.images[begin:end], dtype)
            logits = self.model([inputs, self.rates, seed], training=False)
            loss += self._loss(labels, logits)
            hits += count_hits(labels, logits)
        return loss, hits
