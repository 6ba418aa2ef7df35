"""The URL of a study's database: which forms are accepted, and how it may be shown."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from storage.errors import StorageError, StorageUrlError

ACCEPTED: Final = "sqlite:///file.db, postgresql://user@host/name or postgres://user@host/name"
SQLITE_SIGNATURE: Final = b"SQLite format 3\0"
"""How each database file begins (https://sqlite.org/fileformat.html), but for an empty one."""


def parse_url(text: str) -> URL:
    """The URL of a study's database, with the driver that this project uses.

    Raises:
        StorageUrlError: It is no URL, or of another kind than SQLite's files and PostgreSQL.
    """
    try:
        url = make_url(text)
    # A port that is no number is a ValueError.
    except (ArgumentError, ValueError) as error:
        raise StorageUrlError(f"storage {mask(text)!r} is no database URL; give {ACCEPTED}") from error
    if "@" in (url.host or "") or (url.drivername != "sqlite" and "@" in (url.database or "")):
        raise StorageUrlError(
            f"storage {mask(text)!r} has an @ or / too many; write those of the password as %40 and %2F"
        )
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg2"):
        if url.host and url.host.upper().startswith("%2F"):
            # libpq's form of a socket's folder, which SQLAlchemy takes for a name.
            url = url.set(host="").update_query_dict({"host": unquote(url.host)})
        if not url.database:
            raise StorageUrlError(f"storage {show_url(url)!r} names no database; give {ACCEPTED}")
        # SQLAlchemy 2.1 takes a bare postgresql:// to mean psycopg 3.
        return url.set(drivername="postgresql+psycopg2")
    if url.drivername != "sqlite":
        raise StorageUrlError(
            f"storage {show_url(url)!r}: {url.drivername} is not supported; give {ACCEPTED}"
        )
    # With two slashes, what follows is a host.
    if url.database in (None, "", ":memory:") or url.query or url.host or url.username:
        raise StorageUrlError(
            f"storage {show_url(url)!r} names no file; give for example sqlite:///cnn-search.db"
        )
    return url


def show_url(url: URL) -> str:
    """The URL as it may be shown: without password."""
    shown = url.difference_update_query(["password", "sslpassword"])
    # As users write it; which driver is behind it is not theirs to care about.
    return shown.set(drivername=shown.get_backend_name()).render_as_string(hide_password=True)


def check_storage(text: str) -> None:
    """See that the URL `text` can be opened or created, as far as can be seen without doing so.

    Raises:
        StorageUrlError: The URL is of no accepted form.
        StorageError: SQLite's file cannot be there.
    """
    url = parse_url(text)
    if url.drivername == "sqlite":
        check_sqlite_file(url, create=True)


def check_sqlite_file(url: URL, *, create: bool) -> None:
    """See that SQLite's file is there, or with `create` that it can be.

    Raises:
        StorageError: It is missing, a folder, in no folder, or another kind of file.
    """
    shown, path = show_url(url), Path(str(url.database))
    if path.is_dir():
        raise StorageError(
            f"storage {shown}: {path} is a folder; name a file, for example {path / 'cnn-search.db'}"
        )
    if not path.parent.is_dir():
        raise StorageError(f"storage {shown}: folder {path.parent} does not exist; create it first")
    if not create and not path.exists():
        raise StorageError(f"storage {shown}: no such file; `cnn-search run` starts a study there")
    if path.exists():
        with path.open("rb") as file:
            beginning = file.read(len(SQLITE_SIGNATURE))
        if beginning not in (b"", SQLITE_SIGNATURE):
            raise StorageError(f"storage {shown}: {path} is no SQLite database; name another file")


def mask(text: str) -> str:
    """What is no accepted URL, without all that can be a password in it."""
    scheme, _, rest = text.partition(":")
    has_none = scheme in ("sqlite", "file") or (rest.startswith("//") and ":" not in rest)
    if "@" in text or (rest and not has_none):
        text = "***" if "@" in scheme else f"{scheme}:***"
    return re.sub(r"(password=).*", r"\1***", text)
