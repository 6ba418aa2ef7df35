"""Trials that train side by side in one compiled program, each in a slot that others take after it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from trainer.architecture import Architecture
from trainer.limits import OPTIMIZERS
from trainer.pace import Pace
from trainer.packed.arrays import Arrays, Numbers, Sums, to_arrays, to_state
from trainer.packed.augmentation import NUMBERS, numbers_of
from trainer.packed.device import PackData, telling_device_errors
from trainer.packed.program import Program
from trainer.packed.shape import SCORING_BATCH, Build, Shape, choose_build
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.schedule import learning_rate
from trainer.state import EpochResult, StateError, TrainingState

Look = Callable[[int, int], None]


@dataclass(frozen=True)
class PackKey:
    """What recipes must have in common to train in one pack.

    Attributes:
        architecture: The network's.
        batch_size: Images a step.
        augments: Whether images are changed at random; how, if at all, is each recipe's own.
    """

    architecture: Architecture
    batch_size: int
    augments: bool

    @classmethod
    def of(cls, recipe: Recipe) -> "PackKey":
        """The recipe's."""
        return cls(recipe.architecture, recipe.batch_size, any(numbers_of(recipe)))

    def takes(self, recipe: Recipe) -> bool:
        """Whether the recipe can train in a pack of this key: one that changes images can leave them, too."""
        return PackKey.of(recipe) in (self, replace(self, augments=False))


@dataclass(frozen=True)
class SlotEpoch:
    """What an epoch came to in one slot.

    Attributes:
        result: Its figures; the seconds are those of all slots together.
        is_finite: Whether losses and weights are numbers. If not, the trial has diverged: its slot has the
            state from before this epoch, and trains no more.
    """

    result: EpochResult
    is_finite: bool


@dataclass(frozen=True)
class _Trial:
    """The trial in a slot, but for its arrays."""

    recipe: Recipe
    history: tuple[EpochResult, ...]
    diverged: bool = False

    @property
    def learning_rate(self) -> float:
        """Of the next epoch."""
        return learning_rate(self.recipe, [result.validation_loss for result in self.history])

    @property
    def is_due(self) -> bool:
        return not self.diverged and len(self.history) < self.recipe.epochs


class Pack:
    """Slots of one program: `load` states, `run_epoch` while there is something to train, `save`, `free`.

    A trial gives the same result, up to rounding, in any slot of any pack, whatever the other slots do: its
    random numbers are functions of its seed, epoch and step, and slots share no sums. Loading, reading and
    freeing compile nothing. Not for several threads at once.

    An epoch takes as long with one slot taken as with all.

    Attributes:
        key: Of the recipes that it takes.
        precision: Of the states that it takes.
        slots: How many there are.
    """

    def __init__(
        self,
        key: PackKey,
        slots: int,
        data: PackData,
        precision: Precision = "float32",
        *,
        build: Build | None = None,
    ) -> None:
        """Free slots; compiled at the first epoch.

        Args:
            key: Of the recipes that it is to take.
            slots: How many trials train at a time, at least 1.
            data: What they train and validate on.
            precision: What they train in.
            build: How the program is made; None for what is best on this device, as far as is known.
        """
        if slots < 1:
            raise ValueError(f"a pack has at least 1 slot, got {slots}")
        self.key, self.slots, self.precision = key, slots, precision
        self._data = data
        shape = Shape(
            key.architecture,
            key.batch_size,
            key.augments,
            slots,
            len(data.train.labels),
            len(data.validation.labels),
            precision,
        )
        self._build = choose_build(shape.steps) if build is None else build
        self._program = Program(shape, self._build)
        self._trials: list[_Trial | None] = [None] * slots
        self._pace, self._scoring_pace = Pace(), Pace()
        with telling_device_errors():
            self._arrays = self._program.empty()

    @property
    def traces(self) -> int:
        """How often a function was traced so far, each to be compiled."""
        return self._program.traces

    @property
    def free_slots(self) -> tuple[int, ...]:
        """Slots that a state can be loaded into."""
        return tuple(slot for slot, trial in enumerate(self._trials) if trial is None)

    @property
    def due_slots(self) -> tuple[int, ...]:
        """Slots that the next epoch trains: loaded, not diverged, and not at their recipe's last epoch."""
        return tuple(slot for slot, trial in enumerate(self._trials) if trial is not None and trial.is_due)

    def begin(self, recipe: Recipe) -> TrainingState:
        """The state before epoch 1, to be loaded."""
        return TrainingState.begin(recipe, self.precision, "packed")

    def load(self, slot: int, state: TrainingState) -> None:
        """Let a free slot go on from `state`, be it another kind of engine's.

        Raises:
            StateError: It does not belong in this pack, or is damaged; the slot stays free.
            OutOfMemoryError: The device had no memory left.
        """
        if self._trials[slot] is not None:
            raise ValueError(f"slot {slot} is taken; free it first")
        if not self.key.takes(state.recipe):
            raise StateError(f"a state of {PackKey.of(state.recipe)} cannot train in a pack of {self.key}")
        if state.precision != self.precision:
            raise StateError(f"a state in {state.precision} cannot train in a pack of {self.precision}")
        state.check()
        with telling_device_errors():
            arrays = self._program.put(self._arrays, np.int32(slot), to_arrays(state))
            arrays.iteration.block_until_ready()
        self._arrays = arrays
        self._trials[slot] = _Trial(state.recipe, state.history)

    def save(self, slot: int) -> TrainingState:
        """A taken slot's state after its last epoch that ended with finite numbers, copied to the host.

        Raises:
            OutOfMemoryError: The device had no memory left. So for `DeviceError`, here and below: it failed.
        """
        trial = self._trial(slot)
        with telling_device_errors():
            arrays: Arrays = jax.device_get(self._program.take(self._arrays, np.int32(slot)))
        return to_state(trial.recipe, self.precision, trial.history, arrays)

    def free(self, slot: int) -> None:
        """Let another state be loaded into a taken slot."""
        self._trial(slot)
        self._trials[slot] = None

    def run_epoch(self, look: Look = lambda *_: None) -> dict[int, SlotEpoch]:
        """Train the next epoch of each slot that is due, and validate it.

        Args:
            look: Called between pieces of the epoch with the steps done and the steps in all, also while it
                is validated; about once a second where a step takes long. What it raises ends the epoch and
                reaches the caller: then all slots are as they were before it.

        Returns:
            By slot; empty if none is due.

        Raises:
            OutOfMemoryError: The device had no memory left; all slots are as they were before.
        """
        due = self.due_slots
        if not due:
            return {}
        began = time.perf_counter()
        numbers = self._numbers(due)
        is_due = np.isin(np.arange(self.slots), due)
        with telling_device_errors():
            arrays, sums = self._train(numbers, look)
            scores = self._score(arrays.weights, look)
            losses = (sums.loss, scores.loss)
            arrays, finite = self._program.settle(self._arrays, arrays, is_due, *losses)
            sums, scores, finite = jax.device_get((sums, scores, finite))
        self._arrays = arrays
        seconds = time.perf_counter() - began
        return {slot: self._note(slot, numbers, sums, scores, bool(finite[slot]), seconds) for slot in due}

    def _trial(self, slot: int) -> _Trial:
        trial = self._trials[slot]
        if trial is None:
            raise ValueError(f"slot {slot} is free; load a state first")
        return trial

    def _numbers(self, due: Sequence[int]) -> Numbers:
        """What the next epoch of these slots is trained by; zeros for the others."""
        layers = len(self.key.architecture.filters) + 1
        rows = [Numbers(0, 0, 0, 0.0, 0.0, 0.0, [0.0] * layers, [0.0] * NUMBERS)] * self.slots
        for slot in due:
            trial = self._trial(slot)
            recipe = trial.recipe
            rows[slot] = Numbers(
                recipe.seed,
                len(trial.history) + 1,
                OPTIMIZERS.index(recipe.optimizer),
                trial.learning_rate,
                recipe.weight_decay,
                recipe.label_smoothing,
                recipe.dropout_rates,
                numbers_of(recipe),
            )
        types = (np.uint32, np.uint32, np.int32, *[np.float32] * 5)
        columns = zip(*rows, strict=True)
        return Numbers(*(np.array(column, dtype) for column, dtype in zip(columns, types, strict=True)))

    def _train(self, numbers: Numbers, look: Look) -> tuple[Arrays, Sums]:
        """Arrays and sums after the epoch; what the slots have stays as it is."""
        steps = self._program.shape.steps
        order = self._program.order(numbers.seed, numbers.epoch)
        arrays, sums = self._program.copy(self._arrays), self._program.no_sums()
        for first, last in self._pieces(self._pace, steps, self._build.block or steps, self.key.batch_size):
            arrays, sums = self._program.train(arrays, sums, numbers, order, self._data.train, first, last)
            sums.loss.block_until_ready()
            look(int(last), steps)
        return arrays, sums

    def _score(self, weights: dict[str, jax.Array], look: Look) -> Sums:
        """Sums over the validation images."""
        steps, batches = self._program.shape.steps, self._program.shape.scoring_steps
        sums = self._program.no_sums()
        for first, last in self._pieces(self._scoring_pace, batches, batches, SCORING_BATCH):
            if first:
                look(steps, steps)
            sums = self._program.score(weights, sums, self._data.validation, first, last)
            sums.loss.block_until_ready()
        return sums

    def _pieces(
        self, pace: Pace, total: int, block: int, batch_size: int
    ) -> Iterator[tuple[np.int32, np.int32]]:
        """The first step of each piece and the one after its last: as many as are compiled, or by pace."""
        first = 0
        while first < total:
            began = time.perf_counter()
            count = pace.steps(batch_size) if self._build.block is None else block
            last = min(first + count, total)
            yield np.int32(first), np.int32(last)
            pace.note((last - first) * batch_size, time.perf_counter() - began)
            first = last

    def _note(
        self, slot: int, numbers: Numbers, sums: Sums, scores: Sums, is_finite: bool, seconds: float
    ) -> SlotEpoch:
        """Keep what an epoch came to."""
        trial, shape = self._trial(slot), self._program.shape
        result = EpochResult(
            epoch=int(numbers.epoch[slot]),
            loss=float(sums.loss[slot]) / shape.train_images,
            accuracy=int(sums.hits[slot]) / shape.train_images,
            validation_loss=float(scores.loss[slot]) / shape.validation_images,
            validation_accuracy=int(scores.hits[slot]) / shape.validation_images,
            learning_rate=trial.learning_rate,
            seconds=seconds,
        )
        history = (*trial.history, result) if is_finite else trial.history
        self._trials[slot] = replace(trial, history=history, diverged=not is_finite)
        return SlotEpoch(result, is_finite)
