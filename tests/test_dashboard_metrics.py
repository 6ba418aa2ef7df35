"""The figures for Prometheus, by its own parser, against values worked out by hand."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import sqlalchemy
from optuna.trial import TrialState
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import Answer, Dashboard, Shown, away, make_study
from test_storage_shared import change, stranger

import storage.leases
from search.study import Wishes, open_or_create_study, open_study
from search.summary import DIVERGED_KEY
from storage.database import Database, open_database
from storage.schema import WORKERS

Samples = dict[tuple[str, ...], float]


def samples(answer: Answer) -> Samples:
    """Every value by the metric's name, study and state."""
    assert answer.status == 200
    parse = parse_openmetrics if "openmetrics" in answer.headers["content-type"] else parse_text
    return {
        (sample.name.removeprefix("cnn_search_"), *_labels(sample.labels)): sample.value
        for family in parse(answer.text)
        for sample in family.samples
    }


def _labels(labels: Mapping[str, str]) -> list[str]:
    assert labels.keys() <= {"study", "state"}
    return [labels[name] for name in ("study", "state") if name in labels]


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
def shown(database: Database, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """A study with trials in every state, and another one with none but that which waits."""
    # The server of the tests has just been started, which gives every lease a while.
    monkeypatch.setattr(storage.leases, "RESTART_SECONDS", -1e9)
    made = make_study(database)
    made.finish(made.ask(0.4, 0.5, 0.6), 0.6, seconds=30.0)
    made.finish(made.ask(0.5, 0.75), 0.75, seconds=20.5)
    made.finish(made.ask(0.1), 0.1, TrialState.PRUNED, seconds=8.0)
    made.finish(made.ask(), None, TrialState.PRUNED, seconds=0.0, **{DIVERGED_KEY: 1})
    made.finish(made.ask(0.2), None, TrialState.FAIL, seconds=4.0)
    made.ask(0.3, 0.4)
    made.opened.study.enqueue_trial({})
    database.limit_trials(made.opened.study, 20)
    open_or_create_study(database, 'a "name"\\', Wishes())
    return made


@pytest.fixture
def dashboard(shown: Shown, url: str) -> Iterator[Dashboard]:
    """A dashboard of it."""
    with Dashboard(url) as opened:
        yield opened


def silent_worker(url: str, chances_lost: int = 0) -> None:
    """A worker elsewhere that takes a trial and is not heard of again, after as many others that ended so."""
    for at in range(chances_lost + 1):
        database = open_database(url)
        opened, identity = open_study(database, "cifar10"), stranger(f"host-{at}")
        database.work_as(identity)
        opened.leases().renew(identity, 600.0)
        opened.study.ask()
        silent = sqlalchemy.update(WORKERS).where(WORKERS.c.worker == identity.worker)
        change(database, silent.values(expires=1.0))
        if at < chances_lost:
            assert len(opened.leases().reap()) == 1
        database.close()


@BOTH
def test_the_figures_are_those_of_the_studies(shown: Shown, url: str, dashboard: Dashboard) -> None:
    """Each by hand; what is not known is left out."""
    silent_worker(url, chances_lost=2)

    answer = dashboard.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = samples(answer)
    del found["seconds_since_report", "cifar10"]
    other = 'a "name"\\'
    states = {"complete": 2, "pruned": 1, "diverged": 1, "failed": 1, "running": 2, "waiting": 0}
    assert found == {
        ("database_up",): 1,
        **{("trials", "cifar10", state): count for state, count in states.items()},
        **{("trials", other, state): float(state == "waiting") for state in states},
        ("trials_wanted", "cifar10"): 20,
        ("best_value", "cifar10"): 0.75,
        ("workers_alive", "cifar10"): 1,
        ("workers_alive", other): 0,
        ("stale_claims", "cifar10"): 1,
        ("stale_claims", other): 0,
        ("retries_total", "cifar10"): 2,
        ("retries_total", other): 0,
        # 3 + 2 + 1 + 0 + 1 + 2 reports.
        ("epochs_trained_total", "cifar10"): 9,
        ("epochs_trained_total", other): 0,
        ("training_seconds_total", "cifar10"): 62.5,
        ("training_seconds_total", other): 0,
    }


def test_the_figures_go_with_the_study(shown: Shown, dashboard: Dashboard) -> None:
    """Each scrape is of now."""
    before = samples(dashboard.get("/metrics"))
    shown.finish(shown.ask(0.7, 0.78), 0.78, seconds=1.0)
    after = samples(dashboard.get("/metrics"))

    changed = {key: after[key] - before[key] for key in before if after[key] != before[key]}
    assert changed == {
        ("trials", "cifar10", "complete"): 1,
        ("trials", "cifar10", "waiting"): -1,
        ("best_value", "cifar10"): pytest.approx(0.03),
        ("epochs_trained_total", "cifar10"): 2,
        ("training_seconds_total", "cifar10"): 1.0,
        ("seconds_since_report", "cifar10"): -before["seconds_since_report", "cifar10"],
    }


def test_the_time_since_the_last_report_is_counted(shown: Shown, dashboard: Dashboard) -> None:
    """From when a report was first seen; before any was, from the trials' own times."""
    began = max(
        time.timestamp()
        for trial in shown.opened.study.trials
        if trial.intermediate_values
        for time in (trial.datetime_start, trial.datetime_complete)
        if time is not None
    )
    key = ("seconds_since_report", "cifar10")
    assert samples(dashboard.get("/metrics"))[key] == pytest.approx(dashboard.now - began)

    trial = shown.ask(0.3)
    assert samples(dashboard.get("/metrics"))[key] == 0
    dashboard.now += 45.0
    assert samples(dashboard.get("/metrics"))[key] == 45.0
    # A trial's end is no report.
    shown.finish(trial, 0.3)
    dashboard.now += 5.0
    assert samples(dashboard.get("/metrics"))[key] == 50.0
    # A clock that was set back gives no negative time.
    dashboard.now -= 1000.0
    assert samples(dashboard.get("/metrics"))[key] == 0


@BOTH
def test_without_its_database_only_that_is_told(shown: Shown, dashboard: Dashboard) -> None:
    """By a scrape that succeeds: Prometheus alarms on the value, and the figures are not old ones."""
    dashboard.get("/metrics")
    with away(dashboard.database):
        down = dashboard.get("/metrics")

    assert samples(down) == {("database_up",): 0}
    assert samples(dashboard.get("/metrics"))["database_up",] == 1


def test_openmetrics_is_for_those_who_ask(dashboard: Dashboard) -> None:
    """Prometheus does, and gets the same figures."""
    accepted = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    asked = dashboard.get("/metrics", Accept=accepted)

    assert asked.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert samples(asked) == samples(dashboard.get("/metrics"))


def test_metrics_are_described(dashboard: Dashboard) -> None:
    """Each says in a sentence what it is, and counters are counters."""
    kinds = {family.name: family.type for family in parse_text(dashboard.get("/metrics").text)}

    for family in parse_text(dashboard.get("/metrics").text):
        assert family.documentation.endswith("."), family.name
    counters = {name for name, kind in kinds.items() if kind == "counter"}
    assert counters == {f"cnn_search_{name}" for name in ("retries", "epochs_trained", "training_seconds")}


def test_an_empty_database_has_no_studies(url: str, database: Database) -> None:
    """And that is all well."""
    with Dashboard(url) as dashboard:
        assert samples(dashboard.get("/metrics")) == {("database_up",): 1}


def test_figures_come_compressed(dashboard: Dashboard) -> None:
    """As Prometheus asks for them."""
    plain, packed = dashboard.get("/metrics"), dashboard.get("/metrics", Accept_Encoding="gzip")

    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.body
