"""The views tell a running search as bars or as lines, and survive whatever they are told."""

import errno
import re
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from search.events import EpochEnded, Event, Notice, StepsDone, TrialEnded, TrialStarted
from search.line_view import LineView
from search.live_view import LiveView
from search.views import open_view
from trainer.recipe import Recipe
from trainer.state import EpochResult

RECIPE = Recipe(learning_rate=0.0012, optimizer="adam", epochs=12)


def terminal(width: int = 120, height: int = 24) -> Console:
    """A terminal whose output is kept; its size is given, so it asks no real one."""
    return Console(file=StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def log_file() -> Console:
    """What stderr is when it is not a terminal."""
    return Console(file=StringIO(), force_terminal=False, width=80)


def written(console: Console) -> str:
    """All that reached `console`."""
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def frame(view: LiveView, console: Console) -> list[str]:
    """The lines that the bars would take now."""
    with console.capture() as capture:
        console.print(view._live.get_renderable())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capture.get()).splitlines()


def epoch_ended(number: int = 3, epoch: int = 4, seconds: float = 10.0) -> EpochEnded:
    """An epoch with a loss of 1.123 and a validation accuracy of 61.2 %."""
    return EpochEnded(number, EpochResult(epoch, 1.123, 0.6, 1.1, 0.612, 0.0012, seconds))


def test_the_console_chooses_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets bars; a file, and a terminal that cannot move its cursor, get lines."""
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(open_view(terminal(), 5), LiveView)
    assert isinstance(open_view(log_file(), None), LineView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_view(terminal(), 5), LineView)


def test_lines_tell_the_whole_trial() -> None:
    """Start, epoch and end each give one line with all their numbers; steps give none."""
    console = log_file()
    with open_view(console, 50) as view:
        view.show(TrialStarted(3, RECIPE, 1))
        view.show(StepsDone(3, 4, 5, 10))
        view.show(epoch_ended())
        view.show(TrialEnded(3, "complete", 0.612, "", 0.612))
        view.show(TrialEnded(4, "pruned", None, "pruned after epoch 3", 0.612))
        view.show(TrialEnded(5, "failed", None, "out of\nmemory", 0.612))
    assert written(console).splitlines() == [
        "trial 3 started: adam lr 0.0012, dropout 0.30/0.30/0.40/0.30, batch 64, 12 epochs",
        "trial 3 epoch 4/12: loss 1.1230, accuracy 60.00 %, validation loss 1.1000, "
        "validation accuracy 61.20 %, 10.0 s",
        "trial 3 complete, validation accuracy 61.20 %; best so far 61.20 % (trial 3); 1 of 50 done",
        "trial 4 pruned after epoch 3; best so far 61.20 % (trial 3); 2 of 50 done",
        "trial 5 failed: out of memory; best so far 61.20 % (trial 3); 3 of 50 done",
    ]


def test_lines_say_where_a_trial_goes_on() -> None:
    """A trial that resumes from a checkpoint says at which epoch."""
    console = log_file()
    LineView(console, None).show(TrialStarted(3, RECIPE, 5))
    assert "goes on at epoch 5" in written(console)


def test_another_workers_best_has_no_number() -> None:
    """A best value that no trial seen here reached is shown without a trial."""
    console = log_file()
    LineView(console, None).show(TrialEnded(3, "complete", 0.6, "", 0.7))
    assert "best so far 70.00 %; 1 done" in written(console)


def test_no_best_is_shown_of_trials_that_are_not_ranked() -> None:
    """Those of a confirmation: who sees one could stop when it looks good."""
    console = log_file()
    LineView(console, 9, ranks=False).show(TrialEnded(3, "complete", 0.6, "", 0.6))
    assert written(console).endswith("; 1 of 9 done\n")
    assert "best" not in written(console)
    view = LiveView(terminal(), 9, ranks=False)
    view.show(TrialEnded(3, "complete", 0.6, "", 0.6))
    assert view._footer(100).plain.startswith("trials done 1/9 · ")


def test_a_trial_handed_back_is_not_done() -> None:
    """A trial that waits again counts only when it comes to its end."""
    console = log_file()
    view = LineView(console, 2)
    view.show(TrialEnded(3, "waiting", None, "", None))
    assert "best so far none yet; 0 of 2 done" in written(console)


def test_a_trial_that_another_worker_has_is_not_done() -> None:
    """It is out of sight here, and its best value is not known to have changed."""
    console = terminal(120)
    view = LiveView(console, 2)
    view.show(TrialEnded(2, "complete", 0.5, "", 0.5))
    view.show(TrialStarted(3, RECIPE, 1))
    view.show(TrialEnded(3, "taken", None, "another worker has it", None))
    [footer] = frame(view, console)
    assert "50.00 % (trial 2)" in footer and "trials done 1/2" in footer
    assert "trial 3  taken: another worker has it  " in written(console)
    log = log_file()
    LineView(log, 2).show(TrialEnded(3, "taken", None, "another worker has it", None))
    assert written(log) == "trial 3 taken: another worker has it; best so far none yet; 0 of 2 done\n"


NOTICE = "storage sqlite:///[a].db: disk [bold]full[/bold]; trying again for up to 600 s"


def test_notices_have_lines_of_their_own() -> None:
    """As they are, brackets included; bars and lines alike go on after them."""
    log, console = log_file(), terminal(120)
    LineView(log, None).show(Notice(NOTICE))
    assert written(log) == NOTICE + "\n"
    view = LiveView(console, None)
    view.show(TrialStarted(3, RECIPE, 1))
    view.show(Notice(NOTICE))
    assert NOTICE in written(console)
    assert frame(view, console)[0].startswith("trial 3")


def test_a_long_notice_is_cut_at_the_terminals_edge() -> None:
    """The bars below keep their places."""
    console = terminal(40)
    view = LiveView(console, None)
    view.show(Notice("x" * 100))
    [line] = written(console).splitlines()
    assert len(line) == 40 and line.endswith("…")


class GonePipe(StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        """Fail as the system does."""
        raise BrokenPipeError


def test_a_log_without_a_reader_does_not_end_the_search() -> None:
    """A broken pipe swallows the lines and nothing else."""
    with LineView(Console(file=GonePipe(), force_terminal=False), None) as view:
        view.show(TrialStarted(3, RECIPE, 1))
        view.show(Notice("gone"))


class GoneTerminal(StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        """Fail as the system does."""
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_went_away_does_not_end_the_search() -> None:
    """Neither by an ended trial's line nor by a notice."""
    view = LiveView(Console(file=GoneTerminal(), force_terminal=True, width=80), None)
    view.show(Notice("gone"))
    view.show(TrialEnded(3, "taken", None, "another worker has it", None))


def test_a_bar_tells_trial_epoch_numbers_and_time_left() -> None:
    """A wide bar has recipe, epoch, loss, accuracy, and the time left at the trial's own pace."""
    console = terminal(120)
    view = LiveView(console, 50)
    view.show(TrialStarted(3, RECIPE, 1))
    view.show(epoch_ended(epoch=4))
    view.show(StepsDone(3, 5, 5, 10))
    bar, footer = frame(view, console)
    assert bar.startswith("trial 3  adam lr 0.0012 · epoch 5/12 ")
    assert bar.rstrip().endswith("loss 1.123 · validation 61.2 % · 1:15 left")
    assert footer.startswith("best so far none yet — the article: 77-78 %") and "trials done 0/50" in footer


def test_a_bar_advances_within_an_epoch() -> None:
    """Steps fill the bar by the share of the epoch that they are."""
    view = LiveView(terminal(), None)
    view.show(TrialStarted(3, RECIPE, 3))
    fractions = []
    for done in (0, 5, 10):
        view.show(StepsDone(3, 3, done, 10))
        [seen] = view._board.running()
        fractions.append(seen.epochs_over())
    assert fractions == [2.0, 2.5, 3.0]


def test_the_footer_fills_the_gauge_up_to_the_band() -> None:
    """The gauge is empty without a result, part full below the band, and full within it."""
    filled = []
    for value in (None, 0.45, 0.77):
        console = terminal()
        view = LiveView(console, None)
        view.show(TrialEnded(1, "complete", value, "", value))
        [footer] = frame(view, console)
        filled.append((footer.count("━"), footer.count("─")))
    assert filled[0] == (0, 24) and filled[2] == (24, 0)
    assert 8 < filled[1][0] < 16


def test_ended_trials_leave_one_line() -> None:
    """An ended trial's bar goes and a line with state, value, epochs, seconds and recipe stays."""
    console = terminal(120)
    with LiveView(console, None) as view:
        view.show(TrialStarted(3, RECIPE, 1))
        for epoch in (1, 2):
            view.show(epoch_ended(epoch=epoch))
        view.show(TrialEnded(3, "complete", 0.612, "", 0.612))
        assert view._board.running() == []
    line = "trial 3  complete  61.20 %  2 epochs, 20 s  adam lr 0.0012, dropout 0.30/0.30/0.40/0.30"
    assert line in written(console)


@pytest.mark.parametrize(("width", "height"), [(120, 24), (80, 24), (80, 6), (40, 4), (20, 3)])
def test_the_bars_fit_the_terminal(width: int, height: int) -> None:
    """With more trials than rows, no line is wider and the bars are not taller than the terminal."""
    console = terminal(width, height)
    view = LiveView(console, 50)
    for number in range(30):
        view.show(TrialStarted(number, RECIPE, 1))
        view.show(epoch_ended(number))
    lines = frame(view, console)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert any("more running" in line for line in lines)


NUMBERS = st.integers(0, 2)
ACCURACIES = st.none() | st.floats()
EVENTS = st.one_of(
    st.builds(TrialStarted, NUMBERS, st.just(RECIPE), st.integers(1, 12)),
    st.builds(StepsDone, NUMBERS, st.integers(1, 20), st.integers(0, 20), st.integers(0, 10)),
    st.builds(
        EpochEnded,
        NUMBERS,
        st.builds(EpochResult, st.integers(1, 20), *[st.floats()] * 5, st.floats(0, 1e6)),
    ),
    st.builds(
        TrialEnded,
        NUMBERS,
        st.sampled_from(["complete", "waiting", "taken"]),
        ACCURACIES,
        st.text(),
        ACCURACIES,
    ),
    st.builds(Notice, st.text()),
)


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_no_order_of_events_breaks_a_view(events: list[Event]) -> None:
    """Trials joined late, ended twice, or with NaN in every field are shown as well as can be."""
    console, log = terminal(80), log_file()
    bars, lines = LiveView(console, None), LineView(log, None)
    for event in events:
        bars.show(event)
        lines.show(event)
        assert all(len(line) <= 80 for line in frame(bars, console))
    assert "\x1b" not in written(log) or any(
        "\x1b" in getattr(event, "note", getattr(event, "text", "")) for event in events
    )
