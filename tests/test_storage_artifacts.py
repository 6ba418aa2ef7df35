"""The files of a study: whole or refused, attached bytes first, one checkpoint a trial."""

import io
import json
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import Study
from optuna.trial import Trial

from storage.artifacts import FILES, SqlArtifactStore
from storage.database import Database
from storage.errors import DamagedFileError, StorageError
from storage.trial_files import (
    NamedFile,
    attach_file,
    drop_checkpoint,
    read_checkpoint,
    read_file,
    save_checkpoint,
)

MODEL = NamedFile("trial-0-0.7712.h5", "application/x-hdf5", b"\x89HDF" + bytes(range(256)))
HISTORY = NamedFile("trial-0-history.csv", "text/csv", b"epoch\n1\n")


@pytest.fixture
def store(database: Database) -> SqlArtifactStore:
    """The files of an empty database."""
    return database.artifacts


@pytest.fixture
def study(database: Database) -> Study:
    """A study in it."""
    return optuna.create_study(storage=database.storage, study_name="files", direction="maximize")


@pytest.fixture
def trial(study: Study) -> Trial:
    """Its running trial."""
    return study.ask()


def stored(database: Database) -> dict[str, int]:
    """The size of each stored file, by id."""
    with database._backend.engine.connect() as connection:
        rows = connection.execute(sqlalchemy.select(FILES.c.artifact_id, FILES.c.size_bytes))
        return {row.artifact_id: row.size_bytes for row in rows}


def damage(database: Database, change: Callable[[bytes], bytes]) -> None:
    """Change every stored file's bytes behind the store's back."""
    with database._backend.engine.begin() as connection:
        for row in connection.execute(sqlalchemy.select(FILES)).all():
            values = {"content": change(row.content)}
            connection.execute(sqlalchemy.update(FILES).where(FILES.c.artifact_id == row.artifact_id), values)


@given(content=st.binary(max_size=3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_what_is_written_is_read(store: SqlArtifactStore, content: bytes) -> None:
    """Any bytes come back, and a second file of the same id takes the first one's place."""
    store.write("same", io.BytesIO(content))

    with store.open_reader("same") as reader:
        assert reader.read() == content


def test_a_large_file_is_kept(store: SqlArtifactStore) -> None:
    """Three megabytes are what a model with Adam's state has."""
    content = bytes(range(256)) * 12_000
    store.write("model", io.BytesIO(content))

    assert store.open_reader("model").read() == content


def test_a_reader_is_optunas_own_protocol(store: SqlArtifactStore, tmp_path: Any, trial: Trial) -> None:
    """Optuna's upload and download functions work with the store."""
    path = tmp_path / "given.bin"
    path.write_bytes(b"given")

    artifact_id = optuna.artifacts.upload_artifact(
        artifact_store=store, file_path=str(path), study_or_trial=trial
    )
    optuna.artifacts.download_artifact(
        artifact_store=store, artifact_id=artifact_id, file_path=str(tmp_path / "got.bin")
    )

    assert (tmp_path / "got.bin").read_bytes() == b"given"


def test_a_file_that_is_not_there_is_optunas_error(store: SqlArtifactStore) -> None:
    """Reading and removing raise what Optuna and its dashboard expect."""
    store.write("other", io.BytesIO(b"1"))

    with pytest.raises(ArtifactNotFound, match="no stored file missing"):
        store.open_reader("missing")
    with pytest.raises(ArtifactNotFound, match="no stored file missing"):
        store.remove("missing")
    assert store.open_reader("other").read() == b"1"


def test_a_removed_file_is_gone(store: SqlArtifactStore, database: Database) -> None:
    """It and no other, and a second removal is an error."""
    store.write("a", io.BytesIO(b"1"))
    store.write("b", io.BytesIO(b"22"))

    store.remove("a")

    assert stored(database) == {"b": 2}
    with pytest.raises(ArtifactNotFound):
        store.remove("a")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1] + bytes([content[-1] ^ 128]),
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"",
    ],
    ids=["first bit", "last bit", "truncated", "longer", "empty"],
)
def test_damaged_bytes_are_refused(
    database: Database, trial: Trial, change: Callable[[bytes], bytes]
) -> None:
    """Both ways to a file tell both digests, and neither gives a byte."""
    artifact_id = attach_file(database.artifacts, database.storage, trial._trial_id, MODEL)
    save_checkpoint(database.artifacts, database.storage, trial._trial_id, b"state")
    damage(database, change)

    with pytest.raises(DamagedFileError, match=rf"stored file {artifact_id} is damaged: \d+ bytes with SHA"):
        database.artifacts.open_reader(artifact_id)
    with pytest.raises(DamagedFileError, match="written were 260 with"):
        read_file(database.artifacts, database.storage, trial.study.trials[0], ".h5")
    with pytest.raises(DamagedFileError, match="written were 5 with"):
        read_checkpoint(database.artifacts, database.storage, trial._trial_id)


def test_attached_files_are_seen_by_optuna(database: Database, trial: Trial, study: Study) -> None:
    """Name, type and id are there as Optuna's own functions write them, and the files can be read."""
    for file in (MODEL, HISTORY):
        attach_file(database.artifacts, database.storage, trial._trial_id, file)

    metas = get_all_artifact_meta(study.trials[0], storage=database.storage)

    assert {(meta.filename, meta.mimetype) for meta in metas} == {
        (MODEL.filename, MODEL.mimetype),
        (HISTORY.filename, HISTORY.mimetype),
    }
    contents = {meta.filename: database.artifacts.open_reader(meta.artifact_id).read() for meta in metas}
    assert contents == {file.filename: file.content for file in (MODEL, HISTORY)}
    for suffix, file in ((".h5", MODEL), (".csv", HISTORY)):
        assert read_file(database.artifacts, database.storage, study.trials[0], suffix) == file


def test_files_of_one_trial_are_no_other_trials(database: Database, study: Study) -> None:
    """Two trials may have files of the same name."""
    trials = [study.ask(), study.ask()]
    for number, trial in enumerate(trials):
        file = NamedFile("same.h5", "application/x-hdf5", bytes([number]))
        attach_file(database.artifacts, database.storage, trial._trial_id, file)

    read = [read_file(database.artifacts, database.storage, trial, ".h5").content for trial in study.trials]
    assert read == [b"\0", b"\1"]


def test_a_file_attached_again_takes_the_place_of_the_first(
    database: Database, trial: Trial, study: Study
) -> None:
    """A trial that was run twice, as its worker died at the very end, has one model."""
    attach_file(database.artifacts, database.storage, trial._trial_id, MODEL)
    second = NamedFile("trial-0-0.7799.h5", MODEL.mimetype, b"second")
    attach_file(database.artifacts, database.storage, trial._trial_id, second)

    assert read_file(database.artifacts, database.storage, study.trials[0], ".h5") == second
    assert len(get_all_artifact_meta(study.trials[0], storage=database.storage)) == 1
    assert len(stored(database)) == 1


def test_a_file_that_was_never_attached_is_named(database: Database, trial: Trial, study: Study) -> None:
    """As is one whose bytes somebody removed."""
    with pytest.raises(StorageError, match=r"trial 0 has no \.h5 file"):
        read_file(database.artifacts, database.storage, study.trials[0], ".h5")

    database.artifacts.remove(attach_file(database.artifacts, database.storage, trial._trial_id, MODEL))

    with pytest.raises(StorageError, match=r"the \.h5 file of trial 0 is gone"):
        read_file(database.artifacts, database.storage, study.trials[0], ".h5")


def test_without_metadata_there_are_only_bytes(
    database: Database, trial: Trial, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two steps of attaching leaves bytes that nobody names."""
    monkeypatch.setattr(database.storage, "set_trial_system_attr", _crash)

    with pytest.raises(ConnectionResetError):
        attach_file(database.artifacts, database.storage, trial._trial_id, MODEL)

    assert get_all_artifact_meta(study.trials[0], storage=database.storage) == []
    assert list(stored(database).values()) == [len(MODEL.content)]


def test_without_bytes_there_is_no_metadata(
    database: Database, trial: Trial, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in the first step leaves nothing."""
    monkeypatch.setattr(SqlArtifactStore, "write", _crash)

    with pytest.raises(ConnectionResetError):
        attach_file(database.artifacts, database.storage, trial._trial_id, MODEL)

    assert get_all_artifact_meta(study.trials[0], storage=database.storage) == []
    assert stored(database) == {}


def test_a_write_that_fails_leaves_the_file_before_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old row goes in the transaction that brings the new one."""
    database.artifacts.write("a", io.BytesIO(b"old"))
    monkeypatch.setattr(sqlalchemy, "insert", _crash)

    with pytest.raises(ConnectionResetError):
        database.artifacts.write("a", io.BytesIO(b"new"))

    assert database.artifacts.open_reader("a").read() == b"old"


def test_only_the_newest_checkpoint_is_kept(database: Database, trial: Trial) -> None:
    """However many were saved, there is one row, and dropping it leaves none."""
    assert read_checkpoint(database.artifacts, database.storage, trial._trial_id) is None
    for content in (b"1", b"22", b"333"):
        save_checkpoint(database.artifacts, database.storage, trial._trial_id, content)
        assert read_checkpoint(database.artifacts, database.storage, trial._trial_id) == content
        assert list(stored(database).values()) == [len(content)]

    drop_checkpoint(database.artifacts, database.storage, trial._trial_id)

    assert read_checkpoint(database.artifacts, database.storage, trial._trial_id) is None
    assert stored(database) == {}


def test_dropping_no_checkpoint_does_nothing(database: Database, trial: Trial, study: Study) -> None:
    """A trial that never had one carries no trace of it."""
    drop_checkpoint(database.artifacts, database.storage, trial._trial_id)

    assert study.trials[0].system_attrs == {}


def test_checkpoints_of_trials_are_apart(database: Database, study: Study) -> None:
    """Dropping one trial's leaves another one's, and neither shows as an attached file."""
    first, second = study.ask(), study.ask()
    save_checkpoint(database.artifacts, database.storage, first._trial_id, b"first")
    save_checkpoint(database.artifacts, database.storage, second._trial_id, b"second")

    drop_checkpoint(database.artifacts, database.storage, first._trial_id)

    assert read_checkpoint(database.artifacts, database.storage, second._trial_id) == b"second"
    assert get_all_artifact_meta(study.trials[1], storage=database.storage) == []


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("storage.artifacts.SqlArtifactStore.write", b"old"),
        ("optuna.storages._cached_storage._CachedStorage.set_trial_system_attr", b"old"),
        ("storage.artifacts.SqlArtifactStore.remove", b"new"),
    ],
)
def test_a_crash_at_any_step_leaves_a_whole_checkpoint(
    database: Database, trial: Trial, step: str, expected: bytes
) -> None:
    """The old one until the new one's name is written, the new one from then on."""
    save_checkpoint(database.artifacts, database.storage, trial._trial_id, b"old")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConnectionResetError):
        patch.setattr(step, _crash)
        save_checkpoint(database.artifacts, database.storage, trial._trial_id, b"new")

    assert read_checkpoint(database.artifacts, database.storage, trial._trial_id) == expected
    save_checkpoint(database.artifacts, database.storage, trial._trial_id, b"next")
    assert read_checkpoint(database.artifacts, database.storage, trial._trial_id) == b"next"


def test_a_checkpoint_that_is_gone_is_an_error_and_can_be_dropped(database: Database, trial: Trial) -> None:
    """The trial does not silently begin anew, but it can still end."""
    save_checkpoint(database.artifacts, database.storage, trial._trial_id, b"state")
    (artifact_id,) = stored(database)
    database.artifacts.remove(artifact_id)

    with pytest.raises(StorageError, match="the checkpoint of a trial is gone"):
        read_checkpoint(database.artifacts, database.storage, trial._trial_id)
    drop_checkpoint(database.artifacts, database.storage, trial._trial_id)

    assert read_checkpoint(database.artifacts, database.storage, trial._trial_id) is None


def test_metadata_is_json_as_optuna_writes_it(database: Database, trial: Trial, study: Study) -> None:
    """The dashboard reads the attribute itself."""
    artifact_id = attach_file(database.artifacts, database.storage, trial._trial_id, HISTORY)

    assert json.loads(study.trials[0].system_attrs[f"artifacts:{artifact_id}"]) == {
        "artifact_id": artifact_id,
        "filename": HISTORY.filename,
        "mimetype": "text/csv",
        "encoding": None,
    }


def _crash(*_: Any, **__: Any) -> Any:
    raise ConnectionResetError("the machine went away")
