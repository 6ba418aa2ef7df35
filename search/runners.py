"""Builds what trains a worker's trials."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from search.device import Device
from search.engines import EngineWish
from search.events import Event, Notice
from search.packing import changes_images, count_shapes, shares_programs, typical_recipe
from search.study import OpenStudy
from search.summary import count_ended, summarise_trials
from trainer.cifar10 import Cifar10

if TYPE_CHECKING:
    from search.runner import Runner
    from trainer.packed.device import PackData
    from trainer.precision import Precision


def build_runner(
    opened: OpenStudy,
    data: Cifar10,
    device: Device,
    wish: EngineWish,
    precision: str,
    emit: Callable[[Event], None],
    must_stop: Callable[[], bool],
) -> "Runner":
    """The runner for a study's trials, once TensorFlow has started, and JAX where it is to train.

    Args:
        opened: The study.
        data: CIFAR-10, of which the test images are not touched.
        device: What to train on, and with what.
        wish: How many slots a pack is to have.
        precision: What to train in, one of `trainer.precision.WISHES`.
        emit: Told what is measured, and what concerns no single trial.
        must_stop: Asked while it is measured; when true, there is no more of it.

    Raises:
        OutOfMemoryError: The device has no room for the data, or for a trial.
    """
    if device.engine == "packed":
        return _build_packed(opened, data, wish, precision, emit, must_stop)
    from search.single_runner import SingleRunner
    from trainer.precision import choose_precision

    return SingleRunner(
        data, opened.settings.train_samples, choose_precision(precision), jit_compile=device.jit_compile
    )


def _build_packed(
    opened: OpenStudy,
    data: Cifar10,
    wish: EngineWish,
    precision: str,
    emit: Callable[[Event], None],
    must_stop: Callable[[], bool],
) -> "Runner":
    from search.pack_plan import PackPlan
    from search.packed_runner import PackedRunner
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator
    from trainer.packed.device import PackData, choose_pack_precision

    space, chosen = opened.settings.space, choose_pack_precision(precision)
    on_device = PackData.of(data.train.first(opened.settings.train_samples), data.validation)
    if not shares_programs(space):
        shapes = count_shapes(space)
        count = f"{shapes:,.0f}" if math.isfinite(shapes) else "countless"
        emit(Notice(f"the space has {count} shapes of network and batch, so programs have a slot each"))
    plan = PackPlan.of(
        space, wish.slots or _measure_slots(opened, on_device, chosen, emit, must_stop), chosen
    )
    told = f"{plan.capacity} trials" if plan.capacity > 1 else "one trial"
    emit(Notice(f"training {told} at a time in packs, in {chosen}"))
    return PackedRunner(plan, on_device, Evaluator(DeviceSplit.of(data.validation)), emit)


def _measure_slots(
    opened: OpenStudy,
    data: "PackData",
    precision: "Precision",
    emit: Callable[[Event], None],
    must_stop: Callable[[], bool],
) -> int:
    """As many slots as serve best, of those that the study has trials for."""
    from trainer.packed.sizing import MOST_SLOTS, choose_slots

    space, most = opened.settings.space, MOST_SLOTS
    if not shares_programs(space):
        return 1
    total = opened.database.read_limit(opened.study)
    if total is not None:
        most = max(1, min(most, total - count_ended(summarise_trials(opened.study))))

    def tell(text: str) -> None:
        emit(Notice(f"measured: {text}"))

    return choose_slots(typical_recipe(space), changes_images(space), data, precision, most, tell, must_stop)
