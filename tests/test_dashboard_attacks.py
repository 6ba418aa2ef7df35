"""What strangers try on the served dashboard, over real sockets: nothing changes, and it goes on."""

import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from served import WAIT_SECONDS, Command, Shown, make_study, read_all, read_to_end

from storage.database import Database, open_database

SECRET = b"content of a file of the other study, which its path does not name"
HUGE_BYTES = 200 << 20
CHUNK = bytes(1 << 20)
SLOW_CLIENTS = 200
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@dataclass(frozen=True)
class Target:
    """A served dashboard, and what only its owner knows."""

    command: Command
    database: Database
    shown: Shown
    trial_id: int
    file: str
    other: Shown
    other_trial_id: int
    other_file: str

    def is_well(self) -> bool:
        """Whether a browser gets its page, the studies and a study."""
        pages = ("/dashboard", "/api/studies", f"/api/studies/{self.shown.study_id}?after=0", "/healthz")
        answers = [self.command.ask(page, headers={"Accept-Encoding": "gzip"}) for page in pages]
        return [answer.status for answer in answers] == [200] * 4


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A dashboard of two studies, as it is served by default."""
    url = f"sqlite:///{tmp_path_factory.mktemp('attacks') / 'study.db'}"
    database = open_database(url)
    made: list[Any] = []
    for name, model in (("cifar10", b"model"), ("other", SECRET)):
        shown = make_study(database, name)
        trial = shown.ask(0.75)
        made += [shown, trial._trial_id, shown.finish(trial, 0.75, model=model)]
    with Command(url) as command:
        yield Target(command, database, *made)
    database.close()


@pytest.fixture(autouse=True)
def unharmed(target: Target) -> Iterator[None]:
    """After each attack the server is as well as before, and the database holds the same."""
    before = read_all(target.database)
    yield
    assert target.is_well()
    assert target.command.process.poll() is None
    after = read_all(target.database)
    # Who renews a lease, and when, is not the visitors' doing.
    for rows in (before, after):
        rows.pop("cnn_search_workers")
    assert after == before


def status_of(answer: bytes) -> int:
    """The status of a raw answer; 0 for a connection that was closed without one."""
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(found[1]) if found else 0


def get(path: bytes, *headers: bytes, method: bytes = b"GET", host: bytes = b"127.0.0.1") -> bytes:
    """A request, byte by byte as given."""
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: " + host, b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def artifact_paths(target: Target) -> list[bytes]:
    """Paths that look like a stored file's and are none of this study's."""
    study, trial = target.shown.study_id, target.trial_id
    own, foreign = target.file.encode(), target.other_file.encode()
    root = f"/artifacts/{study}/{trial}/".encode()
    passwd = [
        b"../../../../../../etc/passwd",
        b"..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        b"%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        b"%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        b"%252e%252e%252fetc%252fpasswd",
        b"..\\..\\..\\etc\\passwd",
        b"..%5c..%5cetc%5cpasswd",
        b"....//....//etc/passwd",
        b"%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
        b"/etc/passwd",
        b"//etc/passwd",
        b"file:///etc/passwd",
    ]
    others = [
        foreign,
        foreign.upper(),
        b"../" + foreign,
        f"../../{target.other.study_id}/{target.other_trial_id}/".encode() + b"%2e%2e/" + foreign,
        own + b"%00",
        own + b"%00.png",
        b"%00",
        own + b".h5",
        own + b"/../" + foreign,
        own[:-1],
        own + b"0",
        b"",
        b"-",
        b"0" * 64,
        b"a" * 5_000,
        b"a" * 100_000,
        b"%00" * 2_000,
        b"'%20OR%20'1'='1",
        b"%25",
        b"%",
        b"%zz",
        "\N{ARABIC-INDIC DIGIT ONE}".encode(),
    ]
    elsewhere = [
        f"/artifacts/{study}/".encode() + foreign,
        f"/artifacts/{study}/".encode() + own,
        f"/artifacts/{study}/{target.other_trial_id}/".encode() + own,
        f"/artifacts/{target.other.study_id}/{trial}/".encode() + foreign,
        b"/artifacts/-1/-1/" + own,
        b"/artifacts/99999999999999999999/1/" + own,
        b"/artifacts/" + b"9" * 5_000 + b"/1/" + own,
        b"/artifacts/1e0/1/" + own,
        b"/static/../../../../../../../etc/passwd",
        b"/static/%2e%2e/%2e%2e/_app.py",
        b"/static/..%2f_app.py",
        b"/static/%2fetc%2fpasswd",
        b"/static//etc/passwd",
        b"/static/%00",
        b"/static/bundle.js%00",
        b"/static/bundle.js%00.gz",
        b"/static/" + b"x" * 5_000,
        b"/static/.",
        b"/static/",
        b"/dashboard/../../../etc/passwd",
        b"/../../../../etc/passwd",
        b"//etc/passwd",
        b"http://evil.example/etc/passwd",
    ]
    return [*(root + end for end in (*passwd, *others)), *elsewhere]


def test_paths_lead_to_nothing_but_what_they_name(target: Target) -> None:
    """No file of this machine, none of another study, by none of the spellings; the right one works."""
    for path in artifact_paths(target):
        for accepted in (b"identity", b"gzip"):
            answer = target.command.send(get(path, b"Accept-Encoding: " + accepted))

            shown = path[:80]
            assert b"root:" not in answer, shown
            assert SECRET not in answer, shown
            assert b"def create_app" not in answer, shown
            # A page of the program for a path below it is none of the machine's files.
            is_page = path.startswith(b"/dashboard/") and b"\r\nContent-Type: text/html" in answer
            assert 400 <= status_of(answer) < 600 or status_of(answer) == 302 or is_page, shown

    study, trial = target.shown.study_id, target.trial_id
    right = target.command.send(get(f"/artifacts/{study}/{trial}/{target.file}".encode()))
    assert (status_of(right), right.endswith(b"\r\n\r\nmodel")) == (200, True)


@pytest.mark.parametrize(
    "path", [b"/artifacts", b"/api/artifacts", b"/api/studies", b"/best.h5", b"/static/x"]
)
def test_changing_requests_are_refused_over_the_wire(target: Target, path: bytes) -> None:
    """With a body or without, by methods known and unknown."""
    body = b'{"study_name": "mine", "directions": ["maximize"]}'
    length = b"Content-Length: " + str(len(body)).encode()
    for method in (b"POST", b"PUT", b"PATCH", b"DELETE", b"TRACE", b"CONNECT", b"MKCOL", b"post", b"G\0ET"):
        for tricks in ([], [b"X-HTTP-Method-Override: DELETE"], [b"Transfer-Encoding: identity"]):
            request = get(path, b"Content-Type: application/json", length, *tricks, method=method) + body

            assert status_of(target.command.send(request)) in (400, 403, 405, 501), (method, tricks)


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"\xff" * 1000 + b"\r\n\r\n",
        get(b"/dashboard", b"Content-Length: -1"),
        get(b"/dashboard", b"Content-Length: 1", b"Content-Length: 2") + b"xx",
        get(b"/dashboard", b"Content-Length: 99999999999999999999999"),
        get(b"/dashboard", b"Transfer-Encoding: chunked") + b"ffffffffffffffff\r\n",
        get(b"/dashboard", b"Transfer-Encoding: chunked") + b"xyz\r\n\r\n",
        get(b"/dashboard", b"A: " + b"x" * 300_000),
        get(b"/dashboard", *(b"A%d: x" % number for number in range(60_000))),
        get(b"/api/studies", host=b"evil.example"),
        get(b"/api/studies", b"Host: evil.example"),
        get(b"http://evil.example/api/studies", host=b"evil.example"),
    ],
    ids=range(16),
)
def test_requests_that_are_none_are_refused(target: Target, request_: bytes) -> None:
    """Or answered by closing the connection; none of them ends the server."""
    with target.command.connect() as connection:
        try:
            connection.sendall(request_)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            # It has heard enough.
            pass
        answer = read_to_end(connection)

    assert status_of(answer) in (0, 400, 403, 413, 431, 501, 505), answer[:200]
    assert b"study_summaries" not in answer


@LINUX
@pytest.mark.parametrize("announced", ["length", "chunks", "expect"])
def test_a_huge_body_is_refused_and_not_kept(target: Target, announced: str) -> None:
    """200 MB, announced and sent, or sent in chunks that tell no sum: the process does not grow by it."""
    before = target.command.peak_bytes()
    headers = {
        "length": [f"Content-Length: {HUGE_BYTES}".encode()],
        "chunks": [b"Transfer-Encoding: chunked"],
        "expect": [f"Content-Length: {HUGE_BYTES}".encode(), b"Expect: 100-continue"],
    }[announced]
    chunk = CHUNK if announced != "chunks" else b"%x\r\n" % len(CHUNK) + CHUNK + b"\r\n"
    with target.command.connect() as connection:
        connection.sendall(get(b"/api/studies", b"Content-Type: application/json", *headers, method=b"POST"))
        sent = 0
        try:
            while sent < HUGE_BYTES:
                connection.sendall(chunk)
                sent += len(CHUNK)
        except (BrokenPipeError, ConnectionResetError):
            # It has heard enough.
            pass
        answer = read_to_end(connection)

    # A client that goes on sending after the answer may see the connection reset before it.
    assert status_of(answer) in (0, 403, 413)
    assert sent < HUGE_BYTES
    assert target.command.peak_bytes() - before < HUGE_BYTES // 4


@LINUX
def test_slow_clients_hold_up_nobody(target: Target) -> None:
    """200 with half a header, 200 with a byte of the body they announced: others are answered meanwhile."""
    threads = target.command.threads()
    slow: list[socket.socket] = []
    try:
        for _ in range(SLOW_CLIENTS):
            slow += [target.command.connect(), target.command.connect()]
            slow[-2].sendall(b"GET /dashboard HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            slow[-1].sendall(get(b"/api/studies", b"Content-Length: 1000", method=b"POST") + b"{")
        for _ in range(3):
            assert target.is_well()
            for connection in slow:
                connection.sendall(b"x")
        assert target.command.threads() == threads
        # They were waited for all the time: whoever finishes is answered.
        slow[0].sendall(b"\r\nConnection: close\r\n\r\n")
        assert status_of(read_to_end(slow[0])) == 200
    finally:
        for connection in slow:
            connection.close()


@LINUX
def test_clients_that_do_not_read_their_answer_hold_up_nobody(target: Target) -> None:
    """An answer that nobody takes waits in the server, in pieces, not in a thread."""
    lazy: list[socket.socket] = []
    try:
        for _ in range(50):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(WAIT_SECONDS)
            connection.connect(("127.0.0.1", target.command.port))
            connection.sendall(get(b"/static/bundle.js", b"Accept-Encoding: identity"))
            lazy.append(connection)
        assert target.is_well()
    finally:
        for connection in lazy:
            connection.close()


def test_what_strangers_send_is_no_fault_of_this_program(target: Target) -> None:
    """After all of the above; optuna-dashboard's own errors, of ids that no database takes, are 500 too."""
    log = target.command.log()

    # As waitress says it of what comes through to it.
    assert "Exception while serving" not in log, log[-3000:]
    assert len(log) < 1 << 20
