"""What `cnn-search run` and `cnn-search worker` make of GPUs: options, variables, messages and exit codes.

The machine is faked by a program `nvidia-smi`; that TensorFlow does not see its GPUs is real.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from gpu_machine import (
    LISTING,
    forget_cuda_libraries,
    print_listing,
    write_cuda_libraries,
    write_nvidia_smi,
)
from test_search_fleet import study_at

from search.assignment import Assignment
from search.device import ADVICE, DeviceWish
from search.engines import EngineWish
from search.fleet import Stop
from search.gpu_claims import claim_slot, count_free
from search.gpus import parse_list

Cli = Callable[..., Finished]
GPUS = parse_list(LISTING)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Leave the signals as they were, which `worker` listens to."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


@pytest.fixture(autouse=True)
def machine(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs and CUDA's libraries, no data, and a script in place of a try, in which all GPUs work."""
    monkeypatch.setattr("trainer.data.load", lambda *_, **__: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CNN_SEARCH_LOCKS", str(tmp_path / "locks"))
    folder = write_nvidia_smi(tmp_path / "bin", print_listing(LISTING))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    forget_cuda_libraries(monkeypatch)
    monkeypatch.syspath_prepend(write_cuda_libraries(tmp_path / "pip"))
    monkeypatch.setattr("search.gpu_probe.SCRIPT", "")


@pytest.fixture
def fleets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Assignment, int]]:
    """Make `run` start no workers; gives what they would have done, and how many."""
    given: list[tuple[Assignment, int]] = []

    def run_fleet(opened: Any, assignment: Assignment, workers: int, show: Any) -> Stop:
        given.append((assignment, workers))
        return Stop()

    monkeypatch.setattr("search.fleet.run_fleet", run_fleet)
    return given


def assert_refused(ended: Finished, words: str) -> None:
    """Failed, with one last line that has these words."""
    assert (ended.code, ended.out) == (1, "")
    last = ended.err.splitlines()[-1]
    assert last.startswith("cnn-search: ")
    assert words in last
    assert "Traceback" not in ended.err


def test_a_worker_whose_gpu_does_not_work_fails(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says which and why, in a line, and its place is free for another try."""
    monkeypatch.setattr("search.gpu_probe.SCRIPT", "import os; os.abort()")
    cli("init")

    ended = cli("worker")

    name = "NVIDIA H100 80GB HBM3 (GPU-aaaaaaaa)"
    assert_refused(ended, f"cnn-search: {name} does not work: its process was ended by SIGABRT; {ADVICE}")
    assert count_free(GPUS, 1, tmp_path / "locks") == 2


def test_a_worker_without_a_free_gpu_fails(cli: Cli, tmp_path: Path) -> None:
    """It does not wait, and does not train on a CPU for days unasked."""
    held = [claim_slot(GPUS, 1, tmp_path / "locks") for _ in GPUS]
    cli("init")

    ended = cli("worker")

    assert_refused(ended, "other workers have the 2 places on the 2 GPUs of this machine")
    for one in held:
        assert one is not None
        one.release()


def test_a_worker_that_must_have_a_gpu_fails_without(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option or by variable."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    cli("init")
    hidden = "CUDA_VISIBLE_DEVICES='' hides the 2 GPUs of this machine"
    assert_refused(cli("worker", "--device", "gpu"), hidden)
    monkeypatch.setenv("CNN_SEARCH_DEVICE", "gpu")
    assert_refused(cli("worker"), hidden)


def test_a_run_has_a_worker_for_each_gpu(
    cli: Cli, fleets: list[tuple[Assignment, int]], tmp_path: Path
) -> None:
    """Or for each place on them; each of the workers claims one itself."""
    first = cli("run")
    second = cli("run", "--workers-per-gpu", 3, "--device", "gpu")
    third = cli("run", "--workers", 1)

    assert [ended.code for ended in (first, second, third)] == [0, 0, 0]
    assert [workers for _, workers in fleets] == [2, 6, 1]
    locks = tmp_path / "locks"
    assert [assignment.device for assignment, _ in fleets] == [
        DeviceWish("auto", False, 1, locks),
        DeviceWish("gpu", False, 3, locks),
        DeviceWish("auto", False, 1, locks),
    ]
    assert "2 workers of " in first.err
    assert "on GPUs; Ctrl-C" in first.err


def test_a_run_leaves_gpus_to_others(cli: Cli, fleets: list[tuple[Assignment, int]], tmp_path: Path) -> None:
    """Those that other workers have, and those that are hidden from it."""
    held = claim_slot(GPUS, 1, tmp_path / "locks")
    assert held is not None
    assert cli("run").code == 0
    assert_refused(cli("run", "--workers", 2), "2 workers want a place on a GPU each, 1 free of the 2 places")
    held.release()
    assert [workers for _, workers in fleets] == [1]


def test_a_run_on_the_cpu_says_once_why(
    cli: Cli, fleets: list[tuple[Assignment, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers do not look for GPUs again."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")

    ended = cli("run", "--workers", 5)

    assert ended.code == 0
    assert ended.err.count("training on the CPU: CUDA_VISIBLE_DEVICES='-1' hides the 2 GPUs") == 1
    assert "on GPUs" not in ended.err
    ((assignment, workers),) = fleets
    assert (assignment.device.device, workers) == ("cpu", 5)


def test_options_come_from_variables_too(
    cli: Cli, fleets: list[tuple[Assignment, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An option wins; an empty variable says nothing."""
    variables = {
        **{"DEVICE": "cpu", "ALLOW_CPU": "1", "WORKERS_PER_GPU": "4"},
        **{"ENGINE": "single", "SLOTS": "12"},
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"CNN_SEARCH_{name}", value)
    assert cli("run").code == 0
    options = ("--device", "auto", "--workers-per-gpu", 2, "--locks", tmp_path / "mine")
    assert cli("run", *options, "--engine", "auto", "--slots", "auto").code == 0
    for name in variables:
        monkeypatch.setenv(f"CNN_SEARCH_{name}", "")
    assert cli("run").code == 0

    first, second, third = (assignment.device for assignment, _ in fleets)
    assert first == DeviceWish("cpu", True, 4, tmp_path / "locks")
    assert second == DeviceWish("auto", True, 2, tmp_path / "mine")
    assert third == DeviceWish("auto", False, 1, tmp_path / "locks")
    engines = [assignment.engine for assignment, _ in fleets]
    assert engines == [EngineWish("single", 12), EngineWish("auto", None), EngineWish("auto", None)]


def test_packs_on_the_cpu_have_one_worker(
    cli: Cli, fleets: list[tuple[Assignment, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains several trials on all cores; who asks for more workers gets them."""
    pytest.importorskip("jax")
    monkeypatch.setattr("search.runtime.count_cores", lambda: 4)
    for options in ((), ("--workers", 3), ("--slots", 5)):
        assert cli("run", "--device", "cpu", "--engine", "packed", *options).code == 0
    assert [workers for _, workers in fleets] == [1, 3, 1]
    wishes = [assignment.engine for assignment, _ in fleets]
    assert wishes == [EngineWish("packed", None)] * 2 + [EngineWish("packed", 5)]


def test_packs_on_gpus_have_a_worker_for_each(
    cli: Cli, fleets: list[tuple[Assignment, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where JAX can use them; else it is told, and the CPU trains."""
    pytest.importorskip("jax")
    monkeypatch.setattr("search.device.has_jax_cuda", lambda: True)
    assert cli("run", "--engine", "packed").code == 0
    monkeypatch.setattr("search.device.has_jax_cuda", lambda: False)
    ended = cli("run", "--engine", "packed")
    assert ended.code == 0
    assert "training on the CPU: JAX has no CUDA libraries here for NVIDIA H100" in ended.err
    assert [(workers, work.device.device) for work, workers in fleets] == [(2, "auto"), (1, "cpu")]
    assert_refused(cli("run", "--engine", "packed", "--device", "gpu"), "JAX has no CUDA libraries here")


def test_packs_without_jax_are_refused(
    cli: Cli, fleets: list[tuple[Assignment, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `run` before it starts workers, and by a worker; with what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in ("run", "worker"):
        ended = cli(command, "--engine", "packed", "--device", "cpu")
        assert_refused(ended, "cnn-search: --engine packed needs JAX (pip install 'cnn-search[jax]')")
    assert fleets == []


@pytest.mark.full_data
def test_a_worker_goes_on_on_the_cpu_where_that_is_allowed(
    spawn: Callable[..., subprocess.Popen[str]], cifar10: Path, url: str, tmp_path: Path
) -> None:
    """TensorFlow, asked in a process of its own, sees no such GPU; a trial is trained all the same."""
    path = os.pathsep.join([str(tmp_path / "pip"), *filter(None, [os.environ.get("PYTHONPATH")])])
    small = ("--trials", 1, "--max-epochs", 1, "--train-samples", 200)
    worker = spawn(
        "worker",
        "--storage",
        url,
        "--data",
        cifar10,
        "--allow-cpu",
        *small,
        env={**os.environ, "PYTHONPATH": path},
    )
    out, err = worker.communicate()

    assert (worker.returncode, out) == (0, "")
    (told,) = [line for line in err.splitlines() if line.startswith("training on the CPU: ")]
    name = "NVIDIA H100 80GB HBM3 (GPU-aaaaaaaa) does not work: GpuError: TensorFlow 2."
    assert told.startswith(f"training on the CPU: {name}")
    assert "does not see the GPU GPU-aaaaaaaa-0000-4000-8000-000000000001" in told
    with study_at(url) as study:
        (trial,) = study.trials
        assert trial.state.name == "COMPLETE"
        assert trial.user_attrs["worker"]["gpu"] is None
    for word in ("oneDNN", "absl", "Traceback"):
        assert word not in err
    assert sys.executable not in err
