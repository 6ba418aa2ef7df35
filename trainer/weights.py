"""A network's weights without Keras: their shapes, in Keras's order, and what they begin with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trainer.architecture import CHANNELS, CLASSES, SIDE, Architecture

ONES: Final = ("gamma", "moving_variance")
"""What Keras calls the weights of batch normalisation that begin at 1."""
NORMALISATION: Final = ("gamma", "beta", "moving_mean", "moving_variance")
"""The weights of a batch normalisation, in Keras's order."""

LARGEST_SEED: Final = 2**31 - 2
"""Keras takes the remainder by it before TensorFlow gets a seed (3.15, with the backend for TensorFlow)."""
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 10
"""Of Philox 4x32 (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405)."""
SCRAMBLING_KEY: Final = (0x3EC8F720, 0x02461E29)
"""With which TensorFlow makes key and counter of a seed (its `core/kernels/stateless_random_ops.cc`)."""

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Weight:
    """One of a network's weights.

    Attributes:
        path: Layer and name, as Keras has them: `block1_conv/kernel`.
        shape: Of the array.
    """

    path: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name in its layer."""
        return self.path.rpartition("/")[2]

    @property
    def is_trained(self) -> bool:
        """Whether the optimizer changes it: all but the moving averages."""
        return not self.name.startswith("moving_")


def weights_of(architecture: Architecture) -> tuple[Weight, ...]:
    """The weights of `trainer.model.build_model`'s network, in Keras's order."""
    weights: list[Weight] = []

    def add(layer: str, *shape: int) -> None:
        weights.extend((Weight(f"{layer}/kernel", shape), Weight(f"{layer}/bias", shape[-1:])))

    def normalise(layer: str, channels: int) -> None:
        if architecture.batch_normalization:
            weights.extend(Weight(f"{layer}/{name}", (channels,)) for name in NORMALISATION)

    channels = CHANNELS
    for index, filters in enumerate(architecture.filters, 1):
        block, entered = f"block{index}", channels
        projects = architecture.residual and entered != filters
        for number in range(1, architecture.convolutions + 1):
            suffix, is_last = "" if number == 1 else str(number), number == architecture.convolutions
            add(f"{block}_conv{suffix}", 3, 3, channels, filters)
            # Keras orders layers by their distance from the output.
            if projects and is_last:
                add(f"{block}_shortcut", 1, 1, entered, filters)
            normalise(f"{block}_norm{suffix}", filters)
            channels = filters
        if projects:
            normalise(f"{block}_shortcut_norm", filters)
    if architecture.dense_units:
        side = SIDE >> len(architecture.filters)
        add("dense", side * side * channels, architecture.dense_units)
        channels = architecture.dense_units
    add("classes", channels, CLASSES)
    return tuple(weights)


def initial_weights(architecture: Architecture, seed: int) -> list[npt.NDArray[np.float32]]:
    """Glorot-uniform kernels, variances and scales of 1, the rest 0: Keras's defaults, of the seed alone.

    Bit for bit what `keras.initializers.GlorotUniform` gives with TensorFlow, on machines without it too.
    """
    weights = weights_of(architecture)
    seeds = np.random.SeedSequence(seed).generate_state(len(weights))
    return [
        _glorot_uniform(weight.shape, int(kernel_seed))
        if len(weight.shape) > 1
        else np.full(weight.shape, weight.name in ONES, np.float32)
        for weight, kernel_seed in zip(weights, seeds, strict=True)
    ]


def _glorot_uniform(shape: Sequence[int], seed: int) -> npt.NDArray[np.float32]:
    """A kernel whose elements are uniform in +-sqrt(6 / (inputs + outputs)) (Glorot and Bengio 2010)."""
    field = math.prod(shape[:-2])
    fans = field * shape[-2] + field * shape[-1]
    limit = math.sqrt(3.0 / (fans / 2.0))
    low, high = np.float32(-limit), np.float32(limit)
    return (_stateless_uniform(math.prod(shape), seed % LARGEST_SEED) * (high - low) + low).reshape(shape)


def _stateless_uniform(size: int, seed: int) -> npt.NDArray[np.float32]:
    """`tf.random.stateless_uniform([size], [seed, 0])`, in [0, 1)."""
    start = np.array([[seed & 0xFFFFFFFF], [seed >> 32], [0], [0]], np.uint32)
    key0, key1, third, fourth = (int(word) for word in _philox(start, SCRAMBLING_KEY)[:, 0])
    groups = -(-size // 4)
    counters = np.empty((4, groups), np.uint32)
    counters[0], counters[1], counters[2], counters[3] = np.arange(groups), 0, third, fourth
    words = _philox(counters, (key0, key1)).T.reshape(-1)[:size]
    # 23 random bits as the fraction of a number in [1, 2).
    return ((words & np.uint32(0x7FFFFF)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


def _philox(counters: Words, key: tuple[int, int]) -> Words:
    """Philox 4x32-10: the random words of the counters, both (4, n)."""
    first, second, third, fourth = counters.astype(np.uint64)
    key0, key1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(ROUNDS):
        one, two = first * np.uint64(MULTIPLIERS[0]), third * np.uint64(MULTIPLIERS[1])
        first, second, third, fourth = (
            (two >> np.uint64(32)) ^ second ^ np.uint64(key0),
            two & low,
            (one >> np.uint64(32)) ^ fourth ^ np.uint64(key1),
            one & low,
        )
        key0, key1 = (key0 + WEYL[0]) & 0xFFFFFFFF, (key1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([first, second, third, fourth]).astype(np.uint32)
