"""`cnn-search train`."""

import dataclasses
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from search.cli.options import TRAIN_IMAGES, data_option, debug_option, device_options, json_option
from search.cli.terminal import complain, counted, say
from search.cli.training_words import LEAST_RATE, Outcome, announce, default_output, describe_end
from search.output import check_writable, replace_file, show_name

if TYPE_CHECKING:
    from trainer.continuation import Changes, Continuation
    from trainer.evaluation import Score
    from trainer.record import TrainingRecord
    from trainer.state import EpochResult

STORE_SECONDS: Final = 60.0
"""How often what is done so far is stored, for a process that is killed."""
MOST_THREADS: Final = 4096
"""`trainer.record.MOST_THREADS`, whose module would make `--help` wait for numpy."""


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
    type=click.FloatRange(LEAST_RATE, 10.0),
    callback=lambda _, __, rate: _check_rate(rate),
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
    type=click.IntRange(1, MOST_THREADS),
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
    the same machine a constant learning rate, or the rest of a plan that was interrupted, makes it the model
    that training in one go would have given, bit for bit. A schedule is stretched over more epochs than were
    planned, which is said. A file that Keras wrote goes on with the optimizer, its state and the loss that
    are in it. Training uses the training images; the validation images score each epoch. Ctrl-C and SIGTERM
    keep the last full epoch.
    """
    from trainer.record import read_model_bytes, read_record

    content = read_model_bytes(model)
    target = _choose_output(model, output)
    record = read_record(content, show_name(model))
    _check_epochs(record, epochs, model)
    with _terminated_as_interrupted():
        opened = _open(content, record, model, data, options)
        announce(opened, record, model, epochs, options)
        outcome = _train(opened, epochs, target)
    if outcome.done:
        stored = opened.to_h5()
        replace_file(target, stored)
        _print_result(model, target, opened, outcome.done, _score(stored, data), as_json)
    if outcome.exit_code:
        complain(describe_end(outcome, opened, target, output is not None))
    return outcome.exit_code


def _check_rate(rate: float | None) -> float | None:
    # NaN passes every range.
    if rate is not None and math.isnan(rate):
        raise click.BadParameter(f"{rate} is not a learning rate.")
    return rate


def _check_epochs(record: "TrainingRecord | None", epochs: int, model: Path) -> None:
    """See that a recipe may have so many more."""
    from trainer.limits import LIMITS
    from trainer.record import RecipePlan

    if record is None or not isinstance(record.plan, RecipePlan):
        return
    had, most = len(record.history), int(LIMITS["epochs"].high)
    if had + epochs > most:
        raise click.BadParameter(
            f"{show_name(model)} has had {had:,} epochs, and {epochs:,} more are above the {most:,} that a "
            f"recipe may have; {most - had:,} are left.",
            param_hint="'--epochs'",
        )


def _choose_output(model: Path, output: Path | None) -> Path:
    """Where the model will go, seen to be writable."""
    from search.errors import OutputError

    target = output or default_output(model)
    if output is None and target.exists():
        raise OutputError(f"{show_name(target)} exists already; name it, or another file, with --output")
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
        origin=show_name(model),
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


def _train(opened: "Continuation", epochs: int, target: Path) -> Outcome:
    """Train, with a line for each epoch."""
    begun_with = len(opened.history)
    last = len(opened.history) + epochs
    stored_at = time.monotonic()

    def tell(result: "EpochResult") -> None:
        nonlocal stored_at
        rate = f"learning rate {result.learning_rate:.3g}, " if opened.is_scheduled else ""
        say(
            f"epoch {result.epoch}/{last}: loss {result.loss:.4f}, accuracy {100 * result.accuracy:.2f} %, "
            f"validation loss {result.validation_loss:.4f}, "
            f"validation accuracy {100 * result.validation_accuracy:.2f} %, {rate}{result.seconds:.1f} s"
        )
        if time.monotonic() - stored_at >= STORE_SECONDS and result.epoch < last:
            replace_file(target, opened.to_h5())
            stored_at = time.monotonic()

    diverged, interrupted = None, False
    try:
        diverged = opened.train(epochs, tell)
    except KeyboardInterrupt:
        interrupted = True
    return Outcome(epochs, len(opened.history) - begun_with, diverged, interrupted)


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
        click.echo(f"wrote {show_name(target)}: {counted(len(opened.history), 'epoch')}, {scored}")
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


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM in the block be what Ctrl-C is."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
