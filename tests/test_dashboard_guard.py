"""The guard: who gets in, what nobody may do, and which headers go with every answer."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna_dashboard import wsgi
from optuna_dashboard._app import create_app
from served import EDITS, READ_ONLY, Answer, Shown, ask, basic, make_study, read_all

from search.dashboard.app import StudyFiles
from search.dashboard.guard import ARTIFACT_POLICY, HEADERS, LOOPBACK_NAMES, Access, guard, is_loopback
from storage.database import Database, open_database

CHANGING = ("POST", "PUT", "PATCH", "DELETE")


def routes() -> list[tuple[str, str]]:
    """Method and rule of each of optuna-dashboard's routes, of whatever version is installed."""
    app = create_app(optuna.storages.InMemoryStorage())
    return [(route.method, route.rule) for route in app.routes]


RULES = sorted({rule for _, rule in routes()})
CHANGING_ROUTES = [(method, rule) for method, rule in routes() if method not in ("GET", "HEAD")]


class Served:
    """A study with a complete trial, and optuna-dashboard over it."""

    def __init__(self, database: Database) -> None:
        """Make the study."""
        self.database = database
        self.shown: Shown = make_study(database)
        self.running = self.shown.ask(0.5)
        trial = self.shown.ask(0.5, 0.75)
        self.file = self.shown.finish(trial, 0.75)
        self.trial_id = trial._trial_id
        self.theirs = wsgi(database.storage, artifact_store=StudyFiles(database))

    def path(self, rule: str) -> str:
        """A path that a rule of bottle's matches, of something that exists where there is any."""
        values = {
            "study_id": str(self.shown.study_id),
            "trial_id": str(self.trial_id),
            "artifact_id": self.file,
            "plot_type": "slice",
            "filename": "bundle.js",
            "history_id": "0",
            "": "",
        }
        return re.sub(r"<(\w*)(?::[^>]*)?>", lambda found: values.get(found[1], "1"), rule)

    def ask(self, access: Access, path: str, method: str = "GET", **options: Any) -> Answer:
        """What is answered behind a guard."""
        headers = {"Accept-Encoding": "identity", **options.pop("headers", {})}
        return ask(guard(self.theirs, access), path, method, headers=headers, is_valid=False, **options)

    def note(self) -> str:
        """The study's note."""
        attrs = self.database.storage.get_study_system_attrs(self.shown.study_id)
        return str(attrs.get("dashboard:note_str:0", ""))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A study that tests do not change."""
    database = open_database(f"sqlite:///{tmp_path_factory.mktemp('guard') / 'study.db'}")
    yield Served(database)
    database.close()


@pytest.fixture
def edited(database: Database) -> Served:
    """A study of a test's own."""
    return Served(database)


def plain(environ: Any, start_response: Any) -> list[bytes]:
    """An application that says what got through."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "*")])
    return [b"in"]


def test_the_routes_of_optuna_dashboard_are_found() -> None:
    """The tests over all of them test something."""
    assert {"/api/studies", "/api/studies/<study_id:int>/note"} <= set(RULES)
    assert len(CHANGING_ROUTES) >= 15
    assert {method for method, _ in CHANGING_ROUTES} <= set(CHANGING)


@pytest.mark.parametrize("rule", RULES)
def test_a_read_only_dashboard_refuses_every_change(served: Served, rule: str) -> None:
    """By any method that is not reading, on any route; it says how to allow it, and changes nothing."""
    before = read_all(served.database)

    for method in (*CHANGING, "PROPFIND", "delete"):
        answer = served.ask(READ_ONLY, served.path(rule), method, send={"body": "mine", "version": 9})

        assert answer.status == 403, method
        assert answer.headers["content-type"] == "application/json"
        reason = "this dashboard is read-only; `cnn-search dashboard --allow-edits` allows changes"
        assert answer.json == {"reason": reason}
    assert read_all(served.database) == before


@pytest.mark.parametrize("rule", [rule for method, rule in routes() if method == "GET"])
def test_reading_changes_nothing(served: Served, rule: str) -> None:
    """Whatever optuna-dashboard answers to GET and HEAD, which pass."""
    before = read_all(served.database)

    for method in ("GET", "HEAD"):
        assert served.ask(READ_ONLY, served.path(rule), method).status < 500
    assert read_all(served.database) == before


@pytest.mark.parametrize(("method", "rule"), CHANGING_ROUTES)
def test_where_edits_are_allowed_requests_reach_the_dashboard(served: Served, method: str, rule: str) -> None:
    """All but those that lose models; so the paths above are those of the routes."""
    reached: list[str] = []

    def theirs(environ: Any, start_response: Any) -> list[bytes]:
        reached.append(environ["PATH_INFO"])
        return plain(environ, start_response)

    answer = ask(guard(theirs, EDITS), served.path(rule), method, send={})

    loses = (method == "DELETE" and rule.startswith("/api/artifacts/")) or rule.endswith("/rename")
    assert (answer.status, reached) == ((403, []) if loses else (200, [served.path(rule)]))
    app = create_app(optuna.storages.InMemoryStorage())
    route, _ = app.match({"PATH_INFO": served.path(rule), "REQUEST_METHOD": method})
    assert route.rule == rule


def test_a_note_is_saved_where_edits_are_allowed(edited: Served) -> None:
    """As the page sends it, and as a script does, which names no origin."""
    path = edited.path("/api/studies/<study_id:int>/note")
    version = edited.database.storage.get_study_system_attrs(edited.shown.study_id).get(
        "dashboard:note_ver", 0
    )

    browser = {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}
    for at, headers in enumerate((browser, {}), start=1):
        sent = {"body": f"note {at}", "version": version + at}
        assert edited.ask(EDITS, path, "PUT", headers=headers, send=sent).status == 204
        assert edited.note() == f"note {at}"


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:81", "https://127.0.0.1.evil.example", "127.0.0.1", ""],
)
def test_changes_are_not_taken_from_pages_of_others(served: Served, origin: str) -> None:
    """A page that a user has open elsewhere cannot edit with the user's password."""
    before = read_all(served.database)
    access = Access("secret", allow_edits=True)
    path = served.path("/api/studies/<study_id:int>/note")
    headers = {**basic("secret"), "Origin": origin}

    answer = served.ask(access, path, "PUT", headers=headers, send={"body": "theirs", "version": 9})

    assert answer.status == 403
    assert answer.json == {"reason": f"changes are not taken from pages of {origin}"}
    assert read_all(served.database) == before


LOSING = [
    ("DELETE", "/api/artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:x>", "stored files stay"),
    ("DELETE", "/api/artifacts/<study_id:int>/<artifact_id:re:x>", "stored files stay"),
    ("POST", "/api/studies/<study_id:int>/rename", "without their models"),
]


@pytest.mark.parametrize(("method", "rule", "reason"), LOSING)
def test_what_loses_models_is_refused_even_to_editors(
    edited: Served, method: str, rule: str, reason: str
) -> None:
    """By whatever spelling of path and method optuna-dashboard would take it."""
    before = read_all(edited.database)
    path = edited.path(rule)
    # Bottle ignores slashes at a path's end, a line's end, and case; it reads an Arabic one as 1.
    arabic = edited.path(rule.replace("<study_id:int>", "\N{ARABIC-INDIC DIGIT ONE}"))
    spelt = [path + end for end in ("", "/", "//", "\n", "/\n", "\n/")]

    for way, by in [*((one, method) for one in [*spelt, arabic]), (path, method.lower())]:
        answer = edited.ask(EDITS, way, by, send={"study_name": "new"})

        assert answer.status == 403, (way, by)
        assert reason in answer.json["reason"]
    assert read_all(edited.database) == before


def test_a_deleted_study_takes_its_files_along(edited: Served) -> None:
    """Which is how editors remove files."""
    other = make_study(edited.database, "other")
    kept = other.finish(other.ask(0.5), 0.5)

    answer = edited.ask(EDITS, edited.path("/api/studies/<study_id:int>"), "DELETE")

    assert answer.status == 204
    rows = read_all(edited.database)
    assert [row for row in rows["studies"] if "'cifar10'" in row] == []
    assert len(rows["cnn_search_files"]) == 2
    assert StudyFiles(edited.database).open_reader(kept).read()


@pytest.mark.parametrize("password", ["secret", "with:colon", "a b", "pässwörd ✓", "x" * 500])
def test_whoever_knows_the_password_gets_in(password: str) -> None:
    """With any user name; browsers send UTF-8, as they are asked to."""
    app = guard(plain, Access(password))

    for user in ("", "anyone", "jörg"):
        assert ask(app, "/", headers=basic(password, user)).body == b"in"
    lower = {"Authorization": basic(password)["Authorization"].replace("Basic", "basic")}
    assert ask(app, "/", headers=lower).body == b"in"


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic c2VjcmV0",  # "secret" without a colon
        "Basic " + base64.b64encode(b"anyone:wrong").decode(),
        "Basic " + base64.b64encode(b"secret:").decode(),
        "Basic " + base64.b64encode(b"anyone:secret ").decode(),
        "Basic " + base64.b64encode(b"anyone:SECRET").decode(),
        "Basic " + base64.b64encode(b"anyone:\xff\xfe").decode(),
        "Basic " + base64.b64encode(b"anyone:secret").decode().rstrip("="),
        "Basic \xff\xfe",
        "Bearer " + base64.b64encode(b"anyone:secret").decode(),
        "Bearer secret",
        "Digest username=anyone",
        base64.b64encode(b"anyone:secret").decode(),
    ],
)
def test_whoever_does_not_know_the_password_is_asked_for_it(given: str | None) -> None:
    """Without a word on what was wrong; nothing reaches the dashboard."""
    reached: list[Any] = []
    app = guard(lambda environ, start_response: reached.append(environ), Access("secret"))
    headers = {} if given is None else {"Authorization": given}

    for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
        answer = ask(app, "/api/studies", method, headers=headers, is_valid=False)

        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="cnn-search", charset="UTF-8"'
        assert answer.json == {"reason": "give the dashboard's password, with any user name"}
    assert reached == []


def test_an_access_does_not_show_its_password() -> None:
    """In a log or a traceback."""
    assert "hunter2" not in repr(Access("hunter2"))


def test_healthz_alone_is_open() -> None:
    """Probes have no password, and call the host what they like; they may only ask."""
    app = guard(plain, Access("secret", hosts=LOOPBACK_NAMES))

    assert ask(app, "/healthz", headers={"Host": "10.0.0.7"}).body == b"in"
    for path in ("/healthz/", "//healthz", "/healthz/../api/studies", "/metrics", "/best.h5", "/"):
        assert ask(app, path).status == 401, path


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST", "127.0.0.1", "127.0.0.1:8080", "127.0.0.1:", "[::1]:8080"],
)
def test_a_local_dashboard_answers_to_this_machines_names(host: str) -> None:
    """With any port: it may be forwarded."""
    assert ask(guard(plain, READ_ONLY), "/", headers={"Host": host}).body == b"in"


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.2",
        ),
        *("", "localhost@evil.example", "evil.example#localhost", "[::2]", "localhost:80:90", "localhost:x"),
    ],
)
def test_a_local_dashboard_answers_to_no_other_name(host: str) -> None:
    """A name of an attacker's that points here gives its pages nothing (DNS rebinding)."""
    answer = ask(guard(plain, READ_ONLY), "/api/studies", headers={"Host": host})

    assert answer.status == 403
    assert answer.json == {"reason": f"this dashboard is not called {host!r}; use localhost"}


def test_behind_a_password_any_name_will_do() -> None:
    """Nobody knows what a server is called; the password is what counts."""
    app = guard(plain, Access("secret"))

    assert ask(app, "/", headers={"Host": "gpu-7.lan", **basic("secret")}).body == b"in"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/dashboard", "GET", 200),
        ("/api/studies", "GET", 200),
        ("/api/studies/99", "GET", 404),
        ("/nowhere", "GET", 404),
        ("/", "GET", 302),
        ("/static/bundle.js", "GET", 200),
        ("/api/studies", "HEAD", 200),
        ("/api/studies", "OPTIONS", 405),
        ("/api/studies", "POST", 403),
    ],
)
def test_every_kind_of_answer_has_the_security_headers(
    served: Served, path: str, method: str, status: int
) -> None:
    """Each once, and none lets other origins read."""
    answer = served.ask(READ_ONLY, path, method)

    assert answer.status == status
    for name, value in HEADERS.items():
        assert answer.headers[name.lower()] == value
    assert "access-control-allow-origin" not in answer.headers


def test_refusals_have_the_security_headers() -> None:
    """Of a stranger and of a wrong host."""
    answers = [
        ask(guard(plain, Access("secret")), "/"),
        ask(guard(plain, READ_ONLY), "/", headers={"Host": "evil.example"}),
        ask(guard(plain, READ_ONLY), "/healthz"),
    ]

    assert [answer.status for answer in answers] == [401, 403, 200]
    for answer in answers:
        assert set(map(str.lower, HEADERS)) <= set(answer.headers)
        assert "access-control-allow-origin" not in answer.headers


def test_pages_keep_their_own_policy(served: Served) -> None:
    """Which allows no script of another origin."""
    policy = served.ask(READ_ONLY, "/dashboard").headers["content-security-policy"]

    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_stored_files_are_for_this_origin_and_run_nothing(served: Served) -> None:
    """optuna-dashboard would let every site read them; a page among them would run as ours."""
    path = served.path("/artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:x>")

    answer = served.ask(READ_ONLY, path, headers={"Origin": "http://evil.example"})

    assert answer.status == 200
    assert answer.body == served.database.open_artifacts(None, "").open_reader(served.file).read()
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["content-security-policy"] == ARTIFACT_POLICY
    assert "sandbox" in ARTIFACT_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_answers_of_the_guards_own_are_json_of_known_length() -> None:
    """For pages that show the reason."""
    answer = ask(guard(plain, READ_ONLY), "/", "POST")

    assert int(answer.headers["content-length"]) == len(answer.body)
    assert json.loads(answer.body).keys() == {"reason"}


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.7", "gpu-7.lan", "")),
    ],
)
def test_only_loopback_is_this_machine(host: str, local: bool) -> None:
    """Whatever cannot be told is not."""
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/studies/1/ren\xffame"),
        ("DELETE", "/api/art\xffifacts/2/2/0a"),
        ("GET", "/art\xffifacts/1/1/0a"),
    ],
)
@pytest.mark.parametrize("allow_edits", [False, True])
def test_a_path_that_is_no_text_is_refused(method: str, path: str, allow_edits: bool) -> None:
    """Bottle drops such bytes, and would find a route where the rules see none."""
    passed: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        passed.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return []

    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": "localhost"}
    setup_testing_defaults(environ)
    started: list[str] = []
    body = guard(app, Access(allow_edits=allow_edits))(environ, lambda status, *_: started.append(status))

    assert (started, passed) == (["400 Bad Request"], [])
    assert json.loads(b"".join(body)) == {"reason": "the path is no UTF-8 text"}
