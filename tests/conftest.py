"""What tests of several modules share: a database, TensorFlow once, the command in this process."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy
from postgres import PostgresServer
from sqlalchemy.engine import make_url

from storage.database import Database, open_database

# Started in the background or under `nohup`, these would be ignored by every process that a test starts.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

COMMAND = str(Path(sys.executable).with_name("cnn-search"))
"""The installed command of the environment that the tests run in."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An empty database."""
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Gives the URL of a new, empty PostgreSQL database at each call.

    The server is one of the tests' own, unless CNN_SEARCH_TEST_DATABASE is the URL of another one, as a user
    who may create databases.
    """
    given = os.environ.get("CNN_SEARCH_TEST_DATABASE")
    if given is None:
        with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
            yield server.create_database
        return
    url = make_url(given).set(drivername="postgresql+psycopg2")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    created: list[str] = []

    def create() -> str:
        created.append(f"cnn_search_test_{uuid4().hex}")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {created[-1]}"))
        new = url.set(database=created[-1], drivername="postgresql")
        return new.render_as_string(hide_password=False)

    yield create
    for name in created:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that holds nothing yet, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    create: Callable[[], str] = request.getfixturevalue("postgres")
    return create()


@pytest.fixture
def any_database(any_url: str) -> Iterator[Database]:
    """An open database without studies, of each kind."""
    opened = open_database(any_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def tensorflow() -> None:
    """TensorFlow and Keras started as the commands start them, once for all tests."""
    from search.runtime import start_tensorflow

    start_tensorflow()


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The folder of the full CIFAR-10, fetched where it is not cached."""
    from trainer.data import default_folder, load

    load()
    return default_folder()


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Finished]:
    """The command in this process, in a folder of its own: `cli("status", "--json")`."""
    for name in [name for name in os.environ if name.startswith("CNN_SEARCH_")]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Finished:
        from search.cli import main

        monkeypatch.setattr(sys, "argv", ["cnn-search", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        out, err = capsys.readouterr()
        return Finished(code, out, err)

    return run


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the installed command: `spawn("run", "--trials", 1)`; what still runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def python() -> Callable[[str], str]:
    """Run a script in a fresh interpreter, with warnings as errors, and give its output."""

    def run(script: str, arguments: Sequence[str] = ()) -> str:
        result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def pytest_configure(config: pytest.Config) -> None:
    """Let what others cannot mend yet pass; fail early where the command is not installed."""
    config.addinivalue_line(
        "filterwarnings",
        # Keras 3.15 asks numpy 2 for a copy of TensorFlow 2.21's variables, whose __array__ knows no `copy`.
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
        ":keras.src.backend.tensorflow.core",
    )
    if not Path(COMMAND).exists() and shutil.which("cnn-search") is None:
        raise pytest.UsageError(f"{COMMAND} does not exist; `make install` sets up the tests' environment")
