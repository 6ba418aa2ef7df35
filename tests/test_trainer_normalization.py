"""trainer.normalization: the fused operation is Keras's batch normalisation."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported
# isort: on

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.normalization import FusedBatchNormalization

SHAPES = [(64, 8, 8, 16), (3, 2, 2, 8), (1, 1, 1, 8)]
"""Usual; the rest of an epoch; one value for each channel."""


def train_step(layer: keras.layers.Layer, images: tf.Tensor, upstream: tf.Tensor) -> list[np.ndarray]:
    """Outputs, and gradients to the images, gamma and beta, of a traced step."""

    @tf.function
    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=True)
        sources = [images, layer.gamma.value, layer.beta.value]
        return [outputs, *tape.gradient(outputs, sources, upstream)]

    results = run()
    assert results[0].dtype == results[1].dtype == images.dtype
    return [np.asarray(tf.cast(result, tf.float32)) for result in results]


def prepared(kind: type[keras.layers.Layer], shape: tuple[int, ...], policy: str) -> Any:
    """A layer whose weights are not those that it begins with."""
    layer = kind(dtype=policy)
    layer.build(shape)
    draws = np.random.default_rng(5)
    layer.set_weights([draws.uniform(0.5, 1.5, shape[-1]).astype(np.float32) for _ in layer.weights])
    return layer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 2e-2)])
def test_a_step_is_that_of_keras(shape: tuple[int, ...], policy: str, tolerance: float) -> None:
    """Outputs, gradients, and what is learnt of mean and variance; then the same inference."""
    draws = np.random.default_rng(3)
    dtype = "bfloat16" if "bfloat16" in policy else "float32"
    images, upstream = (tf.cast(tf.constant(draws.normal(1, 2, shape)), dtype) for _ in range(2))
    stock, fused = (
        prepared(kind, shape, policy) for kind in (keras.layers.BatchNormalization, FusedBatchNormalization)
    )
    assert [weight.path.split("/")[-1] for weight in fused.weights] == [
        weight.path.split("/")[-1] for weight in stock.weights
    ]
    expected, results = train_step(stock, images, upstream), train_step(fused, images, upstream)

    for one, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * max(1.0, float(np.abs(other).max())))
    for learnt, wanted in zip(fused.get_weights(), stock.get_weights(), strict=True):
        assert learnt.dtype == np.float32
        np.testing.assert_allclose(learnt, wanted, rtol=1e-3)
    np.testing.assert_allclose(
        *(np.asarray(tf.cast(layer(images, training=False), tf.float32)) for layer in (fused, stock)),
        atol=tolerance * 10,
    )


def test_inference_learns_nothing() -> None:
    """Scoring leaves the weights as they are."""
    layer = prepared(FusedBatchNormalization, SHAPES[0], "float32")
    before = layer.get_weights()
    layer(tf.ones(SHAPES[0]), training=False)
    for one, other in zip(layer.get_weights(), before, strict=True):
        assert np.array_equal(one, other)


def test_with_a_gpu_the_layer_is_that_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA makes one pass of it there."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", None)
    layer = prepared(FusedBatchNormalization, SHAPES[0], "float32")
    moving = layer.get_weights()[2]
    layer(tf.ones(SHAPES[0]), training=True)
    assert not np.array_equal(layer.get_weights()[2], moving)
