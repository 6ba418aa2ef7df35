"""trainer.continuation: a training that goes on from an `.h5`, bit for bit, and what its file must say."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import dataclasses
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import sample

from trainer.continuation import Changes, Continuation, continue_from
from trainer.device import count_threads
from trainer.errors import ModelError, RecipeError
from trainer.evaluation import Evaluator
from trainer.model import build_model, build_optimizer
from trainer.model_file import model_from_bytes, model_to_bytes
from trainer.precision import Precision
from trainer.recipe import OPTIMIZERS, Recipe
from trainer.record import ATTRIBUTE, RecipePlan, StockPlan, TrainingRecord, read_optimizer, read_record
from trainer.state import EpochResult
from trainer.training import Trainer

DATA = sample.load()
IMAGES = 96
TRAIN = DATA.train.first(IMAGES)
RECIPE = Recipe(0.1, 0.2, 0.3, 0.4, learning_rate=0.003, epochs=4, batch_size=32, seed=11)


@pytest.fixture(scope="module")
def trainers() -> Callable[[Precision], Trainer]:
    """One trainer for each precision, so that programs are traced once."""
    made: dict[Precision, Trainer] = {}

    def trainer(precision: Precision = "float32") -> Trainer:
        return made.setdefault(precision, Trainer(TRAIN, DATA.validation, precision))

    return trainer


Trainers = Callable[..., Trainer]


@pytest.fixture(scope="module")
def stored(trainers: Trainers) -> bytes:
    """The `.h5` of a trial of two epochs."""
    return trainers().train(dataclasses.replace(RECIPE, epochs=2)).to_h5(IMAGES)


@pytest.mark.parametrize(
    ("optimizer", "precision"), [*[(name, "float32") for name in OPTIMIZERS], ("adam", "bfloat16")]
)
def test_two_epochs_and_two_more_are_four(optimizer: str, precision: Precision, trainers: Trainers) -> None:
    """Weights, optimizer, history and recipe are those of a trial that was never stored, bit for bit."""
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    whole = trainers(precision).train(recipe)
    half = trainers(precision).train(dataclasses.replace(recipe, epochs=2)).to_h5(IMAGES)

    seen: list[int] = []
    continued = _open(half)
    assert continued.train(2, lambda result: seen.append(result.epoch)) is None

    assert seen == [3, 4]
    _assert_same_files(continued.to_h5(), whole.to_h5(IMAGES))
    assert _bits(model_from_bytes(half).get_weights()) != _bits(whole.state.weights)


def test_what_was_continued_can_be_continued(trainers: Trainers) -> None:
    """Four times one epoch, each from the file of the one before, are four in one go."""
    content = trainers().train(dataclasses.replace(RECIPE, epochs=1)).to_h5(IMAGES)
    for _ in range(3):
        one = _open(content)
        one.train(1, lambda _: None)
        content = one.to_h5()

    _assert_same_files(content, trainers().train(RECIPE).to_h5(IMAGES))


def test_the_precision_of_the_file_is_kept(trainers: Trainers) -> None:
    """A trial that began in bfloat16 goes on in it, and its file says so again."""
    content = trainers("bfloat16").train(dataclasses.replace(RECIPE, epochs=1)).to_h5(IMAGES)
    continued = _open(content)
    continued.train(1, lambda _: None)

    record = read_record(continued.to_h5())
    assert record is not None
    assert record.plan == RecipePlan(dataclasses.replace(RECIPE, epochs=2), "bfloat16")


def test_an_interrupted_training_keeps_its_last_full_epoch(stored: bytes, trainers: Trainers) -> None:
    """What is stored then is that epoch's state, and goes on to the same weights as ever."""
    continued = _open(stored)

    def interrupt(result: EpochResult) -> None:
        if result.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continued.train(2, interrupt)
    record = read_record(continued.to_h5())
    assert record is not None
    assert len(record.history) == 3
    assert isinstance(record.plan, RecipePlan)
    # The plan stays what it was, for schedules that are stretched over it.
    assert record.plan.recipe.epochs == 4
    rest = _open(continued.to_h5())
    rest.train(1, lambda _: None)

    _assert_same_files(rest.to_h5(), trainers().train(RECIPE).to_h5(IMAGES))


def test_changes_are_for_the_epochs_that_follow(stored: bytes) -> None:
    """The file's epochs keep their learning rate; those that follow, and the optimizer, have the new one."""
    continued = _open(stored, Changes(learning_rate=0.001, seed=5, batch_size=48))
    continued.train(1, lambda _: None)

    # The rate is an epoch's own, as far as float32 tells.
    rates = [one.learning_rate for one in continued.history]
    assert rates == pytest.approx([0.003, 0.003, 0.001])
    content = continued.to_h5()
    assert read_optimizer(content)["momentum/learning_rate"] == np.float32(0.001)
    assert read_optimizer(content)["momentum/iteration"] == 3 + 3 + 2
    record = read_record(content)
    assert record is not None
    expected = dataclasses.replace(RECIPE, epochs=3, learning_rate=0.001, seed=5, batch_size=48)
    assert record.plan == RecipePlan(expected, "float32")
    same = _open(stored)
    same.train(1, lambda _: None)
    assert _bits(model_from_bytes(content).get_weights()) != _bits(
        model_from_bytes(same.to_h5()).get_weights()
    )


@pytest.mark.parametrize("schedule", ["step", "cosine", "warmup_cosine", "plateau"])
def test_more_epochs_than_planned_stretch_a_schedule(schedule: str, trainers: Trainers) -> None:
    """And what that does is told before: the rate of the epoch that follows, whatever the last one was."""
    recipe = dataclasses.replace(RECIPE, epochs=2, schedule=schedule)
    continued = _open(trainers().train(recipe).to_h5(IMAGES))

    assert continued.is_scheduled
    assert continued.stretch(0) is None
    told = continued.stretch(6)
    continued.train(1, lambda _: None)

    assert told is not None
    assert (told.before, told.after) == (2, 8)
    assert told.last_rate == continued.history[1].learning_rate
    one_more = _open(trainers().train(recipe).to_h5(IMAGES)).stretch(1)
    assert one_more is not None
    assert continued.history[2].learning_rate == one_more.next_rate


def test_an_interrupted_plan_is_not_stretched(trainers: Trainers) -> None:
    """It goes on to its end with the rates that it would have had."""
    recipe = dataclasses.replace(RECIPE, schedule="cosine")
    whole, seen = trainers().train(recipe), []
    first = trainers().train(recipe, on_epoch=lambda result, _: result.epoch == 1).to_h5(IMAGES)
    continued = _open(first)

    assert continued.stretch(3) is None
    continued.train(3, lambda result: seen.append(result.learning_rate))

    assert seen == [one.learning_rate for one in whole.history[1:]]
    _assert_same_files(continued.to_h5(), whole.to_h5(IMAGES))


def test_a_constant_rate_is_not_stretched(stored: bytes) -> None:
    """More epochs than planned change nothing about it."""
    continued = _open(stored)
    assert (continued.is_scheduled, continued.stretch(9), continued.rate) == (False, None, 0.003)


@pytest.mark.parametrize("scheduled", [True, False])
def test_an_optimizer_says_whether_its_rate_changes(scheduled: bool) -> None:
    """One with a schedule of Keras's has no rate that another could take the place of."""
    model = _article_like(8)
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5) if scheduled else 0.01
    model.compile(keras.optimizers.SGD(rate), "mean_squared_error")
    continued = _open(model_to_bytes(model))
    assert (continued.is_scheduled, continued.stretch(9)) == (scheduled, None)
    assert continued.rate == (None if scheduled else pytest.approx(0.01))


def test_a_change_outside_its_range_is_refused(stored: bytes) -> None:
    """By its name."""
    with pytest.raises(RecipeError, match="learning_rate"):
        _open(stored, Changes(learning_rate=100.0))


def test_a_training_that_diverges_keeps_the_epoch_before(stored: bytes) -> None:
    """The epoch is told, and what can be stored is what was there before it."""
    continued = _open(stored, Changes(learning_rate=10.0))

    diverged = continued.train(30, lambda _: None)

    assert diverged is not None
    assert len(continued.history) == diverged - 1
    weights = model_from_bytes(continued.to_h5()).get_weights()
    assert all(np.isfinite(array).all() for array in weights)


def test_stock_keras_loads_a_file_with_its_record(stored: bytes, trainers: Trainers, tmp_path: Path) -> None:
    """`keras.models.load_model` gives the model, compiled or not, as from a file without the record."""
    result = trainers().train(dataclasses.replace(RECIPE, epochs=2))
    path = tmp_path / "m.h5"
    path.write_bytes(stored)

    for compiled in (True, False):
        model = keras.models.load_model(path, compile=compiled)
        assert _bits(model.get_weights()) == _bits(result.state.weights)
        assert model.get_config() == result.build_model().get_config()


def test_the_record_says_what_exactness_needs(stored: bytes) -> None:
    """Recipe, precision, images, threads and history, as JSON in one attribute."""
    with h5py.File(io.BytesIO(stored)) as file:
        told = json.loads(file.attrs[ATTRIBUTE])

    assert Recipe.from_dict(told["recipe"]) == dataclasses.replace(RECIPE, epochs=2)
    assert (told["precision"], told["train_images"], told["threads"]) == ("float32", IMAGES, count_threads())
    assert [one["epoch"] for one in told["history"]] == [1, 2]
    record = read_record(stored)
    assert record is not None
    assert json.loads(record.to_json()) == told


def test_a_record_of_the_version_before_is_read(stored: bytes) -> None:
    """It does not name the kind of engine: there was one."""
    record = read_record(_with_record(stored, lambda told: told.pop("engine")))
    assert record == read_record(stored)


def test_a_history_of_any_length_has_room(trainers: Trainers) -> None:
    """Ten thousand epochs are far more than the 64 kB of an HDF5 header."""
    result = trainers().train(dataclasses.replace(RECIPE, epochs=1))
    history = tuple(dataclasses.replace(result.history[0], epoch=epoch) for epoch in range(1, 10_001))
    plan = RecipePlan(dataclasses.replace(RECIPE, epochs=10_000), "float32")
    record = TrainingRecord(plan, IMAGES, 1, history)

    content = model_to_bytes(result.build_model(), record)

    assert len(record.to_json()) > 1_000_000
    assert read_record(content) == record
    assert _bits(model_from_bytes(content).get_weights()) == _bits(result.state.weights)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.update(format=2), "format 2, not 1, which is known"),
        (lambda told: told.pop("history"), "KeyError: 'history'"),
        (lambda told: told["history"].pop(0), "epoch 2 where 1 is due"),
        (lambda told: told["history"][0].pop("loss"), "loss"),
        (
            lambda told: told["recipe"].update(dropout_dense=2),
            "dropout_dense must be a number",
        ),
        (lambda told: told["recipe"].update(hue=1), "a recipe has no field 'hue'"),
        (lambda told: told.update(precision="float8"), "unknown precision 'float8'"),
        (lambda told: told.update(engine="steam"), "an unknown kind of engine 'steam'"),
        (lambda told: told.update(train_images=0), "train_images must be a whole number .* got 0"),
        (lambda told: told.update(train_images=math.inf), "train_images must be .* got inf"),
        (lambda told: told.update(threads="many"), "threads must be .* got 'many'"),
        (lambda told: told.update(threads=10**6), "threads must be .* got 1000000"),
        (lambda told: told.update(threads=True), "threads must be .* got True"),
        (lambda told: told["history"][1].update(loss="low"), "loss of epoch 2 must be a number, got 'low'"),
        (lambda told: told["history"][1].update(loss=math.nan), "loss of epoch 2 must be a number, got nan"),
        (lambda told: told["history"][0].update(epoch=1.0), "epoch 1.0 where 1 is due"),
        (lambda told: told.update(history=5), "TypeError"),
        (lambda told: told.update(history=[5]), "TypeError"),
        (lambda told: told.update(precision="x" * 10**6), "unknown precision 'xxx"),
        (lambda told: _make_stock(told, batch_size=0), "batch_size must be .* got 0"),
        (lambda told: _make_stock(told, batch_size=-1), "batch_size must be .* got -1"),
        (lambda told: _make_stock(told, batch_size=10**12), "batch_size must be .* got 1000000000000"),
        (lambda told: _make_stock(told, batch_size=1.5), "batch_size must be .* got 1.5"),
        (lambda told: _make_stock(told, seed=-1), "seed must be .* got -1"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused(
    change: Callable[[dict[str, Any]], object], words: str, stored: bytes
) -> None:
    """By the file's name and the reason; nothing is guessed in its place."""
    with pytest.raises(ModelError, match=f"^some.h5: .*{words}") as refused:
        read_record(_with_record(stored, change), "some.h5")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("text", ["[" * 100_000, "5", "[]", "", "null", '{"format": 1'])
def test_a_record_of_another_form_is_refused(text: str, stored: bytes) -> None:
    """JSON that is nested without end, that is no object, that is none at all."""
    with pytest.raises(ModelError, match=r"^some\.h5: the record of its training is damaged: "):
        read_record(_rewrite(stored, lambda file: file.attrs.update({ATTRIBUTE: text})), "some.h5")


def test_a_damaged_file_is_refused() -> None:
    """Before TensorFlow is asked."""
    with pytest.raises(ModelError, match=r"^some\.h5: a damaged HDF5 file"):
        read_record(b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "some.h5")


def test_an_error_without_words_is_told_by_its_name(stored: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What h5py raises need not say anything."""

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("trainer.record.h5py.File", fail)
    with pytest.raises(ModelError, match=r"^some\.h5: a damaged HDF5 file: RuntimeError$"):
        read_record(stored, "some.h5")


@pytest.mark.parametrize("with_record", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda group: group.attrs.pop("weight_names"),
        lambda group: group.attrs.update(weight_names=[1, 2, 3]),
        lambda group: group.attrs.update(weight_names=[]),
        lambda group: group.pop(group.attrs["weight_names"][3]),
        lambda group: _replace_by_group(group, group.attrs["weight_names"][3]),
    ],
    ids=["no names", "numbers", "none", "missing array", "group"],
)
def test_a_damaged_optimizer_is_refused(
    with_record: bool, damage: Callable[[Any], object], stored: bytes
) -> None:
    """In one line by the file's name; it is not taken for one that was never trained."""

    def change(file: h5py.File) -> None:
        damage(file["optimizer_weights"])
        if not with_record:
            del file.attrs[ATTRIBUTE]

    content = _rewrite(stored, change)
    changes = Changes(train_images=IMAGES)
    with pytest.raises(ModelError, match=r"^some\.h5: the optimizer in it is damaged: ") as refused:
        continue_from(content, read_record(content), DATA, changes, origin="some.h5")
    assert len(str(refused.value).splitlines()) == 1


def test_an_optimizer_that_lost_its_moments_is_not_a_new_one(stored: bytes) -> None:
    """Step counter and rate alone are what a model has that was never trained; this one was."""

    def change(file: h5py.File) -> None:
        group = file["optimizer_weights"]
        group.attrs["weight_names"] = group.attrs["weight_names"][:2]
        del file.attrs[ATTRIBUTE]

    with pytest.raises(ModelError, match="its optimizer's 2 arrays are not the "):
        _open(_rewrite(stored, change))


def test_a_rate_that_is_missing_is_not_a_new_optimizer() -> None:
    """The file of a model that was never trained has the rate, too."""
    model = _article_like(8)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "categorical_crossentropy")

    def change(file: h5py.File) -> None:
        group = file["optimizer_weights"]
        group.attrs["weight_names"] = group.attrs["weight_names"][:1]

    with pytest.raises(ModelError, match="its optimizer's 1 arrays are not the "):
        _open(_rewrite(model_to_bytes(model), change))


@pytest.mark.parametrize(
    ("activation", "weight", "words"), [("linear", 1.0, "no probabilities"), ("softmax", np.nan, "gives NaN")]
)
def test_a_model_from_elsewhere_must_give_probabilities(activation: str, weight: float, words: str) -> None:
    """The validation loss of each epoch would mean nothing."""
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10, activation)]
    )
    model.set_weights([weight * array for array in model.get_weights()])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=activation == "linear"))
    with pytest.raises(ModelError, match=words):
        _open(model_to_bytes(model))


def test_a_fixed_batch_size_is_named() -> None:
    """Such a model takes 32x32x3 images and gives 10 classes; what is wrong with it is the batch."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3), batch_size=4),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    with pytest.raises(ModelError, match=r"takes 4 images at a time, .* fixed batch size"):
        model_from_bytes(model_to_bytes(model))


def test_more_images_than_there_are_cannot_be_trained_on(trainers: Trainers) -> None:
    """It would be another training."""
    content = trainers().train(dataclasses.replace(RECIPE, epochs=1)).to_h5(40_000)
    with pytest.raises(ModelError, match="trained on 40,000 images, and there are 320"):
        _open(content)


def test_a_model_of_another_shape_than_its_recipe_is_refused(stored: bytes) -> None:
    """A record beside a model that is not the recipe's is found out, not trained."""
    model = _article_like(8)
    model.compile(build_optimizer("momentum", 0.01), "sparse_categorical_crossentropy")
    content = model_to_bytes(model, read_record(stored))
    with pytest.raises(ModelError, match=r"^some\.h5: the record .* the saved weights are not those[^:]*$"):
        continue_from(content, read_record(content), DATA, Changes(), origin="some.h5").train(
            1, lambda _: None
        )


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [
        (lambda: keras.optimizers.SGD(0.01, momentum=0.9), "categorical_crossentropy"),
        (
            lambda: keras.optimizers.Nadam(0.003, clipnorm=1.0),
            keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        ),
        (
            lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
            "mean_squared_error",
        ),
    ],
)
def test_a_model_from_elsewhere_goes_on_by_its_own_optimizer_and_loss(optimizer: Any, loss: Any) -> None:
    """Another architecture, with batch normalisation and dropout: 1 + 1 + 1 epochs are 3, bit for bit."""
    model = _article_like(8, batch_normalisation=True)
    model.compile(optimizer(), loss, metrics=["accuracy"])
    _fit(model)
    content = model_to_bytes(model)
    assert read_record(content) is None

    whole = _open(content)
    assert whole.train(3, lambda _: None) is None
    for _ in range(3):
        one = _open(content)
        one.train(1, lambda _: None)
        content = one.to_h5()

    _assert_same_files(content, whole.to_h5())
    record = read_record(content)
    assert record is not None
    assert record.plan == StockPlan(64, 0)
    assert [one.epoch for one in record.history] == [1, 2, 3]
    # The optimizer went on; a new one would have begun to count anew.
    [iteration] = [value for name, value in read_optimizer(content).items() if name.endswith("/iteration")]
    assert int(iteration) == 5 + 3 * 2
    last = whole.history[-1]
    score = Evaluator(_split(DATA.validation)).score(model_from_bytes(content))
    assert (last.validation_accuracy, last.validation_loss) == (score.accuracy, pytest.approx(score.loss))


def test_the_steps_of_a_model_from_elsewhere_are_keras_own(trainers: Trainers) -> None:
    """Two epochs of one batch of all images, without dropout, give the weights that `fit` gives."""
    model = _article_like(8, rate=0.0)
    model.compile(keras.optimizers.Adam(0.002), "categorical_crossentropy", metrics=["accuracy"])
    _fit(model)
    content = model_to_bytes(model)

    continued = _open(content, Changes(batch_size=IMAGES))
    continued.train(2, lambda _: None)
    before = model.get_weights()
    images, labels = TRAIN.images.astype(np.float32) / 255, np.eye(10, dtype=np.float32)[TRAIN.labels]
    history = model.fit(images, labels, batch_size=IMAGES, epochs=2, verbose=0).history

    ours = model_from_bytes(continued.to_h5()).get_weights()
    for mine, theirs, start in zip(ours, model.get_weights(), before, strict=True):
        moved = np.abs(theirs - start).max()
        assert moved > 1e-4
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=0.01 * moved)
    assert [one.loss for one in continued.history] == pytest.approx(history["loss"], rel=1e-4)
    assert [one.accuracy for one in continued.history] == pytest.approx(history["accuracy"])


def test_a_model_from_elsewhere_takes_seed_batch_size_and_rate() -> None:
    """Another seed is another training; the optimizer has the new rate."""
    model = _article_like(8)
    model.compile("adam", "sparse_categorical_crossentropy")
    content = model_to_bytes(model)
    ends = []
    for changes in (Changes(), Changes(seed=1), Changes(batch_size=32), Changes(learning_rate=0.02)):
        one = _open(content, changes)
        one.train(1, lambda _: None)
        ends.append(one.to_h5())

    assert len({str(_bits(model_from_bytes(end).get_weights())) for end in ends}) == 4
    # Keras numbers its optimizers; `adam` may be the fifth.
    [rate] = [value for name, value in read_optimizer(ends[3]).items() if name.endswith("/learning_rate")]
    assert rate == np.float32(0.02)
    record = read_record(ends[2])
    assert record is not None
    assert record.plan == StockPlan(32, 0)


def test_an_interrupted_epoch_of_a_model_from_elsewhere_leaves_nothing() -> None:
    """What is stored are the weights of the last full epoch, not of a step in the midst of one."""
    model = _article_like(8)
    model.compile("adam", "sparse_categorical_crossentropy")
    continued = _open(model_to_bytes(model))

    def interrupt(_: EpochResult) -> None:
        continued._trainer.model.set_weights([0 * w for w in model.get_weights()])  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        continued.train(2, interrupt)
    whole = _open(model_to_bytes(model))
    whole.train(1, lambda _: None)

    _assert_same_files(continued.to_h5(), whole.to_h5())


def test_a_model_from_elsewhere_that_diverges_is_told() -> None:
    """And its last good state is what can be stored."""
    model = _article_like(8)
    model.compile(keras.optimizers.SGD(1e30), "mean_squared_error")
    before = model.get_weights()
    continued = _open(model_to_bytes(model))

    assert continued.train(3, lambda _: None) == 1
    assert continued.history == ()
    assert _bits(model_from_bytes(continued.to_h5()).get_weights()) == _bits(before)


def test_a_model_without_an_optimizer_cannot_go_on() -> None:
    """The error says what to do."""
    with pytest.raises(ModelError, match=r"some\.h5: .*without its optimizer; compile it, then save it"):
        continue_from(model_to_bytes(build_model(RECIPE)), None, DATA, Changes(), origin="some.h5")


def test_a_schedule_is_not_replaced_by_a_rate() -> None:
    """The error names the option."""
    model = _article_like(8)
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)), "mean_squared_error"
    )
    with pytest.raises(ModelError, match="--learning-rate"):
        _open(model_to_bytes(model), Changes(learning_rate=0.1))


def test_an_optimizer_in_another_form_is_refused(tmp_path: Path) -> None:
    """Keras 2 stored no learning rate among an optimizer's arrays; it is not taken for something else."""
    model = _article_like(8)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "categorical_crossentropy")
    _fit(model)
    path = tmp_path / "m.h5"
    path.write_bytes(model_to_bytes(model))
    with h5py.File(path, "a") as file:
        group = file["optimizer_weights"]
        names = [name for name in group.attrs["weight_names"] if not name.endswith("learning_rate")]
        group.attrs["weight_names"] = names

    with pytest.raises(ModelError, match=r"its optimizer's .* if Keras 2 wrote it"):
        _open(path.read_bytes())


def _open(content: bytes, changes: Changes | None = None) -> Continuation:
    """Ready to go on, on the same few images, as a file without a record does not say."""
    record, changes = read_record(content), changes or Changes()
    if record is None:
        changes = dataclasses.replace(changes, train_images=IMAGES)
    return continue_from(content, record, DATA, changes)


def _article_like(filters: int, *, batch_normalisation: bool = False, rate: float = 0.3) -> keras.Model:
    """A small model as someone with Keras alone would write it."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(filters, 3, strides=2)])
    if batch_normalisation:
        model.add(layers.BatchNormalization())
    for layer in (
        layers.Activation("relu"),
        layers.MaxPooling2D(4),
        layers.Dropout(rate),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ):
        model.add(layer)
    return model


def _fit(model: keras.Model) -> None:
    """Five steps, so that the optimizer has a state."""
    one_hot = "sparse" not in str(getattr(model.loss, "name", model.loss))
    labels = np.eye(10, dtype=np.float32)[TRAIN.labels[:10]] if one_hot else TRAIN.labels[:10]
    model.fit(TRAIN.images[:10].astype(np.float32) / 255, labels, batch_size=2, verbose=0)


def _split(split: Any) -> Any:
    from trainer.device import DeviceSplit

    return DeviceSplit.of(split)


def _with_record(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    def rewrite(file: h5py.File) -> None:
        told = json.loads(file.attrs[ATTRIBUTE])
        change(told)
        file.attrs[ATTRIBUTE] = json.dumps(told)

    return _rewrite(content, rewrite)


def _rewrite(content: bytes, change: Callable[[h5py.File], object]) -> bytes:
    file = io.BytesIO(content)
    with h5py.File(file, "a") as opened:
        change(opened)
    return file.getvalue()


def _make_stock(told: dict[str, Any], **changes: Any) -> None:
    """Let the record be one of a model that came without."""
    del told["recipe"]
    told["stock"] = {"batch_size": 64, "seed": 0, **changes}


def _replace_by_group(group: h5py.Group, name: str) -> None:
    del group[name]
    group.create_group(name)


def _assert_same_files(left: bytes, right: bytes) -> None:
    """Weights, optimizer and record agree, bit for bit, but for the seconds that epochs took."""
    assert _bits(model_from_bytes(left).get_weights()) == _bits(model_from_bytes(right).get_weights())
    ours, theirs = read_optimizer(left), read_optimizer(right)
    assert _bits(ours.values()) == _bits(theirs.values())
    assert _without_seconds(read_record(left)) == _without_seconds(read_record(right))


def _without_seconds(record: TrainingRecord | None) -> TrainingRecord:
    assert record is not None
    history = tuple(dataclasses.replace(one, seconds=0.0) for one in record.history)
    return dataclasses.replace(record, history=history)


def _bits(arrays: Any) -> list[tuple[Any, ...]]:
    return [(array.shape, array.dtype, array.tobytes()) for array in map(np.asarray, arrays)]
