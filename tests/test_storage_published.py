"""A figure on a study's page is whole, and replaced by none but later ones, whoever publishes them."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna_dashboard import save_plotly_graph_object
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from plotly.graph_objects import Figure  # type: ignore[import-untyped]  # plotly ships no types
from test_storage_shared import broken_commit

from storage.database import Database, open_database
from storage.published import publish
from storage.shared_storage import STUDY_ATTRS
from storage.url import parse_url

WRITERS = 8
ROUNDS = 12
NAME = "progress"
READ_VERSIONS = 80
LONG = 40_000
"""Characters of a figure; Optuna's own tools would make 20 chunks of it."""


@pytest.fixture
def study(any_database: Database) -> Study:
    """An empty study, on each kind of database."""
    return optuna.create_study(storage=any_database.storage, study_name="s", direction="maximize")


@pytest.fixture
def writers(any_url: str, study: Study) -> Iterator[list[tuple[Database, Study]]]:
    """The study as several processes have it: each with connections of its own."""
    with ExitStack() as stack:
        opened = []
        for _ in range(WRITERS):
            database = open_database(any_url, create=False)
            stack.callback(database.close)
            opened.append((database, optuna.load_study(storage=database.storage, study_name="s")))
        yield opened


def figure(version: int, length: int = 0) -> str:
    """A text that names its version at both ends, so that halves of two are told from a whole."""
    return f"{version}{'x' * length}{version}"


def page(database: Database, study: Study) -> dict[str, str]:
    """The figures that optuna-dashboard shows, by name."""
    attrs = database.storage.get_study_system_attrs(study._study_id)
    shown: dict[str, str] = get_plotly_graph_objects(attrs)
    return shown


def rows(database: Database) -> dict[str, str]:
    """All study system attributes in the database."""
    query = sqlalchemy.select(STUDY_ATTRS.c.key, STUDY_ATTRS.c.value_json)
    with database._backend.engine.connect() as connection:
        return {key: value for key, value in connection.execute(query)}


def at_once(work: Callable[[int], Any], count: int) -> list[Any]:
    """Call `work` with 0, 1 and so on in as many threads, which begin together."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait(60)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        futures: list[Future[Any]] = [pool.submit(begin, number) for number in range(count)]
    return [future.result() for future in futures]


def test_a_figure_is_what_optuna_dashboard_reads(any_database: Database, study: Study) -> None:
    """Exactly as where its own function saves one of few characters."""
    own = Figure({"data": [{"type": "scatter", "x": [1], "y": [2]}]}, {"title": {"text": "ä · \\ \" <b>'%"}})
    text = own.update_layout(template=None).to_json()
    save_plotly_graph_object(study, own, graph_object_id="theirs")

    assert any_database.publish(study, "ours", 0, text)

    assert page(any_database, study) == {"ours": text, "theirs": text}
    attrs = any_database.storage.get_study_system_attrs(study._study_id)
    assert attrs["dashboard:plot_data:ours:0"] == attrs["dashboard:plot_data:theirs:0"]


def test_a_later_figure_replaces_an_earlier_one(any_database: Database, study: Study) -> None:
    """As one of the same version does; nothing is left of a longer one. An earlier one changes nothing."""
    for version, length, is_shown in ((0, 9, True), (9, LONG, True), (10, 0, True), (10, 3, True)):
        assert any_database.publish(study, NAME, version, figure(version, length)) == is_shown
        assert page(any_database, study) == {NAME: figure(version, length)}
    for version in (9, 2, 0):
        assert not any_database.publish(study, NAME, version, figure(version))
        assert page(any_database, study) == {NAME: figure(10, 3)}


def test_figures_and_studies_are_apart(any_database: Database, study: Study) -> None:
    """A version counts for one name in one study; what else is known of a study stays."""
    other = optuna.create_study(storage=any_database.storage, study_name="other")
    any_database.limit_trials(study, 7)
    assert any_database.publish(study, NAME, 5, "a")

    assert any_database.publish(study, "another", 1, "b")
    assert any_database.publish(other, NAME, 1, "c")

    assert page(any_database, study) == {NAME: "a", "another": "b"}
    assert page(any_database, other) == {NAME: "c"}
    assert any_database.read_limit(study) == 7


def test_the_latest_of_several_at_once_stays(writers: list[tuple[Database, Study]]) -> None:
    """Eight that publish together, also the first figure, end with the highest version and no error."""
    rng = random.Random(0)
    for round_ in range(ROUNDS):
        versions = rng.sample(range(100 * round_, 100 * round_ + 100), WRITERS)

        def work(number: int, versions: list[int] = versions) -> bool:
            database, study = writers[number]
            version = versions[number]
            return database.publish(study, NAME, version, figure(version, LONG * (version % 2)))

        shown = at_once(work, WRITERS)

        latest = max(versions)
        assert shown[versions.index(latest)]
        assert page(*writers[0]) == {NAME: figure(latest, LONG * (latest % 2))}


def test_who_reads_meanwhile_sees_whole_figures_of_rising_versions(
    any_url: str, writers: list[tuple[Database, Study]]
) -> None:
    """Through a storage of Optuna's own, as the command optuna-dashboard has one."""
    study_id = writers[0][1]._study_id
    last = 1000 + READ_VERSIONS - 1
    address = parse_url(any_url).render_as_string(hide_password=False)
    seen: list[int] = []

    def read() -> None:
        storage = RDBStorage(address)
        while not seen or seen[-1] < last:
            shown = get_plotly_graph_objects(storage.get_study_system_attrs(study_id))
            if shown:
                seen.append(version := int(shown[NAME][:4]))
                assert shown[NAME] == figure(version, LONG + 7 * version)
        storage.engine.dispose()

    def write(number: int) -> None:
        database, study = writers[number]
        for version in range(1000 + number, last + 1, WRITERS):
            database.publish(study, NAME, version, figure(version, LONG + 7 * version))

    with ThreadPoolExecutor(WRITERS + 1) as pool:
        reader = pool.submit(read)
        list(pool.map(write, range(WRITERS)))
        reader.result()

    assert seen == sorted(seen)


def test_an_earlier_one_waits_for_a_later_one_on_its_way(postgres: Callable[[], str]) -> None:
    """Begun while the later one is not committed yet, it finds it all the same; so with the first of all.

    SQLite has one transaction at a time.
    """
    with ExitStack() as stack:
        first, second = (open_database(url) for url in [postgres()] * 2)
        stack.callback(first.close)
        stack.callback(second.close)
        study = optuna.create_study(storage=first.storage, study_name="s")
        began = threading.Event()
        pool = stack.enter_context(ThreadPoolExecutor(1))
        sqlalchemy.event.listen(
            second._backend.engine, "before_cursor_execute", lambda *_: began.set(), insert=True
        )
        for version in (5, 15):
            began.clear()
            with first._backend.engine.begin() as connection:
                assert publish(connection, study._study_id, NAME, version, figure(version))
                late = pool.submit(second.publish, study, NAME, version - 1, figure(version - 1))
                assert began.wait(60)
            assert not late.result()
            assert page(first, study) == {NAME: figure(version)}


def test_a_figure_comes_with_its_version_or_not_at_all(any_database: Database, study: Study) -> None:
    """What fails between the two leaves both as they were, for a new figure and for a replaced one."""
    engine = any_database._backend.engine

    def fail(_connection: Any, _cursor: Any, _statement: str, parameters: Any, *_: Any) -> None:
        if "dashboard:plot_data" in str(parameters):
            raise ConnectionResetError("the machine went away")

    for version in (1, 2):
        before = rows(any_database)
        sqlalchemy.event.listen(engine, "before_cursor_execute", fail)
        with pytest.raises(ConnectionResetError):
            any_database.publish(study, NAME, version, figure(version))
        sqlalchemy.event.remove(engine, "before_cursor_execute", fail)
        assert rows(any_database) == before
        assert any_database.publish(study, NAME, version, figure(version))


@pytest.mark.parametrize("outcome", ["done", "lost"])
def test_an_outage_is_waited_out(any_url: str, study: Study, outcome: Any) -> None:
    """A commit that breaks is made again, whether it reached the server or not."""
    database = open_database(any_url, patience_seconds=60)
    with broken_commit(database, outcome):
        assert database.publish(study, NAME, 3, figure(3))

    assert page(database, study) == {NAME: figure(3)}
    assert rows(database)[f"cnn_search:published:{NAME}"] == "3"
    database.close()


def test_a_study_that_is_gone_gets_no_figure(any_database: Database, study: Study) -> None:
    """Nothing is left of it for a later study, which SQLite gives the same id."""
    any_database.publish(study, NAME, 5, figure(5))
    optuna.delete_study(study_name="s", storage=any_database.storage)

    assert not any_database.publish(study, NAME, 6, figure(6))

    assert rows(any_database) == {}
    new = optuna.create_study(storage=any_database.storage, study_name="new")
    assert any_database.publish(new, NAME, 0, json.dumps({}))
