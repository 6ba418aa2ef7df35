"""`cnn-search train`."""

import dataclasses
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from search.cli.options import TRAIN_IMAGES, data_option, debug_option, device_options, json_option
from search.cli.run import INTERRUPTED
from search.cli.terminal import complain, format_options, program_name, say
from search.output import check_writable, replace_file

if TYPE_CHECKING:
    from trainer.continuation import Changes, Continuation
    from trainer.evaluation import Score
    from trainer.record import TrainingRecord
    from trainer.state import EpochResult

STORE_SECONDS: Final = 60.0
"""How often what is done so far is stored, for a process that is killed."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--epochs",
    type=click.IntRange(1, 10_000),
    required=True,
    help="How many more, beyond those that it has had.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where the model goes, in place of what is there. [default: MODEL-continued.h5, if that is new]",
)
@data_option
@click.option(
    "--learning-rate",
    type=click.FloatRange(1e-8, 10.0),
    help="Go on with another step size. [default: the file's]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 10_000),
    help="Go on with so many images a step. [default: the file's; 64 where it tells none]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    help="Shuffle and drop out otherwise. [default: the file's; 0 where it tells none]",
)
@click.option(
    "--train-samples",
    type=click.IntRange(1, TRAIN_IMAGES),
    help="Train on the first so many images. [default: the file's; all 40000 where it tells none]",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads to train with. [default: the file's; one for each core where it tells none]",
)
@device_options
@json_option
@debug_option
def train(
    model: Path, epochs: int, output: Path | None, data: Path | None, as_json: bool, **options: Any
) -> int:
    """Train the model in the file MODEL (.h5) further, as if it had not stopped.

    A file of this program tells how it was trained (recipe, seed, epochs, precision, images, threads): on
    the same machine the model becomes the one that training in one go would have given, bit for bit. A file
    that Keras wrote goes on with the optimizer, its state and the loss that are in it. Training uses the
    training images; the validation images score each epoch. Ctrl-C and SIGTERM keep the last full epoch.
    """
    from trainer.record import read_model_bytes, read_record

    target = _choose_output(model, output)
    content = read_model_bytes(model)
    record = read_record(content, str(model))
    with _terminated_as_interrupted():
        opened = _open(content, record, model, data, options)
        begun_with = len(opened.history)
        say(f"{model}: {_describe_start(record)}; training {epochs} more")
        for line in _describe_assumptions(record, options):
            say(f"  {line}")
        diverged, interrupted = _train(opened, epochs, target)
    done = len(opened.history) - begun_with
    if not done:
        complain(f"{_why(diverged)}; no epoch is full, so nothing was written")
        return INTERRUPTED if interrupted else 1
    stored = opened.to_h5()
    replace_file(target, stored)
    _print_result(model, target, opened, done, _score(stored, data), as_json)
    if interrupted or diverged is not None:
        left = epochs - done
        rest = (
            f"; {program_name()} train {target}{format_options({'--epochs': left})} goes on" if left else ""
        )
        complain(f"{_why(diverged)} after {done} of {epochs} epochs, which {target} has{rest}")
        return INTERRUPTED if interrupted else 1
    return 0


def _choose_output(model: Path, output: Path | None) -> Path:
    """Where the model will go, seen to be writable."""
    from search.errors import OutputError

    target = output or model.with_name(f"{model.stem}-continued.h5")
    if output is None and target.exists():
        raise OutputError(f"{target} exists already; name it, or another file, with --output")
    check_writable(target)
    return target


def _open(
    content: bytes, record: "TrainingRecord | None", model: Path, data: Path | None, options: dict[str, Any]
) -> "Continuation":
    """The training, ready to go on, on the device that it is to go on on."""
    from search.device import DeviceWish, take_device
    from search.events import Notice
    from search.runtime import start_tensorflow

    threads = options["threads"] or (None if record is None else record.threads)
    names = ("device", "allow_cpu", "workers_per_gpu", "locks")
    wish = DeviceWish(**{name: options[name] for name in names})
    precision = getattr(record.plan, "precision", "float32") if record is not None else "float32"

    def tell(event: object) -> None:
        if isinstance(event, Notice):
            say(f"  {event.text}")

    device = take_device(wish, precision, tell, lambda: False)
    start_tensorflow(threads, None if device is None else device.visible)
    from trainer.continuation import continue_from
    from trainer.data import load

    return continue_from(
        content,
        record,
        load(data),
        _read_changes(options),
        origin=str(model),
        jit_compile=device is not None and device.jit_compile,
    )


def _read_changes(options: dict[str, Any]) -> "Changes":
    from trainer.continuation import Changes

    return Changes(
        batch_size=options["batch_size"],
        seed=options["seed"],
        learning_rate=options["learning_rate"],
        train_images=options["train_samples"],
    )


def _train(opened: "Continuation", epochs: int, target: Path) -> tuple[int | None, bool]:
    """Train, with a line for each epoch.

    Returns:
        The epoch that left the numbers, if one did, and whether somebody interrupted.
    """
    last = len(opened.history) + epochs
    stored_at = time.monotonic()

    def tell(result: "EpochResult") -> None:
        nonlocal stored_at
        say(
            f"epoch {result.epoch}/{last}: loss {result.loss:.4f}, accuracy {100 * result.accuracy:.2f} %, "
            f"validation loss {result.validation_loss:.4f}, "
            f"validation accuracy {100 * result.validation_accuracy:.2f} %, {result.seconds:.1f} s"
        )
        if time.monotonic() - stored_at >= STORE_SECONDS and result.epoch < last:
            replace_file(target, opened.to_h5())
            stored_at = time.monotonic()

    try:
        return opened.train(epochs, tell), False
    except KeyboardInterrupt:
        return None, True


def _score(stored: bytes, data: Path | None) -> "Score":
    """The validation score, in float32, of exactly what is stored."""
    from trainer.data import load
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator
    from trainer.model_file import model_from_bytes

    return Evaluator(DeviceSplit.of(load(data).validation)).score(model_from_bytes(stored))


def _print_result(
    model: Path, target: Path, opened: "Continuation", done: int, score: "Score", as_json: bool
) -> None:
    if not as_json:
        scored = f"validation accuracy {100 * score.accuracy:.2f} %, loss {score.loss:.4f}"
        click.echo(f"wrote {target}: {len(opened.history)} epochs, {scored}")
        return
    result = {
        "model": str(model),
        "output": str(target),
        "epochs": len(opened.history),
        "epochs_now": done,
        "accuracy": score.accuracy,
        "loss": score.loss,
        "history": [dataclasses.asdict(one) for one in opened.history],
    }
    click.echo(json.dumps(result, indent=2))


def _describe_start(record: "TrainingRecord | None") -> str:
    """What the file has had, in a few words."""
    from trainer.record import RecipePlan

    if record is None:
        return "its training is not recorded"
    if isinstance(record.plan, RecipePlan):
        recipe = record.plan.recipe
        return (
            f"{len(record.history)} epochs so far by {recipe.optimizer} at learning rate "
            f"{recipe.learning_rate:g}, in {record.plan.precision}"
        )
    return f"{len(record.history)} epochs since it came from elsewhere"


def _describe_assumptions(record: "TrainingRecord | None", options: dict[str, Any]) -> list[str]:
    """What is not as if the training had not stopped."""
    names = {"learning_rate": "learning rate", "batch_size": "batch size", "seed": "seed"}
    names |= {"train_samples": "training images", "threads": "threads"}
    if record is None:
        size, seed = options["batch_size"] or 64, options["seed"] or 0
        return [
            f"assumed: batches of {size}, seed {seed}; epochs are counted from here; "
            "its own optimizer, state and loss go on"
        ]
    given = [f"{names[name]} {options[name]}" for name in names if options[name] is not None]
    if not given:
        return []
    return [f"with {', '.join(given)} as asked for: not exactly the training that stopped, if that differs"]


def _why(diverged: int | None) -> str:
    return "interrupted" if diverged is None else f"epoch {diverged} diverged (a loss or weight is no number)"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM in the block be what Ctrl-C is."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
