"""Pictures changed at random while training, each by draws of its own, in a traced program."""

import keras
import tensorflow as tf

from trainer.architecture import SIDE
from trainer.augmentation import CENTRE, DRAWS, MEAN_COLOUR, Augmentation


def augment(kinds: Augmentation, images: tf.Tensor, strength: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The images, each changed at random: flipped, then shifted, rotated and zoomed, then cut.

    A shift is by whole pixels in each direction, which blurs nothing; rotation and zoom are about the centre
    and interpolate. One transform does all three, and the flip with them, so that a picture is interpolated
    once. What comes in from outside is the picture reflected at its edge, as in Keras's own layers, whose
    operation this is: they hold their strengths as numbers and their seeds as a state, and here both are
    tensors, so that one traced program serves all trials and any epoch can be repeated.

    Args:
        kinds: What is done.
        images: float32 (n, 32, 32, 3) in [0, 1].
        strength: float32 (4,), as `strengths` gives them.
        seed: int64 (2,); the same seed gives the same draws.

    Returns:
        float32 (n, 32, 32, 3) in [0, 1].
    """
    draws = tf.random.stateless_uniform([tf.shape(images)[0], DRAWS], seed, alg="philox")
    flip, right, down, turn, zoom, column, row = tf.unstack(draws, axis=1)
    mirrored = flip < 0.5
    if kinds.moves:
        sign = tf.where(mirrored, -1.0, 1.0) if kinds.flips else tf.ones_like(flip)
        transforms = _transforms(sign, right, down, turn, zoom, strength)
        images = keras.ops.image.affine_transform(
            images, transforms, interpolation="bilinear", fill_mode="reflect", data_format="channels_last"
        )
    elif kinds.flips:
        images = tf.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    if kinds.cuts:
        inside = _cut(row, strength[3])[:, :, None] & _cut(column, strength[3])[:, None, :]
        images = tf.where(inside[..., None], tf.constant(MEAN_COLOUR), images)
    return images


def _transforms(
    sign: tf.Tensor, right: tf.Tensor, down: tf.Tensor, turn: tf.Tensor, zoom: tf.Tensor, strength: tf.Tensor
) -> tf.Tensor:
    """From each place in a new picture to its place in the old one: float32 (n, 8), as TensorFlow has it.

    Args:
        sign: -1 for a mirrored picture, 1 for others, float32 (n,).
        right: Draw in [0, 1), float32 (n,), as the following.
        down: Draw.
        turn: Draw.
        zoom: Draw.
        strength: As `augment` has it.
    """
    right, down = _whole(right, strength[0]), _whole(down, strength[0])
    angle = (2 * turn - 1) * strength[1]
    size = 1 + (2 * zoom - 1) * strength[2]
    cosine, sine = tf.cos(angle) / size, tf.sin(angle) / size
    x_of_x, x_of_y, y_of_x, y_of_y = sign * cosine, -sign * sine, sine, cosine
    # Back by the shift, then about the centre. Without rotation and zoom all of this is exact.
    x, y = CENTRE + right, CENTRE + down
    zero = tf.zeros_like(x)
    return tf.stack(
        [
            x_of_x,
            x_of_y,
            CENTRE - x_of_x * x - x_of_y * y,
            y_of_x,
            y_of_y,
            CENTRE - y_of_x * x - y_of_y * y,
            zero,
            zero,
        ],
        axis=1,
    )


def _whole(draw: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
    """A whole number from -`most` to `most`, equally likely, float32 (n,)."""
    # The product may be rounded up to the bound.
    return tf.minimum(tf.floor(draw * (2 * most + 1)), 2 * most) - most


def _cut(draw: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """Which rows, or columns, lie in the cut-out: bool (n, 32).

    Its centre is any pixel, so that it may reach over the edge (DeVries and Taylor 2017, arXiv:1708.04552).
    """
    first = tf.floor(draw * SIDE) - tf.floor(side / 2)
    places = tf.range(SIDE, dtype=tf.float32)
    return (places >= first[:, None]) & (places < first[:, None] + side)
