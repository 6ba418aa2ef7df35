"""Train recipes, epoch by epoch, from their beginning or from a saved state."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import keras
import numpy as np

from trainer.architecture import Architecture
from trainer.cifar10 import Split
from trainer.device import DeviceSplit, count_threads, telling_out_of_memory
from trainer.engine import Engine, Program, Sums
from trainer.model import build_model, compile_model
from trainer.model_file import model_to_bytes
from trainer.network import Network
from trainer.precision import Precision
from trainer.recent import Recent
from trainer.recipe import Recipe
from trainer.record import RecipePlan, TrainingRecord
from trainer.schedule import learning_rate
from trainer.state import EpochResult, TrainingState

NETWORKS: Final = 2
"""Networks that a trainer keeps: a search over architectures makes one for nearly every trial, and hardly
ever the same again."""
ENGINES: Final = 8
"""Programs of training that a trainer keeps for a network: each optimizer's, and a few with other parts."""

OnEpoch = Callable[[EpochResult, TrainingState], bool]
OnSteps = Callable[[int, int, int], None]


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a training came to.

    Attributes:
        status: "finished" after the recipe's last epoch, "stopped" by the callback, "diverged" when a loss or
            a weight became NaN or infinite.
        state: As it was after the last epoch that ended with finite numbers.
        diverged_epoch: The epoch, from 1, that left the numbers; None unless diverged.
    """

    status: Literal["finished", "stopped", "diverged"]
    state: TrainingState
    diverged_epoch: int | None = None

    @property
    def history(self) -> tuple[EpochResult, ...]:
        """One result for each epoch that ended with finite numbers, from epoch 1."""
        return self.state.history

    def build_model(self) -> keras.Model:
        """The trained model, compiled, with its optimizer's state.

        Raises:
            OutOfMemoryError: The device had no memory left.
        """
        with telling_out_of_memory():
            model = build_model(self.state.recipe)
            model.set_weights(list(self.state.weights))
            compile_model(model, self.state.recipe, self.state.optimizer)
            return model

    def to_h5(self, train_images: int) -> bytes:
        """The trained model as an `.h5` file that says how it was trained, so that it can go on exactly.

        Args:
            train_images: How many images it was trained on, the first ones of the training split.

        Raises:
            OutOfMemoryError: The device had no memory left.
        """
        state = self.state
        plan = RecipePlan(state.recipe, state.precision, state.engine)
        record = TrainingRecord(plan, train_images, count_threads(), state.history)
        return model_to_bytes(self.build_model(), record)


class Trainer:
    """Trains recipes on one pair of splits; recipes that differ in numbers alone share a traced program.

    Not for several threads at once: a program has one set of variables.

    Attributes:
        precision: What a training that begins here is done in.
        validation: The split that recipes are validated on.
        traces: How often a program was traced so far, training or validation.
    """

    def __init__(
        self,
        train: Split,
        validation: Split,
        precision: Precision = "float32",
        *,
        jit_compile: bool = False,
    ) -> None:
        """A trainer for these splits, images uint8 (n, 32, 32, 3) and labels uint8 (n,).

        Args:
            train: What to train on.
            validation: What to score each epoch on.
            precision: What a training that begins here is done in.
            jit_compile: Let XLA compile the steps (`trainer.engine.Engine`); for GPUs.
        """
        self.precision = precision
        self._jit_compile = jit_compile
        self.validation = DeviceSplit.of(validation)
        self._train = DeviceSplit.of(train)
        self._residents: Recent[tuple[Architecture, Precision], _Resident] = Recent(NETWORKS)
        self.traces = 0

    def train(
        self,
        recipe: Recipe,
        *,
        state: TrainingState | None = None,
        on_epoch: OnEpoch | None = None,
        on_steps: OnSteps | None = None,
    ) -> TrainingResult:
        """Train `recipe` to its last epoch, or until a callback stops it.

        The same recipe, machine and number of threads give the same weights, bit for bit, whether trained in
        one go or continued from the state of any epoch, in this process or another. On a GPU the same recipe
        gives the same shuffling and masks, but sums in any order: the weights are near, not equal.

        Args:
            recipe: What to train.
            state: Where to go on from, a state of the same recipe, in the precision that it began in,
                whatever this trainer's; None begins at epoch 1. One that `trainer.packed` trained goes on
                too, with this engine's shuffling and masks.
            on_epoch: Called after each epoch with its result and the state to go on from; True stops.
            on_steps: Called about once a second with the epoch, the steps done in it and its steps in all,
                also while the epoch is validated.
                What it raises ends the training and reaches the caller; the state to go on from is the one
                that `on_epoch` got last.

        Returns:
            How it ended, with state and history.

        Raises:
            OutOfMemoryError: The device had no memory left.
            StateError: `state` is one of another recipe, or another version's; nothing was trained.
        """
        with telling_out_of_memory():
            return self._run(recipe, state, on_epoch, on_steps)

    def _run(
        self, recipe: Recipe, state: TrainingState | None, on_epoch: OnEpoch | None, on_steps: OnSteps | None
    ) -> TrainingResult:
        if state is not None:
            state.check_recipe(recipe)
        precision = self.precision if state is None else state.precision
        network, engine = self._programs(recipe, precision)
        if state is None:
            state = engine.begin(recipe)
        engine.load(state)
        while state.epoch < recipe.epochs:
            rate = learning_rate(recipe, [result.validation_loss for result in state.history])
            result = _train_epoch(engine, network, rate, state.epoch + 1, on_steps)
            former, state = state, engine.save(recipe, (*state.history, result))
            if not _is_finite(state):
                return TrainingResult("diverged", former, result.epoch)
            if on_epoch is not None and on_epoch(result, state) and state.epoch < recipe.epochs:
                return TrainingResult("stopped", state)
        return TrainingResult("finished", state)

    def _programs(self, recipe: Recipe, precision: Precision) -> tuple[Network, Engine]:
        """The programs that train the recipe in that precision, and validate it."""
        architecture = recipe.architecture
        resident = self._residents.get(
            (architecture, precision),
            lambda: _Resident(Network(architecture, precision, self.validation, self._count_trace)),
        )
        program = Program.of(recipe)
        engine = resident.engines.get(
            program,
            lambda: Engine(
                program,
                resident.network,
                self._train,
                jit_compile=self._jit_compile,
                on_trace=self._count_trace,
            ),
        )
        return resident.network, engine

    def _count_trace(self) -> None:
        self.traces += 1


@dataclass(frozen=True, eq=False)
class _Resident:
    """A network with the programs that train it, which go with it."""

    network: Network
    engines: Recent[Program, Engine] = field(default_factory=lambda: Recent(ENGINES))


def _is_finite(state: TrainingState) -> bool:
    """Whether the last epoch left numbers behind.

    The losses alone do not tell: oneDNN's relu makes 0 of NaN, and a network full of NaN goes on with a
    finite loss.
    """
    last = state.history[-1]
    losses = (last.loss, last.validation_loss)
    return all(map(math.isfinite, losses)) and all(np.isfinite(array).all() for array in state.weights)


def _train_epoch(
    engine: Engine, network: Network, rate: float, epoch: int, on_steps: OnSteps | None
) -> EpochResult:
    began = time.perf_counter()
    engine.set_learning_rate(rate)

    def look() -> None:
        if on_steps is not None:
            on_steps(epoch, done, engine.steps)

    sums: Sums | None = None
    done = 0
    while done < engine.steps:
        first, called = done, time.perf_counter()
        done = min(first + engine.pace.steps(engine.batch_size), engine.steps)
        sums = engine.run_steps(epoch, first, done, sums)
        engine.pace.note((done - first) * engine.batch_size, time.perf_counter() - called)
        look()
    assert sums is not None
    validation_loss, validation_accuracy = network.validate(look)
    loss, hits = sums
    return EpochResult(
        epoch=epoch,
        loss=float(loss) / engine.images,
        accuracy=int(hits) / engine.images,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
        learning_rate=rate,
        seconds=time.perf_counter() - began,
    )
