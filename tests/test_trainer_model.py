"""trainer.model: the article's network, its twin for training, and its `.h5`."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import sample
import tensorflow as tf

from trainer.dropout import TracedDropout
from trainer.errors import ModelError
from trainer.model import (
    build_model,
    build_optimizer,
    build_twin,
    compile_model,
)
from trainer.model_file import load_model, model_from_bytes, model_to_bytes
from trainer.recipe import ARTICLE, OPTIMIZERS, Recipe
from trainer.weights import initial_weights

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

IMAGES = sample.load().x_train[:16].astype(np.float32) / 255

CONV = {"kernel_size": (3, 3), "strides": (1, 1), "padding": "same", "activation": "relu", "use_bias": True}
POOL = {"pool_size": (2, 2), "strides": (2, 2), "padding": "valid"}
LAYERS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("InputLayer", {}, (32, 32, 3)),
    ("Conv2D", {"filters": 32, **CONV}, (32, 32, 32)),
    ("MaxPooling2D", POOL, (16, 16, 32)),
    ("Dropout", {"rate": 0.3}, (16, 16, 32)),
    ("Conv2D", {"filters": 64, **CONV}, (16, 16, 64)),
    ("MaxPooling2D", POOL, (8, 8, 64)),
    ("Dropout", {"rate": 0.3}, (8, 8, 64)),
    ("Conv2D", {"filters": 128, **CONV}, (8, 8, 128)),
    ("MaxPooling2D", POOL, (4, 4, 128)),
    ("Dropout", {"rate": 0.4}, (4, 4, 128)),
    ("Flatten", {}, (2048,)),
    ("Dense", {"units": 80, "activation": "relu", "use_bias": True}, (80,)),
    ("Dropout", {"rate": 0.3}, (80,)),
    ("Dense", {"units": 10, "activation": "softmax", "use_bias": True}, (10,)),
]
SHAPES = [
    (3, 3, 3, 32),
    (32,),
    (3, 3, 32, 64),
    (64,),
    (3, 3, 64, 128),
    (128,),
    (2048, 80),
    (80,),
    (80, 10),
    (10,),
]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """The article's model; not to be changed."""
    return build_model(ARTICLE)


@pytest.fixture(scope="module")
def twin() -> keras.Model:
    """The training loop's twin."""
    return build_twin()


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    """A model with an optimizer state of distinct numbers, compiled; not to be changed."""
    recipe = Recipe(0.1, 0.2, 0.3, 0.4, learning_rate=0.002, optimizer="adam", seed=5)
    model = build_model(recipe)
    optimizer = build_optimizer("adam", 0.002)
    optimizer.build(model.trainable_variables)
    generator = np.random.default_rng(0)
    state = [
        np.asarray(generator.random(variable.shape) * 0.01, variable.dtype)
        if len(variable.shape)
        else variable.numpy()
        for variable in optimizer.variables
    ]
    state[0] = np.array(42, np.int64)
    compile_model(model, recipe, state)
    return model


@pytest.fixture(scope="module")
def content(trained: keras.Model) -> bytes:
    """The `.h5` of the trained model."""
    return model_to_bytes(trained)


def test_the_model_has_the_articles_parameters(model: keras.Model) -> None:
    """257,978, as the article's summary says, every one of them trainable."""
    assert model.count_params() == 257_978
    assert sum(math.prod(weight.shape) for weight in model.trainable_weights) == 257_978


def test_the_model_is_the_articles_layer_by_layer(model: keras.Model) -> None:
    """Types, filters, kernels, padding, activations, rates and output shapes, in the article's order."""
    assert [type(layer).__name__ for layer in model.layers] == [kind for kind, _, _ in LAYERS]
    for layer, (_, wanted, shape) in zip(model.layers, LAYERS, strict=True):
        config = layer.get_config()
        assert {name: config[name] for name in wanted} == wanted, layer.name
        assert tuple(layer.output.shape) == (None, *shape), layer.name
    assert [tuple(weight.shape) for weight in model.weights] == SHAPES


def test_a_recipes_rates_reach_their_own_layers() -> None:
    """Each dropout layer has the rate of its own field."""
    recipe = Recipe(0.1, 0.2, 0.25, 0.5)
    layers = [layer for layer in build_model(recipe).layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in layers] == [0.1, 0.2, 0.25, 0.5] == list(recipe.dropout_rates)


def test_the_output_is_a_distribution_over_ten_classes(model: keras.Model) -> None:
    """Probabilities that sum to one, float32."""
    outputs = model.predict(IMAGES, verbose=0)
    assert outputs.shape == (16, 10)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-6)


def test_the_model_is_not_compiled(model: keras.Model) -> None:
    """A fresh model carries no optimizer."""
    assert not model.compiled


def test_the_seed_alone_fixes_the_weights() -> None:
    """The same seed gives the same weights, whatever the global seeds are and whatever was built before."""
    keras.utils.set_random_seed(1)
    first = build_model(Recipe(seed=11)).get_weights()
    keras.utils.set_random_seed(2)
    build_model(Recipe(seed=3))
    second = build_model(Recipe(0.0, 0.0, 0.0, 0.0, optimizer="adam", seed=11)).get_weights()
    assert _bits(first) == _bits(second)


@pytest.mark.parametrize("seed", [1, 2, 2**31 - 1])
def test_another_seed_gives_other_weights(seed: int) -> None:
    """Every kernel differs, in nearly every element."""
    architecture = ARTICLE.architecture
    pairs = zip(initial_weights(architecture, seed), initial_weights(architecture, 0), strict=True)
    for ours, theirs in pairs:
        if ours.ndim > 1:
            assert np.mean(ours == theirs) < 0.01


def test_building_a_model_leaves_the_global_generators_alone() -> None:
    """Who seeded numpy before building a model gets the same numbers after it."""
    np.random.seed(7)
    expected = np.random.random(3)
    np.random.seed(7)
    build_model(ARTICLE)
    assert np.array_equal(np.random.random(3), expected)


def test_weights_start_as_glorot_and_zero() -> None:
    """Kernels are uniform within Glorot's bound sqrt(6 / (fan in + fan out)), biases are zero."""
    for weight in initial_weights(ARTICLE.architecture, 0):
        assert weight.dtype == np.float32
        if weight.ndim == 1:
            assert not weight.any()
            continue
        field = math.prod(weight.shape[:-2])
        bound = math.sqrt(6 / (field * (weight.shape[-2] + weight.shape[-1])))
        assert np.abs(weight).max() <= bound
        assert np.abs(weight).max() > 0.98 * bound
        # Standard deviation of a uniform variable, within five of its own standard errors.
        tolerance = 5 * math.sqrt(0.2 / weight.size)
        assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=tolerance)
        assert abs(weight.mean()) < 5 * bound / math.sqrt(3 * weight.size)


def test_the_twin_has_the_same_weights_in_the_same_order(model: keras.Model, twin: keras.Model) -> None:
    """Weights of the one may be set on the other."""
    assert [weight.path for weight in twin.weights] == [weight.path for weight in model.weights]
    assert [tuple(weight.shape) for weight in twin.weights] == SHAPES
    assert all(weight.trainable for weight in twin.weights)


def test_the_twin_predicts_what_the_model_predicts(model: keras.Model, twin: keras.Model) -> None:
    """In inference the softmax of the twin's logits is the model's output, whatever rates and seed."""
    generator = np.random.default_rng(0)
    # Biases too, and outputs far from uniform: fresh weights would leave both untested.
    weights = [generator.normal(0, 0.1, shape).astype(np.float32) for shape in SHAPES]
    other = build_model(ARTICLE)
    other.set_weights(weights)
    twin.set_weights(weights)
    logits = twin(
        [tf.constant(IMAGES), tf.constant([0.9, 0.8, 0.7, 0.6]), tf.constant([1, 2], tf.int64)],
        training=False,
    )
    expected = other.predict(IMAGES, verbose=0)
    assert expected.std() > 0.1
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=2e-6)


def test_the_twin_drops_with_the_given_rates_and_seed(twin: keras.Model) -> None:
    """In training its output is a function of weights, rates and seed, and of each of these."""
    twin.set_weights(initial_weights(ARTICLE.architecture, 0))
    rates = [0.3, 0.3, 0.4, 0.3]

    def logits(rates: list[float], seed: int, training: bool = True) -> np.ndarray:
        return np.asarray(
            twin(
                [tf.constant(IMAGES), tf.constant(rates), tf.constant([0, seed], tf.int64)], training=training
            )
        )

    assert np.array_equal(logits(rates, 1), logits(rates, 1))
    assert not np.allclose(logits(rates, 1), logits(rates, 16))
    np.testing.assert_allclose(logits([0.0] * 4, 1), logits(rates, 1, training=False), atol=1e-6)
    plain = logits([0.0] * 4, 1)
    for index in range(4):
        assert not np.allclose(logits([0.5 * (index == i) for i in range(4)], 1), plain), index


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.4, 0.5, 0.95])
def test_dropout_meets_its_rate_and_keeps_the_expectation(rate: float) -> None:
    """The share dropped is the rate within five standard errors, and what stays is scaled to the old mean."""
    count = 400 * 1000
    outputs = _drop(tf.ones([400, 1000]), rate)
    error = math.sqrt(rate * (1 - rate) / count)
    assert abs(np.mean(outputs == 0) - rate) < 5 * error
    kept = np.unique(outputs[outputs != 0])
    assert len(kept) == 1
    assert kept[0] == pytest.approx(1 / (1 - rate), rel=2**-16 / (1 - rate))
    assert abs(outputs.mean() - 1) < 5 * error / (1 - rate)
    # The masks of neighbours in the batch, and of neighbouring features, are independent.
    mask = (outputs == 0) - rate
    for neighbours in (mask[1:] * mask[:-1], mask[:, 1:] * mask[:, :-1]):
        assert abs(neighbours.mean()) < 5 * rate * (1 - rate) / math.sqrt(count)


def test_dropout_of_rate_zero_keeps_everything() -> None:
    """Nothing is dropped and nothing is scaled."""
    features = tf.random.stateless_normal([64, 100], [1, 2])
    assert np.array_equal(_drop(features, 0.0), features)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.95])
def test_dropout_is_the_identity_outside_training(rate: float) -> None:
    """Inference sees the features as they are."""
    features = tf.random.stateless_normal([8, 100], [1, 2])
    assert np.array_equal(_drop(features, rate, training=False), features)


def test_a_mask_is_a_function_of_seed_and_layer() -> None:
    """The same seed gives the same mask; another trial's, step's or layer's is independent of it."""
    features = tf.ones([100, 1000])
    mask = _drop(features, 0.5, seed=(3, 160)) == 0
    assert np.array_equal(_drop(features, 0.5, seed=(3, 160)) == 0, mask)
    others = [
        _drop(features, 0.5, seed=(4, 160)),
        _drop(features, 0.5, seed=(2**31 - 1, 160)),
        _drop(features, 0.5, seed=(3, 176)),
        _drop(features, 0.5, seed=(3, 160 + 16 * 625)),
        *(_drop(features, 0.5, index=index, seed=(3, 160)) for index in (1, 2, 3)),
    ]
    for other in others:
        # Two independent fair masks agree in half of 100,000 places, give or take.
        assert abs(np.mean((other == 0) == mask) - 0.5) < 5 * 0.5 / math.sqrt(100_000)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (5, 7, 3, 1), (1, 4, 4, 128), (0, 8)])
def test_dropout_takes_any_shape(shape: tuple[int, ...]) -> None:
    """An odd number of elements, a single one and an empty batch keep their shape and stay finite."""
    outputs = _drop(tf.ones(shape), 0.5)
    assert outputs.shape == shape
    assert set(np.unique(outputs)) <= {0.0, 2.0}


def test_dropout_keeps_the_features_type() -> None:
    """Features in bfloat16, as mixed precision has them, come out in bfloat16."""
    layer = TracedDropout(0)
    outputs = layer([tf.ones([4, 4], tf.bfloat16), tf.fill([4], 0.5), tf.zeros([2], tf.int64)], training=True)
    assert outputs.dtype == tf.bfloat16


def test_gradients_pass_where_features_were_kept() -> None:
    """The gradient is the scale where a feature was kept and zero where it was dropped."""
    features = tf.ones([50, 50])
    layer = TracedDropout(0)
    with tf.GradientTape() as tape:
        tape.watch(features)
        outputs = layer([features, tf.fill([4], 0.25), tf.constant([1, 1], tf.int64)], training=True)
        total = tf.reduce_sum(outputs)
    gradient = tape.gradient(total, features)
    assert np.array_equal(gradient, outputs)


def test_one_trace_serves_every_rate_and_seed() -> None:
    """Rates and seeds enter as tensors; a traced program takes others without being traced again."""
    layer = TracedDropout(2)
    traces = 0

    @tf.function
    def run(features: tf.Tensor, rates: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        nonlocal traces
        traces += 1
        return layer([features, rates, seed], training=True)

    for rate in (0.0, 0.25, 0.9):
        rates = tf.constant([0.0, 0.0, rate, 0.0])
        dropped = np.mean(run(tf.ones([100, 100]), rates, tf.constant([1, 32], tf.int64)) == 0)
        assert dropped == pytest.approx(rate, abs=0.02)
    assert traces == 1


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", keras.optimizers.SGD, {"momentum": 0.0, "nesterov": False}),
        ("momentum", keras.optimizers.SGD, {"momentum": 0.9, "nesterov": False}),
        ("nesterov", keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
        ("rmsprop", keras.optimizers.RMSprop, {"rho": 0.9, "momentum": 0.0, "centered": False}),
        ("adam", keras.optimizers.Adam, {"beta_1": 0.9, "beta_2": 0.999, "amsgrad": False}),
    ],
)
def test_an_optimizer_is_what_its_name_says(name: str, kind: type, settings: dict[str, Any]) -> None:
    """Class, momentum, look-ahead and learning rate, with neither decay nor clipping."""
    optimizer = build_optimizer(name, 0.025)
    assert type(optimizer) is kind
    config = optimizer.get_config()
    wanted = settings | {"weight_decay": None, "clipnorm": None, "clipvalue": None, "global_clipnorm": None}
    assert {key: config[key] for key in wanted} == wanted
    assert float(optimizer.learning_rate) == np.float32(0.025)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_a_recipe_can_be_built(name: str) -> None:
    """No name that a recipe takes is unknown here."""
    assert isinstance(build_optimizer(name, 0.1), keras.optimizers.Optimizer)


def test_compiling_puts_the_optimizer_into_its_state(trained: keras.Model) -> None:
    """Step count and moments are those given, the learning rate is the recipe's."""
    assert int(trained.optimizer.iterations) == 42
    assert float(trained.optimizer.learning_rate) == np.float32(0.002)
    assert trained.optimizer.variables[2].numpy().any()


def test_compiling_refuses_the_state_of_another_optimizer() -> None:
    """A state with too few arrays is an error, not half a state."""
    with pytest.raises(ValueError, match="shorter"):
        compile_model(build_model(ARTICLE), ARTICLE, [np.array(1)])


def test_the_file_holds_stock_layers_only(content: bytes, tmp_path: Path) -> None:
    """Whoever has Keras, and nothing of this project, can load it."""
    with h5py.File(_write(content, tmp_path / "m.h5")) as file:
        config = json.loads(file.attrs["model_config"])
    for layer in config["config"]["layers"]:
        assert hasattr(keras.layers, layer["class_name"])


def test_stock_keras_loads_the_same_model(trained: keras.Model, content: bytes, tmp_path: Path) -> None:
    """keras.models.load_model gives the same weights, rates and outputs, bit for bit."""
    loaded = keras.models.load_model(_write(content, tmp_path / "m.h5"), compile=False)
    assert _bits(loaded.get_weights()) == _bits(trained.get_weights())
    assert loaded.get_config() == trained.get_config()
    expected = trained.predict(IMAGES, verbose=0)
    assert loaded.predict(IMAGES, verbose=0).tobytes() == expected.tobytes()


def test_the_file_holds_the_optimizers_state(trained: keras.Model, content: bytes, tmp_path: Path) -> None:
    """Every optimizer variable is in the file, in order, bit for bit."""
    with h5py.File(_write(content, tmp_path / "m.h5")) as file:
        group = file["optimizer_weights"]
        kept = [group[name][()] for name in group.attrs["weight_names"]]
        training = json.loads(file.attrs["training_config"])
    assert _bits(kept) == _bits([variable.numpy() for variable in trained.optimizer.variables])
    assert training["optimizer_config"]["class_name"] == "Adam"


def test_writing_a_model_leaves_no_file_behind(
    trained: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder for temporary files is as empty as before."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model_from_bytes(model_to_bytes(trained))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_compiled_can_be_written(model: keras.Model) -> None:
    """A file without optimizer loads as well."""
    assert _bits(model_from_bytes(model_to_bytes(model)).get_weights()) == _bits(model.get_weights())


@pytest.mark.parametrize("name", ["best.h5", "best.hdf5", "best", "best.keras", "my best.model"])
def test_a_model_loads_whatever_the_file_is_called(
    name: str, trained: keras.Model, content: bytes, tmp_path: Path
) -> None:
    """The content decides, not the name; what is loaded is not compiled."""
    loaded = load_model(_write(content, tmp_path / name))
    assert _bits(loaded.get_weights()) == _bits(trained.get_weights())
    assert not loaded.compiled


def _missing(path: Path) -> None:
    """Write nothing."""


def _hdf5_without_model(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(10)


def _text_as_config(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{"


def _keras_zip(path: Path) -> None:
    build_model(ARTICLE).save(path.with_suffix(".keras"))
    path.with_suffix(".keras").rename(path)


def _stock(path: Path, inputs: tuple[int, ...], units: int) -> None:
    image = keras.Input(inputs)
    outputs = keras.layers.Dense(units)(keras.layers.Flatten()(image))
    path.write_bytes(model_to_bytes(keras.Model(image, outputs)))


def _lambda(path: Path) -> None:
    image = keras.Input((32, 32, 3))
    outputs = keras.layers.Lambda(lambda x: x[:, 0, 0, :1] * np.ones(10), output_shape=(10,))(image)
    path.write_bytes(model_to_bytes(keras.Model(image, outputs)))


def _two_inputs(path: Path) -> None:
    images = [keras.Input((32, 32, 3)), keras.Input((32, 32, 3))]
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(keras.layers.Add()(images)))
    path.write_bytes(model_to_bytes(keras.Model(images, outputs)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_missing, "no such file"),
        (Path.mkdir, "a folder; name the .h5 file in it"),
        (lambda path: path.write_bytes(b""), "not an .h5 model"),
        (lambda path: path.write_text("epoch,loss\n1,2.3\n"), "not an .h5 model"),
        (_keras_zip, "not an .h5 model"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "no Keras model that loads"),
        (_hdf5_without_model, "no Keras model that loads"),
        (_text_as_config, "no Keras model that loads"),
        (_lambda, "no Keras model that loads"),
        (lambda path: _stock(path, (28, 28, 1), 10), "not 32x32x3 images to 10 classes"),
        (lambda path: _stock(path, (32, 32, 3), 100), "not 32x32x3 images to 10 classes"),
        (_two_inputs, "not 32x32x3 images to 10 classes"),
    ],
    ids=[
        "missing",
        "folder",
        "empty",
        "text",
        "keras-zip",
        "signature-only",
        "hdf5-without-model",
        "config-not-json",
        "lambda",
        "other-input",
        "other-output",
        "two-inputs",
    ],
)
def test_what_is_no_model_is_refused(make: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    """The error names the file and what is wrong with it, in one or two lines."""
    path = tmp_path / "some.h5"
    make(path)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert message.count("\n") <= 1


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(share: float, content: bytes, tmp_path: Path) -> None:
    """A download that broke off is an error that names the file, never a model with weights missing."""
    path = _write(content[: int(len(content) * share)], tmp_path / "some.h5")
    with pytest.raises(ModelError, match=r"some\.h5: "):
        load_model(path)


def test_stored_bytes_that_are_no_model_are_refused_by_their_origin() -> None:
    """The error names where the bytes came from."""
    with pytest.raises(ModelError, match=r"^trial 7: "):
        model_from_bytes(b"nothing", origin="trial 7")


def _drop(
    features: tf.Tensor, rate: float, *, index: int = 0, seed: tuple[int, int] = (0, 0), training: bool = True
) -> np.ndarray:
    """The features after dropout layer `index`; the other layers' rates are not its own."""
    rates = np.full(4, 0.123, np.float32)
    rates[index] = rate
    inputs = [features, tf.constant(rates), tf.constant(seed, tf.int64)]
    return np.asarray(TracedDropout(index)(inputs, training=training))


def _bits(arrays: list[np.ndarray]) -> list[tuple[Any, ...]]:
    return [(array.shape, array.dtype, array.tobytes()) for array in arrays]


def _write(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path
