"""trainer.packed beside Keras: the same steps, networks and files as those of TensorFlow's engine."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import sample

pytest.importorskip("jax")

from quick_jax import compile_quickly  # noqa: F401  # a fixture

from trainer.device import DeviceSplit
from trainer.evaluation import Evaluator
from trainer.model import build_model, build_optimizer
from trainer.model_file import load_model
from trainer.packed.convolution import Lowering
from trainer.packed.device import PackData
from trainer.packed.pack import Pack, PackKey
from trainer.packed.shape import Build
from trainer.precision import Precision
from trainer.recipe import OPTIMIZERS, Recipe
from trainer.record import RecipePlan, read_record
from trainer.state import TrainingState
from trainer.training import Trainer, TrainingResult

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

DATA = sample.load()
TRAIN, VALIDATION = DATA.train.first(24), DATA.validation.first(20)
# A batch larger than the data: one step an epoch, of all images, so that their order does not matter.
SMALL: dict[str, Any] = {"width": 0.25, "blocks": 2, "dense_units": 16, "batch_size": 100}
IMAGES, LABELS = TRAIN.images.astype(np.float32) / 255, TRAIN.labels.astype(np.int32)


@pytest.fixture(scope="module")
def data() -> PackData:
    """The splits on JAX's device."""
    return PackData.of(TRAIN, VALIDATION)


@pytest.fixture(scope="module")
def pack(data: PackData) -> Pack:
    """A slot for each optimizer."""
    return Pack(PackKey.of(Recipe(**SMALL)), len(OPTIMIZERS), data)


def train(pack: Pack, states: list[TrainingState]) -> list[TrainingState]:
    """The states, side by side in a pack, each trained to its recipe's end."""
    for slot, state in enumerate(states):
        pack.load(slot, state)
    while pack.due_slots:
        pack.run_epoch()
    trained = [pack.save(slot) for slot in range(len(states))]
    for slot in range(len(states)):
        pack.free(slot)
    return trained


def assert_moved_alike(
    ours: TrainingState, theirs: list[np.ndarray], start: TrainingState, tolerance: float
) -> None:
    """Each weight came to the same place, to a share of how far it moved.

    Biases that are normalised away do not move, but for rounding.
    """
    moved = [np.abs(yours - before).max() for yours, before in zip(theirs, start.weights, strict=True)]
    assert sum(distance > 1e-4 for distance in moved) >= len(moved) / 2
    for mine, yours, distance in zip(ours.weights, theirs, moved, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=0, atol=tolerance * distance + 1e-6)


@pytest.mark.parametrize("regularisation", [{}, {"weight_decay": 0.1, "label_smoothing": 0.2}], ids=str)
def test_steps_are_those_of_stock_keras(regularisation: dict[str, Any], pack: Pack) -> None:
    """Three steps with each optimizer give the weights and variables that `train_on_batch` gives."""
    rates = {"adam": 0.001, "rmsprop": 0.0003}
    recipes = [
        Recipe(0, 0, 0, 0, rates.get(name, 0.02), name, 3, seed=seed, **SMALL, **regularisation)
        for seed, name in enumerate(OPTIMIZERS)
    ]
    starts = [pack.begin(recipe) for recipe in recipes]
    for recipe, start, state in zip(recipes, starts, train(pack, starts), strict=True):
        model = build_model(recipe)
        optimizer = build_optimizer(recipe.optimizer, recipe.learning_rate, recipe.weight_decay or None)
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing))
        wanted = keras.utils.to_categorical(LABELS, 10)
        losses = [float(model.train_on_batch(IMAGES, wanted)) for _ in range(3)]

        assert_moved_alike(state, model.get_weights(), start, 0.01)
        for mine, variable in zip(state.optimizer, optimizer.variables, strict=True):
            yours = np.asarray(variable)
            assert (mine.shape, mine.dtype) == (yours.shape, yours.dtype)
            np.testing.assert_allclose(mine, yours, rtol=1e-3, atol=1e-3 * np.abs(yours).max())
        np.testing.assert_allclose([epoch.loss for epoch in state.history], losses, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "lowering", "precision"),
    [
        (
            {"activation": "gelu", "batch_normalization": True, "residual": True, "convolutions": 2}
            | {"head": "pooling", "whitening": True, "width": 0.25, "blocks": 2},
            "grouped",
            "float32",
        ),
        ({"activation": "leaky_relu", "residual": True, **SMALL}, "slices", "float32"),
        ({"activation": "silu", "convolutions": 3, "width": 0.25, "blocks": 1}, "vmap", "float32"),
        ({"activation": "elu", "batch_normalization": True, **SMALL}, "patches", "float32"),
        ({"activation": "elu", "whitening": True, "head": "pooling", **SMALL}, "patches", "bfloat16"),
    ],
    ids=["normalised-residual-pooled", "residual", "triple", "normalised", "bfloat16"],
)
def test_networks_are_those_of_the_other_engine(
    fields: dict[str, Any], lowering: Lowering, precision: Precision, data: PackData
) -> None:
    """Two steps of any architecture, moving averages included; and validation by them."""
    recipe = Recipe(0, 0, 0, 0, 0.01, "momentum", 2, **{**fields, "batch_size": 100})
    theirs = Trainer(TRAIN, VALIDATION, precision).train(recipe).state
    pack = Pack(PackKey.of(recipe), 1, data, precision, build=Build(lowering, "highest", None))
    start = pack.begin(recipe)
    [ours] = train(pack, [start])
    exactly = precision == "float32"
    assert_moved_alike(ours, list(theirs.weights), start, 0.02 if exactly else 0.2)
    for mine, yours in zip(ours.history, theirs.history, strict=True):
        assert mine.loss == pytest.approx(yours.loss, rel=1e-4 if exactly else 2e-2)
        assert mine.validation_loss == pytest.approx(yours.validation_loss, rel=1e-3 if exactly else 2e-2)


def test_the_last_batch_is_a_step_of_its_own_size() -> None:
    """Losses and statistics of normalisation are those of its images alone, in the order of the epoch."""
    train_split = TRAIN.first(5)
    recipe = Recipe(0, 0, 0, 0, 0.01, "sgd", 2, batch_size=3, seed=4, batch_normalization=True)
    recipe = dataclasses.replace(recipe, width=0.25, blocks=1, head="pooling")
    pack = Pack(PackKey.of(recipe), 2, PackData.of(train_split, VALIDATION))
    start = pack.begin(recipe)
    state = train(pack, [dataclasses.replace(start, recipe=dataclasses.replace(recipe, seed=5)), start])[1]

    model = build_model(recipe)
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    for epoch in (1, 2):
        words = np.array([[5], [4]], np.uint32)
        order = np.asarray(pack._program.order(words[:, 0], np.full(2, epoch, np.uint32)))[1]
        assert sorted(order[:5]) == list(range(5))
        for batch in (order[:3], order[3:5]):
            model.train_on_batch(IMAGES[batch], LABELS[batch])
    assert_moved_alike(state, model.get_weights(), start, 0.01)


def test_what_a_pack_trained_is_stored_scored_and_trained_on(pack: Pack, tmp_path: Path) -> None:
    """The `.h5` has the reported score and the optimizer's state; the other engine goes on from there."""
    recipe = Recipe(0, 0, 0, 0, 0.002, "adam", 2, seed=6, **SMALL)
    start = pack.begin(recipe)
    [whole] = train(pack, [start])
    [half] = train(pack, [dataclasses.replace(start, recipe=dataclasses.replace(recipe, epochs=1))])
    content = TrainingResult("finished", whole).to_h5(len(TRAIN))
    path = tmp_path / "packed.h5"
    path.write_bytes(content)

    score = Evaluator(DeviceSplit.of(VALIDATION)).score(load_model(path))
    assert score.accuracy == whole.history[-1].validation_accuracy
    assert score.loss == pytest.approx(whole.history[-1].validation_loss, rel=1e-5)
    record = read_record(content)
    assert record is not None
    assert record.plan == RecipePlan(recipe, "float32", "packed")
    assert record.history == whole.history

    trainer = Trainer(TRAIN, VALIDATION)
    half = TrainingState.from_bytes(dataclasses.replace(half, recipe=recipe).to_bytes())
    moved_on = trainer.train(recipe, state=half).state
    assert (half.engine, moved_on.engine) == ("packed", "tensorflow")
    assert_moved_alike(moved_on, list(whole.weights), start, 0.01)
    # And the other way round.
    begun = trainer.train(recipe, on_epoch=lambda *_: True).state
    [back] = train(pack, [begun])
    assert back.engine == "packed"
    assert_moved_alike(back, list(whole.weights), start, 0.01)
