"""Random numbers of a packed trial: functions of its seed, epoch and step, wherever it is trained.

JAX's own generators draw for a whole array, and what an element gets may depend on the array's shape and on
settings of the process. Here each draw is a counter of its own, so that neither the slot nor the number of
slots enters. The generator is Threefry 2x32 with 20 rounds (Salmon et al. 2011,
https://doi.org/10.1145/2063384.2063405), which is JAX's too.
"""

import itertools
from collections.abc import Sequence
from typing import Final

import jax
import jax.numpy as jnp
from jax import lax

DROPOUT_STREAM: Final = 0
AUGMENTATION_STREAM: Final = 1
SHUFFLING_STREAM: Final = 2
"""Random streams of a step."""

ROTATIONS: Final = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY: Final = 0x1BD11BDA

Key = tuple[jax.Array, jax.Array]
"""Two words, uint32 (slots,) each."""


def threefry(key: Key, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two random words of each counter, all uint32; shapes are broadcast."""
    words = (*key, key[0] ^ key[1] ^ jnp.uint32(PARITY))
    first, second = first + words[0], second + words[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            first = first + second
            second = ((second << jnp.uint32(rotation)) | (second >> jnp.uint32(32 - rotation))) ^ first
        first = first + words[(group + 1) % 3]
        second = second + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return first, second


def stream_key(seed: jax.Array, epoch: jax.Array, step: jax.Array, stream: int) -> Key:
    """The key of a random stream that no other step, epoch or trial's seed shares.

    Args:
        seed: uint32 (slots,).
        epoch: uint32 (slots,).
        step: uint32 ().
        stream: Its number.
    """
    key = threefry((seed, jnp.full_like(seed, stream)), epoch, jnp.broadcast_to(step, epoch.shape))
    # Or XLA would make the key anew for each of the numbers drawn with it.
    return _separate(key)


def draw_order(seed: jax.Array, epoch: jax.Array, images: int) -> jax.Array:
    """The images of an epoch in the order that each slot trains on them: int32 (slots, images).

    Sorted by 64 random bits each; an order is as good as any other up to 2**-64 of the pairs.
    """
    key0, key1 = stream_key(seed, epoch, jnp.uint32(0), SHUFFLING_STREAM)
    numbers = jnp.broadcast_to(jnp.arange(images, dtype=jnp.uint32), (len(seed), images))
    words = threefry((key0[:, None], key1[:, None]), numbers, jnp.zeros_like(numbers))
    return lax.sort((*words, numbers.astype(jnp.int32)), dimension=1, num_keys=2)[2]


def draw_bits(key: Key, sizes: Sequence[int]) -> list[jax.Array]:
    """Sixteen random bits for each element of several arrays: uint16 (slots, size), for each of `sizes`."""
    quarters = [-(-size // 4) for size in sizes]
    counters = jnp.arange(sum(quarters), dtype=jnp.uint32)[None]
    words = threefry((key[0][:, None], key[1][:, None]), counters, jnp.zeros_like(counters))
    # Or XLA would draw a word anew for each of the parts made of it.
    words = _separate(words)
    starts = itertools.accumulate(quarters, initial=0)
    return [
        _cut_up([word[:, start : start + quarter] for word in words])[:, :size]
        for start, quarter, size in zip(starts, quarters, sizes, strict=False)
    ]


def _cut_up(words: Sequence[jax.Array]) -> jax.Array:
    """The halves of words, uint32 (slots, n) each, side by side: uint16 (slots, 2 n for each)."""
    halves = [half.astype(jnp.uint16) for word in words for half in (word, word >> jnp.uint32(16))]
    return jnp.concatenate(halves, axis=1)


def draw_uniform(key: Key, rows: int, columns: int) -> jax.Array:
    """Numbers in [0, 1), multiples of 2**-24: float32 (slots, rows, columns)."""
    row = jnp.arange(rows, dtype=jnp.uint32)[None, :, None]
    pair = jnp.arange(-(-columns // 2), dtype=jnp.uint32)[None, None, :]
    words = threefry((key[0][:, None, None], key[1][:, None, None]), row, pair)
    both = jnp.concatenate(words, axis=2)[:, :, :columns]
    uniform: jax.Array = (both >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2**-24)
    return uniform


def _separate(words: Key) -> Key:
    """The words, computed before anything that is made of them."""
    first, second = lax.optimization_barrier(words)  # type: ignore[no-untyped-call]  # JAX has no type for it
    return first, second
