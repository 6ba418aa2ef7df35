"""The dashboard for tests: small studies to show, and ways to ask for pages without a browser."""

import base64
import gzip
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import sqlalchemy
from conftest import COMMAND, Finished
from optuna import Trial
from optuna.trial import TrialState

from search.dashboard.app import build_app, prepare
from search.dashboard.guard import LOOPBACK_NAMES, Access
from search.dashboard.upkeep import Upkeep
from search.study import OpenStudy, Wishes, open_or_create_study
from search.summary import SECONDS_KEY
from storage.claimed_trial import NamedFile
from storage.database import Database, open_database
from storage.process import Identity, own_identity

WAIT_SECONDS = 60.0
READ_ONLY = Access(hosts=LOOPBACK_NAMES)
EDITS = Access(allow_edits=True, hosts=LOOPBACK_NAMES)
MODEL = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 20
"""What stands for a model where none is loaded."""


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> bytes:
        """The body, decompressed."""
        return gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content.decode()

    @property
    def json(self) -> Any:
        """The content as JSON."""
        return json.loads(self.content)


def ask(
    app: Any,
    path: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    send: Any = None,
    is_valid: bool = True,
) -> Answer:
    """What `app` answers.

    Args:
        app: A WSGI application.
        path: As in a URL but unquoted, with the query if there is one.
        method: The request's method.
        headers: Of the request; `Host` is 127.0.0.1 unless given, and empty values leave a header out.
        send: Sent as JSON.
        is_valid: Whether the application must keep to the letter of WSGI (PEP 3333).
    """
    body = b"" if send is None else json.dumps(send).encode()
    path, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        # PEP 3333 wants the bytes of the path as Latin-1.
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    if send is not None:
        environ["CONTENT_TYPE"] = "application/json"
    for name, value in {"Host": "127.0.0.1", **(headers or {})}.items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    setup_testing_defaults(environ)
    given: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        given[:] = status, headers
        return lambda _: None

    answering = validator(app) if is_valid else app
    iterator = answering(environ, start_response)
    try:
        content = b"".join(iterator)
    finally:
        if hasattr(iterator, "close"):
            iterator.close()
    status, pairs = given
    names = [name.lower() for name, _ in pairs]
    assert len(set(names)) == len(names), f"a header comes twice: {pairs}"
    return Answer(int(status.split()[0]), {name.lower(): value for name, value in pairs}, content)


@dataclass(frozen=True)
class Shown:
    """A study to show, and the worker of this process, which has made it."""

    opened: OpenStudy
    identity: Identity

    @property
    def study_id(self) -> int:
        """Its id in the database."""
        return int(self.opened.study._study_id)

    def ask(self, *reports: float) -> Trial:
        """A trial that runs, and has reported these accuracies."""
        trial = self.opened.study.ask()
        for epoch, accuracy in enumerate(reports, start=1):
            trial.report(accuracy, epoch)
        return trial

    def finish(
        self,
        trial: Trial,
        value: float | None,
        state: TrialState = TrialState.COMPLETE,
        model: bytes = MODEL,
        **attrs: Any,
    ) -> str:
        """End a trial, a complete one with a model and all with a table; gives the id of the first file."""
        name = f"trial-{trial.number}"
        files = [NamedFile("history", f"{name}-history.csv", "text/csv", b"epoch,loss\n1,2.0\n")]
        if state == TrialState.COMPLETE:
            files.insert(0, NamedFile("model", f"{name}-{value:.4f}.h5", "application/x-hdf5", model))
        claimed = self.opened.database.claimed(self.opened.artifacts, trial._trial_id)
        claimed.finish(state, value, files, {SECONDS_KEY: 10.0, **attrs})
        return file_ids(self.opened, trial._trial_id)[0]


def make_study(database: Database, name: str = "cifar10") -> Shown:
    """A new study; its trial 0 waits."""
    opened, _ = open_or_create_study(database, name, Wishes(max_epochs=3))
    identity = own_identity()
    database.work_as(identity)
    opened.leases().renew(identity, 3600.0)
    return Shown(opened, identity)


def file_ids(opened: OpenStudy, trial_id: int) -> list[str]:
    """The ids of a trial's files, its model first."""
    query = sqlalchemy.text(
        "SELECT artifact_id FROM cnn_search_files WHERE trial_id = :id ORDER BY kind DESC"
    )
    with opened.database._backend.engine.connect() as connection:
        return list(connection.scalars(query, {"id": trial_id}))


def read_all(database: Database) -> dict[str, list[Any]]:
    """All rows of all tables, to see whether anything has changed."""
    engine = database._backend.engine
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sqlalchemy.select(table))))
            for table in metadata.sorted_tables
        }


class Dashboard:
    """The whole application in this process, with connections of its own, until it is closed.

    Attributes:
        database: Its connections.
        upkeep: What it knows of the studies; its thread is not started.
        now: The time for it, in seconds since the epoch, where the test sets one.
    """

    def __init__(self, url: str, study: str = "cifar10", access: Access = READ_ONLY) -> None:
        """A dashboard of the database at `url`, which has looked at nothing yet."""
        self.database = open_database(url, create=False)
        self.now = 1_800_000_000.0
        self.upkeep = Upkeep(self.database, lambda: self.now)
        self._access = access
        self._app = build_app(self.database, study, access, self.upkeep)

    def __enter__(self) -> Self:
        """The dashboard, to be closed at the block's end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End its threads and connections."""
        self.upkeep.stop()
        self.database.close()
        names = [thread.name for thread in threading.enumerate()]
        assert "upkeep" not in names

    def ask(self, path: str, method: str = "GET", **options: Any) -> Answer:
        """What it answers; see `ask`."""
        return ask(self._app, path, method, **options)

    def prepare(self) -> None:
        """Read everything in advance, as the command does at its start."""
        self.upkeep.look()
        prepare(self._app, self.database, self._access)

    def get(self, path: str, **headers: str) -> Answer:
        """What it answers to GET; in names of headers, `_` stands for `-`."""
        return self.ask(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@contextmanager
def away(database: Database) -> Iterator[None]:
    """Let the database be away for who has opened it so: connections break, and none can be made."""
    engine = database._backend.engine

    def refuse(*_: Any) -> None:
        raise engine.dialect.dbapi.OperationalError("nobody listens there")  # type: ignore[union-attr]

    engine.dispose()
    sqlalchemy.event.listen(engine, "do_connect", refuse)
    try:
        yield
    finally:
        sqlalchemy.event.remove(engine, "do_connect", refuse)


class Command:
    """`cnn-search dashboard` as a process, from the moment that it answers to the end of its `with` block."""

    def __init__(self, storage: str, *options: object, **environment: str) -> None:
        """Start it over the database at `storage`, on a free port unless an option names one."""
        given = [str(option) for option in options]
        if "--port" not in given:
            given += ["--port", "0"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CNN_SEARCH_")}
        # What nobody reads while it runs would fill a pipe.
        self._err = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [COMMAND, "dashboard", "--storage", storage, *given],
            stdout=subprocess.PIPE,
            stderr=self._err,
            text=True,
            env=kept | environment,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()

    def __enter__(self) -> Self:
        """The process, which has said where it listens."""
        if not self.first_line:
            ended = self.wait()
            self._close()
            raise RuntimeError(f"it ended with {ended.code}: {ended.err}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left of it."""
        self.process.kill()
        self._close()

    @property
    def url(self) -> str:
        """Where it says that a browser finds it, without the page."""
        return self.first_line.strip().removesuffix("/dashboard")

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 0

    def log(self) -> str:
        """What it has written to stderr."""
        self._err.seek(0)
        return self._err.read()

    def stop(self, number: signal.Signals) -> Finished:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Finished:
        """Wait for the end."""
        out, _ = self.process.communicate(timeout=WAIT_SECONDS)
        return Finished(self.process.returncode, self.first_line + out, self.log())

    def peak_bytes(self) -> int:
        """The most memory that the process has had."""
        return self._status("VmHWM") * 1024

    def threads(self) -> int:
        """How many threads it has."""
        return self._status("Threads")

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        host: str = "127.0.0.1",
    ) -> Answer:
        """What is answered to a well-behaved client."""
        connection = http.client.HTTPConnection(host, self.port, timeout=WAIT_SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            given = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, given, response.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A connection for what no well-behaved client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_SECONDS)

    def send(self, request: bytes) -> bytes:
        """All that comes back on a connection with this request, whatever it is, until it is closed."""
        with self.connect() as connection:
            try:
                connection.sendall(request)
            except (BrokenPipeError, ConnectionResetError):
                # It has heard enough.
                pass
            return read_to_end(connection)

    def _status(self, key: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(f"{key}:")).split()[1])

    def _close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait()
        self._err.close()


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the other side closes or resets."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def basic(password: str, user: str = "anyone") -> dict[str, str]:
    """The header of a browser that was given a password."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
