"""`cnn-search init`, `status`, `best` and `plot`: a study without training."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.options import (
    debug_option,
    json_option,
    open_database_of,
    open_existing,
    read_wishes,
    storage_option,
    study_option,
    wish_options,
)
from search.cli.terminal import show
from search.output import replace_file

if TYPE_CHECKING:
    from rich.console import RenderableType

    from search.study import OpenStudy
    from search.summary import TrialSummary


@click.command()
@storage_option
@study_option
@wish_options
@click.option("--trials", type=click.IntRange(1), help="The study's total, over all workers.")
@debug_option
def init(storage: str, study: str, trials: int | None, **wishes: Any) -> None:
    """Create the database and the study, with the article's recipe as its first trial."""
    from search.report import settings_lines
    from search.study import open_or_create_study

    wished = read_wishes(**wishes)
    database = open_database_of(storage)
    opened, created = open_or_create_study(database, study, wished)
    if trials is not None:
        database.limit_trials(opened.study, trials)
    click.echo(f"study {study!r} in {database.shown_url}: {'created' if created else 'exists already'}")
    for line in settings_lines(opened.settings):
        click.echo(f"  {line}")


@click.command()
@storage_option
@study_option
@json_option
@debug_option
def status(storage: str, study: str, as_json: bool) -> None:
    """Show the study's trials, the workers that run them, and the best so far."""
    from search.report import settings_lines, status_json, trials_table
    from search.summary import summarise_trials
    from search.workers_report import workers_json, workers_lines

    opened = open_existing(storage, study)
    workers = opened.leases().workers()
    total = opened.database.read_limit(opened.study)
    trials = summarise_trials(opened.study)
    if as_json:
        values = status_json(study, trials, opened.settings.to_dict())
        click.echo(json.dumps({**values, **workers_json(workers, trials, total)}, indent=2))
        return
    lines = [f"study {study!r} in {opened.database.shown_url}", *settings_lines(opened.settings)]
    shown = "\n".join(workers_lines(workers, trials, total))
    show("\n  ".join(lines), "", trials_table(trials), "", shown, *_best_lines(trials))


@click.command()
@storage_option
@study_option
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the model there, as .h5."
)
@json_option
@debug_option
def best(storage: str, study: str, output: Path | None, as_json: bool) -> None:
    """Show the best trial, and fetch its model."""
    from search.report import best_report, trial_json
    from search.summary import summarise_trials

    opened = open_existing(storage, study)
    trials = summarise_trials(opened.study)
    chosen = _best_of(trials, study)
    if output is not None:
        write_model(opened, chosen, output)
    if as_json:
        click.echo(
            json.dumps({**trial_json(chosen), "output": None if output is None else str(output)}, indent=2)
        )
        return
    show(best_report(trials))
    if output is not None:
        click.echo(f"wrote {output}")


@click.command()
@storage_option
@study_option
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path("progress.html"),
    show_default=True,
    help="Where the page goes.",
)
@debug_option
def plot(storage: str, study: str, output: Path) -> None:
    """Write the progress toward 77-78 % as one self-contained page."""
    from search.progress import progress_page
    from search.summary import summarise_trials

    opened = open_existing(storage, study)
    replace_file(output, progress_page(summarise_trials(opened.study), study).encode())
    click.echo(f"wrote {output}")


def write_model(opened: "OpenStudy", trial: "TrialSummary", path: Path) -> None:
    """Write the trial's model to `path`."""
    from storage.trial_files import read_file

    frozen = opened.study.get_trials(deepcopy=False)[trial.number]
    file = read_file(opened.artifacts, opened.database.storage, frozen, ".h5")
    replace_file(path, file.content)


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
