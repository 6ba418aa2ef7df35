"""Routes beside optuna-dashboard's: the best model, whether all is well, and figures for monitoring."""

import hashlib
import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from bottle import Bottle, HTTPResponse, request

from search.dashboard.metrics import render_metrics
from search.dashboard.upkeep import Upkeep
from search.errors import SearchError
from search.report import trial_json
from search.study import OpenStudy, open_study
from search.summary import best_trial, summarise_trials
from storage.claimed_trial import NamedFile
from storage.database import Database
from storage.outages import DATABASE_ERRORS
from storage.trial_files import read_file

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

PATHS: Final = ("/best.h5", "/best.json", "/healthz", "/metrics")


def build_routes(database: Database, study: str, upkeep: Upkeep) -> "WSGIApplication":
    """An application for `PATHS`; `study` is the one that `/best.*` means unless `?study=` names another."""
    # Whoever stands in front turns exceptions into answers and logs them.
    app = Bottle()
    app.config["catchall"] = False

    def best_model() -> HTTPResponse:
        """The best trial's model; HEAD gives its length and digest."""
        try:
            _, file = _best(database, _asked_study(study))
        except LookupError as error:
            return _answer(HTTPStatus.NOT_FOUND, f"{error}\n".encode(), "text/plain; charset=utf-8")
        tag = f'"{hashlib.sha256(file.content).hexdigest()}"'
        # What is best changes: whoever keeps a copy asks again.
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if {tag, "*"} & set(re.split(r"[\s,]+(?:W/)?", f" {request.headers.get('If-None-Match', '')}")):
            return HTTPResponse(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        headers["Content-Disposition"] = f'attachment; filename="{quote(file.filename)}"'
        return _answer(HTTPStatus.OK, file.content, file.mimetype, headers)

    def best_description() -> HTTPResponse:
        """The best trial, and what its model's file is."""
        try:
            name = _asked_study(study)
            trial, file = _best(database, name)
        except LookupError as error:
            return _json(HTTPStatus.NOT_FOUND, {"reason": str(error)})
        described = {
            "filename": file.filename,
            "size_bytes": len(file.content),
            "sha256": hashlib.sha256(file.content).hexdigest(),
            "url": f"/best.h5?study={quote(name, safe='')}",
        }
        return _json(HTTPStatus.OK, {"study": name, **trial, "model": described})

    def health() -> HTTPResponse:
        """Whether the database can be reached; nothing about why not, as nobody has to give a password."""
        try:
            database.ping()
        except DATABASE_ERRORS:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "the database does not answer"})
        return _json(HTTPStatus.OK, {"status": "ok"})

    def metrics() -> HTTPResponse:
        """The studies' figures for Prometheus."""
        body, content_type = render_metrics(upkeep, request.headers.get("Accept", ""))
        return _answer(HTTPStatus.OK, body, content_type)

    for path, answer in zip(PATHS, (best_model, best_description, health, metrics), strict=True):
        app.route(path, "GET", answer)
    application: WSGIApplication = app
    return application


def _asked_study(default: str) -> str:
    """The study that the request names, else `default`.

    Raises:
        LookupError: What it names is no text.
    """
    if not request.query.get("study"):
        return default
    name: str | None = request.query.getunicode("study")
    if name is None:
        raise LookupError("the study's name in ?study= is no UTF-8 text")
    return name


def _best(database: Database, name: str) -> tuple[dict[str, Any], NamedFile]:
    """The best trial of study `name`, JSON-ready, and its model.

    Raises:
        LookupError: There is none.
    """
    if "\0" in name:
        # PostgreSQL has no such text.
        raise LookupError("no study's name has a NUL in it")
    try:
        opened: OpenStudy = open_study(database, name)
        opened.check_is_search()
    except SearchError as error:
        raise LookupError(str(error)) from error
    trials = summarise_trials(opened.study)
    best = best_trial(trials)
    if best is None:
        known = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
        raise LookupError(f"study {name!r} has no complete trial yet ({known})")
    frozen = opened.study.get_trials(deepcopy=False)[best.number]
    return trial_json(best), read_file(opened.artifacts, database.storage, frozen, ".h5")


def _json(status: HTTPStatus, values: Mapping[str, Any]) -> HTTPResponse:
    return _answer(status, json.dumps(values).encode(), "application/json")


def _answer(
    status: HTTPStatus, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> HTTPResponse:
    given = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    return HTTPResponse(body, status=int(status), headers=given)
