"""The one answer that takes seconds, a long study with all of its trials, kept until the study changes."""

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from search.dashboard.compress import takes_gzip

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

STUDY: Final = re.compile(r"/api/studies/(\d{1,18})/*")
NAMED: Final = re.compile(r"/(?:api/studies|csv)/(\d{1,18})\b.*")
"""Requests for which optuna-dashboard reads a study's trials."""
FRESH_SECONDS: Final = 10.0
"""For so long an answer is good in any case; optuna-dashboard reads a long study's trials no more often."""
LOCKS: Final = 16


@dataclass(frozen=True)
class _Answer:
    headers: list[tuple[str, str]]
    body: bytes
    seen: str | None
    is_lasting: bool
    time: float


class Prepared:
    """An application whose first answers about a study are at hand."""

    def __init__(
        self,
        app: "WSGIApplication",
        fingerprint: Callable[[int], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep answers of `app`.

        Args:
            app: Answers GET of a study, compressed.
            fingerprint: Equal as long as a study's answer is, by the study's id; None where that cannot be
                told.
            clock: Tells seconds.
        """
        self._app, self._fingerprint, self._clock = app, fingerprint, clock
        self._answers: dict[int, _Answer] = {}
        # What was seen last of a study, and since when. Who is in here has been asked about.
        self._sightings: dict[int, tuple[str | None, float]] = {}
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._changes = 0

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer as `app` does."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD", "OPTIONS"):
            return self._change(environ, start_response)
        study_id = _study_of(environ)
        if study_id is None:
            return self._pass(environ, start_response)
        # Of several that ask at once, one works and the others wait for what it finds.
        with self._locks[study_id % LOCKS]:
            seen, changes = self._fingerprint(study_id), self._changes
            answer = self._answers.get(study_id)
            if answer is None or not self._is_good(answer, seen):
                answer, body = self._ask(environ, start_response, study_id, seen)
                if answer is None:
                    return body
                if changes == self._changes:
                    self._answers[study_id] = answer
        start_response("200 OK", answer.headers)
        return [answer.body]

    def _pass(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer without keeping it, but remember for which study there was an answer."""
        named = NAMED.fullmatch(environ.get("PATH_INFO", ""))

        def start(status: str, *rest: Any) -> Any:
            if named is not None and status.startswith("200"):
                self._sightings.setdefault(int(named[1]), (None, self._clock()))
            return start_response(status, *rest)

        return self._app(environ, start)

    def _change(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Let something change; nobody gets to see what was before, nor keeps what was asked meanwhile."""
        try:
            return self._app(environ, start_response)
        finally:
            self._changes += 1
            self._answers.clear()

    def _is_good(self, answer: _Answer, seen: str | None) -> bool:
        is_fresh = self._clock() - answer.time < FRESH_SECONDS
        return is_fresh or (answer.is_lasting and seen is not None and answer.seen == seen)

    def _ask(
        self,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        study_id: int,
        seen: str | None,
    ) -> tuple[_Answer | None, list[bytes]]:
        """The application's answer; where it is no good one, None and the body of what was started."""
        began: dict[str, Any] = {}

        def keep(status: str, headers: list[tuple[str, str]], *more: object) -> object:
            began.update(status=status, headers=headers, more=more)
            return lambda data: None

        now = self._clock()
        before = self._sightings.get(study_id)
        body = b"".join(self._app(environ, keep))  # type: ignore[arg-type]
        if not began["status"].startswith("200"):
            start_response(began["status"], began["headers"], *began["more"])
            return None, [body]
        since = now if before is None or before[0] != seen else before[1]
        self._sightings[study_id] = (seen, since)
        # optuna-dashboard keeps the trials that it has read for some seconds. Its answer is of what was seen
        # only where it had read none yet, or where it was seen so for as long.
        is_lasting = before is None or now - since >= FRESH_SECONDS
        return _Answer(began["headers"], body, seen, is_lasting, now), []


def _study_of(environ: "WSGIEnvironment") -> int | None:
    """The study that a client which takes gzip wants from its first trial on; None for other requests."""
    found = STUDY.fullmatch(environ.get("PATH_INFO", ""))
    is_first = environ.get("QUERY_STRING", "") in ("", "after=0")
    if found is None or environ["REQUEST_METHOD"] != "GET" or not is_first or not takes_gzip(environ):
        return None
    return int(found[1])
