"""The dashboard as one application, and the server that it runs in.

A request passes the guard, then what explains failures, what keeps the slow answer, what compresses; then it
is optuna-dashboard's or, by its path, one of this project's own routes.
"""

import logging
import os
import socket
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from wsgiref.util import setup_testing_defaults

import waitress
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna_dashboard import wsgi

from search.dashboard.compress import compress
from search.dashboard.guard import Access, answer_json, guard, host_name
from search.dashboard.prepared import Prepared
from search.dashboard.routes import PATHS, build_routes
from search.dashboard.upkeep import Upkeep
from search.errors import DashboardError
from search.study import open_study
from storage.database import Database
from storage.errors import StorageError
from storage.outages import DATABASE_ERRORS, explain

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

THREADS: Final = 8
"""Answers at a time; a request has a thread only once it has arrived whole."""
MOST_CONNECTIONS: Final = 1000
IDLE_SECONDS: Final = 30
"""A connection on which nothing moves for so long is closed."""
MOST_BODY_BYTES: Final = 1 << 20
"""Of a request: notes and the like. A larger one is refused before it is read."""
LOG: Final = logging.getLogger(__name__)


class StudyFiles:
    """The stored files of all studies of a database, each from where its study keeps them.

    Optuna's ArtifactStore protocol.
    """

    def __init__(self, database: Database) -> None:
        """The files of `database`."""
        self._database = database

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The file's content.

        Raises:
            ArtifactNotFound: No file has that id.
            StorageError: It cannot be read.
        """
        name = self._database.study_of_file(artifact_id)
        if name is None:
            raise ArtifactNotFound(f"no trial has a stored file {artifact_id}")
        return open_study(self._database, name).artifacts.open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store a file that a user adds to a page; the database keeps it."""
        self._database.open_artifacts(None, "").write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Remove a file, when its study is deleted.

        Raises:
            ArtifactNotFound: No file has that id.
        """
        name = self._database.study_of_file(artifact_id)
        if name is None:
            self._database.open_artifacts(None, "").remove(artifact_id)
        else:
            open_study(self._database, name).artifacts.remove(artifact_id)


def build_app(database: Database, study: str, access: Access, upkeep: Upkeep) -> "WSGIApplication":
    """The whole application: optuna-dashboard and this project's routes, behind the guard.

    Args:
        database: Holds the studies.
        study: The one that `/best.h5` and `/best.json` mean.
        access: Who may do what.
        upkeep: Knows the studies; started or not.
    """
    ours = build_routes(database, study, upkeep)
    theirs = wsgi(database.storage, artifact_store=StudyFiles(database))

    def choose(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        app = ours if environ.get("PATH_INFO") in PATHS else theirs
        return app(environ, start_response)

    return guard(_explaining(Prepared(compress(choose), upkeep.fingerprint)), access)


def _explaining(app: "WSGIApplication") -> "WSGIApplication":
    """`app` with answers where the database fails it."""

    def explained(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except (*DATABASE_ERRORS, StorageError) as error:
            # The log has what a visitor need not know.
            LOG.warning("%s: %s", environ.get("PATH_INFO"), explain(error))
            return answer_json(
                start_response, "503 Service Unavailable", {"reason": "the database or a file in it fails"}
            )
        # The server's own answer would lack the headers.
        except Exception:
            LOG.exception("%s", environ.get("PATH_INFO"))
            return answer_json(
                start_response, "500 Internal Server Error", {"reason": "a fault; see the log"}
            )

    return explained


def prepare(app: "WSGIApplication", database: Database, access: Access) -> None:
    """Ask `app` for what a visitor's page asks for first, so that no visitor waits for it."""
    credentials = b64encode(f"cnn-search:{access.password or ''}".encode()).decode()
    for study in database.storage.get_all_studies():
        environ: WSGIEnvironment = {
            "HTTP_HOST": "localhost",
            "HTTP_ACCEPT_ENCODING": "gzip",
            "HTTP_AUTHORIZATION": f"Basic {credentials}",
            "PATH_INFO": f"/api/studies/{study._study_id}",
            "QUERY_STRING": "after=0",
        }
        setup_testing_defaults(environ)
        for _ in app(environ, lambda *_: lambda _: None):
            pass


@dataclass(frozen=True)
class Server:
    """A server that listens, and answers once it runs.

    Attributes:
        host: Where it listens.
        port: The port, which may have been chosen by the system.
    """

    host: str
    port: int
    _server: Any

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{host_name(name)}:{self.port}"

    def run(self) -> None:
        """Answer requests until a signal's handler raises `KeyboardInterrupt`, which ends here."""
        self._server.run()


def listen(app: "WSGIApplication", host: str, port: int, most_body_bytes: int = MOST_BODY_BYTES) -> Server:
    """A server for `app`: one process, some threads, and a loop that waits for slow clients in their place.

    Args:
        app: What answers.
        host: An address or name of this machine.
        port: 0 for any that is free.
        most_body_bytes: Larger requests are refused.

    Raises:
        DashboardError: Nobody can listen there.
    """
    # Its warnings about waiting requests are no news to whoever looks at pages.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        reason = str(error)
        if isinstance(error, socket.gaierror):
            reason = error.strerror or reason
        elif isinstance(error, OSError) and error.errno:
            # Python's own words repeat the address.
            reason = os.strerror(error.errno)
        raise DashboardError(
            f"cannot listen on {host} port {port}: {reason}; name another with --host or --port"
        ) from error
    server = waitress.create_server(
        app,
        sockets=[listening],
        threads=THREADS,
        connection_limit=MOST_CONNECTIONS,
        channel_timeout=IDLE_SECONDS,
        cleanup_interval=IDLE_SECONDS // 3,
        max_request_body_size=most_body_bytes,
        # select() cannot wait for more than 1,024 files.
        asyncore_use_poll=True,
        # Which server this is concerns nobody.
        ident=None,
    )
    return Server(host, listening.getsockname()[1], server)
