"""Batch normalisation of the training loop, as one operation."""

from typing import Any

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # keras has no types
    """Keras's batch normalisation, trained by TensorFlow's fused operation.

    Keras's own (3.15) casts to float32 and goes over the activations in several passes, and its gradient does
    too. The fused one reads and writes them in their own dtype and computes in float32 between. Weights,
    their order and what becomes of them are the same but for rounding.

    Not on GPUs, where XLA makes one pass of several.
    """

    def call(self, inputs: tf.Tensor, training: bool = False, mask: Any = None) -> tf.Tensor:
        """Normalise by the batch's own mean and variance while training, and learn them.

        Args:
            inputs: float32 or bfloat16 (batch, height, width, channels).
            training: False normalises by what was learnt.
            mask: None; what Keras has for sequences.
        """
        if not training or tf.config.list_logical_devices("GPU"):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            is_training=True,
        )
        # It gives the estimate for other batches, n / (n - 1) of what Keras learns.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= (count - 1.0) / count
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1.0 - self.momentum))
        return outputs
