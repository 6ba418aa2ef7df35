"""Architectures beyond the article: counted, built, trained, stored and scored, small ones."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import dataclasses
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import sample
import tensorflow as tf

from trainer import training
from trainer.architecture import MAX_PARAMETERS, Architecture
from trainer.errors import RecipeError
from trainer.evaluation import Evaluator
from trainer.model import build_model, build_twin
from trainer.model_file import load_model, model_to_bytes
from trainer.recipe import ACTIVATIONS, ARTICLE, Recipe
from trainer.state import TrainingState
from trainer.training import Trainer

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

DATA = sample.load()
TRAIN = DATA.train.first(24)
VALIDATION = DATA.validation
IMAGES = DATA.x_train[:16].astype(np.float32) / 255

CORNERS: list[dict[str, Any]] = [
    {"blocks": 1, "head": "pooling"},
    {"blocks": 5, "batch_normalization": True, "activation": "elu"},
    {"blocks": 2, "convolutions": 2, "activation": "gelu", "dense_units": 3},
    {"convolutions": 2, "residual": True, "activation": "leaky_relu"},
    {"convolutions": 3, "residual": True, "batch_normalization": True, "head": "pooling", "whitening": True},
    {"blocks": 4, "residual": True, "batch_normalization": True, "activation": "silu", "whitening": True},
]
"""Each kind of layer, alone and with others; blocks that are like the third, and that keep their filters."""


def recipe_of(fields: dict[str, Any], **more: Any) -> Recipe:
    """A small recipe of these fields."""
    return Recipe(
        0.1, 0.1, 0.1, 0.1, 0.01, **{"epochs": 1, "batch_size": 12, "width": 0.25, **fields, **more}
    )


def corners() -> pytest.MarkDecorator:
    """Run a test for each of `CORNERS`."""
    return pytest.mark.parametrize("fields", CORNERS, ids=lambda fields: "-".join(map(str, fields.values())))


def scrambled(model: keras.Model) -> list[np.ndarray]:
    """Weights that leave nothing untested: biases, and scales of both signs."""
    generator = np.random.default_rng(0)
    weights = [generator.normal(0, 0.3, weight.shape).astype(np.float32) for weight in model.weights]
    return [
        np.abs(array) + 0.5 if weight.name == "moving_variance" else array
        for weight, array in zip(model.weights, weights, strict=True)
    ]


def test_the_articles_architecture_is_the_default() -> None:
    """Its recipe has it, with 257,978 parameters."""
    assert ARTICLE.architecture == Architecture()
    assert Architecture().count_parameters() == 257_978


@corners()
def test_parameters_are_counted_without_building(fields: dict[str, Any]) -> None:
    """As many as Keras counts."""
    recipe = recipe_of(fields, width=0.6)
    assert recipe.architecture.count_parameters() == build_model(recipe).count_params()


def test_a_network_above_the_bound_is_refused() -> None:
    """The error names its parameters, the bound, and what to lower."""
    with pytest.raises(RecipeError) as caught:
        Recipe(width=4.0, convolutions=2)
    message = str(caught.value)
    parameters = Architecture.of({**ARTICLE.to_dict(), "width": 4.0, "convolutions": 2})
    assert message.startswith(f"a network of {parameters.count_parameters():,} parameters is above the bound")
    assert message.endswith(" of 3,000,000; lower width, blocks, convolutions or dense_units")
    assert Recipe(width=4.0).architecture.count_parameters() < MAX_PARAMETERS


@pytest.mark.parametrize(
    ("width", "filters"),
    [(1.0, (32, 64, 128)), (0.25, (8, 16, 32)), (1.5, (48, 96, 192)), (1.1, (32, 72, 144))],
)
def test_filters_are_multiples_of_eight(width: float, filters: tuple[int, ...]) -> None:
    """Width multiplies the article's, rounded; a fourth block is like the third."""
    assert Recipe(width=width).architecture.filters == filters
    assert Recipe(width=width, blocks=4).architecture.filters == (*filters, filters[-1])
    assert Recipe(width=width, blocks=1).architecture.filters == filters[:1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@corners()
def test_the_twin_is_equal_by_mathematics(fields: dict[str, Any], activation: str) -> None:
    """In inference its softmax is the model's output, whether the activation comes before the pool or not."""
    recipe = recipe_of(fields, activation=activation)
    model, twin = build_model(recipe), build_twin("float32", recipe.architecture)
    assert [weight.path for weight in twin.weights] == [weight.path for weight in model.weights]
    weights = scrambled(model)
    for one in (model, twin):
        one.set_weights(weights)
    rates = tf.fill([recipe.blocks + 1], 0.9)
    logits = twin([tf.constant(IMAGES), rates, tf.constant([1, 2], tf.int64)], training=False)
    expected = np.asarray(model(IMAGES, training=False))
    assert expected.std() > 0.01
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=2e-5)


def test_a_pool_follows_what_can_fall() -> None:
    """Gelu and silu fall below zero before they rise, so that they and a maximum may not change places."""
    for activation in ACTIVATIONS:
        twin = build_twin("float32", Architecture(activation=activation))
        names = [layer.name for layer in twin.layers]
        pool = names.index("block1_pool")
        assert (f"block1_{activation}" in names[pool:]) == (activation not in ("gelu", "silu"))


@corners()
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_architecture_trains_saves_loads_and_scores(
    fields: dict[str, Any], precision: Any, tmp_path: Path
) -> None:
    """The file has stock layers alone and the score that training reported; it goes on bit for bit."""
    trainer = Trainer(TRAIN, VALIDATION, precision)
    recipe = recipe_of(fields, epochs=2)
    states: list[bytes] = []
    result = trainer.train(recipe, on_epoch=lambda _, state: states.append(state.to_bytes()) or False)
    assert result.status == "finished"
    path = tmp_path / "model.h5"
    path.write_bytes(model_to_bytes(result.build_model()))
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])
    assert all(hasattr(keras.layers, layer["class_name"]) for layer in config["config"]["layers"])

    loaded = load_model(path)
    for ours, theirs in zip(loaded.get_weights(), result.state.weights, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    score = Evaluator(trainer.validation).score(loaded)
    last = result.history[-1]
    assert last.validation_loss == pytest.approx(score.loss, rel=1e-5 if precision == "float32" else 0.02)
    if precision == "float32":
        assert last.validation_accuracy == score.accuracy

    trainer.train(dataclasses.replace(recipe, seed=7, epochs=1))
    resumed = trainer.train(recipe, state=TrainingState.from_bytes(states[0]))
    for ours, theirs in zip(resumed.state.weights, result.state.weights, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    for ours, theirs in zip(resumed.state.optimizer, result.state.optimizer, strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_a_stored_model_predicts_as_before(tmp_path: Path) -> None:
    """Keras loads each layer with all that it was made with: the same outputs, bit for bit."""
    for number, fields in enumerate(CORNERS):
        model = build_model(recipe_of(fields))
        model.set_weights(scrambled(model))
        path = tmp_path / f"{number}.h5"
        path.write_bytes(model_to_bytes(model))
        loaded = load_model(path)
        assert np.array_equal(np.asarray(loaded(IMAGES)), np.asarray(model(IMAGES)))


def test_whitening_gives_each_image_zero_mean_and_unit_variance() -> None:
    """Nearly as tf.image.per_image_standardization, also for a picture of one colour."""
    model = build_model(recipe_of({"whitening": True}))
    whiten = keras.Model(model.inputs, model.get_layer("whitening").output)
    images = np.concatenate([IMAGES, np.full((1, 32, 32, 3), 0.5, np.float32)])
    ours, theirs = np.asarray(whiten([images])), np.asarray(tf.image.per_image_standardization(images))
    assert np.abs(ours.mean((1, 2, 3))).max() < 1e-3
    # A little is added to the variance, which pictures of little contrast feel.
    np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=1e-3)
    assert np.abs(ours[-1]).max() < 1e-3


def test_moving_averages_begin_as_kerass_and_move() -> None:
    """Mean 0, variance and scale 1; after an epoch they are others."""
    recipe = recipe_of({"batch_normalization": True})
    model = build_model(recipe)
    begun = {weight.path: np.asarray(weight.numpy()) for weight in model.weights if "norm" in weight.path}
    assert len(begun) == 4 * 3
    for path, values in begun.items():
        assert (values == (1 if path.endswith(("gamma", "moving_variance")) else 0)).all(), path
    result = Trainer(TRAIN, VALIDATION.first(5)).train(recipe)
    for weight, values in zip(model.weights, result.state.weights, strict=True):
        if weight.path in begun:
            assert not np.array_equal(values, begun[weight.path]), weight.path


@pytest.mark.parametrize("fields", [{"batch_normalization": True}, {"convolutions": 2, "residual": True}])
def test_weights_are_the_seeds(fields: dict[str, Any]) -> None:
    """The same seed begins the same, another otherwise."""
    one, same, other = (build_model(recipe_of(fields, seed=seed)).get_weights() for seed in (3, 3, 4))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, same, strict=True))
    assert any(a.tobytes() != b.tobytes() for a, b in zip(one, other, strict=True))


def test_networks_that_nobody_used_for_long_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search over architectures holds a few of them; widths that come to the same filters are one."""
    monkeypatch.setattr(training, "NETWORKS", 2)
    trainer = Trainer(TRAIN, VALIDATION.first(5))
    network = weakref.ref(trainer._programs(recipe_of({}), "float32")[0])
    trainer.train(recipe_of({}))
    trainer.train(recipe_of({}, width=0.26))
    assert trainer.traces == 2
    for blocks in (1, 2):
        assert network() is not None
        trainer.train(recipe_of({"blocks": blocks}))
    gc.collect()
    assert network() is None
    assert len(trainer._residents) == 2
    trainer.train(recipe_of({}))
    assert trainer.traces == 8
