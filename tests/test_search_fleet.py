"""Worker processes: the total is exact, and whoever dies or is stopped, no trial is left running.

Real processes, on the sample where they are started from here, on CIFAR-10 itself where the command is.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import optuna
import pytest
import sample
from optuna.trial import TrialState
from postgres import PostgresServer
from test_storage_leases import ended_identity

from search.assignment import Assignment
from search.events import EpochEnded, TrialEnded, TrialStarted
from search.fleet import Stop, WorkerFailed, _bury, run_fleet
from search.study import OpenStudy, Wishes, open_or_create_study
from storage.database import Database, open_database
from storage.leases import RETRIES_KEY

WAIT_SECONDS = 110.0
"""Bound on what is polled; it takes a second or two."""


def assignment(url: str, **changes: Any) -> Assignment:
    """What workers on the sample are to do."""
    values: dict[str, Any] = {"ends_at": None, "threads": 1, "digests": sample.DIGESTS, **changes}
    return Assignment(url, "sample", sample.PATH, **values)


def open_sample_study(database: Database, max_epochs: int, total: int) -> OpenStudy:
    """A study of `total` trials on the sample, which take as many epochs."""
    opened, _ = open_or_create_study(database, "sample", Wishes(None, max_epochs, 320))
    database.limit_trials(opened.study, total)
    return opened


def states(study: optuna.Study) -> Counter[str]:
    """How many trials are in which state."""
    return Counter(trial.state.name for trial in study.trials)


def children_of(process_id: int) -> list[int]:
    """The worker processes among a process's children."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, command in commands.items() if b"spawn_main" in command]


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll, for what no event tells."""
    ends = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)


def is_alive(process_id: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


linux_only = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


def test_two_workers_train_exactly_the_total(database: Database, url: str) -> None:
    """They share the trials, their draws differ, and the parent's signal handlers are as before."""
    opened = open_sample_study(database, max_epochs=1, total=5)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    events: list[Any] = []

    stop = run_fleet(opened, assignment(url), 2, events.append)

    assert stop.requests == 0
    assert states(opened.study) == {"COMPLETE": 5}
    assert [event for event in events if isinstance(event, WorkerFailed)] == []
    for kind in (TrialStarted, EpochEnded, TrialEnded):
        assert sorted(event.number for event in events if isinstance(event, kind)) == [0, 1, 2, 3, 4]
    rates = {event.recipe.learning_rate for event in events if isinstance(event, TrialStarted)}
    assert len(rates) == 5
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


@linux_only
def test_the_trial_of_a_killed_worker_is_handed_back(database: Database, url: str) -> None:
    """The parent says which worker died of what; the other one takes the trial up and ends it."""
    opened = open_sample_study(database, max_epochs=40, total=1)
    events: list[Any] = []

    def show(event: Any) -> None:
        events.append(event)
        if isinstance(event, EpochEnded) and not any(isinstance(old, WorkerFailed) for old in events):
            for child in children_of(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    run_fleet(opened, assignment(url), 1, show)

    (failure,) = [event for event in events if isinstance(event, WorkerFailed)]
    assert (failure.worker, failure.reason) == (0, "killed by SIGKILL")
    last = events[-1]
    assert (last.number, last.state, last.value) == (0, "waiting", None)
    assert last.note.startswith(f"its worker ended (host {socket.gethostname()}, pid ")
    (trial,) = opened.study.trials
    assert trial.state == TrialState.WAITING
    assert 1 in trial.intermediate_values


def dead_member() -> Any:
    """A worker process that was killed, as its parent has it."""
    return SimpleNamespace(
        index=0,
        process=SimpleNamespace(join=lambda: None, exitcode=-9),
        pipe=SimpleNamespace(close=lambda: None),
    )


def test_a_dead_workers_trial_is_taken_back_after_a_restart(tmp_path: Path) -> None:
    """The parent's connection is from before it, and it has no patience otherwise."""
    with PostgresServer(tmp_path) as server:
        database = open_database(server.create_database())
        opened = open_sample_study(database, max_epochs=1, total=1)
        opened.leases().renew(ended := ended_identity(), 600.0)
        database.work_as(ended)
        opened.study.ask()
        server.restart("immediate")
        events: list[Any] = []

        _bury(dead_member(), opened, events.append, Stop())

        failure, taken = events
        assert failure == WorkerFailed(0, "killed by SIGKILL")
        assert (taken.number, taken.state) == (0, "waiting")
        assert states(opened.study) == {"WAITING": 1}
        assert opened.study.trials[0].user_attrs[RETRIES_KEY]["total"] == 1
        database.close()


def test_who_is_told_to_stop_and_killed_costs_its_trial_no_chance(database: Database) -> None:
    """A step of a large network can take longer than there is time; the trial is not to blame."""
    opened = open_sample_study(database, max_epochs=1, total=1)
    opened.leases().renew(ended := ended_identity(), 600.0)
    database.work_as(ended)
    opened.study.ask()
    events: list[Any] = []

    _bury(dead_member(), opened, events.append, Stop(requests=1))

    assert [event.state for event in events if isinstance(event, TrialEnded)] == ["waiting"]
    assert states(opened.study) == {"WAITING": 1}
    assert RETRIES_KEY not in opened.study.trials[0].user_attrs


def test_a_worker_that_cannot_begin_says_why(database: Database, url: str, tmp_path: Path) -> None:
    """Here for want of its data; the study stays as it was."""
    opened = open_sample_study(database, max_epochs=1, total=1)
    events: list[Any] = []

    run_fleet(opened, assignment(url, digests=sample.digests_of(sample.small())), 1, events.append)

    (failure,) = events
    assert failure.reason.startswith("DataError: ")
    assert "x_train has SHA-256" in failure.reason
    assert "Traceback" in failure.traceback
    assert states(opened.study) == {"WAITING": 1}


def test_workers_end_where_their_view_fails(database: Database, url: str) -> None:
    """An exception in the parent reaches its caller when the workers have handed back and ended."""
    opened = open_sample_study(database, max_epochs=1000, total=1)

    def show(event: Any) -> None:
        if isinstance(event, EpochEnded):
            raise ZeroDivisionError("drawing a bar")

    with pytest.raises(ZeroDivisionError):
        run_fleet(opened, assignment(url), 1, show)

    assert [child for child in multiprocessing.active_children() if child.name == "worker-0"] == []
    assert states(opened.study) == {"WAITING": 1}


def test_each_signal_is_a_request() -> None:
    """The loop reads how many there were."""
    stop = Stop()
    stop.request(signal.SIGINT, None)
    stop.request(signal.SIGHUP, None)

    assert stop.requests == 2


def test_an_assignment_shows_no_password() -> None:
    """It is what a traceback of the fleet would show."""
    assert "hunter2" not in repr(assignment("postgresql://ann:hunter2@host/db"))


@pytest.fixture
def search(
    spawn: Callable[..., subprocess.Popen[str]], cifar10: Path, url: str, tmp_path: Path
) -> Callable[[], "Search"]:
    """Start a search of one trial of three epochs by the command, on CIFAR-10 itself."""
    small = ("--trials", 1, "--max-epochs", 3, "--train-samples", 200, "--workers", 1)
    return lambda: Search(
        spawn("run", "--storage", url, "--data", cifar10, *small, "--output", tmp_path), url
    )


class Search:
    """A running command, whose stderr is read line by line."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        """Read what `process` says."""
        self.process, self.url = process, url
        self.lines: list[str] = []

    def wait_for(self, words: str) -> None:
        """Read until a line has these words."""
        stream: IO[str] | None = self.process.stderr
        assert stream is not None
        for line in stream:
            self.lines.append(line)
            if words in line:
                return
        raise AssertionError(f"ended without {words!r}: {''.join(self.lines)}")

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=WAIT_SECONDS)
        return self.process.returncode, out, "".join(self.lines) + err


@contextlib.contextmanager
def study_at(url: str) -> Iterator[optuna.Study]:
    """The study that the command made."""
    database = open_database(url, create=False)
    yield optuna.load_study(storage=database.storage, study_name="cifar10")
    database.close()


@pytest.mark.full_data
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_trial_and_the_same_command_goes_on(
    search: Callable[[], Search], number: signal.Signals
) -> None:
    """Terminals and service managers signal all processes at once; the second run finishes the trial."""
    first = search()
    first.wait_for("trial 0 epoch 1/3")
    with ThreadPoolExecutor() as together:
        list(together.map(lambda one: os.kill(one, number), _processes(first.process.pid)))
    code, out, err = first.finish()

    assert code == 130
    assert "cnn-search: interrupted; the same command goes on where it stopped" in err
    assert "Traceback" not in err
    assert "waiting" in out
    with study_at(first.url) as study:
        (trial,) = study.trials
        assert trial.state == TrialState.WAITING
        reports = trial.intermediate_values
        assert 1 <= len(reports) < 3

    second = search()
    code, out, err = second.finish()

    assert code == 0
    assert "Continuing study 'cifar10'" in err
    assert "goes on at epoch" in err
    assert "trial 0 epoch 1/3" not in err
    assert "trial 0 epoch 3/3" in err
    with study_at(first.url) as study:
        (trial,) = study.trials
        assert trial.state == TrialState.COMPLETE
        assert len(trial.intermediate_values) == 3
        assert reports.items() <= trial.intermediate_values.items()


@pytest.mark.full_data
def test_sigterm_ends_a_search_as_ctrl_c_does(search: Callable[[], Search]) -> None:
    """It is what `docker stop` and batch systems send; at a time when the worker has only just begun."""
    running = search()
    running.wait_for("trial 0 started")
    running.process.send_signal(signal.SIGTERM)
    code, _, err = running.finish()

    assert code == 130
    assert "interrupted" in err
    with study_at(running.url) as study:
        assert states(study) == {"WAITING": 1}


@linux_only
@pytest.mark.full_data
def test_the_trials_of_a_search_that_is_no_more_are_taken_back(search: Callable[[], Search]) -> None:
    """Parent and worker killed at once leave a running trial; the next run says so and finishes it."""
    first = search()
    first.wait_for("trial 0 epoch 1/3")
    for process in [first.process.pid, *children_of(first.process.pid)]:
        os.kill(process, signal.SIGSTOP)
    workers = children_of(first.process.pid)
    for process in [first.process.pid, *workers]:
        os.kill(process, signal.SIGKILL)
    first.process.wait()
    wait_until(lambda: not any(map(is_alive, workers)))
    with study_at(first.url) as study:
        assert states(study) == {"RUNNING": 1}

    code, _, err = search().finish()

    assert code == 0
    assert f"  trial 0: its worker ended (host {socket.gethostname()}, pid {workers[0]}); it waits" in err
    with study_at(first.url) as study:
        assert states(study) == {"COMPLETE": 1}


@linux_only
@pytest.mark.full_data
def test_workers_end_and_hand_back_when_their_parent_is_killed(search: Callable[[], Search]) -> None:
    """Nobody can tell them; the end of their pipe does."""
    running = search()
    running.wait_for("trial 0 epoch 1/3")
    workers = children_of(running.process.pid)
    assert len(workers) == 1

    running.process.kill()
    running.process.wait()
    wait_until(lambda: not any(map(is_alive, workers)))

    with study_at(running.url) as study:
        assert states(study) == {"WAITING": 1}


def _processes(parent: int) -> list[int]:
    """A process and its workers, where the system says which these are."""
    return [parent, *(children_of(parent) if Path("/proc/self/task").exists() else [])]
