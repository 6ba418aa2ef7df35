"""The GPUs of a machine, and which of them a process may use."""

import ctypes
import importlib.util
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from search.errors import GpuError

LIST_SECONDS: Final = 60.0
"""How long `nvidia-smi` may take: without persistence mode it wakes the GPUs one after another."""
GPU_LINE: Final = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[^)\s]+)\)")
MIG_LINE: Final = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)\s]+)\)")
HIDING: Final = ("", "-1", "none", "void", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES by which people and schedulers say that there is to be no GPU."""
CUDNN: Final = "libcudnn.so.9"
"""What TensorFlow 2.21 loads for convolutions (`tf.sysconfig.get_build_info()["cudnn_version"]`)."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG device: a part of one that is cut off for one user.

    Attributes:
        uuid: `GPU-...` or `MIG-...`, by which CUDA finds it whatever else is visible.
        name: The product's, with a MIG device's profile.
        index: The GPU's number in nvidia-smi's order.
        parent: UUID of the GPU that a MIG device is a part of; a whole GPU's own.
    """

    uuid: str
    name: str
    index: int
    parent: str

    def __str__(self) -> str:
        """As people tell it from others: `NVIDIA H100 80GB HBM3 (GPU-5d5ba0d6)`."""
        return f"{self.name} ({self.uuid[:12]})"


def list_gpus() -> list[Gpu]:
    """The GPUs that this machine or container has, in nvidia-smi's order; a divided one as its MIG devices.

    Empty where nvidia-smi is not installed; the NVIDIA container runtime brings it along.

    Raises:
        GpuError: nvidia-smi finds a driver or a GPU that fails.
    """
    try:
        ended = subprocess.run(
            ["nvidia-smi", "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIST_SECONDS,
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise GpuError(f"nvidia-smi cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise GpuError(f"nvidia-smi -L did not answer within {LIST_SECONDS:.0f} s") from error
    gpus = parse_list(ended.stdout)
    said = " ".join((ended.stdout + ended.stderr).split())
    # Where one of several GPUs fails, the others are listed all the same.
    if gpus or ended.returncode == 0 or said.startswith("No devices"):
        return gpus
    raise GpuError(f"nvidia-smi -L failed with exit code {ended.returncode}: {said[:200] or 'no message'}")


def parse_list(text: str) -> list[Gpu]:
    """The GPUs in the output of `nvidia-smi -L`; lines of other forms are passed over.

    NVIDIA documents this list as the source of UUIDs for CUDA_VISIBLE_DEVICES
    (https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html,
    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/).
    """
    gpus: list[Gpu] = []
    whole: Gpu | None = None
    for line in text.splitlines():
        if found := GPU_LINE.match(line):
            whole = Gpu(found[3], found[2], int(found[1]), found[3])
            gpus.append(whole)
        elif whole is not None and (found := MIG_LINE.match(line)):
            # Once divided, the GPU itself takes no work.
            if gpus[-1] is whole:
                gpus.pop()
            gpus.append(Gpu(found[2], f"{whole.name} MIG {found[1]}", whole.index, whole.uuid))
    return gpus


def is_hidden(visible: str | None) -> bool:
    """Whether this value of CUDA_VISIBLE_DEVICES, None where unset, says that there is to be no GPU."""
    return visible is not None and visible.strip() in HIDING


def select_visible(gpus: Sequence[Gpu], visible: str | None) -> list[Gpu]:
    """Those of `gpus` that CUDA_VISIBLE_DEVICES leaves, in its order; each once.

    As CUDA reads it: entries are nvidia-smi's numbers, or UUIDs or the beginnings of them, and all from the
    first one on that names no GPU, or not a single one, is ignored. A divided GPU stands for all its MIG
    devices; CUDA alone would take the first.

    Args:
        gpus: The machine's.
        visible: The variable's value; None where it is not set.
    """
    if visible is None:
        return list(gpus)
    chosen: dict[str, Gpu] = {}
    for entry in (part.strip() for part in visible.split(",")):
        named = [gpu for gpu in gpus if _names(entry, gpu)]
        if len({gpu.parent for gpu in named}) != 1:
            break
        chosen |= {gpu.uuid: gpu for gpu in named}
    return list(chosen.values())


def _names(entry: str, gpu: Gpu) -> bool:
    if entry.isdecimal():
        return int(entry) == gpu.index
    return entry.startswith(("GPU-", "MIG-")) and (gpu.uuid.startswith(entry) or gpu.parent.startswith(entry))


def has_cuda_libraries() -> bool:
    """Whether TensorFlow would find CUDA's libraries here, of which it lacks all or none.

    They come with `pip install tensorflow[and-cuda]`, as a package of Python's, or with the system. Many
    machines have a GPU for their screen, and a TensorFlow without them.
    """
    try:
        if importlib.util.find_spec("nvidia.cudnn") is not None:
            return True
    except ModuleNotFoundError:
        # No package of NVIDIA's at all.
        pass
    try:
        ctypes.CDLL(CUDNN)
    except OSError:
        return False
    return True
