"""A finished trial's files, as Optuna and its dashboard list them."""

from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from storage.artifacts import Artifacts
from storage.claimed_trial import NamedFile
from storage.errors import StorageError


def read_file(artifacts: Artifacts, storage: BaseStorage, trial: FrozenTrial, suffix: str) -> NamedFile:
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
        content = artifacts.open_reader(meta.artifact_id).read()
    except ArtifactNotFound as error:
        raise StorageError(f"the {suffix} file of trial {trial.number} is gone: {error}") from error
    return NamedFile(suffix.strip("."), meta.filename, meta.mimetype, content)
