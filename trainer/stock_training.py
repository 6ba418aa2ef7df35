"""Train a model that no recipe describes: by the optimizer and the loss that Keras compiled it with."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.cifar10 import Split
from trainer.device import DeviceSplit, telling_out_of_memory
from trainer.errors import ModelError
from trainer.evaluation import Evaluator, count_hits, scale
from trainer.model import CLASSES
from trainer.record import StockPlan
from trainer.state import EpochResult

STEPS_PER_CALL: Final = 50
"""As in `trainer.training`."""
SHUFFLING: Final = 0
"""The random stream of an epoch's order; the model's own have the numbers after it."""


@dataclass(frozen=True, eq=False)
class StockState:
    """A model at the end of an epoch: weights, the optimizer's variables, the epochs since it came."""

    weights: tuple[npt.NDArray[Any], ...]
    optimizer: tuple[npt.NDArray[Any], ...]
    history: tuple[EpochResult, ...] = ()


class StockTrainer:
    """Trains one compiled model, epoch by epoch, in Keras's own steps.

    Shuffling and the layers' random numbers are functions of the plan's seed and the epoch, as a recipe's
    are, so that a training goes on from any epoch's state as if it had not stopped.

    Attributes:
        model: The model; its weights are those of the last step.
    """

    def __init__(self, model: keras.Model, train: Split, validation: Split, plan: StockPlan) -> None:
        """A trainer for `model`, which maps images in [0, 1] to class probabilities and is compiled."""
        self.model = model
        self._plan = plan
        self._train = DeviceSplit.of(train)
        self._evaluator = Evaluator(DeviceSplit.of(validation))
        self._steps = math.ceil(len(train) / plan.batch_size)
        self._one_hot = not _describe_loss(model).startswith("sparse")
        kept = {id(weight) for weight in model.weights}
        self._seeds = [variable for variable in model.variables if id(variable) not in kept]
        self._run_steps = tf.function(self._trace_steps)

    def load(self, state: StockState) -> None:
        """Make `state` the one that the next epoch goes on from."""
        for variable, value in zip(self.model.weights, state.weights, strict=True):
            variable.assign(value)
        for variable, value in zip(self.model.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)

    def save(self, history: tuple[EpochResult, ...]) -> StockState:
        """The state as it is now, copied to the host."""
        weights = tuple(weight.numpy() for weight in self.model.weights)
        optimizer = tuple(variable.numpy() for variable in self.model.optimizer.variables)
        return StockState(weights, optimizer, history)

    def train(self, state: StockState, epochs: int, on_epoch: Callable[[StockState], None]) -> int | None:
        """Train so many epochs more.

        Args:
            state: Where to go on from.
            epochs: How many, at least 1.
            on_epoch: Called after each with the state to go on from.

        Returns:
            The epoch that left the numbers, if one did: a loss or a weight became NaN or infinite.

        Raises:
            OutOfMemoryError: The device had no memory left.
        """
        with telling_out_of_memory():
            self.load(state)
            for epoch in range(len(state.history) + 1, len(state.history) + epochs + 1):
                result = self._train_epoch(epoch)
                state = self.save((*state.history, result))
                if not _is_finite(state):
                    return epoch
                on_epoch(state)
        return None

    def _train_epoch(self, epoch: int) -> EpochResult:
        began = time.perf_counter()
        images = len(self._train)
        for number, variable in enumerate(self._seeds, SHUFFLING + 1):
            words = math.prod(variable.shape)
            variable.assign(self._stream(epoch, number).generate_state(words).reshape(variable.shape))
        order = np.random.default_rng(self._stream(epoch, SHUFFLING)).permutation(images)
        loss, hits = tf.zeros([]), tf.zeros([], tf.int32)
        for first in range(0, self._steps, STEPS_PER_CALL):
            last = min(first + STEPS_PER_CALL, self._steps)
            limits = [tf.constant(value, tf.int32) for value in (first, last)]
            more_loss, more_hits = self._run_steps(tf.constant(order, tf.int32), *limits)
            loss, hits = loss + more_loss, hits + more_hits
        score = self._evaluator.score(self.model)
        return EpochResult(
            epoch=epoch,
            loss=float(loss) / images,
            accuracy=int(hits) / images,
            validation_loss=score.loss,
            validation_accuracy=score.accuracy,
            learning_rate=float(self.model.optimizer.learning_rate),
            seconds=time.perf_counter() - began,
        )

    def _trace_steps(
        self, order: tf.Tensor, first: tf.Tensor, last: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        size = self._plan.batch_size
        loss, hits = tf.zeros([]), tf.zeros([], tf.int32)
        for step in tf.range(first, last):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            batch = order[step * size : (step + 1) * size]
            labels = tf.gather(self._train.labels, batch)
            more_loss, more_hits = self._train_batch(tf.gather(self._train.images, batch), labels)
            loss += more_loss
            hits += more_hits
        return loss, hits

    def _train_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """One step, that of Keras's `train_step`; loss summed over the batch, and hits."""
        inputs = scale(images, tf.float32)
        wanted = tf.one_hot(labels, CLASSES) if self._one_hot else labels
        optimizer, variables = self.model.optimizer, self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self.model(inputs, training=True)
            loss = self.model.compute_loss(x=inputs, y=wanted, y_pred=outputs, training=True)
            scaled = optimizer.scale_loss(loss)
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return tf.cast(loss, tf.float32) * tf.cast(tf.size(labels), tf.float32), count_hits(labels, outputs)

    def _stream(self, epoch: int, number: int) -> np.random.SeedSequence:
        return np.random.SeedSequence([self._plan.seed, epoch, number])


def _is_finite(state: StockState) -> bool:
    """As `trainer.training` looks at a trial."""
    last = state.history[-1]
    losses = (last.loss, last.validation_loss)
    return all(map(math.isfinite, losses)) and all(np.isfinite(array).all() for array in state.weights)


def recompile(model: keras.Model, kept: Mapping[str, npt.NDArray[Any]], origin: str) -> None:
    """Give a model that was loaded with its optimizer one that goes on where the stored one stopped.

    Keras's own leaves an optimizer that knows none of the model's variables, and `fit` then fails with
    "Unknown variable" (Keras 3.15).

    Args:
        model: Compiled as its file says.
        kept: The optimizer's variables in the file, in order.
        origin: Names the file in errors.

    Raises:
        ModelError: The optimizer in the file is not the one that the file describes.
    """
    model.compile_from_config(model.get_compile_config())
    have = [(value.shape, value.dtype.name) for value in kept.values()]
    variables = model.optimizer.variables
    want = [(tuple(variable.shape), str(variable.dtype)) for variable in variables]
    # Compiled and never trained, it knew no weights yet: it counts no steps, and begins.
    fresh = [variable for variable in variables if _leaf(variable.path) in ("iteration", "learning_rate")]
    names = [_leaf(name) for name in kept]
    if names == [_leaf(variable.path) for variable in fresh] and not any(
        value.any() for name, value in kept.items() if _leaf(name) == "iteration"
    ):
        variables = fresh
        want = [(tuple(variable.shape), str(variable.dtype)) for variable in fresh]
    if have != want:
        raise ModelError(
            f"{origin}: its optimizer's {len(have)} arrays are not the {len(want)} of Keras 3's "
            f"{type(model.optimizer).__name__}; if Keras 2 wrote it, load, compile and save it with Keras 3"
        )
    for variable, value in zip(variables, kept.values(), strict=True):
        variable.assign(value)


def _leaf(path: str) -> str:
    """The last part of a variable's path: its name in the optimizer."""
    return path.rpartition("/")[2]


def _describe_loss(model: keras.Model) -> str:
    """The compiled loss's name, such as `sparse_categorical_crossentropy`."""
    loss = model.loss
    return str(getattr(loss, "name", None) or getattr(loss, "__name__", None) or loss)
