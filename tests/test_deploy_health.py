"""deploy/health.py: what it takes for healthy, in a dashboard's container and in a worker's."""

import dataclasses
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from uuid import uuid4

import optuna
import pytest
from tcp_proxy import free_port

from storage.database import Database, open_database
from storage.leases import Leases
from storage.process import Identity, birth, own_identity

SCRIPT = Path(__file__).parent.parent / "deploy/health.py"


@pytest.fixture
def health() -> ModuleType:
    """The script as a module."""
    specification = importlib.util.spec_from_file_location("health", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def database(postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """An empty PostgreSQL database, which the container's environment names."""
    url = postgres()
    monkeypatch.setenv("CNN_SEARCH_STORAGE", url)
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def leases(database: Database) -> Leases:
    """The leases of a study in it."""
    study = optuna.create_study(storage=database.storage, study_name="s")
    return database.leases(study, max_retries=1)


@pytest.fixture
def answer(health: ModuleType) -> Iterator[Callable[[int, str], None]]:
    """A server in the dashboard's place, which answers what it is told to."""
    told = [200, ""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(told[0] if self.path == "/healthz" else 404)
            self.end_headers()
            self.wfile.write(told[1].encode())

        def log_message(self, *_: object) -> None:
            pass

    def tell(status: int, body: str) -> None:
        told[:] = [status, body]

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        health.PORT = server.server_port
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield tell
        server.shutdown()
        thread.join()


def test_a_dashboard_is_healthy_while_it_reaches_its_database(
    health: ModuleType, answer: Callable[[int, str], None]
) -> None:
    """What /healthz answers decides."""
    assert health.check_dashboard() == ""
    answer(503, '{"status": "the database does not answer"}')
    assert health.check_dashboard() == '/healthz answers 503: {"status": "the database does not answer"}'


def test_a_dashboard_that_nobody_hears_is_not_healthy(health: ModuleType) -> None:
    """A refused connection is a reason, no traceback."""
    health.PORT = free_port()
    assert health.check_dashboard().startswith(f"no answer on port {health.PORT}: ")


def test_a_worker_is_healthy_while_its_lease_holds(health: ModuleType, leases: Leases) -> None:
    """The database knows it, and its process is this container's."""
    assert health.check_worker() == "the database knows no lease of this worker that holds"
    leases.renew(own_identity(), 60)
    assert health.check_worker() == ""


def test_another_worker_s_lease_makes_none_healthy(health: ModuleType, leases: Leases) -> None:
    """Neither one of another machine, nor one of a process that has ended here."""
    leases.renew(dataclasses.replace(own_identity(), place="another"), 60)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        own = own_identity()
        ended = Identity(uuid4().hex, own.host, process.pid, own.place, birth(process.pid) or "")
        leases.renew(ended, 60)
        assert health.check_worker() == ""
    assert health.check_worker() == "the database knows no lease of this worker that holds"


def test_a_database_that_is_away_is_the_reason(health: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the password that the URL has."""
    monkeypatch.setenv("CNN_SEARCH_STORAGE", f"postgresql+psycopg2://u:secret@127.0.0.1:{free_port()}/cnn")
    reason = health.check_worker()
    assert reason.startswith("the database: ")
    assert "refused" in reason
    assert "secret" not in reason


def test_a_worker_on_another_database_is_healthy_while_it_runs(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite, or a URL that came as an option, cannot be asked from outside the worker."""
    monkeypatch.setenv("CNN_SEARCH_STORAGE", "sqlite:////work/study.db")
    assert health.check_worker() == ""
    monkeypatch.delenv("CNN_SEARCH_STORAGE")
    assert health.check_worker() == ""


def test_the_command_is_found_among_the_processes(health: ModuleType, tmp_path: Path) -> None:
    """Behind docker's init or not, started by a shell or as Python's argument."""
    for number, words in {
        1: ["/sbin/docker-init", "--", "cnn-search", "worker"],
        7: ["/opt/venv/bin/python", "/opt/cnn-search/bin/cnn-search", "worker", "--lease", "15"],
        10: ["cnn-search", "status"],
    }.items():
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_text("\0".join([*words, ""]))
    (tmp_path / "12").mkdir()
    assert health.find_command(tmp_path) == "worker"
    shutil.rmtree(tmp_path / "1")
    assert health.find_command(tmp_path) == "worker"
    assert health.find_command(tmp_path / "12") == ""


def test_a_container_that_runs_something_else_is_healthy(
    health: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image's check is for all commands; only two of them have something to look at."""
    monkeypatch.setattr(health, "find_command", lambda: "init")
    assert health.main() == 0
    monkeypatch.setattr(health, "find_command", lambda: "dashboard")
    health.PORT = free_port()
    assert health.main() == 1
    assert "no answer on port" in capsys.readouterr().out
