"""A split where the arithmetic is, and what happens when there is no room."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.cifar10 import Split
from trainer.errors import OutOfMemoryError

ALIGNMENT_BYTES = 64
"""What TensorFlow wants of memory that it did not allocate itself (Eigen's largest vectors)."""


@dataclass(frozen=True, eq=False)
class DeviceSplit:
    """A split on the device: images uint8 (n, 32, 32, 3), labels int32 (n,)."""

    images: tf.Tensor
    labels: tf.Tensor

    @classmethod
    def of(cls, split: Split) -> "DeviceSplit":
        """Put `split` on the device, once.

        `tf.constant` holds a second copy of a large array until its first use in a program, 154 MB here
        (TensorFlow 2.21). An array that is lent by DLPack is not copied at all on a CPU: the cache's pages,
        mapped from the file, are then what every process of a machine trains on.
        """
        images = tf.experimental.dlpack.from_dlpack(_lendable(split.images).__dlpack__())
        gpus = tf.config.list_logical_devices("GPU")
        if gpus:
            with tf.device(gpus[0].name):
                images = tf.identity(images)
        return cls(images, tf.constant(split.labels, tf.int32))

    def __len__(self) -> int:
        """How many images."""
        return int(self.labels.shape[0])


@contextlib.contextmanager
def telling_out_of_memory() -> Iterator[None]:
    """Let TensorFlow's error for memory that ran out be the project's.

    Raises:
        OutOfMemoryError: The device had no memory left in the block.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OutOfMemoryError(f"the device is out of memory: {error.message.splitlines()[0]}") from error


def count_threads() -> int:
    """How many threads TensorFlow may use for an operation here, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tf.config.threading.get_intra_op_parallelism_threads() or cores


def _lendable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as DLPack wants it: C-ordered, at an aligned address, and writable, though nobody writes.

    It is `array` itself if its memory allows that, else a copy.
    """
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT_BYTES == 0:
        view = array.view()
        # Numpy allows it where the memory is writable, which a read-only mapping is not.
        with contextlib.suppress(ValueError):
            view.flags.writeable = True
            return view
    room = np.empty(array.nbytes + ALIGNMENT_BYTES, np.uint8)
    first = -room.ctypes.data % ALIGNMENT_BYTES
    copy = room[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
