"""The one answer that takes seconds, a long study with all of its trials, kept until the study changes."""

import re
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

STUDY: Final = re.compile(r"/api/studies/(\d+)/*")
FRESH_SECONDS: Final = 10.0
"""For so long an answer is good in any case; optuna-dashboard reads a long study's trials no more often."""


@dataclass(frozen=True)
class _Answer:
    headers: list[tuple[str, str]]
    body: bytes
    seen: Hashable
    time: float


class Prepared:
    """An application whose first answers about a study are at hand."""

    def __init__(
        self,
        app: "WSGIApplication",
        look: Callable[[int], Hashable | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep answers of `app`.

        Args:
            app: Answers GET of a study, compressed.
            look: Something that is equal as long as a study's answer is, by the study's id; None where that
                cannot be told.
            clock: Tells seconds.
        """
        self._app, self._look, self._clock = app, look, clock
        self._answers: dict[int, _Answer] = {}
        self._locks: dict[int, threading.Lock] = {}
        self._guard = threading.Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer as `app` does."""
        study_id = _study_of(environ)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            # Whatever it changes, nobody gets to see what was before.
            self._answers.clear()
        if study_id is None:
            return self._app(environ, start_response)
        with self._guard:
            lock = self._locks.setdefault(study_id, threading.Lock())
        # Of several that ask at once, one works and the others wait for what it finds.
        with lock:
            seen = self._look(study_id)
            answer = self._answers.get(study_id)
            if answer is None or not self._is_good(answer, seen):
                answer, body = self._ask(environ, start_response, seen)
                if answer is None:
                    return body
                self._answers[study_id] = answer
        start_response("200 OK", answer.headers)
        return [answer.body]

    def _is_good(self, answer: _Answer, seen: Hashable | None) -> bool:
        is_fresh = self._clock() - answer.time < FRESH_SECONDS
        return is_fresh or (seen is not None and answer.seen == seen)

    def _ask(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", seen: Hashable | None
    ) -> tuple[_Answer | None, list[bytes]]:
        """The application's answer; where it is no good one, None and the body of what was started."""
        began: dict[str, Any] = {}

        def keep(status: str, headers: list[tuple[str, str]], *more: object) -> object:
            began.update(status=status, headers=headers, more=more)
            return lambda data: None

        now = self._clock()
        body = b"".join(self._app(environ, keep))  # type: ignore[arg-type]
        if not began["status"].startswith("200"):
            start_response(began["status"], began["headers"], *began["more"])
            return None, [body]
        return _Answer(began["headers"], body, seen, now), []


def _study_of(environ: "WSGIEnvironment") -> int | None:
    """The study that a client which takes gzip wants from its first trial on; None for other requests."""
    found = STUDY.fullmatch(environ.get("PATH_INFO", ""))
    is_first = environ.get("QUERY_STRING", "") in ("", "after=0")
    takes_gzip = "gzip" in environ.get("HTTP_ACCEPT_ENCODING", "")
    if found is None or environ["REQUEST_METHOD"] != "GET" or not is_first or not takes_gzip:
        return None
    return int(found[1])
