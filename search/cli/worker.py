"""`cnn-search worker`."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, Final

import click

from search.cli.local_fleet import INTERRUPTED
from search.cli.options import (
    data_option,
    debug_option,
    storage_option,
    study_option,
    wish_options,
    work_options,
)
from search.cli.terminal import complain, counted, end_process, make_console, say
from search.cli.wishes import make_assignment, open_database_of, read_wishes, split_options

ECHO_SECONDS: Final = 1
"""One wish to stop can come as several signals: to a process and to its group, say."""
STOP_SECONDS: Final = 9
"""Whoever asks a service to stop kills it after ten seconds."""
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@storage_option
@study_option
@data_option
@wish_options
@work_options
@click.option("--threads", type=click.IntRange(1), help="Threads to train with. [default: one for each core]")
@debug_option
def worker(
    storage: str,
    study: str,
    data: Path | None,
    trials: int | None,
    target: float | None,
    minutes: float | None,
    threads: int | None,
    **options: Any,
) -> None:
    """Join a study as one more worker, on this machine or any other that reaches the database.

    It takes trials until the study has its total, which --trials sets for all workers, or reaches its target,
    which --target does, and exits. With --trials it makes a study that is missing. Ctrl-C and SIGTERM hand
    the running trial back to the others, from its last full epoch, within ten seconds.
    """
    stop = StopRequest()
    from search.assignment import PATIENCE_SECONDS, carry_out
    from search.milestone import milestone_lines
    from search.report import settings_lines
    from search.runtime import count_cores
    from search.study import open_or_create_study, open_study
    from search.summary import best_trial, count_ended, summarise_trials
    from search.views import open_view
    from storage.url import check_storage
    from trainer.data import load

    work, wishes = split_options(options)
    wished = read_wishes(**wishes)
    check_storage(storage)
    load(data)
    database = open_database_of(
        storage, create=trials is not None, patience_seconds=PATIENCE_SECONDS, must_hurry=stop
    )
    if trials is None:
        # Under a mistyped name it would search for ever, alone.
        opened = open_study(database, study, wished)
        opened.check_is_search()
    else:
        opened, _ = open_or_create_study(database, study, wished)
        opened.check_is_search()
        database.limit_trials(opened.study, trials)
    kept = database.target(opened.study)
    if target is not None:
        kept.set(target)
    total = database.read_limit(opened.study)
    many = "any number of trials" if total is None else counted(total, "trial")
    say(f"joining study {study!r} in {database.shown_url}, of {many}")
    for line in settings_lines(opened.settings):
        say(f"  {line}")
    before = summarise_trials(opened.study)
    if (target := kept.read()) is not None:
        say(f"  {milestone_lines(before, target)[-1]}")
        if kept.is_reached() and not database.open_companions(opened.study):
            say("  so nothing is left to do; --target sets another")
            return
    database.close()
    left = None if total is None else max(0, total - count_ended(before))
    assignment = make_assignment(storage, study, data, minutes, threads or count_cores(), **work)
    with open_view(make_console(stderr=True), left, best_trial(before)) as view:
        carry_out(assignment, view.show, stop, stop.defer)
    if stop():
        complain("stopped; what it ran was handed back")
    elif kept.is_reached():
        say(milestone_lines(summarise_trials(opened.study), kept.read())[-1])
    database.close()
    end_process(INTERRUPTED if stop() else 0)


class StopRequest:
    """Whether SIGINT, SIGTERM or SIGHUP came, those of them that are not ignored (`nohup` has it so).

    As long as the process holds no trial, they end it as they end any other, at once: by the kernel, for
    while TensorFlow is loaded Python would not hear them for seconds. After `defer` a first one is for the
    worker to hear. A second one, from a second later on, or no end in time, ends it in any case: the lease
    then runs out, and the trial goes on elsewhere.
    """

    def __init__(self) -> None:
        """No request yet, and none to be heard."""
        self._requested_at: float | None = None

    def __call__(self) -> bool:
        """Whether it came."""
        return self._requested_at is not None

    def defer(self) -> None:
        """From now on a request waits until the worker has handed back; call in the main thread."""
        # Python's handlers wait for the main thread, which may itself wait in a call for a dead network. The
        # byte in this pipe does not wait, and the thread behind it needs nobody.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        threading.Thread(target=_end_in_time, args=(reading,), name="stop", daemon=True).start()
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        now = time.monotonic()
        if self._requested_at is None:
            self._requested_at = now
        elif now - self._requested_at >= ECHO_SECONDS:
            os._exit(INTERRUPTED)


def _end_in_time(reading: int) -> None:
    """End the process some seconds after the first signal that stops it."""
    while os.read(reading, 1)[0] not in STOPPING:
        pass
    time.sleep(STOP_SECONDS)
    os._exit(INTERRUPTED)
