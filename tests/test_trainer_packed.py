"""trainer.packed: trials in slots train as alone, as Keras would, whatever happens beside them."""

import dataclasses
import gc
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample

jax = pytest.importorskip("jax")

from quick_jax import compile_quickly  # noqa: E402, F401  # a fixture

from trainer.errors import OutOfMemoryError  # noqa: E402
from trainer.pace import Pace  # noqa: E402
from trainer.packed.convolution import LOWERINGS, Lowering  # noqa: E402
from trainer.packed.device import PackData  # noqa: E402
from trainer.packed.pack import Pack, PackKey  # noqa: E402
from trainer.packed.shape import Build, choose_build  # noqa: E402
from trainer.recipe import OPTIMIZERS, Recipe  # noqa: E402
from trainer.schedule import learning_rate  # noqa: E402
from trainer.state import StateError, TrainingState  # noqa: E402

DATA = sample.load()
TRAIN, VALIDATION = DATA.train.first(50), DATA.validation.first(30)
STEPS = 4
"""Steps of 16 over 50 images; the last has 2 images."""
SMALL: dict[str, Any] = {"width": 0.25, "blocks": 2, "dense_units": 16, "batch_size": 16}
RECIPE = Recipe(0.1, 0.2, 0.3, 0.4, learning_rate=0.005, epochs=3, seed=1, **SMALL)
OTHER = dataclasses.replace(RECIPE, optimizer="adam", learning_rate=0.002, seed=2, schedule="cosine")
KEY = PackKey.of(RECIPE)


@pytest.fixture(scope="module")
def data() -> PackData:
    """The splits on the device, once for all packs."""
    return PackData.of(TRAIN, VALIDATION)


@pytest.fixture(scope="module")
def resident(data: PackData) -> Pack:
    """A pack of three slots, compiled once for the whole file."""
    return Pack(KEY, 3, data)


@pytest.fixture
def pack(resident: Pack) -> Pack:
    """It, with all slots free."""
    for slot in set(range(resident.slots)) - set(resident.free_slots):
        resident.free(slot)
    return resident


@pytest.fixture(scope="module")
def single(data: PackData) -> Pack:
    """A pack of one slot."""
    return Pack(KEY, 1, data)


@pytest.fixture(scope="module")
def alone(single: Pack) -> TrainingState:
    """RECIPE, trained to its end in a pack of its own."""
    return train(single, RECIPE)


def train(pack: Pack, recipe: Recipe, slot: int = 0, state: TrainingState | None = None) -> TrainingState:
    """The recipe trained to its end, or to where it diverges, in a slot that is free again afterwards."""
    pack.load(slot, pack.begin(recipe) if state is None else state)
    while slot in pack.due_slots:
        pack.run_epoch()
    trained = pack.save(slot)
    pack.free(slot)
    return trained


def assert_near(left: TrainingState, right: TrainingState, tolerance: float = 1e-5) -> None:
    """Recipe, every array and every figure but the seconds agree, but for rounding."""
    assert left.recipe == right.recipe
    assert left.epoch == right.epoch
    for name in ("weights", "optimizer"):
        for ours, theirs in zip(getattr(left, name), getattr(right, name), strict=True):
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    for one, other in zip(left.history, right.history, strict=True):
        mine, yours = (dataclasses.astuple(dataclasses.replace(e, seconds=0.0)) for e in (one, other))
        np.testing.assert_allclose(mine, yours, rtol=10 * tolerance)


def test_an_epoch_gives_each_due_slot_its_result(pack: Pack) -> None:
    """Epochs count from 1, with numbers in range; slots that are free or at their end give nothing."""
    pack.load(0, pack.begin(RECIPE))
    pack.load(2, pack.begin(dataclasses.replace(OTHER, epochs=1)))
    assert pack.free_slots == (1,)
    first = pack.run_epoch()
    assert sorted(first) == [0, 2]
    assert pack.due_slots == (0,)
    second = pack.run_epoch()
    assert sorted(second) == [0]
    assert [epoch[0].result.epoch for epoch in (first, second)] == [1, 2]
    for done in (first[0], first[2], second[0]):
        result = done.result
        assert done.is_finite
        assert all(math.isfinite(value) for value in dataclasses.astuple(result))
        assert 0 <= result.accuracy <= 1
        assert 0 <= result.validation_accuracy <= 1
        assert result.accuracy * len(TRAIN) == pytest.approx(round(result.accuracy * len(TRAIN)))
        assert result.seconds > 0
    state = pack.save(0)
    assert state.history == (first[0].result, second[0].result)
    assert state.engine == "packed"
    assert int(state.optimizer[0]) == 2 * STEPS
    pack.free(0)
    assert pack.run_epoch() == {}


def test_it_learns(single: Pack) -> None:
    """The training loss falls far below that of chance."""
    recipe = Recipe(0, 0, 0, 0, learning_rate=0.01, optimizer="adam", epochs=30, **SMALL)
    history = train(single, recipe).history
    assert history[0].loss > 2
    assert history[-1].loss < 0.5 * history[0].loss


def test_a_trial_in_a_pack_ends_as_alone(pack: Pack, alone: TrainingState) -> None:
    """In any slot, beside others that came before or after it, of other optimizers and numbers."""
    for recipe, slot in ((OTHER, 0), (RECIPE, 1)):
        pack.load(slot, pack.begin(recipe))
    pack.run_epoch()
    # Somewhere in the middle of the others.
    pack.load(2, pack.begin(RECIPE))
    pack.run_epoch()
    pack.free(0)
    pack.load(0, pack.begin(dataclasses.replace(RECIPE, optimizer="rmsprop", learning_rate=0.001, seed=9)))
    while pack.due_slots:
        pack.run_epoch()
    for slot in (1, 2):
        assert_near(pack.save(slot), alone)


def test_trials_differ_in_all_their_numbers(pack: Pack, alone: TrainingState) -> None:
    """Each of them, changed alone, gives other weights: none is ignored, or taken from a neighbour."""
    changes: list[dict[str, Any]] = [
        {"seed": 2},
        {"dropout_block1": 0.11},
        {"dropout_block2": 0.21},
        {"dropout_dense": 0.41},
        {"learning_rate": 0.0051},
        {"optimizer": "nesterov"},
        {"weight_decay": 0.01},
        {"label_smoothing": 0.1},
    ]
    pack.load(0, pack.begin(RECIPE))
    pack.run_epoch()
    first = pack.save(0)
    for change in changes:
        recipe = dataclasses.replace(RECIPE, epochs=1, **change)
        other = train(pack, recipe, slot=1)
        assert any(
            not np.allclose(a, b, atol=1e-7) for a, b in zip(first.weights, other.weights, strict=True)
        ), change


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_slot_that_diverges_keeps_the_state_before_and_harms_no_other(
    value: float, pack: Pack, alone: TrainingState
) -> None:
    """It is told, trains no more, and those beside it end as alone."""
    first = train(pack, dataclasses.replace(RECIPE, epochs=1))
    bias = np.full_like(first.weights[-1], value)
    bias[::2] *= -1
    broken = dataclasses.replace(first, recipe=RECIPE, weights=(*first.weights[:-1], bias))
    pack.load(0, broken)
    pack.load(1, pack.begin(RECIPE))
    pack.load(2, pack.begin(OTHER))
    outcome = pack.run_epoch()
    assert [outcome[slot].is_finite for slot in range(3)] == [False, True, True]
    assert outcome[0].result.epoch == 2
    assert pack.due_slots == (1, 2)
    while pack.due_slots:
        pack.run_epoch()
    assert pack.save(0).to_bytes() == broken.to_bytes()
    assert_near(pack.save(1), alone)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_every_lowering_trains_alike_and_keeps_slots_apart(
    lowering: Lowering, data: PackData, alone: TrainingState
) -> None:
    """Beside weights that are NaN: some libraries multiply groups by zeros, and zero times NaN is NaN."""
    pack = Pack(KEY, 2, data, build=Build(lowering, "highest", None))
    recipe = dataclasses.replace(RECIPE, epochs=1)
    start = pack.begin(recipe)
    pack.load(
        0, dataclasses.replace(start, weights=tuple(np.full_like(array, np.nan) for array in start.weights))
    )
    pack.load(1, start)
    outcome = pack.run_epoch()
    assert not outcome[0].is_finite
    assert outcome[1].is_finite
    mine, yours = outcome[1].result, alone.history[0]
    assert (mine.loss, mine.validation_loss) == pytest.approx((yours.loss, yours.validation_loss), rel=1e-5)


def test_a_training_goes_on_from_bytes_in_a_pack_of_another_size(
    pack: Pack, single: Pack, alone: TrainingState
) -> None:
    """After any epoch, and beside others."""
    single.load(0, single.begin(RECIPE))
    pack.load(0, pack.begin(OTHER))
    for _ in range(2):
        single.run_epoch()
        content = single.save(0).to_bytes()
        assert_near(train(pack, RECIPE, slot=2, state=TrainingState.from_bytes(content)), alone)
    single.free(0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_comes_out_as_it_went_in(optimizer: str, pack: Pack) -> None:
    """Bit for bit, in the variables of its own optimizer."""
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, epochs=1)
    trained = train(pack, recipe)
    trained.check()
    pack.load(1, TrainingState.from_bytes(trained.to_bytes()))
    assert pack.due_slots == ()
    assert pack.save(1).to_bytes() == trained.to_bytes()


def test_loading_and_freeing_compile_nothing(pack: Pack) -> None:
    """Every function is traced once for a pack, and compiled once, whatever comes into its slots."""
    compiled: list[str] = []
    train(pack, RECIPE)
    before = pack.traces
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None
    )
    try:
        for slot, optimizer in enumerate(OPTIMIZERS[:3]):
            recipe = Recipe(
                0, 0.5, 0.1, 0, 0.001, optimizer, epochs=slot + 1, seed=slot, schedule="step", **SMALL
            )
            pack.load(slot, pack.begin(recipe))
        pack.run_epoch()
        pack.run_epoch()
        state = pack.save(2)
        pack.free(2)
        pack.load(2, state)
        pack.run_epoch()
    finally:
        jax.monitoring.clear_event_listeners()
    assert compiled == []
    assert pack.traces == before == 7


def test_cutting_an_epoch_changes_nothing(
    pack: Pack, alone: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at after every step, and while validating, it gives the same bits and compiles nothing anew."""
    uncut = train(pack, RECIPE)
    before = pack.traces
    monkeypatch.setattr(Pace, "steps", lambda *_: 1)
    looks: list[tuple[int, int]] = []
    pack.load(0, pack.begin(RECIPE))
    pack.run_epoch(lambda done, steps: looks.append((done, steps)))
    assert looks == [(done, STEPS) for done in range(1, STEPS + 1)]
    cut = train(pack, RECIPE, slot=1, state=pack.save(0))
    assert_near(cut, uncut, 0.0)
    assert pack.traces == before


def test_blocks_of_fixed_length_give_the_same(data: PackData, alone: TrainingState) -> None:
    """As a GPU gets them; a block that goes beyond the epoch trains no step too many."""
    pack = Pack(KEY, 1, data, build=Build("patches", "highest", 3))
    looks: list[tuple[int, int]] = []
    pack.load(0, pack.begin(RECIPE))
    while pack.due_slots:
        pack.run_epoch(lambda done, steps: looks.append((done, steps)))
    assert looks == 3 * [(3, STEPS), (STEPS, STEPS)]
    assert_near(pack.save(0), alone)


class Interrupted(Exception):
    """What a callback of these tests raises."""


def test_what_a_look_raises_leaves_the_slots_as_they_were(
    pack: Pack, alone: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In mid-epoch: each slot has the state of its last full epoch, and goes on from it."""
    monkeypatch.setattr(Pace, "steps", lambda *_: 2)
    pack.load(1, pack.begin(RECIPE))
    pack.run_epoch()
    before = pack.save(1)

    def interrupt(done: int, steps: int) -> None:
        raise Interrupted(f"{done} of {steps}")

    with pytest.raises(Interrupted, match="2 of 4"):
        pack.run_epoch(interrupt)
    assert pack.save(1).to_bytes() == before.to_bytes()
    while pack.due_slots:
        pack.run_epoch()
    assert_near(pack.save(1), alone)


def test_memory_that_runs_out_is_told_as_such(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA's error becomes the project's, and the slots stay as they were."""
    pack.load(0, pack.begin(RECIPE))
    before = pack.save(0)

    def fail(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes")

    monkeypatch.setattr(pack._program, "train", fail)
    with pytest.raises(OutOfMemoryError, match="allocate 1 bytes"):
        pack.run_epoch()
    assert pack.save(0).to_bytes() == before.to_bytes()


def test_rates_follow_each_trials_own_schedule(pack: Pack) -> None:
    """Of the epochs it has done itself, with plateaus of its own losses; the state says the last."""
    recipes = [
        dataclasses.replace(RECIPE, schedule="cosine"),
        dataclasses.replace(RECIPE, schedule="step", step_at=0.3, epochs=2, learning_rate=0.001),
        dataclasses.replace(RECIPE, schedule="plateau", plateau_patience=0.1, learning_rate=1e-8, epochs=3),
    ]
    for slot, recipe in enumerate(recipes):
        pack.load(slot, pack.begin(recipe))
        pack.run_epoch()
    while pack.due_slots:
        pack.run_epoch()
    for slot, recipe in enumerate(recipes):
        state = pack.save(slot)
        losses = [epoch.validation_loss for epoch in state.history]
        expected = [learning_rate(recipe, losses[:epoch]) for epoch in range(recipe.epochs)]
        assert [epoch.learning_rate for epoch in state.history] == expected
        assert len(set(expected)) > 1
        assert state.optimizer[1] == np.float32(expected[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": dataclasses.replace(RECIPE, batch_size=17)}, "batch_size=17"),
        ({"recipe": dataclasses.replace(RECIPE, dense_units=17)}, "dense_units=17"),
        ({"recipe": dataclasses.replace(RECIPE, cutout=4)}, "augments=True"),
        ({"precision": "bfloat16"}, "in bfloat16 cannot train in a pack of float32"),
        ({"weights": ()}, "saved weights are not those"),
        ({"optimizer": ()}, "variables of the optimizer are not those"),
    ],
)
def test_a_state_that_does_not_belong_is_refused(change: dict[str, Any], message: str, pack: Pack) -> None:
    """Before anything of it is in the slot, which stays free."""
    with pytest.raises(StateError, match=message):
        pack.load(0, dataclasses.replace(pack.begin(RECIPE), **change))
    assert pack.free_slots == (0, 1, 2)


def test_a_slot_is_taken_once(pack: Pack) -> None:
    """What is in a slot is not overwritten, and a free one has nothing to save."""
    pack.load(0, pack.begin(RECIPE))
    with pytest.raises(ValueError, match="slot 0 is taken"):
        pack.load(0, pack.begin(RECIPE))
    with pytest.raises(ValueError, match="slot 1 is free"):
        pack.save(1)
    with pytest.raises(ValueError, match="at least 1 slot, got 0"):
        Pack(KEY, 0, pack._data)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"optimizer": "adam", "seed": 5, "epochs": 7, "schedule": "cosine", "weight_decay": 0.1}, True),
        ({"dropout_block1": 0.0, "label_smoothing": 0.2, "learning_rate": 1.0}, True),
        ({"batch_size": 32}, False),
        ({"width": 0.5}, False),
        ({"activation": "gelu"}, False),
        ({"flip": True}, False),
    ],
)
def test_what_changes_shapes_makes_another_pack(changed: dict[str, Any], same: bool) -> None:
    """All other numbers, and the optimizer, are a slot's own."""
    assert (PackKey.of(dataclasses.replace(RECIPE, **changed)) == KEY) is same


def test_augmenting_recipes_of_any_kind_share_a_pack() -> None:
    """One that flips alone and one that cuts alone: what is off is a zero."""
    assert PackKey.of(dataclasses.replace(RECIPE, flip=True)) == PackKey.of(
        dataclasses.replace(RECIPE, cutout=4)
    )


def test_augmenting_trials_train_in_a_pack_as_alone(data: PackData) -> None:
    """Each by numbers of its own, which make a difference; scores are those of unchanged pictures."""
    flipped, cut = (
        dataclasses.replace(RECIPE, epochs=1, **change) for change in ({"flip": True}, {"cutout": 9})
    )
    pack = Pack(PackKey.of(cut), 2, data)
    alone = train(pack, cut)
    pack.load(0, pack.begin(flipped))
    pack.load(1, pack.begin(cut))
    pack.run_epoch()
    assert_near(pack.save(1), alone)
    assert not np.allclose(pack.save(0).weights[0], alone.weights[0], atol=1e-6)


def test_a_trial_that_changes_no_images_trains_in_a_pack_that_does(
    data: PackData, alone: TrainingState
) -> None:
    """It ends as in a pack that changes none, beside one that changes all of its own."""
    key = dataclasses.replace(KEY, augments=True)
    assert key.takes(RECIPE)
    assert not KEY.takes(dataclasses.replace(RECIPE, flip=True))
    assert not key.takes(dataclasses.replace(RECIPE, batch_size=32))
    pack = Pack(key, 2, data)
    pack.load(1, pack.begin(dataclasses.replace(OTHER, cutout=9, rotation=20.0)))
    assert_near(train(pack, RECIPE), alone)


@pytest.mark.parametrize(("steps", "block"), [(1, 1), (125, 125), (126, 63), (625, 125), (313, 105)])
def test_gpus_get_an_epoch_in_equal_blocks(steps: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most `LONGEST_BLOCK` steps each, so that little goes beyond the epoch."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_build(steps).block == block


def test_a_pack_that_nobody_uses_is_freed(data: PackData) -> None:
    """Arrays and programs go with it: a worker makes one for each architecture that it meets."""
    pack = Pack(KEY, 1, data)
    pack.load(0, pack.begin(RECIPE))
    program, arrays = weakref.ref(pack._program), weakref.ref(pack._arrays.iteration)
    del pack
    gc.collect()
    assert program() is None
    assert arrays() is None


def test_it_trains_without_tensorflow_and_keras(tmp_path: Path, alone: TrainingState) -> None:
    """As on a machine that has JAX alone."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "for name in ('keras', 'tensorflow'): sys.modules[name] = None\n"
        "import sample\n"
        "from pathlib import Path\n"
        "from trainer.packed.device import PackData\n"
        "from trainer.packed.pack import Pack\n"
        "from trainer.state import TrainingState\n"
        "start = TrainingState.from_bytes(Path(sys.argv[2]).read_bytes())\n"
        "data = sample.load()\n"
        "import test_trainer_packed as test\n"
        "pack = Pack(test.KEY, 1, PackData.of(test.TRAIN, test.VALIDATION))\n"
        "state = test.train(pack, test.RECIPE, state=start)\n"
        "Path(sys.argv[3]).write_bytes(state.to_bytes())\n"
    )
    start, end = tmp_path / "start", tmp_path / "end"
    start.write_bytes(TrainingState.begin(RECIPE, "float32", "packed").to_bytes())
    arguments = [str(Path(__file__).parent), str(start), str(end)]
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=120, env=environment)
    assert_near(TrainingState.from_bytes(end.read_bytes()), alone)
