"""Which arithmetic a machine is fast at."""

from pathlib import Path
from typing import Final, Literal

from trainer.errors import TrainerError

Precision = Literal["float32", "bfloat16"]
WISHES: Final = ("auto", "float32", "bfloat16")
"""What a user may ask for."""
CPU_FLAGS: Final = ("avx512_bf16", "amx_bf16")
"""x86 features with bfloat16 products; without one of them oneDNN emulates bfloat16, slower than float32."""
FIRST_CAPABILITY: Final = (8, 0)
"""Compute capability of the first NVIDIA GPUs with bfloat16, Ampere."""


class PrecisionError(TrainerError, ValueError):
    """A precision is unknown."""


def choose_precision(wish: str = "auto") -> Precision:
    """The precision to train in: the wish itself, or for "auto" bfloat16 where the machine has it.

    Raises:
        PrecisionError: `wish` is not one of `WISHES`.
    """
    match wish:
        case "auto":
            return "bfloat16" if has_bfloat16() else "float32"
        case "float32" | "bfloat16":
            return wish
    raise PrecisionError(f"precision must be one of {', '.join(WISHES)}, got {wish!r}")


def has_bfloat16() -> bool:
    """Whether the device that TensorFlow would train on multiplies bfloat16 in hardware."""
    # Whoever only names a precision need not wait for TensorFlow.
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
        return capability is not None and tuple(capability) >= FIRST_CAPABILITY
    return any(flag in read_cpu_flags() for flag in CPU_FLAGS)


def read_cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The first processor's features as Linux names them; none where it does not say (other systems, Arm)."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(flags.split())
