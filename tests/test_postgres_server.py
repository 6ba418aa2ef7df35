"""The tests' own tools: a real PostgreSQL server, and a proxy before it that fails as networks do."""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]  # It ships no types.
import pytest
from postgres import PostgresServer
from tcp_proxy import HOST, TcpProxy

SILENCE_SECONDS = 0.2
"""How long we look whether a byte comes that should not: too short a time passes, it never fails."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A running server."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture
def url(server: PostgresServer) -> str:
    """The URL of an empty database."""
    return server.create_database()


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[TcpProxy]:
    """A proxy before the server."""
    with TcpProxy(server.port) as opened:
        yield opened


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """A connection that commits each statement, closed in the end."""
    with contextlib.closing(psycopg2.connect(url, connect_timeout=60)) as connection:
        connection.autocommit = True
        yield connection


def ask(connection: Any, query: str) -> Any:
    """The first value of a query's answer."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def ask_at(url: str, query: str) -> Any:
    """The first value of a query's answer, over a connection of its own."""
    with connected(url) as connection:
        return ask(connection, query)


def run_at(url: str, statement: str) -> None:
    """Run a statement without an answer, over a connection of its own."""
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_server_is_postgresql_18_with_durable_commits(url: str) -> None:
    """It is set up for many connections, and a commit is in the log before its answer, as by default."""
    assert ask_at(url, "SHOW server_version_num").startswith("18")
    assert ask_at(url, "SHOW max_connections") == "200"
    assert ask_at(url, "SHOW synchronous_commit") == "on"
    assert ask_at(url, "SHOW server_encoding") == "UTF8"


def test_a_wrong_password_is_refused(url: str) -> None:
    """Connections over TCP need the one in the URL."""
    credentials, host = url.rsplit("@", 1)

    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(f"{credentials}x@{host}")


def test_databases_are_new_and_separate(server: PostgresServer) -> None:
    """What one holds, the other doesn't."""
    one, other = server.create_database(), server.create_database()
    run_at(one, "CREATE TABLE notes (text TEXT)")

    count = "SELECT count(*) FROM pg_tables WHERE tablename = 'notes'"
    assert (ask_at(one, count), ask_at(other, count)) == (1, 0)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_data_outlive_a_restart(server: PostgresServer, url: str, mode: Any) -> None:
    """The process is another, while port, database and password are the same; connections have ended."""
    port, pid = server.port, server.pid
    run_at(url, "CREATE TABLE notes AS SELECT 'kept' AS text")
    with connected(url) as connection:
        server.restart(mode)

        assert (server.port, server.pid != pid) == (port, True)
        assert ask_at(url, "SELECT text FROM notes") == "kept"
        with pytest.raises(psycopg2.OperationalError):
            ask(connection, "SELECT 1")


def test_a_stopped_server_is_gone_until_it_starts(server: PostgresServer, url: str) -> None:
    """Connections are refused, its process is neither there nor a zombie, and a second stop does nothing."""
    pid = server.pid
    server.stop()
    server.stop()
    try:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(RuntimeError, match=r"doesn't run; call start\(\)"):
            _ = server.pid
        with pytest.raises(psycopg2.OperationalError, match="refused"):
            psycopg2.connect(url)
    finally:
        server.start()
    assert ask_at(url, "SELECT 1") == 1
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()


def test_a_closed_server_leaves_only_its_log(tmp_path: Path) -> None:
    """Neither a process nor data, in its folder or where it had to put them."""
    with PostgresServer(tmp_path) as server:
        pid = server.pid
        with connected(server.create_database()) as connection:
            data = Path(ask(connection, "SHOW data_directory"))
        assert data.exists()

    assert not data.parent.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["server.log"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    """The server's own words, and nothing is left behind."""
    server = PostgresServer(tmp_path)
    with socket.create_server((HOST, server.port)), pytest.raises(RuntimeError) as failed, server:
        pass

    assert "could not create any TCP/IP sockets" in str(failed.value)
    assert [path.name for path in tmp_path.iterdir()] == ["server.log"]


def test_the_proxy_forwards(proxy: TcpProxy, url: str) -> None:
    """Answers longer than one chunk come whole, over several connections at once."""
    with connected(proxy.url(url)) as one, connected(proxy.url(url)) as other:
        assert ask(one, "SELECT repeat('x', 1000000)") == "x" * 1_000_000
        assert ask(other, "SELECT inet_server_port()") == proxy.target_port


def test_the_proxy_changes_only_the_port_of_a_url(proxy: TcpProxy) -> None:
    """A URL of another server is refused."""
    url = f"postgresql+psycopg2://ann:p%40ss@{HOST}:{proxy.target_port}/studies?connect_timeout=3"

    assert proxy.url(url) == url.replace(str(proxy.target_port), str(proxy.port))
    with pytest.raises(ValueError, match="is not for the proxy's target; give one of"):
        proxy.url(f"postgresql://{HOST}:1/studies")


def test_a_cut_ends_connections_and_refuses_new_ones(proxy: TcpProxy, url: str) -> None:
    """Both sides see it, and after it is mended new connections are as before."""
    with connected(proxy.url(url)) as connection:
        backend = connection.get_backend_pid()
        proxy.cut()

        with pytest.raises(psycopg2.OperationalError):
            ask(connection, "SELECT 1")
        with pytest.raises(psycopg2.OperationalError, match="refused"):
            psycopg2.connect(proxy.url(url))
    with connected(url) as direct:
        # The server ends the session when it sees its connection closed; each look is a statement.
        while ask(direct, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {backend}"):
            pass
    proxy.restore()
    assert ask_at(proxy.url(url), "SELECT 1") == 1


def test_a_stalled_query_is_answered_after_the_stall(proxy: TcpProxy, url: str) -> None:
    """No byte comes meanwhile, and the connection lives on."""
    answered = threading.Event()
    answers = []
    with connected(proxy.url(url)) as connection:

        def query() -> None:
            answers.append(ask(connection, "SELECT 42"))
            answered.set()

        proxy.stall()
        thread = threading.Thread(target=query)
        thread.start()
        assert not answered.wait(SILENCE_SECONDS)
        assert ask_at(url, "SELECT 1") == 1

        proxy.restore()
        thread.join()
        assert answers == [42]
        assert ask(connection, "SELECT 43") == 43


def test_a_connection_during_a_stall_is_accepted_and_silent(proxy: TcpProxy, url: str) -> None:
    """The client's own timeout ends its wait."""
    proxy.stall()
    with socket.create_connection((HOST, proxy.port)) as client:
        # PostgreSQL's SSLRequest, which a server answers with one byte.
        client.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))
        assert select.select([client], [], [], SILENCE_SECONDS) == ([], [], [])
        with pytest.raises(psycopg2.OperationalError, match="timeout expired"):
            psycopg2.connect(proxy.url(url), connect_timeout=1)

        proxy.restore()
        assert client.recv(1) == b"N"


def test_a_cut_ends_a_stall(proxy: TcpProxy, url: str) -> None:
    """What was held is dropped, and who waits for an answer gets an error."""
    with connected(proxy.url(url)) as connection:
        failed = threading.Event()

        def query() -> None:
            with contextlib.suppress(psycopg2.OperationalError):
                ask(connection, "CREATE TABLE notes (text TEXT)")
            failed.set()

        proxy.stall()
        thread = threading.Thread(target=query)
        thread.start()
        assert not failed.wait(SILENCE_SECONDS)
        proxy.cut()
        thread.join()
        assert connection.closed
    assert ask_at(url, "SELECT count(*) FROM pg_tables WHERE tablename = 'notes'") == 0


def test_a_server_restarts_behind_its_proxy(server: PostgresServer, proxy: TcpProxy, url: str) -> None:
    """While it is down the proxy closes what it accepts; then the same URL works again."""
    server.stop()
    try:
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(proxy.url(url))
    finally:
        server.start()

    assert ask_at(proxy.url(url), "SELECT 1") == 1


def test_a_closed_proxy_leaves_no_thread(server: PostgresServer, url: str) -> None:
    """Whether its connections were open, or stalled while they opened."""
    before = set(threading.enumerate())
    with TcpProxy(server.port) as proxy, connected(proxy.url(url)):
        proxy.stall()
        with socket.create_connection((HOST, proxy.port)):
            assert not set(threading.enumerate()) <= before
            proxy.close()
            assert set(threading.enumerate()) <= before
