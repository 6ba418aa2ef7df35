"""A running baseline: a bar on a terminal, or plain lines in a log."""

import contextlib
import time
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.baseline.events import BaselineEvent, SeedEpoch, SeedScored, SeedStarted, SeedSteps
from search.events import Event, Notice
from search.live_view import FULL_WIDTH, clock_text, one_line
from trainer.article import ARTICLE_RESULTS
from trainer.state import EpochResult


class BaselineView:
    """The run of the seed that trains, its last numbers, and the time that all seeds still take.

    A context manager: on a terminal that can move its cursor a bar appears when it is entered and is gone
    when it is left, and a line stays for each score; elsewhere each epoch is a line too.
    """

    def __init__(self, console: Console, epochs_left: int) -> None:
        """Nothing is shown before the first event.

        Args:
            console: Where to show it.
            epochs_left: How many epochs are to be trained, over all seeds.
        """
        self._console, self._left = console, epochs_left
        self._began, self._trained, self._seconds = time.monotonic(), 0, 0.0
        self._started: SeedStarted | None = None
        self._epoch, self._share = 0, 0.0
        self._last: EpochResult | None = None
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            # stdout carries results and may be a file.
            self._live = Live(
                get_renderable=self._render,
                console=console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            )

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._live is not None:
            # A terminal that went away (OSError) must not take the training with it, here and below.
            with contextlib.suppress(OSError):
                self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()

    def show(self, event: BaselineEvent | Event) -> None:
        """Take `event` in, and tell what it deserves; trials of a study are not shown."""
        match event:
            case SeedStarted():
                self._started, self._last = event, None
                self._epoch, self._share = event.first_epoch, 0.0
                on = f", goes on at epoch {event.first_epoch}" if event.first_epoch > 1 else ""
                self._tell(f"seed {event.seed}: {event.last_epoch} epochs{on}")
            case SeedSteps():
                self._epoch, self._share = event.epoch, event.done / event.total
            case SeedEpoch(result=result):
                self._epoch, self._share, self._last = result.epoch + 1, 0.0, result
                self._left -= 1
                self._trained += 1
                self._seconds += result.seconds
                if self._live is None:
                    self._tell(self._epoch_line(event))
            case SeedScored():
                self._tell(_score_line(event))
            case Notice(text=text):
                self._tell(text)

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._live is not None:
                self._console.print(one_line(Text(line)), crop=True)
                return
            # Past rich, which wraps at the console's width and ends the process when a pipe's reader is gone.
            self._console.file.write(f"{line}\n")
            self._console.file.flush()

    def _epoch_line(self, event: SeedEpoch) -> str:
        result = event.result
        last = "" if self._started is None else f"/{self._started.last_epoch}"
        return (
            f"seed {event.seed} epoch {result.epoch}{last}: "
            f"loss {result.loss:.4f}, accuracy {100 * result.accuracy:.2f} %, "
            f"validation loss {result.validation_loss:.4f}, "
            f"validation accuracy {100 * result.validation_accuracy:.2f} %, {result.seconds:.1f} s"
        )

    def _render(self) -> RenderableType:
        started = self._started
        if started is None:
            return Text(f"starting · {clock_text(time.monotonic() - self._began)}", style="dim")
        full = self._console.width >= FULL_WIDTH
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1, min_width=6)
        table.add_column(no_wrap=True, overflow="ellipsis", justify="right")
        epoch = min(self._epoch, started.last_epoch)
        label = Text.assemble((f"seed {started.seed}", "bold"), f" · epoch {epoch}/{started.last_epoch}")
        over = min(self._epoch - 1 + self._share, float(started.last_epoch))
        table.add_row(
            label, ProgressBar(total=float(started.last_epoch), completed=over), self._numbers(full)
        )
        return table

    def _numbers(self, full: bool) -> Text:
        parts = []
        if self._last is not None:
            if full:
                parts.append(f"loss {self._last.loss:.3f}")
            name = "validation" if full else "val"
            parts.append(f"{name} {100 * self._last.validation_accuracy:.1f} %")
        if self._trained:
            seconds = max(self._left - self._share, 0.0) * self._seconds / self._trained
            parts.append(f"{clock_text(seconds)} left")
        else:
            parts.append(clock_text(time.monotonic() - self._began))
        return Text(" · ".join(parts))


def _score_line(event: SeedScored) -> str:
    score = event.score
    article = next((result for result in ARTICLE_RESULTS if result.epochs == score.epoch), None)
    theirs = "" if article is None else f" (the article: {article.percent:.2f} %, {article.loss:.3f})"
    return (
        f"seed {event.seed}, {score.epoch} epochs: "
        f"test {100 * score.test.accuracy:.2f} %, loss {score.test.loss:.4f}{theirs}; "
        f"validation {100 * score.validation.accuracy:.2f} %; {score.file}"
    )
