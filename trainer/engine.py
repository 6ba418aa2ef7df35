"""The traced program that trains one trial at a time, for all trials of one shape."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import tensorflow as tf

from trainer.augmentation import Augmentation, strengths
from trainer.device import DeviceSplit
from trainer.evaluation import count_hits, scale
from trainer.model import build_optimizer
from trainer.network import Network
from trainer.pace import Pace
from trainer.recipe import Recipe
from trainer.state import EpochResult, TrainingState
from trainer.traced_augmentation import augment

SEEDS_PER_STEP: Final = 16
"""Random streams of one step: one for each dropout layer, from 0, and those below."""
SHUFFLING_STREAM: Final = 15
AUGMENTATION_STREAM: Final = 14


Sums = tuple[tf.Tensor, tf.Tensor]
"""Summed cross-entropy, float32 (), and images classified rightly, int32 ()."""


@dataclass(frozen=True)
class Program:
    """What a traced program of training consists of, besides its network.

    Attributes:
        optimizer: One of `trainer.recipe.OPTIMIZERS`.
        decays: Whether there is weight decay.
        smooths: Whether labels are smoothed.
        augmentation: What is done to the pictures.
    """

    optimizer: str
    decays: bool
    smooths: bool
    augmentation: Augmentation

    @classmethod
    def of(cls, recipe: Recipe) -> "Program":
        """The program of a recipe: nothing that is switched off is in it."""
        return cls(
            recipe.optimizer,
            decays=recipe.weight_decay > 0,
            smooths=recipe.label_smoothing > 0,
            augmentation=Augmentation.of(recipe),
        )


class Engine:
    """One optimizer that trains a network, as a traced program.

    What differs between the trials that share it enters as tensors or variables: weights, optimizer state,
    learning rate, weight decay, smoothing, strengths of augmentation, dropout rates, batch size, seed, epoch.
    `load` a state, `run_steps`, `save` a state.

    Attributes:
        images: Training images, those of an epoch.
        steps: Of an epoch of the loaded trial.
        batch_size: Of the loaded trial.
        pace: How many steps to run at a time.
    """

    def __init__(
        self,
        program: Program,
        network: Network,
        train: DeviceSplit,
        *,
        jit_compile: bool = False,
        on_trace: Callable[[], None] = lambda: None,
    ) -> None:
        """That program for that network and split; others may share the network, one at a time.

        With `jit_compile`, XLA compiles the step, once for each size of batch that it meets. Not the loop
        around the steps: XLA has no `stateless_shuffle`, and makes a batch whose size is a variable as large
        as all training images (seen in its program, TensorFlow 2.21). For GPUs: on a CPU such a step takes
        twenty times as long.

        `on_trace` is called when the program is traced: once.
        """
        self.images = len(train)
        self.steps, self.batch_size = 0, 1
        self.pace = Pace()
        self._on_trace = on_trace
        self._train, self._network, self._model = train, network, network.model
        self._optimizer = build_optimizer(program.optimizer, learning_rate=0.01)
        self._weight_decay = tf.Variable(0.0, trainable=False)
        if program.decays:
            # Keras reads the attribute in each step, and would hold a number that it was made with as one.
            self._optimizer.weight_decay = self._weight_decay
        self._label_smoothing = tf.Variable(0.0, trainable=False) if program.smooths else None
        self._augmentation = program.augmentation
        self._strengths = tf.Variable(tf.zeros([len(strengths(Recipe()))]), trainable=False)
        self._optimizer.build(self._model.trainable_variables)
        self._seed = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._batch_size = tf.Variable(1, dtype=tf.int32, trainable=False)
        # A function that is not inlined: oneDNN takes over the gradient of a pooling only if the rewriting
        # meets it after the pooling. A loop has a cycle, and there TensorFlow 2.21 may meet it before, by
        # chance of addresses; that process would train at two thirds of the speed.
        apart = {"jit_compile": True} if jit_compile else {"experimental_attributes": {"_noinline": True}}
        self._step = tf.function(self._train_batch, autograph=False, **apart)
        self._run_steps = tf.function(self._trace_steps)

    def begin(self, recipe: Recipe) -> TrainingState:
        """The state before epoch 1."""
        return TrainingState.begin(recipe, self._network.precision)

    def load(self, state: TrainingState) -> None:
        """Make `state` the one that the next steps go on from.

        Raises:
            StateError: It is one of another network or optimizer; what was loaded stays.
        """
        state.check()
        self._model.set_weights(list(state.weights))
        for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
        self._network.rates.assign(state.recipe.dropout_rates)
        self._seed.assign(state.recipe.seed)
        self._batch_size.assign(state.recipe.batch_size)
        self._weight_decay.assign(state.recipe.weight_decay)
        if self._label_smoothing is not None:
            self._label_smoothing.assign(state.recipe.label_smoothing)
        self._strengths.assign(strengths(state.recipe))
        self.batch_size = state.recipe.batch_size
        self.steps = math.ceil(self.images / self.batch_size)

    def save(self, recipe: Recipe, history: tuple[EpochResult, ...]) -> TrainingState:
        """The state as it is now, copied to the host."""
        optimizer = tuple(variable.numpy() for variable in self._optimizer.variables)
        weights = tuple(self._model.get_weights())
        return TrainingState(recipe, self._network.precision, weights, optimizer, history)

    def set_learning_rate(self, rate: float) -> None:
        """Let the next steps use that rate."""
        self._optimizer.learning_rate.assign(rate)

    def run_steps(self, epoch: int, first: int, last: int, before: Sums | None = None) -> Sums:
        """Train steps `first` to `last` - 1, from 0, of `epoch`, from 1.

        Returns:
            `before`, the sums of the steps before, or zeros, with those of these steps added one by one, so
            that an epoch's are the same however it is cut; labels are smoothed where they are. Not waited
            for.
        """
        arguments = [tf.constant(value, tf.int64) for value in (epoch, self.steps, first, last)]
        loss, hits = (tf.zeros([]), tf.zeros([], tf.int32)) if before is None else before
        total: Sums = self._run_steps(*arguments, loss, hits)
        return total

    def _trace_steps(
        self,
        epoch: tf.Tensor,
        steps: tf.Tensor,
        first: tf.Tensor,
        last: tf.Tensor,
        loss: tf.Tensor,
        hits: tf.Tensor,
    ) -> Sums:
        self._on_trace()
        images = len(self._train)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(images), self._stream(epoch * steps, SHUFFLING_STREAM), alg="philox"
        )
        batch_size = tf.identity(self._batch_size)
        for step in tf.range(first, last):
            # Steps depend on one another; TensorFlow would still hold the tensors of ten of them.
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            begin = tf.cast(step, tf.int32) * batch_size
            batch = order[begin : tf.minimum(begin + batch_size, images)]
            labels = tf.gather(self._train.labels, batch)
            pictures = tf.gather(self._train.images, batch)
            if self._augmentation:
                # Not in the step, because XLA has no affine transform of images.
                stream = self._stream(epoch * steps + step, AUGMENTATION_STREAM)
                pictures = augment(self._augmentation, scale(pictures, tf.float32), self._strengths, stream)
            more_loss, more_hits = self._step(pictures, labels, self._stream(epoch * steps + step, 0))
            loss += more_loss
            hits += more_hits
        return loss, hits

    def _train_batch(
        self, images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One step of the optimizer.

        Args:
            images: (batch, 32, 32, 3), uint8, or augmented and float32 in [0, 1].
            labels: int32 (batch,).
            seed: Of the dropout masks, int64 (2,).

        Returns:
            Summed cross-entropy, float32 (), and images classified rightly, int32 ().
        """
        dtype = tf.as_dtype(self._network.precision)
        inputs = tf.cast(images, dtype) if self._augmentation else scale(images, dtype)
        with tf.GradientTape() as tape:
            logits = self._model([inputs, self._network.rates, seed], training=True)
            loss = self._network.loss(labels, logits, self._label_smoothing)
            mean = loss / tf.cast(tf.size(labels), loss.dtype)
        gradients = tape.gradient(mean, self._model.trainable_variables)
        self._optimizer.apply(gradients, self._model.trainable_variables)
        return loss, count_hits(labels, logits)

    def _stream(self, number: tf.Tensor, stream: int) -> tf.Tensor:
        """The seed, int64 (2,), of a random stream that no other step, epoch or trial's seed shares.

        Args:
            number: Of the step, int64 (), counted over all epochs.
            stream: In [0, `SEEDS_PER_STEP`).
        """
        return tf.stack([self._seed, number * SEEDS_PER_STEP + stream])
