"""A claimed trial: one transaction each, files whole and one of a kind, in the database and outside it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
import sqlalchemy
from moto import mock_aws
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from test_storage_shared import (
    HISTORY,
    MODEL,
    Office,
    Worker,
    broken_commit,
    change,
    content_of,
    holders,
    lose_to_another,
)

import storage.claimed_trial
import storage.leases
import storage.outages
from storage.artifacts import WholeFiles
from storage.claimed_trial import ClaimedTrial, NamedFile
from storage.errors import DamagedFileError, LeaseLost, OutsideStoreError, StorageError
from storage.schema import FILES, LOOSE_FILES
from storage.trial_files import read_file

PATIENCE_SECONDS = 60.0
BUCKET = "models"


@pytest.fixture
def office(any_url: str) -> Iterator[Office]:
    """Workers on an empty database, of each kind."""
    with Office(any_url) as opened:
        yield opened


@pytest.fixture(params=["database", "folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where files' bytes go, as `outside`, for each of the places there are."""
    if request.param == "database":
        yield None
    elif request.param == "folder":
        yield f"file://{tmp_path}/some%20files"
    else:
        with bucket(monkeypatch):
            yield f"s3://{BUCKET}/prefix"


def bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    """S3 with an empty bucket, in this process, until closed."""
    import boto3  # type: ignore[import-untyped]  # It ships no types.

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    stack = ExitStack()
    stack.enter_context(mock_aws())
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    return stack


def outside_bytes(place: str | None, tmp_path: Path) -> list[bytes] | None:
    """The content of every file outside the database, sorted; None where there is no outside."""
    if place is None:
        return None
    if place.startswith("file:"):
        return sorted(path.read_bytes() for path in (tmp_path / "some files/folder").iterdir())
    import boto3

    client = boto3.client("s3")
    found = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    assert all(entry["Key"].startswith("prefix/folder/") for entry in found)
    return sorted(client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read() for entry in found)


def check_bytes(worker: Worker, place: str | None, tmp_path: Path, expected: list[bytes]) -> None:
    """See that exactly these files are kept, where they belong, and that no note of loose ones is left."""
    with worker.database._backend.engine.connect() as connection:
        kept = connection.scalars(sqlalchemy.select(FILES.c.content)).all()
        assert connection.execute(sqlalchemy.select(LOOSE_FILES)).all() == []
    if place is None:
        assert sorted(kept) == sorted(expected)
    else:
        assert list(kept) == [None] * len(expected)
        assert outside_bytes(place, tmp_path) == sorted(expected)


def test_a_checkpoint_is_replaced_and_goes_in_the_end(
    office: Office, place: str | None, tmp_path: Path
) -> None:
    """A trial has the newest one until it ends; its other files stay."""
    worker = office.hire(outside=place)
    _, claimed = worker.take()
    assert claimed.read_checkpoint() is None
    for content in (b"first", b"", bytes(range(256)) * 4000):
        claimed.save_checkpoint(content, {"size": len(content)})
        assert claimed.read_checkpoint() == content
        check_bytes(worker, place, tmp_path, [content])
    assert worker.study.trials[0].user_attrs == {"size": 256 * 4000}

    claimed.finish(TrialState.COMPLETE, 0.75, [MODEL, HISTORY], {"seconds": 1.5})

    check_bytes(worker, place, tmp_path, [MODEL.content, HISTORY.content])
    assert claimed.read_checkpoint() is None


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_each_end_is_as_optuna_knows_it(office: Office, state: TrialState) -> None:
    """State, value, attributes and the time of the end are read through Optuna, and the lease is gone."""
    worker = office.hire()
    trial, claimed = worker.take()
    trial.suggest_float("x", 0, 1)

    claimed.finish(state, None if state == TrialState.FAIL else 0.75, [HISTORY], {"seconds": 1.5})

    _, study = office.open()
    (stored,) = study.trials
    assert stored.state == state
    assert stored.value == (None if state == TrialState.FAIL else 0.75)
    assert stored.user_attrs == {"seconds": 1.5}
    assert stored.params == trial.params
    assert stored.datetime_start is not None
    assert stored.datetime_complete is not None
    assert holders(worker.database) == {}


def test_optuna_lists_and_downloads_the_files(office: Office, place: str | None, tmp_path: Path) -> None:
    """Name, type and id are where Optuna and its dashboard look, and its download gives the bytes."""
    worker = office.hire(outside=place)
    _, claimed = worker.take()
    claimed.finish(TrialState.COMPLETE, 0.75, [MODEL, HISTORY])
    database, study = office.open()
    artifacts = database.open_artifacts(place, "folder")

    metas = get_all_artifact_meta(study.trials[0], storage=database.storage)

    assert {(meta.filename, meta.mimetype) for meta in metas} == {
        (file.filename, file.mimetype) for file in (MODEL, HISTORY)
    }
    for meta in metas:
        path = tmp_path / "downloaded"
        optuna.artifacts.download_artifact(
            artifact_store=artifacts, artifact_id=meta.artifact_id, file_path=str(path)
        )
        assert path.read_bytes() == {file.filename: file.content for file in (MODEL, HISTORY)}[meta.filename]
        path.unlink()
    read = read_file(artifacts, database.storage, study.trials[0], ".h5")
    assert read == NamedFile("h5", MODEL.filename, MODEL.mimetype, MODEL.content)
    with pytest.raises(StorageError, match=r"trial 0 has no \.zip file"):
        read_file(artifacts, database.storage, study.trials[0], ".zip")


@pytest.mark.parametrize("step", ["set_attrs", "set_value", "end_trial", "drop_file", "json"])
def test_an_end_that_fails_half_way_leaves_nothing(
    office: Office, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, value, attributes and state come together or not at all; the next attempt makes them all."""
    worker = office.hire()
    _, claimed = worker.take()
    claimed.save_checkpoint(b"state", {"seconds": 1})
    before = content_of(worker.database)

    def crash(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("the machine went away")

    attrs: dict[str, Any] = {"late": 1}
    with monkeypatch.context() as patch, pytest.raises((ConnectionResetError, TypeError)):
        if step == "json":
            # Found out after the files were written.
            attrs = {"late": object()}
        else:
            patch.setattr(storage.claimed_trial, step, crash)
        claimed.finish(TrialState.COMPLETE, 0.75, [MODEL, HISTORY], attrs)

    assert content_of(worker.database) == before
    assert claimed.read_checkpoint() == b"state"
    claimed.finish(TrialState.COMPLETE, 0.75, [MODEL, HISTORY])
    assert worker.study.trials[0].state == TrialState.COMPLETE
    assert len(get_all_artifact_meta(worker.study.trials[0], storage=worker.database.storage)) == 2


@pytest.mark.parametrize("outcome", ["done", "lost"])
def test_an_end_that_was_not_confirmed_is_no_error(
    office: Office, outcome: Literal["done", "lost"], place: str | None, tmp_path: Path
) -> None:
    """Whether the commit came through or not, the trial has ended once, with its files."""
    worker = office.hire(outside=place, patience_seconds=PATIENCE_SECONDS)
    _, claimed = worker.take()
    claimed.save_checkpoint(b"state", {})

    with broken_commit(worker.database, outcome, "DELETE FROM cnn_search_leases"):
        claimed.finish(TrialState.COMPLETE, 0.75, [MODEL, HISTORY], {"seconds": 1})

    (stored,) = worker.study.trials
    assert (stored.state, stored.value, stored.user_attrs) == (TrialState.COMPLETE, 0.75, {"seconds": 1})
    assert read_file(worker.artifacts, worker.database.storage, stored, ".h5").content == MODEL.content
    assert len(get_all_artifact_meta(stored, storage=worker.database.storage)) == 2
    check_bytes(worker, place, tmp_path, [MODEL.content, HISTORY.content])


@pytest.mark.parametrize("statement", ["INSERT INTO cnn_search_files", "INSERT INTO cnn_search_loose_files"])
@pytest.mark.parametrize("outcome", ["done", "lost"])
def test_a_checkpoint_that_was_not_confirmed_is_the_newest(
    office: Office, outcome: Literal["done", "lost"], statement: str, tmp_path: Path
) -> None:
    """Its bytes outside the database are neither lost nor kept twice."""
    place = f"file://{tmp_path}/some%20files"
    worker = office.hire(outside=place, patience_seconds=PATIENCE_SECONDS)
    _, claimed = worker.take()
    claimed.save_checkpoint(b"old", {})

    with broken_commit(worker.database, outcome, statement):
        claimed.save_checkpoint(b"new", {"seconds": 2})

    assert claimed.read_checkpoint() == b"new"
    check_bytes(worker, place, tmp_path, [b"new"])


def test_a_checkpoint_outlives_a_write_that_failed(office: Office, tmp_path: Path) -> None:
    """Where the database goes away for good at the commit, the next worker still has the former one."""
    place = f"file://{tmp_path}/some%20files"
    worker = office.hire(outside=place)
    _, claimed = worker.take()
    claimed.save_checkpoint(b"old", {})

    with (
        broken_commit(worker.database, "lost", "INSERT INTO cnn_search_files"),
        pytest.raises(sqlalchemy.exc.OperationalError),
    ):
        claimed.save_checkpoint(b"new", {})

    assert claimed.read_checkpoint() == b"old"


def test_what_a_lost_trial_wrote_outside_is_removed(
    office: Office, place: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that loses the lease while it writes bytes takes those back, and those of nobody else."""
    worker, other = office.hire(outside=place), office.hire(outside=place)
    _, claimed = worker.take()
    claimed.save_checkpoint(b"mine", {})
    if place is not None:
        write = worker.artifacts.outside.write  # type: ignore[union-attr]

        def lose(*arguments: Any) -> None:
            write(*arguments)
            # Once: the second file is not written any more.
            lose_to_another(worker, other)

        monkeypatch.setattr(worker.artifacts.outside, "write", lose)
    else:
        lose_to_another(worker, other)

    with pytest.raises(LeaseLost):
        claimed.finish(TrialState.COMPLETE, 0.75, [MODEL, HISTORY])

    check_bytes(worker, place, tmp_path, [b"other's"])
    assert other.database.claimed(other.artifacts, 1).read_checkpoint() == b"other's"


MOMENTS = ["in mid-write", "written", "named", "reaped"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_a_dead_worker_left_outside_is_swept(
    office: Office, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next worker, once the dead one's lease is gone, and never what a trial names."""
    monkeypatch.setattr(storage.leases, "RESTART_SECONDS", -1e9)
    place = f"file://{tmp_path}/some%20files"
    dead, other = office.hire(outside=place), office.hire(outside=place, max_retries=0)
    _, claimed = dead.take()
    claimed.save_checkpoint(b"old", {})
    with pytest.MonkeyPatch.context() as patch:
        outside = dead.artifacts.outside
        assert outside is not None
        write = outside.write

        def die(artifact_id: str, content: Any) -> None:
            if moment == "in mid-write":
                (tmp_path / f"some files/folder/{artifact_id}.partial").write_bytes(b"ne")
            else:
                write(artifact_id, content)
            raise Killed

        if moment == "named":
            patch.setattr(storage.claimed_trial, "sweep", lambda *_: (_ for _ in ()).throw(Killed()))
        elif moment != "reaped":
            patch.setattr(outside, "write", die)
        if moment != "reaped":
            with pytest.raises(Killed):
                claimed.save_checkpoint(b"new", {})
    files = outside_bytes(place, tmp_path)
    assert files is not None

    # Its lease still holds: it may be about to name them. What is named no longer goes.
    other.database.sweep(other.study, other.artifacts)
    assert outside_bytes(place, tmp_path) == ([b"new"] if moment == "named" else files)
    dead.expire()
    assert [taken.failed for taken in other.leases.reap()] == [True]
    other.database.sweep(other.study, other.artifacts)

    # With its last chance the trial failed, and so its checkpoint went as well.
    check_bytes(other, place, tmp_path, [])


class Killed(BaseException):
    """What a process does not survive."""


def test_bytes_that_come_after_a_sweep_are_removed_by_their_writer(office: Office, tmp_path: Path) -> None:
    """A worker that was frozen while it wrote returns when its note is gone, and its lease too."""
    place = f"file://{tmp_path}/some%20files"
    worker, other = office.hire(outside=place), office.hire(outside=place)
    _, claimed = worker.take()
    outside = worker.artifacts.outside
    assert outside is not None
    write = outside.write

    def freeze(*arguments: Any) -> None:
        lose_to_another(worker, other)
        other.database.sweep(other.study, other.artifacts)
        write(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(LeaseLost):
        patch.setattr(outside, "write", freeze)
        claimed.save_checkpoint(b"late", {})

    check_bytes(worker, place, tmp_path, [b"other's"])


def test_a_sweep_leaves_other_studies_alone(office: Office, tmp_path: Path) -> None:
    """Their files are in other folders: here they would seem to be gone already."""
    worker = office.hire(outside=f"file://{tmp_path}/some%20files")
    claimed = worker.take()[1]
    claimed.save_checkpoint(b"old", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.claimed_trial, "sweep", lambda *_: None)
        claimed.save_checkpoint(b"new", {})
    other = optuna.create_study(storage=worker.database.storage, study_name="other", direction="maximize")

    worker.database.sweep(other, worker.database.open_artifacts(f"file://{tmp_path}/some%20files", "b"))

    assert outside_bytes(f"file://{tmp_path}", tmp_path) == [b"new", b"old"]
    worker.database.sweep(worker.study, worker.artifacts)
    check_bytes(worker, f"file://{tmp_path}", tmp_path, [b"new"])


def test_a_removal_that_fails_is_no_failure_of_the_trial(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and made up for by the next sweep."""
    place = f"file://{tmp_path}/some%20files"
    worker = office.hire(outside=place, patience_seconds=PATIENCE_SECONDS)
    _, claimed = worker.take()
    claimed.save_checkpoint(b"state", {})

    with monkeypatch.context() as patch:
        patch.setattr(WholeFiles, "remove", _out_of_reach)
        claimed.finish(TrialState.COMPLETE, 0.75, [MODEL])

    assert worker.study.trials[0].state == TrialState.COMPLETE
    assert outside_bytes(place, tmp_path) == [b"state", MODEL.content]
    (record,) = [record for record in caplog.records if record.name.startswith("storage")]
    assert record.getMessage().endswith("out of reach; what is left there goes with a later sweep")
    worker.database.sweep(worker.study, worker.artifacts)
    check_bytes(worker, place, tmp_path, [MODEL.content])


def test_a_trial_is_handed_back_though_its_bytes_cannot_be_stored(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the checkpoint and the attributes that it had."""
    place = f"file://{tmp_path}/some%20files"
    worker = office.hire(outside=place)
    _, claimed = worker.take()
    claimed.save_checkpoint(b"state", {"seconds": 1})
    with monkeypatch.context() as patch:
        patch.setattr(WholeFiles, "write", _out_of_reach)
        with pytest.raises(OutsideStoreError):
            claimed.save_checkpoint(b"newer", {"seconds": 2})
        claimed.hand_back(b"newer", {"seconds": 2})

    assert holders(worker.database) == {}
    assert worker.study.trials[0].state == TrialState.WAITING
    assert worker.study.trials[0].user_attrs == {"seconds": 1}
    assert worker.take()[1].read_checkpoint() == b"state"
    check_bytes(worker, place, tmp_path, [b"state"])


def _out_of_reach(*_: Any) -> None:
    raise OSError("out of reach")


def test_an_end_that_was_rolled_back_is_not_taken_for_another_workers(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who completes the trial while the first waits for the database has completed it alone."""
    worker, other = office.hire(patience_seconds=PATIENCE_SECONDS), office.hire()
    _, claimed = worker.take()

    def lose(*_: Any) -> None:
        if holders(other.database) == {0: worker.identity.worker}:
            lose_to_another(worker, other)
            again = other.database.claimed(other.artifacts, other.study.trials[0]._trial_id)
            again.finish(TrialState.COMPLETE, 0.5, [HISTORY])

    monkeypatch.setattr(storage.outages.LOG, "warning", lose)
    with (
        broken_commit(worker.database, "lost", "DELETE FROM cnn_search_leases"),
        pytest.raises(LeaseLost),
    ):
        claimed.finish(TrialState.COMPLETE, 0.75, [MODEL])

    (trial,) = other.study.trials
    assert trial.value == 0.5
    with pytest.raises(StorageError, match=r"no \.h5 file"):
        read_file(other.artifacts, other.database.storage, trial, ".h5")


def test_a_trial_that_is_handed_back_goes_on_elsewhere(
    office: Office, place: str | None, tmp_path: Path
) -> None:
    """Number, parameters, reports and checkpoint are the next worker's; None leaves the checkpoint."""
    first, second, third = (office.hire(outside=place) for _ in range(3))
    trial, claimed = first.take()
    x = trial.suggest_float("x", 0, 1)
    trial.report(0.5, 1)
    claimed.hand_back(b"state", {"seconds": 1})
    assert holders(first.database) == {}
    assert first.study.trials[0].state == TrialState.WAITING

    trial, claimed = second.take()
    claimed.hand_back(None, {"seconds": 2})
    trial, claimed = third.take()

    assert trial.number == 0
    assert trial.suggest_float("x", 0, 1) == x
    assert claimed.read_checkpoint() == b"state"
    assert trial.user_attrs == {"seconds": 2}
    assert third.study.trials[0].intermediate_values == {1: 0.5}
    check_bytes(third, place, tmp_path, [b"state"])


def test_giving_up_leaves_the_trial_to_others_until_it_fails(office: Office) -> None:
    """With two retries, the third failure in a row is the last; its reason and the attributes are kept."""
    worker = office.hire()
    for attempt in range(3):
        _, claimed = worker.take()
        claimed.save_checkpoint(b"state", {})
        assert claimed.give_up("out of memory", {"attempt": attempt}, 2) is (attempt == 2)

    (stored,) = worker.study.trials
    assert stored.state == TrialState.FAIL
    assert stored.user_attrs["attempt"] == 2
    assert stored.user_attrs["failure"].startswith("out of memory; that was chance 3 without")
    assert holders(worker.database) == {}
    assert claimed.read_checkpoint() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"",
    ],
    ids=["a bit", "truncated", "longer", "empty"],
)
def test_a_damaged_checkpoint_is_refused(office: Office, damage: Callable[[bytes], bytes]) -> None:
    """The message tells size and digest of what is there and what was written."""
    _, claimed = office.hire().take()
    claimed.save_checkpoint(b"state", {})
    database, _ = office.open()
    change(database, sqlalchemy.update(FILES).values(content=damage(b"state")))

    with pytest.raises(DamagedFileError, match=r"is damaged: \d bytes with SHA-256 .*, written were 5 with"):
        claimed.read_checkpoint()


def test_a_checkpoint_that_is_gone_outside_is_an_error(office: Office, tmp_path: Path) -> None:
    """The trial does not silently begin anew, and can still end."""
    worker = office.hire(outside=f"file://{tmp_path}/some%20files")
    _, claimed = worker.take()
    claimed.save_checkpoint(b"state", {})
    for path in (tmp_path / "some files/folder").iterdir():
        path.unlink()

    with pytest.raises(StorageError, match="the checkpoint of a trial is gone"):
        claimed.read_checkpoint()

    claimed.finish(TrialState.FAIL, None, attrs={"failure": "its checkpoint is gone"})
    assert worker.study.trials[0].state == TrialState.FAIL


def test_a_trial_has_one_file_of_each_kind(office: Office) -> None:
    """The tables themselves refuse a second one."""
    worker = office.hire()
    trial, claimed = worker.take()
    claimed.save_checkpoint(b"state", {})

    with pytest.raises(sqlalchemy.exc.IntegrityError):
        row = {**worker.artifacts.row("second", b"2"), "trial_id": trial._trial_id, "kind": "checkpoint"}
        change(worker.database, sqlalchemy.insert(FILES).values(row))


def best_trials(office: Office) -> dict[str, Any]:
    """The view's rows, by study."""
    database, _ = office.open()
    with database._backend.engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT * FROM best_trial")).mappings().all()
    return {row["study"]: dict(row) for row in rows}


def test_the_view_shows_the_best_trial_of_each_study(office: Office) -> None:
    """The highest value, the earlier of equals, among complete trials with a model; with recipe and file."""
    worker = office.hire()
    assert best_trials(office) == {}

    def finish(value: float | None, content: bytes, state: TrialState = TrialState.COMPLETE) -> ClaimedTrial:
        trial, claimed = worker.take()
        claimed.set_user_attrs({"recipe": {"epochs": trial.number}})
        files = [NamedFile("model", "m.h5", "application/x-hdf5", content)] if content else []
        claimed.finish(state, value, [*files, HISTORY])
        return claimed

    finish(0.99, b"pruned", TrialState.PRUNED)
    finish(None, b"", TrialState.FAIL)
    finish(0.98, b"")
    assert best_trials(office) == {}
    finish(0.5, b"first")
    finish(0.75, b"best!!")
    finish(0.75, b"equal")
    other = optuna.create_study(storage=worker.database.storage, study_name="other", direction="maximize")
    trial = other.ask()
    worker.claim(trial).finish(TrialState.COMPLETE, 0.25, [MODEL])
    worker.take()[1].save_checkpoint(b"state", {})

    shown = best_trials(office)

    row = shown["s"]
    assert (row["trial_number"], row["value"], row["recipe"]) == (4, 0.75, '{"epochs": 4}')
    assert row["size_bytes"] == len(b"best!!")
    with worker.artifacts.open_reader(row["model_file_id"]) as reader:
        assert reader.read() == b"best!!"
    assert len(row["sha256"]) == 64
    assert (shown["other"]["trial_number"], shown["other"]["recipe"]) == (0, None)
    assert set(shown) == {"s", "other"}
