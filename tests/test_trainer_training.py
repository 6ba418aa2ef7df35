"""trainer.training: what a training gives, calls, keeps and repeats, on a real sample of CIFAR-10."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import dataclasses
import gc
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import sample
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from trainer import evaluation
from trainer.cifar10 import Split
from trainer.device import DeviceSplit
from trainer.engine import Engine, Program
from trainer.evaluation import Evaluator
from trainer.model import build_model, build_optimizer, forget_models
from trainer.model_file import load_model, model_to_bytes
from trainer.network import Network
from trainer.pace import Pace
from trainer.precision import Precision
from trainer.recipe import OPTIMIZERS, Recipe
from trainer.state import EpochResult, StateError, TrainingState
from trainer.training import Trainer, TrainingResult
from trainer.weights import initial_weights

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

DATA = sample.load()
TRAIN = DATA.train.first(100)
VALIDATION = DATA.validation
STEPS = 4
"""Steps of 32 over 100 images; the last has 4 images."""
RECIPE = Recipe(learning_rate=0.002, epochs=3, batch_size=32, seed=1)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """One trainer for the whole file, as a worker has one for all its trials."""
    return Trainer(TRAIN, VALIDATION)


@pytest.fixture(scope="module")
def uninterrupted(trainer: Trainer) -> TrainingResult:
    """RECIPE, trained in one go."""
    return trainer.train(RECIPE)


def test_the_callback_gets_every_epoch(trainer: Trainer) -> None:
    """Epochs count from 1, with numbers that are finite and in range, and the state of that epoch."""
    got: list[tuple[EpochResult, TrainingState]] = []
    result = trainer.train(RECIPE, on_epoch=lambda epoch, state: got.append((epoch, state)) or False)
    assert [epoch.epoch for epoch, _ in got] == [1, 2, 3]
    for epoch, state in got:
        assert all(math.isfinite(value) for value in dataclasses.astuple(epoch))
        assert epoch.loss > 0
        assert epoch.validation_loss > 0
        assert 0 <= epoch.accuracy <= 1
        assert 0 <= epoch.validation_accuracy <= 1
        assert epoch.accuracy * len(TRAIN) == pytest.approx(round(epoch.accuracy * len(TRAIN)))
        assert epoch.learning_rate == RECIPE.learning_rate
        assert epoch.seconds > 0
        assert state.recipe == RECIPE
        assert state.epoch == epoch.epoch
        assert state.history[-1] == epoch
    assert result.status == "finished"
    assert result.diverged_epoch is None
    assert result.history == tuple(epoch for epoch, _ in got) == result.state.history
    assert _same(result.state, got[-1][1])


def test_a_state_that_was_handed_out_does_not_change(trainer: Trainer) -> None:
    """Later epochs and later trials leave a saved state as it was."""
    taken: list[tuple[TrainingState, bytes]] = []
    trainer.train(RECIPE, on_epoch=lambda _, state: taken.append((state, state.to_bytes())) or False)
    trainer.train(dataclasses.replace(RECIPE, seed=9, epochs=1))
    assert len({content for _, content in taken}) == 3
    assert all(state.to_bytes() == content for state, content in taken)


@pytest.mark.parametrize("last", [1, 2])
def test_the_callback_stops_the_training(last: int, trainer: Trainer) -> None:
    """True ends it after that epoch, with the state and history up to it."""
    result = trainer.train(RECIPE, on_epoch=lambda epoch, _: epoch.epoch == last)
    assert result.status == "stopped"
    assert result.diverged_epoch is None
    assert result.state.epoch == last
    assert [epoch.epoch for epoch in result.history] == list(range(1, last + 1))


def test_stopping_after_the_last_epoch_is_finishing(trainer: Trainer) -> None:
    """A training that did all its epochs is finished, whatever the callback says then."""
    assert trainer.train(RECIPE, on_epoch=lambda epoch, _: epoch.epoch == 3).status == "finished"


def test_a_finished_state_has_nothing_left_to_train(trainer: Trainer, uninterrupted: TrainingResult) -> None:
    """Going on from the last epoch's state calls nobody and changes nothing."""

    def never(*_: object) -> bool:
        raise AssertionError("called")

    result = trainer.train(RECIPE, state=uninterrupted.state, on_epoch=never, on_steps=never)
    assert result.status == "finished"
    assert _same(result.state, uninterrupted.state)


def test_steps_are_counted_up_to_the_epochs_steps(
    trainer: Trainer, uninterrupted: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch's count rises to its last step, and looking more often changes neither result nor trace."""
    before = trainer.traces
    monkeypatch.setattr(Pace, "steps", lambda *_: 3)
    got: list[tuple[int, int, int]] = []
    result = trainer.train(RECIPE, on_steps=lambda *counts: got.append(counts))
    assert got == [(epoch, done, STEPS) for epoch in (1, 2, 3) for done in (3, 4)]
    assert _same(result.state, uninterrupted.state)
    whole, cut = ([dataclasses.replace(e, seconds=0.0) for e in r.history] for r in (uninterrupted, result))
    assert cut == whole
    assert trainer.traces == before


def test_a_long_validation_is_looked_at_between_its_pieces(
    trainer: Trainer, uninterrupted: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told about steps is told again, with all of them done; its figures stay the same."""
    monkeypatch.setattr(Pace, "steps", lambda *_: STEPS)
    monkeypatch.setattr(evaluation, "PIECE", -(-len(VALIDATION) // 3))
    monkeypatch.setattr(evaluation, "BATCH", -(-len(VALIDATION) // 3))
    got: list[tuple[int, int, int]] = []
    result = trainer.train(RECIPE, on_steps=lambda *counts: got.append(counts))
    assert got == [(epoch, STEPS, STEPS) for epoch in (1, 2, 3) for _ in range(3)]
    for epoch, whole in zip(result.history, uninterrupted.history, strict=True):
        assert epoch.validation_accuracy == whole.validation_accuracy
        assert epoch.validation_loss == pytest.approx(whole.validation_loss, rel=1e-6)


class Interrupted(Exception):
    """What a callback of these tests raises."""


@pytest.mark.parametrize("epoch", [2, 3])
def test_what_a_callback_raises_reaches_the_caller(
    epoch: int, trainer: Trainer, uninterrupted: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in mid-epoch, the state that on_epoch got last goes on to the same weights."""
    monkeypatch.setattr(Pace, "steps", lambda *_: 2)
    states: list[TrainingState] = []

    def interrupt(at: int, done: int, steps: int) -> None:
        if (at, done) == (epoch, 2):
            raise Interrupted(f"{at} {done} {steps}")

    with pytest.raises(Interrupted, match=f"{epoch} 2 {STEPS}"):
        trainer.train(RECIPE, on_epoch=lambda _, state: states.append(state) or False, on_steps=interrupt)
    assert len(states) == epoch - 1
    assert _same(trainer.train(RECIPE, state=states[-1]).state, uninterrupted.state)


def test_what_the_epochs_callback_raises_reaches_the_caller(trainer: Trainer) -> None:
    """An error in on_epoch is the caller's to handle."""

    def fail(*_: object) -> bool:
        raise Interrupted("after an epoch")

    with pytest.raises(Interrupted, match="after an epoch"):
        trainer.train(RECIPE, on_epoch=fail)


def test_every_image_counts_once_also_those_of_the_last_batch(trainer: Trainer) -> None:
    """With a step size of next to nothing, an epoch's loss and accuracy are those of all 100 images."""
    recipe = Recipe(0, 0, 0, 0, learning_rate=1e-8, epochs=1, batch_size=32)
    [epoch] = trainer.train(recipe).history
    score = Evaluator(DeviceSplit.of(TRAIN)).score(build_model(recipe))
    assert epoch.loss == pytest.approx(score.loss, rel=1e-5)
    assert epoch.accuracy == score.accuracy


def test_the_last_batch_is_a_step(uninterrupted: TrainingResult) -> None:
    """Three epochs of 100 images in batches of 32 are twelve steps."""
    assert int(uninterrupted.build_model().optimizer.iterations) == 3 * STEPS


def test_it_learns(trainer: Trainer) -> None:
    """The loss falls, and training images are told apart far better than by chance."""
    recipe = Recipe(0, 0, 0, 0, learning_rate=0.002, optimizer="adam", epochs=25, batch_size=32)
    history = trainer.train(recipe).history
    assert history[0].accuracy < 0.4
    assert history[-1].loss < 0.5 * history[0].loss
    # 13 of these 100 images are of the most frequent class.
    assert history[-1].accuracy > 0.6
    assert [epoch.loss for epoch in history[::6]] == sorted((e.loss for e in history[::6]), reverse=True)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_a_loss_that_leaves_the_numbers_is_a_diverged_trial(optimizer: str, trainer: Trainer) -> None:
    """A step size of 10 ends the first epoch as diverged, with the state before it, and no exception."""
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, learning_rate=10.0)
    called: list[int] = []
    result = trainer.train(recipe, on_epoch=lambda epoch, _: called.append(epoch.epoch) or False)
    assert (result.status, result.diverged_epoch) == ("diverged", 1)
    assert called == []
    assert result.history == ()
    assert result.state.epoch == 0
    assert _bits(result.state.weights) == _bits(initial_weights(recipe.architecture, recipe.seed))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_trial_that_diverges_later_keeps_the_state_before(value: float, trainer: Trainer) -> None:
    """Diverging in epoch 2 leaves the state and history of epoch 1."""
    first = trainer.train(RECIPE, on_epoch=lambda *_: True).state
    weights = [*first.weights[:-1], np.full_like(first.weights[-1], value)]
    weights[-1][::2] *= -1
    broken = dataclasses.replace(first, weights=tuple(weights))
    result = trainer.train(RECIPE, state=broken)
    assert (result.status, result.diverged_epoch) == ("diverged", 2)
    assert _same(result.state, broken)
    assert [epoch.epoch for epoch in result.history] == [1]


@pytest.mark.parametrize("index", range(10))
def test_weights_that_leave_the_numbers_are_a_diverged_trial(index: int, trainer: Trainer) -> None:
    """No trial goes on, or finishes, with a weight that is NaN, though oneDNN's relu makes 0 of NaN."""
    first = trainer.train(RECIPE, on_epoch=lambda *_: True).state
    weights = [weight.copy() for weight in first.weights]
    weights[index].flat[0] = math.nan
    result = trainer.train(RECIPE, state=dataclasses.replace(first, weights=tuple(weights)))
    assert (result.status, result.diverged_epoch) == ("diverged", 2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trial_that_did_not_diverge_has_numbers_for_weights(optimizer: str, trainer: Trainer) -> None:
    """Under the largest step size every weight is finite, or the trial has diverged."""
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, learning_rate=10.0, seed=0)
    state = trainer.train(recipe).state
    assert all(np.isfinite(array).all() for array in state.weights)


def test_a_diverged_trial_leaves_the_next_one_alone(trainer: Trainer, uninterrupted: TrainingResult) -> None:
    """The trial after a diverged one gives what it gives without it."""
    assert trainer.train(dataclasses.replace(RECIPE, learning_rate=10.0)).status == "diverged"
    assert _same(trainer.train(RECIPE).state, uninterrupted.state)


def test_the_same_recipe_gives_the_same_weights(uninterrupted: TrainingResult) -> None:
    """In another trainer, after other global seeds, bit for bit."""
    keras.utils.set_random_seed(123)
    result = Trainer(TRAIN, VALIDATION).train(RECIPE)
    assert _same(result.state, uninterrupted.state)
    assert _without_seconds(result) == _without_seconds(uninterrupted)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"dropout_block1": 0.31},
        {"dropout_block2": 0.31},
        {"dropout_block3": 0.41},
        {"dropout_dense": 0.31},
        {"learning_rate": 0.0021},
        {"optimizer": "nesterov"},
        {"batch_size": 31},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_makes_a_difference(
    change: dict[str, Any], trainer: Trainer, uninterrupted: TrainingResult
) -> None:
    """No hyperparameter is ignored: changing any one of them gives other weights."""
    recipe = dataclasses.replace(RECIPE, epochs=1, **change)
    ours = trainer.train(recipe).state
    theirs = trainer.train(dataclasses.replace(RECIPE, epochs=1)).state
    assert any(not np.array_equal(a, b) for a, b in zip(ours.weights, theirs.weights, strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_interrupted_training_goes_on_to_the_same_state(optimizer: str, precision: Precision) -> None:
    """After any epoch, through bytes, in a new trainer: weights and optimizer state come out bit for bit."""
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    trainer = Trainer(TRAIN, VALIDATION, precision)
    taken: list[bytes] = []
    whole = trainer.train(recipe, on_epoch=lambda _, state: taken.append(state.to_bytes()) or False)
    assert whole.status == "finished"
    other = Trainer(TRAIN, VALIDATION, precision)
    for content in taken[:2]:
        result = other.train(recipe, state=TrainingState.from_bytes(content))
        assert _same(result.state, whole.state)
        assert _without_seconds(result) == _without_seconds(whole)


def test_another_process_goes_on_to_the_same_state(
    tmp_path: Path, trainer: Trainer, uninterrupted: TrainingResult
) -> None:
    """A checkpoint written here and read there ends in the same weights, moments and history."""
    checkpoint, final = tmp_path / "checkpoint", tmp_path / "final"
    first = trainer.train(RECIPE, on_epoch=lambda *_: True)
    checkpoint.write_bytes(first.state.to_bytes())
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import tensorflow_started, sample\n"
        "from pathlib import Path\n"
        "from trainer.training import Trainer, TrainingState\n"
        "state = TrainingState.from_bytes(Path(sys.argv[2]).read_bytes())\n"
        "data = sample.load()\n"
        "result = Trainer(data.train.first(100), data.validation).train(state.recipe, state=state)\n"
        "Path(sys.argv[3]).write_bytes(result.state.to_bytes())\n"
    )
    arguments = [str(Path(__file__).parent), str(checkpoint), str(final)]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=120)
    state = TrainingState.from_bytes(final.read_bytes())
    assert _same(state, uninterrupted.state)
    assert state.history[0] == first.history[0]


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_trials_that_take_turns_do_not_disturb_each_other(
    optimizer: str, trainer: Trainer, uninterrupted: TrainingResult
) -> None:
    """Two trials, an epoch of the one after an epoch of the other, end as each alone."""
    other = Recipe(
        0.1, 0.2, 0.1, 0.5, learning_rate=0.003, optimizer=optimizer, epochs=3, batch_size=32, seed=8
    )
    alone = trainer.train(other)
    states: dict[Recipe, TrainingState | None] = {RECIPE: None, other: None}
    for _ in range(3):
        for recipe, state in states.items():
            states[recipe] = trainer.train(recipe, state=state, on_epoch=lambda *_: True).state
    assert _same(states[RECIPE], uninterrupted.state)
    assert _same(states[other], alone.state)


def test_a_state_of_another_recipe_is_refused(trainer: Trainer) -> None:
    """Rates, seed and learning rate would be one recipe's, the number of epochs the other's."""
    state = trainer.train(Recipe(epochs=1)).state

    with pytest.raises(StateError, match="cannot go on as"):
        trainer.train(Recipe(epochs=2, seed=1), state=state)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {"weights": (state.weights[0][:1], *state.weights[1:])},
        lambda state: {"weights": state.weights[:-1]},
        lambda state: {"weights": (state.weights[0].astype(np.float64), *state.weights[1:])},
        lambda state: {"optimizer": state.optimizer[1:]},
        lambda state: {"optimizer": (*state.optimizer, state.optimizer[-1])},
    ],
)
def test_a_state_of_another_network_is_refused_before_anything_is_trained(
    change: Callable[[TrainingState], dict[str, Any]], trainer: Trainer
) -> None:
    """Half of it would be in the variables, and the error one of TensorFlow's."""
    recipe = dataclasses.replace(RECIPE, epochs=2)
    state = trainer.train(recipe, on_epoch=lambda *_: True).state
    told: list[int] = []

    with pytest.raises(StateError, match="are not those of this version's network"):
        trainer.train(
            recipe,
            state=dataclasses.replace(state, **change(state)),
            on_steps=lambda *_: told.append(1),
        )
    assert not told


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_a_trial_after_one_whose_rate_is_its_number_of_steps(rate: float) -> None:
    """Keras compares variables by value: the step counter must not be taken for the learning rate."""
    trainer = Trainer(TRAIN.first(10), VALIDATION.first(5))
    steps = int(rate)
    trainer.train(Recipe(learning_rate=rate, batch_size=10 // steps, epochs=1))

    result = trainer.train(dataclasses.replace(RECIPE, epochs=1))

    alone = Trainer(TRAIN.first(10), VALIDATION.first(5)).train(dataclasses.replace(RECIPE, epochs=1))
    assert _same(result.state, alone.state)


def test_one_trace_for_each_optimizer() -> None:
    """Other dropout, step size, batch size, seed or epochs, and resuming, never trace again.

    Validation is traced once for all optimizers.
    """
    trainer = Trainer(TRAIN.first(10), VALIDATION.first(5))
    assert trainer.traces == 0
    state = None
    for seed in range(4):
        recipe = Recipe(0.2 * seed, 0.1, 0.0, 0.3, 0.001 * (seed + 1), "sgd", seed + 1, 4 + seed, seed)
        state = trainer.train(recipe, on_epoch=lambda epoch, _: epoch.epoch == 2).state
        # Training and validation.
        assert trainer.traces == 2
    trainer.train(recipe, state=state)
    assert trainer.traces == 2
    trainer.train(dataclasses.replace(recipe, optimizer="nesterov", epochs=1))
    assert trainer.traces == 3
    trainer.train(recipe)
    assert trainer.traces == 3


def test_the_step_is_a_graph_without_a_cycle() -> None:
    """A loop has one; there TensorFlow may leave a pooling's gradient to a kernel that is much slower."""
    network = Network(RECIPE.architecture, "float32", DeviceSplit.of(VALIDATION))
    engine = Engine(Program.of(RECIPE), network, DeviceSplit.of(TRAIN))
    numbers = [tf.TensorSpec([], tf.int64)] * 4
    program = engine._run_steps.get_concrete_function(
        *numbers, tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.int32)
    )
    functions = program.graph.as_graph_def().library.function
    with_pools = [one for one in functions if any(node.op == "MaxPoolGrad" for node in one.node_def)]
    assert with_pools
    assert all(one.attr["_noinline"].b for one in with_pools)


def test_programs_that_gave_way_are_freed() -> None:
    """What was traced for networks that are kept no more is gone, though TensorFlow registers parts of it."""
    trainer = Trainer(TRAIN, VALIDATION)

    def train(activation: str) -> None:
        # Its gradient is one of those that TensorFlow registers, as is a step of each Keras optimizer.
        trainer.train(dataclasses.replace(RECIPE, epochs=1, activation=activation))
        forget_models()

    def count_graphs() -> int:
        return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())

    for activation in ("silu", "relu"):
        train(activation)
    kept = count_graphs()
    for activation in ("elu", "gelu", "silu", "relu"):
        train(activation)
    assert count_graphs() == kept


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 11])
def test_a_batch_size_trains_as_if_it_were_the_only_one(batch_size: int) -> None:
    """Whatever was trained before, an epoch of that batch size has its own steps and covers all images."""
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size, epochs=2)
    used = Trainer(TRAIN.first(10), VALIDATION.first(5))
    used.train(dataclasses.replace(recipe, batch_size=4, epochs=1))
    counts: list[tuple[int, int, int]] = []
    result = used.train(recipe, on_steps=lambda *now: counts.append(now))
    steps = -(-10 // batch_size)
    assert {now for now in counts if now[1] == steps} == {(1, steps, steps), (2, steps, steps)}
    assert _same(result.state, Trainer(TRAIN.first(10), VALIDATION.first(5)).train(recipe).state)


def test_a_state_goes_on_in_the_precision_that_it_began_in() -> None:
    """A machine with another default does not change the bits of a trial that it takes over."""
    float32, bfloat16 = (Trainer(TRAIN, VALIDATION, precision) for precision in ("float32", "bfloat16"))
    begun = bfloat16.train(RECIPE, on_epoch=lambda *_: True).state
    assert begun.precision == "bfloat16"
    taken_over = float32.train(RECIPE, state=TrainingState.from_bytes(begun.to_bytes())).state
    assert taken_over.precision == "bfloat16"
    assert _same(taken_over, bfloat16.train(RECIPE).state)
    assert not _same(taken_over, float32.train(RECIPE).state)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_xla_trains_to_nearly_the_same_state(precision: Precision) -> None:
    """Same batches, the last one of another size, and same masks: what differs is rounding.

    On a CPU, where nobody would want it; a GPU compiles the same program.
    """
    recipe = dataclasses.replace(RECIPE, epochs=2)
    plain, compiled = (
        Trainer(TRAIN, VALIDATION, precision, jit_compile=jit_compile).train(recipe)
        for jit_compile in (False, True)
    )
    assert not _same(plain.state, compiled.state)
    tolerance = {"float32": 1e-4, "bfloat16": 1e-2}[precision]
    for ours, theirs in zip(plain.state.weights, compiled.state.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=tolerance)
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=tolerance)


def test_xla_compiles_a_step_for_any_size_of_batch() -> None:
    """Trials of other sizes share a trainer; the program around the step is traced once, as without XLA."""
    trainer = Trainer(TRAIN.first(10), VALIDATION.first(5), jit_compile=True)
    for batch_size in (5, 10):
        recipe = dataclasses.replace(RECIPE, batch_size=batch_size, epochs=1)
        assert trainer.train(recipe).status == "finished"
    assert trainer.traces == 2


def test_the_model_has_the_states_weights_and_optimizer(trainer: Trainer) -> None:
    """build_model gives stock layers, compiled, with weights, step count, step size and moments."""
    recipe = dataclasses.replace(RECIPE, optimizer="adam", epochs=2, dropout_dense=0.5)
    result = trainer.train(recipe)
    model = result.build_model()
    assert model.compiled
    assert _bits(model.get_weights()) == _bits(result.state.weights)
    assert _bits(v.numpy() for v in model.optimizer.variables) == _bits(result.state.optimizer)
    assert int(model.optimizer.iterations) == 2 * STEPS
    assert float(model.optimizer.learning_rate) == np.float32(RECIPE.learning_rate)
    assert model.get_layer("dense_dropout").rate == 0.5


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_stored_file_has_the_reported_score(optimizer: str, tmp_path: Path, trainer: Trainer) -> None:
    """Whoever loads the `.h5` and evaluates it gets the last epoch's validation accuracy, exactly."""
    result = trainer.train(dataclasses.replace(RECIPE, optimizer=optimizer))
    path = tmp_path / "best.h5"
    path.write_bytes(model_to_bytes(result.build_model()))
    score = Evaluator(DeviceSplit.of(VALIDATION)).score(load_model(path))
    assert score.accuracy == result.history[-1].validation_accuracy
    assert score.loss == pytest.approx(result.history[-1].validation_loss, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
def test_keras_goes_on_from_the_stored_file(optimizer: str, tmp_path: Path, trainer: Trainer) -> None:
    """Loaded by stock Keras as docs say, two more epochs of `fit` match those of the model never stored."""
    recipe = Recipe(0, 0, 0, 0, 0.002, optimizer, epochs=1, batch_size=32)
    model = trainer.train(recipe).build_model()
    path = tmp_path / "best.h5"
    path.write_bytes(model_to_bytes(model))

    loaded = keras.models.load_model(path, compile=False)
    loaded.compile(build_optimizer(optimizer, 0.002), "sparse_categorical_crossentropy", metrics=["accuracy"])
    loaded.optimizer.build(loaded.trainable_variables)
    with h5py.File(path) as file:
        group = file["optimizer_weights"]
        kept = [group[name][()] for name in group.attrs["weight_names"]]
    for variable, value in zip(loaded.optimizer.variables, kept, strict=True):
        variable.assign(value)

    images, labels = _inputs(TRAIN)
    for one in (model, loaded):
        one.fit(images, labels, epochs=2, batch_size=32, shuffle=False, verbose=0)
    assert int(loaded.optimizer.iterations) == 3 * STEPS
    assert _bits(loaded.get_weights()) == _bits(model.get_weights())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_those_of_stock_keras(optimizer: str) -> None:
    """Three steps on one batch give the weights that the article's model and `train_on_batch` give."""
    train = TRAIN.first(64)
    # A batch larger than the data: one step an epoch, of all images, so that their order does not matter.
    rate = {"adam": 0.001, "rmsprop": 0.0003}.get(optimizer, 0.02)
    # Adam and RMSprop divide a gradient by its own size, so that near 0 rounding decides, which differs from
    # processor to processor; with this seed none of them is that near.
    recipe = Recipe(0, 0, 0, 0, rate, optimizer, epochs=3, batch_size=100, seed=5)
    result = Trainer(train, VALIDATION.first(5)).train(recipe)

    model = build_model(recipe)
    start = model.get_weights()
    model.compile(build_optimizer(optimizer, recipe.learning_rate), "sparse_categorical_crossentropy")
    losses = [float(model.train_on_batch(*_inputs(train))) for _ in range(3)]

    for ours, theirs, before in zip(result.state.weights, model.get_weights(), start, strict=True):
        moved = np.abs(theirs - before).max()
        assert moved > 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.01 * moved)
    np.testing.assert_allclose([epoch.loss for epoch in result.history], losses, rtol=1e-5)


def test_each_epoch_has_an_order_of_its_own_and_a_last_batch_of_its_own_size() -> None:
    """Three images in batches of two: every epoch is one of three orders, its last step one image's mean."""
    train = TRAIN.first(3)
    images, labels = _inputs(train)
    model = build_model(Recipe(0, 0, 0, 0))
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    trainer = Trainer(train, VALIDATION.first(5))
    orders: list[list[int]] = []
    for seed in (0, 1):
        recipe = Recipe(0, 0, 0, 0, 0.01, "sgd", epochs=8, batch_size=2, seed=seed)
        states: list[TrainingState] = []
        trainer.train(recipe, on_epoch=lambda _, state, keep=states: keep.append(state) or False)
        weights = initial_weights(recipe.architecture, seed)
        orders.append([])
        for state in states:
            fits = []
            for last in range(3):
                others = [index for index in range(3) if index != last]
                model.set_weights(weights)
                model.train_on_batch(images[others], labels[others])
                model.train_on_batch(images[[last]], labels[[last]])
                differences = zip(model.get_weights(), state.weights, strict=True)
                fits.append(max(np.abs(a - b).max() for a, b in differences))
            orders[-1].append(int(np.argmin(fits)))
            assert sorted(fits)[0] < 0.01 * sorted(fits)[1]
            weights = state.weights
    assert len(set(orders[0])) > 1
    assert len(set(orders[1])) > 1
    assert orders[0] != orders[1]


def test_dropout_is_on_in_training_and_off_in_validation(trainer: Trainer) -> None:
    """With rates of 0.95 the training loss suffers; the validation loss is the plain model's."""
    recipe = Recipe(0.95, 0.95, 0.95, 0.95, learning_rate=1e-8, epochs=1, batch_size=32)
    [epoch] = trainer.train(recipe).history
    model = build_model(recipe)
    assert epoch.validation_loss == pytest.approx(
        Evaluator(DeviceSplit.of(VALIDATION)).score(model).loss, rel=1e-5
    )
    assert epoch.loss > 1.05 * Evaluator(DeviceSplit.of(TRAIN)).score(model).loss


def test_splits_may_be_views() -> None:
    """A strided view of the data trains like a copy of it."""
    view = Split(TRAIN.images[::2], TRAIN.labels[::2])
    copy = Split(view.images.copy(), view.labels.copy())
    recipe = dataclasses.replace(RECIPE, epochs=1)
    assert _same(Trainer(view, VALIDATION).train(recipe).state, Trainer(copy, VALIDATION).train(recipe).state)


def _inputs(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The split as the article feeds it: float32 images in [0, 1], and labels."""
    return split.images.astype(np.float32) / 255, split.labels.astype(np.int32)


def _bits(arrays: Any) -> list[tuple[Any, ...]]:
    return [(array.shape, array.dtype, array.tobytes()) for array in arrays]


def _same(left: TrainingState | None, right: TrainingState) -> bool:
    """Whether recipe, weights and optimizer state agree, bit for bit."""
    return (
        left is not None
        and left.recipe == right.recipe
        and _bits(left.weights) == _bits(right.weights)
        and _bits(left.optimizer) == _bits(right.optimizer)
    )


def _without_seconds(result: TrainingResult) -> list[EpochResult]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in result.history]
