"""The keeper: leases kept alive in a thread, lost ones noticed, outages survived, others given time."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError
from test_storage_shared import Office, change, holders

import storage.leases
from storage.keeper import LeaseKeeper
from storage.leases import Leases, Taken
from storage.schema import LEASES

WAIT_SECONDS = 60.0
BRIEF_SECONDS = 0.02
"""A lease's time where the thread is to come round often."""


@pytest.fixture
def office(any_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """Workers on an empty database, of each kind, whose server has been up for long."""
    monkeypatch.setattr(storage.leases, "RESTART_SECONDS", -1e9)
    with Office(any_url) as opened:
        yield opened


class Clock:
    """A clock that goes on where the test says so, in place of the module `time`."""

    def __init__(self) -> None:
        """It begins somewhere."""
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of `storage.keeper`."""
    made = Clock()
    monkeypatch.setattr("storage.keeper.time", made)
    return made


def test_a_renewal_makes_leases_hold_again(office: Office) -> None:
    """A worker that was silent is alive once its keeper comes round."""
    worker = office.hire()
    worker.take()
    worker.expire()

    LeaseKeeper(worker.leases, 600.0, worker.identity).keep_once()

    assert worker.leases.workers()[0].left_seconds > 0
    assert office.hire().leases.reap() == []


def test_a_lost_lease_is_noticed_at_the_next_renewal(office: Office, clock: Clock) -> None:
    """One that was taken after the last renewal is not lost, however that came out."""
    worker = office.hire()
    keeper = LeaseKeeper(worker.leases, 600.0, worker.identity)
    trial, _ = worker.take()
    assert not keeper.has_lost(trial._trial_id, clock.now)
    taken_at = clock.now
    clock.now += 1
    keeper.keep_once()
    assert not keeper.has_lost(trial._trial_id, taken_at)

    change(worker.database, sqlalchemy.delete(LEASES))
    assert not keeper.has_lost(trial._trial_id, taken_at)
    clock.now += 1
    keeper.keep_once()

    assert keeper.has_lost(trial._trial_id, taken_at)
    # Taken since that renewal, of which it can know nothing.
    assert not keeper.has_lost(trial._trial_id + 1, clock.now)


def test_nobody_is_reaped_for_silence_right_after_an_outage(
    office: Office, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was away with this worker gets a quarter of a lease's time to come back."""
    worker, silent = office.hire(), office.hire()
    silent.take()
    silent.expire()
    told: list[Taken] = []
    keeper = LeaseKeeper(worker.leases, 40.0, worker.identity, told.append)

    assert keeper.keep_once() == []
    clock.now += 9.9
    assert keeper.keep_once() == []
    with monkeypatch.context() as patch:
        rounds = iter([False, True])
        patch.setattr(keeper._stopped, "wait", lambda _: next(rounds))
        patch.setattr(Leases, "renew", _fail)
        keeper._keep()
    clock.now += 0.1
    assert keeper.keep_once() == []
    clock.now += 9.9
    assert keeper.keep_once() == []
    assert told == []
    clock.now += 0.1

    taken = keeper.keep_once()

    assert [one.number for one in taken] == [0]
    assert told == taken
    assert holders(worker.database) == {}


def test_nobody_is_reaped_for_silence_by_one_who_was_frozen(
    office: Office, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its machine were frozen too; its own clock may have stood still, the database's has not."""
    worker, silent = office.hire(), office.hire()
    server = Clock()
    monkeypatch.setattr(Leases, "read_clock", lambda _: server.now)
    keeper = LeaseKeeper(worker.leases, 40.0, worker.identity)
    for _ in range(3):
        assert keeper.keep_once() == []
        clock.now += 10
        server.now += 10
    silent.take()
    silent.expire()

    server.now += 40.1
    assert keeper.keep_once() == []
    clock.now += 9.9
    server.now += 9.9
    assert keeper.keep_once() == []
    clock.now += 0.1

    assert [one.number for one in keeper.keep_once()] == [0]


def test_a_keeper_without_a_worker_only_reaps(office: Office, clock: Clock) -> None:
    """So the dashboard does: it is no worker itself."""
    silent = office.hire()
    silent.take()
    silent.expire()
    database, study = office.open()
    keeper = LeaseKeeper(database.leases(study, 5), 40.0)
    keeper.keep_once()
    clock.now += 10

    assert [one.number for one in keeper.keep_once()] == [0]

    assert [status.worker for status in silent.leases.workers()] == [silent.identity.worker]


def test_the_thread_renews_and_survives_an_outage(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It tries on while the database is away, logs that once, and ends when it is told to, signing off."""
    worker = office.hire()
    renewed, failed = threading.Semaphore(0), threading.Semaphore(0)
    is_away = threading.Event()
    real = Leases.renew

    def renew(*arguments: Any) -> set[int]:
        if is_away.is_set():
            failed.release()
            _fail()
        held = real(*arguments)
        renewed.release()
        return held

    monkeypatch.setattr(Leases, "renew", renew)
    keeper = LeaseKeeper(worker.leases, BRIEF_SECONDS, worker.identity)
    keeper.start()
    try:
        for _ in range(3):
            assert renewed.acquire(timeout=WAIT_SECONDS)
        is_away.set()
        for _ in range(3):
            assert failed.acquire(timeout=WAIT_SECONDS)
        is_away.clear()
        while renewed.acquire(blocking=False):
            pass
        for _ in range(3):
            assert renewed.acquire(timeout=WAIT_SECONDS)
    finally:
        keeper._seconds = WAIT_SECONDS  # How long stop() waits for the thread.
        keeper.stop()

    assert not keeper._thread.is_alive()
    messages = [record.getMessage() for record in caplog.records if record.name == "storage.keeper"]
    assert messages == ["leases could not be renewed: connection refused; trying on"]
    assert worker.leases.workers() == []


def test_a_database_that_is_away_at_the_start_is_an_error(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that nobody knows of must not begin."""
    worker = office.hire()
    monkeypatch.setattr(Leases, "renew", _fail)
    keeper = LeaseKeeper(worker.leases, 600.0, worker.identity)

    with pytest.raises(OperationalError):
        keeper.start()
    # The worker's own clean-up.
    keeper.stop()


def test_who_cannot_sign_off_says_so(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopping is no place for an error: the row goes when it has run out."""
    worker = office.hire()
    keeper = LeaseKeeper(worker.leases, 600.0, worker.identity)
    keeper.start()
    monkeypatch.setattr(Leases, "leave", _fail)

    keeper.stop()

    assert "the worker could not sign off: connection refused" in caplog.text


def _fail(*_: Any) -> None:
    raise OperationalError("SELECT 1", {}, Exception("connection refused"))
