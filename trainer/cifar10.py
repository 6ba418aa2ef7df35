"""CIFAR-10 as a value: the arrays, the article's split, and the digests of the true data."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError

CLASS_NAMES: Final = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""The classes; a label is an index into them."""

TRAIN_IMAGES: Final = 40_000
"""Images that train; the other 10,000 of the 50,000 validate (the article's `validation_split=0.2`)."""


@dataclass(frozen=True)
class Digests:
    """What the true data hash to: SHA-256, in hexadecimal.

    Attributes:
        x_train: Of the training images' bytes, uint8, (n, 32, 32, 3), C order.
        y_train: Of the training labels' bytes, uint8, (n,).
        x_test: Of the test images' bytes.
        y_test: Of the test labels' bytes.
        archive: Of the file `cifar-10-python.tar.gz`.
    """

    x_train: str
    y_train: str
    x_test: str
    y_test: str
    archive: str


OFFICIAL: Final = Digests(
    x_train="47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    y_train="2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    x_test="f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    y_test="cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    archive="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
"""The archive's digest is the one Keras publishes; the arrays' were measured on data whose channel means and
standard deviations equal the published ones to eight digits."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels.

    Attributes:
        images: uint8, (n, 32, 32, 3): rows, columns, red-green-blue, in [0, 255].
        labels: uint8, (n,), in [0, 9]: indices into `CLASS_NAMES`.

    Raises:
        DataError: An array has another type or shape, or a label lies outside its range.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Check types, shapes and labels."""
        _check_pair("images", self.images, "labels", self.labels)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def first(self, n: int) -> "Split":
        """The first `n` images, a view of these.

        Raises:
            DataError: There are not so many, or `n` is not positive.
        """
        if not 1 <= n <= len(self):
            raise DataError(f"cannot take the first {n} of {len(self)} images; ask for 1 to {len(self)}")
        return Split(self.images[:n], self.labels[:n])


@dataclass(frozen=True, eq=False)
class Cifar10:
    """The whole data set.

    Attributes:
        x_train: uint8, (50000, 32, 32, 3), in [0, 255]. A sample for tests may hold fewer.
        y_train: uint8, (50000,), in [0, 9].
        x_test: uint8, (10000, 32, 32, 3).
        y_test: uint8, (10000,).

    Raises:
        DataError: An array has another type or shape, or a label lies outside its range.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Check types, shapes and labels."""
        _check_pair("x_train", self.x_train, "y_train", self.y_train)
        _check_pair("x_test", self.x_test, "y_test", self.y_test)

    @property
    def train(self) -> Split:
        """The first 80 % of the training set, 40,000 images: the only ones that a model learns from."""
        cut = self._cut()
        return Split(self.x_train[:cut], self.y_train[:cut])

    @property
    def validation(self) -> Split:
        """The last 20 % of the training set, 10,000 images: what a search chooses by."""
        cut = self._cut()
        return Split(self.x_train[cut:], self.y_train[cut:])

    @property
    def test(self) -> Split:
        """The 10,000 test images, which no search may see."""
        return Split(self.x_test, self.y_test)

    def _cut(self) -> int:
        """Where validation starts: `TRAIN_IMAGES` of the full set, the same share of a sample."""
        return len(self.y_train) * 4 // 5


ARRAYS: Final = tuple(field.name for field in dataclasses.fields(Cifar10))
"""The names of the four arrays, in order."""


def verified(arrays: Mapping[str, Any], digests: Digests, *, origin: str, advice: str) -> Cifar10:
    """The four arrays as CIFAR-10, read-only, each checked against its digest.

    Args:
        arrays: By the names in `ARRAYS`; images uint8 (n, 32, 32, 3), labels uint8 (n,) or (n, 1).
        digests: What they must hash to.
        origin: Where they come from, as an error names it.
        advice: What the user can do if they are wrong.

    Raises:
        DataError: An array is missing, has another type or shape, or is not the true one.
    """
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise DataError(
            f"{origin} lacks {', '.join(missing)}, it has {', '.join(arrays) or 'nothing'}; {advice}"
        )
    columns = {name: _flat_labels(np.asarray(arrays[name])) for name in ARRAYS}
    try:
        data = Cifar10(**columns)
    except DataError as exc:
        raise DataError(f"{origin}: {exc}; {advice}") from exc
    for name, array in columns.items():
        expected, received = getattr(digests, name), _sha256(array)
        if received != expected:
            raise DataError(f"{origin}: {name} has SHA-256 {received}, expected {expected}; {advice}")
        array.flags.writeable = False
    return data


def _flat_labels(array: NDArray[Any]) -> NDArray[Any]:
    """Labels of shape (n, 1), as Keras gives them, become (n,)."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _sha256(array: NDArray[Any]) -> str:
    """SHA-256 of the array's bytes in C order, which for C-ordered arrays are not copied."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _check_pair(images_name: str, images: NDArray[Any], labels_name: str, labels: NDArray[Any]) -> None:
    """Raise `DataError` unless these are images and as many labels."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
        raise DataError(f"{images_name} must be uint8 (n, 32, 32, 3), got {images.dtype} {images.shape}")
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(f"{labels_name} must be uint8 ({len(images)},), got {labels.dtype} {labels.shape}")
    if len(labels) and labels.max() >= len(CLASS_NAMES):
        raise DataError(f"{labels_name} must lie in 0 to {len(CLASS_NAMES) - 1}, got {labels.max()}")
