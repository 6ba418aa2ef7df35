"""The plots on the study's page are those of its trials, drawn seldom, and never in the way of a trial."""

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import optuna
import plotly.io  # type: ignore[import-untyped]  # plotly ships no types
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

import search.published_progress
from search.progress import draw_progress
from search.published_progress import FIGURES, MOST_POINTS, PublishedProgress, count_ended, figure_json
from search.study import OpenStudy, Wishes, open_or_create_study, open_study
from search.summary import RECIPE_KEY, TrialSummary, summarise_trials
from storage.database import Database, open_database
from storage.url import parse_url
from trainer.recipe import Recipe

WORKERS = 4
TRIALS_EACH = 5
START = datetime(2026, 11, 3, 10, 0)


class Clock:
    """A clock that goes on only where it is told to, in place of the module `time`."""

    def __init__(self) -> None:
        """It begins somewhere."""
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of `search.published_progress`."""
    made = Clock()
    monkeypatch.setattr(search.published_progress, "time", made)
    return made


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """When something was drawn, both figures in two seconds of the clock."""
    times: list[float] = []

    def draw(*arguments: Any) -> dict[str, Any]:
        clock.now += 1.0
        times.append(clock.now)
        return draw_progress(*arguments)

    monkeypatch.setattr(search.published_progress, "draw_progress", draw)
    return times


@pytest.fixture
def opened(any_database: Database) -> OpenStudy:
    """A study with trial 0 waiting, on each kind of database."""
    return open_or_create_study(any_database, "s", Wishes())[0]


@pytest.fixture
def fleet(any_url: str, opened: OpenStudy) -> Iterator[list[OpenStudy]]:
    """The study as several workers have it."""
    with ExitStack() as stack:
        studies = []
        for _ in range(WORKERS):
            database = open_database(any_url, create=False)
            stack.callback(database.close)
            studies.append(open_study(database, "s"))
        yield studies


def end_trial(opened: OpenStudy, value: float = 0.5) -> None:
    """Add a trial to the study that is complete."""
    recipe = Recipe(learning_rate=0.0012, optimizer="adam")
    opened.study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            value=value,
            intermediate_values={1: value},
            user_attrs={RECIPE_KEY: recipe.to_dict()},
            system_attrs={"artifacts:trial-1.h5": json.dumps({"filename": "trial-1-0.5000.h5"})},
        )
    )


def page(opened: OpenStudy) -> dict[str, str]:
    """The figures that optuna-dashboard shows, by name."""
    attrs = opened.database.storage.get_study_system_attrs(opened.study._study_id)
    shown: dict[str, str] = get_plotly_graph_objects(attrs)
    return shown


def right_page(opened: OpenStudy) -> dict[str, str]:
    """The figures that fit the trials as they are."""
    trials = summarise_trials(opened.study)
    return {name: figure_json(trials, "s", against) for name, against in FIGURES.items()}


def made_study(trials: int) -> list[TrialSummary]:
    """Trials of all states with long recipes, one a minute."""
    states = ("complete", "pruned", "diverged", "pruned")
    recipe = Recipe(
        learning_rate=0.000123456,
        optimizer="adam",
        epochs=150,
        dropout_block1=0.12345,
        dropout_block2=0.23456,
        dropout_block3=0.34567,
        dropout_dense=0.45678,
    )
    return [
        TrialSummary(
            number=n,
            state=states[n % 4],
            value=round(value, 4) if n % 4 == 0 else None,
            last_value=round(value, 4),
            epochs_done=3,
            recipe=recipe,
            started=START,
            ended=START + timedelta(minutes=1.2345 * n),
            note="" if n % 4 == 0 else "pruned after epoch 3",
        )
        for n in range(trials)
        for value in [0.5 + 0.28 * (n * 0.618 % 1)]
    ]


def test_the_page_has_what_was_drawn(opened: OpenStudy, any_url: str) -> None:
    """By time and by trials, read through a storage of Optuna's own; plotly takes it, and finds the same."""
    for value in (0.5, 0.75, 0.771):
        end_trial(opened, value)
    progress = PublishedProgress(opened)
    progress.note()
    progress.update()

    assert not progress.is_due
    storage = RDBStorage(parse_url(any_url).render_as_string(hide_password=False))
    shown = get_plotly_graph_objects(storage.get_study_system_attrs(opened.study._study_id))
    storage.engine.dispose()
    assert set(shown) == {"progress-by-time", "progress-by-trials"}
    trials = summarise_trials(opened.study)
    for name, against in FIGURES.items():
        expected = draw_progress(trials, "s", against, MOST_POINTS)
        assert json.loads(shown[name]) == expected
        read = plotly.io.from_json(shown[name])
        assert read.to_plotly_json()["data"] == expected["data"]
        assert [list(trace.y) for trace in read.data if trace.name == "best so far"] == [[50, 75, 77.1, 77.1]]
        assert '"template"' not in shown[name] and "bdata" not in shown[name]


def test_the_page_has_the_target(opened: OpenStudy) -> None:
    """That of the moment when it is drawn."""
    end_trial(opened, 0.75)
    target = opened.database.target(opened.study)
    progress = PublishedProgress(opened)
    for value in (0.7, 0.9, None):
        target.set(value)
        progress.note()
        progress.update(force=True)
        trials = summarise_trials(opened.study)
        expected = {name: figure_json(trials, "s", against, value) for name, against in FIGURES.items()}
        assert page(opened) == expected
        assert all(("target" in figure) == (value is not None) for figure in page(opened).values())


def test_an_empty_study_has_a_page_too(opened: OpenStudy) -> None:
    """Once somebody notes it."""
    progress = PublishedProgress(opened)
    progress.note()
    progress.update()

    assert page(opened) == right_page(opened)


def test_nothing_is_done_where_nothing_is_due(opened: OpenStudy) -> None:
    """Not one statement, be it forced or not."""
    progress = PublishedProgress(opened)
    statements: list[str] = []
    engine = opened.database._backend.engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *a: statements.append(a[2]))

    progress.update()
    progress.update(force=True)
    assert (statements, progress.is_due) == ([], False)
    progress.note()
    assert (statements, progress.is_due) == ([], True)
    assert page(opened) == {}


def test_drawing_takes_a_twentieth_of_the_time(opened: OpenStudy, clock: Clock, drawn: list[float]) -> None:
    """After two seconds of it come forty without, in which what is noted stays due."""
    progress = PublishedProgress(opened)
    progress.note()
    progress.update()
    assert drawn == [1001, 1002]

    progress.note()
    for clock.now in (1002, 1041.9):
        progress.update()
        assert progress.is_due
    assert len(drawn) == 2
    clock.now = 1042
    progress.update()
    assert drawn[2:] == [1043, 1044]
    assert not progress.is_due


def test_a_worker_that_ends_need_not_wait(opened: OpenStudy, clock: Clock, drawn: list[float]) -> None:
    """Forced, it draws what is due at once, and once."""
    progress = PublishedProgress(opened)
    progress.note()
    progress.update()
    end_trial(opened)
    progress.note()

    progress.update(force=True)
    progress.update(force=True)

    assert len(drawn) == 4
    assert page(opened) == right_page(opened)


def test_a_pause_is_five_minutes_at_most(opened: OpenStudy, clock: Clock, drawn: list[float]) -> None:
    """A drawing that waited ten minutes for the database does not make the next one wait for hours."""
    progress = PublishedProgress(opened)
    progress.note()
    clock.now += 600
    began = clock.now

    def slow(*_: Any) -> list[TrialSummary]:
        clock.now = began + 600
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search.published_progress, "summarise_trials", slow)
        progress.update()
    progress.note()
    clock.now = began + 602 + 299
    progress.update()
    assert len(drawn) == 2
    clock.now += 1
    progress.update()
    assert len(drawn) == 4


def test_what_is_noted_while_drawing_stays_due(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials may have been read before it happened."""
    progress = PublishedProgress(opened)

    def draw(*arguments: Any) -> dict[str, Any]:
        progress.note()
        return draw_progress(*arguments)

    monkeypatch.setattr(search.published_progress, "draw_progress", draw)
    progress.note()
    progress.update()

    assert progress.is_due


@pytest.mark.parametrize("broken", ["read", "draw", "publish"])
def test_a_failure_is_a_warning(
    opened: OpenStudy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """Whatever goes wrong, the caller goes on; the plot comes after a pause, or when it is forced."""
    clock = Clock()
    monkeypatch.setattr(search.published_progress, "time", clock)
    progress = PublishedProgress(opened)
    tries: list[str] = []

    def fail(*_: Any) -> Any:
        tries.append(broken)
        clock.now += 2
        raise sqlalchemy.exc.OperationalError("SELECT secret", {}, Exception("nobody\nthere"))

    with monkeypatch.context() as patch:
        if broken == "publish":
            patch.setattr(Database, "publish", fail)
        else:
            name = {"read": "summarise_trials", "draw": "draw_progress"}[broken]
            patch.setattr(search.published_progress, name, fail)
        progress.note()
        progress.update()
        progress.update()
        assert (progress.is_due, tries) == (True, [broken])
        [record] = caplog.get_records("call")
        assert record.levelno == logging.WARNING
        assert record.getMessage() == ("the progress plot on the study's page was not renewed: nobody there")
        progress.update(force=True)
        assert (progress.is_due, len(tries)) == (True, 2)
    assert page(opened) == {}

    clock.now += 40
    progress.update()
    assert page(opened) == right_page(opened)


def test_a_study_that_is_deleted_meanwhile_is_a_warning(
    opened: OpenStudy, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no page any more."""
    progress = PublishedProgress(opened)
    optuna.delete_study(study_name="s", storage=opened.database.storage)
    progress.note()
    progress.update()
    assert "was not renewed" in caplog.text


def test_an_interruption_is_none_of_its_business(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes through."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search.published_progress, "draw_progress", interrupt)
    progress = PublishedProgress(opened)
    progress.note()
    with pytest.raises(KeyboardInterrupt):
        progress.update()


def test_who_read_earlier_does_not_win(fleet: list[OpenStudy], monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is slow to draw finds a later figure there, and leaves it."""
    first, second, *_ = fleet
    slow, quick = PublishedProgress(first), PublishedProgress(second)
    end_trial(first)
    real = search.published_progress.draw_progress

    def draw(*arguments: Any) -> dict[str, Any]:
        monkeypatch.setattr(search.published_progress, "draw_progress", real)
        end_trial(second, 0.75)
        quick.note()
        quick.update()
        return draw_progress(*arguments)

    monkeypatch.setattr(search.published_progress, "draw_progress", draw)
    slow.note()
    slow.update()

    assert not slow.is_due
    assert page(first) == right_page(first)
    assert "75.00 %" in page(first)["progress-by-time"]


def test_the_page_is_right_after_the_last_trial(fleet: list[OpenStudy]) -> None:
    """Of four workers that end their trials at once, the last one's figures stay."""

    def work(opened: OpenStudy) -> None:
        progress = PublishedProgress(opened)
        for _ in range(TRIALS_EACH):
            end_trial(opened)
            progress.note()
            progress.update()
        progress.update(force=True)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, fleet))

    shown = page(fleet[0])
    assert shown == right_page(fleet[0])
    assert f"{WORKERS * TRIALS_EACH} complete" in shown["progress-by-trials"]


def test_a_shorter_figure_leaves_no_rest(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some trials their texts are short, and the figure of one more trial is half as long."""
    progress = PublishedProgress(opened)
    lengths = []
    for trials in (200, 201):
        monkeypatch.setattr(search.published_progress, "summarise_trials", lambda _, n=trials: made_study(n))
        progress.note()
        progress.update(force=True)
        shown = page(opened)["progress-by-time"]
        assert shown == figure_json(made_study(trials), "s", "time")
        lengths.append(len(shown))
    assert lengths[1] < 0.7 * lengths[0]


@pytest.mark.parametrize("trials", [0, 12, 100, 200, 201, 500, 600, 5000])
@pytest.mark.parametrize("target", [None, 0.7775])
def test_a_page_is_sent_less_than_60_kilobytes(trials: int, target: float | None) -> None:
    """Both figures together, as the dashboard has them: strings within JSON."""
    texts = [figure_json(made_study(trials), "cifar10", against, target) for against in FIGURES.values()]
    assert len(json.dumps(texts).encode()) < 60_000


def test_a_version_counts_ended_trials(opened: OpenStudy) -> None:
    """Those that run or wait are none yet, whatever they reported."""
    end_trial(opened)
    opened.study.ask().report(0.5, 1)
    opened.study.add_trial(create_trial(state=TrialState.FAIL))
    opened.study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: 0.5}))

    assert count_ended(summarise_trials(opened.study)) == 3


def test_a_worker_draws_without_plotly(python: Callable[[str], str]) -> None:
    """Importing it would take a second and some tens of megabytes of each worker."""
    script = """
import sys
from search.published_progress import figure_json
print(len(figure_json([], "s", "time")) > 1000, [name for name in sys.modules if "plotly" in name])
"""
    assert python(script).strip() == "True []"
