"""What goes on behind the pages: claims are taken back, trials read again, plots brought up to date."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import plotly.graph_objects  # type: ignore[import-untyped]
import pytest
import sqlalchemy
from optuna.trial import TrialState
from optuna_dashboard import wsgi
from served import Dashboard, Shown, ask, away, make_study
from test_storage_keeper import Clock
from test_storage_leases import ended_identity
from test_storage_shared import change, stranger

import storage.leases
from search.dashboard.compress import compress
from search.dashboard.prepared import Prepared
from search.dashboard.upkeep import Upkeep
from search.policy import LEASE_SECONDS
from search.published_progress import FIGURES
from search.study import SETTINGS_KEY, open_study
from storage.database import Database, open_database
from storage.outages import DATABASE_ERRORS
from storage.published import FIGURE_PREFIX, VERSION_PREFIX
from storage.schema import WORKERS

WAIT_SECONDS = 60.0


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
    """Two complete trials and one that waits."""
    monkeypatch.setattr(storage.leases, "RESTART_SECONDS", -1e9)
    made = make_study(database)
    made.finish(made.ask(0.5), 0.5)
    made.finish(made.ask(0.75), 0.75)
    made.opened.study.enqueue_trial({})
    return made


@pytest.fixture
def dashboard(shown: Shown, url: str) -> Iterator[Dashboard]:
    """A dashboard of it."""
    with Dashboard(url) as opened:
        yield opened


def lose_worker(url: str, *, ended: bool) -> int:
    """Let a worker take the waiting trial and die, or fall silent elsewhere; gives the trial's number."""
    database = open_database(url)
    identity = ended_identity() if ended else stranger()
    opened = open_study(database, "cifar10")
    database.work_as(identity)
    opened.leases().renew(identity, 600.0)
    trial = opened.study.ask()
    trial.report(0.3, 1)
    if not ended:
        change(
            database,
            sqlalchemy.update(WORKERS).where(WORKERS.c.worker == identity.worker).values(expires=1.0),
        )
    database.close()
    return trial.number


def figures_of(shown: Shown) -> dict[str, Any]:
    """The study's plots as its page shows them, by name."""
    attrs = shown.opened.database.storage.get_study_system_attrs(shown.study_id)
    return {name: json.loads(attrs.get(f"{FIGURE_PREFIX}{name}:0", "null")) for name in FIGURES}


def drawn_trials(figure: Any) -> int:
    """How many trials a plot shows as points."""
    states = ("complete", "pruned", "diverged", "failed")
    return sum(len(trace["x"]) for trace in figure["data"] if trace["name"] in states)


@BOTH
def test_a_dead_workers_trial_is_taken_back_at_once(shown: Shown, url: str, dashboard: Dashboard) -> None:
    """With no worker left to do it: it waits for the next one, with what it has."""
    number = lose_worker(url, ended=True)

    dashboard.upkeep.look()

    trial = shown.opened.study.trials[number]
    assert (trial.state, trial.intermediate_values) == (TrialState.WAITING, {1: 0.3})
    assert trial.user_attrs["retries"]["total"] == 1
    assert "ended" in trial.user_attrs["failure"]
    # Its page says so at once.
    (watched,) = dashboard.upkeep.look().values()
    assert (watched.trials[number].state, watched.trials[number].retries) == ("waiting", 1)


@BOTH
def test_a_silent_workers_trial_is_taken_back_in_time(
    shown: Shown, url: str, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once this process has seen the database for a while: those who were away with it may come back."""
    clock = Clock()
    monkeypatch.setattr("storage.keeper.time", clock)
    number = lose_worker(url, ended=False)
    (watched,) = dashboard.upkeep.look().values()

    assert watched.keeper.keep_once() == []
    clock.now += LEASE_SECONDS
    (taken,) = watched.keeper.keep_once()

    assert (taken.number, taken.failed) == (number, False)
    assert shown.opened.study.trials[number].state == TrialState.WAITING


def test_a_living_workers_trial_stays_its_own(shown: Shown, dashboard: Dashboard) -> None:
    """The dashboard claims nothing and is no worker."""
    trial = shown.ask(0.3)

    for _ in range(3):
        for watched in dashboard.upkeep.look().values():
            assert watched.keeper.keep_once() == []

    assert shown.opened.study.trials[trial.number].state == TrialState.RUNNING
    assert [worker.worker for worker in shown.opened.leases().workers()] == [shown.identity.worker]


@BOTH
def test_trials_are_read_again(shown: Shown, dashboard: Dashboard) -> None:
    """Each look is of now; what is seen changes with states, reports, retries, attributes, and only so."""
    seen = [dashboard.upkeep.fingerprint(shown.study_id)]

    def differs() -> bool:
        seen.append(dashboard.upkeep.fingerprint(shown.study_id))
        return seen[-1] != seen[-2]

    assert not differs()
    trial = shown.ask()
    assert differs()
    trial.report(0.5, 1)
    assert differs()
    assert not differs()
    shown.finish(trial, 0.5)
    assert differs()
    shown.opened.study.set_user_attr("mine", 1)
    assert differs()
    shown.opened.database.storage.set_study_system_attr(shown.study_id, "dashboard:note_ver", 7)
    assert differs()
    assert not differs()
    (watched,) = dashboard.upkeep.look().values()
    assert [one.state for one in watched.trials] == ["complete"] * 3


@BOTH
def test_studies_come_and_go(shown: Shown, database: Database, dashboard: Dashboard) -> None:
    """A new one is watched; a deleted one is forgotten with its keeper; one of the same name is another."""
    other = make_study(database, "other")
    watched = dashboard.upkeep.look()
    assert set(watched) == {"cifar10", "other"}

    database.storage.delete_study(other.study_id)
    assert set(dashboard.upkeep.look()) == {"cifar10"}
    assert dashboard.upkeep.fingerprint(other.study_id) is None
    assert not watched["other"].keeper._thread.is_alive()

    again = make_study(database, "other")
    again.ask(0.5)
    now = dashboard.upkeep.look()
    assert now["other"] is not watched["other"]
    assert [trial.state for trial in now["other"].trials] == ["running"]
    assert now["cifar10"] is watched["cifar10"]


@BOTH
def test_a_study_that_is_deleted_and_made_anew_between_two_looks_is_another(
    shown: Shown, database: Database, url: str, dashboard: Dashboard
) -> None:
    """Its trials are not the former one's, though SQLite gives it the same id, as Optuna's cache knows it."""
    (before,) = dashboard.upkeep.look().values()
    assert len(before.trials) == 3
    database.storage.delete_study(shown.study_id)
    elsewhere = open_database(url)
    make_study(elsewhere)
    elsewhere.close()

    (after,) = dashboard.upkeep.look().values()

    assert [trial.state for trial in after.trials] == ["waiting"]


def test_other_programs_studies_are_left_alone(shown: Shown, database: Database, url: str) -> None:
    """They have pages, and nothing is written to them."""
    storage_ = database.storage
    foreign = storage_.create_new_study([shown.opened.study.direction], "foreign")
    storage_.create_new_trial(foreign)
    with Dashboard(url) as dashboard:
        assert set(dashboard.upkeep.look()) == {"cifar10"}
        assert dashboard.upkeep.fingerprint(foreign) is None
        assert len(dashboard.get(f"/api/studies/{foreign}").json["trials"]) == 1
    assert storage_.get_study_system_attrs(foreign) == {}


def test_a_study_of_another_version_does_not_hide_the_others(
    shown: Shown, database: Database, dashboard: Dashboard
) -> None:
    """Its settings are not read; its page is there."""
    other = make_study(database, "a-later-one")
    other.opened.study.set_user_attr("cnn_search", {"space": {"from": "the future"}})

    assert set(dashboard.upkeep.look()) == {"cifar10"}
    assert dashboard.upkeep.fingerprint(other.study_id) is None
    assert dashboard.get("/metrics").status == 200
    assert dashboard.get(f"/api/studies/{other.study_id}", Accept_Encoding="gzip").status == 200


def test_a_plot_that_was_never_drawn_is_drawn_at_the_first_look(shown: Shown, dashboard: Dashboard) -> None:
    """Its worker was killed before, or there was none."""
    assert figures_of(shown) == dict.fromkeys(FIGURES)

    dashboard.upkeep.look()

    for figure in figures_of(shown).values():
        assert drawn_trials(figure) == 2
        assert "trial 1" in figure["layout"]["title"]["text"]


def test_the_stock_dashboard_shows_the_plot_too(shown: Shown, dashboard: Dashboard) -> None:
    """Whoever points `optuna-dashboard` at the database gets figures that plotly takes."""
    dashboard.upkeep.look()

    stock = ask(wsgi(shown.opened.database.storage), f"/api/studies/{shown.study_id}", is_valid=False)

    figures = {one["id"]: one["graph_object"] for one in stock.json["plotly_graph_objects"]}
    assert figures.keys() == FIGURES.keys()
    for figure in figures.values():
        assert len(plotly.graph_objects.Figure(json.loads(figure)).data) >= 2


@BOTH
def test_an_old_plot_is_brought_up_to_date(shown: Shown, dashboard: Dashboard, url: str) -> None:
    """Drawn before the last trials ended, by a worker that has died since; and again after each end."""
    with Dashboard(url) as former:
        former.upkeep.look()
    shown.finish(shown.ask(0.76), 0.76)
    shown.finish(shown.ask(0.78), 0.78)
    assert [drawn_trials(figure) for figure in figures_of(shown).values()] == [2, 2]

    dashboard.upkeep.look()
    assert [drawn_trials(figure) for figure in figures_of(shown).values()] == [4, 4]

    shown.finish(shown.ask(0.79), 0.79)
    (watched,) = dashboard.upkeep.look().values()
    # Not at once: drawing takes a twentieth of the time at most.
    watched.progress._not_before = 0.0
    dashboard.upkeep.look()
    assert [drawn_trials(figure) for figure in figures_of(shown).values()] == [5, 5]


def test_a_plot_that_fits_is_not_drawn_again(
    shown: Shown, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no trial ends, looking writes nothing."""
    dashboard.upkeep.look()
    monkeypatch.setattr("search.published_progress.draw_progress", None)

    shown.ask(0.3)
    (watched,) = dashboard.upkeep.look().values()

    assert not watched.progress.is_due


def test_a_target_that_is_set_or_lifted_has_the_plot_drawn(shown: Shown, dashboard: Dashboard) -> None:
    """Though no trial ends."""
    target = shown.opened.database.target(shown.opened.study)
    for value, lines in ((None, 2), (0.8, 3), (0.7, 3), (None, 2)):
        target.set(value)
        for watched in dashboard.upkeep.look().values():
            watched.progress.update(force=True)
        for figure in figures_of(shown).values():
            subtitle = figure["layout"]["title"]["subtitle"]["text"].split("<br>")
            assert len(subtitle) == lines
            assert lines == 2 or subtitle[2].startswith(f"target {100 * (value or 0):.2f} % ")


@BOTH
def test_a_later_plot_is_not_replaced(shown: Shown, dashboard: Dashboard) -> None:
    """Of a worker that knows of more trials than this process has read."""
    attrs = {f"{VERSION_PREFIX}{name}": 99 for name in FIGURES}
    for key, value in attrs.items():
        shown.opened.database.storage.set_study_system_attr(shown.study_id, key, value)

    dashboard.upkeep.look()

    assert figures_of(shown) == dict.fromkeys(FIGURES)


def test_a_plot_that_cannot_be_drawn_stops_nothing(
    shown: Shown, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The trials are what matters; the log has why."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("no axis")

    monkeypatch.setattr("search.published_progress.draw_progress", fail)

    (watched,) = dashboard.upkeep.look().values()

    assert len(watched.trials) == 3
    assert "was not renewed: no axis" in caplog.text


def test_a_reap_has_the_plot_drawn(shown: Shown, url: str, dashboard: Dashboard) -> None:
    """What a dead worker had not drawn is due once its claim is taken back."""
    (watched,) = dashboard.upkeep.look().values()
    assert not watched.progress.is_due

    lose_worker(url, ended=True)
    assert len(watched.keeper.keep_once()) == 1

    assert watched.progress.is_due


def test_the_thread_looks_by_itself(
    shown: Shown, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Though nobody asks; through an outage of the database, too."""
    monkeypatch.setattr("search.dashboard.upkeep.REFRESH_SECONDS", 0.02)
    looked, failed = threading.Event(), threading.Event()
    with Dashboard(url) as dashboard:
        look = dashboard.upkeep.look

        def counted() -> Any:
            try:
                found = look()
            except BaseException:
                failed.set()
                raise
            looked.set()
            return found

        monkeypatch.setattr(dashboard.upkeep, "look", counted)
        with caplog.at_level(logging.WARNING):
            dashboard.upkeep.start()
            with away(dashboard.database):
                assert failed.wait(WAIT_SECONDS)
            looked.clear()
            assert looked.wait(WAIT_SECONDS)

        assert dashboard.upkeep._thread.is_alive()
        assert "the studies could not be read: nobody listens there; trying on" in caplog.text
    assert not dashboard.upkeep._thread.is_alive()


def test_an_upkeep_without_its_database_does_not_start(shown: Shown, dashboard: Dashboard) -> None:
    """The command says why, and no thread is left."""
    with away(dashboard.database):
        with pytest.raises(DATABASE_ERRORS):
            dashboard.upkeep.start()
    dashboard.upkeep.stop()


def test_an_upkeep_that_was_never_started_can_be_stopped(database: Database) -> None:
    """As when the port is taken."""
    Upkeep(database).stop()


def test_two_trials_that_change_places_are_a_change(shown: Shown, dashboard: Dashboard) -> None:
    """One is handed back, another taken: as many wait and run as before."""
    first = shown.ask()
    shown.opened.study.enqueue_trial({})
    before = dashboard.upkeep.fingerprint(shown.study_id)

    shown.ask()
    claimed = shown.opened.database.claimed(shown.opened.artifacts, first._trial_id)
    claimed.hand_back(None, {})

    assert dashboard.upkeep.fingerprint(shown.study_id) != before


def test_a_kept_answer_catches_up_with_the_last_trial(
    shown: Shown, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where optuna-dashboard, which keeps trials for some seconds, had read them just before."""
    now = [datetime(2026, 11, 1)]

    class Now(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now[0]

    monkeypatch.setattr("optuna_dashboard._storage.datetime", Now)
    app = Prepared(
        compress(wsgi(dashboard.database.storage)), dashboard.upkeep.fingerprint, lambda: now[0].timestamp()
    )

    def get(after: int) -> list[str]:
        path = f"/api/studies/{shown.study_id}?after={after}"
        answer = ask(app, path, headers={"Accept-Encoding": "gzip"}, is_valid=False)
        return [trial["state"] for trial in answer.json["trials"]]

    trial = shown.ask(0.9)
    assert get(after=0) == ["Complete", "Complete", "Running"]
    now[0] += timedelta(seconds=60)
    assert get(after=2) == ["Running"]
    shown.finish(trial, 0.9)
    now[0] += timedelta(seconds=1)
    assert get(after=0) == ["Complete", "Complete", "Running"]
    now[0] += timedelta(hours=1)
    assert get(after=0) == ["Complete"] * 3


@pytest.mark.parametrize(
    "odd", [{"retries": "x"}, {"retries": {"total": "x"}}, {"recipe": 5}, {"seconds": "abc"}, {"worker": 1}]
)
def test_odd_attributes_of_a_trial_hide_nothing(
    shown: Shown, dashboard: Dashboard, odd: dict[str, Any]
) -> None:
    """Another program may set what it likes; the study is shown and measured all the same."""
    trial = shown.ask(0.5)
    for key, value in odd.items():
        trial.set_user_attr(key, value)
    shown.finish(trial, 0.9)

    assert dashboard.upkeep.look()["cifar10"].trials[-1].value == 0.9
    assert dashboard.get("/best.json").json["value"] == 0.9
    assert dashboard.get("/metrics").status == 200


def test_a_study_that_cannot_be_looked_at_hides_no_other(
    shown: Shown, database: Database, dashboard: Dashboard, caplog: pytest.LogCaptureFixture
) -> None:
    """It is complained of once, and the upkeep goes on."""
    odd = database.storage.create_new_study(list(shown.opened.study.directions), "odd")
    database.storage.set_study_user_attr(odd, SETTINGS_KEY, {"space": "of another version"})

    for _ in range(3):
        assert set(dashboard.upkeep.look()) == {"cifar10"}

    assert caplog.text.count("study 'odd' is not watched") == 1


@BOTH
def test_those_who_wait_for_a_failing_look_fail_with_it(
    shown: Shown, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten visitors of a database that is away lose patience together, not one after the other."""
    looks = []
    entered, failed = threading.Event(), threading.Event()

    def fail(_: object) -> None:
        looks.append(1)
        entered.set()
        failed.wait(30)
        raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("nobody listens there"))

    monkeypatch.setattr(Upkeep, "_look", fail)
    errors: list[Exception] = []

    def visit() -> None:
        try:
            dashboard.upkeep.look()
        except sqlalchemy.exc.OperationalError as error:
            errors.append(error)

    visitors = [threading.Thread(target=visit) for _ in range(10)]
    visitors[0].start()
    assert entered.wait(30)
    for visitor in visitors[1:]:
        visitor.start()
    # All of them wait for the lock by now, or come to it before the first one fails.
    time.sleep(0.5)
    failed.set()
    for visitor in visitors:
        visitor.join(30)

    assert (len(errors), len(looks)) == (10, 1)
    monkeypatch.undo()
    assert set(dashboard.upkeep.look()) == {"cifar10"}
