"""A baseline run: what it stores, that it goes on bit for bit however it ended, and what it refuses."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sample

from search.baseline.events import BaselineEvent, SeedEpoch, SeedScored, SeedStarted, SeedSteps
from search.baseline.folder import BaselinePlan, changed_models, model_file, open_baseline, state_file
from search.baseline.record import RECORD, BaselineRecord, read_record
from search.baseline.run import BaselineRun
from search.errors import BaselineError, OutputError
from search.events import Notice
from trainer.cifar10 import Split
from trainer.device import DeviceSplit
from trainer.evaluation import Evaluator
from trainer.model_file import load_model
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.state import TrainingState
from trainer.training import Trainer

pytestmark = pytest.mark.filterwarnings(
    # Keras 3.15 copies TensorFlow 2.21's variables by an __array__ of before numpy 2.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

DATA = sample.load()
PLAN = BaselinePlan((1, 3), seeds=2, seed=5, train_samples=100, precision="float32")
MACHINE: dict[str, str | int] = {"processor": "a processor", "threads": 2}


@pytest.fixture(scope="module", autouse=True)
def shared_programs() -> Iterator[None]:
    """One traced program for the whole file, as a worker has one for all its trials."""
    trainers: dict[tuple[int, str], Trainer] = {}
    evaluators: dict[int, Evaluator] = {}

    def trainer_of(train: Split, validation: Split, precision: Precision, *, jit_compile: bool) -> Trainer:
        assert not jit_compile
        key = (len(train), precision)
        if key not in trainers:
            trainers[key] = Trainer(train, validation, precision)
        return trainers[key]

    def evaluator_of(split: DeviceSplit) -> Evaluator:
        return evaluators.setdefault(len(split), Evaluator(split))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.baseline.run.Trainer", trainer_of)
        patch.setattr("search.baseline.run.Evaluator", evaluator_of)
        yield


@dataclasses.dataclass
class Trained:
    """What a call came to."""

    is_done: bool
    record: BaselineRecord
    events: list[BaselineEvent]


def train(
    folder: Path,
    plan: BaselinePlan = PLAN,
    *,
    machine: dict[str, str | int] = MACHINE,
    stop_at: Callable[[list[BaselineEvent]], bool] = lambda events: False,
) -> Trained:
    """Train what the plan lacks, on the sample; stop as soon as the events say so."""
    events: list[BaselineEvent] = []
    with open_baseline(folder, plan) as opened:
        run = BaselineRun(opened, DATA, machine, events.append, lambda: stop_at(events))
        return Trained(run.run(), run.record, events)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Trained]]:
    """The plan, trained in one go."""
    folder = tmp_path_factory.mktemp("baseline") / "new"
    yield folder, train(folder)


def models_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each model, by its name."""
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(folder.glob("*.h5"))}


def assert_equal(folder: Path, other: Path) -> None:
    """Same models, scores, histories and states, bit for bit; seconds are no matter."""
    assert models_of(folder) == models_of(other) != {}
    records = []
    for one in (folder, other):
        record = read_record(one)
        assert record is not None
        records.append(
            [
                (run.seed, run.scores, [dataclasses.replace(r, seconds=0) for r in run.history])
                for run in record.runs
            ]
        )
    assert records[0] == records[1]
    for seed in PLAN.all_seeds():
        first, second = (
            TrainingState.from_bytes((one / state_file(seed)).read_bytes()) for one in (folder, other)
        )
        assert first.recipe == second.recipe
        for ours, theirs in zip(
            (*first.weights, *first.optimizer), (*second.weights, *second.optimizer), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_it_leaves_models_states_and_a_record(whole: tuple[Path, Trained]) -> None:
    """A model for each seed and named epoch, and nothing half written."""
    folder, trained = whole

    assert trained.is_done
    assert sorted(one.name for one in folder.iterdir()) == [
        "baseline-seed5-1.h5",
        "baseline-seed5-3.h5",
        "baseline-seed5.state",
        "baseline-seed6-1.h5",
        "baseline-seed6-3.h5",
        "baseline-seed6.state",
        "baseline.json",
        "baseline.lock",
    ]
    assert read_record(folder) == trained.record
    assert [run.seed for run in trained.record.runs] == [5, 6]
    assert changed_models(folder, trained.record) == []


def test_it_tells_what_happens_in_order(whole: tuple[Path, Trained]) -> None:
    """Each seed's start, its epochs, and each score right after its epoch."""
    told = [
        (type(event).__name__, event.seed)
        for event in whole[1].events
        if not isinstance(event, SeedSteps | Notice)
    ]

    run = ["SeedStarted", "SeedEpoch", "SeedScored", "SeedEpoch", "SeedEpoch", "SeedScored"]
    assert told == [(name, seed) for seed in (5, 6) for name in run]


def test_a_score_is_that_of_the_stored_file(whole: tuple[Path, Trained]) -> None:
    """Test and validation images alike, scored again from the bytes on disk."""
    folder, trained = whole
    test, validation = (Evaluator(DeviceSplit.of(split)) for split in (DATA.test, DATA.validation))

    for run in trained.record.runs:
        assert [score.epoch for score in run.scores] == [1, 3]
        for score in run.scores:
            model = load_model(folder / score.file)
            again = test.score(model)
            assert (score.test.loss, score.test.accuracy) == (again.loss, again.accuracy)
            assert score.test.images == len(DATA.test) == 100
            again = validation.score(model)
            assert (score.validation.loss, score.validation.accuracy) == (again.loss, again.accuracy)
            assert score.validation.images == len(DATA.validation) == 80
            assert models_of(folder)[score.file] == score.sha256


def test_it_trains_the_articles_recipe(whole: tuple[Path, Trained]) -> None:
    """The weights are those of a trainer that is given that recipe, with the seed, and no more epochs."""
    trainer = Trainer(DATA.train.first(100), DATA.validation)

    for seed in (5, 6):
        for epochs in (1, 3):
            expected = trainer.train(Recipe(seed=seed, epochs=epochs)).build_model().get_weights()
            stored = load_model(whole[0] / model_file(seed, epochs)).get_weights()
            for ours, theirs in zip(stored, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_done_is_done(whole: tuple[Path, Trained]) -> None:
    """The same plan again trains nothing, and neither does a smaller one."""
    folder, trained = whole
    before = {one.name: one.read_bytes() for one in folder.iterdir()}

    for plan in (PLAN, dataclasses.replace(PLAN, epochs=(1,), seeds=1)):
        with open_baseline(folder, plan) as opened:
            assert (opened.unfinished(), opened.epochs_left()) == ([], 0)
        again = train(folder, plan)
        assert again.is_done
        assert again.events == []
        assert again.record.runs == trained.record.runs
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before


STOPS: dict[str, Callable[[list[BaselineEvent]], bool]] = {
    "before the first step": lambda events: True,
    "in the first epoch": lambda events: isinstance(events[-1], SeedSteps),
    "after an epoch that is not scored": lambda events: (
        isinstance(events[-1], SeedEpoch) and events[-1].result.epoch == 2
    ),
    "between an epoch and its score": lambda events: isinstance(events[-1], SeedEpoch),
    "after a score": lambda events: isinstance(events[-1], SeedScored),
    "in the second seed": lambda events: (
        isinstance(events[-1], SeedSteps) and (events[-1].seed, events[-1].epoch) == (6, 2)
    ),
}


@pytest.mark.parametrize("where", STOPS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    whole: tuple[Path, Trained], tmp_path: Path, where: str
) -> None:
    """Wherever it was told to stop, it does so at once, and ends as if it had not."""
    stopped = train(tmp_path, stop_at=STOPS[where])

    assert not stopped.is_done
    assert any(isinstance(event, SeedStarted) for event in stopped.events)
    assert train(tmp_path).is_done
    assert_equal(tmp_path, whole[0])


KILLED = """
import json, os, signal, sys
from pathlib import Path
from search.runtime import start_tensorflow
start_tensorflow()
import sample
from search.baseline.folder import BaselinePlan, open_baseline
from search.baseline.run import BaselineRun

folder, kind, seed, epoch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def emit(event):
    number = getattr(event, "epoch", None) or getattr(getattr(event, "result", None), "epoch", None)
    if (type(event).__name__, event.seed, number) == (kind, seed, epoch):
        os.kill(os.getpid(), signal.SIGKILL)

plan = BaselinePlan((1, 3), seeds=2, seed=5, train_samples=100, precision="float32")
with open_baseline(Path(folder), plan) as opened:
    BaselineRun(opened, sample.load(), {"processor": "a processor", "threads": 2}, emit, lambda: False).run()
"""


@pytest.mark.parametrize(
    ("kind", "seed", "epoch"),
    [("SeedSteps", 5, 2), ("SeedEpoch", 5, 3), ("SeedEpoch", 6, 2)],
    ids=["in an epoch", "between an epoch and its score", "in the second seed"],
)
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    whole: tuple[Path, Trained], tmp_path: Path, kind: str, seed: int, epoch: int
) -> None:
    """A kill -9 costs what its epoch had done, and the lock does not outlive the process."""
    arguments = [str(tmp_path), kind, str(seed), str(epoch)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = epoch if kind == "SeedEpoch" else epoch - 1
    state = TrainingState.from_bytes((tmp_path / state_file(seed)).read_bytes())
    assert state.epoch == done

    rest = train(tmp_path)

    assert rest.is_done
    first = next(event for event in rest.events if isinstance(event, SeedStarted))
    assert (first.seed, first.first_epoch) == (seed, done + 1)
    assert_equal(tmp_path, whole[0])


def test_more_epochs_and_more_seeds_extend_a_run(whole: tuple[Path, Trained], tmp_path: Path) -> None:
    """What is there is not trained again, and the end is that of the larger plan alone."""
    train(tmp_path, dataclasses.replace(PLAN, epochs=(1,), seeds=1))
    more = train(tmp_path, dataclasses.replace(PLAN, epochs=(1, 3), seeds=1))
    last = train(tmp_path)

    started = [event for event in (*more.events, *last.events) if isinstance(event, SeedStarted)]
    assert started == [SeedStarted(5, 2, 3), SeedStarted(6, 1, 3)]
    assert_equal(tmp_path, whole[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 4}, "seed: the run has 5, --seed gives 4"),
        ({"train_samples": 99}, "training images: the run has 100, --train-samples gives 99"),
        ({"precision": "bfloat16"}, "precision: the run has float32, --precision gives bfloat16"),
        ({"seed": 4, "train_samples": 99}, "--seed gives 4; training images"),
    ],
)
def test_other_settings_are_refused(
    whole: tuple[Path, Trained], changes: dict[str, int | str], words: str
) -> None:
    """Each difference is named; nothing is changed."""
    folder = whole[0]
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    plan = dataclasses.replace(PLAN, **changes)

    with pytest.raises(BaselineError, match="with other settings") as raised, open_baseline(folder, plan):
        pass

    assert words in str(raised.value)
    assert "--output" in str(raised.value)
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before


def test_settings_of_a_run_without_an_epoch_bind_nobody(tmp_path: Path) -> None:
    """Nothing was trained with them."""
    train(tmp_path, stop_at=STOPS["in the first epoch"])
    assert (tmp_path / RECORD).exists()

    with open_baseline(tmp_path, dataclasses.replace(PLAN, seed=4, train_samples=99)) as opened:
        assert opened.record is None
        assert opened.epochs_left() == 6


def test_auto_goes_on_in_the_precision_that_a_run_began_in(tmp_path: Path) -> None:
    """Whatever this machine would choose."""
    plan = dataclasses.replace(PLAN, seeds=1, epochs=(1,), precision="bfloat16")
    assert train(tmp_path, plan).record.settings.precision == "bfloat16"

    more = train(tmp_path, dataclasses.replace(plan, epochs=(1, 2), precision="auto"))

    assert more.record.settings.precision == "bfloat16"
    state = TrainingState.from_bytes((tmp_path / state_file(5)).read_bytes())
    assert (state.precision, state.epoch) == ("bfloat16", 2)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder in which seed 5 has two of three epochs and no score."""
    plan = dataclasses.replace(PLAN, epochs=(3,), seeds=1)
    train(tmp_path, plan, stop_at=STOPS["after an epoch that is not scored"])
    return tmp_path


def refused(folder: Path, plan: BaselinePlan = PLAN) -> str:
    """What opening the folder is refused with."""
    with pytest.raises(BaselineError) as raised, open_baseline(folder, plan):
        pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_epoch_that_is_past_cannot_be_scored(begun: Path) -> None:
    """The weights are gone; both ways out are named."""
    told = refused(begun, dataclasses.replace(PLAN, epochs=(1, 3), seeds=1))

    assert "seed 5 is at epoch 2 and was not scored at 1" in told
    assert "leave 1 out of --epochs, or delete that file" in told


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_state_is_told_and_can_be_deleted(
    whole: tuple[Path, Trained], begun: Path, damage: str
) -> None:
    """Nothing is begun anew unasked; once the file is gone, the seed is, to the same bits."""
    file = begun / state_file(5)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    changed = {"cut": content[:-1], "flipped": content, "empty": b"", "text": b"state"}[damage]
    file.write_bytes(changed)
    plan = dataclasses.replace(PLAN, epochs=(3,), seeds=1)

    told = refused(begun, plan)
    assert told.startswith(f"{file}: {len(changed)} bytes are not a trial's saved state")
    assert "delete that file to train seed 5 anew" in told
    assert file.read_bytes() == changed

    file.unlink()
    assert train(begun, plan).events[0] == SeedStarted(5, 1, 3)
    assert models_of(begun)[model_file(5, 3)] == models_of(whole[0])[model_file(5, 3)]


def test_a_state_of_another_seed_is_refused(begun: Path) -> None:
    """Such as a copied one."""
    (begun / state_file(5)).rename(begun / state_file(6))
    plan = dataclasses.replace(PLAN, epochs=(3,))

    assert f"{begun / state_file(6)}: a state of another recipe, " in refused(begun, plan)


def test_a_state_without_its_record_is_refused(begun: Path) -> None:
    """Nobody could tell what it was trained on."""
    (begun / RECORD).unlink()

    assert f"{state_file(5)} without the baseline.json that says what it is" in refused(begun)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"nonsense",
        b'{"format": 2}',
        b'{"format": 1, "settings": 3, "runs": [], "machines": [], "updated": ""}',
        b'{"format": 1, "settings": {"seed": 0, "train_samples": 1, "precision": "int8"},'
        b' "runs": [], "machines": [], "updated": ""}',
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is named, and left as it is."""
    (tmp_path / RECORD).write_bytes(content)

    told = refused(tmp_path)

    assert told.startswith(f"{tmp_path / RECORD}: {len(content)} bytes are no record of a baseline run")
    assert (tmp_path / RECORD).read_bytes() == content


def test_a_record_comes_back_as_it_was(whole: tuple[Path, Trained]) -> None:
    """Through JSON, with what else is in the file left out."""
    record = whole[1].record
    values = json.loads((whole[0] / RECORD).read_text())

    assert BaselineRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert BaselineRecord.from_dict(values) == record
    assert [row["epochs"] for row in values["results"]["rows"]] == [1, 3]
    assert [row["seeds"] for row in values["results"]["rows"]] == [2, 2]


def test_a_folder_is_one_process_at_a_time(tmp_path: Path) -> None:
    """A second one is refused before it reads anything; afterwards the folder is free."""
    with open_baseline(tmp_path, PLAN):
        assert "another process trains the baseline in" in refused(tmp_path)
    with open_baseline(tmp_path, PLAN) as opened:
        assert opened.epochs_left() == 6


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    """And nothing else that lies in the folder."""
    for name in (".baseline-seed5.state.123.partial", ".other.partial", "notes.txt"):
        (tmp_path / name).write_text("x")

    with open_baseline(tmp_path, PLAN):
        pass

    assert sorted(one.name for one in tmp_path.iterdir()) == [".other.partial", "baseline.lock", "notes.txt"]


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """A file in its way."""
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="name another folder"), open_baseline(tmp_path / "file", PLAN):
        pass


def test_a_model_that_was_changed_is_noticed(whole: tuple[Path, Trained], tmp_path: Path) -> None:
    """Or is missing; its scores are kept, for they were those of the file that was."""
    for one in whole[0].glob("*.h5"):
        (tmp_path / one.name).write_bytes(one.read_bytes())
    (tmp_path / model_file(5, 1)).write_bytes(b"another")
    (tmp_path / model_file(6, 3)).unlink()

    assert changed_models(tmp_path, whole[1].record) == [model_file(5, 1), model_file(6, 3)]


def test_another_machine_is_told_and_noted(whole: tuple[Path, Trained], tmp_path: Path) -> None:
    """Bits may change there; on the same one again nothing is said."""
    plan = dataclasses.replace(PLAN, seeds=1, epochs=(1,))
    train(tmp_path, plan)
    more = dataclasses.replace(plan, epochs=(1, 2))

    moved = train(tmp_path, more, machine={**MACHINE, "threads": 1})

    notices = [event.text for event in moved.events if isinstance(event, Notice)]
    assert len(notices) == 1
    assert notices[0].startswith("it goes on with threads 1, not 2: ")
    assert [dict(machine)["threads"] for machine in moved.record.machines] == [2, 1]
    again = train(tmp_path, dataclasses.replace(plan, epochs=(1, 2, 3)), machine=MACHINE)
    assert not any(isinstance(event, Notice) for event in again.events)
    assert len(again.record.machines) == 2


def test_a_run_that_diverges_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the seed and the epoch; what was stored before stays."""
    recipe = Recipe(learning_rate=10.0, optimizer="sgd", epochs=3, seed=5)
    monkeypatch.setattr(BaselinePlan, "recipe", lambda self, seed: recipe)
    monkeypatch.setattr("trainer.training._is_finite", lambda state: state.epoch < 2)

    with open_baseline(tmp_path, dataclasses.replace(PLAN, seeds=1)) as opened:
        run = BaselineRun(opened, DATA, MACHINE, lambda event: None, lambda: False)
        with pytest.raises(BaselineError, match=r"seed 5 diverged: .* after epoch 2"):
            run.run()

    record = read_record(tmp_path)
    assert record is not None
    assert [score.epoch for score in record.run_of(5).scores] == [1]
