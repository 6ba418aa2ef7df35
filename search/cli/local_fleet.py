"""Worker processes of this machine, for the commands that train: how many, and what they come to."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from search.cli.terminal import complain, counted, is_debugging, make_console, say

if TYPE_CHECKING:
    from search.assignment import Assignment
    from search.fleet import Stop, WorkerFailed
    from search.runtime import Layout
    from search.study import OpenStudy
    from search.summary import TrialSummary

INTERRUPTED: Final = 130
"""Exit code of a command that was stopped."""


def choose_fleet(
    opened: "OpenStudy", work: dict[str, Any], workers: int | None
) -> tuple[dict[str, Any], "Layout"]:
    """What this machine can do for a study; what ended processes of it have left is taken back.

    Args:
        opened: The study.
        work: As `split_options` gives it.
        workers: How many are wished for; None leaves it open.

    Returns:
        `work` as it fits the machine, and how many workers of how many threads there are to be.
    """
    from search.device import count_free_slots
    from search.engines import choose_engines
    from search.runtime import choose_layout, count_cores, read_free_memory

    engines = choose_engines(work["engine"], opened.settings.space)
    for taken in opened.leases().reap(expired=False):
        say(f"  {taken}: {taken.reason}; {'failed' if taken.failed else 'it waits'}")
    gpu_slots = count_free_slots(work["device"], workers, lambda text: say(f"  {text}"), engines)
    if not gpu_slots:
        # Each worker would say the same.
        work = {**work, "device": replace(work["device"], device="cpu")}
        if engines == ("packed",) and workers is None:
            # One trains several trials, on all cores.
            workers = 1
    largest = opened.settings.space.count_largest_network()
    layout = choose_layout(count_cores(), workers, read_free_memory(), gpu_slots, largest)
    where = " on GPUs" if gpu_slots else ""
    say(
        f"  {counted(layout.workers, 'worker')} of {counted(layout.threads, 'thread')}{where};"
        " Ctrl-C stops and keeps what runs"
    )
    return work, layout


def train_here(
    opened: "OpenStudy",
    assignment: "Assignment",
    workers: int,
    left: int | None,
    best: "TrialSummary | None" = None,
) -> "tuple[Stop, list[WorkerFailed]]":
    """Let so many worker processes carry out `assignment`, and show what they do.

    Args:
        opened: The study, for handing back what a dead worker leaves.
        assignment: What each is to do.
        workers: How many, at least 1.
        left: How many trials are to end; None where nobody knows.
        best: The best trial before.

    Returns:
        How often it was asked to stop, and the workers that died, which were told of.
    """
    from search.fleet import WorkerFailed, run_fleet
    from search.views import open_view

    failures: list[WorkerFailed] = []
    # Of a companion's trials none is the best: who sees one could stop when it looks good.
    with open_view(make_console(stderr=True), left, best, ranks=opened.confirms is None) as view:

        def tell(event: Any) -> None:
            if isinstance(event, WorkerFailed):
                failures.append(event)
            else:
                view.show(event)

        stop = run_fleet(opened, assignment, workers, tell)
    for failure in failures:
        complain(f"worker {failure.worker}: {failure.reason}")
        if is_debugging() and failure.traceback:
            click.echo(failure.traceback, err=True)
    return stop, failures
