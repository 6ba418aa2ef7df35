"""`cnn-search confirm`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from search.cli.local_fleet import INTERRUPTED, choose_fleet, train_here
from search.cli.options import (
    data_option,
    debug_option,
    fleet_options,
    json_option,
    make_assignment,
    open_existing,
    split_options,
    storage_option,
    study_option,
    workers_option,
)
from search.cli.studies import write_model
from search.cli.terminal import complain, format_options, program_name, say, show
from search.output import make_writable, replace_file

if TYPE_CHECKING:
    from search.confirm.report import RoundReport
    from search.confirm.round import Round
    from search.study import OpenStudy

MOST_TOP: Final = 20
MOST_SEEDS: Final = 100
"""With these, 2,100 trials are enqueued while others wait for their set-ups, in about half a minute."""


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
    if 1 < figure < 100:
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
    from search.confirm.companion import open_round, settle_verdict
    from search.confirm.plan import ConfirmWish
    from search.confirm.standing import read_standing
    from storage.url import check_storage

    check_storage(storage)
    make_writable(output)
    work, _ = split_options(options)
    opened = open_existing(storage, study)
    current, companion, begun = open_round(opened, ConfirmWish(top, seeds, against), again=again)
    does = "Beginning" if begun else "Going on with"
    say(f"{does} round {current.plan.round} of confirming {study!r}: {current.name!r}")
    standing = read_standing(companion, current.plan)
    code = 0
    if not standing.is_over:
        from trainer.data import load

        load(data)
        work, layout = choose_fleet(companion, work, workers)
        assignment = make_assignment(storage, current.name, data, minutes, layout.threads, **work)
        left = standing.total - standing.ended
        stop, failures = train_here(companion, assignment, layout.workers, left)
        code = INTERRUPTED if stop.requests else 1 if failures else 0
        standing = read_standing(companion, current.plan)
    if standing.is_over:
        verdict = settle_verdict(companion, current.plan, standing)
        if verdict.winner is not None:
            _open_test_set(companion, current, verdict.winner, data)
    report = _read_report(opened, companion, current.name)
    files = _write_files(companion, report, output)
    if as_json:
        from search.confirm.round_json import report_json

        click.echo(json.dumps(report_json(report, [str(path) for path in files]), indent=2))
    else:
        from search.confirm.tables import round_parts

        show(*round_parts(report), "")
        for path in files:
            click.echo(f"wrote {path}")
    if report.round.verdict is None:
        given = {"--storage": storage, "--study": study, "--data": data, "--output": output}
        say(f"{program_name()} confirm{format_options(given)} goes on")
    if code == INTERRUPTED:
        complain("interrupted; the same command goes on where it stopped")
    return code


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


def _read_report(opened: "OpenStudy", companion: "OpenStudy", name: str) -> "RoundReport":
    """The round as it is now."""
    from search.confirm.companion import read_rounds
    from search.confirm.report import RoundReport
    from search.confirm.standing import read_standing
    from search.errors import ConfirmError

    rounds = read_rounds(opened)
    at = next((index for index, one in enumerate(rounds) if one.name == name), None)
    if at is None:
        raise ConfirmError(f"study {name!r} is no more: somebody deleted it; the same command begins anew")
    opening = 1 + sum(one.test is not None for one in rounds[:at])
    return RoundReport(rounds[at], read_standing(companion, rounds[at].plan), opening)


def _write_files(companion: "OpenStudy", report: "RoundReport", output: Path) -> list[Path]:
    """Write the page, and the model of the winner's median seed; their paths."""
    from search.confirm.page import confirm_page
    from search.summary import summarise_trials

    page, model = output / "confirm.html", output / "winner.h5"
    replace_file(page, confirm_page(report).encode())
    if report.median_trial is None:
        return [page]
    write_model(companion, summarise_trials(companion.study)[report.median_trial], model)
    return [model, page]
