"""Convolutions of several trials, each by weights of its own: ways to tell XLA.

No library has an operation for them, and which of the ways is fast differs between devices
(https://github.com/jax-ml/jax/issues/13800). All give the same numbers but for the order of sums.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

Lowering = Literal["vmap", "grouped", "slices", "patches"]
"""How a convolution is told:

- vmap: what `jax.vmap` makes of one trial's, which is a grouped convolution between transpositions;
- grouped: a grouped convolution, the slots beside the channels throughout the network;
- slices: a batched matrix product for each of the kernel's nine places, of the shifted images, summed up;
- patches: one batched matrix product of each place's whole neighbourhood (im2col).
"""
LOWERINGS: Final[tuple[Lowering, ...]] = get_args(Lowering)


@dataclass(frozen=True)
class Convolution:
    """A way to convolve, with the order of axes that goes with it.

    Attributes:
        lowering: The way.
        products: How exactly float32 is multiplied.
    """

    lowering: Lowering
    products: lax.Precision

    @property
    def slot_axis(self) -> int:
        """Where the slots are: features are (slots, n, rows, columns, channels), or the slots come fourth."""
        return 3 if self.lowering == "grouped" else 0

    @property
    def row_axis(self) -> int:
        """Of features; the columns come next."""
        return 1 if self.lowering == "grouped" else 2

    def arrange(self, features: jax.Array) -> jax.Array:
        """Features with the slots first, ordered as convolutions take and give them."""
        return jnp.moveaxis(features, 0, self.slot_axis)

    def restore(self, features: jax.Array) -> jax.Array:
        """Features with the slots first again."""
        return jnp.moveaxis(features, self.slot_axis, 0)

    def spread(self, values: jax.Array) -> jax.Array:
        """Numbers of each slot and channel, (slots, channels), shaped to be combined with features."""
        return self.arrange(values[:, None, None, None, :])

    def __call__(self, features: jax.Array, kernels: jax.Array) -> jax.Array:
        """The features convolved, padded with zeros to the same size.

        Args:
            features: As `arrange` orders (slots, n, rows, columns, channels).
            kernels: (slots, k, k, channels, filters), of the same type, k odd.
        """
        match self.lowering:
            case "vmap":
                return jax.vmap(self._convolve)(features, kernels)
            case "grouped":
                return self._convolve_groups(features, kernels)
            case "slices":
                return self._sum_slices(features, kernels)
            case "patches":
                size, channels = kernels.shape[1], kernels.shape[1] ** 2 * kernels.shape[3]
                patches = jnp.concatenate(_shift(features, size), axis=4)
                return self._multiply(patches, kernels.reshape(len(kernels), channels, -1))

    def _convolve(self, features: jax.Array, kernel: jax.Array, groups: int = 1) -> jax.Array:
        return lax.conv_general_dilated(
            features,
            kernel,
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision=self.products,
        )

    def _convolve_groups(self, features: jax.Array, kernels: jax.Array) -> jax.Array:
        n, rows, columns, slots, channels = features.shape
        size, filters = kernels.shape[1], kernels.shape[4]
        # (k, k, channels, slots x filters): the filters of a group stand together.
        kernel = jnp.transpose(kernels, (1, 2, 3, 0, 4)).reshape(size, size, channels, slots * filters)
        images = features.reshape(n, rows, columns, slots * channels)
        return self._convolve(images, kernel, slots).reshape(n, rows, columns, slots, filters)

    def _sum_slices(self, features: jax.Array, kernels: jax.Array) -> jax.Array:
        slots, size, _, channels, filters = kernels.shape
        kernels = jnp.moveaxis(kernels.reshape(slots, size * size, channels, filters), 1, 0)
        # Rounded once, not at each of the sums.
        products = (
            self._multiply(images, kernel, jnp.float32)
            for images, kernel in zip(_shift(features, size), kernels, strict=True)
        )
        total = next(products)
        for product in products:
            total = total + product
        return total.astype(features.dtype)

    def _multiply(
        self, features: jax.Array, matrices: jax.Array, dtype: jnp.dtype | None = None
    ) -> jax.Array:
        return jnp.einsum(
            "gnhwc,gcf->gnhwf", features, matrices, precision=self.products, preferred_element_type=dtype
        )


def _shift(features: jax.Array, size: int) -> list[jax.Array]:
    """The features, slots first, moved to each of a kernel's places, zeros coming in from outside."""
    rows, columns, edge = features.shape[2], features.shape[3], size // 2
    padded = jnp.pad(features, ((0, 0), (0, 0), (edge, edge), (edge, edge), (0, 0)))
    return [
        padded[:, :, row : row + rows, column : column + columns]
        for row in range(size)
        for column in range(size)
    ]
