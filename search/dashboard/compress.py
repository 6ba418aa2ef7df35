"""Compressed answers for clients that take them."""

import gzip
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LEVEL: Final = 1
"""Of 17 MB of trials, level 1 leaves a tenth in a third of the time that level 6 takes for a fifteenth."""
LEAST_BYTES: Final = 1024
"""Below this an answer fits into a packet anyway."""
GZIP: Final = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", re.IGNORECASE)
TEXTS: Final = re.compile(r"(application/(json|javascript)|text/|image/svg)")


def takes_gzip(environ: "WSGIEnvironment") -> bool:
    """Whether the client names gzip among what it takes, and not with a weight of 0 (RFC 9110, 12.4.2)."""
    return GZIP.search(environ.get("HTTP_ACCEPT_ENCODING", "")) is not None


def compress(app: "WSGIApplication") -> "WSGIApplication":
    """`app` with its texts compressed by gzip."""

    def compressing(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        # optuna-dashboard fails on a request that does not say what it takes.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        if not takes_gzip(environ) or environ["REQUEST_METHOD"] == "HEAD":
            return app(environ, start_response)
        answer: dict[str, Any] = {}

        def keep(status: str, headers: list[tuple[str, str]], *more: object) -> object:
            answer.update(status=status, headers=headers, more=more)
            return lambda data: None

        body = app(environ, keep)  # type: ignore[arg-type]
        headers: list[tuple[str, str]] = answer["headers"]
        names = {name.lower(): value for name, value in headers}
        if "content-encoding" in names or not TEXTS.match(names.get("content-type", "")):
            start_response(answer["status"], headers, *answer["more"])
            return body
        try:
            content = b"".join(body)
        finally:
            if hasattr(body, "close"):
                body.close()
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        headers.append(("Vary", "Accept-Encoding"))
        if len(content) >= LEAST_BYTES:
            content = gzip.compress(content, LEVEL, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(content))))
        start_response(answer["status"], headers, *answer["more"])
        return [content]

    return compressing
