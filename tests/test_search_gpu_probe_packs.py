"""search.gpu_probe: what a try of packs does, in its process and here on the CPU."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("jax")

from gpu_machine import make_gpu
from quick_jax import compile_quickly  # noqa: F401  # a fixture

from search import gpu_probe
from search.gpu_probe import train_a_little_pack
from trainer.packed import pack

GPU = make_gpu(7)


def test_a_real_try_of_packs_says_that_jax_does_not_see_the_gpu() -> None:
    """The process is the one that users have; JAX is asked in it, and TensorFlow is not."""
    reason = gpu_probe._try(GPU, "auto", "packs", print, lambda: False)

    assert reason.startswith(f"GpuError: JAX does not see the GPU {GPU.uuid}: ")
    assert "Traceback" not in reason


def test_a_try_of_packs_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of two trials, here on the CPU, in the program that trials are trained by."""
    started: list[Any] = []
    monkeypatch.setattr("search.runtime.start_jax", started.append)
    trained: list[Any] = []
    real = pack.Pack.run_epoch
    monkeypatch.setattr(
        pack.Pack, "run_epoch", lambda self: trained.append((self, real(self))) or trained[0][1]
    )

    train_a_little_pack(GPU.uuid, "float32")

    assert started == [GPU.uuid]
    ((used, epochs),) = trained
    assert (used.slots, used.precision, used.key.batch_size) == (2, "float32", 64)
    assert sorted(epochs) == [0, 1]
    assert all(epoch.is_finite for epoch in epochs.values())
    assert int(used.save(1).optimizer[0]) == 2


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (
            lambda: {0: SimpleNamespace(is_finite=True), 1: SimpleNamespace(is_finite=False)},
            "its losses or weights are no finite numbers",
        ),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_try_of_packs_that_fails_says_why(
    outcome: Callable[[], Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slot that computes nonsense is enough; what fails is one line."""
    monkeypatch.setattr("search.runtime.start_jax", lambda _: None)
    monkeypatch.setattr(pack.Pack, "run_epoch", lambda self: outcome())

    with pytest.raises(SystemExit) as ended:
        train_a_little_pack(GPU.uuid, "float32")

    assert ended.value.code == words
