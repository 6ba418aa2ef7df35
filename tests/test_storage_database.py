"""A study's database: which URLs open it, what is refused and how, what several processes do at once."""

import dataclasses
import logging
import multiprocessing
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

import storage.database
import storage.outages
from storage.database import Database, open_database
from storage.errors import StorageError, StorageUrlError, TrialLimitReached
from storage.process import own_identity
from storage.schema import FILES, LEASES, VERSIONS
from storage.url import check_storage, parse_url, show_url

PROCESSES = 16
ASKING = 8
TOTAL = 100
ROUNDS = 20
Together = Callable[..., list[Any]]
EmptyDatabase = Callable[[], str]


@pytest.fixture(scope="module")
def together() -> Iterator[Together]:
    """Call a function in other processes at once, with a barrier before the arguments given."""
    # Processes that have imported everything, which 16 of them would do one after another.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["storage.database"])
    with context.Manager() as manager, ProcessPoolExecutor(PROCESSES, context) as pool:

        def call(work: Callable[..., Any], *arguments: Any, processes: int = PROCESSES) -> list[Any]:
            barrier = manager.Barrier(processes)
            # Each waits at the barrier for the others, so that no process can take two.
            futures = [pool.submit(work, barrier, *arguments) for _ in range(processes)]
            return [future.result() for future in futures]

        yield call


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> EmptyDatabase:
    """Gives the URL of another empty database at each call, of each kind."""
    if request.param == "postgresql":
        create: EmptyDatabase = request.getfixturevalue("postgres")
        return create
    numbers = iter(range(ROUNDS))
    return lambda: f"sqlite:///{tmp_path}/study-{next(numbers)}.db"


def do(url: str, *statements: str) -> None:
    """Run SQL as another program would."""
    engine = sqlalchemy.create_engine(parse_url(url))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()


def tables(url: str) -> set[str]:
    """The names of the tables there."""
    engine = sqlalchemy.create_engine(parse_url(url))
    names = set(sqlalchemy.inspect(engine).get_table_names())
    engine.dispose()
    return names


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
        "postgresql://ann:hunt@er2/x@127.0.0.1/db",
        "postgresql:/ann:hunter2/db",
        "postgresql://ann:hunter2/db",
        "ann:hunter2/db",
        "host=db password=hunter2 dbname=x",
        "host=db password=x:hunter2 dbname=x",
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


def test_a_password_with_an_at_and_a_slash_is_to_be_encoded() -> None:
    """Else a part of it is taken for the host, and the rest for the database's name."""
    with pytest.raises(StorageUrlError, match="write those of the password as %40 and %2F"):
        parse_url("postgresql://tester:pa@ss/w@127.0.0.1/x")
    assert parse_url("sqlite:///a@b.db").database == "a@b.db"


@pytest.mark.parametrize("port", ["", ":5433"])
def test_a_sockets_folder_can_be_the_host(port: str) -> None:
    """In libpq's form, percent-encoded, which SQLAlchemy would take for a name."""
    url = parse_url(f"postgresql://ann:hunter2@%2Frun%2Fpostgresql{port}/studies")

    given = make_url(url.render_as_string(hide_password=False)).get_dialect()().create_connect_args(url)[1]
    assert (given["host"], given["dbname"], given["user"]) == ("/run/postgresql", "studies", "ann")
    assert given.get("port") == (5433 if port else None)
    assert "hunter2" not in show_url(url)


@given(text=st.text(max_size=40))
@example(text="://")
@example(text="postgresql://[::1]/x")
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """Nothing but the error that a user can read comes out."""
    try:
        assert parse_url(text).drivername in ("sqlite", "postgresql+psycopg2")
    except StorageUrlError as refused:
        assert len(str(refused)) < 400


def test_a_storage_is_checked_without_touching_it(tmp_path: Path) -> None:
    """What can be told beforehand is: URL, folder, kind of file; nothing is made."""
    check_storage(f"sqlite:///{tmp_path}/new.db")
    check_storage("postgresql://ann:hunter2@127.0.0.1:1/studies")
    with pytest.raises(StorageUrlError, match="mysql is not supported"):
        check_storage("mysql://host/db")
    with pytest.raises(StorageError, match="does not exist; create it first"):
        check_storage(f"sqlite:///{tmp_path}/no/where/new.db")
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_an_error_without_password(caplog: pytest.LogCaptureFixture) -> None:
    """What the driver says is passed on in one line, and so it is logged while trying again."""
    with caplog.at_level(logging.DEBUG), pytest.raises(StorageError) as refused:
        open_database("postgresql://ann:hunter2@127.0.0.1:1/studies", patience_seconds=0.05)

    message = str(refused.value)
    assert "postgresql://ann:***@127.0.0.1:1/studies" in message.replace("+psycopg2", "")
    assert "refused" in message
    assert "hunter2" not in message
    assert "\n" not in message
    assert "trying again" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_wrong_password_is_an_error_at_once(postgres: EmptyDatabase, caplog: Any) -> None:
    """Patience would not help, and neither password is shown."""
    if make_url(url := postgres()).password is None:
        pytest.skip("the server asks for no password")
    wrong = make_url(url).set(password="hunter2").render_as_string(hide_password=False)

    with pytest.raises(StorageError, match="authentication failed") as refused:
        open_database(wrong, patience_seconds=1000)

    assert "hunter2" not in str(refused.value)
    assert caplog.text == ""


@pytest.mark.parametrize("create", [False, True])
def test_a_missing_database_of_a_server_is_an_error_at_once(postgres: EmptyDatabase, create: bool) -> None:
    """The server's own words say so; nobody but its administrator can make one."""
    url = make_url(postgres()).set(database="no_such_database").render_as_string(hide_password=False)

    with pytest.raises(StorageError, match='database "no_such_database" does not exist'):
        open_database(url, create=create, patience_seconds=1000)


def test_an_open_database_shows_no_url(any_database: Database) -> None:
    """Its repr, which ends up in logs and tracebacks, holds nothing that could hold a password."""
    secret = dataclasses.replace(any_database, _url=make_url("postgresql://ann:hunter2@h/d?password=hunter2"))

    for shown in (repr(secret), str(secret), f"{secret}"):
        assert "hunter2" not in shown
        assert "ann" not in shown
    password = any_database._url.password
    assert not isinstance(password, str) or password not in repr(any_database)


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


def test_a_missing_file_is_not_created_on_request(url: str, tmp_path: Path) -> None:
    """Reading commands with a mistyped URL leave no empty database behind."""
    with pytest.raises(StorageError, match="no such file; `cnn-search run` starts a study there"):
        open_database(url, create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["nothing", "another program", "Optuna alone"])
def test_a_database_without_our_tables_is_left_as_it_is_on_request(any_url: str, content: str) -> None:
    """The message says how a study gets there."""
    do(any_url)
    if content == "another program":
        do(any_url, "CREATE TABLE accounts (name TEXT)")
    elif content == "Optuna alone":
        storage = optuna.storages.RDBStorage(parse_url(any_url).render_as_string(hide_password=False))
        storage.engine.dispose()
    before = tables(any_url)

    with pytest.raises(StorageError, match="holds no study of cnn-search; `cnn-search init` makes one there"):
        open_database(any_url, create=False)

    assert tables(any_url) == before


def test_our_tables_stand_beside_those_of_others(any_url: str) -> None:
    """Another program's tables stay as they are."""
    do(any_url, "CREATE TABLE accounts (name TEXT)", "INSERT INTO accounts VALUES ('ann')")

    open_database(any_url).close()

    assert tables(any_url) > {"accounts", "trials", FILES.name}
    do(any_url, "DELETE FROM accounts WHERE name = 'ann'")


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("version", [None, 1, 99])
def test_tables_of_another_version_are_refused(any_url: str, version: int | None, create: bool) -> None:
    """Earlier ones, which had no version at first, and later ones alike; the message says what to do."""
    open_database(any_url).close()
    if version is None:
        do(any_url, f"DROP TABLE {VERSIONS.name}")
    else:
        do(any_url, f"UPDATE {VERSIONS.name} SET version = {version}")
    before = tables(any_url)

    words = f"tables are of version {version or 1} of cnn-search's schema, this program's is 3; name a new"
    with pytest.raises(StorageError, match=words):
        open_database(any_url, create=create)

    assert tables(any_url) == before


def test_a_set_up_that_died_half_way_is_made_up_for(any_url: str) -> None:
    """The version is written last; all that comes before it may be there or not."""
    open_database(any_url).close()
    do(any_url, f"DELETE FROM {VERSIONS.name}", "DROP VIEW best_trial", f"DROP TABLE {LEASES.name}")

    with pytest.raises(StorageError, match="holds no study"):
        open_database(any_url, create=False)
    open_database(any_url).close()

    do(any_url, "SELECT * FROM best_trial", f"SELECT * FROM {LEASES.name}")
    open_database(any_url, create=False).close()


def test_a_schema_of_another_optuna_is_refused(any_url: str) -> None:
    """Optuna says what to do, and that is passed on."""
    open_database(any_url).close()
    do(any_url, "UPDATE alembic_version SET version_num = 'v0.9.0.a'")

    with pytest.raises(StorageError, match=r"^storage .*: .*optuna.*upgrade"):
        open_database(any_url)


def test_what_was_written_is_there_for_the_next(any_url: str) -> None:
    """Closing and opening again, also without `create`, finds the study."""
    first = open_database(any_url)
    optuna.create_study(storage=first.storage, study_name="kept")
    first.close()

    second = open_database(any_url, create=False)
    assert optuna.get_all_study_names(second.storage) == ["kept"]
    second.close()


def test_transactions_take_the_write_lock_at_their_start(database: Database, tmp_path: Path) -> None:
    """While one is open another process's write fails, before the first has written anything."""
    other = sqlite3.connect(tmp_path / "study.db", timeout=0, isolation_level=None)
    with database._backend.engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_who_set_ups_is_not_idle_in_a_transaction(postgres: EmptyDatabase) -> None:
    """PostgreSQL ends connections that idle in one, and with the connection its lock would be gone."""
    database = open_database(postgres())
    query = sqlalchemy.text(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid IN "
        "(SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
    )
    with database.exclusive(), database._backend.engine.connect() as connection:
        assert connection.scalars(query).all() == ["idle"]
    with database._backend.engine.connect() as connection:
        assert connection.scalars(query).all() == []
    database.close()


def test_a_lock_of_sqlite_is_waited_out_and_said(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a command without patience, and outside of the driver, which hears no signal."""
    assert database.storage.get_all_studies() == []
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    said: list[str] = []

    def release(message: str, *values: Any) -> None:
        said.append(message % values)
        if other.in_transaction:
            other.execute("ROLLBACK")

    monkeypatch.setattr(storage.outages.LOG, "warning", release)
    optuna.create_study(storage=database.storage, study_name="s")

    other.close()
    assert "database is locked; trying again for up to 60 s" in said[0]
    assert len(said) == 2


def test_who_must_hurry_does_not_wait_for_a_lock_of_sqlite(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it would otherwise be for longer than this test may take."""
    monkeypatch.setattr(storage.database, "SQLITE_WAIT_SECONDS", 1e6)
    monkeypatch.setattr(storage.outages, "HURRIED_SECONDS", 0.0)
    hurry: list[bool] = []
    opened = open_database(url, must_hurry=lambda: bool(hurry))
    assert opened.storage.get_all_studies() == []
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    hurry.append(True)

    with pytest.raises(optuna.exceptions.StorageInternalError):
        opened.storage.get_all_studies()

    other.close()
    opened.close()


def test_a_set_up_of_another_process_is_waited_for(any_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so after a while."""
    one, other = open_database(any_url), open_database(any_url)
    monkeypatch.setattr(storage.database, "SETUP_SILENT_SECONDS", 0.0)
    with ExitStack() as held:
        held.enter_context(one.exclusive())
        said: list[str] = []

        def release(message: str) -> None:
            said.append(message)
            held.close()

        monkeypatch.setattr(storage.database.LOG, "warning", release)
        with other.exclusive():
            pass

    assert said == ["waiting for another process that sets up the database or a study in it"]
    for database in (one, other):
        database.close()


@pytest.mark.parametrize("must_hurry", [False, True])
def test_a_set_up_that_does_not_end_is_an_error(
    any_url: str, must_hurry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two minutes, or at once where the process is told to stop."""
    one, other = open_database(any_url), open_database(any_url, must_hurry=lambda: must_hurry)
    monkeypatch.setattr(storage.database, "SETUP_WAIT_SECONDS", 1e6 if must_hurry else 0.0)
    monkeypatch.setattr(storage.database, "HURRIED_SECONDS", 0.0 if must_hurry else 1e6)

    with (
        one.exclusive(),
        pytest.raises(StorageError, match="another process has held the lock of set-ups for 0 s; end that"),
        other.exclusive(),
    ):
        pass
    with other.exclusive():
        pass

    for database in (one, other):
        database.close()


def test_options_of_the_url_stand_beside_ours(postgres: EmptyDatabase) -> None:
    """The server ends sessions of dead machines and idle transactions; a setting of the URL's own holds."""
    options = "-c statement_timeout=54321 -c tcp_keepalives_idle=15"
    url = make_url(postgres()).update_query_dict({"options": options})
    database = open_database(url.render_as_string(hide_password=False))
    expected = {
        "idle_in_transaction_session_timeout": "10s",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_keepalives_idle": "15",
        "statement_timeout": "54321ms",
    }

    with database._backend.engine.connect() as connection:
        found = {name: connection.scalar(sqlalchemy.text(f"SHOW {name}")) for name in expected}
    database.close()

    assert found == expected


def test_processes_open_an_empty_database_together(together: Together, empty_database: EmptyDatabase) -> None:
    """None of 16 fails, and each finds the study that one of them created."""
    assert together(_open_and_create, empty_database()) == [["together"]] * PROCESSES


@pytest.mark.faults
def test_processes_open_an_empty_database_together_each_time(
    together: Together, empty_database: EmptyDatabase
) -> None:
    """Twenty times, 16 processes meet at an empty database."""
    for _ in range(ROUNDS):
        assert together(_open_and_create, empty_database()) == [["together"]] * PROCESSES


def test_the_trial_limit_is_exact_over_processes(together: Together, any_url: str) -> None:
    """However eight workers meet, the study has 100 trials, each of which was one worker's."""
    _prepare(any_url, TOTAL, waiting=10)

    taken = together(_ask_until_refused, any_url, processes=ASKING)

    assert sorted(number for numbers in taken for number in numbers) == list(range(TOTAL))
    database = open_database(any_url)
    study = optuna.load_study(storage=database.storage, study_name="together")
    assert Counter(trial.state for trial in study.trials) == {TrialState.COMPLETE: TOTAL}
    with database._backend.engine.connect() as connection:
        assert connection.execute(sqlalchemy.select(LEASES)).all() == []
    database.close()


def test_a_set_up_holds_off_other_processes(together: Together, any_url: str) -> None:
    """Each process adds one to a number that it has read before, and none is lost."""
    _prepare(any_url, None)

    together(_count_up, any_url, 3, processes=ASKING)

    database = open_database(any_url)
    study = optuna.load_study(storage=database.storage, study_name="together")
    assert study.user_attrs["count"] == 3 * ASKING
    database.close()


def _prepare(url: str, total: int | None, waiting: int = 0) -> None:
    database = open_database(url)
    study = optuna.create_study(storage=database.storage, study_name="together")
    database.limit_trials(study, total)
    for x in range(waiting):
        study.enqueue_trial({"x": x})
    database.close()


def _open_and_create(barrier: Any, url: str) -> list[str]:
    barrier.wait()
    database = open_database(url)
    with database.exclusive():
        optuna.create_study(storage=database.storage, study_name="together", load_if_exists=True)
    names: list[str] = optuna.get_all_study_names(database.storage)
    database.close()
    return names


def _ask_until_refused(barrier: Any, url: str) -> list[int]:
    database = open_database(url)
    sampler = optuna.samplers.RandomSampler()
    study = optuna.load_study(storage=database.storage, study_name="together", sampler=sampler)
    database.work_as(own_identity())
    artifacts = database.open_artifacts(None, "")
    numbers: list[int] = []
    barrier.wait()
    while True:
        try:
            trial = study.ask()
        except TrialLimitReached:
            database.close()
            return numbers
        numbers.append(trial.number)
        value = trial.suggest_float("x", 0, 20)
        database.claimed(artifacts, trial._trial_id).finish(TrialState.COMPLETE, value)


def _count_up(barrier: Any, url: str, times: int) -> None:
    database = open_database(url)
    study = optuna.load_study(storage=database.storage, study_name="together")
    barrier.wait()
    for _ in range(times):
        with database.exclusive():
            study.set_user_attr("count", study.user_attrs.get("count", 0) + 1)
    database.close()
