"""What an `.h5` says of its own training, so that it can go on as if it had not stopped.

It is one attribute of the file, JSON, which Keras ignores. Nothing here needs Keras or TensorFlow: how many
threads a training had must be known before TensorFlow starts.
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import h5py
import numpy as np
import numpy.typing as npt

from trainer.errors import ModelError, RecipeError
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.state import EpochResult

ATTRIBUTE: Final = "cnn_search"
"""The attribute's name, at the root of the file."""
FORMAT: Final = 1
"""Version of the JSON; a later one's is refused."""
HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class RecipePlan:
    """How a recipe is trained: by it, and in that precision to its end."""

    recipe: Recipe
    precision: Precision


@dataclass(frozen=True)
class StockPlan:
    """How a model that no recipe describes is trained, by its own optimizer and loss.

    Attributes:
        batch_size: Images a step, at least 1.
        seed: Fixes the shuffling and all random numbers of the model's layers.
    """

    batch_size: int
    seed: int


@dataclass(frozen=True)
class TrainingRecord:
    """What a training is, besides the model's weights and the optimizer's variables.

    Attributes:
        plan: The recipe; or, for a model that came without one, how it is trained all the same.
        train_images: How many of the training images are used, the first ones.
        threads: How many threads an operation may use. Another number adds in another order, and the weights
            differ in their last bits.
        history: One result for each epoch so far; for a model that came without a record, since it came.
    """

    plan: RecipePlan | StockPlan
    train_images: int
    threads: int
    history: tuple[EpochResult, ...]

    def to_json(self) -> str:
        """The record as text that `from_json` reads."""
        plan: dict[str, Any]
        match self.plan:
            case RecipePlan(recipe, precision):
                plan = {"recipe": recipe.to_dict(), "precision": precision}
            case StockPlan():
                plan = {"stock": dataclasses.asdict(self.plan)}
        return json.dumps(
            {
                "format": FORMAT,
                **plan,
                "train_images": self.train_images,
                "threads": self.threads,
                "history": [dataclasses.asdict(result) for result in self.history],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "TrainingRecord":
        """The record that `to_json` wrote.

        Raises:
            ModelError: It is damaged, or a later version's.
        """
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise ModelError(
                    f"its training is told in format {values['format']!r}, and this version reads {FORMAT}"
                )
            plan = _read_plan(values)
            history = tuple(EpochResult(**result) for result in values["history"])
            train_images, threads = int(values["train_images"]), int(values["threads"])
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, RecipeError) else f"{type(error).__name__}: {error}"
            raise ModelError(f"the record of its training is damaged: {reason}") from error
        if train_images < 1 or threads < 1 or [one.epoch for one in history] != _count(history):
            raise ModelError(
                f"the record of its training is damaged: {train_images} images, {threads} threads, "
                f"epochs {[one.epoch for one in history]}"
            )
        return cls(plan, train_images, threads, history)


def read_model_bytes(path: Path) -> bytes:
    """The content of an `.h5` file.

    Raises:
        ModelError: The file is missing, cannot be read, or is no HDF5 file.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; `cnn-search best --output best.h5` writes one")
    try:
        with path.open("rb") as file:
            if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
                raise ModelError(f"{path}: not an .h5 model; give a file that `cnn-search best` wrote")
            return HDF5_SIGNATURE + file.read()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def read_record(content: bytes, origin: str = "stored model") -> TrainingRecord | None:
    """What the bytes of an `.h5` file say of the model's training; None where they say nothing.

    Args:
        content: The file.
        origin: Names it in errors.

    Raises:
        ModelError: The file, or the record in it, is damaged.
    """
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            text = file.attrs.get(ATTRIBUTE)
    # h5py raises whatever it stumbles over: OSError, RuntimeError and KeyError were seen.
    except Exception as error:
        raise ModelError(f"{origin}: a damaged HDF5 file: {str(error).splitlines()[0][:200]}") from error
    if text is None:
        return None
    try:
        return TrainingRecord.from_json(str(text))
    except ModelError as error:
        raise ModelError(f"{origin}: {error}") from error


def read_optimizer(content: bytes, origin: str = "stored model") -> dict[str, npt.NDArray[Any]]:
    """The variables of the optimizer in the bytes of an `.h5` file: by their paths, in Keras's order.

    Keras's own reader cannot be used: it gives them to an optimizer that is not built yet (Keras 3.15).

    Raises:
        ModelError: There is no optimizer in the file.
    """
    with h5py.File(io.BytesIO(content), "r") as file:
        group = file.get("optimizer_weights")
        if group is None:
            raise ModelError(f"{origin}: the model was saved without its optimizer; compile it, then save it")
        names = _read_names(group)
        return {name: np.asarray(group[name][()]) for name in names}


def write_record(path: Path, record: TrainingRecord) -> None:
    """Add the record to an `.h5` file that Keras wrote."""
    with h5py.File(path, "a") as file:
        # As text of variable length it lies outside the header, whose 64 kB a long history would exceed.
        file.attrs[ATTRIBUTE] = record.to_json()


def _read_names(group: Any) -> list[str]:
    """The attribute `weight_names`, which Keras cuts in pieces where it is long."""
    pieces = [group.attrs["weight_names"]] if "weight_names" in group.attrs else []
    while (name := f"weight_names{len(pieces)}") in group.attrs:
        pieces.append(group.attrs[name])
    return [name.decode() if isinstance(name, bytes) else str(name) for piece in pieces for name in piece]


def _read_plan(values: Mapping[str, Any]) -> RecipePlan | StockPlan:
    if "recipe" not in values:
        stock = values["stock"]
        return StockPlan(int(stock["batch_size"]), int(stock["seed"]))
    if values["precision"] not in get_args(Precision):
        raise ModelError(f"it was trained in unknown precision {values['precision']!r}")
    return RecipePlan(Recipe.from_dict(values["recipe"]), values["precision"])


def _count(history: tuple[EpochResult, ...]) -> list[int]:
    return list(range(1, len(history) + 1))
