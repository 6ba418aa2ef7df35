"""A trial's files: attached ones, which Optuna and its dashboard list, and its checkpoint."""

import contextlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Final
from uuid import uuid4

from optuna.artifacts import ArtifactMeta, get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from storage.artifacts import SqlArtifactStore
from storage.errors import StorageError

META_PREFIX: Final = "artifacts:"
"""Where Optuna keeps the metadata of a trial's artifacts, among its system attributes."""
CHECKPOINT_KEY: Final = "cnn_search:checkpoint"
"""Trial system attribute: the artifact id of what the trial goes on from; empty when there is none."""


@dataclass(frozen=True)
class NamedFile:
    """A file as it goes in and comes out: what a user would call it, its type and its bytes."""

    filename: str
    mimetype: str
    content: bytes


def attach_file(store: SqlArtifactStore, storage: BaseStorage, trial_id: int, file: NamedFile) -> str:
    """Store `file` and attach it to the unfinished trial `trial_id`, where Optuna and its dashboard see it.

    The bytes are stored before the metadata that points to them (Optuna's `upload_artifact` does it the other
    way round): a crash in between leaves bytes that nobody names, never a name without bytes.

    A trial has one file of each suffix; another replaces it.

    Returns:
        The artifact's id.
    """
    # One id for each trial and kind of file: a trial that died after this and is run again replaces its file.
    artifact_id = f"trial-{trial_id}{PurePath(file.filename).suffix}"
    store.write(artifact_id, io.BytesIO(file.content))
    meta = ArtifactMeta(
        artifact_id=artifact_id, filename=file.filename, mimetype=file.mimetype, encoding=None
    )
    storage.set_trial_system_attr(trial_id, META_PREFIX + artifact_id, json.dumps(asdict(meta)))
    return artifact_id


def read_file(store: SqlArtifactStore, storage: BaseStorage, trial: FrozenTrial, suffix: str) -> NamedFile:
    """The trial's file whose name ends with `suffix`.

    Raises:
        StorageError: The trial has no such file, or it is gone.
        DamagedFileError: The bytes are not those that were written.
    """
    metas = get_all_artifact_meta(trial, storage=storage)
    meta = next((meta for meta in metas if meta.filename.endswith(suffix)), None)
    if meta is None:
        raise StorageError(f"trial {trial.number} has no {suffix} file")
    try:
        content = store.open_reader(meta.artifact_id).read()
    except ArtifactNotFound as error:
        raise StorageError(f"the {suffix} file of trial {trial.number} is gone: {error}") from error
    return NamedFile(meta.filename, meta.mimetype, content)


def save_checkpoint(store: SqlArtifactStore, storage: BaseStorage, trial_id: int, content: bytes) -> None:
    """Keep `content` as what the unfinished trial `trial_id` goes on from, in place of an earlier one.

    Bytes, then the name, then the old bytes go: whenever the process dies, the name points to a whole file.
    """
    artifact_id = str(uuid4())
    store.write(artifact_id, io.BytesIO(content))
    _point_checkpoint(store, storage, trial_id, artifact_id)


def drop_checkpoint(store: SqlArtifactStore, storage: BaseStorage, trial_id: int) -> None:
    """Remove the unfinished trial's checkpoint, if it has one."""
    _point_checkpoint(store, storage, trial_id, "")


def read_checkpoint(store: SqlArtifactStore, storage: BaseStorage, trial_id: int) -> bytes | None:
    """The bytes that the trial goes on from, None where it begins.

    Raises:
        StorageError: The checkpoint is damaged or gone.
    """
    artifact_id = storage.get_trial_system_attrs(trial_id).get(CHECKPOINT_KEY)
    if not artifact_id:
        return None
    try:
        return store.open_reader(artifact_id).read()
    except ArtifactNotFound as error:
        raise StorageError(f"the checkpoint of a trial is gone: {error}") from error


def _point_checkpoint(store: SqlArtifactStore, storage: BaseStorage, trial_id: int, artifact_id: str) -> None:
    former = storage.get_trial_system_attrs(trial_id).get(CHECKPOINT_KEY)
    if former or artifact_id:
        storage.set_trial_system_attr(trial_id, CHECKPOINT_KEY, artifact_id)
    if former:
        # Gone already where somebody else removed it, and then a trial must still be able to end.
        with contextlib.suppress(ArtifactNotFound):
            store.remove(former)
