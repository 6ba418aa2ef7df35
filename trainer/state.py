"""The state of a running trial, as a plain value: what it needs to go on, and what it did so far."""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from trainer.errors import TrainerError
from trainer.optimizer import initial_variables
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.weights import initial_weights, weights_of

EngineKind = Literal["tensorflow", "packed"]
"""What trains: `trainer.engine`, a trial at a time, or `trainer.packed`, several in a program."""

FORMAT: Final = 2
"""Version of the bytes; another version's are refused."""
DIGEST_BYTES: Final = hashlib.sha256().digest_size
"""Length of the SHA-256 that the bytes begin with. The zip's own checksums miss damage to its directory."""


class StateError(TrainerError):
    """Bytes are not the saved state of a trial."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: Counted from 1.
        loss: Mean cross-entropy over the epoch's training images, dropout on.
        accuracy: Share of training images classified rightly, in [0, 1], dropout on.
        validation_loss: Mean cross-entropy over the validation images.
        validation_accuracy: In [0, 1].
        learning_rate: What the epoch's steps used.
        seconds: Wall time of the epoch, validation included.
    """

    epoch: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A trial at the end of an epoch.

    Shuffling and dropout are functions of the recipe's seed, the epoch and the step, so that nothing else is
    needed to go on exactly as if the trial had not stopped, in the same kind of engine. The two kinds draw
    other numbers from a seed: a state goes on in the other kind too, from the same weights and moments, but
    not to where its own kind would have come.

    Attributes:
        recipe: What is trained.
        precision: What it is trained in, to its end: in another one it would go on to other weights.
        weights: The model's weights, float32, in Keras's order.
        optimizer: The optimizer's variables (step counter, learning rate, moments), in Keras's order.
        history: One result for each epoch so far.
        engine: What trained the last epoch, or is to train the first.
    """

    recipe: Recipe
    precision: Precision
    weights: tuple[npt.NDArray[Any], ...]
    optimizer: tuple[npt.NDArray[Any], ...]
    history: tuple[EpochResult, ...] = ()
    engine: EngineKind = "tensorflow"

    @classmethod
    def begin(
        cls, recipe: Recipe, precision: Precision, engine: EngineKind = "tensorflow"
    ) -> "TrainingState":
        """The state before epoch 1, the same for both kinds of engine but for its name."""
        weights = tuple(initial_weights(recipe.architecture, recipe.seed))
        return cls(recipe, precision, weights, initial_variables(recipe), engine=engine)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def check_recipe(self, recipe: Recipe) -> None:
        """See that the state is one of that recipe.

        Raises:
            StateError: It is another's.
        """
        if self.recipe != recipe:
            raise StateError(f"the state is one of {self.recipe}, and cannot go on as {recipe}")

    def check(self) -> None:
        """See that the arrays are those of the recipe's network and optimizer.

        Raises:
            StateError: They are not, in number, shape or type.
        """
        weights = [(weight.shape, "float32") for weight in weights_of(self.recipe.architecture)]
        variables = [_describe(array) for array in initial_variables(self.recipe)]
        for what, arrays, want in (
            ("weights", self.weights, weights),
            ("variables of the optimizer", self.optimizer, variables),
        ):
            have = [_describe(array) for array in arrays]
            if have != want:
                raise StateError(
                    f"the saved {what} are not those of this version's network: {have}, expected {want}"
                )

    def to_bytes(self) -> bytes:
        """The state as bytes that `from_bytes` reads on any machine."""
        header = {
            "format": FORMAT,
            "recipe": self.recipe.to_dict(),
            "precision": self.precision,
            "weights": len(self.weights),
            "history": [dataclasses.asdict(result) for result in self.history],
            "engine": self.engine,
        }
        file = io.BytesIO()
        arrays = [np.frombuffer(json.dumps(header).encode(), np.uint8), *self.weights, *self.optimizer]
        np.savez(file, *arrays)
        archive = file.getvalue()
        return hashlib.sha256(archive).digest() + archive

    @classmethod
    def from_bytes(cls, content: bytes) -> "TrainingState":
        """The state that `to_bytes` wrote.

        Raises:
            StateError: The bytes are damaged, or of another version.
        """
        digest, archive = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(archive).digest() != digest:
            raise StateError(f"{len(content)} bytes are not a trial's saved state, or a damaged one")
        try:
            with np.load(io.BytesIO(archive), allow_pickle=False) as file:
                arrays = [file[f"arr_{index}"] for index in range(len(file.files))]
            header = json.loads(arrays[0].tobytes())
            if header["format"] != FORMAT:
                raise StateError(f"a saved state of format {header['format']}; this version reads {FORMAT}")
            if header["precision"] not in get_args(Precision):
                raise StateError(f"a saved state in unknown precision {header['precision']!r}")
            # States of before there was another kind do not say it.
            engine = header.get("engine", "tensorflow")
            if engine not in get_args(EngineKind):
                raise StateError(f"a saved state of the unknown kind of engine {engine!r}")
            split = 1 + header["weights"]
            return cls(
                Recipe.from_dict(header["recipe"]),
                header["precision"],
                tuple(arrays[1:split]),
                tuple(arrays[split:]),
                tuple(EpochResult(**result) for result in header["history"]),
                engine,
            )
        # The bytes are whole, so these come from another program's content.
        except (ValueError, KeyError, TypeError, IndexError, EOFError) as error:
            raise StateError(f"{len(content)} bytes are not a trial's saved state: {error}") from error


def _describe(array: npt.NDArray[Any]) -> tuple[tuple[int, ...], str]:
    return array.shape, array.dtype.name


def history_to_csv(history: Sequence[EpochResult]) -> str:
    """The history as CSV: a header, then a line for each epoch."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(EpochResult))
    writer.writerows(dataclasses.astuple(result) for result in history)
    return file.getvalue()
