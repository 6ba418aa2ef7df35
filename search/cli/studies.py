"""`cnn-search init`, `status`, `best` and `plot`: a study without training."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from search.cli.options import (
    debug_option,
    json_option,
    storage_option,
    study_option,
    target_option,
    total_option,
    wish_options,
)
from search.cli.terminal import counted, make_console, show
from search.cli.wishes import open_database_of, open_existing, read_wishes
from search.output import replace_file

if TYPE_CHECKING:
    from rich.console import RenderableType

    from search.study import OpenStudy
    from search.summary import TrialSummary

WATCH_SECONDS: Final = 5
"""How often `status --watch` looks."""


@click.command()
@storage_option
@study_option
@wish_options
@total_option
@target_option
@debug_option
def init(storage: str, study: str, trials: int | None, target: float | None, **wishes: Any) -> None:
    """Create the database and the study, with the article's recipe as its first trial."""
    from search.milestone import percent_text, target_text
    from search.report import settings_lines
    from search.study import open_or_create_study

    wished = read_wishes(**wishes)
    database = open_database_of(storage)
    opened, created = open_or_create_study(database, study, wished)
    opened.check_is_search()
    if trials is not None:
        database.limit_trials(opened.study, trials)
    kept = database.target(opened.study)
    former = kept.read()
    if target is not None:
        kept.set(target)
    click.echo(f"study {study!r} in {database.shown_url}: {'created' if created else 'exists already'}")
    for line in settings_lines(opened.settings):
        click.echo(f"  {line}")
    if target is not None:
        was = "" if former is None or former == target else f"; it was {percent_text(former)}"
        click.echo(f"  to the study's {target_text(target)}{was}")
    elif former is not None:
        click.echo(f"  to the study's {target_text(former)}; --target sets another")


@click.command()
@storage_option
@study_option
@json_option
@click.option("--watch", is_flag=True, help=f"Look again every {WATCH_SECONDS} seconds, until Ctrl-C.")
@debug_option
def status(storage: str, study: str, as_json: bool, watch: bool) -> None:
    """Show the study's trials, the workers that run them, and the best so far."""
    opened = open_existing(storage, study)
    if not watch:
        _print_status(opened, as_json)
    elif as_json or not sys.stdout.isatty():
        # For programs: one after the other.
        while True:
            _print_status(opened, as_json)
            sys.stdout.flush()
            time.sleep(WATCH_SECONDS)
    else:
        _watch_status(opened)


def _watch_status(opened: "OpenStudy") -> None:
    """Show the status on the whole terminal, again and again, also through outages of the database."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from search.errors import StudyError
    from storage.outages import DATABASE_ERRORS, explain

    with Live(console=make_console(stderr=False), screen=True, auto_refresh=False) as live:
        while True:
            try:
                parts = _status_parts(opened)
            except KeyError as error:
                raise StudyError(f"study {opened.study.study_name!r} is no more") from error
            except DATABASE_ERRORS as error:
                parts = [f"{opened.database.shown_url}: {explain(error)}; trying on"]
            parts += ["", f"every {WATCH_SECONDS} s, last at {time.strftime('%X')}; Ctrl-C ends"]
            live.update(
                Group(*(Text(part) if isinstance(part, str) else part for part in parts)), refresh=True
            )
            time.sleep(WATCH_SECONDS)


def _print_status(opened: "OpenStudy", as_json: bool) -> None:
    from search.confirm.lookup import rounds_json
    from search.milestone import milestones_json
    from search.report import status_json
    from search.summary import summarise_trials
    from search.workers_report import workers_json

    if not as_json:
        show(*_status_parts(opened))
        return
    trials = summarise_trials(opened.study)
    values = status_json(opened.study.study_name, trials, opened.settings.to_dict())
    workers, total = opened.leases().workers(), opened.database.read_limit(opened.study)
    values |= {
        **milestones_json(trials, opened.database.target(opened.study).read()),
        **workers_json(workers, trials, total),
        **rounds_json(opened),
    }
    click.echo(json.dumps(values, indent=2))


def _status_parts(opened: "OpenStudy") -> "list[RenderableType]":
    """The status from top to bottom."""
    from search.confirm.lookup import status_lines
    from search.milestone import milestone_lines
    from search.report import settings_lines, trials_table
    from search.summary import summarise_trials
    from search.workers_report import workers_lines

    trials, total = summarise_trials(opened.study), opened.database.read_limit(opened.study)
    milestones = milestone_lines(trials, opened.database.target(opened.study).read())
    name, url = opened.study.study_name, opened.database.shown_url
    lines = [f"study {name!r} in {url}", *settings_lines(opened.settings)]
    workers = "\n".join(workers_lines(opened.leases().workers(), trials, total))
    return [
        "\n  ".join(lines),
        "",
        trials_table(trials),
        "",
        workers,
        # Of a companion, the best seed is what a confirmation guards against.
        *([] if opened.confirms else [*_best_lines(trials), *milestones]),
        *status_lines(opened),
    ]


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
    from search.confirm.lookup import find_confirmation
    from search.report import best_report, trial_json
    from search.summary import summarise_trials

    opened = open_existing(storage, study)
    opened.check_is_search()
    trials = summarise_trials(opened.study)
    chosen = _best_of(trials, study)
    if output is not None:
        write_model(opened, chosen, output)
    confirmation = find_confirmation(opened, chosen)
    if as_json:
        values = {
            **trial_json(chosen),
            "output": None if output is None else str(output),
            "confirmation": dataclasses.asdict(confirmation),
        }
        click.echo(json.dumps(values, indent=2))
        return
    show(best_report(trials, advises=False), confirmation.text)
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
    opened.check_is_search()
    target = opened.database.target(opened.study).read()
    replace_file(output, progress_page(summarise_trials(opened.study), study, target).encode())
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
            f"study {study!r} has no complete trial yet ({counted(len(trials), 'trial')}); "
            "`cnn-search run` trains some"
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
