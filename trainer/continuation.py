"""A training that goes on from an `.h5` file: exactly where the file says how, else as Keras would."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from trainer.cifar10 import Cifar10, Split
from trainer.device import count_threads
from trainer.errors import ModelError
from trainer.evaluation import BATCH
from trainer.model_file import model_from_bytes, model_to_bytes
from trainer.prediction import predict
from trainer.recipe import Recipe
from trainer.record import RecipePlan, StockPlan, TrainingRecord, read_optimizer
from trainer.schedule import learning_rate
from trainer.state import EpochResult, StateError, TrainingState
from trainer.stock_training import StockState, StockTrainer, recompile
from trainer.training import Trainer, TrainingResult

ASSUMED: Final = StockPlan(batch_size=Recipe().batch_size, seed=0)
"""How a model that came without a record is trained, unless told otherwise: in the article's batches."""


@dataclass(frozen=True)
class Changes:
    """What is to be otherwise from here on; None leaves a value as the file says.

    Attributes:
        batch_size: Images a step, at least 1.
        seed: Of shuffling and dropout, in [0, 2**31).
        learning_rate: Step size, in [1e-8, 10].
        train_images: How many of the training images, the first ones.
    """

    batch_size: int | None = None
    seed: int | None = None
    learning_rate: float | None = None
    train_images: int | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not None."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Stretch:
    """What more epochs than a recipe planned do to the learning rates that it stretches over all of them.

    Attributes:
        before: Epochs that the recipe planned.
        after: Those that it plans now.
        last_rate: Of the last epoch; None before the first.
        next_rate: Of the next one, which may be far above.
    """

    before: int
    after: int
    last_rate: float | None
    next_rate: float


class Continuation(Protocol):
    """A training that can go on, and be stored, at the end of any epoch."""

    @property
    def history(self) -> tuple[EpochResult, ...]:
        """One result for each epoch so far, those that the file tells of included."""

    @property
    def rate(self) -> float | None:
        """The step size that `Changes.learning_rate` would take the place of; None where it cannot."""

    @property
    def is_scheduled(self) -> bool:
        """Whether the learning rate changes from epoch to epoch."""

    def stretch(self, epochs: int) -> Stretch | None:
        """What so many more epochs do to a schedule; None without one, or where its plan has room."""

    def train(self, epochs: int, on_epoch: Callable[[EpochResult], None]) -> int | None:
        """Train so many epochs more; what `on_epoch` raises ends it after that epoch.

        Returns:
            The epoch that left the numbers, which is not kept; None if none did.

        Raises:
            OutOfMemoryError: The device had no memory left.
        """

    def to_h5(self) -> bytes:
        """The model after the last full epoch, with all that the next continuation needs."""


def continue_from(
    content: bytes,
    record: TrainingRecord | None,
    data: Cifar10,
    changes: Changes,
    *,
    origin: str = "stored model",
    jit_compile: bool = False,
) -> Continuation:
    """The training of the model in the bytes of an `.h5` file, ready to go on.

    Args:
        content: The file.
        record: What it says of its training (`trainer.record.read_record`).
        data: The training images to train on, and the validation images to score each epoch on.
        changes: What is to be otherwise.
        origin: Names the file in errors.
        jit_compile: Let XLA compile the steps of a recipe's training; for GPUs.

    Raises:
        ModelError: The file is no model that can be trained, or not on these data.
        RecipeError: A change lies outside its range.
    """
    train = _select(data.train, record, changes, origin)
    history = () if record is None else record.history
    plan = ASSUMED if record is None else record.plan
    if isinstance(plan, RecipePlan):
        state = _read_state(content, plan, history, changes, origin)
        trainer = Trainer(train, data.validation, jit_compile=jit_compile)
        return _RecipeContinuation(state, trainer, len(train), origin)
    plan = StockPlan(
        plan.batch_size if changes.batch_size is None else changes.batch_size,
        plan.seed if changes.seed is None else changes.seed,
    )
    # First, for Keras does not say what is wrong with it.
    kept = read_optimizer(content, origin)
    model = model_from_bytes(content, origin, compiled=True)
    recompile(model, kept, origin)
    # Not of a recipe, whose models end in a softmax. The score of each epoch would mean nothing.
    predict(model, data.validation.images[:BATCH], origin)
    if changes.learning_rate is not None:
        try:
            model.optimizer.learning_rate = changes.learning_rate
        except TypeError as error:
            raise ModelError(
                f"{origin}: its optimizer has a schedule of learning rates, which {changes.learning_rate:g} "
                "cannot replace; leave --learning-rate out"
            ) from error
    return _StockContinuation(StockTrainer(model, train, data.validation, plan), plan, len(train), history)


class _RecipeContinuation:
    """Goes on by the engine that trained the file's recipe."""

    def __init__(self, state: TrainingState, trainer: Trainer, train_images: int, origin: str) -> None:
        self._state, self._trainer = state, trainer
        self._train_images, self._origin = train_images, origin

    @property
    def history(self) -> tuple[EpochResult, ...]:
        return self._state.history

    @property
    def rate(self) -> float | None:
        return self._state.recipe.learning_rate

    @property
    def is_scheduled(self) -> bool:
        return self._state.recipe.schedule != "constant"

    def stretch(self, epochs: int) -> Stretch | None:
        before, recipe = self._state.recipe, self._plan(epochs)
        if not self.is_scheduled or recipe == before:
            return None
        next_rate = learning_rate(recipe, [result.validation_loss for result in self.history])
        last_rate = self.history[-1].learning_rate if self.history else None
        return Stretch(before.epochs, recipe.epochs, last_rate, next_rate)

    def _plan(self, epochs: int) -> Recipe:
        # A training that was interrupted keeps its plan; only one that is to go beyond it has a longer one.
        recipe = self._state.recipe
        return dataclasses.replace(recipe, epochs=max(self._state.epoch + epochs, recipe.epochs))

    def train(self, epochs: int, on_epoch: Callable[[EpochResult], None]) -> int | None:
        last, recipe = self._state.epoch + epochs, self._plan(epochs)

        def keep(result: EpochResult, state: TrainingState) -> bool:
            self._state = state
            on_epoch(result)
            return state.epoch >= last

        state = dataclasses.replace(self._state, recipe=recipe)
        try:
            return self._trainer.train(recipe, state=state, on_epoch=keep).diverged_epoch
        except StateError as error:
            # What comes after the colon are all shapes of both.
            reason = str(error).partition(":")[0]
            raise ModelError(f"{self._origin}: the record in it does not fit its arrays: {reason}") from error

    def to_h5(self) -> bytes:
        return TrainingResult("stopped", self._state).to_h5(self._train_images)


class _StockContinuation:
    """Goes on by Keras's own steps."""

    def __init__(
        self, trainer: StockTrainer, plan: StockPlan, train_images: int, history: tuple[EpochResult, ...]
    ) -> None:
        self._trainer, self._plan, self._train_images = trainer, plan, train_images
        self._state = trainer.save(history)

    @property
    def history(self) -> tuple[EpochResult, ...]:
        return self._state.history

    @property
    def rate(self) -> float | None:
        return None if self.is_scheduled else float(self._trainer.model.optimizer.learning_rate)

    @property
    def is_scheduled(self) -> bool:
        # A schedule is an object, which the optimizer's configuration describes by a dict.
        return isinstance(self._trainer.model.optimizer.get_config()["learning_rate"], dict)

    def stretch(self, epochs: int) -> Stretch | None:
        """None: an optimizer's own schedule counts steps, and knows no last epoch."""
        return None

    def train(self, epochs: int, on_epoch: Callable[[EpochResult], None]) -> int | None:
        def keep(state: StockState) -> None:
            self._state = state
            on_epoch(state.history[-1])

        return self._trainer.train(self._state, epochs, keep)

    def to_h5(self) -> bytes:
        # The steps of an epoch that was interrupted are not kept.
        self._trainer.load(self._state)
        record = TrainingRecord(self._plan, self._train_images, count_threads(), self.history)
        return model_to_bytes(self._trainer.model, record)


def _select(train: Split, record: TrainingRecord | None, changes: Changes, origin: str) -> Split:
    """The training images to use."""
    wanted = changes.train_images or (len(train) if record is None else record.train_images)
    if wanted > len(train):
        raise ModelError(f"{origin}: it was trained on {wanted:,} images, and there are {len(train):,}")
    return train.first(wanted)


def _read_state(
    content: bytes, plan: RecipePlan, history: tuple[EpochResult, ...], changes: Changes, origin: str
) -> TrainingState:
    """The state of a recipe's training, as its file has it, changed as wished."""
    given = changes.given()
    given.pop("train_images", None)
    kept = read_optimizer(content, origin)
    if changes.learning_rate is not None:
        kept = {
            name: np.asarray(changes.learning_rate, value.dtype) if name.endswith("/learning_rate") else value
            for name, value in kept.items()
        }
    return TrainingState(
        dataclasses.replace(plan.recipe, **given),
        plan.precision,
        tuple(model_from_bytes(content, origin).get_weights()),
        tuple(kept.values()),
        history,
        plan.engine,
    )
