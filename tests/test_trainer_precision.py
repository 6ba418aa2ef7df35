"""trainer.precision: which arithmetic a machine gets, and that bfloat16 trains as float32 does."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
from pathlib import Path

import numpy as np
import pytest
import sample
import tensorflow as tf

from trainer import precision
from trainer.device import DeviceSplit
from trainer.evaluation import Evaluator
from trainer.model import build_twin
from trainer.precision import PrecisionError, choose_precision, read_cpu_flags
from trainer.recipe import Recipe
from trainer.training import Trainer

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

DATA = sample.load()


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16 sse\n", "bfloat16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f\n", "float32"),
        ("flags\t\t: fpu not_avx512_bf16_at_all\n", "float32"),
        ("model name\t: a processor that names no flags\n", "float32"),
        ("", "float32"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_has_it(
    text: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the two features decides, as a whole word."""
    info = tmp_path / "cpuinfo"
    info.write_text(text)
    flags = read_cpu_flags(info)
    monkeypatch.setattr(precision, "read_cpu_flags", lambda: flags)
    assert choose_precision("auto") == chosen


def test_a_system_without_cpuinfo_gets_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is known, the slower and safe arithmetic."""
    flags = read_cpu_flags(tmp_path / "missing")
    monkeypatch.setattr(precision, "read_cpu_flags", lambda: flags)
    assert flags == frozenset()
    assert choose_precision("auto") == "float32"


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), None])
def test_on_a_gpu_its_capability_decides(
    capability: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ampere and newer have bfloat16; a GPU that does not say is not trusted with it."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"])
    details = {} if capability is None else {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    assert (choose_precision("auto") == "bfloat16") == (capability is not None and capability >= (8, 0))


@pytest.mark.parametrize("wish", ["float32", "bfloat16"])
def test_a_wish_is_granted(wish: str) -> None:
    """Asked for by name, a precision is used whatever the processor has."""
    assert choose_precision(wish) == wish


def test_an_unknown_precision_is_refused() -> None:
    """The error names the value and what there is."""
    with pytest.raises(PrecisionError, match="auto, float32, bfloat16, got 'float16'"):
        choose_precision("float16")


def test_the_bfloat16_twin_keeps_float32_weights_and_logits() -> None:
    """What is stored and what is compared stays float32; between them the features are bfloat16."""
    twin = build_twin("bfloat16")
    assert {weight.dtype for weight in twin.weights} == {"float32"}
    assert twin.output.dtype == "float32"
    inner = [layer for layer in twin.layers if layer.name.endswith(("_conv", "_pool", "_dropout"))]
    features = {layer.output.dtype for layer in inner}
    assert features == {"bfloat16"}


def test_a_bfloat16_trial_learns_and_its_model_is_float32() -> None:
    """It learns the sample, and the stored model's score in float32 is near the one seen in training."""
    trainer = Trainer(DATA.train, DATA.validation, "bfloat16")
    recipe = Recipe(0.0, 0.0, 0.0, 0.0, 0.002, "adam", epochs=12, batch_size=32, seed=3)
    result = trainer.train(recipe)
    assert result.status == "finished"
    assert result.history[-1].loss < 0.75 * result.history[0].loss
    assert {array.dtype for array in result.state.weights} == {np.dtype(np.float32)}
    score = Evaluator(DeviceSplit.of(DATA.validation)).score(result.build_model())
    assert score.accuracy == pytest.approx(result.history[-1].validation_accuracy, abs=0.05)
    assert score.loss == pytest.approx(result.history[-1].validation_loss, rel=0.05)


def test_one_bfloat16_epoch_is_near_one_float32_epoch() -> None:
    """Same seed, same masks and order: the two differ by rounding alone."""
    recipe = Recipe(learning_rate=0.002, epochs=1, batch_size=32, seed=5)
    narrow, wide = (
        Trainer(DATA.train, DATA.validation, kind).train(recipe) for kind in ("bfloat16", "float32")
    )
    assert narrow.history[0].loss == pytest.approx(wide.history[0].loss, rel=0.01)
    for ours, theirs in zip(narrow.state.weights, wide.state.weights, strict=True):
        assert not np.array_equal(ours, theirs)
        np.testing.assert_allclose(ours, theirs, atol=0.01)
