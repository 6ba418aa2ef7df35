"""A running trial in the hands of the worker that has its lease."""

import io
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar
from uuid import uuid4

import sqlalchemy
from optuna.artifacts import ArtifactMeta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState

from storage.artifacts import Artifacts
from storage.errors import DamagedFileError, LeaseLost, OutsideStoreError
from storage.leases import end_or_wait
from storage.loose_files import forget, note, note_unnamed, study_of, sweep
from storage.schema import FILES, LEASES, TRIALS
from storage.shared_storage import SharedStorage
from storage.trial_rows import (
    CHECKPOINT,
    META_PREFIX,
    SYSTEM_ATTRS,
    USER_ATTRS,
    drop_file,
    end_trial,
    hold_lease,
    set_attrs,
    set_value,
)

LOG: Final = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class NamedFile:
    """A file as it goes in and comes out: its kind, what a user would call it, its type and its bytes."""

    kind: str
    filename: str
    mimetype: str
    content: bytes


class ClaimedTrial:
    """Writes to a running trial, each a transaction that changes nothing where the lease is lost.

    What a trial leaves (files, value, state) comes in one transaction as well: others see all of it or
    nothing. Bytes that are kept outside the database are there before the transaction that names them; see
    `storage.loose_files`.
    """

    def __init__(self, backend: SharedStorage, artifacts: Artifacts, trial_id: int) -> None:
        """The trial with that id, which `backend`'s worker has just asked for."""
        if backend.worker is None:
            raise ValueError("a trial is claimed by a worker, and this storage has none")
        self._backend, self._artifacts, self._trial_id = backend, artifacts, trial_id
        self._worker = backend.worker

    def set_user_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Set several of Optuna's user attributes at once.

        Raises:
            LeaseLost: The trial is no longer this worker's. So in all methods that write.
            OutsideStoreError: Bytes cannot be stored outside the database. So in all that write files.
        """
        self._run(lambda connection: set_attrs(connection, USER_ATTRS, self._trial_id, attrs))

    def read_checkpoint(self) -> bytes | None:
        """The bytes that the trial goes on from, None where it begins.

        Raises:
            DamagedFileError: The checkpoint is damaged or gone.
        """
        query = sqlalchemy.select(FILES.c.artifact_id).where(
            FILES.c.trial_id == self._trial_id, FILES.c.kind == CHECKPOINT
        )
        artifact_id = self._run(lambda connection: connection.scalar(query), fenced=False)
        if artifact_id is None:
            return None
        try:
            return self._backend.retries.run(self._artifacts.open_reader, artifact_id).read()
        except ArtifactNotFound as error:
            raise DamagedFileError(f"the checkpoint of a trial is gone: {error}") from error

    def save_checkpoint(self, content: bytes, attrs: Mapping[str, Any]) -> None:
        """Keep `content` as what the trial goes on from, in place of an earlier one; set user attributes."""
        self._write(_new([_checkpoint(content)]), attrs)

    def hand_back(self, content: bytes | None, attrs: Mapping[str, Any]) -> None:
        """Let the trial wait for another worker, which goes on from `content` if it is not None.

        None leaves the checkpoint that there is, and so does a place outside the database that fails: the
        trial waits all the same, and the attributes, which are those of `content`, stay too.
        """

        def end(connection: sqlalchemy.Connection) -> None:
            self._end(connection, TrialState.WAITING)

        if content is not None:
            try:
                self._write(_new([_checkpoint(content)]), attrs, end)
                return
            except OutsideStoreError as error:
                LOG.warning("%s; the trial goes on from its former checkpoint", error)
                attrs = {}
        self._write({}, attrs, end)

    def finish(
        self,
        state: TrialState,
        value: float | None,
        files: Sequence[NamedFile] = (),
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """End the trial: its files, value, user attributes and state, all at once; its checkpoint goes.

        Args:
            state: COMPLETE, PRUNED or FAIL.
            value: None for none.
            files: One of each kind at most; Optuna and its dashboard list them.
            attrs: User attributes.
        """
        reached_commit = False
        new = _new(files)

        def end(connection: sqlalchemy.Connection) -> None:
            nonlocal reached_commit
            if value is not None:
                set_value(connection, self._trial_id, value)
            self._end(connection, state)
            reached_commit = True

        try:
            self._write(new, attrs or {}, end)
        except LeaseLost:
            # After a commit that the network did not confirm, the lease is gone because the trial has ended.
            # Without such a commit it was another worker that ended it.
            if not (reached_commit and self._has_ended(state, new)):
                raise

    def give_up(self, reason: str, attrs: Mapping[str, Any], max_retries: int) -> bool:
        """Let another worker try what this one could not do, or fail the trial after so many tries.

        Returns:
            Whether it failed.
        """

        def end(connection: sqlalchemy.Connection) -> bool:
            failed = end_or_wait(connection, self._trial_id, reason, max_retries)
            self._drop_lease(connection)
            return failed

        return self._write({}, attrs, end)

    def let_go(self) -> None:
        """Stop writing to the trial: it has ended, waits, or is another worker's."""
        self._backend.claimed.discard(self._trial_id)

    def _end(self, connection: sqlalchemy.Connection, state: TrialState) -> None:
        end_trial(connection, self._trial_id, state)
        self._drop_lease(connection)

    def _drop_lease(self, connection: sqlalchemy.Connection) -> None:
        connection.execute(sqlalchemy.delete(LEASES).where(LEASES.c.trial_id == self._trial_id))

    def _has_ended(self, state: TrialState, new: Collection[str]) -> bool:
        """Whether the trial has come to that end by this worker, as far as its files tell; some have none."""
        ended = sqlalchemy.select(sqlalchemy.func.count()).where(
            TRIALS.c.trial_id == self._trial_id, TRIALS.c.state == state
        )
        named = sqlalchemy.select(sqlalchemy.func.count()).where(
            FILES.c.trial_id == self._trial_id, FILES.c.artifact_id.in_(new)
        )
        query = sqlalchemy.select(ended.scalar_subquery(), named.scalar_subquery())
        found = self._run(lambda connection: tuple(connection.execute(query).one()), fenced=False)
        return found == (1, len(new))

    def _write(
        self,
        new: Mapping[str, NamedFile],
        attrs: Mapping[str, Any],
        end: Callable[[sqlalchemy.Connection], Result] = lambda _: None,  # type: ignore[assignment, return-value]
    ) -> Result:
        """Replace files, `new` by their ids, set user attributes and do `end`, in one transaction."""
        rows: list[tuple[NamedFile, dict[str, Any]]] = []

        def work(connection: sqlalchemy.Connection) -> Result:
            metas = {}
            for file, row in rows:
                drop_file(connection, self._trial_id, file.kind)
                connection.execute(sqlalchemy.insert(FILES), row)
                if file.kind != CHECKPOINT:
                    metas[META_PREFIX + row["artifact_id"]] = _meta(file, row["artifact_id"])
            if self._artifacts.outside is not None and rows:
                forget(connection, new)
            set_attrs(connection, SYSTEM_ATTRS, self._trial_id, metas)
            set_attrs(connection, USER_ATTRS, self._trial_id, attrs)
            return end(connection)

        try:
            rows.extend((file, self._prepare(artifact_id, file)) for artifact_id, file in new.items())
            result = self._run(work)
        except LeaseLost:
            if self._artifacts.outside is not None:
                self._run(
                    lambda connection: note_unnamed(connection, self._trial_id, list(new)), fenced=False
                )
                self._sweep()
            raise
        # After any other error nobody knows whether the transaction came through.
        self._sweep()
        return result

    def _prepare(self, artifact_id: str, file: NamedFile) -> dict[str, Any]:
        """The file's row; where bytes are kept outside the database, they are there afterwards."""
        if self._artifacts.outside is not None:
            self._run(lambda connection: note(connection, self._trial_id, artifact_id, self._worker))
            self._artifacts.outside.write(artifact_id, io.BytesIO(file.content))
        return {
            **self._artifacts.row(artifact_id, file.content),
            "trial_id": self._trial_id,
            "kind": file.kind,
        }

    def _sweep(self) -> None:
        outside = self._artifacts.outside
        if outside is not None:
            sweep(self._backend.engine, self._backend.retries, outside, study_of(self._trial_id))

    def _run(self, work: Callable[[sqlalchemy.Connection], Result], *, fenced: bool = True) -> Result:
        def transaction() -> Result:
            with self._backend.engine.begin() as connection:
                if fenced:
                    hold_lease(connection, self._trial_id, self._worker)
                return work(connection)

        return self._backend.retries.run(transaction)


def _new(files: Iterable[NamedFile]) -> dict[str, NamedFile]:
    """The files by ids that no other file ever has."""
    return {uuid4().hex: file for file in files}


def _checkpoint(content: bytes) -> NamedFile:
    return NamedFile(CHECKPOINT, "", "", content)


def _meta(file: NamedFile, artifact_id: str) -> str:
    meta = ArtifactMeta(
        artifact_id=artifact_id, filename=file.filename, mimetype=file.mimetype, encoding=None
    )
    return json.dumps(asdict(meta))
