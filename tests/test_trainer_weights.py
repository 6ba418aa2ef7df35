"""trainer.weights, trainer.optimizer: what Keras would make, without it."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

from trainer.model import build_model, build_optimizer, build_twin
from trainer.optimizer import initial_variables
from trainer.recipe import OPTIMIZERS, Recipe
from trainer.state import TrainingState
from trainer.weights import initial_weights, weights_of

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

ARCHITECTURES: list[dict[str, Any]] = [
    {},
    {"width": 0.5, "blocks": 5, "head": "pooling", "whitening": True},
    {"convolutions": 3, "blocks": 1, "dense_units": 7},
    {"batch_normalization": True, "blocks": 2, "activation": "gelu"},
    {"residual": True, "width": 1.5},
    {"residual": True, "convolutions": 2, "blocks": 4, "width": 0.25},
    {"residual": True, "batch_normalization": True},
    {"residual": True, "batch_normalization": True, "convolutions": 2, "activation": "silu", "width": 0.5},
]


@pytest.mark.parametrize("fields", ARCHITECTURES, ids=str)
def test_weights_are_kerass_in_its_order(fields: dict[str, Any]) -> None:
    """Layer, name, shape and whether it is trained, of the stored model and of the one that trains."""
    recipe = Recipe(**fields)
    expected = [(weight.path, weight.shape, weight.is_trained) for weight in weights_of(recipe.architecture)]
    for model in (build_model(recipe), build_twin("float32", recipe.architecture)):
        assert [(weight.path, tuple(weight.shape), weight.trainable) for weight in model.weights] == expected
        trained = [weight.path for weight in model.trainable_variables]
        assert trained == [path for path, _, is_trained in expected if is_trained]


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
@pytest.mark.parametrize("fields", [{}, ARCHITECTURES[-1]], ids=str)
def test_kernels_are_those_of_kerass_initializer(fields: dict[str, Any], seed: int) -> None:
    """Bit for bit what GlorotUniform draws with TensorFlow from the seeds that a recipe's seed gives."""
    architecture = Recipe(**fields).architecture
    weights = initial_weights(architecture, seed)
    seeds = np.random.SeedSequence(seed).generate_state(len(weights))
    for weight, ours, kernel_seed in zip(weights_of(architecture), weights, seeds, strict=True):
        assert ours.dtype == np.float32
        if weight.name == "kernel":
            theirs = np.asarray(keras.initializers.GlorotUniform(seed=int(kernel_seed))(weight.shape))
            assert ours.tobytes() == theirs.tobytes(), weight.path
        else:
            assert (ours == (1.0 if weight.name in ("gamma", "moving_variance") else 0.0)).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizers_variables_are_kerass(optimizer: str) -> None:
    """Type, shape and value of each, and the moments of a weight side by side, as Keras orders them."""
    recipe = Recipe(optimizer=optimizer, learning_rate=0.0123, batch_normalization=True, blocks=2)
    built = build_optimizer(optimizer, recipe.learning_rate)
    built.build(build_model(recipe).trainable_variables)
    theirs = [np.asarray(variable) for variable in built.variables]
    ours = initial_variables(recipe)
    assert [(a.dtype, a.shape, a.tobytes()) for a in ours] == [
        (a.dtype, a.shape, a.tobytes()) for a in theirs
    ]
    # Adam's first weight: its momentum, then its velocity.
    moments = [variable.path.rpartition("_")[2] for variable in built.variables[2:4]]
    if optimizer == "adam":
        assert moments == ["momentum", "velocity"]


def test_a_trial_begins_without_keras_and_tensorflow() -> None:
    """A machine that has neither makes the same state."""
    script = (
        "import sys\n"
        "for name in ('keras', 'tensorflow', 'jax'): sys.modules[name] = None\n"
        "from trainer.recipe import Recipe\n"
        "from trainer.schedule import learning_rate\n"
        "from trainer.state import TrainingState\n"
        "import trainer.pace, trainer.augmentation, trainer.cifar10, trainer.record\n"
        "state = TrainingState.begin(Recipe(seed=5, optimizer='adam'), 'float32', 'packed')\n"
        "assert learning_rate(state.recipe, []) == 0.01\n"
        "sys.stdout.buffer.write(state.to_bytes())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, timeout=60)
    state = TrainingState.from_bytes(done.stdout)
    here = TrainingState.begin(Recipe(seed=5, optimizer="adam"), "float32", "packed")
    assert state.engine == "packed"
    assert state.to_bytes() == here.to_bytes()
