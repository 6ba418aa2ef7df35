"""A running search as plain lines, for a log file."""

import contextlib
import threading
from types import TracebackType
from typing import Self

from rich.console import Console

from search.board import Board, Seen, describe_outcome
from search.events import EpochEnded, Event, Notice, TrialEnded, TrialStarted
from search.recipe_words import describe_beyond, describe_dropouts, describe_optimizer
from search.summary import TrialSummary


class LineView:
    """One plain line when a trial starts, for each epoch, and when it ends."""

    def __init__(
        self, console: Console, total: int | None, best: TrialSummary | None = None, *, ranks: bool = True
    ) -> None:
        """Nothing is written before the first event.

        Args:
            console: Where to write; its file is written to directly.
            total: As for `LiveView`.
            best: As for `LiveView`.
            ranks: As for `LiveView`.
        """
        self._console = console
        self._board = Board(total, best, ranks=ranks)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Nothing to set up."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to take down."""

    def show(self, event: Event) -> None:
        """Write the line that `event` deserves, if any."""
        if isinstance(event, Notice):
            self._write(event.text)
            return
        seen = self._board.update(event)
        match event:
            case TrialStarted():
                self._write(_started_line(event))
            case EpochEnded():
                self._write(_epoch_line(event, seen))
            case TrialEnded():
                self._write(f"{_ended_line(event)}; {self._progress()}")

    def _progress(self) -> str:
        board = self._board
        of_total = "" if board.total is None else f" of {board.total}"
        best = f"best so far {board.describe_best()}; " if board.ranks else ""
        return f"{best}{board.done}{of_total} done"

    def _write(self, line: str) -> None:
        # Past rich, which wraps at the console's width and ends the process when a pipe's reader has gone:
        # `cnn-search run 2>&1 | head` should still finish its search. ValueError is a closed file.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._console.file.write(line + "\n")
            self._console.file.flush()


def _started_line(event: TrialStarted) -> str:
    recipe = event.recipe
    on = f", goes on at epoch {event.first_epoch}" if event.first_epoch > 1 else ""
    beyond = describe_beyond(recipe, batch=False)
    return (
        f"trial {event.number} started: {describe_optimizer(recipe)}, dropout {describe_dropouts(recipe)}, "
        f"batch {recipe.batch_size}, {f'{beyond}, ' if beyond else ''}{recipe.epochs} epochs{on}"
    )


def _epoch_line(event: EpochEnded, seen: Seen) -> str:
    result = event.result
    total = "" if seen.recipe is None else f"/{seen.recipe.epochs}"
    return (
        f"trial {event.number} epoch {result.epoch}{total}: "
        f"loss {result.loss:.4f}, accuracy {100 * result.accuracy:.2f} %, "
        f"validation loss {result.validation_loss:.4f}, "
        f"validation accuracy {100 * result.validation_accuracy:.2f} %, {result.seconds:.1f} s"
    )


def _ended_line(event: TrialEnded) -> str:
    value = "" if event.value is None else f", validation accuracy {100 * event.value:.2f} %"
    return f"trial {event.number} {describe_outcome(event)}{value}"
