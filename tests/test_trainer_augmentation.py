"""trainer.augmentation: what is done to pictures, exactly, and when."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import sample
import tensorflow as tf

from trainer.augmentation import MEAN_COLOUR, Augmentation, strengths
from trainer.evaluation import Evaluator
from trainer.recipe import ARTICLE, Recipe
from trainer.state import TrainingState
from trainer.traced_augmentation import _transforms, _whole, augment
from trainer.training import Trainer

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

DATA = sample.load()
TRAIN = DATA.train.first(48)
VALIDATION = DATA.validation.first(20)
PICTURES = DATA.x_train[:100].astype(np.float32) / 255
EVERYTHING: dict[str, Any] = {"flip": True, "shift": 0.125, "rotation": 15.0, "zoom": 0.2, "cutout": 8}
RECIPE = Recipe(learning_rate=0.005, epochs=2, batch_size=20, seed=2, **EVERYTHING)


def augmented(pictures: np.ndarray = PICTURES, seed: int = 1, **fields: Any) -> np.ndarray:
    """The pictures as a recipe of these fields trains on them."""
    recipe = Recipe(**fields)
    strength = tf.constant(strengths(recipe))
    kinds = Augmentation.of(recipe)
    return np.asarray(augment(kinds, tf.constant(pictures), strength, tf.constant([5, seed], tf.int64)))


def shifted(picture: np.ndarray, right: int, down: int) -> np.ndarray:
    """The picture moved by whole pixels; what comes in is its reflection at the edge."""
    size = 32
    padded = np.pad(picture, ((size, size), (size, size), (0, 0)), mode="symmetric")
    return padded[size - down : 2 * size - down, size - right : 2 * size - right]


def test_the_articles_recipe_augments_nothing() -> None:
    """Its program has no part of this."""
    assert not Augmentation.of(ARTICLE)
    assert Augmentation.of(RECIPE) == Augmentation(flips=True, moves=True, cuts=True)


def test_a_flip_flips_half_of_the_pictures_and_does_nothing_else() -> None:
    """Each is itself or its mirror image, bit for bit."""
    mirrored = []
    for before, after in zip(PICTURES, augmented(flip=True), strict=True):
        mirrored.append(np.array_equal(after, before[:, ::-1]))
        assert mirrored[-1] or np.array_equal(after, before)
    # Five standard errors around a half of 100.
    assert 25 < sum(mirrored) < 75


@pytest.mark.parametrize("flip", [False, True])
def test_a_shift_moves_by_whole_pixels(flip: bool) -> None:
    """Each picture is the old one, or its mirror image, some pixels along, bit for bit; up to the bound."""
    moves = set()
    for before, after in zip(PICTURES, augmented(flip=flip, shift=2 / 32), strict=True):
        fits = [
            (mirror, right, down)
            for mirror in ((False, True) if flip else (False,))
            for right in range(-3, 4)
            for down in range(-3, 4)
            if np.array_equal(after, shifted(before[:, ::-1] if mirror else before, right, down))
        ]
        assert len(fits) == 1
        moves.add(fits[0])
    assert {right for _, right, _ in moves} == {down for _, _, down in moves} == {-2, -1, 0, 1, 2}
    assert {mirror for mirror, _, _ in moves} == ({False, True} if flip else {False})


def test_every_shift_is_equally_likely_and_none_beyond_the_bound() -> None:
    """Also for the largest draw below 1, whose product is rounded."""
    draws = tf.random.stateless_uniform([90_000], [1, 2])
    counts = np.unique(np.asarray(_whole(draws, tf.constant(4.0))), return_counts=True)
    assert counts[0].tolist() == list(range(-4, 5))
    assert np.abs(counts[1] - 10_000).max() < 500
    edge = tf.constant([0.0, np.nextafter(np.float32(1), np.float32(0))])
    for most in range(17):
        assert np.asarray(_whole(edge, tf.constant(float(most)))).tolist() == [-most, most]


def transformed(turn: float, zoom: float, rotation: float, size: float, sign: float = 1.0) -> np.ndarray:
    """The pictures under one rotation, in radians, and zoom, as the draws turn and zoom have them."""
    each = [tf.fill([len(PICTURES)], value) for value in (sign, 0.5, 0.5, turn, zoom)]
    transforms = _transforms(*each, tf.constant([0.0, rotation, size, 0.0]))
    assert transforms.shape == (len(PICTURES), 8)
    return np.asarray(
        tf.raw_ops.ImageProjectiveTransformV3(
            images=PICTURES,
            transforms=transforms,
            output_shape=[32, 32],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )
    )


def test_a_rotation_is_about_the_centre() -> None:
    """Draws at both ends turn by the whole angle either way; a quarter turn is numpy's."""
    one, other = (transformed(turn, 0.5, math.pi / 2, 0.0) for turn in (0.0, 1.0))
    turns = [np.rot90(PICTURES, times, axes=(1, 2)) for times in (1, 3)]
    np.testing.assert_allclose(one, turns[1], atol=1e-4)
    np.testing.assert_allclose(other, turns[0], atol=1e-4)


def test_a_zoom_is_about_the_centre() -> None:
    """Twice as large shows the middle quarter: each new pixel lies between old ones of the middle."""
    larger = transformed(0.5, 1.0, 0.0, 1.0)
    middle = PICTURES[:, 8:24, 8:24]
    np.testing.assert_allclose(larger[:, 1:-1:2, 1:-1:2].mean((1, 2)), middle.mean((1, 2)), atol=0.08)
    exact = 0.75 * middle[:, 0, 0] + 0.25 * PICTURES[:, 8, 7]
    exact = 0.75 * exact + 0.25 * (0.75 * PICTURES[:, 7, 8] + 0.25 * PICTURES[:, 7, 7])
    np.testing.assert_allclose(larger[:, 0, 0], exact, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 7, 16, 32])
def test_a_cut_out_is_a_square_of_the_mean_colour(side: int) -> None:
    """All else stays; it has its whole size unless it reaches over the edge, and lies anywhere."""
    outside = PICTURES + 2
    after = augmented(outside, cutout=side)
    cut = (after != outside).all(-1)
    np.testing.assert_allclose(after[cut], np.tile(MEAN_COLOUR, (cut.sum(), 1)), rtol=1e-6)
    assert np.array_equal(after[~cut], outside[~cut])
    for mask in cut:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        for places in (rows, columns):
            assert np.array_equal(places, np.arange(places[0], places[0] + len(places)))
            assert len(places) == side or places[0] == 0 or places[-1] == 31
    assert len({mask.tobytes() for mask in cut}) > 60


@pytest.mark.parametrize("kinds", [Augmentation(moves=True), Augmentation(cuts=True)])
def test_strength_zero_is_the_identity(kinds: Augmentation) -> None:
    """A program that can move and cut leaves the pictures as they are where nothing is asked."""
    strength = tf.constant(strengths(ARTICLE))
    after = augment(kinds, tf.constant(PICTURES), strength, tf.constant([1, 2], tf.int64))
    assert np.array_equal(after, PICTURES)


@pytest.mark.parametrize("field", EVERYTHING)
def test_each_picture_has_draws_of_its_own_from_the_seed_alone(field: str) -> None:
    """Copies of one picture come out differently; the same seed repeats it, another does not."""
    copies = np.repeat(PICTURES[:1], 100, axis=0)
    fields = {field: EVERYTHING[field]}
    once = augmented(copies, **fields)
    assert len({picture.tobytes() for picture in once}) >= (2 if field == "flip" else 30)
    assert np.array_equal(once, augmented(copies, **fields))
    assert not np.array_equal(once, augmented(copies, seed=17, **fields))


def test_everything_together_stays_a_picture() -> None:
    """Shape and type stay, and so do the bounds [0, 1]."""
    after = augmented(**EVERYTHING)
    assert after.shape == PICTURES.shape
    assert after.dtype == np.float32
    assert after.min() >= 0
    assert after.max() <= 1


# in training


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """One trainer for the rest of the file."""
    return Trainer(TRAIN, VALIDATION)


def test_strengths_share_a_program() -> None:
    """Other strengths, zero for some, never trace again; another kind does, once."""
    trainer = Trainer(TRAIN.first(10), VALIDATION.first(5))
    recipe = Recipe(epochs=1, batch_size=5)
    for fields in ({"shift": 0.1}, {"rotation": 3.0}, {"zoom": 0.1, "shift": 0.3}):
        trainer.train(dataclasses.replace(recipe, **fields))
        assert trainer.traces == 2
    trainer.train(recipe)
    assert trainer.traces == 3


def test_an_augmented_training_goes_on_bit_for_bit(trainer: Trainer) -> None:
    """From the state of an epoch, after another trial."""
    states: list[bytes] = []
    whole = trainer.train(RECIPE, on_epoch=lambda _, state: states.append(state.to_bytes()) or False)
    trainer.train(dataclasses.replace(RECIPE, epochs=1, seed=9, rotation=90.0))
    resumed = trainer.train(RECIPE, state=TrainingState.from_bytes(states[0]))
    for ours, theirs in zip(resumed.state.weights, whole.state.weights, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("field", EVERYTHING)
def test_every_field_makes_a_difference(field: str, trainer: Trainer) -> None:
    """Switched off, or otherwise strong, each gives other weights."""
    change = {field: False if field == "flip" else EVERYTHING[field] / 2}
    if field == "cutout":
        change = {field: 4}
    one, other = (
        trainer.train(dataclasses.replace(RECIPE, epochs=1, **fields)).state.weights
        for fields in ({}, change)
    )
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_validation_and_the_stored_model_know_nothing_of_it(trainer: Trainer) -> None:
    """Validation is the plain model's, whose layers are the article's; training sees other pictures."""
    recipe = dataclasses.replace(
        RECIPE, dropout_block1=0, dropout_block2=0, dropout_block3=0, dropout_dense=0, learning_rate=1e-8
    )
    result = trainer.train(dataclasses.replace(recipe, epochs=1))
    model = result.build_model()
    switched_off = {field: getattr(ARTICLE, field) for field in EVERYTHING}
    plain = trainer.train(dataclasses.replace(recipe, epochs=1, **switched_off))
    assert model.get_config() == plain.build_model().get_config()
    score = Evaluator(trainer.validation).score(model)
    assert result.history[0].validation_loss == pytest.approx(score.loss, rel=1e-5)
    assert result.history[0].loss != pytest.approx(plain.history[0].loss, rel=1e-4)


def test_xla_takes_the_augmented_step() -> None:
    """The affine transform, which XLA does not have, stays outside of what it compiles."""
    recipe = dataclasses.replace(RECIPE, epochs=1, label_smoothing=0.1, weight_decay=0.01)
    small = {"width": 0.25, "batch_normalization": True}
    recipe = dataclasses.replace(recipe, **small)
    plain, compiled = (
        Trainer(TRAIN.first(20), VALIDATION.first(5), jit_compile=jit_compile).train(recipe)
        for jit_compile in (False, True)
    )
    for ours, theirs in zip(plain.state.weights, compiled.state.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
