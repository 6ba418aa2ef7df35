"""`cnn-search run`."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from search.cli.options import (
    data_option,
    debug_option,
    make_assignment,
    open_database_of,
    read_wishes,
    split_options,
    storage_option,
    study_option,
    wish_options,
    work_options,
)
from search.cli.studies import write_model
from search.cli.terminal import (
    complain,
    counted,
    format_options,
    is_debugging,
    make_console,
    program_name,
    say,
    show,
)
from search.output import make_writable, replace_file

if TYPE_CHECKING:
    from search.study import OpenStudy

INTERRUPTED: Final = 130


@click.command()
@storage_option
@study_option
@data_option
@wish_options
@work_options
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes that train. [default: one for each core, up to 8; or for each free place on GPUs]",
)
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
    minutes: float | None,
    workers: int | None,
    output: Path,
    **options: Any,
) -> int:
    """Search: train trials, report them to the study, and keep the best model.

    Run again, it continues the study. Without --trials it goes on to the study's total; where there is none,
    or it has been reached, it runs until --minutes are over or Ctrl-C, which keeps the running trials: the
    next run goes on from their last full epoch.
    """
    from search.device import count_free_slots
    from search.fleet import WorkerFailed, run_fleet
    from search.report import settings_lines
    from search.runtime import choose_layout, count_cores, read_free_memory
    from search.study import open_or_create_study
    from search.summary import best_trial, count_ended, summarise_trials
    from search.views import open_view
    from storage.url import check_storage
    from trainer.data import load

    work, wishes = split_options(options)
    wished = read_wishes(**wishes)
    check_storage(storage)
    make_writable(output)
    load(data)
    database = open_database_of(storage)
    opened, created = open_or_create_study(database, study, wished)
    say(f"{'New' if created else 'Continuing'} study {study!r} in {database.shown_url}")
    for line in settings_lines(opened.settings):
        say(f"  {line}")
    for taken in opened.leases().reap(expired=False):
        say(f"  {taken}: {taken.reason}; {'failed' if taken.failed else 'it waits'}")
    gpu_slots = count_free_slots(work["device"], workers, lambda text: say(f"  {text}"))
    if not gpu_slots:
        # Each worker would say the same.
        work["device"] = replace(work["device"], device="cpu")
    largest = opened.settings.space.count_largest_network()
    layout = choose_layout(count_cores(), workers, read_free_memory(), gpu_slots, largest)
    where = " on GPUs" if gpu_slots else ""
    say(
        f"  {counted(layout.workers, 'worker')} of {counted(layout.threads, 'thread')}{where};"
        " Ctrl-C stops and keeps what runs"
    )

    before = summarise_trials(opened.study)
    ended = count_ended(before)
    total = _settle_total(opened, trials, ended)
    left = None if total is None else max(0, total - ended)
    failures: list[WorkerFailed] = []
    with open_view(make_console(stderr=True), left, best_trial(before)) as view:

        def tell(event: Any) -> None:
            if isinstance(event, WorkerFailed):
                failures.append(event)
            else:
                view.show(event)

        assignment = make_assignment(storage, study, data, minutes, layout.threads, **work)
        stop = run_fleet(opened, assignment, layout.workers, tell)
    for failure in failures:
        complain(f"worker {failure.worker}: {failure.reason}")
        if is_debugging() and failure.traceback:
            click.echo(failure.traceback, err=True)
    _finish_run(opened, output, {"--storage": storage, "--study": study, "--data": data})
    if stop.requests:
        complain("interrupted; the same command goes on where it stopped")
        return INTERRUPTED
    return 1 if failures else 0


def _settle_total(opened: "OpenStudy", wished: int | None, ended: int) -> int | None:
    """The total that this run works toward: the wished one, else the study's unless that is reached."""
    database, study = opened.database, opened.study
    total = database.read_limit(study) if wished is None else wished
    if wished is not None:
        database.limit_trials(study, wished)
    elif total is not None and ended < total:
        say(f"  {total - ended} trials to the study's total of {total}; --trials sets another")
    elif total is not None and any(worker.is_alive for worker in opened.leases().workers()):
        say(f"  the study has its total of {total} trials and other workers; --trials sets another")
    elif total is not None:
        say(f"  the study has had its total of {total} trials; it goes on without one")
        database.limit_trials(study, None)
        return None
    return total


def _finish_run(opened: "OpenStudy", output: Path, given: Mapping[str, object]) -> None:
    """Print what a run came to, write its two files, and say what can come next."""
    from search.progress import progress_page
    from search.report import best_report, trials_table
    from search.summary import best_trial, summarise_trials

    trials = summarise_trials(opened.study)
    show(trials_table(trials), "", best_report(trials), "")
    page, model = output / "progress.html", output / "best.h5"
    replace_file(page, progress_page(trials, opened.study.study_name).encode())
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
    steps.append(("search on", "run --minutes 30", {**given, "--output": output}))
    click.echo("\nNext:")
    for purpose, command, options in steps:
        click.echo(f"  {program_name()} {command}{format_options(options)}    # {purpose}")
