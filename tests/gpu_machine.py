"""A machine with GPUs, faked: an `nvidia-smi` to find first, CUDA libraries to find, a folder for claims."""

import sys
from pathlib import Path

import pytest

from search.gpus import Gpu

LISTING = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaaaaaa-0000-4000-8000-000000000001)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaabbbb-0000-4000-8000-000000000002)
"""
"""What `nvidia-smi -L` prints for two GPUs."""
MIG_LISTING = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-cccccccc-0000-4000-8000-000000000003)
  MIG 3g.20gb     Device  0: (UUID: MIG-11111111-0000-5000-8000-000000000004)
  MIG 1g.5gb      Device  1: (UUID: MIG-22222222-0000-5000-8000-000000000005)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-dddddddd-0000-4000-8000-000000000006)
"""
"""And for two of which the first is divided."""


def make_gpu(index: int) -> Gpu:
    """One of many alike."""
    uuid = f"GPU-{index:08d}-0000-4000-8000-000000000000"
    return Gpu(uuid, "Card", index, uuid)


def write_nvidia_smi(folder: Path, script: str) -> Path:
    """A program `nvidia-smi`, a shell script, in a folder that is given back, for the PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return folder


def print_listing(listing: str) -> str:
    """A shell script that prints it, and fails for other arguments than `-L`."""
    return f'test "$*" = -L || exit 2\ncat <<END\n{listing}END'


def write_cuda_libraries(folder: Path) -> Path:
    """A folder for Python's path in which pip has installed cuDNN, as far as can be seen."""
    package = folder / "nvidia" / "cudnn"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    return folder


def forget_cuda_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let none be found, whatever this machine has."""
    monkeypatch.setattr("search.gpus.CUDNN", "libcudnn.so.nowhere")
    for name in [name for name in sys.modules if name.split(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    path = [entry for entry in sys.path if not (Path(entry) / "nvidia").exists()]
    monkeypatch.setattr(sys, "path", path)
