"""The article's baseline CNN and its variants, of stock Keras layers, and their twins for training."""

import ctypes
import gc
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import keras
import numpy.typing as npt
from tensorflow.python.framework.ops import gradient_registry

from trainer.architecture import CHANNELS, MONOTONE, SIDE, WHITENING_EPSILON, Architecture
from trainer.architecture import CLASSES as CLASSES
from trainer.dropout import TracedDropout
from trainer.normalization import FusedBatchNormalization
from trainer.optimizer import MOMENTUM
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.weights import initial_weights

TRIALS_OF_KERNELS: Final = 20
"""Kernels are freed once in so many trials: some 10 MB grow until then, 0.2 s are lost after it."""
IMAGE_SHAPE: Final = (SIDE, SIDE, CHANNELS)
ARTICLES_ARCHITECTURE: Final = Architecture()

Arrays = Sequence[npt.NDArray[Any]]


def build_model(recipe: Recipe) -> keras.Model:
    """The recipe's CNN with its dropout rates and freshly seeded weights; not compiled.

    Input: float32 (batch, 32, 32, 3) in [0, 1]. Output: float32 (batch, 10), class probabilities.
    """
    rates = recipe.dropout_rates
    inputs = keras.Input(IMAGE_SHAPE, name="image")
    features = _features(
        inputs,
        recipe.architecture,
        lambda features, index, name: keras.layers.Dropout(rates[index], name=name)(features),
        keras.layers.BatchNormalization,
        activation_first=True,
        policy="float32",
    )
    outputs = keras.layers.Dense(CLASSES, activation="softmax", name="classes")(features)
    model = keras.Model(inputs, outputs, name="baseline_cnn")
    model.set_weights(initial_weights(recipe.architecture, recipe.seed))
    return model


def build_twin(
    precision: Precision = "float32", architecture: Architecture = ARTICLES_ARCHITECTURE
) -> keras.Model:
    """The same network for the training loop: rates and seed are inputs, the output is logits.

    Inputs: image, (batch, 32, 32, 3) in [0, 1], of `precision`; rates, float32 (blocks + 1,); seed, int64
    (2,). Output: float32 logits (batch, 10). Its weights are those of `build_model`, float32, in that order;
    with bfloat16 they are rounded for each product, and all but the logits is bfloat16.
    """
    image = keras.Input(IMAGE_SHAPE, dtype=precision, name="image")
    rates = keras.Input(batch_shape=(len(architecture.filters) + 1,), dtype="float32", name="rates")
    seed = keras.Input(batch_shape=(2,), dtype="int64", name="seed")
    features = _features(
        image,
        architecture,
        lambda features, index, name: TracedDropout(index, name=name)([features, rates, seed]),
        FusedBatchNormalization,
        # Equal, because what never falls and a maximum change places; the activation and its gradient then
        # see a quarter of the elements.
        activation_first=architecture.activation not in MONOTONE,
        policy="float32" if precision == "float32" else "mixed_bfloat16",
    )
    logits = keras.layers.Dense(CLASSES, dtype="float32", name="classes")(features)
    return keras.Model([image, rates, seed], logits, name="baseline_cnn_twin")


def build_optimizer(
    name: str, learning_rate: float, weight_decay: float | None = None
) -> keras.optimizers.Optimizer:
    """The Keras optimizer of that name (`trainer.recipe.OPTIMIZERS`), all else at Keras's defaults."""
    # Named, because Keras would number them in the order of their making, and so the arrays in the file.
    common = {"learning_rate": learning_rate, "weight_decay": weight_decay, "name": name}
    makers: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
        "sgd": lambda: keras.optimizers.SGD(**common),
        "momentum": lambda: keras.optimizers.SGD(momentum=MOMENTUM, **common),
        "nesterov": lambda: keras.optimizers.SGD(momentum=MOMENTUM, nesterov=True, **common),
        "rmsprop": lambda: keras.optimizers.RMSprop(**common),
        "adam": lambda: keras.optimizers.Adam(**common),
    }
    return makers[name]()


def forget_models(*, kernels: bool = False) -> None:
    """Free what is left of models that nobody uses any more; call between trials.

    glibc keeps freed memory until told (malloc_trim(3)): storing and scoring a model leave tens of MB.

    Args:
        kernels: Free TensorFlow's kernels too. Keras numbers the tensors of each model on, so that each
            leaves 0.3 MB of kernels that no other uses. Programs that were traced stay, but make theirs
            again at their next step: 0.2 s (measured; what it clears:
            https://keras.io/api/utils/config_utils/#clear_session-function).
    """
    if kernels:
        keras.utils.clear_session(free_memory=False)
    _forget_gradients()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _forget_gradients() -> None:
    """Take the custom gradients of programs that are traced out of TensorFlow's registry.

    Each `tf.custom_gradient` that is traced (Keras's optimizers have one, silu another) is registered under a
    name of its own, and stays for ever, with the graph that it was traced in
    (https://github.com/tensorflow/tensorflow/issues/97697): 20 MB a trial where nearly every trial has a
    program of its own. Only tracing asks for it.
    """
    registered = gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]


def compile_model(model: keras.Model, recipe: Recipe, optimizer_state: Arrays) -> None:
    """Give `model` the recipe's optimizer in that state, so that the stored file can be trained further.

    Args:
        model: As `build_model` gives it.
        recipe: Names the optimizer and its weight decay.
        optimizer_state: One array for each of the optimizer's variables, in Keras's order.
    """
    optimizer = build_optimizer(recipe.optimizer, recipe.learning_rate, recipe.weight_decay or None)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    for variable, value in zip(optimizer.variables, optimizer_state, strict=True):
        variable.assign(value)


def _features(
    inputs: keras.KerasTensor,
    architecture: Architecture,
    dropout: Callable[[keras.KerasTensor, int, str], keras.KerasTensor],
    normalization: type[keras.layers.BatchNormalization],
    *,
    activation_first: bool,
    policy: str,
) -> keras.KerasTensor:
    """The layers up to the last one, in order; with the article's architecture the article's.

    Args:
        inputs: Images.
        architecture: What they are made of.
        dropout: Applies a dropout layer, given the features, the layer's index and its name.
        normalization: Batch normalisation's layer.
        activation_first: Whether a block's last activation comes before its pooling, as in the article, or
            after.
        policy: Keras's dtype policy for the layers.
    """
    features = inputs
    if architecture.whitening:
        # One group is the whole image. LayerNormalization would need several axes, which Keras 3.15 forgets
        # in an `.h5`: it loads with the last one alone, without a word.
        whitening = keras.layers.GroupNormalization(
            groups=1, epsilon=WHITENING_EPSILON, center=False, scale=False, dtype=policy, name="whitening"
        )
        features = whitening(features)
    for index in range(len(architecture.filters)):
        block = f"block{index + 1}"
        features = _block(
            features, architecture, index, normalization, activation_first=activation_first, policy=policy
        )
        features = dropout(features, index, f"{block}_dropout")
    if architecture.dense_units:
        features = keras.layers.Flatten(dtype=policy, name="flatten")(features)
        dense = keras.layers.Dense(
            architecture.dense_units, activation=architecture.activation, dtype=policy, name="dense"
        )
        features = dense(features)
    else:
        features = keras.layers.GlobalAveragePooling2D(dtype=policy, name="mean")(features)
    return dropout(features, len(architecture.filters), "dense_dropout")


def _block(
    features: keras.KerasTensor,
    architecture: Architecture,
    index: int,
    normalization: type[keras.layers.BatchNormalization],
    *,
    activation_first: bool,
    policy: str,
) -> keras.KerasTensor:
    """Block `index`'s layers but for its dropout; arguments as `_features` has them."""
    block, filters = f"block{index + 1}", architecture.filters[index]
    normalises = architecture.batch_normalization

    def activate(features: keras.KerasTensor, suffix: str) -> keras.KerasTensor:
        name = f"{block}_{architecture.activation}{suffix}"
        return keras.layers.Activation(architecture.activation, dtype=policy, name=name)(features)

    def normalise(features: keras.KerasTensor, name: str) -> keras.KerasTensor:
        if not normalises:
            return features
        return normalization(dtype=policy, name=f"{block}_{name}")(features)

    entered, waits = features, False
    for number in range(1, architecture.convolutions + 1):
        suffix, is_last = "" if number == 1 else str(number), number == architecture.convolutions
        # The activation is the convolution's own where nothing comes between.
        waits = normalises or (is_last and (architecture.residual or not activation_first))
        convolution = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            activation=None if waits else architecture.activation,
            dtype=policy,
            name=f"{block}_conv{suffix}",
        )
        features = normalise(convolution(features), f"norm{suffix}")
        if waits and not is_last:
            features = activate(features, f"_{number}")
    if architecture.residual:
        if entered.shape[-1] != filters:
            projection = keras.layers.Conv2D(filters, 1, dtype=policy, name=f"{block}_shortcut")
            entered = normalise(projection(entered), "shortcut_norm")
        features = keras.layers.Add(dtype=policy, name=f"{block}_add")([features, entered])
    if waits and activation_first:
        features = activate(features, "")
    features = keras.layers.MaxPooling2D(2, dtype=policy, name=f"{block}_pool")(features)
    return features if activation_first else activate(features, "")
