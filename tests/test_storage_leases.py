"""Leases: alive while renewed, taken back once where their worker is gone or silent, chances counted."""

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import optuna
import pytest
import sqlalchemy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from optuna.trial import Trial, TrialState
from test_storage_shared import MODEL, Office, Worker, change, content_of, holders, stranger

import storage.leases
from storage.claimed_trial import ClaimedTrial
from storage.errors import LeaseLost, TrialLimitReached
from storage.leases import RETRIES_KEY, Taken
from storage.process import Identity, birth, own_identity, own_place
from storage.schema import FILES, LEASES, TRIALS, WORKERS

TOTAL = 4
MAX_RETRIES = 2


@pytest.fixture
def office(any_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """Workers on an empty database, of each kind, whose server has been up for long."""
    monkeypatch.setattr(storage.leases, "RESTART_SECONDS", -1e9)
    with Office(any_url) as opened:
        yield opened


def ended_identity() -> Identity:
    """A worker of this machine whose process has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        born = birth(process.pid)
        assert born is not None
    return Identity(uuid4().hex, "here", process.pid, own_place(), born)


def test_a_trial_of_a_silent_worker_waits_as_it_was(office: Office) -> None:
    """Number, parameters, reports, rungs and checkpoint are the next worker's; the reason is on the trial."""
    silent, other = office.hire(stranger("far")), office.hire()
    trial, claimed = silent.take()
    x = trial.suggest_float("x", 0, 1)
    trial.report(0.5, 1)
    silent.database.storage.set_trial_system_attr(trial._trial_id, "completed_rung_0", 0.5)
    claimed.save_checkpoint(b"state", {"seconds": 1})
    assert other.leases.reap() == []

    silent.expire()
    (taken,) = other.leases.reap()

    assert (taken.number, taken.failed) == (0, False)
    assert taken.reason == "its worker was not heard of in time (host far, pid 7)"
    assert other.study.trials[0].state == TrialState.WAITING
    assert holders(other.database) == {}
    again, claimed = other.take()
    assert (again.number, again.suggest_float("x", 0, 1)) == (0, x)
    stored = other.study.trials[0]
    assert stored.intermediate_values == {1: 0.5}
    assert stored.system_attrs == {"completed_rung_0": 0.5}
    assert stored.user_attrs["failure"] == taken.reason
    assert stored.user_attrs["seconds"] == 1
    assert claimed.read_checkpoint() == b"state"
    assert other.leases.reap() == []


def test_a_renewal_in_time_keeps_the_lease(office: Office) -> None:
    """Who was late, but before anyone looked, goes on; renewing tells which trials are held."""
    late, other = office.hire(), office.hire()
    trial, claimed = late.take()
    late.expire()

    assert late.leases.renew(late.identity, 600.0) == {trial._trial_id}

    assert other.leases.reap() == []
    claimed.save_checkpoint(b"state", {})
    late.expire()
    assert len(other.leases.reap()) == 1
    assert late.leases.renew(late.identity, 600.0) == set()


def test_who_renews_between_looking_and_taking_keeps_the_lease(office: Office) -> None:
    """What was found stale is looked at again in the transaction that takes it."""
    late, other = office.hire(), office.hire()
    late.take()
    late.expire()
    (lease,) = other.leases._stale(True)
    late.leases.renew(late.identity, 600.0)

    assert other.leases._take_back(lease, False) is None

    assert holders(other.database) == {0: late.identity.worker}


def test_a_worker_whose_process_ended_is_known_at_once(office: Office) -> None:
    """On its own machine, that is, long before its leases run out; also where nothing is taken for time."""
    gone, other = office.hire(ended_identity()), office.hire()
    gone.take()

    (taken,) = other.leases.reap(expired=False)

    assert taken.reason == f"its worker ended (host here, pid {gone.identity.pid})"
    assert other.study.trials[0].user_attrs[RETRIES_KEY]["total"] == 1


def test_a_trial_can_be_taken_back_without_costing_it_a_chance(office: Office) -> None:
    """However often that is, it waits and never fails."""
    other = office.hire()
    for _ in range(8):
        gone = office.hire(ended_identity())
        gone.take()
        (taken,) = other.leases.reap(blameless=True)
        assert not taken.failed

    (trial,) = other.study.trials
    assert trial.state == TrialState.WAITING
    assert RETRIES_KEY not in trial.user_attrs


def test_a_process_of_another_machine_is_known_by_its_silence_alone(office: Office) -> None:
    """The same number and birth say nothing there, nor those of this machine before it was started again."""
    other = office.hire(own_identity())
    far = [stranger(), Identity(uuid4().hex, "here", other.identity.pid, "here/other boot/pid:[1]", "1")]
    workers = [office.hire(identity) for identity in far]
    for worker in workers:
        worker.take()
    assert other.leases.reap() == []

    for worker in workers:
        worker.expire()
    assert other.leases.reap(expired=False) == []

    assert len(other.leases.reap()) == 2


def test_this_process_is_alive(office: Office) -> None:
    """A worker does not take its own trials for those of a process that ended."""
    worker = office.hire(own_identity())
    worker.take()

    assert worker.leases.reap() == []


def test_who_left_without_handing_back_is_taken_from(office: Office) -> None:
    """Without a worker's row a lease belongs to nobody who could come back to it."""
    left, other = office.hire(), office.hire()
    left.take()
    left.leases.leave(left.identity)

    (taken,) = other.leases.reap(expired=False)

    assert taken.reason == "its worker left without handing it back"


def test_several_reapers_take_a_trial_back_once(office: Office) -> None:
    """Six at a time, on ten trials: each is taken by one of them, and its chances count one."""
    silent = office.hire()
    for _ in range(10):
        silent.take()
    silent.expire()
    reapers = [office.hire() for _ in range(6)]
    together = threading.Barrier(len(reapers))

    def reap(worker: Worker) -> list[Taken]:
        together.wait()
        return worker.leases.reap()

    with ThreadPoolExecutor(len(reapers)) as pool:
        taken = [one.number for mine in pool.map(reap, reapers) for one in mine]

    assert sorted(taken) == list(range(10))
    assert {trial.user_attrs["retries"]["total"] for trial in silent.study.trials} == {1}


def test_a_trial_that_is_taken_back_without_progress_fails_in_the_end(office: Office) -> None:
    """After two retries it has failed with the reason, and without its checkpoint."""
    for attempt in range(3):
        worker = office.hire(max_retries=2)
        trial, claimed = worker.take()
        assert trial.number == 0
        claimed.save_checkpoint(b"state", {})
        worker.expire()
        (taken,) = worker.leases.reap()
        assert taken.failed is (attempt == 2)

    (stored,) = worker.study.trials
    assert stored.state == TrialState.FAIL
    assert stored.datetime_complete is not None
    words = "; that was chance 3 without finishing an epoch"
    assert stored.user_attrs["failure"] == taken.reason + words
    assert stored.user_attrs["retries"] == {"total": 3, "without_progress": 3, "epoch": 0}
    assert claimed.read_checkpoint() is None
    assert worker.leases.count_open() == 0


def test_a_finished_epoch_gives_new_chances(office: Office) -> None:
    """A trial that gets on a little with each worker is not given up, however many it takes."""
    worker = office.hire(max_retries=1)
    for epoch in range(1, 6):
        trial, _ = worker.take()
        trial.report(0.5, epoch)
        worker.expire()
        assert [taken.failed for taken in worker.leases.reap()] == [False]

    assert worker.study.trials[0].user_attrs["retries"] == {"total": 5, "without_progress": 1, "epoch": 5}
    worker.take()
    worker.expire()
    assert [taken.failed for taken in worker.leases.reap()] == [True]


def test_a_finished_trial_is_left_alone(office: Office) -> None:
    """Reaping frees nothing of it, also where another program ended it under a worker's hands."""
    worker = office.hire()
    worker.take()[1].finish(TrialState.COMPLETE, 0.5, [MODEL])
    database, study = office.open()
    trial, _ = worker.take()
    study.tell(trial.number, state=TrialState.FAIL)
    before = study.trials
    worker.expire()

    assert worker.leases.reap() == []

    assert study.trials == before
    assert holders(database) == {}


def test_leases_of_other_studies_are_left_alone(office: Office) -> None:
    """Each study's workers look after their own."""
    worker = office.hire()
    worker.take()
    worker.expire()
    database, _ = office.open()
    other = optuna.create_study(storage=database.storage, study_name="other")

    assert database.leases(other, 5).reap() == []
    assert database.leases(other, 5).workers() == []
    assert len(worker.leases.reap()) == 1


def test_a_restarted_server_gives_everyone_time(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could renew while it was away: leases hold for a while from its start. SQLite has no server."""
    worker = office.hire()
    worker.take()
    worker.expire()
    monkeypatch.setattr(storage.leases, "RESTART_SECONDS", 1e9)
    if worker.database._backend.engine.dialect.name == "sqlite":
        assert len(worker.leases.reap()) == 1
        return

    assert worker.leases.reap() == []
    assert worker.leases.workers()[0].is_alive


def test_workers_are_listed_with_what_they_run(office: Office) -> None:
    """The longest-serving first; who is silent or gone is seen to be."""
    first = office.hire(Identity(uuid4().hex, "far", 7, "far/boot/pid:[1]", "12", gpu="H100"))
    gone = office.hire(ended_identity())
    silent = office.hire(stranger())
    for worker in (first, gone, first, silent):
        worker.take()
    silent.expire()

    listed = first.leases.workers()

    assert [status.worker for status in listed] == [
        worker.identity.worker for worker in (first, gone, silent)
    ]
    assert [status.trials for status in listed] == [(0, 2), (1,), (3,)]
    assert [status.is_gone for status in listed] == [False, True, False]
    assert [status.is_alive for status in listed] == [True, False, False]
    assert (listed[0].host, listed[0].pid, listed[0].gpu) == ("far", 7, "H100")
    assert 0 <= listed[0].alive_seconds < 600
    assert 0 < listed[0].left_seconds <= 600
    assert listed[2].left_seconds < 0

    first.leases.leave(first.identity)
    *known, left = gone.leases.workers()
    assert [status.worker for status in known] == [worker.identity.worker for worker in (gone, silent)]
    assert (left.worker, left.host, left.pid) == (first.identity.worker, None, None)
    assert (left.trials, left.is_alive, left.is_gone) == ((0, 2), False, True)


def test_a_worker_without_trials_is_forgotten_later(office: Office) -> None:
    """An hour after its leases ran out; one that still has trials stays until they are taken."""
    old, busy, worker = (office.hire() for _ in range(3))
    busy.take()
    for one in (old, busy):
        one.leases.renew(one.identity, -3601.0)
    names = {status.worker for status in worker.leases.workers()}
    assert names == {one.identity.worker for one in (old, busy, worker)}

    assert len(worker.leases.reap()) == 1

    names = {status.worker for status in worker.leases.workers()}
    assert names == {busy.identity.worker, worker.identity.worker}
    worker.leases.reap()
    assert [status.worker for status in worker.leases.workers()] == [worker.identity.worker]


def test_open_trials_are_those_that_wait_or_run(office: Office) -> None:
    """What has no worker and does not wait is no reason to stay."""
    worker = office.hire()
    assert worker.leases.count_open() == 0
    worker.study.enqueue_trial({})
    worker.study.enqueue_trial({})
    _, claimed = worker.take()
    assert worker.leases.count_open() == 2
    claimed.finish(TrialState.COMPLETE, 0.5)
    assert worker.leases.count_open() == 1
    change(worker.database, sqlalchemy.update(TRIALS).values(state=TrialState.RUNNING))
    assert worker.leases.count_open() == 0


class LeaseLife(RuleBasedStateMachine):
    """Workers join, take, report, store, hand back, finish, fall silent, die, come back and reap."""

    def __init__(self) -> None:
        """A study with a total and nobody at work."""
        super().__init__()
        self.office = self.make_office()
        database, study = self.office.open()
        database.limit_trials(study, TOTAL)
        self.database, self.study = database, study
        self.workers: list[Worker] = []
        # What each worker believes to run; the trial's holder is among those who do.
        self.believed: list[tuple[Worker, Trial, ClaimedTrial]] = []
        self.silent: set[str] = set()
        self.finished: dict[int, Any] = {}
        self.epoch = 0

    @staticmethod
    def make_office() -> Office:
        """An office on an empty database."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Close all databases."""
        self.office.__exit__()

    def pick(self, index: int) -> Worker:
        """One of the workers."""
        return self.workers[index % len(self.workers)]

    def write(self, index: int, work: Any, *, ends: bool = False) -> None:
        """Let who believes to have a trial write to it; who has not its lease must fail."""
        entry = self.believed[index % len(self.believed)]
        worker, trial, claimed = entry
        holds = holders(self.database).get(trial.number) == worker.identity.worker
        before = content_of(self.database)
        try:
            work(trial, claimed)
        except LeaseLost:
            assert not holds
            assert content_of(self.database) == before
            claimed.let_go()
            self.believed.remove(entry)
        else:
            assert holds
            if ends:
                claimed.let_go()
                self.believed.remove(entry)

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def join(self) -> None:
        """One more worker."""
        self.workers.append(self.office.hire(max_retries=MAX_RETRIES))

    @precondition(lambda self: self.workers)
    @rule(index=st.integers(0, 3))
    def take(self, index: int) -> None:
        """Ask for a trial; there is none left only where the total is reached and none waits."""
        worker = self.pick(index)
        before = self.study.trials
        try:
            trial, claimed = worker.take()
        except TrialLimitReached:
            assert len(before) == TOTAL
            assert all(trial.state != TrialState.WAITING for trial in before)
        else:
            assert holders(self.database)[trial.number] == worker.identity.worker
            self.believed.append((worker, trial, claimed))

    @precondition(lambda self: self.believed)
    @rule(index=st.integers(0, 9))
    def report(self, index: int) -> None:
        """Finish an epoch."""
        self.epoch += 1
        self.write(index, lambda trial, _: trial.report(0.5, self.epoch))

    @precondition(lambda self: self.believed)
    @rule(index=st.integers(0, 9))
    def store(self, index: int) -> None:
        """Save a checkpoint."""
        self.write(index, lambda _, claimed: claimed.save_checkpoint(b"state", {"stored": True}))

    @precondition(lambda self: self.believed)
    @rule(index=st.integers(0, 9), with_state=st.booleans())
    def hand_back(self, index: int, with_state: bool) -> None:
        """Hand a trial back, with a checkpoint or as it is."""
        content = b"handed back" if with_state else None
        self.write(index, lambda _, claimed: claimed.hand_back(content, {}), ends=True)

    @precondition(lambda self: self.believed)
    @rule(
        index=st.integers(0, 9),
        state=st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]),
    )
    def finish(self, index: int, state: TrialState) -> None:
        """End a trial."""
        value = None if state == TrialState.FAIL else 0.5
        self.write(index, lambda _, claimed: claimed.finish(state, value, [MODEL]), ends=True)

    @precondition(lambda self: self.believed)
    @rule(index=st.integers(0, 9))
    def give_up(self, index: int) -> None:
        """Fail at a trial in a way that can pass."""
        self.write(index, lambda _, claimed: claimed.give_up("no memory", {}, MAX_RETRIES), ends=True)

    @precondition(lambda self: self.workers)
    @rule(index=st.integers(0, 3))
    def fall_silent(self, index: int) -> None:
        """Let a worker's leases run out; it may still write until somebody takes its trials."""
        worker = self.pick(index)
        worker.expire()
        self.silent.add(worker.identity.worker)

    @precondition(lambda self: self.workers)
    @rule(index=st.integers(0, 3))
    def renew(self, index: int) -> None:
        """A worker is heard of again, and learns what it still has."""
        worker = self.pick(index)
        held = worker.leases.renew(worker.identity, 600.0)
        self.silent.discard(worker.identity.worker)
        numbers = {trial.number for trial in self.study.trials if trial._trial_id in held}
        mine = {number for number, name in holders(self.database).items() if name == worker.identity.worker}
        assert numbers == mine

    @precondition(lambda self: self.workers)
    @rule(index=st.integers(0, 3))
    def die(self, index: int) -> None:
        """A worker ends without a word, and never comes back."""
        worker = self.pick(index)
        self.workers.remove(worker)
        self.believed = [entry for entry in self.believed if entry[0] is not worker]
        worker.expire()
        self.silent.add(worker.identity.worker)

    @precondition(lambda self: self.workers)
    @rule(index=st.integers(0, 3))
    def reap(self, index: int) -> None:
        """Take back exactly what silent workers have."""
        before = holders(self.database)
        taken = {one.number for one in self.pick(index).leases.reap()}
        assert taken == {number for number, worker in before.items() if worker in self.silent}
        assert holders(self.database).items() == {
            (number, worker) for number, worker in before.items() if worker not in self.silent
        }

    @invariant()
    def what_is_true_at_all_times(self) -> None:
        """The total holds, running means leased, finished is final, and has no checkpoint."""
        trials = self.study.trials
        assert len(trials) <= TOTAL
        running = {trial.number for trial in trials if trial.state == TrialState.RUNNING}
        leased = holders(self.database)
        assert set(leased) == running
        believers = Counter((worker.identity.worker, trial.number) for worker, trial, _ in self.believed)
        alive = {worker.identity.worker for worker in self.workers}
        for number, worker in leased.items():
            assert worker not in alive or believers[worker, number] >= 1
        for trial in trials:
            if trial.number in self.finished:
                assert trial == self.finished[trial.number]
            elif trial.state.is_finished():
                self.finished[trial.number] = trial
        with self.database._backend.engine.connect() as connection:
            kinds = connection.execute(
                sqlalchemy.select(TRIALS.c.state, FILES.c.kind).join(
                    FILES, FILES.c.trial_id == TRIALS.c.trial_id
                )
            ).all()
            names = set(connection.scalars(sqlalchemy.select(WORKERS.c.worker)))
            assert set(connection.scalars(sqlalchemy.select(LEASES.c.worker))) <= names
        for state, kind in kinds:
            assert (kind == "checkpoint") == (not state.is_finished())


def test_leases_hold_whatever_happens_in_any_order(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The invariants of `LeaseLife` hold after each step of every history that was tried."""
    template = tmp_path_factory.mktemp("template") / "study.db"
    with Office(f"sqlite:///{template}") as office:
        office.open()

    class OnSqlite(LeaseLife):
        @staticmethod
        def make_office() -> Office:
            path = tmp_path_factory.mktemp("life") / "study.db"
            shutil.copy(template, path)
            return Office(f"sqlite:///{path}")

    run_state_machine_as_test(
        OnSqlite,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
