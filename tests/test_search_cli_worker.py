"""`cnn-search worker`, and the total that it shares with `run`; real processes train CIFAR-10 itself."""

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from optuna.trial import TrialState
from test_search_cli import make_searched
from test_search_fleet import Search, linux_only, study_at
from test_search_worker import count_leases, stored_state

from search.assignment import Assignment
from search.events import Event, Notice
from search.fleet import Stop
from search.study import OpenStudy, open_study
from storage.database import open_database
from storage.errors import StorageError
from storage.process import own_identity

Cli = Callable[..., Finished]


@pytest.fixture
def assignments(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Assignment]]:
    """Make `run` and `worker` train nothing, without data; gives what they would have done."""
    given: list[Assignment] = []

    def run_fleet(opened: Any, assignment: Assignment, workers: int, show: Any) -> Stop:
        given.append(assignment)
        return Stop()

    def carry_out(
        assignment: Assignment, emit: Callable[[Event], None], _: Any, on_ready: Callable[[], None]
    ) -> None:
        given.append(assignment)
        on_ready()
        emit(Notice("the database was away"))

    monkeypatch.setattr("trainer.data.load", lambda data: None)
    monkeypatch.setattr("search.fleet.run_fleet", run_fleet)
    monkeypatch.setattr("search.assignment.carry_out", carry_out)
    # It would end the tests.
    monkeypatch.setattr(importlib.import_module("search.cli.worker"), "end_process", sys.exit)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield given
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


def limit() -> int | None:
    """The total of the study in this folder."""
    database = open_database("sqlite:///cnn-search.db", create=False)
    total = database.read_limit(open_study(database, "cifar10").study)
    database.close()
    return total


@pytest.mark.usefixtures("assignments")
def test_the_total_is_the_studys(cli: Cli) -> None:
    """Commands change it only where they are told to."""
    for arguments, total in (
        (["run", "--trials", 5], 5),
        (["worker"], 5),
        (["run", "--trials", 2], 2),
        (["worker", "--trials", 4], 4),
        (["worker"], 4),
        (["run"], 4),
        (["worker", "--trials", 3], 3),
        (["init", "--trials", 7], 7),
        (["init"], 7),
        (["run"], 7),
    ):
        ended = cli(*arguments)
        assert ended.code == 0, ended.err
        assert limit() == total, arguments
    assert "7 trials to the study's total of 7; --trials sets another" in ended.err


@pytest.mark.usefixtures("assignments")
def test_run_goes_on_where_the_total_is_reached(cli: Cli) -> None:
    """Nobody else works on the study: the total is lifted, and said to be. With other workers it stays."""
    cli("run", "--trials", 1)
    assert "\n  1 trial to the study's total of 1; --trials sets another\n" in cli("run").err
    database = open_database("sqlite:///cnn-search.db", create=False)
    opened = open_study(database, "cifar10")
    opened.study.tell(opened.study.ask(), state=TrialState.FAIL)
    worker = own_identity()
    opened.leases().renew(worker, 60.0)

    joined = cli("run")
    assert (joined.code, limit()) == (0, 1)
    assert "the study has its total of 1 trial and other workers; --trials sets another" in joined.err

    opened.leases().leave(worker)
    alone = cli("run")
    assert (alone.code, limit()) == (0, None)
    assert "the study has had its total of 1 trial; it goes on without one" in alone.err
    database.close()


def target() -> float | None:
    """The target of the study in this folder."""
    database = open_database("sqlite:///cnn-search.db", create=False)
    value = database.target(open_study(database, "cifar10").study).read()
    database.close()
    return value


@pytest.mark.usefixtures("assignments")
def test_the_target_is_the_studys(cli: Cli) -> None:
    """Commands change it only where they are told to; the total is another matter."""
    for arguments, expected in (
        (["run"], None),
        (["run", "--target", 0.9], 0.9),
        (["worker"], 0.9),
        (["run"], 0.9),
        (["worker", "--target", 0.7737], 0.7737),
        (["init", "--target", 0.8, "--trials", 5], 0.8),
        (["init"], 0.8),
        (["run", "--trials", 6], 0.8),
    ):
        ended = cli(*arguments)
        assert ended.code == 0, ended.err
        assert target() == expected, arguments
    assert limit() == 6
    words = "to the study's target, a validation accuracy of 80.00 %"
    assert f"  {words}; --target sets another\n" in ended.err
    assert f"  {words.replace('80', '78')}\n" in cli("run", "--target", 0.78).err
    joined = cli("worker")
    assert "\n  validation accuracy has not reached the target of 78.00 % yet\n" in joined.err


@pytest.fixture
def searched(cli: Cli) -> Iterator[OpenStudy]:
    """The study in this folder: trial 0 waits, trial 1 has a value of 0.75."""
    make_searched("sqlite:///cnn-search.db", b"model")
    database = open_database("sqlite:///cnn-search.db", create=False)
    yield open_study(database, "cifar10")
    database.close()


def test_run_with_a_target_that_is_reached_trains_nothing(
    cli: Cli, searched: OpenStudy, assignments: list[Assignment]
) -> None:
    """It says so at once, and leaves what a search leaves; a total that it was given is kept too."""
    for value in (0.7, 0.75):
        ended = cli("run", "--target", value, "--trials", 9, "--output", "out")
        text = f"a validation accuracy of {100 * value:.2f} %"
        assert ended.code == 0, ended.err
        assert f"the study has reached this target, {text}, already" in ended.err
        assert f"validation accuracy reached the target of {100 * value:.2f} % after " in ended.out
        assert "by trial 1\n" in ended.out
        assert (target(), limit()) == (value, 9)
        assert Path("out/best.h5").read_bytes() == b"model"
        assert f"target: {100 * value:.2f} %" in Path("out/progress.html").read_text()
    assert assignments == []

    assert cli("run", "--target", 0.76).code == 0
    assert len(assignments) == 1


def test_run_goes_on_without_a_target_that_is_reached(
    cli: Cli, searched: OpenStudy, assignments: list[Assignment]
) -> None:
    """Nobody else works on the study: it is lifted, and said to be. With other workers it stays."""
    cli("init", "--target", 0.75)
    worker = own_identity()
    searched.leases().renew(worker, 60.0)

    joined = cli("run")
    assert (joined.code, target(), assignments) == (0, 0.75, [])
    reached = "the study has reached its target, a validation accuracy of 75.00 %"
    assert f"{reached}, and its other workers end; --target sets another" in joined.err
    assert "wrote best.h5" in joined.out

    searched.leases().leave(worker)
    alone = cli("run")
    assert (alone.code, target(), len(assignments)) == (0, None, 1)
    assert f"{reached}; it goes on without one" in alone.err
    assert "the target of" not in alone.out


def test_a_worker_that_joins_too_late_says_so(
    cli: Cli, searched: OpenStudy, assignments: list[Assignment]
) -> None:
    """And ends well, so that no service manager starts it again."""
    cli("init", "--target", 0.7)
    for arguments in ([], ["--target", 0.75], ["--minutes", 1, "--trials", 7]):
        ended = cli("worker", *arguments)
        assert (ended.code, ended.out) == (0, "")
        assert "  validation accuracy reached the target of 7" in ended.err
        assert ended.err.endswith(", by trial 1\n  so nothing is left to do; --target sets another\n")
    assert (assignments, limit(), target()) == ([], 7, 0.75)


@pytest.mark.usefixtures("assignments")
def test_commands_that_end_at_the_target_say_when_it_was_reached(
    cli: Cli, searched: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By which trial and after what, in the last lines of `run` and of `worker`."""

    def reach(*_: Any) -> Stop:
        searched.database.target(searched.study).set(0.75)
        return Stop()

    monkeypatch.setattr("search.assignment.carry_out", reach)
    monkeypatch.setattr("search.fleet.run_fleet", reach)
    cli("init", "--target", 0.76)
    reached = r"validation accuracy reached the target of 75\.00 % after \d+ s and 1 trial, by trial 1\n"

    ended = cli("worker")
    assert ended.code == 0
    assert re.search(rf"{reached}\Z", ended.err)
    cli("init", "--target", 0.76)
    ended = cli("run")
    assert ended.code == 0
    assert re.search(reached, ended.out)


@pytest.mark.usefixtures("assignments")
def test_a_worker_says_what_it_joins(cli: Cli) -> None:
    """The study, its total and what it searches; all on stderr, as is what happens."""
    first = cli("worker", "--max-epochs", 4, "--trials", 6)
    cli("init", "--study", "other")
    second = cli("worker", "--study", "other")

    assert (first.code, first.out, second.code) == (0, "", 0)
    lines = first.err.splitlines()
    assert lines[0] == "joining study 'cifar10' in sqlite:///cnn-search.db, of 6 trials"
    assert "epochs: 4 (fixed)" in first.err
    assert lines[-1] == "the database was away"
    assert second.err.startswith("joining study 'other' in sqlite:///cnn-search.db, of any number of trials")
    third = cli("worker", "--study", "third", "--trials", 1)
    assert third.err.startswith("joining study 'third' in sqlite:///cnn-search.db, of 1 trial\n")


@pytest.mark.usefixtures("assignments")
def test_a_worker_joins_a_study_that_is_there(cli: Cli) -> None:
    """One with a mistyped name would search for ever, alone; with --trials it says how long."""
    nowhere = cli("worker")
    assert (nowhere.code, nowhere.out) == (1, "")
    assert "cnn-search.db" in nowhere.err
    assert not Path("cnn-search.db").exists()
    cli("init", "--study", "cifar-10")

    ended = cli("worker", "--max-epochs", 4)

    assert (ended.code, ended.out) == (1, "")
    assert "has no study 'cifar10' (it has: cifar-10); `cnn-search init` makes one" in ended.err
    assert cli("worker", "--trials", 1).code == 0


def test_a_workers_options_reach_it(cli: Cli, assignments: list[Assignment]) -> None:
    """As those of `run` do; what is left open has the same defaults."""
    options = ("--lease", 9, "--checkpoint-seconds", 5, "--checkpoint-epochs", 2, "--precision", "float32")
    cli("init")
    cli("worker", *options, "--threads", 3, "--data", "d")
    cli("run", *options, "--workers", 1, "--data", "d")
    cli("worker")
    cli("run")

    told, same, *defaults = assignments
    assert (told.storage, told.study, told.data) == ("sqlite:///cnn-search.db", "cifar10", Path("d"))
    assert told.threads == 3
    for assignment in (told, same):
        assert (assignment.lease_seconds, assignment.precision) == (9.0, "float32")
        assert (assignment.policy.seconds, assignment.policy.epochs) == (5.0, 2)
        assert assignment.ends_at is None
    for assignment in defaults:
        assert (assignment.lease_seconds, assignment.precision) == (60.0, "auto")
        assert (assignment.policy.seconds, assignment.policy.epochs) == (60.0, None)


@pytest.mark.usefixtures("assignments")
def test_a_worker_cannot_search_otherwise_than_its_study(cli: Cli) -> None:
    """It is refused before it takes a trial."""
    cli("init", "--max-epochs", 4)

    ended = cli("worker", "--max-epochs", 5)

    assert (ended.code, ended.out) == (1, "")
    assert "the study has 4, --max-epochs gives 5" in ended.err


@pytest.mark.usefixtures("assignments")
def test_a_worker_whose_database_stays_away_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and an exit code by which a service manager starts it again."""

    def fail(*_: Any) -> None:
        raise StorageError("storage x: gone")

    monkeypatch.setattr("search.assignment.carry_out", fail)
    cli("init")

    ended = cli("worker")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.endswith("cnn-search: storage x: gone\n")


SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


def run_script(script: str) -> tuple[int, str, str]:
    """What Python makes of a script: exit code, stdout and stderr."""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return ended.returncode, ended.stdout, ended.stderr


@SIGNALS
def test_a_second_signal_ends_a_worker_at_once(number: signal.Signals) -> None:
    """The first one is a request, and so is what comes with it: to the process and to its group, say."""
    script = f"""
import os, sys
import search.cli.worker
worker = sys.modules["search.cli.worker"]  # the package names the command so
stop = worker.StopRequest()
stop.defer()
before = stop()
os.kill(os.getpid(), {number})
os.kill(os.getpid(), {number})
print(before, stop(), flush=True)
worker.ECHO_SECONDS = 0.0
os.kill(os.getpid(), {number})
print("still here")
"""
    assert run_script(script) == (130, "False True\n", "")


@SIGNALS
def test_a_worker_that_cannot_hear_ends_in_time(number: signal.Signals) -> None:
    """While it waits in a call that no signal interrupts, as for a dead network, a thread ends it."""
    script = f"""
import ctypes, os, sys, threading
import search.cli.worker
worker = sys.modules["search.cli.worker"]  # the package names the command so
assert worker.STOP_SECONDS < 10
worker.STOP_SECONDS = 0.2
stop = worker.StopRequest()
stop.defer()
threading.Timer(0.2, os.kill, (os.getpid(), {number})).start()
# In C, without Python's lock; it goes on after a signal as PQexec and SQLite do.
for _ in range(2):
    ctypes.CDLL(None).sleep(30)
print("still here", stop())
"""
    assert run_script(script) == (130, "", "")


@SIGNALS
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """`nohup cnn-search worker &` outlives its terminal."""
    script = f"""
import os, signal
from search.cli.worker import StopRequest
signal.signal({number}, signal.SIG_IGN)
stop = StopRequest()
os.kill(os.getpid(), {number})
stop.defer()
os.kill(os.getpid(), {number})
print(stop())
"""
    assert run_script(script) == (0, "False\n", "")


@SIGNALS
def test_a_worker_without_a_trial_ends_at_the_first_signal(number: signal.Signals) -> None:
    """As long as it loads TensorFlow or waits for its database, there is nothing to hand back."""
    script = f"""
import os
from search.cli.worker import StopRequest
stop = StopRequest()
try:
    os.kill(os.getpid(), {number})
    print("still here")
except KeyboardInterrupt:
    print("interrupted")
"""
    if number == signal.SIGINT:
        assert run_script(script) == (0, "interrupted\n", "")
    else:
        assert run_script(script) == (-number, "", "")


def test_a_process_ends_with_what_it_said_and_without_pythons_end() -> None:
    """Streams are flushed, also where nobody reads them; nothing else happens."""
    script = """
import atexit, sys
from search.cli.terminal import end_process
atexit.register(print, "the end of Python")
print("told")
print("why", end="", file=sys.stderr)
end_process(130)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "told\n", "why")
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.stdin.read(){script}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.close()
        process.stdin.close()
        assert process.wait() == 130


@pytest.fixture
def join(spawn: Callable[..., subprocess.Popen[str]], cifar10: Path, url: str) -> Callable[[], Search]:
    """Start a worker in a study of one trial of three epochs."""
    small = ("--trials", 1, "--max-epochs", 3, "--train-samples", 200)
    return lambda: Search(spawn("worker", "--storage", url, "--data", cifar10, *small), url)


@linux_only
@pytest.mark.full_data
def test_a_stopped_worker_hands_back_what_the_next_one_finishes(join: Callable[[], Search]) -> None:
    """Its trial waits with its last epoch, and nothing in the database says that it was ever there."""
    first = join()
    first.wait_for("trial 0 epoch 1/3")
    first.process.send_signal(signal.SIGTERM)
    code, out, err = first.finish()

    assert (code, out) == (130, "")
    assert err.startswith("joining study 'cifar10' in sqlite:///")
    assert err.endswith("cnn-search: stopped; what it ran was handed back\n")
    assert "trial 0 waiting; best so far none yet; 0 of 1 done" in err
    database = open_database(first.url, create=False)
    (trial,) = open_study(database, "cifar10").study.trials
    assert trial.state == TrialState.WAITING
    state = stored_state(database, trial)
    assert state is not None
    assert [state.epoch] == [max(trial.intermediate_values)]
    assert count_leases(database) == (0, 0)
    database.close()

    second = join()
    code, out, err_of_second = second.finish()

    assert (code, out) == (0, "")
    assert f"goes on at epoch {state.epoch + 1}" in err_of_second
    assert "1 of 1 done" in err_of_second
    with study_at(first.url) as study:
        (trial,) = study.trials
        assert trial.state == TrialState.COMPLETE
        assert sorted(trial.intermediate_values) == [1, 2, 3]
    for word in ("oneDNN", "absl", "Traceback", "tensorflow", "optuna"):
        assert word not in err + err_of_second
