"""Compression: who gets it, and that nobody gets anything else than the plain answer."""

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from optuna_dashboard import wsgi
from served import Answer, ask

from search.dashboard.compress import LEAST_BYTES, compress

LONG = b"all work and no play makes jack a dull boy. " * 100
Start = Callable[..., Any]


class Body:
    """An answer's body in two parts, which has to be closed."""

    def __init__(self, content: bytes) -> None:
        """A body that is open."""
        self.content, self.closed = content, 0

    def __iter__(self) -> Iterator[bytes]:
        """The parts."""
        yield self.content[:10]
        yield self.content[10:]

    def close(self) -> None:
        """Count."""
        self.closed += 1


def app_of(content: bytes, content_type: str = "application/json", **headers: str) -> tuple[Any, Body]:
    """An application that gives this answer, and its body."""
    body = Body(content)

    def app(environ: Any, start_response: Start) -> Body:
        given = {"Content-Type": content_type, "Content-Length": str(len(content)), **headers}
        start_response("200 OK", list(given.items()))
        return body

    return compress(app), body


def get(app: Any, accepted: str | None = "gzip, deflate, br", path: str = "/", method: str = "GET") -> Answer:
    """What a client that takes these encodings is answered; None says nothing about them."""
    return ask(app, path, method, headers={} if accepted is None else {"Accept-Encoding": accepted})


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/html; charset=UTF-8", "text/plain", "application/javascript", "image/svg+xml"],
)
def test_texts_are_compressed_for_clients_that_take_it(content_type: str) -> None:
    """To the same content, of a length that is told, closed after reading."""
    app, body = app_of(LONG, content_type)

    answer = get(app)

    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["content-type"] == content_type
    assert int(answer.headers["content-length"]) == len(answer.body) < len(LONG) / 10
    assert gzip.decompress(answer.body) == LONG
    assert body.closed == 1


def test_an_answer_is_the_same_bytes_each_time() -> None:
    """Without a time in it, for whoever compares."""
    assert get(app_of(LONG)[0]).body == get(app_of(LONG)[0]).body


@pytest.mark.parametrize("accepted", [None, "", "identity", "br, deflate"])
def test_others_get_the_plain_answer(accepted: str | None) -> None:
    """With the headers of the application."""
    app, body = app_of(LONG)

    answer = get(app, accepted)

    assert answer.body == LONG
    assert "content-encoding" not in answer.headers
    assert int(answer.headers["content-length"]) == len(LONG)
    assert body.closed == 1


@pytest.mark.parametrize("accepted", ["gzip;q=0", "identity, gzip; q=0.0"])
def test_whoever_refuses_gzip_does_not_get_it(accepted: str) -> None:
    """A weight of 0 is a refusal (RFC 9110, 12.4.2)."""
    assert get(app_of(LONG)[0], accepted).body == LONG


@pytest.mark.parametrize("size", [0, 1, LEAST_BYTES - 1])
def test_small_answers_stay_plain(size: int) -> None:
    """They fit into a packet; what caches are told is the same."""
    answer = get(app_of(LONG[:size])[0])

    assert answer.body == LONG[:size]
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-length"] == str(size)
    assert answer.headers["vary"] == "Accept-Encoding"


def test_the_first_size_that_is_compressed() -> None:
    """Is the bound itself."""
    assert get(app_of(LONG[:LEAST_BYTES])[0]).headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("content_type", ["image/png", "application/x-hdf5", "application/octet-stream"])
def test_what_is_no_text_stays_as_it_is(content_type: str) -> None:
    """Models and pictures are compressed already, or hardly can be."""
    app, body = app_of(LONG, content_type)

    answer = get(app)

    assert answer.body == LONG
    assert "content-encoding" not in answer.headers
    assert body.closed == 1


def test_what_is_encoded_already_stays_as_it_is() -> None:
    """As optuna-dashboard's own program, which it keeps compressed."""
    app, _ = app_of(gzip.compress(LONG), "application/javascript", **{"Content-Encoding": "gzip"})

    answer = get(app)

    assert gzip.decompress(answer.body) == LONG


def test_a_head_request_gets_no_body() -> None:
    """Nothing is compressed for it."""

    def app(environ: Any, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(LONG)))])
        return []

    answer = get(compress(app), method="HEAD")

    assert (answer.body, answer.headers["content-length"]) == (b"", str(len(LONG)))


def test_status_and_other_headers_are_kept() -> None:
    """Of an error that is long enough, too."""

    def app(environ: Any, start_response: Start) -> list[bytes]:
        start_response("404 Not Found", [("Content-Type", "text/html"), ("X-Mine", "1")])
        return [LONG]

    answer = get(compress(app))

    assert (answer.status, answer.headers["x-mine"], answer.content) == (404, "1", LONG)


def test_an_answer_without_content_has_no_headers_of_one() -> None:
    """Neither a length nor an encoding (204 of a saved note, 304 of a page that has not changed)."""

    def app(environ: Any, start_response: Start) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    answer = get(compress(app))

    assert (answer.status, answer.headers, answer.body) == (204, {}, b"")


def test_a_body_that_fails_is_closed() -> None:
    """Whoever waits for that file or connection gets it back."""

    class Failing(Body):
        def __iter__(self) -> Iterator[bytes]:
            yield self.content
            raise OSError("the disk")

    body = Failing(LONG)

    def app(environ: Any, start_response: Start) -> Body:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    with pytest.raises(OSError, match="the disk"):
        ask(compress(app), "/", headers={"Accept-Encoding": "gzip"}, is_valid=False)
    assert body.closed == 1


@pytest.fixture(scope="module")
def dashboard() -> Any:
    """The stock optuna-dashboard over a study, compressed."""
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s")
    for number in range(20):
        study.add_trial(optuna.create_trial(value=number, user_attrs={"name": f"trial {number}"}))
    return compress(wsgi(storage))


@pytest.mark.parametrize("path", ["/dashboard", "/static/bundle.js"])
def test_files_come_to_clients_that_do_not_say_what_they_take(dashboard: Any, path: str) -> None:
    """On which optuna-dashboard alone fails; whoever takes gzip gets the same content."""
    silent, asking = (
        ask(dashboard, path, headers=headers, is_valid=False) for headers in ({}, {"Accept-Encoding": "gzip"})
    )

    assert (silent.status, asking.status) == (200, 200)
    assert "content-encoding" not in silent.headers
    assert asking.content == silent.body
    assert len(silent.body) == int(silent.headers["content-length"])


def test_a_studys_answer_is_the_same_compressed(dashboard: Any) -> None:
    """To the byte."""
    plain = ask(dashboard, "/api/studies/0", is_valid=False)
    packed = ask(dashboard, "/api/studies/0", headers={"Accept-Encoding": "gzip"}, is_valid=False)

    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.body
    assert len(packed.body) < len(plain.body) / 3


def test_a_page_that_has_not_changed_is_not_sent_again(dashboard: Any) -> None:
    """304 passes as it is."""
    page = ask(dashboard, "/dashboard", headers={"Accept-Encoding": "gzip"}, is_valid=False)
    headers = {"Accept-Encoding": "gzip", "If-None-Match": page.headers["etag"]}

    again = ask(dashboard, "/dashboard", headers=headers, is_valid=False)

    assert (again.status, again.body) == (304, b"")
