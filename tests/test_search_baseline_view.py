"""The view of a running baseline: a bar or lines, and it survives what it is told and where."""

import io
import re

import pytest
from rich.console import Console
from test_search_views import log_file, terminal, written

from search.baseline.events import BaselineEvent, SeedEpoch, SeedScored, SeedStarted, SeedSteps
from search.baseline.record import ModelScore, SplitScore
from search.baseline.view import BaselineView
from search.events import Notice, StepsDone
from trainer.state import EpochResult

SCORED = SeedScored(
    0, ModelScore(100, SplitScore(0.681, 0.768, 10_000), SplitScore(0.66, 0.772, 10_000), "m.h5", "0" * 64)
)


def epoch_ended(epoch: int, seconds: float = 10.0) -> SeedEpoch:
    """An epoch with a loss of 1.123 and a validation accuracy of 61.2 %."""
    return SeedEpoch(0, EpochResult(epoch, 1.123, 0.6, 1.1, 0.612, 0.01, seconds))


def frame(view: BaselineView, console: Console) -> str:
    """The bar as it would be drawn now."""
    assert view._live is not None
    with console.capture() as capture:
        console.print(view._live.get_renderable())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capture.get())


def test_lines_tell_the_whole_run() -> None:
    """Start, epochs, scores and notices give one line each with all their numbers; steps give none."""
    console = log_file()
    with BaselineView(console, 150) as view:
        view.show(Notice("training on the CPU"))
        view.show(SeedStarted(0, 99, 150))
        view.show(SeedSteps(0, 99, 50, 625))
        view.show(epoch_ended(99))
        view.show(SCORED)
        view.show(SeedStarted(1, 1, 150))
    assert written(console).splitlines() == [
        "training on the CPU",
        "seed 0: 150 epochs, goes on at epoch 99",
        "seed 0 epoch 99/150: loss 1.1230, accuracy 60.00 %, validation loss 1.1000, "
        "validation accuracy 61.20 %, 10.0 s",
        "seed 0, 100 epochs: test 76.80 %, loss 0.6810 (the article: 77.37 %, 0.670); "
        "validation 77.20 %; m.h5",
        "seed 1: 150 epochs",
    ]


@pytest.mark.parametrize("width", [100, 60])
def test_the_bar_shows_epoch_numbers_and_the_time_of_all_seeds(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """20 epochs left after 2 of 10 s each: 200 s, less what the running one has done."""
    monkeypatch.setenv("TERM", "xterm-256color")
    console = terminal(width)
    view = BaselineView(console, 22)
    assert "starting" in frame(view, console)
    view.show(SeedStarted(0, 1, 11))
    view.show(epoch_ended(1))
    view.show(epoch_ended(2))

    assert "3:20 left" in frame(view, console)
    view.show(SeedSteps(0, 3, 300, 600))
    shown = frame(view, console)
    assert "seed 0 · epoch 3/11" in shown
    assert "3:15 left" in shown
    assert ("validation 61.2 %" if width >= 100 else "val 61.2 %") in shown
    assert len(shown.splitlines()) == 1
    assert len(shown.rstrip("\n")) <= width


def test_scores_stay_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs don't: the bar has them."""
    monkeypatch.setenv("TERM", "xterm-256color")
    console = terminal(120)
    with BaselineView(console, 150) as view:
        view.show(SeedStarted(0, 1, 150))
        view.show(epoch_ended(99))
        view.show(SCORED)
    text = written(console)
    assert "seed 0, 100 epochs: test 76.80 %" in text
    assert "accuracy 60.00 %" not in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_where_nobody_looks_any_more_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    """A terminal that is gone, or a pipe whose reader is."""
    monkeypatch.setenv("TERM", "xterm-256color")

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    events: list[BaselineEvent] = [SeedStarted(0, 1, 3), epoch_ended(1), SCORED, Notice("x")]
    view = BaselineView(Console(file=Gone(), force_terminal=is_terminal, width=80), 3)
    for event in events:
        view.show(event)


def test_the_trials_of_a_study_are_none_of_its_business() -> None:
    """Devices tell in the same words, and notices alone are shown."""
    console = log_file()
    BaselineView(console, 3).show(StepsDone(0, 1, 1, 2))
    assert written(console) == ""
