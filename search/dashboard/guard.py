"""What every request passes before it reaches the dashboard: who asks, from where, and to change what."""

import base64
import binascii
import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

READING: Final = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS: Final = ("/healthz",)
"""For probes, which have no password and may call the host by any name; they tell up or down."""
KEPT: Final = (
    (
        # Bottle takes a line's end after a path, and digits of any script.
        re.compile(r"(?s)/api/artifacts/.*"),
        ("DELETE",),
        "stored files stay with their trials; delete the study to remove them",
    ),
    (
        re.compile(r"(?s)/api/studies/.*/rename[\n/]*"),
        ("POST",),
        "optuna-dashboard renames by copying, and the copies would be without their models",
    ),
)
"""What is refused even where editing is allowed, because it loses models: path, methods, why."""
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
ARTIFACT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Content-Security-Policy of stored files: a page among them would run no script, least of all as ours."""
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Access:
    """Who may do what.

    Attributes:
        password: What to answer when asked, whatever the user name; None for nothing.
        allow_edits: Whether requests may change anything.
        hosts: The names under which the dashboard may be called; None for any. Where nobody has to give a
            password, another site's script must not reach it under a name of its own (DNS rebinding).
    """

    password: str | None = field(default=None, repr=False)
    allow_edits: bool = False
    hosts: tuple[str, ...] | None = None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def host_name(host: str) -> str:
    """An address as it stands in a URL and in a request's Host."""
    return f"[{host}]" if ":" in host else host


def guard(app: "WSGIApplication", access: Access) -> "WSGIApplication":
    """`app` behind the rules of `access`, with headers that keep other sites out."""

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        is_open = path in OPEN_PATHS and environ["REQUEST_METHOD"] in READING
        refused = None if is_open else _refuse(access, environ, path)
        start = _with_headers(start_response, path)
        if refused is None:
            return app(environ, start)
        return refused(start)

    return guarded


Refusal = Callable[["StartResponse"], Iterable[bytes]]


def _refuse(access: Access, environ: "WSGIEnvironment", path: str) -> Refusal | None:
    """How to refuse the request; None for a request that may pass."""
    host = environ.get("HTTP_HOST", "")
    try:
        path.encode("latin-1").decode("utf-8")
    except UnicodeError:
        # Bottle drops such bytes, and takes the rest for a path that the rules below have not seen.
        return _refusal("400 Bad Request", "the path is no UTF-8 text")
    if access.hosts is not None and _without_port(host) not in access.hosts:
        return _refusal("403 Forbidden", f"this dashboard is not called {host!r}; use {access.hosts[0]}")
    if access.password is not None and not _knows(access.password, environ):
        asked = {"WWW-Authenticate": 'Basic realm="cnn-search", charset="UTF-8"'}
        return _refusal("401 Unauthorized", "give the dashboard's password, with any user name", asked)
    method = environ["REQUEST_METHOD"].upper()
    if method in READING:
        return None
    if not access.allow_edits:
        return _refusal(
            "403 Forbidden",
            "this dashboard is read-only; `cnn-search dashboard --allow-edits` allows changes",
        )
    # Browsers name the page that a changing request comes from; tools need not.
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and origin.partition("://")[2] != host:
        return _refusal("403 Forbidden", f"changes are not taken from pages of {origin}")
    for pattern, methods, reason in KEPT:
        if method in methods and pattern.fullmatch(path):
            return _refusal("403 Forbidden", reason)
    return None


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).lower()


def _knows(password: str, environ: "WSGIEnvironment") -> bool:
    scheme, _, encoded = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        _, _, given = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, password.encode())


def answer_json(
    start_response: "StartResponse",
    status: str,
    values: Mapping[str, object],
    headers: Mapping[str, str] | None = None,
) -> list[bytes]:
    """Answer with `values`, as optuna-dashboard words its own errors: its pages show the `reason`."""
    body = json.dumps(values).encode()
    given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    start_response(status, list(given.items()))
    return [body]


def _refusal(status: str, reason: str, headers: Mapping[str, str] | None = None) -> Refusal:
    return lambda start_response: answer_json(start_response, status, {"reason": reason}, headers)


def _with_headers(start_response: "StartResponse", path: str) -> "StartResponse":
    def start(status: str, headers: list[tuple[str, str]], *more: object) -> object:
        ours = dict(HEADERS)
        if path.startswith("/artifacts/"):
            ours["Content-Security-Policy"] = ARTIFACT_POLICY
        dropped = {"access-control-allow-origin", *(name.lower() for name in ours)}
        kept = [(name, value) for name, value in headers if name.lower() not in dropped]
        return start_response(status, [*kept, *ours.items()], *more)  # type: ignore[arg-type]

    return start  # type: ignore[return-value]
