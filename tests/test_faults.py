"""Real worker processes that are killed, stopped, frozen, starved and cut off: the study stays right.

`pytest -m faults` runs these alone; `benchmarks/faults.py` runs the rounds many times and counts.
"""

import io
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pytest
from fault_rounds import SPACE, Fault, Fleet, Outcome, check_round, freeze_one, kill_one, run_round, stop_one
from optuna.trial import TrialState
from postgres import PostgresServer
from tcp_proxy import TcpProxy

from search.space import Choices, NumberRange, Space, params_of
from search.study import OpenStudy, Wishes, open_or_create_study, open_study
from search.summary import RECIPE_KEY
from storage.database import open_database
from storage.trial_files import read_file
from trainer.recipe import OPTIMIZERS, Recipe

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]
WAIT_SECONDS = 90.0
"""Bound on what is polled."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that the tests may stop."""
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


def fleet_on(url: str, folder: Path, *options: str, wishes: Wishes, total: int) -> Fleet:
    """A fleet without processes yet, for a new study of that total."""
    database = open_database(url)
    opened, _ = open_or_create_study(database, "sample", wishes)
    database.limit_trials(opened.study, total)
    database.close()
    return Fleet(url, folder, options)


@pytest.fixture
def fleets() -> Iterator[Callable[..., Fleet]]:
    """Make fleets whose processes are killed in the end."""
    made: list[Fleet] = []

    def make(*arguments: Any, **options: Any) -> Fleet:
        made.append(fleet_on(*arguments, **options))
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()


def wait_for(fleet: Fleet, found: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Until the workers have told what is looked for."""
    ends = time.monotonic() + WAIT_SECONDS
    while not found(fleet.events()):
        assert time.monotonic() < ends, [*fleet.events(), *errors_of(fleet)]
        time.sleep(0.1)


def wait_for_end(fleet: Fleet) -> None:
    """Until all workers have ended by themselves, without an error."""
    for process in fleet.processes:
        process.wait(timeout=WAIT_SECONDS)
    assert [process.returncode for process in fleet.processes] == [0] * fleet.started, errors_of(fleet)


def errors_of(fleet: Fleet) -> list[str]:
    """What the workers wrote to stderr."""
    return [path.read_text()[-2000:] for path in fleet.folder.glob("*.err")]


def has(kind: str, **values: Any) -> Callable[[list[dict[str, Any]]], bool]:
    """Whether an event of that kind and values is among those told."""
    return lambda events: any(
        event["kind"] == kind and all(event.get(key) == value for key, value in values.items())
        for event in events
    )


def assert_right(url: str, fleet: Fleet, total: int) -> None:
    """All trials finished, every file in its place, nothing left over."""
    outcome = Outcome()
    check_round(url, total, fleet.events(), outcome)
    assert outcome.wrong == []


@pytest.mark.parametrize("fault", [kill_one, stop_one, freeze_one])
def test_a_round_of_faults_ends_right(server: PostgresServer, tmp_path: Path, fault: Fault) -> None:
    """Whatever is done to random workers, each trial finishes once, with all its files."""
    outcome = run_round(server.create_database(), tmp_path, fault, seed=0, workers=3, trials=8)
    assert outcome.wrong == []
    assert outcome.faults > 0


def test_a_round_of_kills_ends_right_on_sqlite(tmp_path: Path) -> None:
    """The same with the other database."""
    outcome = run_round(f"sqlite:///{tmp_path / 'study.db'}", tmp_path, kill_one, seed=1, workers=2, trials=6)
    assert outcome.wrong == []
    assert outcome.faults > 0


@pytest.mark.parametrize("fault", [kill_one, freeze_one])
def test_a_round_of_faults_leaves_no_file_in_a_folder(
    server: PostgresServer, tmp_path: Path, fault: Fault
) -> None:
    """With `--artifacts`, what is in the folder afterwards is what the table names, to the last file."""
    outcome = run_round(
        server.create_database(),
        tmp_path,
        fault,
        seed=4,
        workers=2,
        trials=5,
        most_faults=6,
        artifacts=f"file://{tmp_path}/files",
    )
    assert outcome.wrong == []
    assert outcome.faults > 0


def test_a_folder_that_is_full_is_waited_out(
    server: PostgresServer, tmp_path: Path, fleets: Callable[..., Fleet]
) -> None:
    """No trial fails for it, and who is told to stop meanwhile hands its trial back with what was stored."""
    url = server.create_database()
    wishes = Wishes(SPACE, 60, 320, artifacts=f"file://{tmp_path}/files")
    fleet = fleets(url, tmp_path, "checkpoint_epochs=1", wishes=wishes, total=1)
    fleet.start()
    process = fleet.processes.pop()

    def count_tries(events: list[dict[str, Any]]) -> int:
        return sum("trying again" in event.get("text", "") for event in events)

    wait_for(fleet, has("EpochEnded", trial=0, epoch=2))
    # Room for the lines of its log, not for a state of megabytes.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    wait_for(fleet, lambda events: count_tries(events) == 1)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for(fleet, lambda events: any("is back" in event.get("text", "") for event in events))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    wait_for(fleet, lambda events: count_tries(events) == 2)
    process.terminate()
    assert process.wait(timeout=10.0) == 130, errors_of(fleet)
    (trial,) = trials_of(url)
    assert (trial.state, trial.user_attrs.get("failure")) == (TrialState.WAITING, None)

    fleet.start()
    assert fleet.processes[0].wait(timeout=WAIT_SECONDS) == 0, errors_of(fleet)
    assert not has("TrialStarted", trial=0, epoch=1)(
        [event for event in fleet.events() if event["pid"] != process.pid]
    )
    assert_right(url, fleet, 1)


def test_workers_outlive_a_server_that_is_away_for_30_seconds(server: PostgresServer, tmp_path: Path) -> None:
    """Nobody dies, nothing is lost, nobody's trial is taken for it."""

    def restart(fleet: Fleet, _: Random, outcome: Outcome) -> None:
        server.stop()
        time.sleep(30.0)
        server.start()
        outcome.faults += 1

    url = server.create_database()
    outcome = run_round(
        url, tmp_path, restart, seed=2, workers=2, trials=6, pause_seconds=(8, 9), most_faults=1
    )
    assert (outcome.wrong, outcome.faults, outcome.hits) == ([], 1, 0)


def test_a_cut_network_is_waited_out(
    server: PostgresServer, tmp_path: Path, fleets: Callable[..., Fleet]
) -> None:
    """The worker says so, tries on, and finishes its trial when the network is back."""
    direct = server.create_database()
    with TcpProxy(server.port) as proxy:
        url = proxy.url(direct)
        fleet = fleets(url, tmp_path, wishes=Wishes(SPACE, 6, 320), total=2)
        fleet.start()
        wait_for(fleet, has("EpochEnded", trial=0))
        proxy.cut()
        wait_for(fleet, lambda events: any("trying" in event.get("text", "") for event in events))
        proxy.restore()
        wait_for_end(fleet)
    assert trials_of(direct)[0].state == TrialState.COMPLETE
    assert_right(direct, fleet, 2)
    assert has("Notice")(fleet.events())


def test_a_worker_behind_a_dead_network_loses_its_trial_and_lets_go(
    server: PostgresServer, tmp_path: Path, fleets: Callable[..., Fleet]
) -> None:
    """Another one takes it over; on its return, the first writes nothing to it and goes on with others."""
    direct = server.create_database()
    with TcpProxy(server.port) as proxy:
        options = ("lease=3", "checkpoint_seconds=0")
        fleet = fleets(proxy.url(direct), tmp_path, *options, wishes=Wishes(SPACE, 60, 320), total=2)
        fleet.start()
        wait_for(fleet, has("EpochEnded", trial=0))
        proxy.stall()
        fleet.url = direct
        fleet.start()
        second = fleet.processes[1].pid
        wait_for(fleet, has("TrialStarted", trial=0, pid=second))
        proxy.restore()
        wait_for(fleet, has("TrialEnded", trial=0, state="taken"))
        fleet.processes[1].wait(timeout=WAIT_SECONDS)
        fleet.processes[0].wait(timeout=WAIT_SECONDS)
    assert all(trial.state.is_finished() for trial in trials_of(direct))


def test_a_full_disk_is_waited_out(tmp_path: Path, fleets: Callable[..., Fleet]) -> None:
    """No write gets through until there is room again; then the study ends right."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    fleet = fleets(url, tmp_path, "checkpoint_seconds=0", wishes=Wishes(SPACE, 8, 320), total=2)
    fleet.start()
    pid = fleet.processes[0].pid
    wait_for(fleet, has("EpochEnded", trial=0))
    # What the process may write to any file, from now on: what the database has already.
    size = (tmp_path / "study.db").stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size // 4, resource.RLIM_INFINITY))
    wait_for(fleet, lambda events: any("trying again" in event.get("text", "") for event in events))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for_end(fleet)
    assert_right(url, fleet, 2)


def trials_of(url: str) -> list[Any]:
    """A study's trials, as plain Optuna reads them."""
    database = open_database(url, create=False)
    trials = open_study(database, "sample").study.trials
    database.close()
    return trials


ALL_OPTIMIZERS = Space("all.toml", (Choices("optimizer", OPTIMIZERS), NumberRange("epochs", 1, 100)))
"""Of trials so long that the pruner judges none before epoch 4."""
EPOCHS = 3


def prepare(url: str) -> None:
    """A study with a waiting trial for each optimizer, and no other."""
    database = open_database(url)
    opened, _ = open_or_create_study(database, "sample", Wishes(ALL_OPTIMIZERS, None, 320))
    opened.study.tell(opened.study.ask(), state=TrialState.FAIL)
    for optimizer in OPTIMIZERS:
        recipe = Recipe(optimizer=optimizer, learning_rate=0.003, epochs=EPOCHS, seed=5)
        params = params_of(recipe, ALL_OPTIMIZERS)
        opened.study.enqueue_trial(params, user_attrs={RECIPE_KEY: recipe.to_dict()})
    database.limit_trials(opened.study, 1 + len(OPTIMIZERS))
    database.close()


def stored_arrays(url: str) -> list[dict[str, Any]]:
    """All arrays of each trial's stored model, weights and optimizer, by name, and the trial's value."""
    database = open_database(url, create=False)
    opened: OpenStudy = open_study(database, "sample")
    models = []
    for trial in opened.study.trials[1:]:
        arrays: dict[str, Any] = {"value": np.asarray(trial.value), "params": trial.params["optimizer"]}
        content = read_file(opened.artifacts, database.storage, trial, ".h5").content
        with h5py.File(io.BytesIO(content)) as file:
            file.visititems(
                lambda name, item, arrays=arrays: (
                    arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
                )
            )
        models.append(arrays)
    database.close()
    return models


def test_trials_killed_at_every_epoch_end_as_those_that_ran_through(
    tmp_path: Path, fleets: Callable[..., Fleet]
) -> None:
    """For every optimizer: the stored models are the same, bit for bit."""
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("through", "killed")]
    for url in urls:
        prepare(url)
    environment = Fleet(urls[0], tmp_path / "a", ("checkpoint_epochs=1", "checkpoint_seconds=1000"))
    environment.folder.mkdir()
    environment.start()
    killed = Fleet(urls[1], tmp_path / "b", ("checkpoint_epochs=1", "kill_after=1"))
    killed.folder.mkdir()
    codes = []
    while 0 not in codes:
        killed.start()
        codes.append(killed.processes[-1].wait(timeout=WAIT_SECONDS))
        assert codes[-1] in (0, -signal.SIGKILL), errors_of(killed)
    assert environment.processes[0].wait(timeout=WAIT_SECONDS) == 0, errors_of(environment)

    assert len(codes) == EPOCHS * len(OPTIMIZERS) + 1
    through, resumed = map(stored_arrays, urls)
    assert [model["params"] for model in through] == list(OPTIMIZERS)
    for one, other in zip(through, resumed, strict=True):
        assert one.keys() == other.keys()
        assert any("optimizer" in name for name in one)
        for name, array in one.items():
            assert np.array_equal(array, other[name]), name


SMALL: dict[str, Any] = {"width": 0.25, "blocks": 2, "dense_units": 16, "batch_size": 32}
SMALL_NETWORKS = Space(
    "small.toml",
    (*(NumberRange(name, value, value) for name, value in SMALL.items()), NumberRange("epochs", 1, 100)),
)
"""Of one shape, and of trials so long that the pruner judges none of those below."""


def test_trials_of_a_pack_go_on_elsewhere_when_its_worker_is_killed(
    tmp_path: Path, fleets: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that were in its slots, from the last epoch that each has stored, in a pack of another size."""
    pytest.importorskip("jax")
    # Compiling takes most of the time.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    fleet = fleets(url, tmp_path, wishes=Wishes(SMALL_NETWORKS, None, 320), total=5)
    database = open_database(url)
    opened = open_study(database, "sample")
    # Of another shape.
    opened.study.tell(opened.study.ask(), state=TrialState.FAIL)
    for seed in range(4):
        recipe = Recipe(epochs=3, seed=seed, **SMALL)
        params = params_of(recipe, SMALL_NETWORKS)
        opened.study.enqueue_trial(params, user_attrs={RECIPE_KEY: recipe.to_dict()})
    database.close()
    packed = ('engine="packed"', "checkpoint_epochs=1")
    fleet.options = (*packed, "slots=3", "kill_after=2")

    fleet.start()
    killed = fleet.processes[0]
    assert killed.wait(timeout=WAIT_SECONDS) == -signal.SIGKILL, errors_of(fleet)
    left = trials_of(url)[1:]
    assert [trial.state.name for trial in left] == ["RUNNING"] * 3 + ["WAITING"]
    reached = [len(trial.intermediate_values) for trial in left]
    # It was killed while it reported the second epoch.
    assert reached == [2, 1, 1, 0]

    fleet.options = (*packed, "slots=2")
    fleet.start()
    assert fleet.processes[1].wait(timeout=WAIT_SECONDS) == 0, errors_of(fleet)
    started = {
        event["trial"]: event["epoch"]
        for event in fleet.events()
        if event["kind"] == "TrialStarted" and event["pid"] != killed.pid
    }
    assert started == {1: 3, 2: 2, 3: 2, 4: 1}
    trials = trials_of(url)[1:]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    for trial in trials:
        assert sorted(trial.intermediate_values) == [1, 2, 3]
        assert trial.user_attrs["worker"]["engine"] == "packed"
    outcome = Outcome()
    check_round(url, 5, fleet.events(), outcome)
    # The one that failed above counts as what did not finish.
    assert [line.split(",")[0] for line in outcome.wrong] == ["5 trials were to finish"]


def test_a_worker_told_to_stop_at_any_moment_leaves_nothing_running(
    server: PostgresServer, tmp_path: Path, fleets: Callable[..., Fleet]
) -> None:
    """In its start, in an epoch, at a trial's end: it ends within ten seconds, and another finishes."""
    url = server.create_database()
    fleet = fleets(url, tmp_path, "lease=4", "checkpoint_seconds=0", wishes=Wishes(SPACE, 8, 320), total=3)
    chance = Random(3)
    for _ in range(4):
        fleet.start()
        process = fleet.processes[-1]
        ends = time.monotonic() + chance.uniform(3.0, 9.0)
        while time.monotonic() < ends and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        # Before it can hear signals, Python dies of them.
        assert process.wait(timeout=10.0) in (130, 0, -signal.SIGTERM), errors_of(fleet)
        assert all(trial.state != TrialState.RUNNING for trial in trials_of(url)) or process.returncode < 0
    fleet.start()
    assert fleet.processes[-1].wait(timeout=WAIT_SECONDS) == 0, errors_of(fleet)
    assert_right(url, fleet, 3)


def test_plain_optuna_tools_read_the_study(server: PostgresServer, tmp_path: Path) -> None:
    """`optuna.load_study` on a storage of Optuna's own, and the stock dashboard's command."""
    import json
    import sys
    from urllib.request import urlopen

    import optuna
    from tcp_proxy import free_port

    url = server.create_database()
    database = open_database(url)
    opened, _ = open_or_create_study(database, "sample", Wishes(SPACE, 2, 320))
    opened.study.add_trial(optuna.create_trial(value=0.5, user_attrs={"a": 1}))
    database.close()

    # Optuna 5 takes a bare postgresql:// to mean psycopg 3.
    plain_url = url.replace("postgresql://", "postgresql+psycopg2://")
    study = optuna.load_study(study_name="sample", storage=optuna.storages.RDBStorage(plain_url))
    assert [trial.state.name for trial in study.trials] == ["WAITING", "COMPLETE"]
    port = free_port()
    command = [Path(sys.executable).with_name("optuna-dashboard"), plain_url, "--port", str(port)]
    with (
        (tmp_path / "dashboard.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=os.environ) as dashboard,
    ):
        try:
            answer: Any = None
            ends = time.monotonic() + WAIT_SECONDS
            while answer is None and time.monotonic() < ends:
                try:
                    with urlopen(f"http://127.0.0.1:{port}/api/studies") as response:
                        answer = json.load(response)
                except OSError:
                    time.sleep(0.2)
        finally:
            dashboard.kill()
    assert [summary["study_name"] for summary in answer["study_summaries"]] == ["sample"]
