"""What an `.h5` says of its own training, so that it can go on as if it had not stopped.

It is one attribute of the file, JSON, which Keras ignores. Nothing here needs Keras or TensorFlow: how many
threads a training had must be known before TensorFlow starts.
"""

import dataclasses
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import h5py
import numpy as np
import numpy.typing as npt

from trainer.cifar10 import TRAIN_IMAGES
from trainer.errors import ModelError, RecipeError
from trainer.limits import LIMITS, Limits
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.state import EngineKind, EpochResult

ATTRIBUTE: Final = "cnn_search"
"""The attribute's name, at the root of the file."""
FORMAT: Final = 1
"""Version of the JSON; a later one's is refused."""
HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
MOST_THREADS: Final = 4096
"""That a training may have: more than any machine has cores, fewer than an operating system refuses."""

_REASON_LENGTH: Final = 200
"""Of what went wrong, in characters: a damaged value may be of any length."""


@dataclass(frozen=True)
class RecipePlan:
    """How a recipe is trained: by it, and in that precision to its end; what trained the last epoch."""

    recipe: Recipe
    precision: Precision
    engine: EngineKind = "tensorflow"


@dataclass(frozen=True)
class StockPlan:
    """How a model that no recipe describes is trained, by its own optimizer and loss.

    Attributes:
        batch_size: Images a step, in [1, 10,000].
        seed: Fixes the shuffling and all random numbers of the model's layers, in [0, 2**31).
    """

    batch_size: int
    seed: int


@dataclass(frozen=True)
class TrainingRecord:
    """What a training is, besides the model's weights and the optimizer's variables.

    Attributes:
        plan: The recipe; or, for a model that came without one, how it is trained all the same.
        train_images: How many of the training images are used, the first ones, in [1, 40,000].
        threads: How many threads an operation may use, in [1, `MOST_THREADS`]. Another number adds in another
            order, and the weights differ in their last bits.
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
            case RecipePlan(recipe, precision, engine):
                plan = {"recipe": recipe.to_dict(), "precision": precision, "engine": engine}
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
                    _brief(
                        f"its training is told in format {values['format']!r}, not {FORMAT}, which is known"
                    )
                )
            return cls(
                _read_plan(values),
                _read_whole(values, "train_images", Limits(int, 1, TRAIN_IMAGES)),
                _read_whole(values, "threads", Limits(int, 1, MOST_THREADS)),
                tuple(_read_epoch(result, number) for number, result in enumerate(values["history"], 1)),
            )
        except RecipeError as error:
            raise ModelError(_brief(f"the record of its training is damaged: {error}")) from error
        # RecursionError: JSON that is nested without end.
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(_brief(f"the record of its training is damaged: {reason}")) from error


def read_model_bytes(path: Path) -> bytes:
    """The content of an `.h5` file.

    Raises:
        ModelError: The file is missing, cannot be read, or is no HDF5 file.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path}: a folder; name the .h5 file in it")
        with path.open("rb") as file:
            if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
                raise ModelError(f"{path}: not an .h5 model; give a file that `cnn-search best` wrote")
            return HDF5_SIGNATURE + file.read()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; `cnn-search best --output best.h5` writes one") from error
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
        raise ModelError(_brief(f"{origin}: a damaged HDF5 file: {_reason(error)}")) from error
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
        ModelError: There is no optimizer in the file, or a damaged one.
    """
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            group = file.get("optimizer_weights")
            if group is None:
                raise ModelError(
                    f"{origin}: the model was saved without its optimizer; compile it, then save it"
                )
            return {name: np.asarray(group[name][()]) for name in _read_names(group)}
    except ModelError:
        raise
    # As in `read_record`; and what is no group, array or name where one should be.
    except Exception as error:
        raise ModelError(_brief(f"{origin}: the optimizer in it is damaged: {_reason(error)}")) from error


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
    names = [name.decode() if isinstance(name, bytes) else name for piece in pieces for name in piece]
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError("`weight_names`, the list of its arrays, is missing or holds no names")
    return names


def _read_plan(values: Mapping[str, Any]) -> RecipePlan | StockPlan:
    if "recipe" not in values:
        stock = values["stock"]
        return StockPlan(*(_read_whole(stock, name, LIMITS[name]) for name in ("batch_size", "seed")))
    if values["precision"] not in get_args(Precision):
        raise ModelError(_brief(f"it was trained in unknown precision {values['precision']!r}"))
    # Files of before there was another kind do not say it.
    engine = values.get("engine", "tensorflow")
    if engine not in get_args(EngineKind):
        raise ModelError(_brief(f"it was trained by an unknown kind of engine {engine!r}"))
    return RecipePlan(Recipe.from_dict(values["recipe"]), values["precision"], engine)


def _read_whole(values: Mapping[str, Any], name: str, limits: Limits) -> int:
    value = values[name]
    if type(value) is not int or not limits.low <= value <= limits.high:
        raise ValueError(f"{name} must be {limits}, got {value!r}")
    return value


def _read_epoch(values: Mapping[str, Any], number: int) -> EpochResult:
    """The result that is told of epoch `number`."""
    result = EpochResult(**values)
    if type(result.epoch) is not int or result.epoch != number:
        raise ValueError(f"epoch {result.epoch!r} where {number} is due")
    for name, value in values.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{name} of epoch {number} must be a number, got {value!r}")
    return result


def _reason(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _brief(text: str) -> str:
    """One line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= _REASON_LENGTH else f"{line[:_REASON_LENGTH]}..."
