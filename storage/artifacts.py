"""The files of a database: Optuna's artifact store as a table, with the bytes in it or elsewhere."""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from errno import ENOTDIR
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit

import sqlalchemy
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts._protocol import ArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from storage.errors import DamagedFileError, OutsideStoreError, StorageError, StorageUrlError
from storage.outages import Retries, explain
from storage.schema import FILES
from storage.url import mask

ACCEPTED: Final = "file:///folder or s3://bucket/prefix"
S3_TIMEOUTS: Final = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 2}}
"""Of botocore, which waits for minutes by itself and hears no signal meanwhile; trying again is ours."""


class Artifacts:
    """Optuna's ArtifactStore protocol over one table; size and SHA-256 are checked at every reading.

    A file of this project is a few megabytes, which a row holds on SQLite and PostgreSQL alike.
    """

    def __init__(self, engine: sqlalchemy.Engine, outside: "Outside | None" = None) -> None:
        """The files in the database behind `engine`; `outside` keeps new files' bytes in its stead."""
        self.outside = outside
        self._engine = engine

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The file's content, from its beginning.

        Raises:
            ArtifactNotFound: No file has that id.
            DamagedFileError: The bytes are not those that were written.
            OutsideStoreError: They are outside the database, and cannot be had.
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
        """Store a file that belongs to no trial, in place of one of the same id.

        Raises:
            OutsideStoreError: The bytes cannot be stored outside the database.
        """
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
            OutsideStoreError: Its bytes, outside the database, are left behind.
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
    raise StorageUrlError(
        f"artifacts {mask(text)!r}: give {ACCEPTED}; leave it out to keep files in the database"
    )


class Outside:
    """A place for files' bytes outside the database, whose failures are `OutsideStoreError`s.

    Optuna's ArtifactStore protocol. Writing and reading are tried again, like transactions while the database
    is away; removing is not, since nobody needs to wait for it.
    """

    def __init__(
        self, store: ArtifactStore, shown: str, failures: tuple[type[Exception], ...], retries: Retries
    ) -> None:
        """The place behind `store`.

        Args:
            store: Keeps the bytes.
            shown: What messages call it.
            failures: What it raises when it fails.
            retries: How long a failure is waited out.
        """
        self._store, self._shown, self._failures = store, shown, failures
        self._retries = retries.of(shown)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The file's content, whole.

        Raises:
            ArtifactNotFound: There is no such file.
            OutsideStoreError: It cannot be read.
        """

        def read() -> bytes:
            with self._failing(), self._store.open_reader(artifact_id) as reader:
                return reader.read()

        return io.BytesIO(self._retries.run(read))

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write a file, in place of one of the same id.

        Raises:
            OutsideStoreError: It cannot be written.
        """
        content = content_body.read()

        def write() -> None:
            with self._failing():
                self._store.write(artifact_id, io.BytesIO(content))

        self._retries.run(write)

    def remove(self, artifact_id: str) -> None:
        """Remove a file, and what an interrupted write has left of it.

        Raises:
            ArtifactNotFound: There is no such file; S3 does not tell.
            OutsideStoreError: It cannot be removed.
        """
        with self._failing():
            self._store.remove(artifact_id)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            # An endpoint of S3 can be a URL with a password.
            reason = re.sub(r"://[^/\s]*@", "://***@", explain(error))
            raise OutsideStoreError(f"{self._shown}: {reason}") from error


def open_outside(text: str, folder: str, retries: Retries) -> Outside:
    """The place for files at the URL `text`, with a folder or prefix of its own for each study.

    Args:
        text: The URL.
        folder: The study's own folder or prefix there.
        retries: How long failures are waited out.

    Raises:
        StorageUrlError: The URL is of no accepted form.
        StorageError: The folder cannot be made, or S3 cannot be used here, for want of a package or settings.
    """
    parts = urlsplit(check_outside(text))
    shown = f"artifacts {text}"
    if parts.scheme == "file":
        path = Path(unquote(parts.path)) / folder
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{shown}: {path} cannot be made: {error.strerror}") from error
        return Outside(WholeFiles(path), shown, (OSError,), retries)
    try:
        # They ship no types.
        import boto3  # type: ignore[import-untyped]
        from boto3.exceptions import Boto3Error  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
        from optuna.artifacts import Boto3ArtifactStore
    except ImportError as error:
        raise StorageError(f"{shown}: S3 needs boto3; pip install 'cnn-search[s3]'") from error
    try:
        bucket = Boto3ArtifactStore(parts.netloc, boto3.client("s3", config=Config(**S3_TIMEOUTS)))
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"{shown}: {explain(error)}; mend the settings of S3") from error
    prefixed = Prefixed(bucket, f"{parts.path.strip('/')}/{folder}/".lstrip("/"))
    return Outside(prefixed, shown, (OSError, Boto3Error, BotoCoreError, ClientError), retries)


class WholeFiles(FileSystemArtifactStore):
    """Optuna's store of files in a folder, whose files appear whole or not at all."""

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write a file, on the disk before its name is."""
        path = self._get_filepath(artifact_id)
        partial = _partial(path)
        try:
            with partial.open("wb") as file:
                file.write(content_body.read())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def remove(self, artifact_id: str) -> None:
        """Remove a file, and what a writer that died has left of it."""
        path = self._get_filepath(artifact_id)
        _partial(path).unlink(missing_ok=True)
        super().remove(artifact_id)

    def _get_filepath(self, artifact_id: str) -> Path:
        # With the folder, all files would seem to be gone; it may be a disk that is not mounted.
        if not self._base_path.is_dir():
            raise NotADirectoryError(ENOTDIR, "the folder is not there", str(self._base_path))
        return super()._get_filepath(artifact_id)


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


def _partial(path: Path) -> Path:
    """Where a file is until it is whole."""
    return path.with_name(f"{path.name}.partial")
