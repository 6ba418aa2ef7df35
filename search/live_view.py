"""A running search on a terminal: a bar for each trial over the best so far."""

import contextlib
import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.board import Board, Seen, describe_outcome
from search.events import Event, Notice, TrialEnded
from search.recipe_words import describe_beyond, describe_dropouts, describe_optimizer
from search.report import BAND_PERCENT, STATE_STYLES
from search.summary import TrialSummary
from trainer.article import BAND

FULL_WIDTH = 100
"""Columns from which a bar has room for the loss and for words in full."""
GAUGE_LOW = 0.10
"""Where the gauge toward the article's band starts: what guessing among ten classes gives."""
GAUGE_WIDTH = 24
"""Longest gauge, in columns."""
GAUGE_LEAST = 8
"""Shortest gauge that says anything; with less room there is none."""


class LiveView:
    """One bar per running trial over the best so far; a line stays for each trial that ended.

    A context manager: the bars appear when it is entered and are gone when it is left.
    """

    def __init__(
        self, console: Console, total: int | None, best: TrialSummary | None = None, *, ranks: bool = True
    ) -> None:
        """Nothing is drawn before the view is entered.

        Args:
            console: Where to draw; a terminal.
            total: How many trials this view is to see end; None where nobody knows.
            best: The best trial of the study before.
            ranks: Whether to show the best so far.
        """
        self._console = console
        self._board = Board(total, best, ranks=ranks)
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
        if isinstance(event, Notice):
            with contextlib.suppress(OSError):
                self._print(one_line(Text(event.text, style="yellow")))
            return
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
        used = clock_text(time.monotonic() - self._began)
        if not board.ranks:
            return one_line(Text(f"{done} · {used}", style="dim"))
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
        return one_line(best)


def _bars(running: Sequence[Seen], width: int) -> Table:
    """A row per trial: what it is and where it stands, its bar, its last numbers."""
    full = width >= FULL_WIDTH
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1, min_width=6)
    table.add_column(no_wrap=True, overflow="ellipsis", justify="right")
    for seen in running:
        table.add_row(_bar_label(seen), _bar(seen), _bar_numbers(seen, full))
    return table


def _bar_label(seen: Seen) -> Text:
    total = "" if seen.recipe is None else f"/{seen.recipe.epochs}"
    recipe = "" if seen.recipe is None else f"  {describe_optimizer(seen.recipe)}"
    epoch = f" · epoch {seen.epoch}{total}" if seen.epoch else ""
    return Text.assemble((f"trial {seen.number}", "bold"), recipe, epoch)


def _bar(seen: Seen) -> ProgressBar:
    total = float(seen.recipe.epochs) if seen.recipe is not None else float(max(seen.epoch, 1))
    return ProgressBar(total=total, completed=min(seen.epochs_over(), total))


def _bar_numbers(seen: Seen, full: bool) -> Text:
    parts = []
    if full and seen.loss is not None:
        parts.append(f"loss {seen.loss:.3f}")
    if seen.validation is not None:
        parts.append(f"{'validation ' if full else 'val '}{100 * seen.validation:.1f} %")
    left = seen.seconds_left()
    if left is not None:
        parts.append(f"{clock_text(left)} left")
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


def _ended_text(event: TrialEnded, seen: Seen) -> Text:
    """The line that stays of an ended trial; what this view did not see is left out."""
    line = Text.assemble((f"trial {event.number}", "bold"), "  ")
    # The note comes early: a narrow terminal cuts the line's end off, and a failure's reason matters most.
    line.append(describe_outcome(event), style=STATE_STYLES.get(event.state, ""))
    value = event.value if event.value is not None else seen.validation
    if value is not None:
        percent = f"{100 * value:.2f} %"
        line.append(f"  {percent if event.value is not None else f'({percent})'}")
    if seen.trained:
        line.append(f"  {math.floor(seen.epochs_over())} epochs, {seen.seconds:.0f} s")
    if seen.recipe is not None:
        recipe = [describe_optimizer(seen.recipe), f"dropout {describe_dropouts(seen.recipe)}"]
        beyond = describe_beyond(seen.recipe)
        line.append(f"  {', '.join([*recipe, beyond] if beyond else recipe)}", style="dim")
    return one_line(line)


def one_line(text: Text) -> Text:
    """`text`, to be cut at the terminal's edge instead of wrapped."""
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


def clock_text(seconds: float) -> str:
    """`1:23` or `2:01:23`."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
