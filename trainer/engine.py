"""The traced program that trains one trial at a time, for all trials of one shape."""

import math
from typing import Final

import keras
import tensorflow as tf

from trainer.device import DeviceSplit
from trainer.evaluation import BATCH, count_hits, scale
from trainer.model import build_optimizer, build_twin, dropout_rates, initial_weights
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.state import EpochResult, TrainingState

SEEDS_PER_STEP: Final = 16
"""Random streams of one step: one for each dropout layer, the last for the epoch's shuffling."""


class Engine:
    """One network and one optimizer as a traced program.

    What differs between the trials that share it enters as tensors or variables: weights, optimizer state,
    learning rate, dropout rates, batch size, seed, epoch. `load` a state, `run_steps` and `validate`, `save`
    a state.

    Attributes:
        images: Training images, those of an epoch.
        steps: Of an epoch of the loaded trial.
        traces: How often a program was traced: training and validation, once each.
    """

    def __init__(
        self, optimizer: str, train: DeviceSplit, validation: DeviceSplit, precision: Precision = "float32"
    ) -> None:
        """A program for that optimizer and precision over these splits."""
        self.images = len(train)
        self.steps = 0
        self.traces = 0
        self._train, self._validation = train, validation
        self._model = build_twin(precision)
        self._precision = precision
        self._optimizer = build_optimizer(optimizer, learning_rate=0.01)
        self._optimizer.build(self._model.trainable_variables)
        self._optimizer_start = [variable.numpy() for variable in self._optimizer.variables]
        self._rates = tf.Variable(tf.zeros([len(dropout_rates(Recipe()))]), trainable=False)
        self._seed = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._batch_size = tf.Variable(1, dtype=tf.int32, trainable=False)
        self._loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
        self._run_steps = tf.function(self._trace_steps)
        self._run_validation = tf.function(self._trace_validation)

    def begin(self, recipe: Recipe) -> TrainingState:
        """The state before epoch 1."""
        index = self._optimizer.variables.index(self._optimizer.learning_rate)
        optimizer = list(self._optimizer_start)
        optimizer[index] = optimizer[index].dtype.type(recipe.learning_rate)
        weights = initial_weights(self._model, recipe.seed)
        return TrainingState(recipe, self._precision, tuple(weights), tuple(optimizer))

    def load(self, state: TrainingState) -> None:
        """Make `state` the one that the next steps go on from."""
        self._model.set_weights(list(state.weights))
        for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
        self._rates.assign(dropout_rates(state.recipe))
        self._seed.assign(state.recipe.seed)
        self._batch_size.assign(state.recipe.batch_size)
        self.steps = math.ceil(self.images / state.recipe.batch_size)

    def save(self, recipe: Recipe, history: tuple[EpochResult, ...]) -> TrainingState:
        """The state as it is now, copied to the host."""
        optimizer = tuple(variable.numpy() for variable in self._optimizer.variables)
        return TrainingState(recipe, self._precision, tuple(self._model.get_weights()), optimizer, history)

    def run_steps(self, epoch: int, first: int, last: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Train steps `first` to `last` - 1, from 0, of `epoch`, from 1.

        Returns:
            Summed cross-entropy, float32 (), and images classified rightly, int32 (); neither is waited for.
        """
        arguments = [tf.constant(value, tf.int64) for value in (epoch, self.steps, first, last)]
        total: tuple[tf.Tensor, tf.Tensor] = self._run_steps(*arguments)
        return total

    def validate(self) -> tuple[float, float]:
        """Mean cross-entropy and accuracy in [0, 1] over the validation images."""
        loss, hits = self._run_validation()
        return float(loss) / len(self._validation), int(hits) / len(self._validation)

    def _trace_steps(
        self, epoch: tf.Tensor, steps: tf.Tensor, first: tf.Tensor, last: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        self.traces += 1
        images = len(self._train)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(images), self._stream(epoch * steps, SEEDS_PER_STEP - 1), alg="philox"
        )
        batch_size, dtype = tf.identity(self._batch_size), tf.as_dtype(self._precision)
        loss, hits = tf.zeros([]), tf.zeros([], tf.int32)
        for step in tf.range(first, last):
            # Steps depend on one another; TensorFlow would still hold the tensors of ten of them.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            begin = tf.cast(step, tf.int32) * batch_size
            batch = order[begin : tf.minimum(begin + batch_size, images)]
            labels = tf.gather(self._train.labels, batch)
            inputs = scale(tf.gather(self._train.images, batch), dtype)
            with tf.GradientTape() as tape:
                logits = self._model(
                    [inputs, self._rates, self._stream(epoch * steps + step, 0)], training=True
                )
                total = self._loss(labels, logits)
                mean = total / tf.cast(tf.size(labels), total.dtype)
            gradients = tape.gradient(mean, self._model.trainable_variables)
            self._optimizer.apply(gradients, self._model.trainable_variables)
            loss += total
            hits += count_hits(labels, logits)
        return loss, hits

    def _trace_validation(self) -> tuple[tf.Tensor, tf.Tensor]:
        self.traces += 1
        images, dtype = len(self._validation), tf.as_dtype(self._precision)
        loss, hits = tf.zeros([]), tf.zeros([], tf.int32)
        seed = tf.zeros([2], tf.int64)
        for begin in tf.range(0, images, BATCH):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            end = tf.minimum(begin + BATCH, images)
            labels = self._validation.labels[begin:end]
            inputs = scale(self._validation.images[begin:end], dtype)
            logits = self._model([inputs, self._rates, seed], training=False)
            loss += self._loss(labels, logits)
            hits += count_hits(labels, logits)
        return loss, hits

    def _stream(self, number: tf.Tensor, stream: int) -> tf.Tensor:
        """The seed, int64 (2,), of a random stream that no other step, epoch or trial's seed shares.

        Args:
            number: Of the step, int64 (), counted over all epochs.
            stream: In [0, `SEEDS_PER_STEP`).
        """
        return tf.stack([self._seed, number * SEEDS_PER_STEP + stream])
