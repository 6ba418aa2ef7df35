"""The article's baseline CNN, of stock Keras layers, and its twin for the training loop."""

import ctypes
import gc
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from trainer.dropout import TracedDropout
from trainer.precision import Precision
from trainer.recipe import Recipe

IMAGE_SHAPE: Final = (32, 32, 3)
CLASSES: Final = 10
FILTERS: Final = (32, 64, 128)
DENSE_UNITS: Final = 80
MOMENTUM: Final = 0.9
"""The article's momentum; Keras holds it as a Python float, so it is part of the optimizer's name here."""

Arrays = Sequence[npt.NDArray[Any]]


def build_model(recipe: Recipe) -> keras.Model:
    """The article's CNN with the recipe's dropout rates and freshly seeded weights; not compiled.

    Input: float32 (batch, 32, 32, 3) in [0, 1]. Output: float32 (batch, 10), class probabilities.
    """
    rates = dropout_rates(recipe)
    inputs = keras.Input(IMAGE_SHAPE, name="image")
    features = _features(
        inputs,
        lambda features, index, name: keras.layers.Dropout(rates[index], name=name)(features),
        relu_first=True,
        policy="float32",
    )
    outputs = keras.layers.Dense(CLASSES, activation="softmax", name="classes")(features)
    model = keras.Model(inputs, outputs, name="baseline_cnn")
    model.set_weights(initial_weights(model, recipe.seed))
    return model


def build_twin(precision: Precision = "float32") -> keras.Model:
    """The same network for the training loop: rates and seed are inputs, the output is logits.

    Inputs: image, (batch, 32, 32, 3) in [0, 1], of `precision`; rates, float32 (4,); seed, int64 (2,).
    Output: float32 logits (batch, 10). Its weights are those of `build_model`, float32, in the same order;
    with bfloat16 they are rounded for each product, and all but the logits is bfloat16.
    """
    image = keras.Input(IMAGE_SHAPE, dtype=precision, name="image")
    rates = keras.Input(batch_shape=(len(FILTERS) + 1,), dtype="float32", name="rates")
    seed = keras.Input(batch_shape=(2,), dtype="int64", name="seed")
    features = _features(
        image,
        lambda features, index, name: TracedDropout(index, name=name)([features, rates, seed]),
        # Equal, because relu and max change places; relu and its gradient then see a quarter of the elements.
        relu_first=False,
        policy="float32" if precision == "float32" else "mixed_bfloat16",
    )
    logits = keras.layers.Dense(CLASSES, dtype="float32", name="classes")(features)
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
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


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
    dropout: Callable[[keras.KerasTensor, int, str], keras.KerasTensor],
    *,
    relu_first: bool,
    policy: str,
) -> keras.KerasTensor:
    """The article's layers up to the last one, in order.

    Args:
        inputs: Images.
        dropout: Applies a dropout layer, given the features, the layer's index and its name.
        relu_first: Whether a block's relu comes before its pooling, as in the article, or after.
        policy: Keras's dtype policy for the layers.
    """
    features = inputs
    for index, filters in enumerate(FILTERS):
        block = f"block{index + 1}"
        activation = "relu" if relu_first else None
        convolution = keras.layers.Conv2D(
            filters, 3, padding="same", activation=activation, dtype=policy, name=f"{block}_conv"
        )
        features = keras.layers.MaxPooling2D(2, dtype=policy, name=f"{block}_pool")(convolution(features))
        if not relu_first:
            features = keras.layers.ReLU(dtype=policy, name=f"{block}_relu")(features)
        features = dropout(features, index, f"{block}_dropout")
    features = keras.layers.Flatten(dtype=policy, name="flatten")(features)
    features = keras.layers.Dense(DENSE_UNITS, activation="relu", dtype=policy, name="dense")(features)
    return dropout(features, len(FILTERS), "dense_dropout")
