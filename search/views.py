"""A running search on the terminal: bars for who watches, plain lines for a log file."""

import contextlib
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.events import EpochEnded, Event, StepsDone, TrialEnded, TrialStarted
from search.report import BAND_PERCENT, STATE_STYLES, describe_dropouts, describe_optimizer
from trainer.article import BAND
from trainer.recipe import Recipe

FULL_WIDTH = 100
"""Columns from which a bar has room for the loss and for words in full."""
GAUGE_LOW = 0.10
"""Where the gauge toward the article's band starts: what guessing among ten classes gives."""
GAUGE_WIDTH = 24
"""Longest gauge, in columns."""
GAUGE_LEAST = 8
"""Shortest gauge that says anything; with less room there is none."""


@dataclass(frozen=True)
class _Seen:
    """What the events said of one running trial so far.

    Attributes:
        number: The trial's number.
        recipe: None for a trial whose start was not seen.
        epoch: The epoch in progress, from 1, or the last one after its end; 0 before any is known.
        fraction: How much of `epoch` is done, in [0, 1].
        trained: Epochs whose end was seen.
        seconds: What those took together.
        loss: Training loss of the last epoch that ended; None before.
        validation: Validation accuracy of the same epoch, in [0, 1].
    """

    number: int
    recipe: Recipe | None = None
    epoch: int = 0
    fraction: float = 0.0
    trained: int = 0
    seconds: float = 0.0
    loss: float | None = None
    validation: float | None = None

    def epochs_over(self) -> float:
        return max(self.epoch - 1 + self.fraction, 0.0)

    def seconds_left(self) -> float | None:
        """At the trial's own pace; None before its first epoch's end, and for an unknown recipe."""
        if self.recipe is None or not self.trained:
            return None
        return max(self.recipe.epochs - self.epochs_over(), 0.0) * self.seconds / self.trained


class _Board:
    """What a view knows, kept up event by event; any thread may call it, and any order of events is fine."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.done = 0
        self.best_value: float | None = None
        self.best_number: int | None = None
        self._running: dict[int, _Seen] = {}
        self._lock = threading.Lock()

    def update(self, event: Event) -> _Seen:
        """Take `event` in; gives what is known of its trial, for an ended one what was known to the last."""
        with self._lock:
            seen = self._running.get(event.number, _Seen(event.number))
            match event:
                case TrialStarted(recipe=recipe, first_epoch=first_epoch):
                    seen = _Seen(event.number, recipe, epoch=first_epoch)
                case StepsDone(epoch=epoch, done=done, total=total):
                    fraction = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
                    seen = replace(seen, epoch=epoch, fraction=fraction)
                case EpochEnded(result=result):
                    seen = replace(
                        seen,
                        epoch=result.epoch,
                        fraction=1.0,
                        trained=seen.trained + 1,
                        seconds=seen.seconds + result.seconds,
                        loss=result.loss,
                        validation=result.validation_accuracy,
                    )
                case TrialEnded():
                    self._end(event)
                    return seen
            self._running[event.number] = seen
            return seen

    def running(self) -> list[_Seen]:
        """The running trials, by number."""
        with self._lock:
            return sorted(self._running.values(), key=lambda seen: seen.number)

    def describe_best(self) -> str:
        """`71.30 % (trial 5)`; the trial is left out where another worker's is the best."""
        if self.best_value is None:
            return "none yet"
        trial = "" if self.best_number is None else f" (trial {self.best_number})"
        return f"{100 * self.best_value:.2f} %{trial}"

    def _end(self, event: TrialEnded) -> None:
        self._running.pop(event.number, None)
        # A trial that was handed back comes again: only its last end counts.
        self.done += event.state != "waiting"
        if event.best_value is not None and event.best_value != self.best_value:
            self.best_value = event.best_value
            self.best_number = event.number if event.value == event.best_value else None


class LiveView:
    """One bar per running trial over the best so far; a line stays for each trial that ended.

    A context manager: the bars appear when it is entered and are gone when it is left.
    """

    def __init__(self, console: Console, total: int | None) -> None:
        """Nothing is drawn before the view is entered.

        Args:
            console: Where to draw; a terminal.
            total: How many trials this view is to see end; None where nobody knows.
        """
        self._console = console
        self._board = _Board(total)
        self._began = time.monotonic()
        # stdout carries results and may be a file: only what is logged to stderr is moved above the bars.
        self._live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        """Show the bars."""
        self._began = time.monotonic()
        # A terminal that went away (OSError) must not take the search with it, here and below.
        with contextlib.suppress(OSError):
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bars away and leave the last line standing."""
        with contextlib.suppress(OSError):
            self._live.stop()
            self._print(self._footer(self._console.width))

    def show(self, event: Event) -> None:
        """Take `event` in; the bars are redrawn a few times a second, not for every event."""
        seen = self._board.update(event)
        if isinstance(event, TrialEnded):
            with contextlib.suppress(OSError):
                self._print(_ended_text(event, seen))

    def _print(self, line: RenderableType) -> None:
        self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def _render(self) -> RenderableType:
        # One line is the footer's, one may count the bars that have no room, one is the cursor's.
        room = max(self._console.height - 3, 1)
        running = self._board.running()
        parts: list[RenderableType] = [_bars(running[:room], self._console.width)] if running else []
        if len(running) > room:
            parts.append(Text(f"{len(running) - room} more running", style="dim"))
        return Group(*parts, self._footer(self._console.width))

    def _footer(self, width: int) -> Text:
        """The best so far against the article's band, the trials done and the time used, in one line."""
        board = self._board
        of_total = "" if board.total is None else f"/{board.total}"
        done = f"trials done {board.done}{of_total}"
        used = _clock_text(time.monotonic() - self._began)
        full = width >= FULL_WIDTH
        best = Text.assemble(
            "best so far " if full else "best ",
            (board.describe_best(), "bold"),
            (f" — the article: {BAND_PERCENT} " if full else f" — article {BAND_PERCENT} ", "dark_orange3"),
        )
        end = f" {done} · {used}"
        gauge = min(GAUGE_WIDTH, width - best.cell_len - len(end) - 1)
        if gauge >= GAUGE_LEAST:
            best.append_text(_gauge(board.best_value, gauge))
        best.append(end, style="dim")
        return _one_line(best)


class LineView:
    """One plain line when a trial starts, for each epoch, and when it ends."""

    def __init__(self, console: Console, total: int | None) -> None:
        """Nothing is written before the first event.

        Args:
            console: Where to write; its file is written to directly.
            total: As for `LiveView`.
        """
        self._console = console
        self._board = _Board(total)
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
        return f"best so far {board.describe_best()}; {board.done}{of_total} done"

    def _write(self, line: str) -> None:
        # Past rich, which wraps at the console's width and ends the process when a pipe's reader has gone:
        # `cnn-search run 2>&1 | head` should still finish its search. ValueError is a closed file.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._console.file.write(line + "\n")
            self._console.file.flush()


def open_view(console: Console, total: int | None) -> LiveView | LineView:
    """The view that fits `console`: bars on a terminal that can move its cursor, else lines."""
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveView(console, total) if live else LineView(console, total)


def _bars(running: Sequence[_Seen], width: int) -> Table:
    """A row per trial: what it is and where it stands, its bar, its last numbers."""
    full = width >= FULL_WIDTH
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1, min_width=6)
    table.add_column(no_wrap=True, overflow="ellipsis", justify="right")
    for seen in running:
        table.add_row(_bar_label(seen), _bar(seen), _bar_numbers(seen, full))
    return table


def _bar_label(seen: _Seen) -> Text:
    total = "" if seen.recipe is None else f"/{seen.recipe.epochs}"
    recipe = "" if seen.recipe is None else f"  {describe_optimizer(seen.recipe)}"
    epoch = f" · epoch {seen.epoch}{total}" if seen.epoch else ""
    return Text.assemble((f"trial {seen.number}", "bold"), recipe, epoch)


def _bar(seen: _Seen) -> ProgressBar:
    total = float(seen.recipe.epochs) if seen.recipe is not None else float(max(seen.epoch, 1))
    return ProgressBar(total=total, completed=min(seen.epochs_over(), total))


def _bar_numbers(seen: _Seen, full: bool) -> Text:
    parts = []
    if full and seen.loss is not None:
        parts.append(f"loss {seen.loss:.3f}")
    if seen.validation is not None:
        parts.append(f"{'validation ' if full else 'val '}{100 * seen.validation:.1f} %")
    left = seen.seconds_left()
    if left is not None:
        parts.append(f"{_clock_text(left)} left")
    return Text(" · ".join(parts))


def _gauge(value: float | None, width: int) -> Text:
    """A line from guessing to the band's upper end, filled up to `value`, with the band in its own colour."""
    step = (BAND[1] - GAUGE_LOW) / width
    gauge = Text()
    for cell in range(width):
        end = GAUGE_LOW + (cell + 1) * step
        # The band is narrower than a cell: the cells that touch it are all but the ones that end below it.
        in_band = end > BAND[0]
        reached = value is not None and value >= (BAND[0] if in_band else end)
        colour = "dark_orange3" if in_band else "blue"
        gauge.append("━" if reached else "─", style=f"bold {colour}" if reached else f"dim {colour}")
    return gauge


def _ended_text(event: TrialEnded, seen: _Seen) -> Text:
    """The line that stays of an ended trial; what this view did not see is left out."""
    line = Text.assemble((f"trial {event.number}", "bold"), "  ")
    # The note comes early: a narrow terminal cuts the line's end off, and a failure's reason matters most.
    line.append(_outcome(event), style=STATE_STYLES.get(event.state, ""))
    value = event.value if event.value is not None else seen.validation
    if value is not None:
        percent = f"{100 * value:.2f} %"
        line.append(f"  {percent if event.value is not None else f'({percent})'}")
    if seen.trained:
        line.append(f"  {math.floor(seen.epochs_over())} epochs, {seen.seconds:.0f} s")
    if seen.recipe is not None:
        recipe = f"  {describe_optimizer(seen.recipe)}, dropout {describe_dropouts(seen.recipe)}"
        line.append(recipe, style="dim")
    return _one_line(line)


def _one_line(text: Text) -> Text:
    """`text`, to be cut at the terminal's edge instead of wrapped."""
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


def _started_line(event: TrialStarted) -> str:
    recipe = event.recipe
    on = f", goes on at epoch {event.first_epoch}" if event.first_epoch > 1 else ""
    return (
        f"trial {event.number} started: {describe_optimizer(recipe)}, dropout {describe_dropouts(recipe)}, "
        f"batch {recipe.batch_size}, {recipe.epochs} epochs{on}"
    )


def _epoch_line(event: EpochEnded, seen: _Seen) -> str:
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
    return f"trial {event.number} {_outcome(event)}{value}"


def _outcome(event: TrialEnded) -> str:
    """The state and the note in one line, without saying "pruned: pruned after epoch 3"."""
    note = " ".join(event.note.split())
    if not note or note.startswith(event.state):
        return note or event.state
    return f"{event.state}: {note}"


def _clock_text(seconds: float) -> str:
    """`1:23` or `2:01:23`."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
