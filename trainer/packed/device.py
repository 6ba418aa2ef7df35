"""Splits where the arithmetic of packs is, and what happens when there is no room."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import jax
import numpy as np

from trainer.cifar10 import Split
from trainer.errors import DeviceError, OutOfMemoryError
from trainer.packed.arrays import Images
from trainer.precision import FIRST_CAPABILITY, Precision, choose_precision

REASON_LENGTH: Final = 300
"""What is kept of XLA's first line, in characters."""


@dataclass(frozen=True, eq=False)
class PackData:
    """What packs train and validate on, once on the device, for any number of packs."""

    train: Images
    validation: Images

    @classmethod
    def of(cls, train: Split, validation: Split) -> "PackData":
        """Put the splits on the device.

        Raises:
            OutOfMemoryError: There is no room for them.
        """
        with telling_device_errors():
            return cls(*(_put_on_device(split) for split in (train, validation)))


@contextlib.contextmanager
def telling_device_errors() -> Iterator[None]:
    """Let XLA's errors be the project's.

    Raises:
        OutOfMemoryError: The device had no memory left in the block.
        DeviceError: It failed otherwise.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" in reason:
            raise OutOfMemoryError(f"the device is out of memory: {reason}") from error
        raise DeviceError(f"the device failed: {reason[:REASON_LENGTH]}") from error


def find_devices(kind: Literal["cpu", "cuda"]) -> None:
    """Let JAX look for its devices, once for the process, and use those of a kind alone.

    Raises:
        RuntimeError: It finds none.
    """
    # JAX_PLATFORMS is read when JAX is imported, which Keras does as well.
    jax.config.update("jax_platforms", kind)  # type: ignore[no-untyped-call]  # JAX tells no types here
    try:
        jax.local_devices()
    # So JAX tells that it knows nothing of that kind (0.10).
    except AssertionError as error:
        raise RuntimeError(f"it loaded no plugin for {kind}") from error


def read_memory() -> tuple[int, int | None]:
    """Bytes of the device's memory in use at most so far, and all there are; 0, None where nobody counts."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use", 0), statistics.get("bytes_limit")


def choose_pack_precision(wish: str = "auto") -> Precision:
    """The precision to train packs in: the wish itself, or for "auto" bfloat16 where the GPU has it.

    XLA has no fast bfloat16 on a CPU.

    Raises:
        PrecisionError: `wish` is not one of `trainer.precision.WISHES`.
    """
    if wish != "auto":
        return choose_precision(wish)
    capability = getattr(jax.local_devices()[0], "compute_capability", "0.0")
    return "bfloat16" if tuple(map(int, capability.split("."))) >= FIRST_CAPABILITY else "float32"


def _put_on_device(split: Split) -> Images:
    return Images(jax.device_put(split.images), jax.device_put(split.labels.astype(np.int32)))
