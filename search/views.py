"""Which view of a running search fits a console."""

from rich.console import Console

from search.line_view import LineView
from search.live_view import LiveView
from search.summary import TrialSummary


def open_view(
    console: Console, total: int | None, best: TrialSummary | None = None, *, ranks: bool = True
) -> LiveView | LineView:
    """The view that fits `console`: bars on a terminal that can move its cursor, else lines.

    Args:
        console: Where to show the search.
        total: How many trials the view is to see end; None where nobody knows.
        best: The best trial of the study before.
        ranks: Whether to show the best so far.
    """
    live = console.is_terminal and not console.is_dumb_terminal
    return (LiveView if live else LineView)(console, total, best, ranks=ranks)
