"""Optuna's artifact store as a table of the study's own database."""

import hashlib
import io
from datetime import UTC, datetime
from typing import BinaryIO, Final

import sqlalchemy
from optuna.artifacts.exceptions import ArtifactNotFound
from sqlalchemy import Column, DateTime, Integer, LargeBinary, MetaData, String, Table

from storage.errors import DamagedFileError

METADATA: Final = MetaData()
FILES: Final = Table(
    "cnn_search_files",
    METADATA,
    Column("artifact_id", String(64), primary_key=True),
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("content", LargeBinary, nullable=False),
)


class SqlArtifactStore:
    """Optuna's ArtifactStore protocol over one table; size and SHA-256 are checked at every reading.

    A file of this project is a few megabytes, which a row holds on SQLite and PostgreSQL alike.
    """

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        """The files in the database behind `engine`; the table is created where it is missing."""
        self._engine = engine
        METADATA.create_all(engine)

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
        digest = hashlib.sha256(row.content).hexdigest()
        if (len(row.content), digest) != (row.size_bytes, row.sha256):
            raise DamagedFileError(
                f"stored file {artifact_id} is damaged: {len(row.content)} bytes with SHA-256 {digest}, "
                f"written were {row.size_bytes} with {row.sha256}"
            )
        return io.BytesIO(row.content)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store a file, its size and its digest in one transaction, in place of one of the same id."""
        content = content_body.read()
        values = {
            "artifact_id": artifact_id,
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "created": datetime.now(UTC),
            "content": content,
        }
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.delete(FILES).where(FILES.c.artifact_id == artifact_id))
            connection.execute(sqlalchemy.insert(FILES), values)

    def remove(self, artifact_id: str) -> None:
        """Remove a file.

        Raises:
            ArtifactNotFound: No file has that id.
        """
        with self._engine.begin() as connection:
            gone = connection.execute(sqlalchemy.delete(FILES).where(FILES.c.artifact_id == artifact_id))
        if gone.rowcount == 0:
            raise ArtifactNotFound(f"no stored file {artifact_id}")
