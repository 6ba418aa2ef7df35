"""The command line: the one place that parses arguments, prints and exits."""

import json
import os
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from search.errors import SearchError, SpaceError
from storage.errors import StorageError, StorageUrlError
from trainer.errors import TrainerError

# Everything else is imported where it is used: `--help` answers before Optuna alone would have loaded.
if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from search.study import OpenStudy, Wishes
    from search.summary import TrialSummary
    from storage.database import Database

INTERRUPTED: Final = 130
TRAIN_IMAGES: Final = 40_000
Function = TypeVar("Function", bound=Callable[..., Any])


def main() -> None:
    """Run the command that `sys.argv` names, and exit.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    try:
        sys.exit(commands.main(prog_name="cnn-search", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        sys.exit(INTERRUPTED)
    except (SpaceError, StorageUrlError) as error:
        sys.exit(_fail(error, 2))
    except (SearchError, StorageError, TrainerError) as error:
        sys.exit(_fail(error, 1))
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    # The last frame of all: what is left is a fault of ours, or of the machine.
    except Exception as error:  # noqa: BLE001
        reason = str(error).strip().split("\n")[0]
        sys.exit(_fail(error, 1, f"unexpected {type(error).__name__}: {reason} (--debug shows where)"))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cnn-search")
def commands() -> None:
    """Search hyperparameters of the CIFAR-10 baseline CNN, and fetch the best model.

    Start with `cnn-search run --minutes 10`. Every option NAME can also come from the environment variable
    shown with it; the option wins.
    """


def _options(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator, in the order given."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_debug = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show a traceback when something fails."
)
_storage = click.option(
    "--storage",
    metavar="URL",
    envvar="CNN_SEARCH_STORAGE",
    default="sqlite:///cnn-search.db",
    show_default=True,
    show_envvar=True,
    help="The study's database.",
)
_study = click.option(
    "--study",
    metavar="NAME",
    envvar="CNN_SEARCH_STUDY",
    default="cifar10",
    show_default=True,
    show_envvar=True,
    help="The study's name in it.",
)
_data = click.option(
    "--data",
    metavar="PATH",
    envvar="CNN_SEARCH_DATA",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="CIFAR-10: a folder to find or keep it in, the official archive, or an .npz. "
    "[default: a per-user cache folder]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_wishes = _options(
    click.option(
        "--space",
        metavar="NAME|FILE.toml",
        help="What to search. [default: the study's; article for a new one]",
    ),
    click.option(
        "--max-epochs",
        type=click.IntRange(1, 10_000),
        help="Cap on a trial's epochs, the article's recipe included. [default: the study's]",
    ),
    click.option(
        "--train-samples",
        type=click.IntRange(1, TRAIN_IMAGES),
        help="Train on the first so many images, for a quick look. [default: the study's; all 40000]",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**31 - 1),
        help="Fixes the recipes drawn and their training. [default: the study's; 0 for a new one]",
    ),
)


@commands.command()
@_data
@click.option(
    "--pictures", metavar="DIR", type=click.Path(path_type=Path), help="Write two pictures as PNG there."
)
@_debug
def data(data: Path | None, pictures: Path | None) -> None:
    """Fetch CIFAR-10, verify it, and print a summary."""
    from trainer.data import CLASS_NAMES, default_folder, load
    from trainer.pictures import write_pictures

    cifar10 = load(data)
    click.echo(f"CIFAR-10 in {default_folder() if data is None else data}, digests verified")
    for name, split in (
        ("training", cifar10.train),
        ("validation", cifar10.validation),
        ("test", cifar10.test),
    ):
        click.echo(f"  {name:<11}{len(split):>7,} images of 32x32x3 bytes")
    click.echo(f"  classes    {', '.join(CLASS_NAMES)}")
    for path in [] if pictures is None else write_pictures(cifar10.train, pictures):
        click.echo(f"wrote {path}")


@commands.command()
@_storage
@_study
@_wishes
@_debug
def init(storage: str, study: str, **wishes: Any) -> None:
    """Create the database and the study, with the article's recipe as its first trial."""
    from search.report import settings_lines
    from search.study import open_or_create_study

    wished = _read_wishes(**wishes)
    database = _open_database(storage)
    opened, created = open_or_create_study(database, study, wished)
    click.echo(f"study {study!r} in {database.shown_url}: {'created' if created else 'exists already'}")
    for line in settings_lines(opened.settings):
        click.echo(f"  {line}")


@commands.command()
@_storage
@_study
@_data
@_wishes
@click.option(
    "--trials", type=click.IntRange(1), help="The study's total, over all runs. [default: no limit]"
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Stop after so many minutes, at the end of an epoch; running trials are kept to go on later.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that train.")
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="Where best.h5 and progress.html go. [default: this folder]",
)
@_debug
def run(
    storage: str,
    study: str,
    data: Path | None,
    trials: int | None,
    minutes: float | None,
    workers: int,
    output: Path,
    **wishes: Any,
) -> int:
    """Search: train trials, report them to the study, and keep the best model.

    Run again, it continues the study. Without --trials and --minutes it runs until Ctrl-C, which keeps the
    running trials: the next run goes on from their last full epoch.
    """
    from search.fleet import Assignment, WorkerFailed, run_fleet
    from search.report import settings_lines
    from search.runtime import count_cores
    from search.study import open_or_create_study
    from search.summary import summarise_trials
    from search.views import open_view
    from trainer.data import load

    wished = _read_wishes(**wishes)
    _make_writable(output)
    database = _open_database(storage)
    load(data)
    opened, created = open_or_create_study(database, study, wished)
    stderr = _console(stderr=True)
    _say(f"{'New' if created else 'Continuing'} study {study!r} in {database.shown_url}")
    for line in settings_lines(opened.settings):
        _say(f"  {line}")
    threads = max(1, count_cores() // workers)
    _say(f"  {workers} worker(s) of {threads} thread(s); Ctrl-C stops and keeps what runs")

    failures: list[WorkerFailed] = []
    ended = sum(trial.ended is not None for trial in summarise_trials(opened.study))
    with open_view(stderr, None if trials is None else max(0, trials - ended)) as view:

        def show(event: Any) -> None:
            if isinstance(event, WorkerFailed):
                failures.append(event)
            else:
                view.show(event)

        ends_at = None if minutes is None else time.time() + 60 * minutes
        stop = run_fleet(opened, Assignment(storage, study, data, trials, ends_at, threads), workers, show)
    _finish_run(opened, output, storage, study)
    for failure in failures:
        _complain(f"worker {failure.worker}: {failure.reason}")
        if _debugging() and failure.traceback:
            click.echo(failure.traceback, err=True)
    if stop.requests:
        _complain("interrupted; the same command goes on where it stopped")
        return INTERRUPTED
    return 1 if failures else 0


@commands.command()
@_storage
@_study
@_json
@_debug
def status(storage: str, study: str, as_json: bool) -> None:
    """Show the study's trials and the best so far."""
    from search.report import settings_lines, status_json, trials_table
    from search.summary import summarise_trials

    opened = _open(storage, study)
    trials = summarise_trials(opened.study)
    if as_json:
        click.echo(json.dumps(status_json(study, trials, opened.settings.to_dict()), indent=2))
        return
    lines = [f"study {study!r} in {opened.database.shown_url}", *settings_lines(opened.settings)]
    _print("\n  ".join(lines), "", trials_table(trials), "", *_best_lines(trials))


@commands.command()
@_storage
@_study
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the model there, as .h5."
)
@_json
@_debug
def best(storage: str, study: str, output: Path | None, as_json: bool) -> None:
    """Show the best trial, and fetch its model."""
    from search.report import best_report, trial_json
    from search.summary import summarise_trials

    opened = _open(storage, study)
    trials = summarise_trials(opened.study)
    chosen = _best_of(trials, study)
    if output is not None:
        _write_model(opened, chosen, output)
    if as_json:
        click.echo(
            json.dumps({**trial_json(chosen), "output": None if output is None else str(output)}, indent=2)
        )
        return
    _print(best_report(trials))
    if output is not None:
        click.echo(f"wrote {output}")


@commands.command()
@_storage
@_study
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path("progress.html"),
    show_default=True,
    help="Where the page goes.",
)
@_debug
def plot(storage: str, study: str, output: Path) -> None:
    """Write the progress toward 77-78 % as one self-contained page."""
    from search.progress import progress_page
    from search.summary import summarise_trials

    opened = _open(storage, study)
    _write(output, progress_page(summarise_trials(opened.study), study))
    click.echo(f"wrote {output}")


@commands.command()
@click.argument("model", type=click.Path(path_type=Path))
@_data
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="The last 10,000 training images, by which trials are compared, or the 10,000 test images.",
)
@_json
@_debug
def evaluate(model: Path, data: Path | None, split: str, as_json: bool) -> None:
    """Score the model in the file MODEL (.h5)."""
    from search.runtime import start_tensorflow

    start_tensorflow()
    from trainer.data import load
    from trainer.evaluation import Evaluator
    from trainer.model_file import load_model

    loaded = load_model(model)
    cifar10 = load(data)
    score = Evaluator(cifar10.validation if split == "validation" else cifar10.test).score(loaded)
    if as_json:
        result = {
            "model": str(model),
            "split": split,
            "images": score.images,
            "accuracy": score.accuracy,
            "loss": score.loss,
        }
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{model}: {split} accuracy {100 * score.accuracy:.2f} %, loss {score.loss:.4f}")
    click.echo(f"({score.images:,} images; the article's CNN has 77-78 % on the test images)")


def _read_wishes(
    space: str | None, max_epochs: int | None, train_samples: int | None, seed: int | None
) -> "Wishes":
    from search.space_file import load_space
    from search.study import Wishes

    return Wishes(None if space is None else load_space(space), max_epochs, train_samples, seed)


def _open(storage: str, study: str) -> "OpenStudy":
    from search.study import open_study

    return open_study(_open_database(storage, create=False), study)


def _open_database(storage: str, *, create: bool = True) -> "Database":
    """The database at that URL, open until the command ends."""
    import optuna

    from storage.database import open_database

    # Optuna announces each study in its log's format; the commands do it in their own.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = open_database(storage, create=create)
    click.get_current_context().call_on_close(database.close)
    return database


def _finish_run(opened: "OpenStudy", output: Path, storage: str, study: str) -> None:
    """Print what a run came to, and write its two files."""
    from search.progress import progress_page
    from search.report import best_report, trials_table
    from search.summary import best_trial, summarise_trials

    trials = summarise_trials(opened.study)
    _print(trials_table(trials), "", best_report(trials), "")
    page, model = output / "progress.html", output / "best.h5"
    _write(page, progress_page(trials, study))
    best = best_trial(trials)
    if best is not None:
        _write_model(opened, best, model)
        click.echo(f"wrote {model}: the model of trial {best.number}")
    click.echo(f"wrote {page}: the progress plot, for a browser")
    program = _program()
    where = _where(storage, study)
    click.echo("\nNext:")
    for command, purpose in (
        (f"{program} status{where}", "all trials"),
        (f"{program} best --output m.h5{where}", "fetch the best model"),
        (f"{program} evaluate {shlex.quote(str(model))}", "score it again"),
        (f"{program} run --minutes 30{where}", "search on"),
    ):
        click.echo(f"  {command:<50} {purpose}")


def _best_of(trials: "list[TrialSummary]", study: str) -> "TrialSummary":
    from search.errors import StudyError
    from search.summary import best_trial

    best = best_trial(trials)
    if best is None:
        raise StudyError(
            f"study {study!r} has no complete trial yet ({len(trials)} trials); `cnn-search run` trains some"
        )
    return best


def _best_lines(trials: "list[TrialSummary]") -> "list[RenderableType]":
    from search.report import compare_with_band
    from search.summary import best_trial

    best = best_trial(trials)
    if best is None or best.value is None:
        return ["no trial is complete yet"]
    compared = compare_with_band(best.value)
    return [f"best: trial {best.number}, {100 * best.value:.2f} %; the article's 77-78 %: {compared}"]


def _write_model(opened: "OpenStudy", trial: "TrialSummary", path: Path) -> None:
    from storage.trial_files import read_file

    frozen = opened.study.get_trials(deepcopy=False)[trial.number]
    file = read_file(opened.database.artifacts, opened.database.storage, frozen, ".h5")
    _write(path, file.content)


def _write(path: Path, content: bytes | str) -> None:
    from search.output import replace_file

    replace_file(path, content.encode() if isinstance(content, str) else content)


def _make_writable(folder: Path) -> None:
    from search.output import make_writable

    make_writable(folder)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr)


def _print(*parts: "RenderableType") -> None:
    console = _console(stderr=False)
    for part in parts:
        if isinstance(part, str):
            # Names and paths in brackets are no markup, and lines to copy from stay whole.
            click.echo(part)
        else:
            console.print(part, highlight=False)


def _program() -> str:
    """The command as the user can type it here: its name where it is on the path, else its file."""
    name = Path(sys.argv[0])
    if shutil.which(name.name) == str(name):
        return name.name
    return os.path.relpath(name) if name.is_absolute() and Path.cwd() in name.parents else str(name)


def _where(storage: str, study: str) -> str:
    """The options that lead back to this study; none where the defaults do, and never a password."""
    from storage.database import parse_url, show_url

    given = {"--storage": storage, "--study": study}
    defaults = {"--storage": "sqlite:///cnn-search.db", "--study": "cifar10"}
    given["--storage"] = storage if storage == defaults["--storage"] else show_url(parse_url(storage))
    return "".join(f" {key} {shlex.quote(value)}" for key, value in given.items() if value != defaults[key])


def _fail(error: Exception, code: int, message: str = "") -> int:
    if _debugging():
        traceback.print_exception(error)
    _complain(message or str(error))
    return code


def _debugging() -> bool:
    # Asked for when there is no click context any more.
    return "--debug" in sys.argv


def _say(message: str) -> None:
    click.echo(message, err=True)


def _complain(message: str) -> None:
    click.echo(f"cnn-search: {message}", err=True)
