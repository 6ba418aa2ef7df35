"""The compiled program that trains all slots of a pack."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from trainer.architecture import CLASSES
from trainer.packed.arrays import Arrays, Images, Numbers, Sums
from trainer.packed.augmentation import augment
from trainer.packed.convolution import Convolution
from trainer.packed.network import Pass, dropped_sizes
from trainer.packed.optimizer import Moments, Steps, step_weight
from trainer.packed.shape import SCORING_BATCH, Build, Shape
from trainer.packed.streams import AUGMENTATION_STREAM, DROPOUT_STREAM, draw_bits, draw_order, stream_key
from trainer.weights import weights_of


class Program:
    """What is compiled for a pack: each function once, at its first call.

    Attributes:
        shape: What it is compiled for.
        traces: How often a function was traced so far.
    """

    def __init__(self, shape: Shape, build: Build) -> None:
        """Nothing is compiled yet."""
        self.shape, self.traces = shape, 0
        self._block = build.block
        products = lax.Precision.DEFAULT if build.products == "tf32" else lax.Precision.HIGHEST
        self._convolution = Convolution(build.lowering, products)
        self._dtype = jnp.dtype(shape.precision)
        # What the slots have at the end of an epoch is never given away before its successor is there.
        self.order = self._compile(self._draw_order)
        self.train = self._compile(self._train, donate=(0, 1))
        self.score = self._compile(self._score, donate=(1,))
        self.settle = self._compile(self._settle, donate=(1,))
        self.copy = self._compile(lambda arrays: jax.tree.map(jnp.copy, arrays))
        self.put = self._compile(_put)
        self.take = self._compile(_take)

    def empty(self) -> Arrays:
        """Arrays of zeros."""
        slots, weights = self.shape.slots, weights_of(self.shape.architecture)
        zeros = {weight.path: jnp.zeros((slots, *weight.shape)) for weight in weights}
        moments = {
            weight.path: Moments(*(jnp.zeros((slots, *weight.shape)) for _ in Moments._fields))
            for weight in weights
            if weight.is_trained
        }
        return Arrays(zeros, moments, jnp.zeros(slots, jnp.int32))

    def no_sums(self) -> Sums:
        """Sums of zeros."""
        return Sums(jnp.zeros(self.shape.slots), jnp.zeros(self.shape.slots, jnp.int32))

    def _compile(self, function: Callable[..., Any], donate: tuple[int, ...] = ()) -> Callable[..., Any]:
        @functools.wraps(function)
        def traced(*arguments: Any) -> Any:
            self.traces += 1
            return function(*arguments)

        return jax.jit(traced, donate_argnums=donate)

    def _draw_order(self, seed: jax.Array, epoch: jax.Array) -> jax.Array:
        """An epoch's images, batch after batch, filled up with image 0: int32 (slots, steps x width)."""
        order = draw_order(seed, epoch, self.shape.train_images)
        missing = self.shape.steps * self._width - self.shape.train_images
        return jnp.pad(order, ((0, 0), (0, missing)))

    @property
    def _width(self) -> int:
        """Images of a step, those that fill it up included."""
        return min(self.shape.batch_size, self.shape.train_images)

    def _train(
        self,
        arrays: Arrays,
        sums: Sums,
        numbers: Numbers,
        order: jax.Array,
        data: Images,
        first: jax.Array,
        last: jax.Array,
    ) -> tuple[Arrays, Sums]:
        """Arrays and sums after steps `first` to `last` - 1, from 0, of each slot's epoch."""
        steps, block = self.shape.steps, self._block

        def step(index: jax.Array, carry: tuple[Arrays, Sums]) -> tuple[Arrays, Sums]:
            after = self._train_batch(first + index, carry, numbers, order, data)
            if block is not None and steps % block:
                # The last block goes beyond the epoch.
                after = jax.tree.map(functools.partial(jnp.where, first + index < steps), after, carry)
            return after

        trips = last - first if block is None else block
        result: tuple[Arrays, Sums] = lax.fori_loop(0, trips, step, (arrays, sums))
        return result

    def _train_batch(
        self,
        step: jax.Array,
        carry: tuple[Arrays, Sums],
        numbers: Numbers,
        order: jax.Array,
        data: Images,
    ) -> tuple[Arrays, Sums]:
        """One step of every slot's optimizer."""
        (weights, moments, iteration), sums = carry
        begin = step * self._width
        batch = lax.dynamic_slice_in_dim(order, begin, self._width, axis=1)
        present = None
        if self.shape.train_images % self._width:
            present = begin + jnp.arange(self._width) < self.shape.train_images
        labels, images = data.labels[batch], self._prepare(data.images[batch], numbers, step)
        key = stream_key(numbers.seed, numbers.epoch, step.astype(jnp.uint32), DROPOUT_STREAM)
        bits = draw_bits(key, dropped_sizes(self.shape.architecture, self._width))

        def drop(features: jax.Array, index: int) -> jax.Array:
            return _drop(features, bits[index], numbers.dropout[:, index])

        def loss_of(trained: dict[str, jax.Array]) -> tuple[jax.Array, tuple[Sums, dict[str, jax.Array]]]:
            through = Pass(
                self.shape.architecture,
                {**weights, **trained},
                self._convolution,
                self._dtype,
                drop,
                present,
            )
            batch_sums = _sum_up(through.logits(images), labels, numbers.label_smoothing, present)
            count = self._width if present is None else jnp.sum(present)
            # Slots know nothing of one another, so that the sum's gradients are those of each mean.
            return jnp.sum(batch_sums.loss / count), (batch_sums, through.moved)

        trained = {path: weights[path] for path in moments}
        gradients, (batch_sums, moved) = jax.grad(loss_of, has_aux=True)(trained)
        steps = Steps(numbers.optimizer, numbers.learning_rate, numbers.weight_decay, iteration)
        new_weights, new_moments = {**weights, **moved}, {}
        for path, gradient in gradients.items():
            new_weights[path], new_moments[path] = step_weight(steps, weights[path], moments[path], gradient)
        return Arrays(new_weights, new_moments, iteration + 1), Sums(*map(jnp.add, sums, batch_sums))

    def _prepare(self, images: jax.Array, numbers: Numbers, step: jax.Array) -> jax.Array:
        """Bytes, (slots, n, 32, 32, 3), in [0, 1], augmented."""
        if not self.shape.augments:
            return images.astype(self._dtype) / 255
        key = stream_key(numbers.seed, numbers.epoch, step.astype(jnp.uint32), AUGMENTATION_STREAM)
        return augment(images.astype(jnp.float32) / 255, numbers.augmentation, key)

    def _score(
        self, weights: dict[str, jax.Array], sums: Sums, data: Images, first: jax.Array, last: jax.Array
    ) -> Sums:
        """The sums, with those of batches `first` to `last` - 1 of the validation images added."""
        count, slots = self.shape.validation_images, self.shape.slots
        width = min(SCORING_BATCH, count)
        through = Pass(self.shape.architecture, weights, self._convolution, self._dtype)

        def step(index: jax.Array, sums: Sums) -> Sums:
            # The last images again where a batch would go beyond them, not counted.
            wanted = (first + index) * width + jnp.arange(width)
            batch = jnp.minimum(wanted, count - 1)
            images = data.images[batch].astype(self._dtype) / 255
            logits = through.logits(jnp.broadcast_to(images, (slots, *images.shape)))
            labels = jnp.broadcast_to(data.labels[batch], (slots, width))
            more = _sum_up(logits, labels, jnp.zeros(slots), wanted < count)
            return Sums(*map(jnp.add, sums, more))

        trips = last - first if self._block is None else self.shape.scoring_steps
        result: Sums = lax.fori_loop(0, trips, step, sums)
        return result

    def _settle(
        self, before: Arrays, after: Arrays, due: jax.Array, loss: jax.Array, validation_loss: jax.Array
    ) -> tuple[Arrays, jax.Array]:
        """What to go on with, and which slots are left with numbers, bool (slots,).

        Slots that were not due, bool (slots,), or are left with none have what they had before.
        """
        finite = jnp.isfinite(loss) & jnp.isfinite(validation_loss)
        for weight in after.weights.values():
            finite &= jnp.all(jnp.isfinite(weight), axis=tuple(range(1, weight.ndim)))
        taken = due & finite

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(taken.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(choose, after, before), finite


def _drop(features: jax.Array, bits: jax.Array, rates: jax.Array) -> jax.Array:
    """Features after dropout, as `trainer.dropout` has it: the rate is met to within 1/131,072.

    Args:
        features: (slots, ...).
        bits: Sixteen random ones for each element, uint16 (slots, elements).
        rates: float32 (slots,), each in [0, 1).
    """
    threshold = jnp.round(rates * 65_536.0)
    scale = (65_536.0 / (65_536.0 - threshold)).astype(features.dtype)
    each = (-1, *[1] * (features.ndim - 1))
    kept = bits.reshape(features.shape) >= threshold.astype(jnp.uint16).reshape(each)
    return jnp.where(kept, features * scale.reshape(each), jnp.zeros((), features.dtype))


def _sum_up(logits: jax.Array, labels: jax.Array, smoothing: jax.Array, present: jax.Array | None) -> Sums:
    """Loss and hits of a batch.

    Args:
        logits: float32 (slots, n, 10).
        labels: int32 (slots, n).
        smoothing: float32 (slots,).
        present: Which images count, bool (n,); None for all.
    """
    spread = smoothing[:, None, None]
    shares = jax.nn.one_hot(labels, CLASSES) * (1.0 - spread) + spread / CLASSES
    losses = -jnp.sum(shares * jax.nn.log_softmax(logits), axis=2)
    hits = jnp.argmax(logits, axis=2) == labels
    if present is not None:
        losses, hits = jnp.where(present, losses, 0.0), hits & present
    return Sums(jnp.sum(losses, axis=1), jnp.sum(hits, axis=1, dtype=jnp.int32))


def _put(arrays: Arrays, slot: jax.Array, values: Arrays) -> Arrays:
    """The arrays with a slot's replaced by `values`, which have no axis for it."""
    changed: Arrays = jax.tree.map(lambda array, value: array.at[slot].set(value), arrays, values)
    return changed


def _take(arrays: Arrays, slot: jax.Array) -> Arrays:
    """A slot's, without an axis for it."""
    taken: Arrays = jax.tree.map(lambda array: array[slot], arrays)
    return taken
