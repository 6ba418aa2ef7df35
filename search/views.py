"""Which view of a running search fits a console."""

from rich.console import Console

from search.line_view import LineView
from search.live_view import LiveView
from search.summary import TrialSummary


def open_view(console: Console, total: int | None, best: TrialSummary | None = None) -> LiveView | LineView:
    """The view that fits `console`: bars on a terminal that can move its cursor, else lines.

    Args:
        console: Where to show the search.
        total: How many trials the view is to see end; None where nobody knows.
        best: The best trial of the study before.
    """
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveView(console, total, best) if live else LineView(console, total, best)
