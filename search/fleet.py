"""Worker processes on this machine: started, listened to, stopped, and cleaned up after."""

import contextlib
import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Final

from search.assignment import Assignment, carry_out
from search.events import Event, Notice, TrialEnded
from search.study import OpenStudy
from storage.outages import DATABASE_ERRORS, Retries, explain

STOP_SECONDS: Final = 8.0
"""What workers get to hand back; service managers kill ten seconds after they ask."""
TAKE_BACK_SECONDS: Final = 5.0
"""How long the parent tries to take back what a dead worker had: twice, where the server was restarted."""


@dataclass(frozen=True)
class WorkerFailed:
    """A worker process died: why, in a line, and the traceback where there is one."""

    worker: int
    reason: str
    traceback: str = ""


@dataclass
class _Member:
    """A worker process as its parent sees it."""

    index: int
    process: SpawnProcess
    pipe: Connection


@dataclass
class Stop:
    """How urgently the fleet is to stop: set from a signal handler, read by the loop."""

    requests: int = 0
    since: float = 0.0

    def request(self, *_: object) -> None:
        """One more request; the second one kills."""
        if not self.requests:
            self.since = time.monotonic()
        self.requests += 1

    def is_overdue(self) -> bool:
        """Whether the first request was so long ago that what still runs must be killed."""
        return self.requests > 0 and time.monotonic() - self.since > STOP_SECONDS


def run_fleet(
    opened: OpenStudy, assignment: Assignment, workers: int, show: Callable[[Event | WorkerFailed], None]
) -> Stop:
    """Run `workers` worker processes to their end, showing what they tell.

    SIGINT, SIGTERM and SIGHUP make the workers hand back their trials and end; a second one kills them, and
    so does time. In any case, a trial that a dead worker leaves is handed back here. Call from the main
    thread.

    Args:
        opened: The study, for handing back.
        assignment: What each worker is to do.
        workers: How many, at least 1.
        show: Told each event, in the parent.

    Returns:
        How often it was asked to stop.
    """
    stop = Stop()
    with _catching_signals(stop) as ignoring:
        with ignoring():
            members = [_start(assignment, index) for index in range(workers)]
        told = 0
        try:
            while members:
                for pipe in wait([member.pipe for member in members], timeout=0.2):
                    member = next(member for member in members if member.pipe is pipe)
                    if not _listen(member, show):
                        members.remove(member)
                        _bury(member, opened, show, stop)
                if stop.requests > told:
                    told = stop.requests
                    for member in members:
                        _urge(member, kill=told > 1)
                elif stop.is_overdue():
                    for member in members:
                        _urge(member, kill=True)
        finally:
            # Only an exception leaves any. At the end of their pipes they hand back what they run and end.
            for member in members:
                member.pipe.close()
            for member in members:
                member.process.join()
    return stop


def _start(assignment: Assignment, index: int) -> _Member:
    # Fresh interpreters: TensorFlow does not survive a fork. A pipe each, and nothing shared, so that a
    # process that is killed can leave no lock taken.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(assignment, index, theirs), name=f"worker-{index}")
    process.start()
    theirs.close()
    return _Member(index, process, ours)


def _listen(member: _Member, show: Callable[[Event | WorkerFailed], None]) -> bool:
    """Take one message; False at the end of the worker."""
    try:
        event = member.pipe.recv()
    except (EOFError, OSError):
        # OSError where a killed worker had sent half a message.
        return False
    show(event)
    return True


def _bury(
    member: _Member,
    opened: OpenStudy,
    show: Callable[[Event | WorkerFailed], None],
    stop: Stop,
) -> None:
    member.process.join()
    member.pipe.close()
    code = member.process.exitcode or 0
    if code < 0:
        show(WorkerFailed(member.index, f"killed by {signal.Signals(-code).name}"))
    retries = Retries(opened.database.shown_url, TAKE_BACK_SECONDS, lambda: stop.requests > 0)
    # Killed because it was told to stop and did not in time: no fault of its trial's.
    reap = partial(opened.leases().reap, expired=False, blameless=stop.requests > 0)
    try:
        # A process that ended stays so, however long this takes.
        for taken in retries.run(reap):
            if taken.companion is not None:
                # Views know a trial by its number in the study that they show.
                show(Notice(f"{taken}: {taken.reason}; {'failed' if taken.failed else 'it waits'}"))
                continue
            show(TrialEnded(taken.number, "failed" if taken.failed else "waiting", None, taken.reason, None))
    except DATABASE_ERRORS as error:
        show(
            Notice(f"its trial could not be taken back: {explain(error)}; others do when its lease runs out")
        )


def _urge(member: _Member, *, kill: bool) -> None:
    if kill:
        member.process.kill()
        return
    try:
        member.pipe.send("stop")
    except (BrokenPipeError, ConnectionResetError):
        # It has just ended by itself.
        return


@contextmanager
def _catching_signals(stop: Stop) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Count signals instead of dying from them; yields a context in which new processes ignore them."""
    # `nohup` ignores one of them, and means it.
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop.request) for number in numbers}

    @contextmanager
    def ignoring() -> Iterator[None]:
        # Terminals and service managers signal the children too, who are told by their pipe. What is ignored
        # at a process's start stays ignored through its imports, where no handler of ours could be.
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, stop.request)

    try:
        yield ignoring
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(assignment: Assignment, index: int, pipe: Connection) -> None:
    """The body of a worker process."""
    try:
        sending = threading.Lock()

        def tell(event: Event) -> None:
            # The thread that keeps the leases tells too.
            with sending:
                _tell(pipe, event)

        # Readable means that the parent says stop, or that it is no more.
        carry_out(assignment, tell, pipe.poll)
    # The outermost frame of a process: whatever it is, the parent is told.
    except Exception as error:  # noqa: BLE001
        reason = f"{type(error).__name__}: {explain(error)}"
        _tell(pipe, WorkerFailed(index, reason, traceback.format_exc()))
        raise SystemExit(1) from None


def _tell(pipe: Connection, message: Event | WorkerFailed) -> None:
    # Where the parent is no more, so is whoever could be told; the worker sees it at its next `must_stop`.
    with contextlib.suppress(OSError):
        pipe.send(message)
