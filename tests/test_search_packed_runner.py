"""A worker that trains several trials in one program: ordinary trials of a shared study, slot by slot."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample

pytest.importorskip("jax")

from optuna.trial import TrialState
from quick_jax import compile_quickly  # noqa: F401  # a fixture
from test_search_trial_run import content_of, files_of
from test_search_worker import (
    Elsewhere,
    Log,
    count_leases,
    enqueue,
    stored_state,
)

from search.errors import SearchError
from search.events import EpochEnded, Event, Notice, StepsDone, TrialEnded, TrialStarted
from search.named_spaces import NAMED
from search.pack_plan import PackPlan
from search.packing import changes_images, count_shapes, typical_recipe
from search.space import Choices, NumberRange, Space
from search.study import OpenStudy, Wishes, open_or_create_study, open_study
from search.summary import DIVERGED_KEY, WORKER_KEY
from search.trial_run import TrialRun
from storage.database import Database, open_database
from storage.errors import OutsideStoreError
from storage.leases import FAILURE_KEY, RETRIES_KEY
from storage.process import own_identity
from trainer.errors import DeviceError, OutOfMemoryError
from trainer.packed.device import PackData
from trainer.packed.pack import Pack, PackKey
from trainer.recipe import ARTICLE, OPTIMIZERS, Recipe
from trainer.state import TrainingState

pytestmark = pytest.mark.usefixtures("tensorflow")

EPOCHS = 3
SMALL: dict[str, Any] = {"width": 0.25, "blocks": 2, "dense_units": 16, "batch_size": 16}
SPACE = Space(
    "small.toml",
    (
        *(NumberRange(field, value, value) for field, value in SMALL.items()),
        NumberRange("dropout_block1", 0.0, 0.5),
        Choices("optimizer", OPTIMIZERS),
    ),
)
WISHES = Wishes(SPACE, max_epochs=EPOCHS, train_samples=48)
RECIPE = dataclasses.replace(ARTICLE, epochs=EPOCHS, seed=7, **SMALL)


@pytest.fixture(scope="module")
def data() -> PackData:
    """The study's images on the device."""
    whole = sample.load()
    return PackData.of(whole.train.first(48), whole.validation)


class Packs:
    """Makes packs, and gives those that nobody uses again: each is compiled once for the whole file."""

    def __init__(self) -> None:
        """None is made yet."""
        self.kept: dict[Any, Pack] = {}
        self.made: list[tuple[PackKey, int, str]] = []

    def __call__(self, key: PackKey, slots: int, data: PackData, precision: Any) -> Pack:
        """As `Pack`, with all slots free."""
        self.made.append((key, slots, precision))
        kind = (key, slots, precision)
        if kind not in self.kept:
            self.kept[kind] = Pack(key, slots, data, precision)
        pack = self.kept[kind]
        for slot in set(range(slots)) - set(pack.free_slots):
            pack.free(slot)
        return pack


@pytest.fixture(scope="module")
def resident() -> Packs:
    """Those of the file."""
    return Packs()


@pytest.fixture
def packs(resident: Packs) -> Packs:
    """They, with nothing noted yet."""
    resident.made = []
    return resident


@pytest.fixture(scope="module")
def evaluator() -> Any:
    """Of the validation images."""
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator

    return Evaluator(DeviceSplit.of(sample.load().validation))


@pytest.fixture
def opened(database: Database) -> OpenStudy:
    """A study of small networks for three epochs; its first trial is the article's, of their shape."""
    opened = open_or_create_study(database, "sample", WISHES)[0]
    # Of the article's shape, which would be a program of its own.
    waiting = opened.study.ask()
    opened.study.tell(waiting, state=TrialState.FAIL)
    return opened


Work = Callable[..., Log]


@pytest.fixture
def work(opened: OpenStudy, data: PackData, packs: Packs, evaluator: Any) -> Work:
    """Lets a worker bring the study to so many trials, two at a time."""

    def run(total: int | None, log: Log | None = None, slots: int = 2, **options: Any) -> Log:
        from search.packed_runner import PackedRunner
        from search.worker import Worker

        log = Log() if log is None else log
        opened.database.limit_trials(opened.study, total)
        make = options.pop("make_pack", packs)
        plan = PackPlan.of(opened.settings.space, slots)
        runner = PackedRunner(plan, data, evaluator, log, make_pack=make)
        given = {"lease_seconds": 3600.0, "engine": "packed", **options}
        Worker(opened, runner, log, **given).run()
        return log

    return run


def test_trials_of_a_pack_are_ordinary_trials(opened: OpenStudy, work: Work, packs: Packs) -> None:
    """Each has its reports, files, value and worker; slots are taken again at the next epoch."""
    opened.study.pruner = None  # type: ignore[assignment]
    for seed in range(3):
        enqueue(opened, dataclasses.replace(RECIPE, seed=seed, optimizer=OPTIMIZERS[seed]))

    log = work(4)

    trials = opened.study.trials[1:]
    for trial in trials:
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        assert trial.user_attrs[WORKER_KEY]["engine"] == "packed"
        assert sorted(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
    assert count_leases(opened.database) == (0, 0)
    assert [slots for _, slots, _ in packs.made] == [2]
    # Two begin before anything is trained, and no third before one of them has ended.
    kinds = [type(event) for event in log.events if isinstance(event, TrialStarted | EpochEnded)]
    assert kinds[:3] == [TrialStarted, TrialStarted, EpochEnded]
    started = [event.number for event in log.of(TrialStarted)]
    assert started == [1, 2, 3]
    assert {event.number for event in log.of(TrialEnded)} == {1, 2, 3}
    assert log.of(StepsDone)


def test_a_trials_value_is_that_of_its_stored_model(opened: OpenStudy, work: Work, tmp_path: Path) -> None:
    """TensorFlow loads what JAX trained, and scores it as the trial says; the history is all there."""
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator
    from trainer.model_file import load_model

    enqueue(opened, RECIPE)
    work(2)

    (trial,) = opened.study.trials[1:]
    assert trial.state == TrialState.COMPLETE
    assert files_of(opened, trial).keys() == {"model", "history", "curves", "confusion"}
    path = tmp_path / "model.h5"
    path.write_bytes(content_of(opened, trial, ".h5"))
    score = Evaluator(DeviceSplit.of(sample.load().validation)).score(load_model(path))
    assert score.accuracy == trial.value
    assert trial.intermediate_values[EPOCHS] == pytest.approx(trial.value, abs=0.02)


def test_what_is_handed_back_goes_on_in_a_pack_of_another_size(
    opened: OpenStudy, work: Work, data: PackData, packs: Packs
) -> None:
    """Its states are stored as they are told to stop, and end where they would have ended in one go."""
    recipes = [dataclasses.replace(RECIPE, seed=seed) for seed in (1, 2)]
    for recipe in recipes:
        enqueue(opened, recipe)
    log = Log()
    work(3, log, must_stop=lambda: log.epoch_ended(1))

    waiting = opened.study.trials[1:]
    assert [trial.state for trial in waiting] == [TrialState.WAITING] * 2
    states = [stored_state(opened.database, trial) for trial in waiting]
    assert [state and (state.epoch, state.engine) for state in states] == [(1, "packed")] * 2
    assert [event.state for event in log.of(TrialEnded)] == ["waiting"] * 2
    assert count_leases(opened.database) == (0, 0)

    work(3, slots=1)
    single = packs(PackPlan.of(SPACE, 1).key_of(RECIPE), 1, data, "float32")
    for trial, recipe in zip(opened.study.trials[1:], recipes, strict=True):
        single.load(0, single.begin(recipe))
        for epoch in range(1, len(trial.intermediate_values) + 1):
            alone = single.run_epoch()[0].result.validation_accuracy
            assert trial.intermediate_values[epoch] == pytest.approx(alone, abs=0.02)
        single.free(0)


def test_a_trial_changes_between_the_engines(opened: OpenStudy, work: Work) -> None:
    """Where some workers train one trial at a time: it goes on from the same weights, epoch by epoch."""
    from search.single_runner import SingleRunner
    from search.worker import Worker

    enqueue(opened, RECIPE)
    single = SingleRunner(sample.load(), 48)
    engines = []
    for epoch in range(1, EPOCHS + 1):
        log = Log()
        if epoch == 2:
            work(2, log, time_is_up=lambda log=log: log.epoch_ended(2))
        else:
            Worker(opened, single, log, time_is_up=lambda log=log, epoch=epoch: log.epoch_ended(epoch)).run()
        (started,) = log.of(TrialStarted)
        assert started.first_epoch == epoch
        trial = opened.study.trials[1]
        state = stored_state(opened.database, trial)
        engines.append(state and state.engine)

    assert engines == ["tensorflow", "packed", None]
    assert trial.state == TrialState.COMPLETE
    assert sorted(trial.intermediate_values) == [1, 2, 3]


def test_a_pruned_trial_leaves_its_slot_to_the_next(
    opened: OpenStudy, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the epoch that it has reported, and another begins while its neighbour trains on."""
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: trial.number == 2)
    for seed in range(4):
        enqueue(opened, dataclasses.replace(RECIPE, seed=seed))

    log = work(4)

    trials = opened.study.trials
    assert trials[2].state == TrialState.PRUNED
    assert sorted(trials[2].intermediate_values) == [1]
    told = [event for event in log.events if isinstance(event, TrialStarted | EpochEnded)]
    third = next(index for index, event in enumerate(told) if event.number == 3)
    assert isinstance(told[third], TrialStarted)
    assert sum(isinstance(event, EpochEnded) and event.number == 1 for event in told[:third]) == 1


def test_a_trial_is_pruned_though_its_worker_is_told_to_stop(
    opened: OpenStudy, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed back, it would train to the next rung; one that has to be scored still is handed back."""
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: trial.number == 1)
    enqueue(opened, RECIPE)
    enqueue(opened, dataclasses.replace(RECIPE, epochs=1))
    log = Log()

    work(3, log, must_stop=lambda: bool(log.of(EpochEnded)))

    pruned, scored = opened.study.trials[1:]
    assert (pruned.state, scored.state) == (TrialState.PRUNED, TrialState.WAITING)
    work(3)
    assert opened.study.trials[2].state == TrialState.COMPLETE
    assert sorted(opened.study.trials[2].intermediate_values) == [1]


def test_a_slot_that_diverges_harms_no_other(
    opened: OpenStudy, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is pruned with the epoch that left the numbers; its neighbour ends as ever."""
    # Which learning rates diverge changes with the machine; NaN is NaN everywhere.
    begin = TrainingState.begin

    def begin_ruined(recipe: Recipe, *options: Any) -> TrainingState:
        state = begin(recipe, *options)
        if recipe.seed == 1:
            ruined = tuple(np.full_like(array, np.nan) for array in state.weights)
            state = dataclasses.replace(state, weights=ruined)
        return state

    monkeypatch.setattr(TrainingState, "begin", begin_ruined)
    for seed in (1, 2):
        enqueue(opened, dataclasses.replace(RECIPE, seed=seed))

    work(3)

    wild, tame = opened.study.trials[1:]
    assert wild.state == TrialState.PRUNED
    assert wild.user_attrs[DIVERGED_KEY] == 1
    assert wild.intermediate_values == {}
    assert tame.state == TrialState.COMPLETE
    assert DIVERGED_KEY not in tame.user_attrs


def test_a_trial_that_was_taken_leaves_its_slot(opened: OpenStudy, work: Work, url: str) -> None:
    """Nothing more of it is written."""
    database = open_database(url)
    other = Elsewhere(open_study(database, "sample"), own_identity())
    database.work_as(other.identity)
    other.opened.leases().renew(other.identity, 3600.0)

    class Losing(Log):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if isinstance(event, EpochEnded):
                other.take(1)

    enqueue(opened, RECIPE)
    log = Losing()
    work(2, log, must_stop=lambda: bool(log.of(TrialEnded)))

    assert log.of(TrialEnded) == [TrialEnded(1, "taken", None, "another worker has it", None)]
    trial = other.trial(1)
    assert trial.state == TrialState.RUNNING
    assert sorted(trial.intermediate_values) == [1]
    database.close()


def test_memory_that_runs_out_halves_the_pack(opened: OpenStudy, work: Work, packs: Packs) -> None:
    """Trials go on from their last epoch, in half the slots; the others wait, and come after them."""
    for seed in range(4):
        enqueue(opened, dataclasses.replace(RECIPE, seed=seed))
    left = [2]

    def make(key: PackKey, slots: int, data: PackData, precision: Any) -> Any:
        pack = packs(key, slots, data, precision)
        if slots < 4:
            return pack

        class Narrow:
            def __getattr__(self, name: str) -> Any:
                return getattr(pack, name)

            def run_epoch(self, look: Any) -> Any:
                left[0] -= 1
                if not left[0]:
                    raise OutOfMemoryError("the device is out of memory: 4 slots")
                return pack.run_epoch(look)

        return Narrow()

    log = work(5, slots=4, make_pack=make)

    assert [trial.state for trial in opened.study.trials[1:]].count(TrialState.WAITING) == 0
    assert [event.state for event in log.of(TrialEnded)].count("waiting") == 2
    (notice,) = [event.text for event in log.of(Notice) if "slots" in event.text]
    assert notice == "a program of 4 slots failed, going on with 2: the device is out of memory: 4 slots"
    assert [slots for _, slots, _ in packs.made] == [4, 2]


def test_a_state_that_cannot_be_had_when_memory_runs_out_is_one_trials_loss(
    opened: OpenStudy, work: Work, packs: Packs
) -> None:
    """It goes on from its last checkpoint, and its neighbour in the smaller pack; nobody is to blame."""
    for seed in range(2):
        enqueue(opened, dataclasses.replace(RECIPE, seed=seed))

    def make(key: PackKey, slots: int, data: PackData, precision: Any) -> Any:
        pack = packs(key, slots, data, precision)
        if slots == 1:
            return pack

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(pack, name)

            def run_epoch(self, _: Any) -> Any:
                raise OutOfMemoryError("the device is out of memory: 2 slots")

            def save(self, slot: int) -> TrainingState:
                if slot == 0:
                    raise OutOfMemoryError("the device is out of memory: a copy")
                return pack.save(slot)

        return Full()

    log = work(3, make_pack=make)

    first, second = opened.study.trials[1:]
    assert (first.state.is_finished(), second.state.is_finished()) == (True, True)
    assert FAILURE_KEY not in {**first.user_attrs, **second.user_attrs}
    ended = [(event.number, event.state) for event in log.of(TrialEnded)]
    assert ended[0] == (1, "waiting")
    assert sorted(number for number, _ in ended) == [1, 1, 2]


def test_a_program_that_fails_is_no_trials_fault(
    opened: OpenStudy, work: Work, packs: Packs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried with half the slots; a worker that cannot train even one trial ends."""
    for seed in range(3):
        enqueue(opened, dataclasses.replace(RECIPE, seed=seed))

    def fail(*_: Any) -> Any:
        raise DeviceError("the device failed: it is lost")

    def make(*arguments: Any) -> Any:
        pack = packs(*arguments)
        monkeypatch.setattr(pack, "run_epoch", fail)
        return pack

    log = Log()
    message = "3 trials failed one after another, the last with DeviceError: the device failed: it is lost"
    with pytest.raises(SearchError, match=message):
        work(4, log, slots=3, make_pack=make)
    assert [slots for _, slots, _ in packs.made][:2] == [3, 1]
    trials = opened.study.trials[1:]
    assert [trial.state for trial in trials] == [TrialState.WAITING] * 3
    assert sum(trial.user_attrs.get(RETRIES_KEY, {"total": 0})["total"] for trial in trials) == 3
    assert count_leases(opened.database) == (0, 0)


def test_a_trial_whose_storing_fails_is_asked_for_again_only_then(
    opened: OpenStudy, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits once this worker has let it go, so that it never trains in two slots."""
    fails, finish, threads = [True], TrialRun.finish, set()

    def finish_later(self: TrialRun, *arguments: Any, **options: Any) -> None:
        threads.add(threading.current_thread() is threading.main_thread())
        if fails.pop() if fails else False:
            raise OSError("no space left")
        finish(self, *arguments, **options)

    let_go = TrialRun.let_go

    def let_go_here(self: TrialRun) -> None:
        assert threading.current_thread() is threading.main_thread()
        let_go(self)

    monkeypatch.setattr(TrialRun, "finish", finish_later)
    monkeypatch.setattr(TrialRun, "let_go", let_go_here)
    monkeypatch.setattr("search.worker.REST_SECONDS", 0.0)
    for seed in range(2):
        enqueue(opened, dataclasses.replace(RECIPE, seed=seed))

    log = work(3)

    assert threads == {False}
    assert all(trial.state.is_finished() for trial in opened.study.trials)
    for number in (1, 2):
        told = [
            type(one)
            for one in log.events
            if isinstance(one, TrialStarted | TrialEnded) and one.number == number
        ]
        assert told == [TrialStarted, TrialEnded] * (len(told) // 2)
    assert [event.state for event in log.of(TrialEnded)].count("waiting") == 1


def test_files_that_cannot_be_kept_lose_no_trial(
    opened: OpenStudy, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are handed back, whatever is being stored meanwhile, and the worker ends."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OutsideStoreError("s3://bucket: full")

    monkeypatch.setattr(TrialRun, "finish", refuse)
    for seed in range(2):
        enqueue(opened, dataclasses.replace(RECIPE, seed=seed))

    with pytest.raises(OutsideStoreError, match="s3://bucket: full"):
        work(3)

    assert [trial.state for trial in opened.study.trials[1:]] == [TrialState.WAITING] * 2
    assert count_leases(opened.database) == (0, 0)


def test_when_time_is_up_the_epoch_is_finished_first(opened: OpenStudy, work: Work) -> None:
    """All slots are handed back with it, and what has ended is stored."""
    enqueue(opened, dataclasses.replace(RECIPE, epochs=1))
    enqueue(opened, RECIPE)
    log = Log()
    work(3, log, time_is_up=lambda: bool(log.of(StepsDone)))

    done, waits = opened.study.trials[1:]
    assert (done.state, waits.state) == (TrialState.COMPLETE, TrialState.WAITING)
    state = stored_state(opened.database, waits)
    assert state is not None
    assert state.epoch == 1


def test_recipes_of_several_shapes_train_in_several_packs(
    opened: OpenStudy, work: Work, packs: Packs
) -> None:
    """A trial of an odd shape gets a pack of one slot, and does not wait for the others."""
    enqueue(opened, RECIPE)
    enqueue(opened, dataclasses.replace(RECIPE, batch_size=24))

    work(3)

    assert [(key.batch_size, slots) for key, slots, _ in packs.made] == [(16, 2), (24, 1)]
    assert all(trial.state.is_finished() for trial in opened.study.trials)


@pytest.mark.parametrize(
    ("name", "shapes", "changes"),
    [("article", 1, False), ("augmented", 2, True), ("schedules", 225, False), ("everything", None, True)],
)
def test_spaces_have_shapes(name: str, shapes: int | None, changes: bool) -> None:
    """What recipes can share a program is known before any is drawn."""
    space = NAMED[name]
    assert count_shapes(space) == (float("inf") if shapes is None else shapes)
    assert changes_images(space) == changes
    plan = PackPlan.of(space, 8)
    assert plan.capacity == {1: 8, 2: 16}.get(shapes or 0, 1)
    # The article's own recipe trains with the others, which change images.
    assert plan.key_of(ARTICLE) == plan.key_of(dataclasses.replace(ARTICLE, flip=changes))
    assert PackKey.of(typical_recipe(space)).batch_size == ARTICLE.batch_size


def test_a_space_of_another_shape_has_it_as_its_typical_one() -> None:
    """A pack of all slots is for that, and the article's own trial has a pack of one slot."""
    plan = PackPlan.of(SPACE, 8)
    assert plan.slots_of(plan.key_of(RECIPE), "float32") == 8
    assert plan.slots_of(plan.key_of(RECIPE), "bfloat16") == 1
    assert plan.slots_of(plan.key_of(ARTICLE), "float32") == 1


def test_each_shape_of_a_space_has_all_slots() -> None:
    """And none that the space does not have."""
    plan = PackPlan.of(NAMED["augmented"], 8, "bfloat16")
    for whitening in (False, True):
        key = plan.key_of(dataclasses.replace(ARTICLE, whitening=whitening, shift=0.1))
        assert key in plan.keys
        assert plan.slots_of(key, "bfloat16") == 8
        assert plan.slots_of(key, "float32") == 1
    assert plan.slots_of(plan.key_of(dataclasses.replace(ARTICLE, batch_size=32)), "bfloat16") == 1
