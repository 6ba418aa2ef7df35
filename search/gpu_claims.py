"""Which worker has which GPU: a lock for each place on each GPU, in a folder that a machine's workers share.

A lock is a `flock` of a file (flock(2)): the system frees it when its process ends, however it ends.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from search.errors import GpuError
from search.gpus import Gpu

FOLDER: Final = Path("/tmp/cnn-search-gpus")
"""Not TMPDIR, which may be another one for each user or job."""
LOOKERS: Final = "looking.lock"
"""Held while a worker looks for a free slot, which it does by locking all that are free."""
WAIT_SECONDS: Final = 30.0
"""How long a worker waits to look; others look for milliseconds."""


@dataclass(frozen=True)
class Claim:
    """A place on a GPU, this process's until `release` or the process's end.

    Attributes:
        gpu: The GPU.
        slot: The number of the place on it, from 0.
        descriptors: The open files that hold it.
    """

    gpu: Gpu
    slot: int
    descriptors: tuple[int, ...]

    def release(self) -> None:
        """Let others have it; call at most once."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def claim_slot(gpus: Sequence[Gpu], slots: int, folder: Path | None = None) -> Claim | None:
    """Take the first free slot of the GPU with most free ones, the first of equals; None if all are taken.

    Args:
        gpus: Where, at least one.
        slots: How many workers may share a GPU, at least 1, this one included.
        folder: Where the locks are; None for `FOLDER`.

    Raises:
        GpuError: The folder cannot be used.
    """
    with _free_slots(gpus, slots, folder or FOLDER) as free:
        gpu = max(gpus, key=lambda gpu: len(free[gpu]))
        if not free[gpu]:
            return None
        slot, kept = min(free[gpu]), _keep(folder or FOLDER)
        return Claim(gpu, slot, (free[gpu].pop(slot), kept))


def count_free(gpus: Sequence[Gpu], slots: int, folder: Path | None = None) -> int:
    """How many workers could claim a slot now; arguments and errors as for `claim_slot`."""
    with _free_slots(gpus, slots, folder or FOLDER) as free:
        return sum(map(len, free.values()))


@contextlib.contextmanager
def _free_slots(gpus: Sequence[Gpu], slots: int, folder: Path) -> Iterator[dict[Gpu, dict[int, int]]]:
    """Each GPU's free slots with the files that lock them for now; those left in it are freed at the end."""
    free: dict[Gpu, dict[int, int]] = {gpu: {} for gpu in gpus}
    try:
        _make_folder(folder)
        # Two that look at once would take each other's looking for claims.
        with _looking(folder):
            try:
                for gpu in gpus:
                    for slot in range(slots):
                        descriptor = _try_lock(folder / f"{gpu.uuid.replace('/', '_')}.{slot}.lock")
                        if descriptor is not None:
                            free[gpu][slot] = descriptor
                yield free
            finally:
                for files in free.values():
                    for descriptor in files.values():
                        os.close(descriptor)
    except OSError as error:
        raise GpuError(
            f"the folder of the GPUs' locks, {folder}, cannot be used: {error.strerror}; "
            "--locks names another, the same one for all workers of a machine"
        ) from error


@contextlib.contextmanager
def _looking(folder: Path) -> Iterator[None]:
    path, ends = folder / LOOKERS, time.monotonic() + WAIT_SECONDS
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() > ends:
            raise GpuError(f"another process, perhaps a stopped one, has held {path} for {WAIT_SECONDS:g} s")
        time.sleep(0.02)
    try:
        yield
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """For all users, who can remove their own files only: as /tmp is."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    folder.chmod(0o1777)


def _keep(folder: Path) -> int:
    """A lock of the folder, which many may have, by which systemd leaves old files in it (tmpfiles.d(5)).

    A lock whose file is removed would be one that nobody else sees.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    # systemd itself holds it for the moments of its tidying.
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def _try_lock(path: Path) -> int | None:
    """The open file that holds the lock at `path`, None where another one does."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path) -> int:
    """The file at `path`, created for all users where there is none.

    O_CREAT alone would not do: Linux refuses it for another user's file in a folder like /tmp, even to root
    (fs.protected_regular, proc_sys_fs(5)). To lock a file, reading it is enough.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return os.open(path, flags)
    # Whatever the umask.
    os.fchmod(descriptor, 0o644)
    return descriptor
