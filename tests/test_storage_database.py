"""A study's database: which URLs open it, what is refused and how, what several processes do at once."""

import dataclasses
import multiprocessing
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from storage.database import Database, open_database, parse_url, show_url
from storage.errors import StorageError, StorageUrlError, TrialLimitReached

PROCESSES = 6
Together = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def together() -> Iterator[Together]:
    """Call a function in six other processes at once, with a barrier before the arguments given."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(PROCESSES, context) as pool:
        barrier = manager.Barrier(PROCESSES)

        def call(work: Callable[..., Any], *arguments: Any) -> list[Any]:
            # Each waits at the barrier for the others, so that no process can take two.
            futures = [pool.submit(work, barrier, *arguments) for _ in range(PROCESSES)]
            return [future.result() for future in futures]

        yield call


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_each_postgres_scheme_means_psycopg2(scheme: str) -> None:
    """SQLAlchemy alone would take postgresql:// for psycopg 3 and refuse postgres://."""
    url = parse_url(f"{scheme}://ann:secret@db.example:5433/studies")

    assert url.drivername == "postgresql+psycopg2"
    assert (url.username, url.password, url.host, url.port) == ("ann", "secret", "db.example", 5433)
    assert url.database == "studies"


@pytest.mark.parametrize(
    ("text", "file"),
    [("sqlite:///a.db", "a.db"), ("sqlite:////tmp/b.db", "/tmp/b.db"), ("sqlite:///c d.db", "c d.db")],
)
def test_sqlite_urls_name_a_file(text: str, file: str) -> None:
    """Three slashes are a relative path, four an absolute one."""
    assert parse_url(text).database == file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mysql://x", "'mysql://x': mysql is not supported; give sqlite:///file.db, postgresql://"),
        ("postgresql+psycopg://h/db", "postgresql+psycopg is not supported"),
        ("postgresql://host", "'postgresql://host' names no database; give"),
        ("sqlite://", "'sqlite://' names no file; give for example sqlite:///cnn-search.db"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///a.db?mode=memory", "names no file"),
        ("sqlite://folder/a.db", "names no file"),
        ("rubbish", "'rubbish' is no database URL; give sqlite:///file.db"),
        ("", "'' is no database URL"),
        ("postgresql://host:port/db", "is no database URL"),
    ],
)
def test_other_urls_are_refused_with_the_accepted_ones(text: str, words: str) -> None:
    """The message shows what was given and what could be."""
    with pytest.raises(StorageUrlError) as refused:
        parse_url(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:hunter2@db.example/studies",
        "postgresql://ann@db.example/studies?password=hunter2",
        "postgresql://ann@db.example/studies?sslpassword=hunter2",
    ],
)
def test_a_shown_url_has_no_password(text: str) -> None:
    """Neither where passwords usually stand nor among the options; the rest is there."""
    shown = show_url(parse_url(text))

    assert "hunter2" not in shown
    assert "db.example/studies" in shown


@pytest.mark.parametrize(
    "text",
    [
        "mysql://ann:hunter2@host/db",
        "postgresql://ann:hunter2@host",
        "postgresql://ann:hunter2@host:port/db",
        "postgresql//ann:hunter2@host/db",
        "postgresql://ann:hunt@er2@host/db",
        "sqlite://ann:hunter2@host/a.db",
        "ann:hunter2@host",
    ],
)
def test_a_refusal_shows_no_password(text: str) -> None:
    """A URL with a slip in it still has its password."""
    with pytest.raises(StorageUrlError) as refused:
        parse_url(text)
    assert "hunt" not in str(refused.value)
    assert "er2" not in str(refused.value)


@given(text=st.text(max_size=40))
@example(text="://")
@example(text="postgresql://[::1]/x")
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """Nothing but the error that a user can read comes out."""
    try:
        assert parse_url(text).drivername in ("sqlite", "postgresql+psycopg2")
    except StorageUrlError as refused:
        assert len(str(refused)) < 400


def test_an_unreachable_server_is_an_error_without_password() -> None:
    """What the driver says is passed on in one line."""
    with pytest.raises(StorageError) as refused:
        open_database("postgresql://ann:hunter2@127.0.0.1:1/studies")

    message = str(refused.value)
    assert "postgresql+psycopg2://ann:***@127.0.0.1:1/studies" in message
    assert "refused" in message
    assert "hunter2" not in message
    assert "\n" not in message


def test_an_open_database_shows_no_url(database: Database) -> None:
    """Its repr, which ends up in logs and tracebacks, holds nothing that could hold a password."""
    secret = dataclasses.replace(database, _url=make_url("postgresql://ann:hunter2@h/d?password=hunter2"))

    for shown in (repr(secret), str(secret), f"{secret}"):
        assert "hunter2" not in shown
        assert "ann" not in shown


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """No folder is made up where the user may have mistyped one."""
    with pytest.raises(StorageError, match=f"folder {tmp_path}/no/where does not exist; create it first"):
        open_database(f"sqlite:///{tmp_path}/no/where/study.db")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """The message proposes a file in it."""
    with pytest.raises(StorageError, match=f"{tmp_path} is a folder; name a file, .*cnn-search.db"):
        open_database(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database_is_refused_unchanged(tmp_path: Path) -> None:
    """Whatever it is, it stays what it is."""
    path = tmp_path / "notes.txt"
    path.write_text("My notes on hyperparameters, which no database may overwrite. " * 20)
    before = path.read_bytes()

    with pytest.raises(StorageError, match=r"notes\.txt is no SQLite database"):
        open_database(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    """SQLite itself makes such a file before its first write."""
    path = tmp_path / "empty.db"
    path.touch()

    database = open_database(f"sqlite:///{path}")
    optuna.create_study(storage=database.storage, study_name="s")
    database.close()

    assert path.stat().st_size > 0


def test_a_schema_of_another_optuna_is_refused(url: str, tmp_path: Path) -> None:
    """Optuna says what to do, and that is passed on."""
    open_database(url).close()
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    connection.close()

    with pytest.raises(StorageError, match=r"study\.db: .*optuna.*upgrade"):
        open_database(url)


def test_a_missing_file_is_not_created_on_request(url: str, tmp_path: Path) -> None:
    """Reading commands with a mistyped URL leave no empty database behind."""
    with pytest.raises(StorageError, match="no such file; `cnn-search run` starts a study there"):
        open_database(url, create=False)
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_there_for_the_next(url: str) -> None:
    """Closing and opening again, also without `create`, finds the study."""
    first = open_database(url)
    optuna.create_study(storage=first.storage, study_name="kept")
    first.close()

    second = open_database(url, create=False)
    assert optuna.get_all_study_names(second.storage) == ["kept"]
    second.close()


def test_transactions_take_the_write_lock_at_their_start(database: Database, tmp_path: Path) -> None:
    """While one is open another process's write fails, before the first has written anything."""
    other = sqlite3.connect(tmp_path / "study.db", timeout=0, isolation_level=None)
    with database._backend.engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_processes_open_an_empty_database_together(together: Together, url: str) -> None:
    """None fails, and each finds the study that one of them created."""
    found = together(_open_and_create, url)

    assert found == [["together"]] * PROCESSES


def test_the_trial_limit_is_exact_over_processes(together: Together, url: str) -> None:
    """However the processes meet, the study has the trials that it may have, and each is somebody's."""
    _open_and_create(None, url)

    taken = together(_ask_until_refused, url, 25)

    assert sorted(number for numbers in taken for number in numbers) == list(range(25))
    database = open_database(url)
    study = optuna.load_study(storage=database.storage, study_name="together")
    assert Counter(trial.state for trial in study.trials) == {TrialState.COMPLETE: 25}
    database.close()


def test_a_waiting_trial_goes_to_one_process(together: Together, url: str) -> None:
    """Every round all processes ask at once for the one trial that waits."""
    _open_and_create(None, url)
    database = open_database(url)
    study = optuna.load_study(storage=database.storage, study_name="together")
    for x in range(12):
        study.enqueue_trial({"x": x})
    database.close()

    taken = together(_ask_until_refused, url, 12)

    assert sorted(number for numbers in taken for number in numbers) == list(range(12))


def test_a_limit_holds_for_its_study_alone_and_can_be_lifted(database: Database) -> None:
    """Enqueued trials count, too."""
    study = optuna.create_study(storage=database.storage, study_name="limited")
    other = optuna.create_study(storage=database.storage, study_name="other")
    database.limit_trials(study, 2)
    study.enqueue_trial({})
    study.ask()
    study.ask()

    with pytest.raises(TrialLimitReached):
        study.ask()
    assert len(study.trials) == 2
    assert other.ask().number == 0
    database.limit_trials(study, None)
    assert study.ask().number == 2


def test_a_set_up_holds_off_other_processes(together: Together, url: str) -> None:
    """Each process adds one to a number that it has read before, and none is lost."""
    _open_and_create(None, url)

    together(_count_up, url, 5)

    database = open_database(url)
    study = optuna.load_study(storage=database.storage, study_name="together")
    assert study.user_attrs["count"] == 5 * PROCESSES
    database.close()


def _open_and_create(barrier: Any, url: str) -> list[str]:
    if barrier is not None:
        barrier.wait()
    database = open_database(url)
    with database.exclusive():
        optuna.create_study(storage=database.storage, study_name="together", load_if_exists=True)
    names: list[str] = optuna.get_all_study_names(database.storage)
    database.close()
    return names


def _ask_until_refused(barrier: Any, url: str, limit: int) -> list[int]:
    database = open_database(url)
    study = optuna.load_study(
        storage=database.storage, study_name="together", sampler=optuna.samplers.RandomSampler()
    )
    database.limit_trials(study, limit)
    numbers: list[int] = []
    barrier.wait()
    while True:
        try:
            trial = study.ask()
        except TrialLimitReached:
            database.close()
            return numbers
        numbers.append(trial.number)
        study.tell(trial, trial.suggest_float("x", 0, 20))


def _count_up(barrier: Any, url: str, times: int) -> None:
    database = open_database(url)
    study = optuna.load_study(storage=database.storage, study_name="together")
    barrier.wait()
    for _ in range(times):
        with database.exclusive():
            study.set_user_attr("count", study.user_attrs.get("count", 0) + 1)
    database.close()
