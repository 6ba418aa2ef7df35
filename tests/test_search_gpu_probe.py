"""search.gpu_probe: what becomes of a GPU that works, works without XLA, or takes its process down.

The processes that try are real; what they run is a small script in place of the training, except in the
last tests.
"""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gpu_machine import make_gpu
from test_search_fleet import is_alive, linux_only, wait_until

from search import gpu_probe
from search.errors import GpuError
from search.events import Event, Notice
from search.gpu_probe import train_a_little, try_gpu, try_packs

GPU = make_gpu(7)
ABORT = """
import os, sys
place = "2026-11-23 06:00:00.123456: F external/xla/conv.cc:7] "
print(place + "Check failed: no algorithm for the convolution", file=sys.stderr)
print("*** what follows tells nothing ***", file=sys.stderr, flush=True)
os.abort()
"""
"""As a failed check in XLA ends its process."""


@pytest.fixture
def notices() -> list[str]:
    """What was told."""
    return []


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch, notices: list[str]) -> Callable[..., bool | None]:
    """Try a GPU with these scripts for the tries with XLA and without."""

    def run(xla: str, plain: str = "", must_stop: Callable[[], bool] = lambda: False) -> bool | None:
        monkeypatch.setattr(
            gpu_probe, "SCRIPT", f"import sys\nexec({{'xla': {xla!r}, 'plain': {plain!r}}}[sys.argv[3]])"
        )

        def emit(event: Event) -> None:
            assert isinstance(event, Notice)
            notices.append(event.text)

        return try_gpu(GPU, "float32", emit, must_stop)

    return run


def test_a_gpu_that_works_is_used_with_xla(attempt: Callable[..., bool | None], notices: list[str]) -> None:
    """Nothing is said, and nothing else tried."""
    assert attempt("", ABORT) is True
    assert notices == []


def test_a_try_knows_its_gpu_and_precision(attempt: Callable[..., bool | None]) -> None:
    """It is to try what will be used."""
    assert attempt(f"assert sys.argv[1:] == [{GPU.uuid!r}, 'float32', 'xla'], sys.argv", ABORT) is True


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            ABORT,
            "its process was ended by SIGABRT; Check failed: no algorithm for the convolution",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process was ended by SIGSEGV"),
        ("raise SystemExit('InternalError: libdevice not found')", "InternalError: libdevice not found"),
        ("import os; os._exit(3)", "its process ended with exit code 3"),
    ],
)
def test_where_xla_fails_training_goes_on_without(
    attempt: Callable[..., bool | None], notices: list[str], script: str, reason: str
) -> None:
    """However it ends its process; the reason is told."""
    assert attempt(script) is False
    (notice,) = notices
    assert (
        notice == f"Card (GPU-00000007): XLA does not work ({reason}); training without it, which is slower"
    )


def test_a_gpu_that_does_not_work_at_all_is_an_error(
    attempt: Callable[..., bool | None], notices: list[str]
) -> None:
    """With the reason that has nothing to do with XLA."""
    with pytest.raises(GpuError) as failed:
        attempt(ABORT, "raise SystemExit('ResourceExhaustedError: out of memory')")
    assert str(failed.value) == ("Card (GPU-00000007) does not work: ResourceExhaustedError: out of memory")
    assert notices == []


def test_a_reason_is_short(attempt: Callable[..., bool | None]) -> None:
    """Compilers tell long stories."""
    with pytest.raises(GpuError) as failed:
        attempt(ABORT, "raise SystemExit('long ' * 1000)")
    assert len(str(failed.value)) < 400


def test_a_gpu_that_hangs_is_given_up(
    attempt: Callable[..., bool | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its process is ended too."""
    monkeypatch.setattr(gpu_probe, "TRY_SECONDS", 1.0)
    told = tmp_path / "pids"
    hang = f"import os, time; print(os.getpid(), file=open({str(told)!r}, 'a')); time.sleep(600)"
    with pytest.raises(GpuError, match="a tiny batch was not trained within 1 s"):
        attempt(hang, hang)
    first, second = map(int, told.read_text().split())
    assert not is_alive(first)
    assert not is_alive(second)


def test_a_try_ends_when_told_to_stop(attempt: Callable[..., bool | None], tmp_path: Path) -> None:
    """Whoever stops a worker waits for a few seconds only."""
    told = tmp_path / "pid"
    hang = f"import os, time; os.symlink(str(os.getpid()), {str(told)!r}); time.sleep(600)"

    assert attempt(hang, ABORT, told.is_symlink) is None

    assert not is_alive(int(os.readlink(told)))


def test_a_long_try_is_told_of_once(
    attempt: Callable[..., bool | None], notices: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The user sees why nothing happens."""
    monkeypatch.setattr(gpu_probe, "SILENT_SECONDS", 0.0)
    go = tmp_path / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    asked: list[None] = []

    def must_stop() -> bool:
        asked.append(None)
        if len(asked) == 4:
            go.touch()
        return False

    assert attempt(wait, ABORT, must_stop) is True
    assert notices == ["Card (GPU-00000007): trying it; the first time, its kernels may have to be compiled"]


@linux_only
def test_a_try_does_not_outlive_its_worker(tmp_path: Path) -> None:
    """Killed with SIGKILL, a worker leaves its GPU to others at once."""
    told = tmp_path / "pid"
    head = gpu_probe.SCRIPT.split("from search")[0]
    script = f"""
from search import gpu_probe
gpu_probe.SCRIPT = {head!r} + '''
import time
os.symlink(str(os.getpid()), {str(told)!r})
time.sleep(600)
'''
gpu_probe.try_gpu({GPU!r}, "float32", print, lambda: False)
""".replace("Gpu(", "gpu_probe.Gpu(")
    with subprocess.Popen([sys.executable, "-c", script]) as worker:
        wait_until(told.is_symlink)
        worker.kill()
        worker.wait()
    child = int(os.readlink(told))
    wait_until(lambda: not is_alive(child))
    assert worker.returncode == -signal.SIGKILL


def test_a_real_try_says_that_tensorflow_does_not_see_the_gpu() -> None:
    """The process is the one that users have; there is no such GPU, on any machine."""
    reason = gpu_probe._try(GPU, "auto", "xla", print, lambda: False)

    assert reason.startswith("GpuError: TensorFlow 2.")
    assert f"does not see the GPU {GPU.uuid}" in reason
    assert "Traceback" not in reason


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_try_trains(jit_compile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full batch and one of another size, here on the CPU, by the trainer that trials are trained by."""
    started: list[Any] = []
    monkeypatch.setattr("search.runtime.start_tensorflow", lambda *arguments: started.append(arguments))
    from trainer import training

    trained: list[Any] = []
    real = training.Trainer.train
    monkeypatch.setattr(
        training.Trainer, "train", lambda self, recipe: trained.append(real(self, recipe)) or trained[0]
    )

    train_a_little(GPU.uuid, "float32", jit_compile=jit_compile)

    assert started == [(1, GPU.uuid)]
    (result,) = trained
    assert (result.status, result.state.epoch, result.state.precision) == ("finished", 1, "float32")
    assert int(result.state.optimizer[0]) == 2


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (lambda: SimpleNamespace(status="diverged"), "its losses or weights are no finite numbers"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_try_that_fails_says_why(
    outcome: Callable[[], Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that computes nonsense does not work; what fails is one line."""
    monkeypatch.setattr("search.runtime.start_tensorflow", lambda *arguments: None)
    monkeypatch.setattr("trainer.training.Trainer.train", lambda self, recipe: outcome())

    with pytest.raises(SystemExit) as ended:
        train_a_little(GPU.uuid, "float32", jit_compile=False)

    assert ended.value.code == words


@pytest.fixture
def attempt_packs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Try packs on a GPU with this script."""

    def run(script: str, must_stop: Callable[[], bool] = lambda: False) -> bool:
        monkeypatch.setattr(gpu_probe, "SCRIPT", script)
        return try_packs(GPU, "bfloat16", print, must_stop)

    return run


def test_a_gpu_that_works_with_packs_is_used(attempt_packs: Callable[..., bool]) -> None:
    """The try knows what it is to try."""
    assert attempt_packs(f"import sys; assert sys.argv[1:] == [{GPU.uuid!r}, 'bfloat16', 'packs'], sys.argv")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (ABORT, "its process was ended by SIGABRT; Check failed: no algorithm for the convolution"),
        ("raise SystemExit('JaxRuntimeError: out of memory')", "JaxRuntimeError: out of memory"),
    ],
)
def test_a_gpu_that_does_not_work_with_packs_is_an_error(
    attempt_packs: Callable[..., bool], script: str, reason: str
) -> None:
    """However its process ends; nothing else is tried, as single trials are another engine's."""
    with pytest.raises(GpuError) as failed:
        attempt_packs(script)
    assert str(failed.value) == f"Card (GPU-00000007) does not work with JAX: {reason}"


def test_a_try_of_packs_ends_when_told_to_stop(attempt_packs: Callable[..., bool], tmp_path: Path) -> None:
    """As any try does."""
    told = tmp_path / "pid"
    hang = f"import os, time; os.symlink(str(os.getpid()), {str(told)!r}); time.sleep(600)"

    assert attempt_packs(hang, told.is_symlink) is False

    assert not is_alive(int(os.readlink(told)))
