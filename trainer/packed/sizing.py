"""How many slots serve best on the device at hand, by measurement."""

import time
from collections.abc import Callable
from typing import Final

from trainer.errors import DeviceError, OutOfMemoryError
from trainer.packed.device import PackData, read_memory
from trainer.packed.pack import Pack, PackKey
from trainer.precision import Precision
from trainer.recipe import Recipe

FACTOR: Final = 4
"""Between the numbers of slots that are tried; each costs its compiling."""
MOST_SLOTS: Final = 64
LEAST_GAIN: Final = 1.3
"""What `FACTOR` times the slots must bring, in trials' steps a second, to be worth trials that wait longer
for their end: a search learns from trials that have ended."""
PIECES: Final = 2
"""Of an epoch, that are timed."""


class _Enough(Exception):
    """An epoch has told what it was to tell."""


class _Stopped(Exception):
    """Nothing more is to be measured."""


def choose_slots(
    recipe: Recipe,
    augments: bool,
    data: PackData,
    precision: Precision,
    most: int = MOST_SLOTS,
    tell: Callable[[str], None] = lambda _: None,
    must_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Slots for packs of recipes like this one: 1, 4, 16, 64 or `most`, as many as pay and have room.

    Args:
        recipe: A typical one.
        augments: Whether packs change images at random.
        data: What they train on.
        precision: What they train in.
        most: How many can be of use, at least 1.
        tell: Told, in a line, what was measured.
        must_stop: Asked between pieces of an epoch; when true, nothing more is measured.

    Returns:
        The number of slots, at most `most`.

    Raises:
        DeviceError: A single one cannot be trained; `OutOfMemoryError` where there is no room for it.
    """
    key = PackKey(recipe.architecture, recipe.batch_size, augments)
    chosen, best, slots = 0, 0.0, 1
    while True:
        began = time.monotonic()
        try:
            rate = measure_rate(Pack(key, slots, data, precision), recipe, must_stop)
        except _Stopped:
            return max(chosen, 1)
        except DeviceError as error:
            if not chosen:
                raise
            no_room = "have no room in the device's memory"
            tell(f"{slots} slots {no_room if isinstance(error, OutOfMemoryError) else f'fail: {error}'}")
            break
        seconds = time.monotonic() - began
        tell(f"{slots} slot{'s' * (slots > 1)}: {rate:,.0f} steps a second of all trials ({seconds:.0f} s)")
        if chosen and rate < least_gain(slots / chosen) * best:
            break
        chosen, best = slots, rate
        used, limit = read_memory()
        if slots >= most or (limit is not None and FACTOR * used > limit):
            break
        slots = min(FACTOR * slots, most)
    return chosen


def least_gain(factor: float) -> float:
    """What so many times the slots must bring: of `LEAST_GAIN`, as much as the step is of a whole one."""
    return 1 + (LEAST_GAIN - 1) * (factor - 1) / (FACTOR - 1)


def measure_rate(pack: Pack, recipe: Recipe, must_stop: Callable[[], bool] = lambda: False) -> float:
    """Steps a second of all slots together, after compiling.

    Args:
        pack: All of its slots are free before.
        recipe: What to train in them.
        must_stop: Asked between pieces of an epoch.
    """
    steps = pieces = 0

    def look(done: int, total: int) -> None:
        nonlocal steps, pieces
        if must_stop():
            raise _Stopped
        pieces += 1
        if pieces > PIECES or done == total:
            steps = done
            raise _Enough

    for slot in range(pack.slots):
        pack.load(slot, pack.begin(recipe))
    # The first time it is compiled.
    for _ in range(2):
        steps, pieces, began = 0, 0, time.perf_counter()
        try:
            pack.run_epoch(look)
        except _Enough:
            seconds = time.perf_counter() - began
    for slot in range(pack.slots):
        pack.free(slot)
    return pack.slots * steps / seconds
