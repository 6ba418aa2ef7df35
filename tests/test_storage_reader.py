"""Trials as this project reads them, against the same trials as Optuna's own storage reads them."""

from collections.abc import Iterator

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from storage import trial_reader
from storage.database import Database, open_database
from storage.process import own_identity
from storage.shared_storage import SharedStorage


@pytest.fixture
def optunas(any_url: str, any_database: Database) -> Iterator[RDBStorage]:
    """Optuna's own storage of the same database."""
    url = make_url(any_url)
    driver = "postgresql+psycopg2" if url.drivername == "postgresql" else url.drivername
    storage = RDBStorage(url.set(drivername=driver).render_as_string(hide_password=False))
    yield storage
    storage.engine.dispose()


@pytest.fixture
def study(any_database: Database) -> Study:
    """An empty study."""
    return optuna.create_study(storage=any_database.storage, study_name="read", direction="maximize")


def fill(study: Study) -> None:
    """Add a trial of each kind: complete, pruned, failed, waiting and running, with all that one can have."""
    study.enqueue_trial({"rate": 0.1}, user_attrs={"recipe": {"a": [1, None, "ü"]}})
    for number in range(5):
        trial = study.ask()
        trial.suggest_float("rate", 1e-5, 1.0, log=True)
        trial.suggest_int("steps", 1, 9)
        trial.suggest_categorical("kind", ["sgd", None, True, 3])
        for step, value in enumerate((0.1, 1e-300, 1 / 3, float("inf"), float("-inf"))[: number + 1]):
            trial.report(value, step)
        trial.set_user_attr("note", {"nested": [number, 0.1]})
        study._storage.set_trial_system_attr(trial._trial_id, "completed_rung_0", 0.1 + number)
        match number:
            case 1:
                study.tell(trial, state=TrialState.PRUNED)
            case 2:
                study.tell(trial, state=TrialState.FAIL)
            case 3 | 4:
                study.tell(trial, 2 / 3 if number == 3 else float("-inf"))
    study.enqueue_trial({"rate": 0.2})


def backend_of(database: Database) -> SharedStorage:
    """The storage below Optuna's cache."""
    backend: SharedStorage = database.storage._backend  # type: ignore[attr-defined]  # Optuna's wrapper.
    return backend


def test_trials_are_those_that_optuna_reads(
    any_database: Database, optunas: RDBStorage, study: Study
) -> None:
    """Every state, parameter, report, attribute, value and time, one at a time and all at once."""
    fill(study)

    expected = optunas.get_all_trials(study._study_id)

    assert {trial.state for trial in expected} == set(TrialState)
    assert backend_of(any_database).get_all_trials(study._study_id) == expected
    assert study.get_trials() == expected
    assert [any_database.storage.get_trial(trial._trial_id) for trial in expected] == expected
    for trial in expected:
        read = backend_of(any_database).get_trial(trial._trial_id)
        assert list(read.params) == list(trial.params)
        assert list(read.intermediate_values) == list(trial.intermediate_values)


def test_values_that_are_no_numbers_are_read(any_database: Database, study: Study) -> None:
    """NaN, which equals nothing, comes back as NaN."""
    trial = study.ask()
    trial.report(float("nan"), 1)

    (value,) = any_database.storage.get_trial(trial._trial_id).intermediate_values.values()

    assert value != value


def test_several_objectives_are_read_in_their_order(any_database: Database, optunas: RDBStorage) -> None:
    """Studies of other programs can have them."""
    study = optuna.create_study(storage=any_database.storage, directions=["maximize", "minimize"])
    study.tell(study.ask(), [0.5, float("inf")])

    assert study.get_trials()[0].values == [0.5, float("inf")]
    assert study.get_trials() == optunas.get_all_trials(study._study_id)


@pytest.mark.parametrize("states", [None, (TrialState.COMPLETE, TrialState.RUNNING), ()])
@pytest.mark.parametrize("at_a_time", [2, 500])
def test_a_part_of_the_trials_is_that_part(
    any_database: Database,
    optunas: RDBStorage,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
    states: tuple[TrialState, ...] | None,
    at_a_time: int,
) -> None:
    """New trials and some older ones, as Optuna's cache asks for, however few a statement may name."""
    fill(study)
    monkeypatch.setattr(trial_reader, "TRIALS_A_STATEMENT", at_a_time)
    ids = [trial._trial_id for trial in optunas.get_all_trials(study._study_id)]
    backend = backend_of(any_database)

    for greater_than in (-1, ids[2], ids[-1]):
        for included in (set(), {ids[0]}, {*ids[:3], ids[4]}):
            asked = (study._study_id, states, included, greater_than)
            assert backend._get_trials(*asked) == optunas._get_trials(*asked)


def test_other_studies_are_left_out(any_database: Database, study: Study) -> None:
    """Two studies in one database share its tables."""
    fill(study)
    other = optuna.create_study(storage=any_database.storage)
    other.tell(other.ask(), 1.0)

    assert [trial.value for trial in other.get_trials()] == [1.0]
    assert backend_of(any_database)._get_trials(other._study_id, None, {1, 2}, 5)[0].value == 1.0


def test_what_does_not_exist_is_a_key_error(any_database: Database, study: Study) -> None:
    """As with Optuna; an empty study is no missing one."""
    with pytest.raises(KeyError):
        any_database.storage.get_trial(999)
    with pytest.raises(KeyError):
        any_database.storage.get_all_trials(999)
    assert study.get_trials() == []


def test_times_are_local_without_saying_so(any_database: Database, optunas: RDBStorage, study: Study) -> None:
    """Optuna stores UTC."""
    study.tell(study.ask(), 1.0)

    trial: FrozenTrial = study.get_trials()[0]
    stored = optunas.get_trial(trial._trial_id)

    assert trial.datetime_start is not None and trial.datetime_start.tzinfo is None
    assert (trial.datetime_start, trial.datetime_complete) == (
        stored.datetime_start,
        stored.datetime_complete,
    )


def test_a_workers_trial_is_as_any_other(any_url: str, any_database: Database, optunas: RDBStorage) -> None:
    """What a worker writes in few statements reads as what Optuna writes in many; numbers go on."""
    studies = []
    for name, identity in (("plain", None), ("worker", own_identity())):
        opened = open_database(any_url)
        if identity is not None:
            opened.work_as(identity)
        sampler = optuna.samplers.RandomSampler(seed=1)
        study = optuna.create_study(storage=opened.storage, study_name=name, sampler=sampler)
        for _ in range(3):
            trial = study.ask()
            trial.suggest_float("rate", 1e-5, 1.0, log=True)
            trial.suggest_categorical("kind", ["a", "b"])
            trial.report(0.5, 1)
            for value in (1, [2, None]):
                trial.set_user_attr("attr", value)
                study._storage.set_trial_system_attr(trial._trial_id, "rung", value)
        studies.append(study)
        opened.close()

    plain, worker = (
        [
            (
                t.number,
                t.state,
                t.params,
                t.distributions,
                t.intermediate_values,
                t.user_attrs,
                t.system_attrs,
            )
            for t in optunas.get_all_trials(study._study_id)
        ]
        for study in studies
    )
    assert [row[0] for row in worker] == [0, 1, 2]
    assert worker == plain


def test_a_parameter_cannot_change_its_kind(any_url: str) -> None:
    """Found in the database by a process that has seen none of the study's parameters yet."""
    for number in range(2):
        opened = open_database(any_url)
        opened.work_as(own_identity())
        study = optuna.create_study(storage=opened.storage, study_name="kinds", load_if_exists=True)
        trial = study.ask()
        if number == 0:
            trial.suggest_float("rate", 0.0, 1.0)
        else:
            with pytest.raises(ValueError, match="distribution"):
                trial.suggest_int("rate", 0, 1)
        opened.close()


def test_a_parameter_that_is_there_stays(any_database: Database, study: Study) -> None:
    """As with Optuna: the first of two writes, of which the first was not confirmed, counts."""
    any_database.work_as(own_identity())
    trial = study.ask()
    trial.suggest_float("rate", 0.0, 1.0)
    distribution = optuna.distributions.FloatDistribution(0.0, 1.0)

    any_database.storage.set_trial_param(trial._trial_id, "rate", 2.0, distribution)

    assert any_database.storage.get_trial(trial._trial_id).params == trial.params
