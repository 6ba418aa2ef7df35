"""Builds what trains a worker's trials."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from search.device import Device
from search.engines import EngineWish
from search.events import Event, Notice
from search.packing import changes_images, count_shapes, typical_recipe
from search.study import OpenStudy
from search.summary import count_ended, summarise_trials
from trainer.cifar10 import Cifar10

if TYPE_CHECKING:
    from search.runner import Runner


def build_runner(
    opened: OpenStudy,
    data: Cifar10,
    device: Device,
    wish: EngineWish,
    precision: str,
    emit: Callable[[Event], None],
) -> "Runner":
    """The runner for a study's trials, once TensorFlow has started, and JAX where it is to train.

    Args:
        opened: The study.
        data: CIFAR-10, of which the test images are not touched.
        device: What to train on, and with what.
        wish: How many slots a pack is to have.
        precision: What to train in, one of `trainer.precision.WISHES`.
        emit: Told what is measured, and what concerns no single trial.

    Raises:
        OutOfMemoryError: The device has no room for the data, or for a trial.
    """
    if device.engine == "packed":
        return _build_packed(opened, data, wish, precision, emit)
    from search.single_runner import SingleRunner
    from trainer.precision import choose_precision

    return SingleRunner(
        data, opened.settings.train_samples, choose_precision(precision), jit_compile=device.jit_compile
    )


def _build_packed(
    opened: OpenStudy, data: Cifar10, wish: EngineWish, precision: str, emit: Callable[[Event], None]
) -> "Runner":
    from search.pack_plan import PackPlan
    from search.packed_runner import PackedRunner
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator
    from trainer.packed.device import PackData, choose_pack_precision
    from trainer.packed.sizing import MOST_SLOTS, choose_slots

    space, chosen = opened.settings.space, choose_pack_precision(precision)
    on_device = PackData.of(data.train.first(opened.settings.train_samples), data.validation)
    slots = wish.slots
    if slots is None:
        total = opened.database.read_limit(opened.study)
        ended = count_ended(summarise_trials(opened.study))
        most = MOST_SLOTS if total is None else max(1, min(MOST_SLOTS, total - ended))
        slots = choose_slots(
            typical_recipe(space),
            changes_images(space),
            on_device,
            chosen,
            most,
            lambda text: emit(Notice(f"measured: {text}")),
        )
    plan = PackPlan.of(space, slots)
    if not plan.shapes:
        shapes = count_shapes(space)
        emit(
            Notice(
                f"the space has {f'{shapes:,.0f}' if shapes < 1e6 else 'countless'} shapes of network and "
                "batch: too many to share programs, so trials train one at a time"
            )
        )
    else:
        emit(Notice(f"{plan.capacity} trials at a time, in {chosen}"))
    return PackedRunner(plan, on_device, Evaluator(DeviceSplit.of(data.validation)), chosen, emit)
