"""Files that a user asked for: whole or not at all, in a place that was checked first."""

import os
import tempfile
import unicodedata
from pathlib import Path

from search.errors import OutputError


def replace_file(path: Path, content: bytes, option: str = "--output") -> None:
    """Write `content` to `path`; whoever reads it sees the old file or the new one.

    Args:
        path: Where to; an existing file is replaced.
        content: What.
        option: By which another place can be named, for the error.

    Raises:
        OutputError: It cannot be written there.
    """
    partial = _partial(path)
    try:
        _check_place(path, option)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {show_name(path)}: {error.strerror}; name another place with {option}"
        ) from error


def check_writable(path: Path, option: str = "--output") -> None:
    """See that `replace_file` could write to `path`, before hours of work for it; nothing is left there.

    Raises:
        OutputError: It could not.
    """
    try:
        _check_place(path, option)
        # Under the very name that will be written first: it is longer than the file's own, perhaps too long.
        partial = _partial(path)
        try:
            partial.open("wb").close()
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {show_name(path)}: {error.strerror}; name another place with {option}"
        ) from error


def _check_place(path: Path, option: str) -> None:
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {show_name(path)}: it is no regular file; name a file with {option}")


def _partial(path: Path) -> Path:
    """Where a file lies until it is whole.

    Not a NamedTemporaryFile: its mode 0600 would stay, and a web server could not read the file.
    """
    # A path that is a folder by its form, such as ".", has no name; `_check_place` refuses it.
    return path.parent / f".{path.name}.{os.getpid()}.partial"


def show_name(path: Path | str) -> str:
    """A file's name as it can be printed: one line of valid UTF-8, whatever bytes it has.

    A file's name may have any bytes but two: line breaks, what a terminal takes for a command, no UTF-8.
    """
    shown = os.fsencode(path).decode(errors="replace")
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in ("Cc", "Zl", "Zp")
        else letter
        for letter in shown
    )


def make_writable(folder: Path) -> None:
    """Create `folder` where it is missing, and see that files can be written to it.

    Raises:
        OutputError: It cannot be created, is no folder, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror}; name another folder with --output"
        ) from error
