"""The article's recipe trained as the article did it: a run for each seed, scored on the test set on the way.

Validation chooses between recipes. Here is nothing to choose, so the test set may be looked at as often as
the article did.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from search.baseline.record import (
    RECORD,
    BaselineRecord,
    BaselineSettings,
    SeedRun,
    read_record,
)
from search.errors import BaselineError
from search.output import make_writable
from trainer.recipe import ARTICLE, Recipe
from trainer.state import StateError, TrainingState

LOCK: Final = "baseline.lock"
"""Held while a process works on the folder."""


@dataclass(frozen=True)
class BaselinePlan:
    """What to train.

    Attributes:
        epochs: After which to score, ascending, each once, at least one; the last one ends a run.
        seeds: How many runs, at least 1.
        seed: The first one's; the others follow it one by one.
        train_samples: How many training images, the first of them.
        precision: One of `trainer.precision.WISHES`; "auto" goes on in the precision that a run began in.
    """

    epochs: tuple[int, ...]
    seeds: int
    seed: int
    train_samples: int
    precision: str = "auto"

    def all_seeds(self) -> range:
        """The seeds, ascending."""
        return range(self.seed, self.seed + self.seeds)

    def recipe(self, seed: int) -> Recipe:
        """The article's recipe with that seed, to the last of the epochs."""
        return dataclasses.replace(ARTICLE, seed=seed, epochs=self.epochs[-1])


@dataclass(frozen=True)
class BaselineFolder:
    """A folder that this process alone works on, and what was found in it.

    Attributes:
        path: The folder.
        plan: What to train there.
        record: What was done before, None for a new run.
        states: Where the runs of the plan's seeds go on from, by seed; none for those that begin, and for
            those that have all their scores.
    """

    path: Path
    plan: BaselinePlan
    record: BaselineRecord | None
    states: Mapping[int, TrainingState]

    def epochs_left(self) -> int:
        """How many epochs are still to be trained, over all seeds."""
        last = self.plan.epochs[-1]
        begun = sum(last - max(state.epoch, 0) for state in self.states.values())
        return begun + last * sum(seed not in self.states for seed in self.unfinished())

    def unfinished(self) -> list[int]:
        """The seeds that lack a score."""
        return [seed for seed in self.plan.all_seeds() if self.run_of(seed).lacks(self.plan.epochs)]

    def run_of(self, seed: int) -> SeedRun:
        """What was done before for that seed."""
        return SeedRun(seed) if self.record is None else self.record.run_of(seed)


def state_file(seed: int) -> str:
    """The name of the file that the run of `seed` goes on from."""
    return f"baseline-seed{seed}.state"


def model_file(seed: int, epoch: int) -> str:
    """The name of the model of `seed` after `epoch` epochs."""
    return f"baseline-seed{seed}-{epoch}.h5"


@contextmanager
def open_baseline(path: Path, plan: BaselinePlan) -> Iterator[BaselineFolder]:
    """Hold a folder against other processes, and read what it holds; it is created if need be.

    Nothing in it is changed but what a killed process left half written.

    Raises:
        OutputError: The folder cannot be created or written to.
        BaselineError: Another process works on it; it holds a run with other settings, or one that is past an
            epoch to be scored; or what it holds is damaged.
    """
    make_writable(path)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BaselineError(
            f"another process trains the baseline in {path}; wait for it, or name another folder with "
            "--output"
        ) from None
    try:
        for left in path.glob(".baseline*.partial"):
            left.unlink(missing_ok=True)
        yield _read(path, plan)
    finally:
        lock.release()


def _read(path: Path, plan: BaselinePlan) -> BaselineFolder:
    record = read_record(path)
    strays = sorted(one.name for one in path.glob("baseline-seed*.state"))
    if record is not None and not record.runs and not strays:
        # It ended before its first epoch did: no settings are worth keeping to.
        return BaselineFolder(path, plan, None, {})
    if record is None:
        if strays:
            raise BaselineError(
                f"{path} holds {strays[0]} without the {RECORD} that says what it is; "
                "delete it to begin anew, or name another folder with --output"
            )
        return BaselineFolder(path, plan, None, {})
    check_settings(record.settings, plan, path)
    states = {}
    for seed in plan.all_seeds():
        state = _read_state(path, plan, record, seed)
        if state is not None:
            states[seed] = state
    return BaselineFolder(path, plan, record, states)


def check_settings(settings: BaselineSettings, plan: BaselinePlan, path: Path) -> None:
    """Refuse to go on with a run of other settings.

    Raises:
        BaselineError: It names each difference.
    """
    pairs: list[tuple[str, str, Any, Any]] = [
        ("seed", "--seed", settings.seed, plan.seed),
        ("training images", "--train-samples", settings.train_samples, plan.train_samples),
    ]
    if plan.precision != "auto":
        pairs.append(("precision", "--precision", settings.precision, plan.precision))
    differences = [
        f"{name}: the run has {theirs}, {option} gives {ours}"
        for name, option, theirs, ours in pairs
        if theirs != ours
    ]
    if differences:
        raise BaselineError(
            f"{path} holds a run with other settings: {'; '.join(differences)}; "
            "give the same, or name another folder with --output"
        )


def _read_state(path: Path, plan: BaselinePlan, record: BaselineRecord, seed: int) -> TrainingState | None:
    """Where the run of `seed` goes on from; None where it begins, or lacks no score."""
    lacking = record.run_of(seed).lacks(plan.epochs)
    if not lacking:
        return None
    file = path / state_file(seed)
    anew = f"delete that file to train seed {seed} anew"
    try:
        state = TrainingState.from_bytes(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BaselineError(f"{file}: cannot be read: {error.strerror}") from error
    except StateError as error:
        raise BaselineError(f"{file}: {error}; {anew}") from error
    recipe = plan.recipe(seed)
    if dataclasses.replace(state.recipe, epochs=recipe.epochs) != recipe:
        raise BaselineError(f"{file}: a state of another recipe, {state.recipe}; {anew}")
    if state.precision != record.settings.precision:
        raise BaselineError(
            f"{file}: a state in {state.precision}, and the run is in {record.settings.precision}; {anew}"
        )
    if state.epoch > lacking[0]:
        raise BaselineError(
            f"{file}: seed {seed} is at epoch {state.epoch} and was not scored at {lacking[0]}; "
            f"leave {lacking[0]} out of --epochs, or {anew}"
        )
    # A constant learning rate: the number of epochs is nothing but the end.
    return dataclasses.replace(state, recipe=recipe)


def changed_models(path: Path, record: BaselineRecord) -> list[str]:
    """The names of scored models that are missing from the folder, or are not what was scored."""
    changed = []
    for run in record.runs:
        for score in run.scores:
            file = path / score.file
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != score.sha256:
                changed.append(score.file)
    return changed
