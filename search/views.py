"""Which view of a running search fits a console."""

from rich.console import Console

from search.line_view import LineView
from search.live_view import LiveView


def open_view(console: Console, total: int | None) -> LiveView | LineView:
    """The view that fits `console`: bars on a terminal that can move its cursor, else lines."""
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveView(console, total) if live else LineView(console, total)
