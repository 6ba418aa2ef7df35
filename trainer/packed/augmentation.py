"""Pictures changed at random while training, as in `trainer.traced_augmentation`, by numbers of each slot."""

from typing import Final

import jax
import jax.numpy as jnp

from trainer.architecture import CHANNELS, SIDE
from trainer.augmentation import CENTRE, DRAWS, MEAN_COLOUR, strengths
from trainer.packed.streams import Key, draw_uniform
from trainer.recipe import Recipe

NUMBERS: Final = 5
"""That say how strongly a slot augments, zeros being not at all."""


def numbers_of(recipe: Recipe) -> tuple[float, ...]:
    """How strongly the recipe augments: whether it flips, 1 or 0, then `trainer.augmentation.strengths`."""
    return (float(recipe.flip), *strengths(recipe))


def augment(images: jax.Array, numbers: jax.Array, key: Key) -> jax.Array:
    """The images, each changed at random: flipped, shifted, rotated and zoomed at once, then cut.

    Args:
        images: float32 (slots, n, 32, 32, 3) in [0, 1].
        numbers: float32 (slots, 5), as `numbers_of` gives them; with zeros an image stays as it is, exactly.
        key: Of the draws.

    Returns:
        float32 (slots, n, 32, 32, 3) in [0, 1].
    """
    slots, n = images.shape[:2]
    draws = jnp.moveaxis(draw_uniform(key, n, DRAWS), 2, 0)
    flips, *strength = (number[:, None] for number in numbers.T)
    rows, columns = place(draws[:5], (flips, *strength[:3]))
    moved = jax.vmap(interpolate)(
        images.reshape(slots * n, SIDE, SIDE, CHANNELS),
        rows.reshape(slots * n, SIDE, SIDE),
        columns.reshape(slots * n, SIDE, SIDE),
    ).reshape(images.shape)
    cut = cut_out(draws[6], strength[3])[..., :, None] & cut_out(draws[5], strength[3])[..., None, :]
    return jnp.where(cut[..., None], jnp.array(MEAN_COLOUR, jnp.float32), moved)


def place(draws: jax.Array, strength: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """From each place in a new picture to its place in the old one.

    Args:
        draws: In [0, 1): flip, right, down, turn, zoom; float32 (5, slots, n).
        strength: 1 or 0 for the flip, pixels of shift, radians, zoom; float32 (slots, 1) each.

    Returns:
        Rows and columns, float32 (slots, n, 32, 32), which may lie outside.
    """
    flip, right, down, turn, zoom = draws
    flips, shift, rotation, zooming = strength
    sign = jnp.where((flip < 0.5) & (flips > 0), -1.0, 1.0)
    angle, size = (2 * turn - 1) * rotation, 1 + (2 * zoom - 1) * zooming
    cosine, sine = jnp.cos(angle) / size, jnp.sin(angle) / size
    # Back by the shift, then about the centre; the flip comes last. Without rotation and zoom it is exact.
    x, y = CENTRE + whole(right, shift), CENTRE + whole(down, shift)
    x_of_x, x_of_y, y_of_x, y_of_y = sign * cosine, -sign * sine, sine, cosine
    x_start, y_start = CENTRE - x_of_x * x - x_of_y * y, CENTRE - y_of_x * x - y_of_y * y
    places = jnp.arange(SIDE, dtype=jnp.float32)
    row, column = places[:, None], places[None, :]

    def combine(of_x: jax.Array, of_y: jax.Array, start: jax.Array) -> jax.Array:
        return of_x[..., None, None] * column + of_y[..., None, None] * row + start[..., None, None]

    return combine(y_of_x, y_of_y, y_start), combine(x_of_x, x_of_y, x_start)


def interpolate(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """An image at these places, bilinearly; what lies outside is its reflection at the edge."""
    rows, columns = reflect(rows), reflect(columns)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    first_row, first_column = top.astype(jnp.int32), left.astype(jnp.int32)
    # Beyond the last one its weight is zero.
    next_row, next_column = (jnp.minimum(first + 1, SIDE - 1) for first in (first_row, first_column))
    above = (1 - right) * image[first_row, first_column] + right * image[first_row, next_column]
    below = (1 - right) * image[next_row, first_column] + right * image[next_row, next_column]
    return (1 - down) * above + down * below


def reflect(places: jax.Array) -> jax.Array:
    """Any places in [0, 31]: abcd goes on as dcba|abcd|dcba, TensorFlow's and Keras's "reflect"."""
    period = 2.0 * SIDE
    before = places + period * jnp.floor(-places / period)
    before = jnp.where(before < -SIDE, before + period, -before - 1)
    after = places - period * jnp.floor(places / period)
    after = jnp.where(after >= SIDE, period - after - 1, after)
    inside = jnp.where(places < 0, before, jnp.where(places > SIDE - 1, after, places))
    return jnp.clip(inside, 0.0, SIDE - 1.0)


def whole(draw: jax.Array, most: jax.Array) -> jax.Array:
    """A whole number from -`most` to `most`, equally likely, float32; (slots, n) and (slots, 1)."""
    # The product may be rounded up to the bound.
    return jnp.minimum(jnp.floor(draw * (2 * most + 1)), 2 * most) - most


def cut_out(draw: jax.Array, side: jax.Array) -> jax.Array:
    """Which rows, or columns, lie in the cut-out: bool (slots, n, 32); (slots, n) and (slots, 1)."""
    first = (jnp.floor(draw * SIDE) - jnp.floor(side / 2))[..., None]
    places = jnp.arange(SIDE, dtype=jnp.float32)
    return (places >= first) & (places < first + side[..., None])
