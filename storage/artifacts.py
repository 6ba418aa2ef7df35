"""The files of a database: Optuna's artifact store as a table, with the bytes in it or elsewhere."""

import hashlib
import io
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit

import sqlalchemy
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts._protocol import ArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from storage.errors import DamagedFileError, StorageError, StorageUrlError
from storage.schema import FILES

ACCEPTED: Final = "file:///folder or s3://bucket/prefix"


class Artifacts:
    """Optuna's ArtifactStore protocol over one table; size and SHA-256 are checked at every reading.

    A file of this project is a few megabytes, which a row holds on SQLite and PostgreSQL alike.
    """

    def __init__(self, engine: sqlalchemy.Engine, outside: ArtifactStore | None = None) -> None:
        """The files in the database behind `engine`; `outside` keeps new files' bytes in its stead."""
        self.outside = outside
        self._engine = engine

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The file's content, from its beginning.

        Raises:
            ArtifactNotFound: No file has that id.
            DamagedFileError: The bytes are not those that were written.
        """
        query = sqlalchemy.select(FILES).where(FILES.c.artifact_id == artifact_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise ArtifactNotFound(f"no stored file {artifact_id}")
        content = row.content
        if content is None:
            content = self._read_outside(artifact_id)
        digest = hashlib.sha256(content).hexdigest()
        if (len(content), digest) != (row.size_bytes, row.sha256):
            raise DamagedFileError(
                f"stored file {artifact_id} is damaged: {len(content)} bytes with SHA-256 {digest}, "
                f"written were {row.size_bytes} with {row.sha256}"
            )
        return io.BytesIO(content)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store a file that belongs to no trial, in place of one of the same id."""
        content = content_body.read()
        if self.outside is not None:
            self.outside.write(artifact_id, io.BytesIO(content))
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.delete(FILES).where(FILES.c.artifact_id == artifact_id))
            connection.execute(sqlalchemy.insert(FILES), self.row(artifact_id, content))

    def remove(self, artifact_id: str) -> None:
        """Remove a file.

        Raises:
            ArtifactNotFound: No file has that id.
        """
        which = FILES.c.artifact_id == artifact_id
        with self._engine.begin() as connection:
            # Not by RETURNING: SQLite's (3.40) takes every content for one that is not null there.
            is_outside = connection.scalar(sqlalchemy.select(FILES.c.content.is_(None)).where(which))
            connection.execute(sqlalchemy.delete(FILES).where(which))
        if is_outside is None:
            raise ArtifactNotFound(f"no stored file {artifact_id}")
        if is_outside and self.outside is not None:
            self.outside.remove(artifact_id)

    def row(self, artifact_id: str, content: bytes) -> dict[str, Any]:
        """What `FILES` holds of a file of no trial."""
        return {
            "artifact_id": artifact_id,
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "created": datetime.now(UTC),
            "content": content if self.outside is None else None,
        }

    def _read_outside(self, artifact_id: str) -> bytes:
        if self.outside is None:
            raise StorageError(f"the bytes of stored file {artifact_id} are not in the database")
        with self.outside.open_reader(artifact_id) as reader:
            return reader.read()


def check_outside(text: str) -> str:
    """The URL `text` of a place for files, if it is one.

    Raises:
        StorageUrlError: It is of no accepted form.
    """
    parts = urlsplit(text)
    is_local = parts.scheme == "file" and parts.netloc in ("", "localhost")
    # A path from the working directory would be another one for each worker.
    if is_local and parts.path.startswith("/") and len(parts.path) > 1:
        return text
    if parts.scheme == "s3" and parts.netloc and "@" not in parts.netloc:
        return text
    shown = f"{parts.scheme}://***" if "@" in text else text
    raise StorageUrlError(f"artifacts {shown!r}: give {ACCEPTED}; leave it out to keep files in the database")


def open_outside(text: str, folder: str) -> ArtifactStore:
    """The store for files at the URL `text`, with a folder or prefix of its own for each study.

    Raises:
        StorageUrlError: The URL is of no accepted form.
        StorageError: The folder cannot be made, or the package for S3 is not installed.
    """
    parts = urlsplit(check_outside(text))
    if parts.scheme == "file":
        path = Path(unquote(parts.path)) / folder
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"artifacts {text}: {path} cannot be made: {error.strerror}") from error
        return WholeFiles(path)
    try:
        from optuna.artifacts import Boto3ArtifactStore

        bucket = Boto3ArtifactStore(parts.netloc)
    except ImportError as error:
        raise StorageError(f"artifacts {text}: S3 needs boto3; pip install 'cnn-search[s3]'") from error
    return Prefixed(bucket, f"{parts.path.strip('/')}/{folder}/".lstrip("/"))


class WholeFiles(FileSystemArtifactStore):
    """Optuna's store of files in a folder, whose files appear whole or not at all."""

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write a file, on the disk before its name is."""
        path = self._get_filepath(artifact_id)
        partial = path.with_name(f"{path.name}.partial")
        try:
            with partial.open("wb") as file:
                file.write(content_body.read())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


class Prefixed:
    """A store whose ids get a prefix in another one."""

    def __init__(self, store: ArtifactStore, prefix: str) -> None:
        """The part of `store` whose ids begin with `prefix`."""
        self._store, self._prefix = store, prefix

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The file's content."""
        return self._store.open_reader(self._prefix + artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store a file."""
        self._store.write(self._prefix + artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Remove a file."""
        self._store.remove(self._prefix + artifact_id)
