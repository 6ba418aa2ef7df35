"""The article's baseline CNN, of stock Keras layers, kept as `.h5`, and its twin for the training loop."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import absl.logging
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.errors import ModelError
from trainer.recipe import Recipe

IMAGE_SHAPE: Final = (32, 32, 3)
CLASSES: Final = 10
PARAMETERS: Final = 257_978
"""Trainable parameters of the baseline CNN, as the article's model summary counts them."""
FILTERS: Final = (32, 64, 128)
DENSE_UNITS: Final = 80
MOMENTUM: Final = 0.9
"""The article's momentum; Keras holds it as a Python float, so it is part of the optimizer's name here."""

HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"

Arrays = Sequence[npt.NDArray[Any]]


class TracedDropout(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """Dropout whose rate and seed are tensors, so that one traced program serves every trial.

    Keras's own layer compares its rate in Python, and a new rate means a new trace. The mask is a function of
    the seed alone: the same seed gives the same mask in whatever order trials, epochs and steps are run.

    A mask element is 16 random bits compared with the rate, which halves the cost of the generator; the rate
    is met to within 1/131,072, and the scale uses the rate that is met, so the expectation is exact.
    """

    def __init__(self, index: int, **options: Any) -> None:
        """A dropout layer that takes element `index` of the rates and draws masks of its own."""
        # autocast off: under mixed precision Keras would round the rates to bfloat16.
        super().__init__(autocast=False, **options)
        self.index = index

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Drop elements of `features` while training.

        Args:
            inputs: features, any float dtype (batch, ...); rates, float32 (layers,), each in [0, 1);
                seed, int64 (2,).
            training: False returns the features as they are.
        """
        features, rates, seed = inputs
        if not training:
            return features
        threshold = tf.round(rates[self.index] * 65_536.0)
        shape = tf.shape(features)
        count = tf.reduce_prod(shape)
        words = tf.random.stateless_uniform(
            [(count + 1) // 2],
            seed + tf.constant([0, self.index], tf.int64),
            minval=None,
            maxval=None,
            dtype=tf.uint32,
            alg="philox",
        )
        bits = tf.reshape(tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:count], shape)
        kept = bits >= tf.cast(tf.cast(threshold, tf.int32), tf.uint16)
        scale = 65_536.0 / (65_536.0 - threshold)
        return features * (tf.cast(kept, features.dtype) * tf.cast(scale, features.dtype))


def build_model(recipe: Recipe) -> keras.Model:
    """The article's CNN with the recipe's dropout rates and freshly seeded weights; not compiled.

    Input: float32 (batch, 32, 32, 3) in [0, 1]. Output: float32 (batch, 10), class probabilities.
    """
    rates = dropout_rates(recipe)
    inputs = keras.Input(IMAGE_SHAPE, name="image")
    outputs = _network(
        inputs,
        lambda features, index, name: keras.layers.Dropout(rates[index], name=name)(features),
        "softmax",
    )
    model = keras.Model(inputs, outputs, name="baseline_cnn")
    model.set_weights(initial_weights(model, recipe.seed))
    return model


def build_twin() -> keras.Model:
    """The same network for the training loop: rates and seed are inputs, the output is logits.

    Inputs: image, float32 (batch, 32, 32, 3) in [0, 1]; rates, float32 (4,); seed, int64 (2,). Output:
    float32 logits (batch, 10). Its weights are those of `build_model`, in the same order.
    """
    image = keras.Input(IMAGE_SHAPE, name="image")
    rates = keras.Input(batch_shape=(len(FILTERS) + 1,), dtype="float32", name="rates")
    seed = keras.Input(batch_shape=(2,), dtype="int64", name="seed")
    logits = _network(
        image, lambda features, index, name: TracedDropout(index, name=name)([features, rates, seed]), None
    )
    return keras.Model([image, rates, seed], logits, name="baseline_cnn_twin")


def dropout_rates(recipe: Recipe) -> tuple[float, ...]:
    """The recipe's rates in the network's order."""
    return (recipe.dropout_block1, recipe.dropout_block2, recipe.dropout_block3, recipe.dropout_dense)


def initial_weights(model: keras.Model, seed: int) -> list[npt.NDArray[np.float32]]:
    """Glorot-uniform kernels and zero biases, Keras's defaults, as a function of the seed alone."""
    seeds = np.random.SeedSequence(seed).generate_state(len(model.weights))
    return [
        np.asarray(keras.initializers.GlorotUniform(seed=int(kernel_seed))(weight.shape), np.float32)
        if len(weight.shape) > 1
        else np.zeros(weight.shape, np.float32)
        for weight, kernel_seed in zip(model.weights, seeds, strict=True)
    ]


def build_optimizer(name: str, learning_rate: float) -> keras.optimizers.Optimizer:
    """The Keras optimizer of that name (`trainer.recipe.OPTIMIZERS`), all else at Keras's defaults."""
    makers: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "sgd": lambda: keras.optimizers.SGD(learning_rate),
        "momentum": lambda: keras.optimizers.SGD(learning_rate, momentum=MOMENTUM),
        "nesterov": lambda: keras.optimizers.SGD(learning_rate, momentum=MOMENTUM, nesterov=True),
        "rmsprop": lambda: keras.optimizers.RMSprop(learning_rate),
        "adam": lambda: keras.optimizers.Adam(learning_rate),
    }
    return makers[name]()


def compile_model(model: keras.Model, recipe: Recipe, optimizer_state: Arrays) -> None:
    """Give `model` the recipe's optimizer in that state, so that the stored file can be trained further.

    Args:
        model: As `build_model` gives it.
        recipe: Names the optimizer.
        optimizer_state: One array for each of the optimizer's variables, in Keras's order.
    """
    optimizer = build_optimizer(recipe.optimizer, recipe.learning_rate)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    for variable, value in zip(optimizer.variables, optimizer_state, strict=True):
        variable.assign(value)


def model_to_bytes(model: keras.Model) -> bytes:
    """The `.h5` file of `model`, optimizer state included when it is compiled."""
    with tempfile.TemporaryDirectory(prefix="cnn-search-") as folder:
        path = Path(folder) / "model.h5"
        with _without_legacy_warning():
            model.save(path)
        return path.read_bytes()


def load_model(path: Path) -> keras.Model:
    """The model in an `.h5` file, for inference (not compiled).

    Raises:
        ModelError: The file is missing, is no HDF5 file, or no model for 32x32x3 images and ten classes.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; `cnn-search best --output best.h5` writes one")
    try:
        with path.open("rb") as file:
            if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
                raise ModelError(f"{path}: not an .h5 model; give a file that `cnn-search best` wrote")
            return model_from_bytes(HDF5_SIGNATURE + file.read(), origin=str(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def model_from_bytes(content: bytes, origin: str = "stored model") -> keras.Model:
    """The model in the bytes of an `.h5` file, as `load_model` gives it; `origin` names it in errors."""
    with tempfile.TemporaryDirectory(prefix="cnn-search-") as folder:
        # Keras chooses the reader by the name's ending, which a user's file need not have.
        path = Path(folder) / "model.h5"
        path.write_bytes(content)
        try:
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        # Keras and h5py raise whatever they stumble over in a file that is damaged or another program's:
        # OSError, ValueError, KeyError, TypeError and AttributeError were seen.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
            raise ModelError(f"{origin}: an HDF5 file, but no Keras model that loads: {reason}") from error
    shapes = (model.input_shape, model.output_shape)
    if shapes != ((None, *IMAGE_SHAPE), (None, CLASSES)):
        raise ModelError(
            f"{origin}: the model maps {shapes[0]} to {shapes[1]}, not 32x32x3 images to 10 classes"
        )
    return model


def _network(
    inputs: keras.KerasTensor,
    dropout: Callable[[keras.KerasTensor, int, str], keras.KerasTensor],
    head_activation: str | None,
) -> keras.KerasTensor:
    """The article's layers in order; `dropout` gets the features, the layer's index and its name."""
    features = inputs
    for index, filters in enumerate(FILTERS):
        block = f"block{index + 1}"
        features = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"{block}_conv")(
            features
        )
        features = keras.layers.MaxPooling2D(2, name=f"{block}_pool")(features)
        features = dropout(features, index, f"{block}_dropout")
    features = keras.layers.Flatten(name="flatten")(features)
    features = keras.layers.Dense(DENSE_UNITS, activation="relu", name="dense")(features)
    features = dropout(features, len(FILTERS), "dense_dropout")
    return keras.layers.Dense(CLASSES, activation=head_activation, name="classes")(features)


@contextlib.contextmanager
def _without_legacy_warning() -> Iterator[None]:
    """Silence Keras's advice to save as `.keras`: the article's format is `.h5`."""
    logger = absl.logging.get_absl_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
