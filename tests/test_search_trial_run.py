"""A trial's run: what it leaves behind however it ends, and how it goes on where another worker stopped."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sample
import sqlalchemy
from optuna.artifacts import get_all_artifact_meta
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState
from PIL import Image
from test_search_worker import (
    EPOCHS,
    SPACE,
    Log,
    checkpoint_each_epoch,
    count_leases,
    enqueue,
    make_worker,
    open_sample_study,
    stored_ids,
    stored_state,
    work,
)

from search.events import EpochEnded, Event, StepsDone, TrialEnded, TrialStarted
from search.policy import CheckpointPolicy
from search.report import trial_json
from search.space import params_of
from search.study import OpenStudy, Wishes, open_or_create_study
from search.summary import RECIPE_KEY, SECONDS_KEY, TrialSummary, best_trial, summarise_trials
from storage.database import Database, open_database
from storage.errors import StorageError
from storage.leases import FAILURE_KEY, RETRIES_KEY
from storage.schema import FILES
from storage.trial_files import read_file
from trainer.figures import CONFUSION_SIZE, CURVES_SIZE, draw_confusion, draw_curves
from trainer.recipe import OPTIMIZERS, Recipe
from trainer.state import EpochResult, TrainingState

pytestmark = pytest.mark.usefixtures("tensorflow")


def hand_back_ruined(opened: OpenStudy, trainer: Any, trial: optuna.Trial) -> None:
    """Make a running trial wait at the end of its first epoch, with weights that are no numbers."""
    recipe = Recipe.from_dict(trial.user_attrs[RECIPE_KEY])
    state = trainer.train(replace(recipe, epochs=1)).state
    # Which learning rates diverge changes with the machine; NaN is NaN everywhere.
    weights = tuple(np.full_like(array, np.nan) for array in state.weights)
    ruined = replace(state, recipe=recipe, weights=weights)
    claimed = opened.database.claimed(opened.artifacts, trial._trial_id)
    claimed.hand_back(ruined.to_bytes(), {})
    claimed.let_go()


def files_of(opened: OpenStudy, trial: FrozenTrial) -> dict[str, tuple[str, str]]:
    """Name and type of a trial's attached files, by their kind."""
    metas = get_all_artifact_meta(trial, storage=opened.database.storage)
    query = sqlalchemy.select(FILES.c.artifact_id, FILES.c.kind).where(FILES.c.trial_id == trial._trial_id)
    with opened.database._backend.engine.connect() as connection:
        kinds = {row.artifact_id: row.kind for row in connection.execute(query)}
    return {kinds[meta.artifact_id]: (meta.filename, meta.mimetype) for meta in metas}


def picture_of(opened: OpenStudy, trial: FrozenTrial, kind: str) -> tuple[int, int]:
    """Width and height of one of a trial's pictures, which is read as a whole."""
    with Image.open(io.BytesIO(content_of(opened, trial, f"-{kind}.png"))) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.size


def content_of(opened: OpenStudy, trial: FrozenTrial, suffix: str) -> bytes:
    """One of a trial's attached files."""
    return read_file(opened.artifacts, opened.database.storage, trial, suffix).content


def history_of(opened: OpenStudy, trial: FrozenTrial) -> list[dict[str, str]]:
    """The rows of a trial's history."""
    return list(csv.DictReader(io.StringIO(content_of(opened, trial, ".csv").decode())))


def arrays_of(content: bytes) -> dict[str, Any]:
    """Every array of an HDF5 file, weights and optimizer state, by its path."""
    import h5py

    arrays: dict[str, Any] = {}
    with h5py.File(io.BytesIO(content)) as file:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                # Keras counts the optimizers of a process in their names.
                arrays[re.sub(r"\b(sgd|rm_sprop|adam)(_\d+)?\b", r"\1", name)] = item[()]

        file.visititems(visit)
    return arrays


def assert_same_model(one: bytes, other: bytes) -> None:
    """Two .h5 files hold the same arrays, bit for bit, optimizer state included."""
    arrays, others = arrays_of(one), arrays_of(other)
    assert arrays.keys() == others.keys()
    # Five layers of weights and biases, a step count and a rate, and what the optimizer remembers.
    assert len(arrays) >= 12
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype, name
        assert array.tobytes() == others[name].tobytes(), name


@dataclass(frozen=True)
class Search:
    """A search that has ended: a complete trial of each kind, a pruned one, a diverged one."""

    opened: OpenStudy
    trials: list[FrozenTrial]
    summaries: list[TrialSummary]
    log: Log


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory, tensorflow: None) -> Iterator[Search]:
    """Trial 0 the article's, 1 drawn, 2 another program's and perfect, 3 pruned by it, 4 diverged."""
    database = open_database(f"sqlite:///{tmp_path_factory.mktemp('search') / 'study.db'}")
    opened = open_sample_study(database)
    log = Log()

    database.limit_trials(opened.study, 2)
    worker = make_worker(opened, log, has_own_trainer=True)
    worker._served.study.pruner = optuna.pruners.NopPruner()
    worker.run()
    database.limit_trials(opened.study, None)
    # Where successive halving keeps what a trial had at its first rung.
    perfect = {"completed_rung_0": 1.0}
    opened.study.add_trial(optuna.create_trial(value=0.0, system_attrs=perfect))
    enqueue(opened, Recipe(learning_rate=1e-8, epochs=EPOCHS))
    work(opened, 4, log)
    database.limit_trials(opened.study, None)
    enqueue(opened, Recipe(epochs=EPOCHS, seed=4))
    trial = opened.study.ask()
    trial.report(0.1, 1)
    hand_back_ruined(opened, worker._runner._trainer, trial)
    work(opened, 5, log)
    yield Search(opened, opened.study.trials, summarise_trials(opened.study), log)
    database.close()


@pytest.mark.parametrize("number", [0, 1])
def test_a_trials_value_is_that_of_its_stored_model(search: Search, tmp_path: Path, number: int) -> None:
    """Whoever takes the .h5 and scores it gets the trial's value, with Keras's own evaluation too."""
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator, scale
    from trainer.model_file import load_model

    trial = search.trials[number]
    assert trial.state == TrialState.COMPLETE
    path = tmp_path / "best.h5"
    path.write_bytes(content_of(search.opened, trial, ".h5"))
    validation = sample.load().validation

    model = load_model(path)

    assert Evaluator(DeviceSplit.of(validation)).score(model).accuracy == trial.value
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    images = scale(validation.images, "float32")
    assert model.evaluate(images, validation.labels, verbose=0)[1] == pytest.approx(trial.value)
    assert trial.value == pytest.approx(trial.intermediate_values[EPOCHS])


def test_trial_0_trains_the_articles_recipe(search: Search) -> None:
    """With the study's cap, and recorded as such; the next trial has a recipe of its own."""
    assert search.summaries[0].recipe == Recipe(epochs=EPOCHS)
    drawn = search.summaries[1].recipe
    assert drawn is not None
    assert replace(drawn, dropout_block1=0.3) == Recipe(epochs=EPOCHS, seed=1)
    assert search.trials[1].params == {"dropout_block1": drawn.dropout_block1}
    assert search.trials[0].params == {"dropout_block1": 0.3}


def test_a_complete_trial_has_model_history_and_pictures(search: Search) -> None:
    """The names say trial and value; the history has a row an epoch, which match the reports."""
    trial = search.trials[0]

    assert files_of(search.opened, trial) == {
        "model": (f"trial-0-{trial.value:.4f}.h5", "application/x-hdf5"),
        "history": ("trial-0-history.csv", "text/csv"),
        "curves": ("trial-0-curves.png", "image/png"),
        "confusion": ("trial-0-confusion.png", "image/png"),
    }
    assert picture_of(search.opened, trial, "curves") == CURVES_SIZE
    assert picture_of(search.opened, trial, "confusion") == CONFUSION_SIZE
    rows = history_of(search.opened, trial)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    reports = {int(row["epoch"]): float(row["validation_accuracy"]) for row in rows}
    assert reports == trial.intermediate_values
    assert {row["learning_rate"] for row in rows} == {"0.01"}
    seconds = sum(float(row["seconds"]) for row in rows)
    assert trial.user_attrs[SECONDS_KEY] == pytest.approx(seconds, abs=0.01)


def test_a_pruned_trial_leaves_history_and_curves(search: Search) -> None:
    """No model, no confusion, no value; it was stopped after the first epoch that has a verdict."""
    trial, summary = search.trials[3], search.summaries[3]

    assert trial.state == TrialState.PRUNED
    assert (summary.state, summary.value, summary.note) == ("pruned", None, "pruned after epoch 2")
    assert files_of(search.opened, trial) == {
        "history": ("trial-3-history.csv", "text/csv"),
        "curves": ("trial-3-curves.png", "image/png"),
    }
    assert picture_of(search.opened, trial, "curves") == CURVES_SIZE
    assert len(history_of(search.opened, trial)) == 2
    # Optuna's own way with a pruned trial.
    assert trial.value == trial.intermediate_values[2]


def test_a_diverged_trial_leaves_no_model_and_says_when(search: Search) -> None:
    """It is no failure; whatever epochs ended well are its history."""
    trial, summary = search.trials[4], search.summaries[4]

    assert trial.state == TrialState.PRUNED
    assert (summary.state, summary.value) == ("diverged", None)
    assert trial.user_attrs["diverged_epoch"] == 2
    assert summary.note == "left the numbers in epoch 2"
    assert trial.intermediate_values == {1: 0.1}
    assert files_of(search.opened, trial) == {
        "history": ("trial-4-history.csv", "text/csv"),
        "curves": ("trial-4-curves.png", "image/png"),
    }
    assert picture_of(search.opened, trial, "curves") == CURVES_SIZE
    assert [row["epoch"] for row in history_of(search.opened, trial)] == ["1"]


def test_the_pictures_show_the_trials_own_history_and_model(search: Search) -> None:
    """They are those that its stored history and its stored model give, with number and result above."""
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator
    from trainer.model_file import model_from_bytes

    trial = search.trials[0]
    rows = history_of(search.opened, trial)
    history = [EpochResult(int(row.pop("epoch")), **{key: float(row[key]) for key in row}) for row in rows]
    percent = f"{100 * trial.value:.2f} %"
    curves = draw_curves(history, f"Trial 0: {percent} after epoch {EPOCHS}")
    assert content_of(search.opened, trial, "-curves.png") == curves

    model = model_from_bytes(content_of(search.opened, trial, ".h5"))
    score = Evaluator(DeviceSplit.of(sample.load().validation)).score(model)
    confusion = draw_confusion(score.confusion, f"Trial 0: {percent} of 80 validation images")
    assert content_of(search.opened, trial, "-confusion.png") == confusion


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("curves", RuntimeError("no font")),
        ("confusion", MemoryError()),
        ("confusion", ImportError("libfreetype.so.6: no such file")),
    ],
    ids=repr,
)
def test_a_picture_that_cannot_be_drawn_costs_the_trial_nothing(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    error: Exception,
) -> None:
    """It is complete, with all its other files; the log names trial, picture and reason."""

    def draw(*_: Any) -> bytes:
        raise error

    monkeypatch.setattr(f"search.trial_run.draw_{kind}", draw)
    opened = open_sample_study(database)

    log = work(opened, 1)

    (trial,) = opened.study.trials
    assert trial.state == TrialState.COMPLETE
    assert log.events[-1] == TrialEnded(0, "complete", trial.value, "", trial.value)
    assert files_of(opened, trial).keys() == {"model", "history", "curves", "confusion"} - {kind}
    (warning,) = [record for record in caplog.records if record.name == "search.trial_run"]
    assert warning.levelname == "WARNING"
    reason = f"{type(error).__name__}: {str(error) or type(error).__name__}"
    assert warning.getMessage() == f"trial 0: its {kind} could not be drawn: {reason}"


def test_a_worker_that_is_killed_while_it_draws_leaves_the_trial_to_another(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end of the process is no failure to draw: of what the trial came to, nothing is stored yet."""

    def draw(*_: Any) -> bytes:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("search.trial_run.draw_confusion", draw)
        opened = open_sample_study(database)
        opened.database.limit_trials(opened.study, 1)
        with pytest.raises(Killed):
            make_worker(opened, Log(), policy=checkpoint_each_epoch()).run()

    (trial,) = opened.study.trials
    assert trial.state == TrialState.RUNNING
    assert files_of(opened, trial) == {}
    state = stored_state(database, trial)
    assert state is not None
    assert state.epoch == EPOCHS


def test_the_study_holds_the_files_it_names_and_no_others(search: Search) -> None:
    """Above all no checkpoint; nor is a lease or a worker left."""
    named = [
        meta.artifact_id
        for trial in search.trials
        for meta in get_all_artifact_meta(trial, storage=search.opened.database.storage)
    ]
    assert stored_ids(search.opened.database) == sorted(named)
    assert count_leases(search.opened.database) == (0, 0)


def test_the_worker_tells_what_happens_in_order(search: Search) -> None:
    """Started, then for each epoch its steps and its end, then ended with the study's best so far."""
    mine = [event for event in search.log.events if _number(event) == 0]

    # How many steps are told at a time depends on the machine.
    kinds = [kind for kind, _ in itertools.groupby(mine, type)]
    assert kinds == [TrialStarted, *[StepsDone, EpochEnded] * EPOCHS, TrialEnded]
    assert mine[0] == TrialStarted(0, Recipe(epochs=EPOCHS), 1)
    told = [event for event in mine if isinstance(event, StepsDone) and event.epoch == 1]
    assert told[-1] == StepsDone(0, 1, 5, 5)
    value = search.trials[0].value
    assert mine[-1] == TrialEnded(0, "complete", value, "", value)
    best = best_trial(search.summaries)
    assert best is not None
    assert search.log.events[-1] == TrialEnded(4, "diverged", None, search.summaries[4].note, best.value)


def test_every_trial_ended_and_names_its_worker(search: Search) -> None:
    """None is left running or waiting."""
    assert all(trial.state.is_finished() for trial in search.trials)
    for number in (0, 1, 3, 4):
        worker = search.trials[number].user_attrs["worker"]
        assert worker.keys() == {"host", "pid", "gpu", "engine"}
        assert worker["host"]


def test_a_stopped_trial_is_handed_back_and_finished_to_the_bit(search: Search, database: Database) -> None:
    """The next worker's model, optimizer state included, is the one of the search that nobody interrupted."""
    opened = open_sample_study(database)
    log = Log()
    work(opened, 1, log, must_stop=lambda: log.epoch_ended(2))

    (waiting,) = opened.study.trials
    assert waiting.state == TrialState.WAITING
    assert sorted(waiting.intermediate_values) == [1, 2]
    assert log.events[-1] == TrialEnded(0, "waiting", None, "", None)
    state = stored_state(database, waiting)
    assert state is not None
    assert state.epoch == 2
    assert len(stored_ids(database)) == 1
    assert count_leases(database) == (0, 0)
    assert {FAILURE_KEY, RETRIES_KEY}.isdisjoint(waiting.user_attrs)

    log = work(opened, 1, has_own_trainer=True)

    (trial,) = opened.study.trials
    assert trial.state == TrialState.COMPLETE
    assert trial.datetime_start == waiting.datetime_start
    assert log.events[0] == TrialStarted(0, Recipe(epochs=EPOCHS), 3)
    assert [event.result.epoch for event in log.of(EpochEnded)] == [3]
    assert trial.value == search.trials[0].value
    assert trial.intermediate_values == search.trials[0].intermediate_values
    assert [row["loss"] for row in history_of(opened, trial)] == [
        row["loss"] for row in history_of(search.opened, search.trials[0])
    ]
    assert_same_model(content_of(opened, trial, ".h5"), content_of(search.opened, search.trials[0], ".h5"))
    assert len(stored_ids(database)) == 4


def test_a_trial_stopped_in_its_first_epoch_begins_anew(database: Database) -> None:
    """There is no state to go on from, and its recipe stays."""
    opened = open_sample_study(database)
    log = Log()
    work(opened, 1, log, must_stop=lambda: bool(log.of(StepsDone)))

    (waiting,) = opened.study.trials
    assert (waiting.state, waiting.intermediate_values) == (TrialState.WAITING, {})
    assert stored_ids(database) == []
    log = Log()
    work(opened, 1, log, must_stop=lambda: bool(log.of(TrialStarted)))
    assert log.events[0] == TrialStarted(0, Recipe(epochs=EPOCHS), 1)


def test_a_trial_stopped_again_before_an_epochs_end_keeps_its_state(database: Database) -> None:
    """What the first worker stored is what the third goes on from."""
    opened = open_sample_study(database)
    log = Log()
    work(opened, 1, log, must_stop=lambda: log.epoch_ended(1))
    log = Log()
    work(opened, 1, log, must_stop=lambda: bool(log.of(StepsDone)))

    assert log.events[0] == TrialStarted(0, Recipe(epochs=EPOCHS), 2)
    assert log.of(EpochEnded) == []
    state = stored_state(database, opened.study.trials[0])
    assert state is not None
    assert state.epoch == 1


@pytest.mark.parametrize("content", [b"", b"rotten"])
def test_a_trial_whose_checkpoint_is_damaged_begins_anew(
    database: Database, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Its epochs can be trained again, to the same end; failing it would lose them and the trial."""
    opened = open_sample_study(database)
    log = Log()
    work(opened, 1, log, must_stop=lambda: log.epoch_ended(2))
    with database._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.update(FILES).values(content=content))

    log = work(opened, 1)

    assert log.events[0] == TrialStarted(0, Recipe(epochs=EPOCHS), 1)
    (trial,) = opened.study.trials
    assert trial.state == TrialState.COMPLETE
    assert len(history_of(opened, trial)) == EPOCHS
    assert "trial 0 begins anew: stored file" in caplog.text


def test_a_trial_whose_checkpoint_is_of_another_network_begins_anew(
    database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older version's may be: whole, of the same recipe, and without one of the arrays."""
    opened = open_sample_study(database)
    log = Log()
    work(opened, 1, log, must_stop=lambda: log.epoch_ended(2))
    read = TrainingState.from_bytes

    def read_other(content: bytes) -> TrainingState:
        state = read(content)
        return replace(state, weights=state.weights[:-1])

    monkeypatch.setattr(TrainingState, "from_bytes", staticmethod(read_other))

    work(opened, 1)

    (trial,) = opened.study.trials
    assert trial.state == TrialState.COMPLETE
    assert len(history_of(opened, trial)) == EPOCHS
    assert trial.user_attrs["precision"] == "float32"
    assert "trial 0 begins anew: the saved weights are not" in caplog.text


def test_no_memory_to_score_leaves_a_trained_trial_to_another_try(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU that others fill; TensorFlow's own error is not one that passes."""
    import tensorflow as tf

    from trainer.evaluation import Evaluator

    real, failures = Evaluator._sum, [tf.errors.ResourceExhaustedError(None, None, "OOM\nmuch more")]

    def score(self: Evaluator, *arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(self, *arguments)

    monkeypatch.setattr(Evaluator, "_sum", score)
    monkeypatch.setattr("search.worker.REST_SECONDS", 0.0)
    opened = open_sample_study(database)

    log = work(opened, 1)

    ends = [(event.state, event.note) for event in log.of(TrialEnded)]
    assert ends[0] == ("waiting", "OutOfMemoryError: the device is out of memory: OOM")
    assert [state for state, _ in ends] == ["waiting", "complete"]


def test_epochs_that_a_killed_worker_reported_are_not_reported_again(database: Database) -> None:
    """Without a checkpoint the trial begins anew; its reports stand, and only new epochs are judged."""
    # Optuna would warn of each repetition, and judge epoch 1 by the killed run's last one.
    opened = open_sample_study(database)
    opened.study.add_trial(optuna.create_trial(value=0.0, intermediate_values={1: 0.5, 2: 0.5, 3: 0.05}))
    trial = opened.study.ask()
    trial.report(0.01, 1)
    trial.report(0.02, 2)
    database.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    log = work(opened, 2)

    again = opened.study.trials[0]
    assert [event.result.epoch for event in log.of(EpochEnded)] == [1, 2, 3]
    assert again.state == TrialState.COMPLETE
    assert (again.intermediate_values[1], again.intermediate_values[2]) == (0.01, 0.02)
    assert len(history_of(opened, again)) == 3


@pytest.mark.parametrize(
    ("policy", "stored"),
    [
        (CheckpointPolicy(seconds=0.0), [1, 2, 3]),
        (CheckpointPolicy(seconds=3600.0), [None, None, None]),
        (CheckpointPolicy(seconds=3600.0, epochs=1), [1, 2, 3]),
        (CheckpointPolicy(seconds=3600.0, epochs=2), [None, 2, 2]),
    ],
    ids=["always", "never", "each epoch", "every second epoch"],
)
def test_a_running_trials_state_is_stored_by_the_policy(
    database: Database, policy: CheckpointPolicy, stored: list[int | None]
) -> None:
    """What a kill -9 costs is bounded by it; at the end the checkpoint is gone."""
    opened = open_sample_study(database)
    epochs: list[int | None] = []

    def emit(event: Event) -> None:
        if isinstance(event, EpochEnded):
            state = stored_state(database, opened.study.trials[0])
            epochs.append(None if state is None else state.epoch)

    database.limit_trials(opened.study, 1)
    make_worker(opened, emit, policy=policy).run()

    assert epochs == stored
    assert stored_state(database, opened.study.trials[0]) is None


def test_a_state_is_stored_so_many_seconds_after_the_last(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that here goes 20 seconds an epoch."""
    opened = open_sample_study(database)
    clock = [1000.0]
    monkeypatch.setattr("search.trial_run.time.monotonic", lambda: clock[0])
    epochs: list[int | None] = []

    def emit(event: Event) -> None:
        if isinstance(event, StepsDone):
            clock[0] += 20.0
        if isinstance(event, EpochEnded):
            state = stored_state(database, opened.study.trials[0])
            epochs.append(None if state is None else state.epoch)

    database.limit_trials(opened.study, 1)
    make_worker(opened, emit, policy=CheckpointPolicy(seconds=40.0)).run()

    assert epochs == [None, 2, 2]


def test_the_seconds_of_a_trial_are_those_of_its_epochs_over_all_workers(database: Database) -> None:
    """Optuna's times would count what it waited; the history has the rows of both."""
    opened = open_sample_study(database)
    log = Log()
    work(opened, 1, log, must_stop=lambda: log.epoch_ended(2))
    first = sum(event.result.seconds for event in log.of(EpochEnded))
    assert opened.study.trials[0].user_attrs[SECONDS_KEY] == pytest.approx(first, abs=0.001)

    log = work(opened, 1)

    rows = history_of(opened, opened.study.trials[0])
    second = sum(event.result.seconds for event in log.of(EpochEnded))
    assert opened.study.trials[0].user_attrs[SECONDS_KEY] == pytest.approx(first + second, abs=0.001)
    assert len(rows) == EPOCHS


def test_a_failure_that_passed_is_not_shown_on_a_complete_trial(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept for whoever looks into it, and no note of the trial."""
    from trainer.training import Trainer

    monkeypatch.setattr("search.worker.REST_SECONDS", 0.0)
    opened = open_sample_study(database)
    whole, tries = Trainer.train, iter([OSError("the cable")])

    def train(trainer: Trainer, *arguments: Any, **options: Any) -> Any:
        for error in tries:
            raise error
        return whole(trainer, *arguments, **options)

    monkeypatch.setattr(Trainer, "train", train)
    log = Log()

    notes: list[str] = []

    def emit(event: Event) -> None:
        log(event)
        if isinstance(event, TrialEnded | StepsDone):
            notes.append(summarise_trials(opened.study)[0].note)

    database.limit_trials(opened.study, 1)
    make_worker(opened, emit).run()

    assert notes == ["OSError: the cable", *[""] * EPOCHS, ""]
    (summary,) = summarise_trials(opened.study)
    assert (summary.state, summary.note, trial_json(summary)["note"]) == ("complete", "", "")
    assert log.events[-1] == TrialEnded(0, "complete", summary.value, "", summary.value)
    assert opened.study.trials[0].user_attrs[FAILURE_KEY] == "OSError: the cable"


class Killed(BaseException):
    """Ends a worker where it stands, as a kill does: no clean-up of a trial knows it."""


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trial_killed_after_each_epoch_ends_as_one_that_was_not(
    database: Database, tmp_path: Path, optimizer: str
) -> None:
    """The same weights and optimizer state, bit for bit, the same value, reports and history."""
    recipe = Recipe(optimizer=optimizer, learning_rate=0.001, epochs=EPOCHS, batch_size=16, seed=7)
    wishes = Wishes(max_epochs=EPOCHS, train_samples=64)
    whole, killed = (open_or_create_study(database, name, wishes)[0] for name in ("whole", "killed"))
    for opened in (whole, killed):
        enqueue_first(opened, recipe)

    work(whole, 1)
    began: list[int] = []
    for epoch in range(1, EPOCHS + 1):
        kill_after(killed, epoch, began)
        assert count_leases(database)[0] == 1
    log = work(killed, 1)

    assert began == [1, 2, 3]
    assert log.events[0] == TrialStarted(0, recipe, EPOCHS + 1)
    assert log.of(EpochEnded) == []
    one, other = whole.study.trials[0], killed.study.trials[0]
    assert (one.state, other.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert other.value == one.value
    assert other.intermediate_values == one.intermediate_values
    assert [_without_seconds(row) for row in history_of(killed, other)] == [
        _without_seconds(row) for row in history_of(whole, one)
    ]
    assert_same_model(content_of(killed, other, ".h5"), content_of(whole, one, ".h5"))
    assert other.user_attrs[RETRIES_KEY] == {"total": 3, "without_progress": 1, "epoch": 3}
    assert summarise_trials(killed.study)[0].note == ""
    assert len(stored_ids(database)) == 8


def kill_after(opened: OpenStudy, epoch: int, began: list[int]) -> None:
    """Let a new worker run the trial up to the end of `epoch` and die there, with its lease taken."""

    def emit(event: Event) -> None:
        if isinstance(event, TrialStarted):
            began.append(event.first_epoch)
        if isinstance(event, EpochEnded):
            assert event.result.epoch == epoch
            raise Killed

    opened.database.limit_trials(opened.study, 1)
    worker = make_worker(opened, emit, policy=checkpoint_each_epoch())
    with pytest.raises(Killed):
        worker.run()


def enqueue_first(opened: OpenStudy, recipe: Recipe) -> None:
    """Make a recipe trial 0's."""
    (waiting,) = opened.study.trials
    opened.database.storage.set_trial_user_attr(waiting._trial_id, RECIPE_KEY, recipe.to_dict())
    params = params_of(recipe, opened.settings.capped_space)
    opened.database.storage.set_trial_system_attr(waiting._trial_id, "fixed_params", params)


def test_files_outside_the_database_are_read_from_there(database: Database, tmp_path: Path) -> None:
    """A study remembers where, its checkpoints go there too, and what ended leaves none behind."""
    wishes = Wishes(SPACE, max_epochs=2, train_samples=64, artifacts=f"file://{tmp_path}/kept")
    opened, _ = open_or_create_study(database, "outside", wishes)
    folder = tmp_path / "kept" / opened.settings.folder
    counts: list[int] = []

    def emit(event: Event) -> None:
        if isinstance(event, EpochEnded):
            counts.append(len(list(folder.iterdir())))

    database.limit_trials(opened.study, 1)
    make_worker(opened, emit, policy=checkpoint_each_epoch()).run()

    (trial,) = opened.study.trials
    assert counts == [1, 1]
    assert trial.state == TrialState.COMPLETE
    assert sorted(path.name for path in folder.iterdir()) == stored_ids(database)
    assert len(history_of(opened, trial)) == 2
    assert content_of(opened, trial, ".h5").startswith(b"\x89HDF")
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(StorageError, match=r"the \.h5 file of trial 0 is gone"):
        content_of(opened, trial, ".h5")


def _number(event: Event) -> int | None:
    return getattr(event, "number", None)


def _without_seconds(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name != "seconds"}


def test_the_yardstick_is_never_pruned(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial 0, the article's recipe, is trained to its end whatever halving says, which hears of it."""
    asked: list[int] = []

    def prune(pruner: SuccessiveHalvingPruner, study: optuna.Study, trial: FrozenTrial) -> bool:
        asked.append(trial.number)
        return True

    monkeypatch.setattr(SuccessiveHalvingPruner, "prune", prune)
    opened = open_sample_study(database)
    work(opened, 2)

    assert [trial.state for trial in opened.study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert asked == [0] * (EPOCHS - 1) + [1]
