"""trainer.packed.sizing: how many slots pay, by rates and memory that are made up; and a real measurement."""

import dataclasses
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import sample

pytest.importorskip("jax")

from quick_jax import compile_quickly  # noqa: F401  # a fixture

from trainer.errors import DeviceError, OutOfMemoryError
from trainer.packed import device, sizing
from trainer.packed.device import PackData, choose_pack_precision, read_memory
from trainer.packed.pack import Pack, PackKey
from trainer.packed.sizing import choose_slots, measure_rate
from trainer.precision import PrecisionError
from trainer.recipe import Recipe

SMALL: dict[str, Any] = {"width": 0.25, "blocks": 2, "dense_units": 16, "batch_size": 16}
RECIPE = Recipe(epochs=1, **SMALL)
GIGABYTE = 1 << 30


@dataclasses.dataclass
class Measured:
    """What was asked for, and told.

    Attributes:
        choose: Choose slots where packs of so many have these rates (None: no room), and memory is so.
        slots: Of the packs that were made.
        lines: What was told.
    """

    choose: Callable[..., int]
    slots: list[int]
    lines: list[str]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """With packs that train nothing."""
    slots: list[int] = []
    lines: list[str] = []

    def choose(
        rates: Mapping[int, float | DeviceError | None],
        memory: tuple[int, int | None] = (0, None),
        **options: Any,
    ) -> int:
        def make(key: PackKey, count: int, data: Any, precision: str) -> Any:
            assert (key, data, precision) == (PackKey(RECIPE.architecture, 16, True), "data", "bfloat16")
            slots.append(count)
            return SimpleNamespace(slots=count)

        def measure(pack: Any, recipe: Recipe, must_stop: Callable[[], bool]) -> float:
            assert recipe == RECIPE and not must_stop()
            rate = rates[pack.slots]
            if rate is None:
                raise OutOfMemoryError("the device is out of memory")
            if isinstance(rate, DeviceError):
                raise rate
            return rate

        monkeypatch.setattr(sizing, "Pack", make)
        monkeypatch.setattr(sizing, "measure_rate", measure)
        monkeypatch.setattr(sizing, "read_memory", lambda: memory)
        data: Any = "data"
        return choose_slots(RECIPE, True, data, "bfloat16", tell=lines.append, **options)

    return Measured(choose, slots, lines)


@pytest.mark.parametrize(
    ("rates", "tried", "chosen"),
    [
        ({1: 100.0, 4: 390.0, 16: 1500.0, 64: 5000.0}, [1, 4, 16, 64], 64),
        ({1: 100.0, 4: 390.0, 16: 1500.0, 64: 1900.0}, [1, 4, 16, 64], 16),
        ({1: 100.0, 4: 390.0, 16: 400.0}, [1, 4, 16], 4),
        ({1: 100.0, 4: 90.0}, [1, 4], 1),
        # 1.3 times as many steps are enough, and nothing below.
        ({1: 100.0, 4: 130.0, 16: 168.9}, [1, 4, 16], 4),
    ],
)
def test_slots_are_as_many_as_pay(
    measured: Measured, rates: dict[int, float], tried: list[int], chosen: int
) -> None:
    """Four times as many are tried until they gain too little."""
    assert measured.choose(rates) == chosen
    assert measured.slots == tried
    assert len(measured.lines) == len(tried)


def test_it_is_told_what_was_measured(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each number of slots, with what it took."""
    monkeypatch.setattr(sizing, "time", SimpleNamespace(monotonic=iter([0.0, 31.0, 40.0, 52.4]).__next__))
    measured.choose({1: 1234.5, 4: 1300.0})
    assert measured.lines == [
        "1 slot: 1,234 steps a second of all trials (31 s)",
        "4 slots: 1,300 steps a second of all trials (12 s)",
    ]


def test_what_has_no_room_ends_the_search(measured: Measured) -> None:
    """The largest number that has some is taken; none is an error."""
    assert measured.choose({1: 100.0, 4: 400.0, 16: None}) == 4
    assert measured.lines[-1] == "16 slots have no room in the device's memory"
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        measured.choose({1: None})


def test_slots_that_fail_end_the_search(measured: Measured) -> None:
    """As those without room do: a program may be too large for the compiler, too."""
    failure = DeviceError("the device failed: INTERNAL")
    assert measured.choose({1: 100.0, 4: failure}) == 1
    assert measured.lines[-1] == "4 slots fail: the device failed: INTERNAL"
    with pytest.raises(DeviceError, match="INTERNAL"):
        measured.choose({1: failure})


@pytest.mark.parametrize(
    ("memory", "tried"),
    [
        ((GIGABYTE, 3 * GIGABYTE), [1]),
        ((GIGABYTE, 4 * GIGABYTE), [1, 4]),
        ((GIGABYTE, None), [1, 4]),
    ],
)
def test_what_will_have_no_room_is_not_tried(
    measured: Measured, memory: tuple[int, int | None], tried: list[int]
) -> None:
    """Four times the slots take four times the memory at most; a CPU counts none."""
    measured.choose({1: 100.0, 4: 100.0}, memory)
    assert measured.slots == tried


@pytest.mark.parametrize(("most", "tried"), [(1, [1]), (3, [1, 3]), (4, [1, 4]), (20, [1, 4, 16, 20])])
def test_more_slots_than_can_be_of_use_are_not_tried(measured: Measured, most: int, tried: list[int]) -> None:
    """A study with few trials left has no need of them."""
    # A quarter more slots cannot bring 1.3 times the steps, but nearly a quarter more.
    rates = {slots: 100.0 * slots**0.9 for slots in (1, 3, 4, 16, 20)}
    assert measured.choose(rates, most=most) == most
    assert measured.slots == tried


def test_a_worker_that_is_to_stop_measures_no_more(data: PackData) -> None:
    """What was found up to then is taken, one slot if nothing was."""
    lines: list[str] = []
    assert choose_slots(RECIPE, False, data, "float32", 4, lines.append, lambda: True) == 1
    assert lines == []
    assert choose_slots(RECIPE, False, data, "float32", 4, lines.append, lambda: bool(lines)) == 1
    assert len(lines) == 1


@pytest.fixture(scope="module")
def data() -> PackData:
    """A little of the sample on the device."""
    whole = sample.load()
    return PackData.of(whole.train.first(48), whole.validation.first(20))


def test_a_rate_is_that_of_steps_after_compiling(data: PackData, monkeypatch: pytest.MonkeyPatch) -> None:
    """All slots are busy meanwhile, with what is no epoch of any trial, and free again afterwards."""
    pack = Pack(PackKey.of(RECIPE), 2, data)
    clock = iter([0.0, 100.0, 200.0, 202.0])
    monkeypatch.setattr(sizing, "time", SimpleNamespace(perf_counter=clock.__next__))
    looks: list[tuple[int, tuple[int, ...]]] = []
    real = pack.run_epoch

    def run_epoch(look: Callable[[int, int], None]) -> Any:
        def note(done: int, total: int) -> None:
            looks.append((done, pack.due_slots))
            look(done, total)

        return real(note)

    monkeypatch.setattr(pack, "run_epoch", run_epoch)

    rate = measure_rate(pack, RECIPE)

    assert rate == 2 * looks[-1][0] / 2.0
    assert {due for _, due in looks} == {(0, 1)}
    assert pack.free_slots == (0, 1)
    pack.load(1, pack.begin(RECIPE))
    assert pack.run_epoch(lambda *_: None)[1].result.epoch == 1


def test_a_small_pack_is_measured_for_real(data: PackData) -> None:
    """What is chosen is one of those that were told of."""
    lines: list[str] = []
    slots = choose_slots(RECIPE, False, data, "float32", 2, lines.append)
    assert slots in (1, 2)
    assert [line.split(":")[0] for line in lines] == ["1 slot", "2 slots"]


@pytest.mark.parametrize(
    ("device_", "precision"),
    [
        (SimpleNamespace(compute_capability="9.0"), "bfloat16"),
        (SimpleNamespace(compute_capability="8.0"), "bfloat16"),
        (SimpleNamespace(compute_capability="12.0"), "bfloat16"),
        (SimpleNamespace(compute_capability="7.5"), "float32"),
        # A CPU, and whatever else has no such thing.
        (SimpleNamespace(), "float32"),
    ],
)
def test_packs_train_in_bfloat16_where_the_gpu_has_it(
    device_: Any, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless something else is asked for."""
    monkeypatch.setattr(device.jax, "local_devices", lambda: [device_])
    assert choose_pack_precision() == precision
    assert choose_pack_precision("float32") == "float32"
    assert choose_pack_precision("bfloat16") == "bfloat16"
    with pytest.raises(PrecisionError):
        choose_pack_precision("float8")


@pytest.mark.parametrize(
    ("statistics", "memory"),
    [
        ({"peak_bytes_in_use": 5, "bytes_limit": 7, "num_allocs": 1}, (5, 7)),
        ({"peak_bytes_in_use": 5}, (5, None)),
        (None, (0, None)),
    ],
)
def test_memory_is_what_the_device_counts(
    statistics: Any, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU counts none."""
    monkeypatch.setattr(
        device.jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: statistics)]
    )
    assert read_memory() == memory
