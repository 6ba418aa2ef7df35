"""The network of `trainer.model.build_twin`, for several trials with weights of their own, in JAX."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import jax
import jax.numpy as jnp
from jax import lax

from trainer.architecture import MONOTONE, SIDE, WHITENING_EPSILON, Architecture
from trainer.packed.convolution import Convolution

ACTIVATIONS: Final[Mapping[str, Callable[[jax.Array], jax.Array]]] = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda features: jax.nn.leaky_relu(features, 0.2),
    "elu": jax.nn.elu,
    "gelu": lambda features: jax.nn.gelu(features, approximate=False),
    "silu": jax.nn.silu,
}
"""Keras's, with its defaults, by the names of `trainer.limits.ACTIVATIONS`."""
NORMALISATION_MOMENTUM: Final = 0.99
NORMALISATION_EPSILON: Final = 1e-3
"""Keras's defaults for batch normalisation."""

Weights = Mapping[str, jax.Array]
"""By the paths of `trainer.weights.weights_of`, float32 (slots, ...)."""
Drop = Callable[[jax.Array, int], jax.Array]
"""Applies dropout layer `index` to features with the slots first."""


def dropped_sizes(architecture: Architecture, images: int) -> list[int]:
    """Elements that each dropout layer sees in a slot."""
    sides = [SIDE >> index for index in range(1, len(architecture.filters) + 1)]
    blocks = [side * side * filters for side, filters in zip(sides, architecture.filters, strict=True)]
    return [images * size for size in (*blocks, architecture.dense_units or architecture.filters[-1])]


@dataclass
class Pass:
    """One way through the network, for images of all slots.

    Attributes:
        architecture: What the network is made of.
        weights: Of it.
        convolution: How to convolve.
        dtype: What all but logits and statistics is computed in.
        drop: Applies dropout; None for none, and then batch normalisation uses its moving averages.
        present: Which images count in batch normalisation, bool (n,); None for all.
        moved: The moving averages of batch normalisation, as they are after a step with these images.
    """

    architecture: Architecture
    weights: Weights
    convolution: Convolution
    dtype: jnp.dtype
    drop: Drop | None = None
    present: jax.Array | None = None
    moved: dict[str, jax.Array] = field(default_factory=dict)

    def logits(self, images: jax.Array) -> jax.Array:
        """Images in [0, 1], (slots, n, 32, 32, 3), to logits, float32 (slots, n, 10)."""
        architecture = self.architecture
        features = images.astype(self.dtype)
        if architecture.whitening:
            features = _whiten(features)
        features = self.convolution.arrange(features)
        for index in range(len(architecture.filters)):
            features = self._block(features, index)
            if self.drop is not None:
                dropped = self.drop(self.convolution.restore(features), index)
                features = self.convolution.arrange(dropped)
        features = self.convolution.restore(features)
        if architecture.dense_units:
            flat = features.reshape(*features.shape[:2], -1)
            features = ACTIVATIONS[architecture.activation](self._dense(flat, "dense", self.dtype))
        else:
            features = jnp.mean(features, axis=(2, 3))
        if self.drop is not None:
            features = self.drop(features, len(architecture.filters))
        return self._dense(features, "classes", jnp.dtype(jnp.float32))

    def _block(self, features: jax.Array, index: int) -> jax.Array:
        """Block `index`'s layers but for its dropout."""
        architecture, block = self.architecture, f"block{index + 1}"
        activate = ACTIVATIONS[architecture.activation]
        entered = features
        for number in range(1, architecture.convolutions + 1):
            suffix, is_last = "" if number == 1 else str(number), number == architecture.convolutions
            features = self._convolve(features, f"{block}_conv{suffix}")
            features = self._normalise(features, f"{block}_norm{suffix}")
            if not is_last:
                features = activate(features)
        if architecture.residual:
            if entered.shape[-1] != features.shape[-1]:
                entered = self._convolve(entered, f"{block}_shortcut")
                entered = self._normalise(entered, f"{block}_shortcut_norm")
            features = features + entered
        # What never falls and a maximum may change places; it then sees a quarter of the elements.
        if architecture.activation in MONOTONE:
            return activate(self._pool(features))
        return self._pool(activate(features))

    def _convolve(self, features: jax.Array, layer: str) -> jax.Array:
        kernels = self.weights[f"{layer}/kernel"].astype(self.dtype)
        convolved = self.convolution(features, kernels)
        return _add(convolved, self.convolution.spread(self.weights[f"{layer}/bias"]))

    def _dense(self, features: jax.Array, layer: str, dtype: jnp.dtype) -> jax.Array:
        """(slots, n, inputs) to (slots, n, units), in that type."""
        kernels = self.weights[f"{layer}/kernel"].astype(dtype)
        products = jnp.einsum(
            "gni,giu->gnu", features.astype(dtype), kernels, precision=self.convolution.products
        )
        return _add(products, self.weights[f"{layer}/bias"][:, None])

    def _pool(self, features: jax.Array) -> jax.Array:
        """The largest of each two by two; the first of equals gets the gradient."""
        for axis in (self.convolution.row_axis + 1, self.convolution.row_axis):
            # Not by a window: XLA scatters its gradient, which is slow on GPUs.
            first, second = (lax.slice_in_dim(features, start, None, 2, axis) for start in (0, 1))
            features = jnp.where(first >= second, first, second)
        return features

    def _normalise(self, features: jax.Array, layer: str) -> jax.Array:
        """Batch normalisation, where the architecture has it, in float32."""
        if not self.architecture.batch_normalization:
            return features
        spread = self.convolution.spread
        gamma, beta, mean, variance = (
            self.weights[f"{layer}/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        wide = features.astype(jnp.float32)
        if self.drop is not None:
            moving = {"mean": mean, "variance": variance}
            mean = self._average(wide)
            variance = self._average(jnp.square(wide - spread(mean)))
            for name, value in (("mean", mean), ("variance", variance)):
                old, new = NORMALISATION_MOMENTUM * moving[name], (1 - NORMALISATION_MOMENTUM) * value
                self.moved[f"{layer}/moving_{name}"] = lax.stop_gradient(old + new)
        scale = gamma * lax.rsqrt(variance + NORMALISATION_EPSILON)
        return (wide * spread(scale) + spread(beta - mean * scale)).astype(features.dtype)

    def _average(self, features: jax.Array) -> jax.Array:
        """The mean over images, rows and columns: (slots, channels)."""
        ordered = self.convolution.restore(features)
        if self.present is None:
            return jnp.mean(ordered, axis=(1, 2, 3))
        places = ordered.shape[2] * ordered.shape[3]
        counted = jnp.where(self.present[None, :, None, None, None], ordered, 0.0)
        return jnp.sum(counted, axis=(1, 2, 3)) / (jnp.sum(self.present) * places)


def _add(features: jax.Array, biases: jax.Array) -> jax.Array:
    """Their sum, in the type of the features, which the biases are rounded to; they are float32."""
    rounded = biases.astype(features.dtype).astype(jnp.float32)
    # In float32, so that the gradient, a sum over all images and places, is too.
    return (features.astype(jnp.float32) + rounded).astype(features.dtype)


def _whiten(images: jax.Array) -> jax.Array:
    """Each image with zero mean and unit variance, as Keras's GroupNormalization of one group gives it."""
    wide = images.astype(jnp.float32)
    mean = jnp.mean(wide, axis=(2, 3, 4), keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=(2, 3, 4), keepdims=True)
    return ((wide - mean) * lax.rsqrt(variance + WHITENING_EPSILON)).astype(images.dtype)
