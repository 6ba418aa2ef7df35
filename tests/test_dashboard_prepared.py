"""The kept answer: for how long it is good, for whom, and what ends it."""

import gzip
import threading
from collections.abc import Callable
from typing import Any

import pytest
from served import Answer, ask

from search.dashboard.prepared import FRESH_SECONDS, Prepared


class Study:
    """A study whose answers are counted, with a clock beside it."""

    def __init__(self) -> None:
        """A study that nobody has asked for."""
        self.now = 1000.0
        self.seen: Any = "as it was"
        self.status = "200 OK"
        self.asked: list[str] = []
        self.content = "trials"
        self.app = Prepared(self.answer, lambda _: self.seen, lambda: self.now)

    def answer(self, environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        """What the application behind says: its content, and the how-manieth answer it is."""
        self.asked.append(environ["PATH_INFO"])
        start_response(self.status, [("Content-Type", "application/json"), ("Content-Encoding", "gzip")])
        return [gzip.compress(f"{self.content} {len(self.asked)}".encode())]

    def get(
        self, path: str = "/api/studies/7?after=0", method: str = "GET", accepted: str = "gzip"
    ) -> Answer:
        """Ask through what keeps answers."""
        return ask(self.app, path, method, headers={"Accept-Encoding": accepted}, is_valid=False)

    def text(self, path: str = "/api/studies/7?after=0") -> str:
        """What a page is answered."""
        return self.get(path).text


@pytest.fixture
def study() -> Study:
    """A study."""
    return Study()


def test_an_answer_is_kept_while_the_study_does_not_change(study: Study) -> None:
    """For however long; the copy is the answer, headers included."""
    first = study.get()
    study.now += 100_000.0

    again = study.get()

    assert again == first
    assert again.headers["content-encoding"] == "gzip"
    assert study.asked == ["/api/studies/7"]


def test_after_a_change_there_is_a_new_answer_within_ten_seconds(study: Study) -> None:
    """Until then the old one will do: optuna-dashboard itself keeps what it has read for so long."""
    assert study.text() == "trials 1"
    study.seen = "otherwise"

    study.now += FRESH_SECONDS - 0.001
    assert study.text() == "trials 1"
    study.now += 0.001
    assert study.text() == "trials 2"
    study.now += FRESH_SECONDS - 0.001
    assert study.text() == "trials 2"
    # That one may be of trials that optuna-dashboard had read before the change. The next one is not.
    for _ in range(3):
        study.now += 100_000.0
        assert study.text() == "trials 3"


def test_a_study_that_is_not_watched_is_asked_anew_after_ten_seconds(study: Study) -> None:
    """Nobody can tell whether it has changed; it may be another program's."""
    study.seen = None

    texts = []
    for _ in range(3):
        texts.append(study.text())
        study.now += FRESH_SECONDS
    study.now -= 0.001
    texts.append(study.text())

    assert texts == ["trials 1", "trials 2", "trials 3", "trials 3"]


def test_the_time_of_an_answer_is_when_it_was_asked_for(study: Study) -> None:
    """It holds what was there then, however long it took."""
    answer = study.answer

    def slow(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        study.now += 60.0
        return answer(environ, start_response)

    study.app = Prepared(slow, lambda _: study.seen, lambda: study.now)
    study.text()
    study.seen = "changed meanwhile"

    assert study.text() == "trials 2"


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/api/studies/7/note", "/api/trials/3/tell", "/elsewhere"])
def test_a_change_made_here_ends_every_kept_answer(study: Study, method: str, path: str) -> None:
    """Whoever made it sees it at once."""
    study.text()
    study.text("/api/studies/8")

    study.get(path, method)

    assert study.text() == "trials 4"
    assert study.text("/api/studies/8") == "trials 5"


def test_an_answer_from_within_a_change_is_not_kept(study: Study) -> None:
    """A page that asks while another one's edit is under way would bring back what was before."""
    answer = study.answer

    def edit(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["REQUEST_METHOD"] == "PUT":
            assert study.text() == "trials 1"
            study.content = "trials with a note"
        return answer(environ, start_response)

    study.app = Prepared(edit, lambda _: study.seen, lambda: study.now)
    study.get("/api/studies/7/note", "PUT")

    assert study.text().startswith("trials with a note")


@pytest.mark.parametrize(
    ("path", "method", "accepted"),
    [
        ("/api/studies/7?after=20", "GET", "gzip"),
        ("/api/studies/7?after=0&x=1", "GET", "gzip"),
        ("/api/studies/7?after=0", "GET", "identity"),
        ("/api/studies/7?after=0", "GET", ""),
        ("/api/studies/7?after=0", "HEAD", "gzip"),
        ("/api/studies/7?after=0", "OPTIONS", "gzip"),
        ("/api/studies", "GET", "gzip"),
        ("/api/studies/7/param_importances", "GET", "gzip"),
        ("/api/studies/seven", "GET", "gzip"),
        ("/dashboard", "GET", "gzip"),
    ],
)
def test_other_requests_pass(study: Study, path: str, method: str, accepted: str) -> None:
    """Neither from what is kept nor into it."""
    for _ in range(2):
        study.get(path, method, accepted)
    assert len(study.asked) == 2
    study.get()
    assert len(study.asked) == 3


def test_the_ways_to_ask_for_a_whole_study_share_an_answer(study: Study) -> None:
    """optuna-dashboard ignores slashes at the end."""
    for path in ("/api/studies/7?after=0", "/api/studies/7", "/api/studies/7/", "/api/studies/07//?after=0"):
        assert study.text(path) == "trials 1"
    assert study.text("/api/studies/70") == "trials 2"


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Internal Server Error", "302 Found", "204 No Content"]
)
def test_an_error_is_not_kept(study: Study, status: str) -> None:
    """A study that is made later is found, a database that is back is asked."""
    study.status = status
    first = study.get()
    study.status = "200 OK"
    second = study.get()

    assert (first.status, first.text) == (int(status[:3]), "trials 1")
    assert (second.status, second.text) == (200, "trials 2")


def test_an_error_after_a_good_answer_ends_it(study: Study) -> None:
    """A deleted study is gone."""
    study.text()
    study.seen, study.status = None, "404 Not Found"
    study.now += FRESH_SECONDS

    assert study.get().status == 404
    study.status = "200 OK"
    assert study.text() == "trials 3"


def test_a_failure_leaves_no_lock(study: Study) -> None:
    """The next one asks again."""
    answer = study.answer
    errors = [OSError("gone")]

    def fail(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        if errors:
            raise errors.pop()
        return answer(environ, start_response)

    study.app = Prepared(fail, lambda _: study.seen, lambda: study.now)

    with pytest.raises(OSError, match="gone"):
        study.get()
    assert study.text() == "trials 1"


def test_of_several_visitors_at_once_one_makes_the_server_work(study: Study) -> None:
    """The others wait for the same answer; another study's visitors do not wait for it."""
    begun, go_on = threading.Event(), threading.Event()
    answer = study.answer

    def slow(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/api/studies/7":
            begun.set()
            assert go_on.wait(60)
        return answer(environ, start_response)

    study.app = Prepared(slow, lambda _: study.seen, lambda: study.now)
    texts: list[str] = []
    visitors = [threading.Thread(target=lambda: texts.append(study.text())) for _ in range(6)]
    for visitor in visitors:
        visitor.start()
    assert begun.wait(60)

    assert study.text("/api/studies/8") == "trials 1"
    go_on.set()
    for visitor in visitors:
        visitor.join(60)

    assert texts == ["trials 2"] * 6
    assert study.asked == ["/api/studies/8", "/api/studies/7"]


def test_a_study_number_of_any_length_is_answered(study: Study) -> None:
    """Python refuses to read one of thousands of digits; that is no reason to fail."""
    for digits in (1, 20, 4300):
        assert study.get(f"/api/studies/{'9' * digits}").status == 200


def test_a_study_number_too_long_for_python_is_answered(study: Study) -> None:
    """From 4,301 digits on (`sys.set_int_max_str_digits`); waitress lets them through."""
    assert study.get(f"/api/studies/{'9' * 4301}").status == 200


def test_asking_for_studies_that_are_not_there_leaves_nothing(study: Study) -> None:
    """Or a visitor could fill the memory by counting."""
    study.status = "404 Not Found"
    for number in range(100):
        study.get(f"/api/studies/{number}")

    assert len(study.app._locks) + len(study.app._answers) < 50
