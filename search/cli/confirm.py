"""`cnn-search confirm`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from search.cli.local_fleet import INTERRUPTED, choose_fleet, train_here
from search.cli.options import (
    LEAST_PERCENT,
    data_option,
    debug_option,
    fleet_options,
    json_option,
    storage_option,
    study_option,
    workers_option,
)
from search.cli.studies import write_model
from search.cli.terminal import complain, counted, format_options, program_name, say, show
from search.cli.wishes import make_assignment, open_existing, split_options
from search.output import check_writable, make_writable, replace_file

if TYPE_CHECKING:
    from search.confirm.plan import ConfirmPlan
    from search.confirm.report import RoundReport
    from search.confirm.round import Round
    from search.runtime import Layout
    from search.study import OpenStudy

MODEL: Final = "winner.h5"
PAGE: Final = "confirm.html"
MOST_TOP: Final = 20
MOST_SEEDS: Final = 100
"""What one may ask for; `search.confirm.plan.MOST_RUNS` bounds the product."""
WITH_ABANDON: Final = ("abandon", "storage", "study", "as_json", "debug")
"""Parameters that mean something where a round is given up."""


def _read_against(_: click.Context, __: click.Parameter, text: str | None) -> float | str | None:
    """A share between 0 and 1, or "recipe"."""
    if text in (None, "recipe"):
        return text
    try:
        figure = float(str(text))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a test accuracy, such as 0.7737, nor 'recipe'."
        ) from None
    if LEAST_PERCENT <= figure < 100:
        raise click.BadParameter(
            f"{text} is no accuracy between 0 and 1; for {text} %, write {figure / 100:.6g}."
        )
    # NaN fails every comparison.
    if not 0 < figure < 1:
        raise click.BadParameter(f"{text} is no accuracy between 0 and 1; give one such as 0.7737.")
    return figure


@click.command()
@storage_option
@study_option
@data_option
@click.option(
    "--top",
    metavar="K",
    type=click.IntRange(1, MOST_TOP),
    help="How many of the study's best recipes. [default: 3; the last round's where there is one]",
)
@click.option(
    "--seeds",
    metavar="N",
    type=click.IntRange(2, MOST_SEEDS),
    help="On how many fresh seeds each is trained. [default: 5; the last round's where there is one]",
)
@click.option(
    "--against",
    metavar="recipe|FIGURE",
    callback=_read_against,
    help="Compare with the article's recipe on the same seeds, or with a published test accuracy such as "
    "0.7737. [default: recipe; the last round's where there is one]",
)
@click.option("--again", is_flag=True, help="Begin a further round, on other seeds, after the last one.")
@click.option(
    "--abandon",
    is_flag=True,
    help="Give up the last round, which stays on record; its trials that wait or run are not trained.",
)
@fleet_options
@workers_option
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="Where winner.h5 and confirm.html go. [default: this folder]",
)
@json_option
@debug_option
def confirm(
    storage: str,
    study: str,
    data: Path | None,
    top: int | None,
    seeds: int | None,
    against: Any,
    again: bool,
    abandon: bool,
    minutes: float | None,
    workers: int | None,
    output: Path,
    as_json: bool,
    **options: Any,
) -> int:
    """Is the best better, or lucky? Train it again on fresh seeds, and look at the test set once.

    The study's best recipes and the article's are trained on the same fresh seeds, and compared on validation
    by mean and interval. Only where one of them is better beyond noise, the test set is opened, once, for it
    and the article's; against a figure it is always opened, once, for the best on validation. That is
    recorded, and asked again, the command shows the record. Workers that are busy with the study help. Ctrl-C
    hands back what runs; the same command goes on.
    """
    from search.confirm.companion import look_ahead, open_round
    from search.confirm.ending import settle_verdict
    from search.confirm.plan import ConfirmWish
    from search.confirm.standing import read_standing
    from search.confirm.words import numbers_lines
    from storage.errors import StorageError
    from storage.url import check_storage

    check_storage(storage)
    work, _ = split_options(options)
    wish = ConfirmWish(top, seeds, against)
    if abandon:
        _check_abandon()
    opened = open_existing(storage, study)
    if abandon:
        _abandon(opened, as_json=as_json)
        return 0
    plan, trains = look_ahead(opened, wish, again=again)
    prepared = _prepare(opened, plan, data, work, workers, output) if trains else None
    current, companion, begun = open_round(opened, wish, again=again)
    does = "Beginning" if begun else "Going on with"
    say(f"{does} round {current.plan.round} of confirming {study!r}: {current.name!r}")
    standing = read_standing(companion, current.plan)
    code = 0
    if not standing.is_over:
        # Somebody may have deleted it just now.
        work, layout = prepared or _prepare(opened, current.plan, data, work, workers, output)
        assignment = make_assignment(storage, current.name, data, minutes, layout.threads, **work)
        for line in numbers_lines(current.plan):
            say(f"  {line}")
        left = standing.total - standing.ended
        stop, failures = train_here(companion, assignment, layout.workers, left)
        code = INTERRUPTED if stop.requests else 1 if failures else 0
        standing = read_standing(companion, current.plan)
    errors: list[str] = []
    if standing.is_over:
        verdict = settle_verdict(companion, current.plan, standing)
        if verdict.winner is not None:
            try:
                _open_test_set(companion, current, verdict.winner, data)
            except StorageError as error:
                # A model that is gone for good is no reason to hide the verdict.
                errors.append(str(error))
    report = _read_report(opened, companion, current)
    files, unwritten = _write_files(companion, report, output)
    # A model that cannot be scored cannot be written either.
    errors = list(dict.fromkeys([*errors, *unwritten]))
    if as_json:
        from search.confirm.round_json import report_json

        click.echo(json.dumps(report_json(report, [str(path) for path in files]), indent=2))
    else:
        from search.confirm.tables import round_parts

        show(*round_parts(report), "")
        for path, what in files.items():
            click.echo(f"wrote {path}{what}")
    if report.median_trial is None and (output / MODEL).exists():
        yet = " yet" if report.round.verdict is None else ""
        say(f"{output / MODEL} is not of this round, which has no winner{yet}")
    for line in errors:
        complain(line)
    if report.round.verdict is None:
        given = {"--storage": storage, "--study": study, "--data": data, "--output": output}
        say(f"{program_name()} confirm{format_options(given)} goes on")
    if code == INTERRUPTED:
        complain("interrupted; the same command goes on where it stopped")
    return code or (1 if errors else 0)


def _check_abandon() -> None:
    """See that nothing was asked for beside it: whoever did so would take it for done."""
    context = click.get_current_context()
    # What the environment gives is for all commands.
    ignored = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in (None, *WITH_ABANDON)
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if ignored:
        raise click.UsageError(f"--abandon gives the last round up as it is: leave {', '.join(ignored)} out.")


def _abandon(opened: "OpenStudy", *, as_json: bool) -> None:
    """Give the last round up."""
    from search.confirm.ending import abandon_round
    from search.confirm.lookup import rounds_json

    given_up = abandon_round(opened)
    if as_json:
        click.echo(json.dumps(rounds_json(opened), indent=2))
        return
    ended = 0 if given_up.abandoned is None else given_up.abandoned.ended
    total, round_ = len(given_up.plan.runs()), given_up.plan.round
    click.echo(
        f"abandoned round {round_} of confirming {given_up.plan.study!r}, {given_up.name!r}, after {ended} "
        f"of {total} trainings; it stays on record, and `cnn-search confirm` begins round {round_ + 1}"
    )


def _prepare(
    opened: "OpenStudy",
    plan: "ConfirmPlan",
    data: Path | None,
    work: dict[str, Any],
    workers: int | None,
    output: Path,
) -> "tuple[dict[str, Any], Layout]":
    """See that a round can be trained here, before anything of it is written; what it costs is told.

    Returns:
        As `choose_fleet`.
    """
    from trainer.data import load

    make_writable(output)
    for name in (MODEL, PAGE):
        check_writable(output / name)
    runs = plan.runs()
    say(
        f"  {counted(len(plan.recipes()), 'recipe')} on {len(plan.seeds)} seeds: {len(runs)} trainings of up "
        f"to {counted(max(run.epochs for run in runs), 'epoch')}"
    )
    load(data)
    return choose_fleet(opened, work, workers)


def _open_test_set(companion: "OpenStudy", current: "Round", winner: int, data: Path | None) -> None:
    """Score the models on the test images, where that was not done."""
    if current.test is not None and current.test.is_scored:
        # Nothing to start TensorFlow for.
        return
    from search.confirm.standing import read_standing
    from search.runtime import NO_GPU, count_cores, start_tensorflow

    say("opening the test set for the winner's models and those that it is compared with")
    # Anywhere the same, and GPUs are for training.
    start_tensorflow(count_cores(), NO_GPU)
    from search.confirm.test_set import open_test_set
    from trainer.data import load

    standing = read_standing(companion, current.plan)
    open_test_set(
        companion, current.plan, standing, winner, lambda: load(data), lambda line: say(f"  {line}")
    )


def _read_report(opened: "OpenStudy", companion: "OpenStudy", current: "Round") -> "RoundReport":
    """The round as it is now."""
    from search.confirm.ledger import read_rounds
    from search.confirm.lookup import outcome_text
    from search.confirm.report import RoundReport
    from search.confirm.standing import gone, read_standing

    rounds = read_rounds(opened)
    now = next((one for one in rounds if one.plan == current.plan and not one.is_deleted), None)
    if now is None:
        raise gone(current.name)
    before = [one for one in rounds if one.plan.round < now.plan.round]
    opening = 1 + sum(one.test is not None for one in before)
    told = tuple(f"round {one.plan.round}: {outcome_text(one)}" for one in before)
    return RoundReport(now, read_standing(companion, now.plan), opening, told)


def _write_files(
    companion: "OpenStudy", report: "RoundReport", output: Path
) -> tuple[dict[Path, str], list[str]]:
    """Write the model of the winner's median seed, and the page.

    Returns:
        What there is to say about each file that was written, and why others were not.
    """
    from search.confirm.page import confirm_page
    from search.confirm.standing import telling_of_deletion
    from search.errors import SearchError
    from search.summary import summarise_trials
    from storage.errors import StorageError

    files: dict[Path, str] = {}
    errors: list[str] = []

    def write(path: Path, what: str, put: Callable[[Path], None]) -> None:
        try:
            make_writable(output)
            put(path)
            files[path] = what
        except (SearchError, StorageError) as error:
            errors.append(str(error))

    winner, number = report.round.winner, report.median_trial
    if winner is not None and number is not None:
        seed = report.plan.runs()[number].seed
        what = f": trial {number} of {report.round.name!r}, trial {winner.trial}'s recipe on seed {seed}"

        def put_model(path: Path) -> None:
            with telling_of_deletion(companion):
                write_model(companion, summarise_trials(companion.study)[number], path)

        write(output / MODEL, what, put_model)
    write(output / PAGE, "", lambda path: replace_file(path, confirm_page(report).encode()))
    return files, errors
