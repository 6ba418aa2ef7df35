"""The files of a database by themselves: whole or refused, in it or outside, and at which places."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # It ships no types.
import optuna
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws
from optuna.artifacts.exceptions import ArtifactNotFound
from tcp_proxy import free_port

from storage.artifacts import Artifacts, Outside, WholeFiles, check_outside, open_outside
from storage.database import Database
from storage.errors import DamagedFileError, OutsideStoreError, StorageError, StorageUrlError
from storage.outages import Retries
from storage.schema import FILES


@pytest.fixture(params=["database", "folder", "s3"])
def store(
    request: pytest.FixtureRequest,
    any_database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Artifacts]:
    """The files of an empty database of each kind, kept at each place there is."""
    if request.param != "s3":
        place = None if request.param == "database" else f"file://{tmp_path}/files"
        yield any_database.open_artifacts(place, "folder")
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="models")
        yield any_database.open_artifacts("s3://models", "folder")


@given(content=st.binary(max_size=3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
def test_what_is_written_is_read(store: Artifacts, content: bytes) -> None:
    """Any bytes come back, and a second file of the same id takes the first one's place."""
    store.write("same", io.BytesIO(content))

    with store.open_reader("same") as reader:
        assert reader.read() == content


def test_a_large_file_is_kept(store: Artifacts) -> None:
    """Three megabytes are what a model with Adam's state has."""
    content = bytes(range(256)) * 12_000
    store.write("model", io.BytesIO(content))

    assert store.open_reader("model").read() == content


def test_the_store_is_optunas_own_protocol(store: Artifacts, tmp_path: Path) -> None:
    """Optuna's upload and download functions work with it, for a file that belongs to no trial of ours."""
    study = optuna.create_study()
    path = tmp_path / "given.bin"
    path.write_bytes(b"given")

    artifact_id = optuna.artifacts.upload_artifact(
        artifact_store=store, file_path=str(path), study_or_trial=study
    )
    optuna.artifacts.download_artifact(
        artifact_store=store, artifact_id=artifact_id, file_path=str(tmp_path / "got.bin")
    )

    assert (tmp_path / "got.bin").read_bytes() == b"given"


def test_a_removed_file_is_gone(store: Artifacts) -> None:
    """It and no other, in the database and outside; what is not there is Optuna's error."""
    store.write("a", io.BytesIO(b"1"))
    store.write("b", io.BytesIO(b"22"))

    store.remove("a")

    for attempt in (store.open_reader, store.remove):
        with pytest.raises(ArtifactNotFound, match="no stored file a"):
            attempt("a")
    if store.outside is not None:
        with pytest.raises(ArtifactNotFound):
            store.outside.open_reader("a").close()
    assert store.open_reader("b").read() == b"22"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1],
        lambda content: content + b"\0",
    ],
    ids=["a bit", "truncated", "longer"],
)
def test_damaged_bytes_are_refused(
    store: Artifacts, any_database: Database, damage: Callable[[bytes], bytes]
) -> None:
    """Wherever the bytes are, the database knows which they were."""
    store.write("a", io.BytesIO(b"state"))
    if store.outside is not None:
        store.outside.write("a", io.BytesIO(damage(b"state")))
    else:
        with any_database._backend.engine.begin() as connection:
            connection.execute(sqlalchemy.update(FILES).values(content=damage(b"state")))

    with pytest.raises(DamagedFileError, match=r"stored file a is damaged: \d bytes .*, written were 5 with"):
        store.open_reader("a")


def test_bytes_outside_are_not_in_the_database(any_database: Database, tmp_path: Path) -> None:
    """And whoever opens the database without the place is told so."""
    store = any_database.open_artifacts(f"file://{tmp_path}/files", "folder")
    store.write("a", io.BytesIO(b"bytes"))

    assert (tmp_path / "files/folder/a").read_bytes() == b"bytes"
    with pytest.raises(StorageError, match="the bytes of stored file a are not in the database"):
        any_database.open_artifacts(None, "").open_reader("a")


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path: Path) -> None:
    """Of a file that could not be written whole there is nothing, under no name."""
    files = WholeFiles(tmp_path)
    files.write("a", io.BytesIO(b"old"))

    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        files.write("a", Broken())

    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with files.open_reader("a") as reader:
        assert reader.read() == b"old"


@pytest.mark.parametrize("text", ["file:///folder", "file://localhost/a/b", "s3://bucket", "s3://bucket/a/b"])
def test_folders_and_buckets_are_accepted(text: str) -> None:
    """The URL comes back as it was."""
    assert check_outside(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "folder",
        "/folder",
        "file:folder",
        "file://host/folder",
        "file:///",
        "s3://",
        "s3:///a",
        "http://h/x",
    ],
)
def test_other_places_are_refused_with_the_accepted_ones(text: str) -> None:
    """The message shows what was given, what could be, and what happens without it."""
    with pytest.raises(StorageUrlError) as refused:
        check_outside(text)

    assert str(refused.value) == (
        f"artifacts {text!r}: give file:///folder or s3://bucket/prefix; "
        "leave it out to keep files in the database"
    )


@pytest.mark.parametrize(
    "text",
    [
        "s3://key:hunter2@bucket/a",
        "http://ann:hunter2@host",
        "ann:hunter2@host",
        "postgresql://ann:hunter2/host/db",
        "postgresql:/ann:hunter2@host/db",
    ],
)
def test_a_refusal_shows_no_password(text: str) -> None:
    """S3's keys are for its own settings, and not for the database, where the URL would be kept."""
    with pytest.raises(StorageUrlError) as refused:
        check_outside(text)
    assert "hunter2" not in str(refused.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The system's reason is passed on."""
    (tmp_path / "taken").touch()

    with pytest.raises(StorageError, match="taken/folder cannot be made: Not a directory"):
        open_outside(f"file://{tmp_path}/taken", "folder", Retries("s"))


def test_s3_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra of this project's."""
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(StorageError, match=r"S3 needs boto3; pip install 'cnn-search\[s3\]'"):
        open_outside("s3://bucket", "folder", Retries("s"))


class Failing(WholeFiles):
    """A folder on a disk that is full, or fails otherwise, for the next so many calls."""

    def __init__(self, path: Path, failures: int) -> None:
        """The folder `path`."""
        super().__init__(path)
        self.left = failures

    def _get_filepath(self, artifact_id: str) -> Path:
        if self.left > 0:
            self.left -= 1
            raise OSError(28, "No space left on device", "http://ann:hunter2@disk/a")
        return super()._get_filepath(artifact_id)


def test_a_place_that_fails_is_waited_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a database is, and said so in one line without a password."""
    store = Failing(tmp_path, 2)
    outside = Outside(store, "artifacts file:///x", (OSError,), Retries("storage s", 60.0))

    outside.write("a", io.BytesIO(b"bytes"))
    store.left = 2
    assert outside.open_reader("a").read() == b"bytes"

    said = [record.getMessage() for record in caplog.records]
    reason = "[Errno 28] No space left on device: 'http://***@disk/a'"
    assert said[0] == f"artifacts file:///x: {reason}; trying again for up to 60 s"
    assert said[1].startswith("artifacts file:///x is back after")
    assert len(said) == 4


@pytest.mark.parametrize("call", ["write", "open_reader", "remove"])
def test_a_place_that_fails_for_good_is_one_error(tmp_path: Path, call: str) -> None:
    """A storage's error and the system's, which another try may not meet; removing is tried once."""
    store = Failing(tmp_path, 10**9)
    patience = 1000.0 if call == "remove" else 0.0
    outside = Outside(store, "artifacts file:///x", (OSError,), Retries("storage s", patience))

    with pytest.raises(OutsideStoreError, match=r"^artifacts file:///x: .*No space left") as failed:
        getattr(outside, call)("a", *([io.BytesIO(b"bytes")] if call == "write" else []))

    assert isinstance(failed.value, OSError)
    assert isinstance(failed.value, StorageError)


def test_a_process_that_is_told_to_stop_does_not_wait_for_a_place(tmp_path: Path) -> None:
    """Patience is cut as with the database."""
    store = Failing(tmp_path, 10**9)
    retries = Retries("storage s", 1e9, must_hurry=lambda: store.left < 10**9)

    with pytest.raises(OutsideStoreError):
        Outside(store, "artifacts file:///x", (OSError,), retries).write("a", io.BytesIO(b"bytes"))


def test_what_is_not_there_is_no_failure_of_the_place(tmp_path: Path) -> None:
    """Only a folder that is gone, as of a disk that is not mounted: its files may come back."""
    (tmp_path / "files").mkdir()
    outside = Outside(WholeFiles(tmp_path / "files"), "artifacts f", (OSError,), Retries("s"))
    for call in (outside.open_reader, outside.remove):
        with pytest.raises(ArtifactNotFound):
            call("a")

    (tmp_path / "files").rmdir()

    for call in (outside.open_reader, outside.remove):
        with pytest.raises(OutsideStoreError, match="the folder is not there"):
            call("a")


def test_what_a_dead_writer_left_goes_with_its_file(tmp_path: Path) -> None:
    """Its name is the file's own with an ending, so that whoever removes the file knows it."""
    files = WholeFiles(tmp_path)
    files.write("a", io.BytesIO(b"whole"))
    (tmp_path / "a.partial").write_bytes(b"ha")
    files.remove("a")
    (tmp_path / "b.partial").write_bytes(b"ha")
    with pytest.raises(ArtifactNotFound):
        files.remove("b")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["away", "refused"])
def test_a_bucket_that_fails_is_the_same_error(harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of boto's exceptions it was, none of which is a system's error."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    if harm == "away":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    with nullcontext() if harm == "away" else mock_aws():
        outside = open_outside("s3://no-such-bucket/a", "folder", Retries("s"))
        attempts: list[Callable[[], Any]] = [lambda: outside.write("a", io.BytesIO(b"bytes"))]
        if harm == "away":
            attempts += [lambda: outside.open_reader("a"), lambda: outside.remove("a")]
        for attempt in attempts:
            with pytest.raises(OutsideStoreError, match=r"^artifacts s3://no-such-bucket/a: ") as failed:
                attempt()
            assert "\n" not in str(failed.value)
            assert "hunter2" not in str(failed.value)
