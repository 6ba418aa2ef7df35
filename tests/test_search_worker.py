"""A worker: what a trial leaves behind however it ends, and how one goes on where another stopped.

All with the real trainer, on the sample of 320 training and 80 validation images.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sample
import sqlalchemy
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState

from search.events import EpochEnded, Event, StepsDone, TrialEnded, TrialStarted
from search.space import Choices, NumberRange, Space, params_of
from search.study import OpenStudy, Wishes, open_or_create_study
from search.summary import FAILURE_KEY, RECIPE_KEY, TrialSummary, best_trial, summarise_trials
from storage.artifacts import FILES
from storage.database import Database, open_database
from storage.errors import DamagedFileError, StorageError
from storage.trial_files import CHECKPOINT_KEY, read_checkpoint, read_file, save_checkpoint
from trainer.recipe import Recipe
from trainer.state import TrainingState

pytestmark = pytest.mark.usefixtures("tensorflow")

EPOCHS = 3
SPACE = Space("momentum.toml", (Choices("optimizer", ("momentum",)), NumberRange("dropout_block1", 0.0, 0.5)))
WISHES = Wishes(SPACE, max_epochs=EPOCHS, train_samples=320)
"""One optimizer, so that a worker traces one program."""


@dataclass
class Log:
    """What a worker told, in order; to be given to it as `emit`."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def epoch_ended(self, epoch: int) -> bool:
        """Whether this epoch has ended in any trial."""
        return any(event.result.epoch == epoch for event in self.of(EpochEnded))


def open_sample_study(database: Database) -> OpenStudy:
    """A study whose trials train on the sample for three epochs."""
    return open_or_create_study(database, "sample", WISHES)[0]


def work(opened: OpenStudy, total: int | None, log: Log | None = None, **options: Any) -> Log:
    """Let a worker bring the study to `total` trials."""
    from search.worker import Worker

    log = Log() if log is None else log
    Worker(opened, sample.load(), log, **options).run(total)
    return log


def enqueue(opened: OpenStudy, recipe: Recipe) -> None:
    """Make a recipe the next trial's."""
    params = params_of(recipe, opened.settings.capped_space)
    opened.study.enqueue_trial(params, user_attrs={RECIPE_KEY: recipe.to_dict()})


def hand_back_ruined(opened: OpenStudy, trainer: Any, trial: optuna.Trial) -> None:
    """Make a running trial wait at the end of its first epoch, with weights that are no numbers."""
    recipe = Recipe.from_dict(trial.user_attrs[RECIPE_KEY])
    state = trainer.train(replace(recipe, epochs=1)).state
    # Which learning rates diverge changes with the machine; NaN is NaN everywhere.
    weights = tuple(np.full_like(array, np.nan) for array in state.weights)
    ruined = replace(state, recipe=recipe, weights=weights)
    database = opened.database
    save_checkpoint(database.artifacts, database.storage, trial._trial_id, ruined.to_bytes())
    database.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def stored_ids(database: Database) -> list[str]:
    """The ids of all stored files."""
    with database._backend.engine.connect() as connection:
        return sorted(connection.scalars(sqlalchemy.select(FILES.c.artifact_id)))


def filenames(opened: OpenStudy, trial: FrozenTrial) -> list[str]:
    """The names of a trial's attached files."""
    return sorted(meta.filename for meta in get_all_artifact_meta(trial, storage=opened.database.storage))


def content_of(opened: OpenStudy, trial: FrozenTrial, suffix: str) -> bytes:
    """One of a trial's attached files."""
    return read_file(opened.database.artifacts, opened.database.storage, trial, suffix).content


def history_of(opened: OpenStudy, trial: FrozenTrial) -> list[dict[str, str]]:
    """The rows of a trial's history."""
    return list(csv.DictReader(io.StringIO(content_of(opened, trial, ".csv").decode())))


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
    from search.worker import Worker

    worker = Worker(opened, sample.load(), log)
    pruner, worker._study.pruner = worker._study.pruner, optuna.pruners.NopPruner()
    worker.run(2)
    worker._study.pruner = pruner
    database.limit_trials(opened.study, None)
    # Where successive halving keeps what a trial had at its first rung.
    perfect = {"completed_rung_0": 1.0}
    opened.study.add_trial(optuna.create_trial(value=0.0, system_attrs=perfect))
    enqueue(opened, Recipe(learning_rate=1e-8, epochs=EPOCHS))
    worker.run(4)
    database.limit_trials(opened.study, None)
    enqueue(opened, Recipe(epochs=EPOCHS, seed=4))
    trial = opened.study.ask()
    trial.report(0.1, 1)
    hand_back_ruined(opened, worker._trainer, trial)
    worker.run(5)
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


def test_a_complete_trial_has_model_and_history(search: Search) -> None:
    """The names say trial and value; the history has a row an epoch, which match the reports."""
    trial = search.trials[0]

    assert filenames(search.opened, trial) == [f"trial-0-{trial.value:.4f}.h5", "trial-0-history.csv"]
    rows = history_of(search.opened, trial)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    reports = {int(row["epoch"]): float(row["validation_accuracy"]) for row in rows}
    assert reports == trial.intermediate_values
    assert {row["learning_rate"] for row in rows} == {"0.01"}


def test_a_pruned_trial_leaves_its_history_alone(search: Search) -> None:
    """No model, no value; it was stopped after the first epoch that has a verdict."""
    trial, summary = search.trials[3], search.summaries[3]

    assert trial.state == TrialState.PRUNED
    assert (summary.state, summary.value, summary.note) == ("pruned", None, "pruned after epoch 2")
    assert filenames(search.opened, trial) == ["trial-3-history.csv"]
    assert len(history_of(search.opened, trial)) == 2


def test_a_diverged_trial_leaves_no_model_and_says_when(search: Search) -> None:
    """It is no failure; whatever epochs ended well are its history."""
    trial, summary = search.trials[4], search.summaries[4]

    assert trial.state == TrialState.PRUNED
    assert (summary.state, summary.value) == ("diverged", None)
    assert trial.user_attrs["diverged_epoch"] == 2
    assert summary.note == "left the numbers in epoch 2"
    assert trial.intermediate_values == {1: 0.1}
    assert filenames(search.opened, trial) == ["trial-4-history.csv"]
    assert [row["epoch"] for row in history_of(search.opened, trial)] == ["1"]


def test_the_study_holds_the_files_it_names_and_no_others(search: Search) -> None:
    """Above all no checkpoint."""
    named = [
        meta.artifact_id
        for trial in search.trials
        for meta in get_all_artifact_meta(trial, storage=search.opened.database.storage)
    ]
    assert stored_ids(search.opened.database) == sorted(named)


def test_the_worker_tells_what_happens_in_order(search: Search) -> None:
    """Started, then for each epoch its steps and its end, then ended with the study's best so far."""
    mine = [event for event in search.log.events if _number(event) == 0]

    kinds = [type(event) for event in mine]
    assert kinds == [TrialStarted, *[StepsDone, EpochEnded] * EPOCHS, TrialEnded]
    assert mine[0] == TrialStarted(0, Recipe(epochs=EPOCHS), 1)
    assert mine[1] == StepsDone(0, 1, 5, 5)
    value = search.trials[0].value
    assert mine[-1] == TrialEnded(0, "complete", value, "", value)
    best = best_trial(search.summaries)
    assert best is not None
    assert search.log.events[-1] == TrialEnded(4, "diverged", None, search.summaries[4].note, best.value)


def test_every_trial_ended_and_names_its_host(search: Search) -> None:
    """None is left running or waiting."""
    assert all(trial.state.is_finished() for trial in search.trials)
    assert all(search.trials[number].user_attrs["worker"]["host"] for number in (0, 1, 3, 4))


def test_a_stopped_trial_is_handed_back_and_finished_to_the_bit(search: Search, database: Database) -> None:
    """The next worker's model, optimizer state included, is the one of the search that nobody interrupted."""
    opened = open_sample_study(database)
    log = Log()
    work(opened, 1, log, must_stop=lambda: log.epoch_ended(2))

    (waiting,) = opened.study.trials
    assert waiting.state == TrialState.WAITING
    assert sorted(waiting.intermediate_values) == [1, 2]
    assert log.events[-1] == TrialEnded(0, "waiting", None, "", None)
    checkpoint = read_checkpoint(database.artifacts, database.storage, waiting._trial_id)
    assert checkpoint is not None
    assert TrainingState.from_bytes(checkpoint).epoch == 2
    assert len(stored_ids(database)) == 1

    log = work(opened, 1)

    (trial,) = opened.study.trials
    assert trial.state == TrialState.COMPLETE
    assert log.events[0] == TrialStarted(0, Recipe(epochs=EPOCHS), 3)
    assert [event.result.epoch for event in log.of(EpochEnded)] == [3]
    assert trial.value == search.trials[0].value
    assert trial.intermediate_values == search.trials[0].intermediate_values
    assert [row["loss"] for row in history_of(opened, trial)] == [
        row["loss"] for row in history_of(search.opened, search.trials[0])
    ]
    interrupted, whole = (
        arrays_of(content_of(study, study.study.trials[0], ".h5")) for study in (opened, search.opened)
    )
    assert interrupted.keys() == whole.keys()
    assert len(whole) > 20
    for name, array in whole.items():
        assert np.array_equal(interrupted[name], array), name
    assert len(stored_ids(database)) == 2


def test_when_time_is_up_the_epoch_is_finished_first(database: Database) -> None:
    """The trial waits with that epoch, and no other trial is begun; a worker without time begins none."""
    opened = open_sample_study(database)
    opened.study.enqueue_trial({})
    log = Log()
    work(opened, None, log, time_is_up=lambda: bool(log.of(StepsDone)))

    first, second = opened.study.trials
    assert (first.state, second.state) == (TrialState.WAITING, TrialState.WAITING)
    assert sorted(first.intermediate_values) == [1]
    assert RECIPE_KEY not in second.user_attrs
    checkpoint = read_checkpoint(database.artifacts, database.storage, first._trial_id)
    assert checkpoint is not None
    assert TrainingState.from_bytes(checkpoint).epoch == 1
    assert work(opened, None, time_is_up=lambda: True).events == []
    assert work(opened, None, must_stop=lambda: True).events == []


def test_a_trial_is_finished_where_time_is_up_at_its_end(database: Database) -> None:
    """There is nothing left to go on with."""
    opened = open_or_create_study(database, "one", Wishes(SPACE, max_epochs=1, train_samples=64))[0]
    log = Log()
    work(opened, None, log, time_is_up=lambda: bool(log.of(StepsDone)))

    assert [trial.state for trial in opened.study.trials] == [TrialState.COMPLETE]


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


def test_the_total_is_exact_and_counts_what_waits(database: Database, train_nothing: list[Recipe]) -> None:
    """Enqueued trials are part of the budget; at the total nothing is trained."""
    opened = open_sample_study(database)
    enqueue(opened, Recipe(epochs=2))
    enqueue(opened, Recipe(epochs=1))

    work(opened, 4)
    assert [recipe.epochs for recipe in train_nothing] == [3, 2, 1, 3]
    assert len(opened.study.trials) == 4

    assert work(opened, 4).events == []
    assert work(opened, 2).events == []
    work(opened, 5)
    assert len(opened.study.trials) == 5


def test_waiting_trials_are_run_though_the_total_is_reached(
    database: Database, train_nothing: list[Recipe]
) -> None:
    """A trial that was handed back belongs to the budget already."""
    opened = open_sample_study(database)
    enqueue(opened, Recipe(epochs=2))

    work(opened, 1)

    assert [trial.state for trial in opened.study.trials] == [TrialState.PRUNED] * 2


def test_a_trial_enqueued_by_hand_gets_a_recipe(database: Database, train_nothing: list[Recipe]) -> None:
    """Parameters set in the dashboard are kept, the others drawn."""
    opened = open_sample_study(database)
    opened.study.enqueue_trial({"dropout_block1": 0.125})

    work(opened, 2)

    assert train_nothing[1] == Recipe(dropout_block1=0.125, epochs=EPOCHS, seed=1)
    assert opened.study.trials[1].user_attrs[RECIPE_KEY] == train_nothing[1].to_dict()


def test_a_running_trials_state_is_stored_on_the_way(
    database: Database, monkeypatch: pytest.MonkeyPatch, tensorflow: None
) -> None:
    """What a kill -9 costs is bounded by the interval; at the end the checkpoint is gone."""
    from search.worker import Worker

    monkeypatch.setattr("search.trial_run.CHECKPOINT_SECONDS", 0.0)
    opened = open_sample_study(database)
    trial_id = opened.study.trials[0]._trial_id
    stored: list[int] = []

    def emit(event: Any) -> None:
        if isinstance(event, EpochEnded):
            content = read_checkpoint(database.artifacts, database.storage, trial_id)
            assert content is not None
            stored.append(TrainingState.from_bytes(content).epoch)

    Worker(opened, sample.load(), emit).run(1)

    assert stored == [1, 2, 3]
    assert read_checkpoint(database.artifacts, database.storage, trial_id) is None


def test_an_exception_is_recorded_and_raised(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial fails with the reason on one line, its checkpoint goes, and the worker stops."""
    opened = open_sample_study(database)
    trial_id = opened.study.trials[0]._trial_id
    save_checkpoint(database.artifacts, database.storage, trial_id, b"")
    monkeypatch.setattr("search.worker.TrialRun.read_state", lambda run: None)
    monkeypatch.setattr("search.worker.Trainer.train", _break_down)
    log = Log()

    with pytest.raises(MemoryError, match="no room"):
        work(opened, 3, log)

    (trial,) = opened.study.trials
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs[FAILURE_KEY] == "MemoryError: no room for 3 tensors and a second line"
    assert log.events[-1] == TrialEnded(0, "failed", None, trial.user_attrs[FAILURE_KEY], None)
    assert stored_ids(database) == []


@pytest.mark.parametrize("harm", ["damaged", "gone", "rubbish"])
def test_an_unusable_checkpoint_fails_its_trial_alone(
    database: Database, train_nothing: list[Recipe], harm: str
) -> None:
    """The trial ends with the reason, rather than beginning anew in silence or coming back for ever."""
    opened = open_sample_study(database)
    trial_id = opened.study.trials[0]._trial_id
    save_checkpoint(database.artifacts, database.storage, trial_id, b"state")
    if harm != "rubbish":
        with database._backend.engine.begin() as connection:
            change = sqlalchemy.delete(FILES) if harm == "gone" else sqlalchemy.update(FILES)
            connection.execute(change if harm == "gone" else change.values(content=b"stale"))
    errors = {"damaged": DamagedFileError, "gone": StorageError}

    with pytest.raises(errors.get(harm, Exception)):
        work(opened, 2)

    assert opened.study.trials[0].state == TrialState.FAIL
    assert stored_ids(database) == []
    work(opened, 2)
    assert [trial.state for trial in opened.study.trials] == [TrialState.FAIL, TrialState.PRUNED]


def test_a_trial_that_cannot_be_drawn_fails(database: Database, train_nothing: list[Recipe]) -> None:
    """Here a recipe that was enqueued with other parameters than its own."""
    opened = open_sample_study(database)
    recipe = Recipe(dropout_block1=0.2, epochs=1)
    opened.study.enqueue_trial({"dropout_block1": 0.4}, user_attrs={RECIPE_KEY: recipe.to_dict()})

    with pytest.raises(Exception, match=r"trial 1 has dropout_block1 0\.4, its recipe 0\.2"):
        work(opened, 2)

    assert opened.study.trials[1].state == TrialState.FAIL
    assert CHECKPOINT_KEY not in opened.study.trials[1].system_attrs


@pytest.fixture
def train_nothing(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Make every training stop before its first epoch; gives the recipes of those that began."""
    from trainer.training import TrainingResult

    begun: list[Recipe] = []

    def train(_: Any, recipe: Recipe, **__: Any) -> TrainingResult:
        begun.append(recipe)
        return TrainingResult("stopped", TrainingState(recipe, (), ()))

    monkeypatch.setattr("search.worker.Trainer.train", train)
    return begun


def arrays_of(content: bytes) -> dict[str, Any]:
    """Every array of an HDF5 file, weights and optimizer state, by its path."""
    import h5py

    arrays: dict[str, Any] = {}
    with h5py.File(io.BytesIO(content)) as file:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                # Keras counts the optimizers of a process in their names.
                arrays[re.sub(r"\bsgd(_\d+)?\b", "sgd", name)] = item[()]

        file.visititems(visit)
    return arrays


def _number(event: Event) -> int:
    return event.number


def _break_down(*_: Any, **__: Any) -> Any:
    raise MemoryError("no room for 3 tensors\nand a second line")
