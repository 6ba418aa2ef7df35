"""search.claims: whose process runs a trial, and taking it back when that process is gone."""

import os
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search import claims
from search.claims import CLAIM_KEY, own_claim, reclaim_trials, release_trial
from search.study import OpenStudy, Wishes, open_or_create_study
from storage.database import Database


@pytest.fixture
def opened(database: Database) -> OpenStudy:
    """A study whose first trial waits."""
    return open_or_create_study(database, "s", Wishes())[0]


def run_claimed_by(opened: OpenStudy, claim: dict[str, Any]) -> optuna.Trial:
    """A running trial with that claim and a report."""
    trial = opened.study.ask()
    trial.set_user_attr(CLAIM_KEY, claim)
    trial.report(0.5, 1)
    return trial


def ended_process() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_living_process_keeps_its_trial(opened: OpenStudy) -> None:
    """Ours lives."""
    run_claimed_by(opened, own_claim())
    assert reclaim_trials(opened) == []
    assert opened.study.trials[0].state == TrialState.RUNNING


def test_a_dead_process_loses_it(opened: OpenStudy) -> None:
    """The trial waits, with its number and reports, and the next ask gets it without a claim."""
    run_claimed_by(opened, {**own_claim(), "pid": ended_process()})

    assert reclaim_trials(opened) == [0]
    assert reclaim_trials(opened) == []
    (trial,) = opened.study.trials
    assert trial.state == TrialState.WAITING
    assert trial.intermediate_values == {1: 0.5}
    again = opened.study.ask()
    assert again.number == 0
    assert again.user_attrs[CLAIM_KEY] == {}
    assert reclaim_trials(opened) == []


@pytest.mark.skipif(not own_claim()["born"], reason="the system does not tell when a process began")
def test_another_process_of_the_same_number_is_not_the_one(opened: OpenStudy) -> None:
    """Numbers are used again; the time of birth tells."""
    run_claimed_by(opened, {**own_claim(), "born": "another boot/17"})
    assert reclaim_trials(opened) == [0]


def test_another_hosts_trial_is_left_alone(opened: OpenStudy) -> None:
    """Nothing here can tell whether its process lives."""
    run_claimed_by(opened, {**own_claim(), "host": socket.gethostname() + "-2", "pid": ended_process()})
    assert reclaim_trials(opened) == []


def test_an_unclaimed_trial_is_given_time(opened: OpenStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process claims a trial right after it asks; one that died in between never does."""
    opened.study.ask()
    assert reclaim_trials(opened) == []

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Later":
            return super().now(tz) + timedelta(seconds=claims.UNCLAIMED_SECONDS + 1)

    monkeypatch.setattr(claims, "datetime", Later)
    assert reclaim_trials(opened) == [0]


def test_trials_that_do_not_run_are_left_alone(opened: OpenStudy) -> None:
    """Neither finished nor waiting ones change, whatever their claim says."""
    dead = {**own_claim(), "pid": ended_process()}
    finished = run_claimed_by(opened, dead)
    opened.study.tell(finished, 0.5)
    waiting = run_claimed_by(opened, dead)
    release_trial(opened, waiting._trial_id)

    assert reclaim_trials(opened) == []
    assert [trial.state.name for trial in opened.study.trials] == ["COMPLETE", "WAITING"]


@pytest.mark.skipif(not own_claim()["born"], reason="the system does not tell a zombie from a process")
def test_a_zombie_has_lost_its_trial(opened: OpenStudy) -> None:
    """A process that has ended, but whose parent has not looked yet, trains no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        run_claimed_by(opened, {**own_claim(), "pid": process.pid})
        assert reclaim_trials(opened) == [0]
