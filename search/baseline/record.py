"""What a baseline run wrote down so far, as a value and as the file `baseline.json`."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

from search.errors import BaselineError
from search.output import replace_file
from trainer.precision import Precision
from trainer.state import EpochResult

RECORD: Final = "baseline.json"
FORMAT: Final = 1
"""Version of the record; another version's is refused."""


@dataclass(frozen=True)
class BaselineSettings:
    """What must stay as it is for a run to go on.

    Attributes:
        seed: The first of the seeds; the others follow it one by one.
        train_samples: How many training images, the first of them.
        precision: What it is trained in.
    """

    seed: int
    train_samples: int
    precision: Precision


@dataclass(frozen=True)
class SplitScore:
    """A model's score on one split: mean cross-entropy, accuracy in [0, 1], and of how many images."""

    loss: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class ModelScore:
    """The scores of one stored model, in float32.

    Attributes:
        epoch: After which it was stored, from 1.
        test: On the test images.
        validation: On the validation images.
        file: Its name in the run's folder.
        sha256: Of the file's bytes, in hexadecimal.
    """

    epoch: int
    test: SplitScore
    validation: SplitScore
    file: str
    sha256: str


@dataclass(frozen=True)
class SeedRun:
    """The run of one seed so far.

    Attributes:
        seed: The recipe's.
        history: One result for each epoch; the state that is stored beside may be some epochs ahead.
        scores: By epoch, ascending.
    """

    seed: int
    history: tuple[EpochResult, ...] = ()
    scores: tuple[ModelScore, ...] = ()

    def score_at(self, epoch: int) -> ModelScore | None:
        """The score after that epoch, None where there is none."""
        return next((score for score in self.scores if score.epoch == epoch), None)

    def lacks(self, epochs: Iterable[int]) -> list[int]:
        """Which of `epochs` have no score yet, ascending."""
        return sorted(set(epochs) - {score.epoch for score in self.scores})


@dataclass(frozen=True)
class BaselineRecord:
    """A whole baseline run.

    Attributes:
        settings: What it was begun with.
        runs: One for each seed that has begun, ascending.
        machines: What it ran on, each once, in order; with more than one it may not repeat bit for bit.
        updated: When it was written last, in UTC, ISO 8601 to the second; empty before that.
    """

    settings: BaselineSettings
    runs: tuple[SeedRun, ...] = ()
    machines: tuple[Mapping[str, str | int], ...] = ()
    updated: str = ""

    def run_of(self, seed: int) -> SeedRun:
        """The run of that seed, an empty one where it has not begun."""
        return next((run for run in self.runs if run.seed == seed), SeedRun(seed))

    def with_run(self, run: SeedRun) -> "BaselineRecord":
        """This record with that run in place of the seed's former one."""
        runs = sorted([*(one for one in self.runs if one.seed != run.seed), run], key=lambda one: one.seed)
        return dataclasses.replace(self, runs=tuple(runs))

    def on_machine(self, machine: Mapping[str, str | int]) -> "BaselineRecord":
        """This record with that machine among those that it ran on."""
        if machine in self.machines:
            return self
        return dataclasses.replace(self, machines=(*self.machines, machine))

    def epochs(self) -> list[int]:
        """The epochs at which any seed is scored, ascending."""
        return sorted({score.epoch for run in self.runs for score in run.scores})

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BaselineRecord":
        """The record that `to_dict` gave; what else is in `values` is left out.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: It is none.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}, and this version reads {FORMAT}")
        settings = BaselineSettings(**values["settings"])
        if settings.precision not in get_args(Precision):
            raise ValueError(f"unknown precision {settings.precision!r}")
        runs = [
            SeedRun(
                run["seed"],
                tuple(EpochResult(**result) for result in run["history"]),
                tuple(_read_score(score) for score in run["scores"]),
            )
            for run in values["runs"]
        ]
        return cls(settings, tuple(runs), tuple(map(dict, values["machines"])), str(values["updated"]))


def read_record(folder: Path) -> BaselineRecord | None:
    """The record in `folder`, None where there is none.

    Raises:
        BaselineError: It is damaged, or another program's.
    """
    path = folder / RECORD
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BaselineError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return BaselineRecord.from_dict(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise BaselineError(
            f"{path}: {len(content)} bytes are no record of a baseline run: {reason}; "
            "name another folder with --output, or delete this one to begin anew"
        ) from error


def write_record(folder: Path, record: BaselineRecord, results: Mapping[str, Any]) -> BaselineRecord:
    """Write the record, with `results` for readers beside it; gives it as it was written.

    Raises:
        OutputError: It cannot be written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    written = dataclasses.replace(record, updated=now)
    text = json.dumps({**written.to_dict(), "results": results}, indent=1)
    replace_file(folder / RECORD, f"{text}\n".encode())
    return written


def _read_score(values: Mapping[str, Any]) -> ModelScore:
    test, validation = SplitScore(**values["test"]), SplitScore(**values["validation"])
    if not all(map(math.isfinite, (test.loss, test.accuracy, validation.loss, validation.accuracy))):
        raise ValueError(f"a score of epoch {values['epoch']} is no number")
    return ModelScore(values["epoch"], test, validation, str(values["file"]), str(values["sha256"]))
