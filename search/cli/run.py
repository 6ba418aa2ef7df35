"""`cnn-search run`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.local_fleet import INTERRUPTED, choose_fleet, train_here
from search.cli.options import (
    data_option,
    debug_option,
    storage_option,
    study_option,
    wish_options,
    work_options,
    workers_option,
)
from search.cli.studies import write_model
from search.cli.terminal import complain, counted, format_options, program_name, say, show
from search.cli.wishes import make_assignment, open_database_of, read_wishes, split_options
from search.output import make_writable, replace_file

if TYPE_CHECKING:
    from search.study import OpenStudy


@click.command()
@storage_option
@study_option
@data_option
@wish_options
@work_options
@workers_option
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="Where best.h5 and progress.html go. [default: this folder]",
)
@debug_option
def run(
    storage: str,
    study: str,
    data: Path | None,
    trials: int | None,
    target: float | None,
    minutes: float | None,
    workers: int | None,
    output: Path,
    **options: Any,
) -> int:
    """Search: train trials, report them to the study, and keep the best model.

    Run again, it continues the study. Without --trials it goes on to the study's total, and without --target
    to its target; where there are none, or they have been reached, it runs until --minutes are over or
    Ctrl-C. Each but the total keeps the running trials: the next run goes on from their last full epoch.
    """
    from search.report import settings_lines
    from search.study import open_or_create_study
    from search.summary import best_trial, count_ended, summarise_trials
    from storage.url import check_storage
    from trainer.data import load

    work, wishes = split_options(options)
    wished = read_wishes(**wishes)
    check_storage(storage)
    make_writable(output)
    load(data)
    database = open_database_of(storage)
    opened, created = open_or_create_study(database, study, wished)
    opened.check_is_search()
    say(f"{'New' if created else 'Continuing'} study {study!r} in {database.shown_url}")
    for line in settings_lines(opened.settings):
        say(f"  {line}")
    given = {"--storage": storage, "--study": study, "--data": data}
    if _settle_target(opened, target):
        if trials is not None:
            database.limit_trials(opened.study, trials)
        _finish_run(opened, output, given)
        return 0
    work, layout = choose_fleet(opened, work, workers)

    before = summarise_trials(opened.study)
    ended = count_ended(before)
    total = _settle_total(opened, trials, ended)
    left = None if total is None else max(0, total - ended)
    assignment = make_assignment(storage, study, data, minutes, layout.threads, **work)
    stop, failures = train_here(opened, assignment, layout.workers, left, best_trial(before))
    _finish_run(opened, output, given)
    if stop.requests:
        complain("interrupted; the same command goes on where it stopped")
        return INTERRUPTED
    return 1 if failures else 0


def _settle_target(opened: "OpenStudy", wished: float | None) -> bool:
    """Set the wished target, or lift one that was reached; whether it is reached and stays so."""
    from search.milestone import target_text

    kept = opened.database.target(opened.study)
    if wished is not None:
        kept.set(wished)
    target = kept.read()
    if target is None:
        return False
    text = target_text(target)
    if not kept.is_reached():
        say(f"  to the study's {text}{'' if wished is not None else '; --target sets another'}")
        return False
    if wished is None and any(worker.is_alive for worker in opened.leases().workers()):
        say(f"  the study has reached its {text}, and its other workers end; --target sets another")
        return True
    if wished is None:
        say(f"  the study has reached its {text}; it goes on without one")
        kept.set(None)
        return False
    say(f"  the study has reached this {text}, already")
    return True


def _settle_total(opened: "OpenStudy", wished: int | None, ended: int) -> int | None:
    """The total that this run works toward: the wished one, else the study's unless that is reached."""
    database, study = opened.database, opened.study
    total = database.read_limit(study) if wished is None else wished
    if wished is not None:
        database.limit_trials(study, wished)
    elif total is not None and ended < total:
        say(f"  {counted(total - ended, 'trial')} to the study's total of {total}; --trials sets another")
    elif total is not None and any(worker.is_alive for worker in opened.leases().workers()):
        say(
            f"  the study has its total of {counted(total, 'trial')} and other workers; --trials sets another"
        )
    elif total is not None:
        say(f"  the study has had its total of {counted(total, 'trial')}; it goes on without one")
        database.limit_trials(study, None)
        return None
    return total


def _finish_run(opened: "OpenStudy", output: Path, given: Mapping[str, object]) -> None:
    """Print what a run came to, write its two files, and say what can come next."""
    from search.milestone import milestone_lines
    from search.progress import progress_page
    from search.report import best_report, trials_table
    from search.summary import best_trial, summarise_trials

    target = opened.database.target(opened.study).read()
    trials = summarise_trials(opened.study)
    show(trials_table(trials), "", best_report(trials), "", *milestone_lines(trials, target), "")
    page, model = output / "progress.html", output / "best.h5"
    replace_file(page, progress_page(trials, opened.study.study_name, target).encode())
    best = best_trial(trials)
    if best is not None:
        write_model(opened, best, model)
        click.echo(f"wrote {model}: the model of trial {best.number}")
    click.echo(f"wrote {page}: the progress plot, for a browser")
    where = {key: given[key] for key in ("--storage", "--study")}
    steps = [("all trials", "status", where)]
    if best is not None:
        steps.append(("fetch the best model", "best --output m.h5", where))
        steps.append(("score it again", f"evaluate {shlex.quote(str(model))}", {"--data": given["--data"]}))
        steps.append(("better, or lucky?", "confirm", {**given, "--output": output}))
    steps.append(("search on", "run --minutes 30", {**given, "--output": output}))
    click.echo("\nNext:")
    for purpose, command, options in steps:
        click.echo(f"  {program_name()} {command}{format_options(options)}    # {purpose}")
