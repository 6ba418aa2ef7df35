"""The routes beside optuna-dashboard's: the best model, health, and what is said where there is none."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy
from served import MODEL, Dashboard, Shown, away, make_study

from search.dashboard.guard import HEADERS
from search.study import Wishes, open_or_create_study
from storage.database import Database, open_database

ALL_HEADERS = set(map(str.lower, HEADERS))
"""Of the guard's, in lower case."""


BOTH = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
"""For tests of what the two kinds of database do differently."""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that does not exist yet; SQLite's where a test does not ask for both kinds."""
    if getattr(request, "param", "sqlite") == "postgresql":
        create: Callable[[], str] = request.getfixturevalue("postgres")
        return create()
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def shown(database: Database) -> Shown:
    """A study of three complete trials, the second and third of them as good."""
    made = make_study(database)
    for value, model in ((0.5, b"worse"), (0.75, MODEL), (0.75, b"later")):
        made.finish(made.ask(value), value, model=model)
    return made


@pytest.fixture
def dashboard(shown: Shown, url: str) -> Iterator[Dashboard]:
    """A dashboard of it."""
    with Dashboard(url) as opened:
        yield opened


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard that tests do not change: two studies with a best trial, an empty one and a foreign one."""
    url = f"sqlite:///{tmp_path_factory.mktemp('routes') / 'study.db'}"
    database = open_database(url)
    for name, value in (("cifar10", 0.75), ("naïve 🏷 &?/", 0.5)):
        made = make_study(database, name)
        made.finish(made.ask(value), value, model=MODEL + name.encode())
    open_or_create_study(database, "empty", Wishes())
    database.storage.create_new_study([made.opened.study.direction], "foreign")
    with Dashboard(url) as opened:
        yield opened
    database.close()


@BOTH
def test_the_best_model_comes_as_it_is_stored(dashboard: Dashboard) -> None:
    """To the byte, as a download with a telling name; of two as good, the earlier trial's."""
    answer = dashboard.get("/best.h5", Accept_Encoding="gzip")

    assert answer.status == 200
    assert answer.body == MODEL
    assert answer.headers["content-type"] == "application/x-hdf5"
    assert answer.headers["content-length"] == str(len(MODEL))
    assert answer.headers["content-disposition"] == 'attachment; filename="trial-1-0.7500.h5"'
    assert answer.headers["etag"] == f'"{hashlib.sha256(MODEL).hexdigest()}"'
    assert answer.headers["cache-control"] == "no-cache"
    assert set(answer.headers) >= ALL_HEADERS


def test_head_tells_the_same_without_the_model(dashboard: Dashboard) -> None:
    """For a script that wants to know whether it has the newest."""
    whole, head = dashboard.get("/best.h5"), dashboard.ask("/best.h5", "HEAD")

    assert (head.status, head.body) == (200, b"")
    assert head.headers == whole.headers


@BOTH
def test_a_better_trial_is_the_best_at_once(shown: Shown, dashboard: Dashboard) -> None:
    """Whoever has the old one learns of the new one by its digest."""
    old = dashboard.get("/best.h5").headers["etag"]
    shown.finish(shown.ask(0.8), 0.7812, model=b"better")

    answer = dashboard.get("/best.h5", If_None_Match=old)

    assert (answer.status, answer.body) == (200, b"better")
    assert answer.headers["content-disposition"] == 'attachment; filename="trial-3-0.7812.h5"'
    assert dashboard.get("/best.json").json["number"] == 3


@pytest.mark.parametrize("template", ["{}", "W/{}", '"other", {}', "{} , x"])
def test_whoever_has_it_is_not_sent_it_again(lasting: Dashboard, template: str) -> None:
    """304 with the same tag, for any list of tags that has it."""
    tag = lasting.get("/best.h5").headers["etag"]

    answer = lasting.get("/best.h5", If_None_Match=template.format(tag))

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == tag
    assert "content-disposition" not in answer.headers


def test_another_tag_is_no_reason_not_to_send_it(lasting: Dashboard) -> None:
    """Nor is a digest without its quotation marks."""
    for tag in ('"0"', "", hashlib.sha256(MODEL).hexdigest()):
        assert lasting.get("/best.h5", If_None_Match=tag).status == 200


def test_the_best_trial_is_described(dashboard: Dashboard) -> None:
    """As `cnn-search best --json` does, with what a download can be checked by."""
    answer = dashboard.get("/best.json")

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    told = answer.json
    assert (told["study"], told["number"], told["state"], told["value"]) == ("cifar10", 1, "complete", 0.75)
    assert (told["epochs_done"], told["seconds"]) == (1, 10.0)
    assert told["model"] == {
        "filename": "trial-1-0.7500.h5",
        "size_bytes": len(MODEL),
        "sha256": hashlib.sha256(MODEL).hexdigest(),
        "url": "/best.h5?study=cifar10",
    }
    assert dashboard.get(told["model"]["url"]).body == MODEL


@pytest.mark.parametrize("name", ["cifar10", "naïve 🏷 &?/"])
def test_another_study_is_named_in_the_query(lasting: Dashboard, name: str) -> None:
    """By any name; the description's link leads to its model."""
    told = lasting.get(f"/best.json?study={quote(name, safe='')}")

    assert told.status == 200, told.text
    assert told.json["study"] == name
    assert lasting.get(told.json["model"]["url"]).body == MODEL + name.encode()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?study=nowhere", "has no study 'nowhere' (it has: "),
        ("?study=empty", "study 'empty' has no complete trial yet (1 trial)"),
        ("?study=foreign", "study 'foreign' was made by another program or version"),
        ("?study=" + "x" * 5000, "has no study 'xxx"),
        ("?study=..%2f..%2fetc", "has no study '../../etc'"),
        ("?study='%20OR%201=1", 'has no study "\' OR 1=1"'),
    ],
)
def test_where_there_is_no_best_it_is_said_why(lasting: Dashboard, query: str, words: str) -> None:
    """As text to whoever wants the model, as JSON to whoever wants JSON."""
    model, description = lasting.get(f"/best.h5{query}"), lasting.get(f"/best.json{query}")

    assert (model.status, description.status) == (404, 404)
    assert model.headers["content-type"] == "text/plain; charset=utf-8"
    assert words in model.text
    assert model.text == description.json["reason"] + "\n"
    assert set(model.headers) >= ALL_HEADERS


@BOTH
def test_a_name_that_a_database_does_not_take_is_unknown(dashboard: Dashboard) -> None:
    """PostgreSQL's text has no NUL, and psycopg2 says so by a ValueError."""
    answer = dashboard.get("/best.json?study=%00")

    assert (answer.status, answer.json.keys()) == (404, {"reason"})


def test_an_empty_study_parameter_means_the_dashboards_own(lasting: Dashboard) -> None:
    """So does another parameter."""
    for query in ("?study=", "?x=1"):
        assert lasting.get(f"/best.json{query}").json["study"] == "cifar10"


@pytest.mark.parametrize("path", ["/best.h5", "/best.json", "/metrics", "/healthz"])
def test_our_routes_are_read_only(lasting: Dashboard, path: str) -> None:
    """Whoever stands at the door."""
    for method in ("POST", "PUT", "DELETE"):
        refused = lasting.ask(path, method)
        assert (refused.status, "reason" in refused.text) == (403, True)


@pytest.mark.parametrize("path", ["/best.h5/", "/best", "/best.h5x", "//best.h5", "/best.json/x"])
def test_only_these_paths_are_ours(lasting: Dashboard, path: str) -> None:
    """Others are optuna-dashboard's, which knows none of them."""
    assert lasting.get(path).status == 404


@BOTH
def test_a_damaged_model_is_not_sent(shown: Shown, dashboard: Dashboard) -> None:
    """An error is better than weights that nobody trained; the log has what."""
    change = sqlalchemy.text("UPDATE cnn_search_files SET content = :bytes WHERE size_bytes = :size")
    with shown.opened.database._backend.engine.begin() as connection:
        connection.execute(change, {"bytes": MODEL[:-1] + b"?", "size": len(MODEL)})

    for path in ("/best.h5", "/best.json"):
        answer = dashboard.get(path)
        assert (answer.status, answer.json) == (503, {"reason": "the database or a file in it fails"})
        assert set(answer.headers) >= ALL_HEADERS


@BOTH
def test_healthz_tells_whether_the_database_answers(dashboard: Dashboard) -> None:
    """And is well again when it is."""
    well = dashboard.get("/healthz")
    with away(dashboard.database):
        ill = dashboard.get("/healthz")
    again = dashboard.get("/healthz")

    assert (well.status, well.json) == (200, {"status": "ok"})
    assert (ill.status, ill.json) == (503, {"status": "the database does not answer"})
    assert (again.status, again.json) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/best.h5", "/best.json"])
def test_without_its_database_the_best_is_unavailable(
    dashboard: Dashboard, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """503, and a reason that says nothing about the server; the log says more."""
    dashboard.get(path)
    with away(dashboard.database):
        answer = dashboard.get(path)

    assert (answer.status, answer.json) == (503, {"reason": "the database or a file in it fails"})
    assert set(answer.headers) >= ALL_HEADERS
    assert f"{path}: nobody listens there" in caplog.text
    assert dashboard.get(path).status == 200


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_without_its_database_a_studys_page_says_so(
    shown: Shown, dashboard: Dashboard, accepted: str
) -> None:
    """With an error that the page shows, and with the headers of every answer."""
    path = f"/api/studies/{shown.study_id}?after=0"
    with away(dashboard.database):
        answer = dashboard.get(path, Accept_Encoding=accepted)

    assert answer.status in (500, 503)
    assert answer.json.keys() == {"reason"}
    assert set(answer.headers) >= ALL_HEADERS


def test_the_files_of_a_study_are_read_from_where_it_keeps_them(
    database: Database, url: str, tmp_path: Path
) -> None:
    """Also where that is not the database."""
    wishes = Wishes(max_epochs=3, artifacts=f"file://{tmp_path}/kept")
    open_or_create_study(database, "cifar10", wishes)
    shown = make_study(database)
    trial = shown.ask(0.5)
    file = shown.finish(trial, 0.5)

    with Dashboard(url) as dashboard:
        assert dashboard.get("/best.h5").body == MODEL
        page = dashboard.get(f"/artifacts/{shown.study_id}/{trial._trial_id}/{file}", Accept_Encoding="gzip")
        assert (page.status, page.body) == (200, MODEL)
        for path in (tmp_path / "kept").rglob("*"):
            if path.is_file():
                path.unlink()
        gone = dashboard.get(f"/artifacts/{shown.study_id}/{trial._trial_id}/{file}")
        # optuna-dashboard's own answer, which tells nothing about this machine.
        assert gone.status in (404, 500)
        assert str(tmp_path) not in gone.text
        assert dashboard.get("/best.h5").status == 503


def test_the_studies_are_prepared_for_the_first_visitor(shown: Shown, url: str) -> None:
    """Who gets what the server has read already, of every study."""
    other = make_study(shown.opened.database, "other")
    with Dashboard(url) as dashboard:
        dashboard.prepare()
        for study in (shown, other):
            # What was prepared is good for ten seconds whatever happens to the study.
            study.ask(0.5)
            first = dashboard.get(f"/api/studies/{study.study_id}?after=0", Accept_Encoding="gzip")

            assert first.headers["content-encoding"] == "gzip"
            assert len(first.json["trials"]) == (3 if study is shown else 1)


def test_a_study_that_is_no_text_is_unknown(lasting: Dashboard) -> None:
    """And is not taken for the dashboard's own."""
    answer = lasting.get("/best.json?study=%ff")

    assert (answer.status, answer.json) == (404, {"reason": "the study's name in ?study= is no UTF-8 text"})
