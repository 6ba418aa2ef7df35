"""Bytes outside the database, and the notes that keep any of them from being left behind.

With `--artifacts`, a file's bytes are in a folder or bucket, and only its row in `FILES` comes and goes with
the transaction of what it belongs to. So each file has five steps, and wherever its writer dies, a row tells:

1. noted: its id and writer, in `LOOSE_FILES`, in a transaction that sees the writer's lease;
2. written: the bytes, under that id;
3. named: the transaction that they belong to inserts their row in `FILES` and deletes the note;
4. loose: a transaction that deletes this row (a newer checkpoint came, the trial ended) notes the id again,
   now without a writer;
5. removed: the bytes first, then the note.

What is noted can go as soon as its writer has no lease: only who holds the trial's lease can name a file, and
no id is used for a second one. Each write of a `ClaimedTrial` sweeps, and each worker at its start and end.
"""

import contextlib
import logging
from collections.abc import Collection, Sequence
from typing import Any, Final

import sqlalchemy
from optuna.artifacts.exceptions import ArtifactNotFound

from storage.artifacts import Outside
from storage.errors import OutsideStoreError
from storage.outages import Retries
from storage.schema import FILES, LEASES, LOOSE_FILES, TRIALS
from storage.trial_rows import insert_on

LOG: Final = logging.getLogger(__name__)


def study_of(trial_id: int) -> Any:
    """The id of a trial's study, as SQL."""
    return sqlalchemy.select(TRIALS.c.study_id).where(TRIALS.c.trial_id == trial_id).scalar_subquery()


def note(connection: sqlalchemy.Connection, trial_id: int, artifact_id: str, worker: str) -> None:
    """Note bytes that `worker` is about to write for a trial; a second time changes nothing."""
    row = {"artifact_id": artifact_id, "study_id": study_of(trial_id), "worker": worker}
    connection.execute(insert_on(connection, LOOSE_FILES).values(row).on_conflict_do_nothing())


def note_unnamed(connection: sqlalchemy.Connection, trial_id: int, artifact_ids: Collection[str]) -> None:
    """Note again what a writer without a lease has written: a sweep may have come before the bytes did."""
    named = sqlalchemy.select(FILES.c.artifact_id).where(FILES.c.artifact_id.in_(artifact_ids))
    for artifact_id in set(artifact_ids).difference(connection.scalars(named)):
        note(connection, trial_id, artifact_id, "")


def forget(connection: sqlalchemy.Connection, artifact_ids: Collection[str]) -> None:
    """Delete the notes of bytes that are named now, or gone."""
    connection.execute(sqlalchemy.delete(LOOSE_FILES).where(LOOSE_FILES.c.artifact_id.in_(artifact_ids)))


def sweep(engine: sqlalchemy.Engine, retries: Retries, outside: Outside, study_id: Any) -> None:
    """Remove the bytes of a study that no row names and nobody can name any more.

    A place that fails is no error: what is left there goes with a later sweep.

    Args:
        engine: Has the tables of `storage.schema`.
        retries: How its outages are met.
        outside: Where the study's bytes are.
        study_id: The study's id, or SQL that gives it.
    """
    # In one statement, so that it sees a transaction that names a file and gives up the lease whole or not.
    query = (
        sqlalchemy.select(LOOSE_FILES.c.artifact_id)
        .where(
            LOOSE_FILES.c.study_id == study_id,
            LOOSE_FILES.c.worker.not_in(sqlalchemy.select(LEASES.c.worker)),
            ~sqlalchemy.exists().where(FILES.c.artifact_id == LOOSE_FILES.c.artifact_id),
        )
        # One that cannot be removed shall not always come before the others.
        .order_by(sqlalchemy.func.random())
    )

    def find() -> Sequence[str]:
        with engine.connect() as connection:
            return connection.scalars(query).all()

    removed: list[str] = []
    for artifact_id in retries.run(find):
        try:
            with contextlib.suppress(ArtifactNotFound):
                outside.remove(artifact_id)
        except OutsideStoreError as error:
            LOG.warning("%s; what is left there goes with a later sweep", error)
            break
        removed.append(artifact_id)
    if removed:

        def forget_removed() -> None:
            with engine.begin() as connection:
                forget(connection, removed)

        retries.run(forget_removed)
