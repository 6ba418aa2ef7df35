"""The readers of trainer.sources, and the values of trainer.cifar10, over small data in every form."""

import dataclasses
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import sample
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import sources
from trainer.cifar10 import ARRAYS, OFFICIAL, Cifar10, Split
from trainer.errors import DataError

SMALL = sample.small()
DIGESTS = sample.digests_of(SMALL)


def same(found: Cifar10) -> bool:
    """Whether the small data came back."""
    return all(np.array_equal(getattr(found, name), getattr(SMALL, name)) for name in ARRAYS)


def read_package(path: Path) -> Cifar10:
    """The npm reader with its names filled in."""
    return sources.read_npm_package(path, DIGESTS, origin="the package", advice="run again")


def test_npz_is_read(tmp_path: Path) -> None:
    """A .npz gives back its arrays, and they cannot be written to."""
    found = sources.read_file(sample.write_npz(SMALL, tmp_path / "any.npz"), DIGESTS)
    assert same(found)
    assert not found.x_train.flags.writeable


def test_npz_labels_may_be_a_column(tmp_path: Path) -> None:
    """Labels of shape (n, 1), as Keras gives them, are taken as (n,)."""
    arrays = {name: getattr(SMALL, name) for name in ARRAYS}
    columns = {**arrays, "y_train": SMALL.y_train[:, None], "y_test": SMALL.y_test[:, None]}
    np.savez(tmp_path / "a.npz", **columns)
    assert same(sources.read_npz(tmp_path / "a.npz", DIGESTS))


def test_archive_is_read(tmp_path: Path) -> None:
    """The official archive's Python 2 pickles, channels first, become images with channels last."""
    path = sample.write_archive(SMALL, tmp_path)
    assert same(sources.read_file(path, sample.digests_of(SMALL, path)))


def test_official_folder_is_read(tmp_path: Path) -> None:
    """The unpacked official folder is recognised and read."""
    folder = sample.write_official_folder(SMALL, tmp_path / "batches")
    assert sources.is_official_folder(folder)
    assert same(sources.read_folder(folder, DIGESTS))


def test_npm_package_is_read(tmp_path: Path) -> None:
    """The npm package's PNG pages and label lists become images and labels."""
    assert same(read_package(sample.write_npm_package(SMALL, tmp_path / "p.tgz")))


@pytest.mark.parametrize("name", ARRAYS)
def test_wrong_digest_names_file_array_and_both_digests(tmp_path: Path, name: str) -> None:
    """Data that are well-formed but not the true ones are refused, with the digests expected and received."""
    path = sample.write_npz(SMALL, tmp_path / "other.npz")
    digests = dataclasses.replace(DIGESTS, **{name: "f" * 64})
    with pytest.raises(DataError) as caught:
        sources.read_npz(path, digests)
    for part in (str(path), name, "f" * 64, getattr(DIGESTS, name)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": SMALL.x_train.astype(np.float32)}, "x_train must be uint8 .* got float32"),
        (
            {"x_train": SMALL.x_train.reshape(20, 3, 32, 32)},
            r"x_train must be .* got uint8 \(20, 3, 32, 32\)",
        ),
        ({"y_train": SMALL.y_train[:7]}, r"y_train must be uint8 \(20,\), got uint8 \(7,\)"),
        ({"y_test": SMALL.y_test.astype(np.int64)}, "y_test must be uint8 .* got int64"),
        ({"y_test": SMALL.y_test + 90}, "y_test must lie in 0 to 9, got 9"),
        ({"y_test": np.array(["frog"] * 4, dtype=object)}, "cannot read"),
    ],
)
def test_npz_with_a_wrong_array_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """A wrong type, shape, label or an object array is named, with what was received."""
    path = tmp_path / "wrong.npz"
    np.savez(path, **({name: getattr(SMALL, name) for name in ARRAYS} | change))
    with pytest.raises(DataError, match=message):
        sources.read_npz(path, DIGESTS)


def test_npz_with_wrong_keys_is_refused(tmp_path: Path) -> None:
    """The message lists the keys that lack and those that are there."""
    np.savez(tmp_path / "keys.npz", x_train=SMALL.x_train, labels=SMALL.y_train)
    with pytest.raises(DataError, match="lacks y_train, x_test, y_test, it has x_train, labels"):
        sources.read_npz(tmp_path / "keys.npz", DIGESTS)


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps(os.getcwd), b"PK\x03\x04 cut short"])
def test_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    """Anything else under the name of a .npz is called what it is, and never unpickled."""
    path = tmp_path / "no.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is not a \.npz file"):
        sources.read_npz(path, DIGESTS)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A file that is neither .npz nor the archive is an error which names both."""
    path = tmp_path / "cifar.zip"
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"neither a \.npz nor cifar-10-python\.tar\.gz"):
        sources.read_file(path, DIGESTS)


def test_truncated_archive_is_refused(tmp_path: Path) -> None:
    """An archive cut short fails its digest before any of it is read."""
    path = sample.write_archive(SMALL, tmp_path)
    digests = sample.digests_of(SMALL, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"expected {digests.archive}; download"):
        sources.read_archive(path, digests)


def test_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    """An archive without the batches is an error which lists them."""
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("readme.html"))
    with pytest.raises(DataError, match=r"lacks data_batch_1, .*, test_batch"):
        sources.read_archive(path, sample.digests_of(SMALL, path))


def test_folder_that_lacks_a_batch_is_refused(tmp_path: Path) -> None:
    """A missing batch of the official folder is named."""
    folder = sample.write_official_folder(SMALL, tmp_path / "batches")
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3; delete the folder"):
        sources.read_folder(folder, DIGESTS)


class Malicious:
    """Unpickles to a call that makes a folder."""

    def __init__(self, target: Path) -> None:
        """Aim at a folder that does not exist."""
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """What pickle would call."""
        return os.mkdir, (str(self.target),)


def test_malicious_pickle_is_refused(tmp_path: Path) -> None:
    """A batch that asks for other code than arrays need is refused, and the code does not run."""
    folder = sample.write_official_folder(SMALL, tmp_path / "batches")
    (folder / "data_batch_2").write_bytes(
        pickle.dumps({b"data": Malicious(tmp_path / "owned"), b"labels": []})
    )
    with pytest.raises(DataError, match=r"it asks for posix\.mkdir"):
        sources.read_folder(folder, DIGESTS)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"junk",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": b"text", b"labels": [1]}, protocol=3),
        pickle.dumps({b"labels": [300, -1]}, protocol=3),
    ],
)
def test_damaged_batch_is_refused(tmp_path: Path, batch: bytes) -> None:
    """A batch that is no pickle, or not of the official layout, is an error which names its folder."""
    folder = sample.write_official_folder(SMALL, tmp_path / "batches")
    (folder / "data_batch_2").write_bytes(batch)
    with pytest.raises(DataError, match=f"cannot decode {folder}"):
        sources.read_folder(folder, DIGESTS)


def replace_member(path: Path, name: str, content: bytes | None) -> None:
    """Rewrite a tarball with one file changed, or left out."""
    with tarfile.open(path) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    members[name] = content if content is not None else b""
    with tarfile.open(path, "w:gz") as tar:
        for member_name, data in members.items():
            if member_name != name or content is not None:
                info = tarfile.TarInfo(member_name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("package/test_lables.json", None, "the package lacks test_lables.json; run again"),
        ("package/test_lables.json", b"[1, 2", "cannot decode the package"),
        ("package/test_lables.json", b"[1, 2, 3, 400]", "cannot decode the package"),
        ("package/data_batch_1.png", b"no picture", "cannot decode the package"),
        (
            "package/data_batch_1.png",
            sample._page(np.zeros((4, 8, 128, 3), np.uint8)),
            "the package: x_train",
        ),
    ],
)
def test_damaged_npm_package_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """A package that lacks a file, or holds a wrong one, is an error which names the package."""
    path = sample.write_npm_package(SMALL, tmp_path / "p.tgz")
    replace_member(path, name, content)
    with pytest.raises(DataError, match=message):
        read_package(path)


def test_truncated_npm_package_is_refused(tmp_path: Path) -> None:
    """A tarball cut short is an error, not a smaller data set."""
    path = sample.write_npm_package(SMALL, tmp_path / "p.tgz")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot read the package"):
        read_package(path)


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")  # numpy's, of a damaged header
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damaged_npz_is_the_data_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever byte of a .npz changes, the true data are read or a DataError says why not."""
    path = sample.write_npz(SMALL, tmp_path_factory.mktemp("npz") / "a.npz")
    content = bytearray(path.read_bytes())
    # The zip's directory at the end and the headers break in more ways than pixels do.
    place = data.draw(st.one_of(st.integers(0, 400), st.integers(len(content) - 700, len(content) - 1)))
    content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = sources.read_npz(path, DIGESTS)
    except DataError:
        return
    assert same(found)


def test_split_is_eighty_twenty() -> None:
    """The first 80 % of the training set train and the last 20 % validate, of a sample too."""
    data = sample.load()
    assert (len(data.train), len(data.validation), len(data.test)) == (320, 80, 100)
    assert np.array_equal(np.concatenate([data.train.images, data.validation.images]), data.x_train)
    assert np.array_equal(np.concatenate([data.train.labels, data.validation.labels]), data.y_train)


def test_first_images_of_a_split() -> None:
    """The first n images come with their labels."""
    first = SMALL.train.first(3)
    assert len(first) == 3
    assert np.array_equal(first.labels, SMALL.y_train[:3])


@pytest.mark.parametrize("n", [-1, 0, 17])
def test_first_is_bounded(n: int) -> None:
    """None of the images, or more than there are, is an error which gives the bounds."""
    with pytest.raises(DataError, match=f"first {n} of 16 images; ask for 1 to 16"):
        SMALL.train.first(n)


def test_split_checks_its_arrays() -> None:
    """Images and labels that do not belong together cannot become a split."""
    with pytest.raises(DataError, match=r"labels must be uint8 \(20,\), got uint8 \(4,\)"):
        Split(SMALL.x_train, SMALL.y_test)


def test_sample_is_what_it_says() -> None:
    """The sample hashes to its own digests only, and holds at least ten training images a class."""
    assert same(sources.read_npz(sample.PATH, sample.DIGESTS)) is False
    assert np.bincount(sample.load().y_train, minlength=10).min() >= 10
    assert np.bincount(sample.load().y_test, minlength=10).min() >= 5
    with pytest.raises(DataError, match="x_train has SHA-256"):
        sources.read_npz(sample.PATH, OFFICIAL)
