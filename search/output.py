"""Files that a user asked for: whole or not at all, in a place that was checked first."""

import os
import tempfile
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
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is no regular file; name a file with {option}")
    # Not a NamedTemporaryFile: its mode 0600 would stay, and a web server could not read the file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
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
            f"cannot write {path}: {error.strerror}; name another place with {option}"
        ) from error


def check_writable(path: Path, option: str = "--output") -> None:
    """See that `replace_file` could write to `path`, before hours of work for it; nothing is left there.

    Raises:
        OutputError: It could not.
    """
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is no regular file; name a file with {option}")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; name another place with {option}"
        ) from error


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
