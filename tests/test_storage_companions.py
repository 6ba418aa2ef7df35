"""storage.companions: a study's workers find its companions' trials, and take back their stale leases."""

from collections.abc import Iterator

import optuna
import pytest
from optuna.study import Study
from optuna.trial import TrialState
from test_storage_shared import Office, Worker, stranger

import storage.leases
from storage.companions import COMPANION_KEY, IDENTITY_KEY, OpenCompanion
from storage.database import Database
from storage.errors import LeaseLost


@pytest.fixture
def office(any_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """Workers of study "s", whose identity is "own", on a database of each kind."""
    monkeypatch.setattr(storage.leases, "RESTART_SECONDS", -1e9)
    with Office(any_url) as opened:
        database, study = opened.open()
        database.storage.set_study_system_attr(study._study_id, IDENTITY_KEY, "own")
        yield opened


def add_companion(database: Database, name: str, *, of: str | None = "own", trials: int = 2) -> Study:
    """A study with trials that wait, which is marked as a companion."""
    study = optuna.create_study(storage=database.storage, study_name=name, direction="maximize")
    database.storage.set_study_system_attr(study._study_id, IDENTITY_KEY, f"identity of {name}")
    for _ in range(trials):
        study.enqueue_trial({})
    database.limit_trials(study, trials)
    if of is not None:
        database.storage.set_study_system_attr(study._study_id, COMPANION_KEY, of)
    return study


def serve(worker: Worker, study: Study) -> Worker:
    """The worker as it takes trials of a companion."""
    opened = optuna.load_study(study_name=study.study_name, storage=worker.database.storage)
    return Worker(worker.database, opened, worker.identity, worker.leases, worker.artifacts)


def test_a_study_has_its_own_companions_alone(office: Office) -> None:
    """In the order that they were made in; one that is not marked yet, or is another's, is none."""
    database, study = office.open()
    assert database.open_companions(study) == []
    first = add_companion(database, "first")
    add_companion(database, "unmarked", of=None)
    add_companion(database, "another's", of="other")
    add_companion(database, "second", trials=1)

    assert database.open_companions(study) == [
        OpenCompanion("first", "identity of first", 2),
        OpenCompanion("second", "identity of second", 1),
    ]
    assert database.open_companions(first) == []


def test_a_companion_is_open_until_its_last_trial_has_ended(office: Office) -> None:
    """While others run them, none waits; what another program runs is nobody's."""
    worker = office.hire()
    companion = add_companion(worker.database, "c")
    mine = serve(worker, companion)
    _, first = mine.take()
    _, second = mine.take()

    assert worker.database.open_companions(worker.study) == [OpenCompanion("c", "identity of c", 0)]
    first.finish(TrialState.COMPLETE, 0.5)
    second.hand_back(None, {})
    assert worker.database.open_companions(worker.study) == [OpenCompanion("c", "identity of c", 1)]
    database, _ = office.open()
    optuna.load_study(study_name="c", storage=database.storage).ask()
    assert worker.database.open_companions(worker.study) == []


def test_a_study_can_be_given_up(office: Office) -> None:
    """What waits and runs fails with the reason, once; workers lose it; what has ended stays as it is."""
    worker = office.hire()
    companion = add_companion(worker.database, "c", trials=3)
    mine = serve(worker, companion)
    _, first = mine.take()
    _, second = mine.take()
    first.finish(TrialState.COMPLETE, 0.5)
    own, _ = worker.take()

    leases = worker.database.leases(companion, 5)

    assert (leases.end_open("given up"), leases.end_open("other")) == (2, 0)
    with pytest.raises(LeaseLost):
        second.hand_back(None, {})
    states = [(one.state, one.user_attrs.get("failure")) for one in companion.trials]
    assert states == [
        (TrialState.COMPLETE, None),
        (TrialState.FAIL, "given up"),
        (TrialState.FAIL, "given up"),
    ]
    assert worker.leases.renew(worker.identity, 600.0) == {own._trial_id}
    assert worker.database.open_companions(worker.study) == []


def test_stale_leases_in_a_companion_are_taken_back_by_the_studys_workers(office: Office) -> None:
    """With the companion's name; its own trials have none. Another study's workers do not."""
    gone, other = office.hire(), office.hire()
    companion = add_companion(gone.database, "c")
    serve(gone, companion).take()
    gone.take()
    gone.expire()
    foreign = gone.database.leases(add_companion(gone.database, "x", of=None), 5)
    assert foreign.reap() == []

    taken = sorted(other.leases.reap(), key=str)

    assert [(str(one), one.companion, one.failed) for one in taken] == [
        ("trial 0", None, False),
        ("trial 0 of 'c'", "c", False),
    ]
    assert [trial.state for trial in companion.trials] == [TrialState.WAITING] * 2


def test_one_renewal_keeps_the_leases_in_both_studies(office: Office) -> None:
    """However many studies a worker serves."""
    worker = office.hire()
    own, _ = worker.take()
    theirs, _ = serve(worker, add_companion(worker.database, "c")).take()
    worker.expire()

    held = worker.leases.renew(worker.identity, 600.0)

    assert held == {own._trial_id, theirs._trial_id}
    assert office.hire().leases.reap() == []


def test_both_studies_know_who_runs_what(office: Office) -> None:
    """A worker is listed where it belongs and where it helps, alive in both, and no claim of it is stale."""
    worker, idle = office.hire(stranger("helper")), office.hire(stranger("idle"))
    companion = add_companion(worker.database, "c")
    serve(worker, companion).take()

    at_home = {one.host: one for one in idle.leases.workers()}
    helping = worker.database.leases(companion, 5).workers()

    assert (at_home["helper"].trials, at_home["helper"].elsewhere) == ((), (("c", 0),))
    assert at_home["idle"].elsewhere == ()
    assert [(one.host, one.trials, one.elsewhere, one.is_alive) for one in helping] == [
        ("helper", (0,), (), True)
    ]
    worker.leases.leave(worker.identity)
    (left,) = worker.database.leases(companion, 5).workers()
    assert (left.host, left.trials, left.is_alive) == (None, (0,), False)
