"""`cnn-search dashboard` as a command: where it listens, what it refuses to do, and how it ends."""

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import COMMAND, Finished
from served import MODEL, Command, basic, make_study
from tcp_proxy import TcpProxy
from test_search_cli import assert_refused

from search.dashboard.app import listen
from search.errors import DashboardError
from storage.database import open_database

PASSWORD = "hünter 2"
Cli = Callable[..., Finished]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with a study that has a best trial."""
    url = f"sqlite:///{tmp_path_factory.mktemp('command') / 'study.db'}"
    fill(url)
    return url


def fill(url: str) -> None:
    """Make a study with a best trial."""
    database = open_database(url)
    shown = make_study(database)
    shown.finish(shown.ask(0.75), 0.75)
    database.close()


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of this machine that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def run(*arguments: object) -> Finished:
    """The command with these arguments, to its end."""
    ended = subprocess.run([COMMAND, "dashboard", *map(str, arguments)], capture_output=True, text=True)
    return Finished(ended.returncode, ended.stdout, ended.stderr)


def title_of(pid: int) -> str:
    """What lists of processes show."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_it_says_where_it_is_and_serves_until_it_is_told_to_end(stored: str) -> None:
    """The page's address alone on stdout, for scripts; 0 after SIGTERM, as from a service manager."""
    with Command(stored) as command:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/dashboard\n", command.first_line)
        page = command.ask("/dashboard")
        model = command.ask("/best.h5")
        refused = command.ask("/api/studies", "POST", {"Content-Type": "application/json"}, b"{}")
        ended = command.stop(signal.SIGTERM)

    assert (page.status, model.status, model.body) == (200, 200, MODEL)
    assert b"<html" in page.body
    assert refused.status == 403
    # Nobody need know what it runs on.
    assert "server" not in page.headers
    assert (ended.code, ended.out) == (0, command.first_line)
    assert ended.err == f"reading the studies in {stored}\nread-only; Ctrl-C stops\n"


def test_ctrl_c_ends_it_as_interrupted(stored: str) -> None:
    """Without a traceback, and while somebody is connected."""
    with Command(stored) as command, command.connect() as idle:
        idle.sendall(b"GET /dash")
        ended = command.stop(signal.SIGINT)

    assert (ended.code, ended.out) == (130, command.first_line)
    assert "Traceback" not in ended.err


def test_a_service_manager_may_end_it_while_it_starts(stored: str) -> None:
    """As when it is told to stop what it has just started: 0, and nothing is said to be interrupted."""
    script = f"""
import os, signal, sys
from search.cli import main
from search.dashboard.upkeep import Upkeep
Upkeep.start = lambda _: os.kill(os.getpid(), signal.SIGTERM)
sys.argv = ["cnn-search", "dashboard", "--storage", {stored!r}, "--port", "0"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (ended.returncode, "interrupted" in ended.stderr) == (0, False)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """`nohup cnn-search dashboard &` outlives its terminal."""
    script = """
import os, signal
from search.cli.dashboard import _Stop
signal.signal(signal.SIGHUP, signal.SIG_IGN)
_Stop()
os.kill(os.getpid(), signal.SIGHUP)
print("still here")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert ended.stdout == "still here\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_every_loopback_address_answers_by_its_own_name(stored: str) -> None:
    """The address that is told is one that is answered to."""
    with Command(stored, "--host", "127.0.0.2") as command:
        assert urlsplit(command.url).hostname == "127.0.0.2"
        assert command.ask("/dashboard", host="127.0.0.2").status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_passwords_are_shown_nowhere(postgres: Callable[[], str], tmp_path: Path) -> None:
    """Neither the visitors' nor the database's: not in output, log, the list of processes, or an answer."""
    url = postgres()
    fill(url)
    secret = urlsplit(url).password
    assert secret
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    with Command(url, "--password-file", file, "--host", "0.0.0.0", "--allow-edits", "--debug") as command:
        # Whichever address it has, this one leads there.
        assert command.first_line == f"http://127.0.0.1:{command.port}/dashboard\n"
        title = title_of(command.process.pid)
        stranger = command.ask("/dashboard")
        wrong = command.ask("/dashboard", headers=basic("wrong"))
        guest = command.ask("/api/studies", headers={**basic(PASSWORD), "Host": "gpu-7.lan"})
        unknown = command.ask("/best.h5?study=nowhere", headers=basic(PASSWORD))
        probe = command.ask("/healthz")
        ended = command.stop(signal.SIGTERM)

    assert (stranger.status, wrong.status, guest.status, probe.status) == (401, 401, 200, 200)
    assert guest.json["study_summaries"][0]["study_name"] == "cifar10"
    assert "***@" in unknown.text
    assert "***@" in title
    assert ended.code == 0
    assert "changes are allowed; Ctrl-C stops" in ended.err
    shown = "".join([title, ended.out, ended.err, *(one.text for one in (stranger, wrong, unknown))])
    for password in (PASSWORD, secret):
        assert password not in shown


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_password_can_come_from_the_environment(stored: str) -> None:
    """Where only this process and its user see it."""
    with Command(stored, CNN_SEARCH_DASHBOARD_PASSWORD=PASSWORD) as command:
        assert PASSWORD not in title_of(command.process.pid)
        assert command.ask("/api/studies").status == 401
        assert command.ask("/api/studies", headers=basic(PASSWORD)).status == 200
        assert PASSWORD not in command.log()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gpu-7.lan"])
def test_listening_to_others_needs_a_decision(cli: Cli, stored: str, host: str) -> None:
    """A password, or the words that there is none."""
    ended = cli("dashboard", "--storage", stored, "--host", host)

    assert_refused(
        ended, 2, f"whoever reaches {host} would see everything", "--password-file", "--no-password"
    )
    assert "CNN_SEARCH_DASHBOARD_PASSWORD" in ended.err


def test_an_explicit_no_password_listens_to_others(stored: str) -> None:
    """By any name that the machine has."""
    with Command(stored, "--host", "0.0.0.0", "--no-password") as command:
        assert command.ask("/api/studies", headers={"Host": "gpu-7.lan"}).status == 200


def test_password_and_no_password_contradict_each_other(cli: Cli, stored: str, tmp_path: Path) -> None:
    """One of them was not meant."""
    file = tmp_path / "password"
    file.write_text("secret")

    ended = cli("dashboard", "--storage", stored, "--password-file", file, "--no-password")

    assert_refused(ended, 2, "--password-file and --no-password contradict each other; leave one out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty; put a password into it"),
        (b"\n", "is empty; put a password into it"),
        (b"\r\n\n", "is empty; put a password into it"),
        (b"\xef\xbb\xbf\n", "is empty; put a password into it"),
        (b"\xff\xfe", "cannot be read: it is no UTF-8 text"),
        ("folder", "cannot be read: Is a directory"),
    ],
)
def test_a_password_file_without_a_password_is_refused(
    cli: Cli, stored: str, tmp_path: Path, content: bytes | str | None, words: str
) -> None:
    """It would let nobody in, or everybody."""
    file = tmp_path / "password"
    if content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)

    assert_refused(cli("dashboard", "--storage", stored, "--password-file", file), 2, str(file), words)


def test_an_empty_password_in_the_environment_is_refused(
    cli: Cli, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that was to be filled, and was not."""
    monkeypatch.setenv("CNN_SEARCH_DASHBOARD_PASSWORD", "")

    ended = cli("dashboard", "--storage", stored)

    assert_refused(ended, 2, "CNN_SEARCH_DASHBOARD_PASSWORD is empty; put a password into it, or unset it")


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(cli: Cli, stored: str, port: str) -> None:
    """Before anything is opened."""
    assert_refused(cli("dashboard", "--storage", stored, "--port", port), 2, "--port", port)


def test_a_port_in_use_is_named(stored: str, taken_port: int) -> None:
    """With what to do about it."""
    ended = run("--storage", stored, "--port", taken_port)

    words = f"cannot listen on 127.0.0.1 port {taken_port}: Address already in use"
    assert_refused(ended, 1, words, "; name another with --host or --port")


# TEST-NET-1 of RFC 5737, and a name that RFC 2606 keeps from being one.
@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_a_host_that_is_not_this_machine_is_named(host: str) -> None:
    """By address or name."""
    with pytest.raises(DashboardError, match=rf"cannot listen on {host} port 0: .+; name another"):
        listen(lambda *_: [], host, 0)


def test_a_missing_database_is_named_and_not_made(tmp_path: Path) -> None:
    """The message says what would make it."""
    ended = run("--storage", f"sqlite:///{tmp_path}/none.db", "--port", 0)

    assert_refused(ended, 1, f"{tmp_path}/none.db: no such file; `cnn-search run` starts a study there")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "localhost"])
def test_the_address_that_is_told_leads_there(host: str) -> None:
    """From this machine, whatever is listened on."""
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")

    def answer(environ: object, start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"in"]

    server = listen(answer, host, 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        parts = urlsplit(server.url)
        assert parts.port == server.port > 0
        assert parts.hostname
        with socket.create_connection((parts.hostname, server.port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.0 200 OK")
    finally:
        close(server)
        thread.join()


def close(server: object) -> None:
    """End a server that runs in another thread, which no signal reaches."""
    inner = server._server  # type: ignore[attr-defined]
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        raise SystemExit

    inner.trigger.pull_trigger(stop)
    assert stopped.wait(60)
    inner.close()


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_it_goes_on_when_its_database_comes_back(postgres: Callable[[], str]) -> None:
    """While that is away, probes and Prometheus are told so, by a server that still answers."""
    url = postgres()
    fill(url)
    port = urlsplit(url).port
    assert port is not None
    with TcpProxy(port) as proxy, Command(proxy.url(url)) as command:
        assert command.ask("/healthz").status == 200
        proxy.cut()
        down = command.ask("/healthz")
        metrics = command.ask("/metrics")
        page = command.ask("/dashboard")
        proxy.restore()
        up = command.ask("/healthz")
        again = command.ask("/best.h5")
        ended = command.stop(signal.SIGTERM)

    assert (down.status, up.status) == (503, 200)
    assert down.json == {"status": "the database does not answer"}
    assert "cnn_search_database_up 0.0" in metrics.text
    assert page.status == 200
    assert (again.status, again.body) == (200, MODEL)
    assert ended.code == 0
    assert "Traceback" not in ended.err


def test_help_says_what_is_safe_and_what_is_not() -> None:
    """Each option in a sentence, with its default."""
    helped = run("--help")

    assert helped.code == 0
    text = " ".join(helped.out.split())
    for words in (
        "Address to listen on. [default: 127.0.0.1]",
        "0 for any that is free. [default: 8080",
        "Ask visitors for the password in this file. [or: CNN_SEARCH_DASHBOARD_PASSWORD",
        "Listen beyond this machine without a password.",
        "Let visitors change notes, delete studies and so on.",
        "/best.h5",
        "/metrics",
    ):
        assert words in text, words
