"""search.runners: what trains a study's trials: sizes, precision, what is told of them; no training."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sample

pytest.importorskip("jax")

from optuna.trial import TrialState

from search.device import Device
from search.engines import EngineWish
from search.events import Event, Notice
from search.named_spaces import NAMED
from search.packed_runner import PackedRunner
from search.runners import build_runner
from search.space import Space
from search.study import OpenStudy, Wishes, open_or_create_study
from storage.database import Database
from trainer.packed import sizing
from trainer.packed.sizing import MOST_SLOTS

pytestmark = pytest.mark.usefixtures("tensorflow")

PACKED = Device(engine="packed")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Find seven slots best, whatever there is; gives what was to be measured, but for the data."""
    given: list[tuple[Any, ...]] = []

    def choose(
        recipe: Any, augments: Any, data: Any, precision: Any, most: Any, tell: Any, must_stop: Any
    ) -> int:
        assert must_stop is never
        assert (len(data.train.labels), len(data.validation.labels)) == (64, 80)
        given.append((recipe.epochs, augments, precision, most))
        tell("1 slot: fast")
        return 7

    monkeypatch.setattr(sizing, "choose_slots", choose)
    return given


@pytest.fixture
def build(database: Database) -> Callable[..., tuple[PackedRunner, list[str]]]:
    """Build the runner of packs for a study of that space and total; with what was told."""

    def run(
        space: Space | None = None,
        slots: int | None = None,
        total: int | None = None,
        ended: int = 0,
        precision: str = "float32",
    ) -> tuple[PackedRunner, list[str]]:
        opened = open_or_create_study(database, "sample", Wishes(space, 2, 64))[0]
        for _ in range(ended):
            opened.study.tell(opened.study.ask(), state=TrialState.FAIL)
        database.limit_trials(opened.study, total)
        return build_for(opened, slots, precision)

    return run


def never() -> bool:
    """Nobody says stop."""
    return False


def build_for(opened: OpenStudy, slots: int | None, precision: str) -> tuple[PackedRunner, list[str]]:
    """The runner of packs for a study, and what was told."""
    events: list[Event] = []
    wish = EngineWish("packed", slots)
    runner = build_runner(opened, sample.load(), PACKED, wish, precision, events.append, never)
    assert isinstance(runner, PackedRunner)
    return runner, [event.text for event in events if isinstance(event, Notice)]


Build = Callable[..., tuple[PackedRunner, list[str]]]
Asked = list[tuple[Any, ...]]


def test_slots_are_measured(build: Build, asked: Asked) -> None:
    """By a typical recipe, in the precision to train in, and it is told what came out."""
    runner, told = build()
    assert asked == [(100, False, "float32", MOST_SLOTS)]
    assert runner._plan.slots == 7
    assert told == ["measured: 1 slot: fast", "training 7 trials at a time in packs, in float32"]
    assert runner.is_idle and runner.has_room


def test_slots_that_are_given_are_taken(build: Build, asked: Asked) -> None:
    """Nothing is measured."""
    runner, told = build(slots=3, total=2)
    assert (runner._plan.slots, asked) == (3, [])
    assert told == ["training 3 trials at a time in packs, in float32"]


def test_a_space_of_several_shapes_has_packs_for_each(build: Build, asked: Asked) -> None:
    """As many trials at a time as all of their slots, in packs that change images."""
    runner, told = build(NAMED["augmented"])
    ((_, augments, _, _),) = asked
    assert augments is True
    assert runner._plan.capacity == 14
    assert told[-1] == "training 14 trials at a time in packs, in float32"


@pytest.mark.parametrize(
    ("total", "ended", "most"),
    [(None, 0, MOST_SLOTS), (1000, 0, MOST_SLOTS), (9, 0, 9), (9, 4, 5), (4, 4, 1), (3, 4, 1)],
)
def test_a_study_that_ends_soon_needs_no_more_slots_than_trials(
    build: Build, asked: Asked, total: int | None, ended: int, most: int
) -> None:
    """One at least, for what another worker hands on."""
    build(total=total, ended=ended)
    assert [one[-1] for one in asked] == [most]


@pytest.mark.parametrize(("space", "count"), [("schedules", "225"), ("everything", "countless")])
@pytest.mark.parametrize("slots", [None, 8])
def test_wide_spaces_train_a_trial_at_a_time(
    build: Build, asked: Asked, space: str, count: str, slots: int | None
) -> None:
    """Whatever is wished for, without a measurement, and it is told why."""
    runner, told = build(NAMED[space], slots=slots)
    assert runner._plan.capacity == 1
    assert asked == []
    assert told == [
        f"the space has {count} shapes of network and batch, so programs have a slot each",
        "training one trial at a time in packs, in float32",
    ]


def test_the_precision_is_one_for_packs(build: Build, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what TensorFlow would train in on the CPU, as XLA has no fast bfloat16 there."""
    monkeypatch.setattr("trainer.precision.has_bfloat16", lambda: True)
    _, told = build(precision="auto", slots=2)
    assert told == ["training 2 trials at a time in packs, in float32"]
    monkeypatch.setattr(
        "trainer.packed.device.jax.local_devices", lambda: [SimpleNamespace(compute_capability="9.0")]
    )
    _, told = build(precision="auto", slots=2)
    assert told == ["training 2 trials at a time in packs, in bfloat16"]


def test_the_other_engine_trains_as_the_device_says(database: Database, asked: Asked) -> None:
    """One trial at a time, with XLA where that works."""
    from search.single_runner import SingleRunner

    opened = open_or_create_study(database, "sample", Wishes(None, 2, 64))[0]
    for jit_compile in (False, True):
        told: list[Event] = []
        device = Device(jit_compile=jit_compile)
        runner = build_runner(
            opened, sample.load(), device, EngineWish("auto", 8), "float32", told.append, never
        )
        assert isinstance(runner, SingleRunner)
        assert runner._trainer._jit_compile is jit_compile
        assert (told, asked) == ([], [])
