"""`cnn-search baseline`."""

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from search.cli.local_fleet import INTERRUPTED
from search.cli.options import (
    TRAIN_IMAGES,
    data_option,
    debug_option,
    device_options,
    json_option,
    precision_option,
)
from search.cli.terminal import complain, make_console, say, show
from search.cli.worker import StopRequest

if TYPE_CHECKING:
    from search.baseline.folder import BaselineFolder
    from search.baseline.record import BaselineRecord
    from search.device import Device

MOST_EPOCHS: Final = 10_000
MOST_SEED: Final = 2**31 - 1
"""`trainer.recipe.LIMITS` has both, in a module that `--help` need not wait for."""


def _read_epochs(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    """The whole numbers in `text`, ascending."""
    epochs = []
    for part in text.split(","):
        # int takes underscores, signs and other scripts' digits too.
        if not (part.strip().isascii() and part.strip().isdigit() and 1 <= int(part) <= MOST_EPOCHS):
            raise click.BadParameter(
                f"{text!r}: {part.strip()!r} is not a whole number from 1 to {MOST_EPOCHS}; "
                "give numbers with commas between them, such as 100,150,200."
            )
        epochs.append(int(part))
    twice = next((epoch for epoch in epochs if epochs.count(epoch) > 1), None)
    if twice is not None:
        raise click.BadParameter(f"{text!r} has {twice} more than once; give it once.")
    return tuple(sorted(epochs))


@click.command()
@click.option(
    "--epochs",
    metavar="E,...",
    default="100",
    show_default=True,
    callback=_read_epochs,
    help="Train to the largest of these, and score on the test images after each; the article has "
    "100,150,200.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many runs, each with a seed of its own.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, MOST_SEED),
    default=0,
    show_default=True,
    help="The first run's seed; the others' follow it.",
)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("baseline"),
    show_default=True,
    help="Where models, curves, figures, and the state to go on from are kept.",
)
@data_option
@click.option(
    "--train-samples",
    type=click.IntRange(1, TRAIN_IMAGES),
    default=TRAIN_IMAGES,
    help="Train on the first so many images, for a quick look. [default: all 40000]",
)
@precision_option
@click.option("--threads", type=click.IntRange(1), help="Threads to train with. [default: one for each core]")
@device_options
@click.option("--summary", is_flag=True, help="Print the model layer by layer, and train nothing.")
@json_option
@debug_option
def baseline(
    epochs: tuple[int, ...],
    seeds: int,
    seed: int,
    output: Path,
    data: Path | None,
    train_samples: int,
    precision: str,
    threads: int | None,
    summary: bool,
    as_json: bool,
    **device: Any,
) -> int:
    """Train the article's own recipe, and compare it with what the article reports.

    One run for each seed, scored on the validation images and, as in the article, on the test images: nothing
    is chosen here that they could flatter. Ctrl-C and even kill -9 cost an epoch at most: the same command
    goes on, bit for bit on the same machine. More epochs or seeds extend what is there.
    """
    if summary:
        _print_summary()
        return 0
    if seed + seeds - 1 > MOST_SEED:
        raise click.BadParameter(
            f"{seeds} seeds from {seed} on end above {MOST_SEED}; give fewer, or a smaller --seed.",
            param_hint="'--seeds'",
        )
    stop = StopRequest()
    from search.baseline.folder import BaselinePlan, changed_models, open_baseline

    plan = BaselinePlan(epochs, seeds, seed, train_samples, precision)
    with open_baseline(output, plan) as folder:
        if folder.record is not None:
            for name in changed_models(output, folder.record):
                say(f"{output / name} is not the model that was scored, or is missing; its scores stay")
        record, is_done = _train(folder, data, threads, device, stop)
        files = [] if record is None or not record.epochs() else _write_files(folder.path, record)
        if record is None or not is_done:
            complain("interrupted; the same command goes on where it stopped")
            return INTERRUPTED
        _print_results(folder.path, record, files, as_json)
    return 0


def _train(
    folder: "BaselineFolder",
    data: Path | None,
    threads: int | None,
    device_wish: dict[str, Any],
    stop: StopRequest,
) -> tuple["BaselineRecord | None", bool]:
    """Train what is left; what is done now, and whether that is all of it."""
    if folder.record is not None and not folder.unfinished():
        # Nothing to start TensorFlow for.
        return folder.record, True
    from search.baseline.view import BaselineView
    from search.device import DeviceWish, take_device
    from search.runtime import count_cores, start_tensorflow
    from trainer.data import load

    cifar10 = load(data)
    precision = folder.plan.precision if folder.record is None else folder.record.settings.precision
    view = BaselineView(make_console(stderr=True), folder.epochs_left())
    taken = take_device(DeviceWish(**device_wish), precision, view.show, stop)
    if taken is None:
        return folder.record, False
    threads = threads or count_cores()
    start_tensorflow(threads, taken.visible)
    from search.baseline.run import BaselineRun

    machine = _describe_machine(taken, threads)
    run = BaselineRun(folder, cifar10, machine, view.show, stop, jit_compile=taken.jit_compile)
    # Until now a signal ends the process at once, which a terminal without its cursor would not outlast.
    stop.defer()
    with view:
        is_done = run.run()
    return run.record, is_done


def _write_files(path: Path, record: "BaselineRecord") -> list[str]:
    """Write the table and the curves; their names."""
    from search.baseline.report import curves_csv, results_lines, results_markdown, scored_epochs
    from search.baseline.rows import rows_of
    from search.output import replace_file
    from trainer.run_curves import draw_runs

    rows = rows_of(record)
    lines = results_lines(record, rows)
    runs = [run.history for run in record.runs if run.history]
    title = f"The article's recipe, {len(runs)} seed{'' if len(runs) == 1 else 's'}"
    files = {
        "baseline.png": draw_runs(runs, scored_epochs(rows), title),
        "baseline.csv": curves_csv(record).encode(),
        "baseline.md": (results_markdown(rows) + "\n" + "".join(f"{line}\n" for line in lines)).encode(),
    }
    for name, content in files.items():
        replace_file(path / name, content)
    return list(files)


def _print_results(path: Path, record: "BaselineRecord", files: list[str], as_json: bool) -> None:
    """Print what it came to, and where everything is."""
    from search.baseline.folder import changed_models
    from search.baseline.report import results_lines, results_table, summarise_json
    from search.baseline.rows import rows_of

    if as_json:
        click.echo(json.dumps(summarise_json(record), indent=2))
        return
    rows = rows_of(record)
    show(results_table(rows), "", *results_lines(record, rows), "")
    for name in ("baseline.json", *files):
        click.echo(f"wrote {path / name}")
    changed = changed_models(path, record)
    for name in (score.file for run in record.runs for score in run.scores):
        if name not in changed:
            click.echo(f"model {path / name}")


def _print_summary() -> None:
    from search.runtime import NO_GPU, start_tensorflow

    start_tensorflow(gpu=NO_GPU)
    from trainer.model import build_model
    from trainer.recipe import ARTICLE

    build_model(ARTICLE).summary(print_fn=click.echo)


def _describe_machine(device: "Device", threads: int) -> dict[str, str | int]:
    """What decides the bits of a training, and its speed."""
    from importlib.metadata import version

    from search.runtime import count_cores, read_processor

    return {
        "processor": read_processor() or platform.machine(),
        "cores": count_cores(),
        "threads": threads,
        "gpu": "none" if device.gpu is None else str(device.gpu),
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras", "cnn-search")},
    }
