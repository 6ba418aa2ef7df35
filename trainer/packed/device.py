"""Splits where the arithmetic of packs is, and what happens when there is no room."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from trainer.cifar10 import Split
from trainer.errors import OutOfMemoryError
from trainer.packed.arrays import Images


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
        with telling_out_of_memory():
            return cls(*(_put_on_device(split) for split in (train, validation)))


@contextlib.contextmanager
def telling_out_of_memory() -> Iterator[None]:
    """Let XLA's error for memory that ran out be the project's.

    Raises:
        OutOfMemoryError: The device had no memory left in the block.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" in reason:
            raise OutOfMemoryError(f"the device is out of memory: {reason}") from error
        raise


def _put_on_device(split: Split) -> Images:
    return Images(jax.device_put(split.images), jax.device_put(split.labels.astype(np.int32)))
