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
from storage.claimed_trial import ClaimedTrial, NamedFile
from storage.errors import DamagedFileError, LeaseLost, StorageError
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
