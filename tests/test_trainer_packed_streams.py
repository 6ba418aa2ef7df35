"""trainer.packed.streams, .augmentation: random numbers of seed, epoch and step, and what is made of them."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
from typing import Any

import keras
import numpy as np
import pytest
import sample
import tensorflow as tf

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.extend.random import threefry_2x32  # noqa: E402
from quick_jax import compile_quickly  # noqa: E402, F401  # a fixture

from trainer.augmentation import MEAN_COLOUR  # noqa: E402
from trainer.augmentation import strengths as other_strengths  # noqa: E402
from trainer.packed.augmentation import augment, interpolate, numbers_of, place, whole  # noqa: E402
from trainer.packed.program import _drop  # noqa: E402
from trainer.packed.streams import (  # noqa: E402
    draw_bits,
    draw_order,
    draw_uniform,
    stream_key,
    threefry,
)
from trainer.recipe import Recipe  # noqa: E402
from trainer.traced_augmentation import _cut, _transforms  # noqa: E402

PICTURES = sample.load().x_train[:40].astype(np.float32) / 255
EVERYTHING: dict[str, Any] = {"flip": True, "shift": 0.125, "rotation": 15.0, "zoom": 0.2, "cutout": 8}


def words(*values: int) -> Any:
    """An array of words."""
    return jnp.array(values, jnp.uint32)


def key_of(*seeds: int, epoch: int = 1, step: int = 0, stream: int = 0) -> Any:
    """The key of a stream of so many slots."""
    return stream_key(words(*seeds), words(*[epoch] * len(seeds)), jnp.uint32(step), stream)


def test_the_generator_is_threefry() -> None:
    """The words are those of JAX's own implementation."""
    counters = jnp.arange(64, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    key = (jnp.uint32(0xDEADBEEF), jnp.uint32(7))
    ours = np.concatenate(threefry(key, counters[:32], counters[32:]))
    np.testing.assert_array_equal(ours, threefry_2x32(key, counters))


def test_streams_differ_in_all_that_names_them() -> None:
    """Seed, epoch, step and stream each give another key, the same again for the same."""
    keys = [
        key_of(1),
        key_of(2),
        key_of(1, epoch=2),
        key_of(1, step=1),
        key_of(1, stream=1),
        key_of(1, epoch=2, step=1),
    ]
    assert len({tuple(int(word[0]) for word in key) for key in keys}) == len(keys)
    assert [int(word[0]) for word in keys[0]] == [int(word[0]) for word in key_of(1)]


def test_a_slot_draws_what_it_draws_alone() -> None:
    """Neither its place among the slots nor their number enters."""
    for draw in (
        lambda key: draw_bits(key, [10, 7])[1],
        lambda key: draw_uniform(key, 5, 7),
    ):
        alone, packed = np.asarray(draw(key_of(8))), np.asarray(draw(key_of(3, 8, 5)))
        np.testing.assert_array_equal(packed[1], alone[0])
        assert not np.array_equal(packed[0], packed[1])
    orders = np.asarray(draw_order(words(3, 8), words(1, 2), 9))
    np.testing.assert_array_equal(orders[1], np.asarray(draw_order(words(8), words(2), 9))[0])


def test_orders_are_permutations_that_change() -> None:
    """With the epoch and the seed; every image comes first equally often."""
    epochs = jnp.arange(1, 1001, dtype=jnp.uint32)
    orders = np.asarray(draw_order(jnp.full(1000, 5, jnp.uint32), epochs, 4))
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    assert len({tuple(order) for order in orders}) == 24
    # Binomial: 250 with a standard deviation of 14.
    assert all(190 < count < 310 for count in np.bincount(orders[:, 0]))


def test_bits_are_evenly_spread_and_of_each_array_its_own() -> None:
    """Sixteen bits, each set half of the time."""
    first, second = (np.asarray(bits) for bits in draw_bits(key_of(1, 2), [4001, 4002]))
    assert first.dtype == np.uint16
    assert (first.shape, second.shape) == ((2, 4001), (2, 4002))
    for bit in range(16):
        # 0.5 with a standard deviation of 0.008.
        assert np.mean(first >> bit & 1, axis=1) == pytest.approx([0.5, 0.5], abs=0.04)
    assert np.mean(first[:, :4000] == second[:, :4000]) < 0.01
    quarters = first[0, :4000].reshape(4, 1000)
    assert np.abs(np.corrcoef(quarters) - np.eye(4)).max() < 0.15


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.95])
def test_dropout_meets_its_slots_rate(rate: float) -> None:
    """That share of the elements is dropped, and the mean is kept, whatever the other slot's rate is."""
    features = jnp.ones((2, 30, 4, 4, 50))
    [bits] = draw_bits(key_of(1, 2), [24_000])
    dropped = np.asarray(_drop(features, bits, jnp.array([0.5, rate])))
    assert np.mean(dropped[1] == 0) == pytest.approx(rate, abs=0.015)
    assert np.mean(dropped[0] == 0) == pytest.approx(0.5, abs=0.015)
    kept = dropped[1][dropped[1] > 0]
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-3)


def augmented(*recipes: dict[str, Any], key: Any = None) -> np.ndarray:
    """The pictures, (slots, n, 32, 32, 3), as recipes of these fields train on them."""
    numbers = jnp.array([numbers_of(Recipe(**fields)) for fields in recipes])
    images = jnp.broadcast_to(PICTURES, (len(recipes), *PICTURES.shape))
    return np.asarray(jax.jit(augment)(images, numbers, key_of(*range(len(recipes))) if key is None else key))


def test_a_slot_that_augments_nothing_has_its_pictures_unchanged() -> None:
    """Bit for bit, beside one that does everything."""
    nothing, everything = augmented({}, EVERYTHING)
    np.testing.assert_array_equal(nothing, PICTURES)
    assert all(not np.array_equal(a, b) for a, b in zip(everything, PICTURES, strict=True))
    assert everything.min() >= 0
    assert everything.max() <= 1


def test_a_flip_flips_half_of_the_pictures() -> None:
    """And does nothing else."""
    [flipped] = augmented({"flip": True})
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, PICTURES, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(flipped, PICTURES, strict=True)]
    assert sum(mirrored) + sum(same) == len(PICTURES)
    assert 8 < sum(mirrored) < 32


@pytest.mark.parametrize("fields", [EVERYTHING, {"rotation": 180.0}, {"shift": 0.5, "flip": True}], ids=str)
def test_pictures_are_those_of_the_other_engine(fields: dict[str, Any]) -> None:
    """From the same draws, by Keras's own operation."""
    recipe = Recipe(**fields)
    key = key_of(4)
    [ours] = augmented(fields, key=key)
    draws = np.asarray(draw_uniform(key, len(PICTURES), 7))[0].T
    flip, right, down, turn, zoom, column, row = (tf.constant(draw) for draw in draws)
    strength = tf.constant(other_strengths(recipe))
    sign = tf.where((flip < 0.5) & recipe.flip, -1.0, 1.0)
    theirs = keras.ops.image.affine_transform(
        tf.constant(PICTURES),
        _transforms(sign, right, down, turn, zoom, strength),
        interpolation="bilinear",
        fill_mode="reflect",
        data_format="channels_last",
    )
    inside = _cut(row, strength[3])[:, :, None] & _cut(column, strength[3])[:, None, :]
    theirs = tf.where(inside[..., None], tf.constant(MEAN_COLOUR), theirs)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_places_far_outside_are_reflected() -> None:
    """As often as it takes."""
    image = jnp.arange(32.0)[None, :, None] * jnp.ones((32, 1, 3))
    columns = jnp.tile(jnp.arange(-100.0, 132.0)[None], (1, 1))
    found = np.asarray(interpolate(image, jnp.zeros_like(columns), columns))[0, :, 0]
    np.testing.assert_array_equal(found, np.pad(np.arange(32.0), 100, mode="symmetric"))


def test_shifts_are_whole_and_equally_likely() -> None:
    """From one bound to the other, the largest draw included."""
    draws = jnp.arange(0, 1, 1 / 900)[None]
    counts = np.unique(np.asarray(whole(draws, jnp.array([[4.0]]))), return_counts=True)
    assert counts[0].tolist() == list(range(-4, 5))
    assert counts[1].tolist() == [100] * 9
    edge = jnp.array([[0.0, np.nextafter(np.float32(1), np.float32(0))]])
    assert np.asarray(whole(edge, jnp.array([[16.0]]))).tolist() == [[-16.0, 16.0]]
    still = place(jnp.full((5, 1, 2), 0.25), tuple(jnp.zeros((1, 1)) for _ in range(4)))
    np.testing.assert_array_equal(still[1][0, 0], np.tile(np.arange(32.0), (32, 1)))
