"""search.gpus: which GPUs there are, by a faked nvidia-smi, and which are left by CUDA_VISIBLE_DEVICES."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gpu_machine import (
    LISTING,
    MIG_LISTING,
    forget_cuda_libraries,
    print_listing,
    write_cuda_libraries,
    write_nvidia_smi,
)

from search import gpus
from search.errors import GpuError
from search.gpus import Gpu, has_cuda_libraries, is_hidden, list_gpus, parse_list, select_visible

Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a shell script this machine's nvidia-smi."""
    return lambda script: monkeypatch.setenv(
        "PATH", f"{write_nvidia_smi(tmp_path / 'bin', script)}:/usr/bin:/bin"
    )


def test_the_gpus_are_those_that_nvidia_smi_lists(install: Install) -> None:
    """With their names, numbers and UUIDs."""
    install(print_listing(LISTING))

    first, second = list_gpus()

    assert first == Gpu(
        "GPU-aaaaaaaa-0000-4000-8000-000000000001",
        "NVIDIA H100 80GB HBM3",
        0,
        "GPU-aaaaaaaa-0000-4000-8000-000000000001",
    )
    assert (second.index, str(second)) == (1, "NVIDIA H100 80GB HBM3 (GPU-aaaabbbb)")


def test_a_divided_gpu_is_listed_as_its_mig_devices() -> None:
    """Each can be claimed; the whole it is a part of cannot, and others can."""
    large, small, whole = parse_list(MIG_LISTING)

    assert str(large) == "NVIDIA A100-SXM4-40GB MIG 3g.20gb (MIG-11111111)"
    assert (small.uuid, small.index) == ("MIG-22222222-0000-5000-8000-000000000005", 0)
    assert small.parent == large.parent == "GPU-cccccccc-0000-4000-8000-000000000003"
    assert (whole.uuid, whole.index) == ("GPU-dddddddd-0000-4000-8000-000000000006", 1)


def test_a_machine_without_nvidia_smi_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong with it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus() == []


@pytest.mark.parametrize(
    "script",
    ["echo 'No devices found.'; exit 6", "echo 'No devices were found' >&2; exit 6", "exit 0"],
)
def test_a_driver_without_a_gpu_is_no_failure(install: Install, script: str) -> None:
    """A machine may have the one and not the other."""
    install(script)
    assert list_gpus() == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "exit code 18: Failed to initialize NVML: Driver/library version mismatch",
        ),
        ("echo 'could not talk to the NVIDIA driver.' >&2; exit 9", "exit code 9: could not talk to the"),
        ("exit 9", "exit code 9: no message"),
    ],
)
def test_a_driver_that_fails_is_told_of(install: Install, script: str, words: str) -> None:
    """In nvidia-smi's words."""
    install(script)
    with pytest.raises(GpuError, match=words):
        list_gpus()


def test_a_gpu_that_fails_leaves_the_others(install: Install) -> None:
    """nvidia-smi lists them, and fails in the end."""
    install(f"{print_listing(LISTING)}\necho 'Unable to determine the device handle for GPU2' >&2; exit 255")
    assert [gpu.index for gpu in list_gpus()] == [0, 1]


def test_a_driver_that_hangs_is_not_waited_for(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of, and its program is ended."""
    monkeypatch.setattr(gpus, "LIST_SECONDS", 0.2)
    install("exec sleep 600")
    with pytest.raises(GpuError, match="did not answer"):
        list_gpus()


def test_a_program_that_cannot_be_run_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's reason."""
    (tmp_path / "nvidia-smi").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GpuError, match="nvidia-smi cannot be run: Permission denied"):
        list_gpus()


def test_without_the_variable_all_gpus_may_be_used() -> None:
    """In nvidia-smi's order."""
    listed = parse_list(LISTING)
    assert select_visible(listed, None) == listed


@pytest.mark.parametrize(
    ("visible", "chosen"),
    [
        ("0", [0]),
        ("1,0", [1, 0]),
        (" 1 , 0 ", [1, 0]),
        ("0,0,1", [0, 1]),
        ("0,2,1", [0]),
        ("0,-1,1", [0]),
        ("-1,0", []),
        ("", []),
        ("7", []),
        ("GPU-aaaabbbb-0000-4000-8000-000000000002", [1]),
        ("GPU-aaaabbbb,GPU-aaaaaaaa", [1, 0]),
        ("GPU-aaaabbbb,0", [1, 0]),
        ("GPU-aaaa", []),
        ("1,GPU-aaaa,0", [1]),
        ("GPU-ffffffff", []),
        ("aaaabbbb", []),
        ("MIG-11111111", []),
        ("all", []),
    ],
)
def test_the_variable_selects_as_cuda_does(visible: str, chosen: list[int]) -> None:
    """By number or UUID, abbreviated too, in its order, until an entry that names none or several."""
    assert [gpu.index for gpu in select_visible(parse_list(LISTING), visible)] == chosen


@pytest.mark.parametrize(
    ("visible", "chosen"),
    [
        (None, ["MIG-11111111", "MIG-22222222", "GPU-dddddddd"]),
        ("MIG-22222222-0000-5000-8000-000000000005", ["MIG-22222222"]),
        ("MIG-22222222,1", ["MIG-22222222", "GPU-dddddddd"]),
        ("0", ["MIG-11111111", "MIG-22222222"]),
        ("GPU-cccccccc", ["MIG-11111111", "MIG-22222222"]),
        ("MIG-22222222,0", ["MIG-22222222", "MIG-11111111"]),
        ("MIG-33333333", []),
    ],
)
def test_the_variable_selects_mig_devices(visible: str | None, chosen: list[str]) -> None:
    """By their UUIDs; a divided GPU stands for all of them."""
    assert [gpu.uuid[:12] for gpu in select_visible(parse_list(MIG_LISTING), visible)] == chosen


def test_some_values_of_the_variable_hide_all_gpus() -> None:
    """On purpose, which a number that no GPU has does not do."""
    assert all(map(is_hidden, ["", " ", "-1", "NoDevFiles", "none", "void"]))
    assert not any(map(is_hidden, [None, "0", "7", "-1,0", "GPU-aaaa"]))


def test_cuda_libraries_are_found_where_tensorflow_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a package of pip's or as a library of the system's; most machines have neither."""
    forget_cuda_libraries(monkeypatch)
    assert not has_cuda_libraries()

    (tmp_path / "others" / "nvidia" / "nccl").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "others")
    assert not has_cuda_libraries()

    monkeypatch.syspath_prepend(write_cuda_libraries(tmp_path / "pip"))
    sys.modules.pop("nvidia", None)
    assert has_cuda_libraries()

    forget_cuda_libraries(monkeypatch)
    monkeypatch.setattr(gpus, "CUDNN", None)  # the process itself, which can always be opened
    assert has_cuda_libraries()
