"""search.runtime: how cores and memory are shared among workers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.runtime import (
    ARTICLE_PARAMETERS,
    WORKER_BYTES,
    Layout,
    choose_layout,
    count_cores,
    read_free_memory,
)


@pytest.mark.parametrize(
    ("cores", "layout"),
    [
        (1, Layout(1, 1)),
        (2, Layout(2, 1)),
        (4, Layout(4, 1)),
        (8, Layout(8, 1)),
        (9, Layout(8, 1)),
        (64, Layout(8, 8)),
    ],
)
def test_a_machine_gets_a_worker_for_each_core_up_to_eight(cores: int, layout: Layout) -> None:
    """Further cores are threads."""
    assert choose_layout(cores) == layout


@pytest.mark.parametrize(
    ("workers_worth", "layout"),
    [(0, Layout(1, 4)), (0.9, Layout(1, 4)), (2.5, Layout(2, 2)), (9, Layout(4, 1))],
)
def test_there_are_no_more_workers_than_memory_has_room_for(workers_worth: float, layout: Layout) -> None:
    """One there is in any case; who asks for a number gets it."""
    free = int(workers_worth * WORKER_BYTES)
    assert choose_layout(4, None, free) == layout
    assert choose_layout(4, 3, free) == Layout(3, 1)


def test_larger_networks_need_more_memory() -> None:
    """A space with networks beyond the article's gets fewer workers out of the same memory."""
    free = 4 * WORKER_BYTES
    assert choose_layout(4, None, free, parameters=ARTICLE_PARAMETERS) == Layout(4, 1)
    assert choose_layout(4, None, free, parameters=ARTICLE_PARAMETERS + 1) == Layout(2, 2)


@pytest.mark.parametrize(
    ("gpu_slots", "workers", "memory_workers", "layout"),
    [
        (1, None, None, Layout(1, 16)),
        (4, None, None, Layout(4, 4)),
        (20, None, None, Layout(20, 1)),
        (4, 2, None, Layout(2, 8)),
        (8, None, 3, Layout(3, 5)),
        (0, None, None, Layout(8, 2)),
    ],
)
def test_a_machine_with_gpus_gets_a_worker_for_each_place_on_them(
    gpu_slots: int, workers: int | None, memory_workers: int | None, layout: Layout
) -> None:
    """As many as GPUs have places, whatever the cores, as far as memory goes; here with 16 cores."""
    memory_bytes = None if memory_workers is None else memory_workers * WORKER_BYTES
    assert choose_layout(16, workers, memory_bytes, gpu_slots) == layout


def test_tensorflow_starts_with_the_gpus_it_is_given(python: Callable[[str], str]) -> None:
    """With none for the CPU, whatever was visible before; the variable is read as it stands."""
    script = """
import os
os.environ["CUDA_VISIBLE_DEVICES"] = "0"
from search.runtime import NO_GPU, read_visible_devices, start_tensorflow
before = read_visible_devices()
start_tensorflow(1, NO_GPU)
import tensorflow as tf
print(before, read_visible_devices(), tf.config.list_physical_devices("GPU"))
del os.environ["CUDA_VISIBLE_DEVICES"]
print(read_visible_devices())
"""
    assert python(script) == "0 -1 []\nNone\n"


def test_tensorflow_leaves_its_gpu_to_others(python: Callable[[str], str]) -> None:
    """It looks for none, though one that it does not see would be an error else."""
    script = """
from search.runtime import read_visible_devices, start_tensorflow
start_tensorflow(1, "GPU-00000007", hides_gpu=True)
import tensorflow as tf
assert read_visible_devices() == "GPU-00000007"
assert tf.config.get_visible_devices("GPU") == []
assert tf.config.list_logical_devices("GPU") == []
print(float(tf.reduce_sum(tf.ones(3))))
"""
    assert python(script) == "3.0\n"


def test_jax_starts_on_the_cpu_whatever_was_visible_before(python: Callable[[str], str]) -> None:
    """And beside TensorFlow, which has started."""
    pytest.importorskip("jax")
    script = """
import os
os.environ |= {"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cuda"}
from search.runtime import NO_GPU, read_visible_devices, start_jax, start_tensorflow
start_tensorflow(1, NO_GPU, hides_gpu=True)
start_jax(NO_GPU)
import jax
print(read_visible_devices(), [device.platform for device in jax.devices()])
print(float(jax.numpy.ones(3).sum()), os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"])
"""
    assert python(script) == "-1 ['cpu']\n3.0 false\n"


def test_a_gpu_that_jax_does_not_see_is_an_error(python: Callable[[str], str]) -> None:
    """It must not train on the CPU instead, though it was imported; what a user says of its memory stays."""
    pytest.importorskip("jax")
    script = """
import os
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
import jax  # as Keras does
from search.errors import GpuError
from search.runtime import read_visible_devices, start_jax
try:
    start_jax("GPU-00000007")
except GpuError as error:
    print(error)
print(read_visible_devices(), os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"])
"""
    told, then = python(script).splitlines()
    assert told.startswith("JAX does not see the GPU GPU-00000007: ")
    assert then == "GPU-00000007 true"


def machine(root: Path, **files: str) -> Path:
    """Linux's files about memory, where 8 GB are available."""
    contents = {
        "proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\nSwapFree: 0 kB\n",
        **files,
    }
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [
        ("max", "5", 8_192_000_000),
        ("3000000000", "1800000000", 2_000_000_000),
        ("90000000000", "0", 8_192_000_000),
        ("3000", "4000", 0),
    ],
)
def test_free_memory_is_within_the_containers_limit(tmp_path: Path, limit: str, used: str, free: int) -> None:
    """Of the two, whatever is less, and never below 0; 0.8 GB of files that the kernel can drop are free."""
    stat = f"anon 5\ninactive_file {800_000_000 if len(used) > 4 else 0}\n"
    group = {
        "sys/fs/cgroup/memory.max": f"{limit}\n",
        "sys/fs/cgroup/memory.current": f"{used}\n",
        "sys/fs/cgroup/memory.stat": stat,
    }
    assert read_free_memory(machine(tmp_path, **group)) == free


def test_free_memory_without_a_container_is_the_machines(tmp_path: Path) -> None:
    """And unknown where the system does not tell."""
    assert read_free_memory(machine(tmp_path / "linux")) == 8_192_000_000
    assert read_free_memory(tmp_path / "other") is None
    assert read_free_memory(machine(tmp_path / "old", **{"proc/meminfo": "MemTotal: 9 kB\n"})) is None


@given(cores=st.integers(1, 256), workers=st.integers(1, 256))
def test_workers_asked_for_share_the_cores(cores: int, workers: int) -> None:
    """As many as asked for, with a thread each at least, and no more threads than cores where that can be."""
    layout = choose_layout(cores, workers)
    assert layout.workers == workers
    assert layout.threads >= 1
    assert layout.threads == 1 or layout.workers * layout.threads <= cores


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("9900000 100000", 8),
    ],
)
def test_cores_are_within_the_containers_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    """A share of time counts as whole cores, rounded up, and as no more than there are."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert count_cores(machine(tmp_path, **{"sys/fs/cgroup/cpu.max": f"{quota}\n"})) == cores


def test_cores_without_a_container_are_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that this process may use; where that cannot be asked, all, and one at least."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert count_cores(tmp_path) == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert count_cores(tmp_path) == 1
