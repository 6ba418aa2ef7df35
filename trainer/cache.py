"""The cache of CIFAR-10 in a folder: four .npy files that appear all at once or not at all."""

import contextlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console

from trainer.cifar10 import ARRAYS, Cifar10, Digests, verified
from trainer.errors import DataError
from trainer.sources import MALFORMED, UNREADABLE

FOLDER: Final = "cifar10-v1"
"""The cache's own folder in the user's; the number changes with the layout."""

LOCK: Final = "cifar10.lock"
_TEMPORARY: Final = "cifar10-tmp-"


def read(folder: Path, digests: Digests) -> Cifar10 | None:
    """The cached data, memory-mapped and read-only, so that processes share it; None if nothing is cached.

    Writes nothing, not even a lock: the folder may be read-only. The mapping is copy-on-write, because
    TensorFlow borrows writable memory only: whoever wrote to it would reach neither file nor other processes.

    Raises:
        DataError: The cache is damaged.
    """
    cached = folder / FOLDER
    if not cached.is_dir():
        return None
    advice = f"delete the folder {cached} and run again"
    arrays = {}
    for name in ARRAYS:
        path = cached / f"{name}.npy"
        try:
            arrays[name] = np.load(path, mmap_mode="c", allow_pickle=False)
        except (*UNREADABLE, *MALFORMED) as exc:
            raise DataError(f"{path} is damaged: {exc}; {advice}") from exc
    data = verified(arrays, digests, origin=str(cached), advice=advice)
    for array in arrays.values():
        # The digest has read every page. What is used will be read again; the rest need not stay resident.
        if isinstance(array, np.memmap) and hasattr(mmap.mmap, "madvise"):
            array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # no public name for it
    return data


def write(data: Cifar10, temporary: Path, folder: Path) -> None:
    """Put the data in the cache: on disk first, then under its name, so that no crash leaves half a cache.

    Args:
        data: What to keep.
        temporary: An empty folder on the same file system, which the caller removes.
        folder: The user's folder.

    Raises:
        OSError: It cannot be written.
    """
    new = temporary / FOLDER
    new.mkdir()
    for name in ARRAYS:
        with (new / f"{name}.npy").open("wb") as file:
            np.save(file, getattr(data, name), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(new)
    new.rename(folder / FOLDER)
    _sync_folder(folder)


@contextlib.contextmanager
def exclusive(folder: Path, console: Console) -> Iterator[Path]:
    """Hold the folder against all other processes, and lend a temporary folder inside it.

    The folder is created if need be.

    Yields:
        An empty folder on the cache's file system; it is removed however the block ends.

    Raises:
        OSError: The folder cannot be created or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(
            f"Another process is fetching CIFAR-10 into {folder}; waiting for it",
            markup=False,
            soft_wrap=True,
        )
        lock.acquire()
    try:
        # A process that was killed could not clean up; as the lock is ours, nobody uses these.
        for left in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary:
            yield Path(temporary).resolve()  # commands will run inside it
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where the system can open folders (Windows cannot)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
