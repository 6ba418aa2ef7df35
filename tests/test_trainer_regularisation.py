"""Schedules, weight decay and label smoothing in training, on a real sample of CIFAR-10."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import dataclasses
import gc
import json
import weakref
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import sample

from trainer import training
from trainer.evaluation import Evaluator
from trainer.model import build_model, build_optimizer
from trainer.model_file import model_to_bytes
from trainer.recipe import OPTIMIZERS, SCHEDULES, Recipe
from trainer.schedule import learning_rate
from trainer.state import TrainingState
from trainer.training import Trainer, TrainingResult

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

DATA = sample.load()
TRAIN = DATA.train.first(48)
VALIDATION = DATA.validation.first(20)
RECIPE = Recipe(learning_rate=0.005, epochs=4, batch_size=24, seed=2)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """One trainer for the whole file, as a worker has one for all its trials."""
    return Trainer(TRAIN, VALIDATION)


def same(left: TrainingState, right: TrainingState) -> bool:
    """Whether weights and optimizer state agree, bit for bit."""
    pairs = zip((*left.weights, *left.optimizer), (*right.weights, *right.optimizer), strict=True)
    return all(one.tobytes() == other.tobytes() for one, other in pairs)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_steps_and_the_history_have_the_schedules_rates(schedule: str, trainer: Trainer) -> None:
    """Each epoch records its rate, and the optimizer in the state, and so in the file, has the last one's."""
    recipe = dataclasses.replace(RECIPE, schedule=schedule, plateau_patience=0.25, plateau_factor=0.5)
    result = trainer.train(recipe)
    losses = [epoch.validation_loss for epoch in result.history]
    assert [epoch.learning_rate for epoch in result.history] == [
        learning_rate(recipe, losses[:done]) for done in range(4)
    ]
    last = np.float32(result.history[-1].learning_rate)
    assert float(result.build_model().optimizer.learning_rate) == last


@pytest.mark.parametrize("schedule", SCHEDULES[1:])
def test_a_schedule_goes_on_bit_for_bit(schedule: str, trainer: Trainer) -> None:
    """From the state after any epoch, through bytes, after another trial; with decay and smoothing too."""
    recipe = dataclasses.replace(
        RECIPE,
        schedule=schedule,
        plateau_patience=0.25,
        weight_decay=0.01,
        label_smoothing=0.1,
        optimizer="adam",
    )
    taken: list[bytes] = []
    whole = trainer.train(recipe, on_epoch=lambda _, state: taken.append(state.to_bytes()) or False)
    for content in taken[:3]:
        trainer.train(dataclasses.replace(recipe, epochs=1, weight_decay=0.5, label_smoothing=0.5))
        resumed = trainer.train(recipe, state=TrainingState.from_bytes(content))
        assert same(resumed.state, whole.state)
        assert [epoch.learning_rate for epoch in resumed.history] == [
            epoch.learning_rate for epoch in whole.history
        ]


def test_the_rate_that_steps_use_makes_a_difference(trainer: Trainer) -> None:
    """After the epoch at which the rate falls the weights move less."""

    def last_move(recipe: Recipe) -> float:
        states: list[TrainingState] = []
        trainer.train(recipe, on_epoch=lambda _, state: states.append(state) or False)
        pairs = zip(states[-1].weights, states[-2].weights, strict=True)
        return max(float(np.abs(one - other).max()) for one, other in pairs)

    plain = dataclasses.replace(RECIPE, optimizer="adam", epochs=3)
    assert last_move(dataclasses.replace(plain, schedule="step", step_at=0.6)) < 0.5 * last_move(plain)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_decay_is_that_of_kerass_optimizer(optimizer: str, trainer: Trainer) -> None:
    """Three steps on one batch give the weights that stock Keras gives with the same `weight_decay`."""
    rate = {"adam": 0.001, "rmsprop": 0.0003}.get(optimizer, 0.02)
    recipe = Recipe(0, 0, 0, 0, rate, optimizer, epochs=3, batch_size=100, weight_decay=0.9)
    result = trainer.train(recipe)
    without = trainer.train(dataclasses.replace(recipe, weight_decay=0.0))

    model = build_model(recipe)
    model.compile(build_optimizer(optimizer, rate, 0.9), "sparse_categorical_crossentropy")
    images, labels = TRAIN.images.astype(np.float32) / 255, TRAIN.labels.astype(np.int32)
    for _ in range(3):
        model.train_on_batch(images, labels)

    ours, theirs, plain = (
        np.concatenate([weight.ravel() for weight in weights])
        for weights in (result.state.weights, model.get_weights(), without.state.weights)
    )
    decayed = np.abs(theirs - plain).mean()
    assert decayed > 1e-5
    # RMSprop takes a whole step where a gradient is nearly zero, whatever its sign: a few weights differ.
    assert np.abs(ours - theirs).mean() < (0.2 if optimizer == "rmsprop" else 0.02) * decayed


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_stored_optimizer_has_the_recipes_decay(optimizer: str, trainer: Trainer, tmp_path: Path) -> None:
    """Whoever trains the `.h5` further decays as before; without decay the file says none."""
    for decay in (0.25, 0.0):
        recipe = dataclasses.replace(RECIPE, optimizer=optimizer, epochs=1, weight_decay=decay)
        path = tmp_path / "model.h5"
        path.write_bytes(model_to_bytes(trainer.train(recipe).build_model()))
        with h5py.File(path) as file:
            config = json.loads(file.attrs["training_config"])["optimizer_config"]["config"]
        assert config["weight_decay"] == (decay or None)


@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_smoothing_is_kerass(smoothing: float, trainer: Trainer) -> None:
    """The loss is CategoricalCrossentropy's of the same smoothing, and the step follows its gradient."""
    recipe = Recipe(0, 0, 0, 0, 0.02, "sgd", epochs=1, batch_size=100, label_smoothing=smoothing)
    result = trainer.train(recipe)

    model = build_model(recipe)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    model.compile(build_optimizer("sgd", 0.02), loss)
    images = TRAIN.images.astype(np.float32) / 255
    expected = model.train_on_batch(images, keras.utils.to_categorical(TRAIN.labels, 10))

    assert result.history[0].loss == pytest.approx(float(expected), rel=1e-5)
    start = build_model(recipe).get_weights()
    for ours, theirs, before in zip(result.state.weights, model.get_weights(), start, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.01 * np.abs(theirs - before).max())


def test_validation_knows_no_smoothing(trainer: Trainer) -> None:
    """Validation losses of recipes with and without it can be compared: both are the plain model's."""
    recipe = dataclasses.replace(RECIPE, epochs=1, label_smoothing=0.5)
    result = trainer.train(recipe)
    score = Evaluator(trainer.validation).score(result.build_model())
    assert result.history[0].validation_loss == pytest.approx(score.loss, rel=1e-5)


def test_numbers_share_a_program_and_what_is_off_is_in_none() -> None:
    """Schedules and the strengths of decay and smoothing never trace again; switching one on does, once."""
    trainer = Trainer(TRAIN.first(10), VALIDATION.first(5))
    recipe = Recipe(epochs=1, batch_size=5)
    for schedule in SCHEDULES:
        trainer.train(dataclasses.replace(recipe, schedule=schedule))
        assert trainer.traces == 2
    for traces, field in ((3, "weight_decay"), (4, "label_smoothing")):
        for strength in (0.1, 0.2):
            trainer.train(dataclasses.replace(recipe, **{field: strength}))
            assert trainer.traces == traces
    trainer.train(recipe)
    assert trainer.traces == 4


def test_programs_that_nobody_used_for_long_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search over many kinds of program holds a bounded number of them, and makes one again when asked."""
    monkeypatch.setattr(training, "ENGINES", 2)
    trainer = Trainer(TRAIN.first(10), VALIDATION.first(5))
    recipe = Recipe(epochs=1, batch_size=5)
    first = trainer._programs(recipe, "float32")[1]
    results: list[TrainingResult] = [trainer.train(recipe)]
    engine = weakref.ref(first)
    del first
    for optimizer in ("sgd", "adam"):
        trainer.train(dataclasses.replace(recipe, optimizer=optimizer))
    gc.collect()
    assert engine() is None
    traces = trainer.traces
    results.append(trainer.train(recipe))
    assert trainer.traces == traces + 1
    assert same(results[0].state, results[1].state)
