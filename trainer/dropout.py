"""Dropout whose rate and seed are tensors."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class TracedDropout(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """Dropout whose rate and seed are tensors, so that one traced program serves every trial.

    Keras's own layer compares its rate in Python, and a new rate means a new trace. The mask is a function of
    the seed alone: the same seed gives the same mask in whatever order trials, epochs and steps are run.

    A mask element is 16 random bits compared with the rate, which halves the cost of the generator; the rate
    is met to within 1/131,072, and the scale uses the rate that is met. In bfloat16 the scale itself is
    rounded, to within 0.4 %.
    """

    def __init__(self, index: int, **options: Any) -> None:
        """A dropout layer that takes element `index` of the rates and draws masks of its own."""
        # autocast off: under mixed precision Keras would round the rates to bfloat16.
        super().__init__(autocast=False, **options)
        self.index = index

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Drop elements of `features` while training.

        Args:
            inputs: features, any float dtype (batch, ...); rates, float32 (layers,), each in [0, 1);
                seed, int64 (2,).
            training: False returns the features as they are.
        """
        features, rates, seed = inputs
        if not training:
            return features
        threshold = tf.round(rates[self.index] * 65_536.0)
        shape = tf.shape(features)
        count = tf.reduce_prod(shape)
        words = tf.random.stateless_uniform(
            [(count + 1) // 2],
            seed + tf.constant([0, self.index], tf.int64),
            minval=None,
            maxval=None,
            dtype=tf.uint32,
            alg="philox",
        )
        bits = tf.reshape(tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:count], shape)
        kept = bits >= tf.cast(tf.cast(threshold, tf.int32), tf.uint16)
        scale = 65_536.0 / (65_536.0 - threshold)
        return features * (tf.cast(kept, features.dtype) * tf.cast(scale, features.dtype))
