"""A round on a terminal: two tables between its sentences."""

from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from search.confirm.report import RoundReport, points_text, recipe_name
from search.confirm.words import plan_lines, test_lines, verdict_lines

MOST_COLUMNS: Final = 6
"""Recipes up to which a table of all seeds fits into 80 columns."""


def round_parts(report: RoundReport) -> list[RenderableType]:
    """The round from top to bottom."""
    plan = report.plan
    parts: list[RenderableType] = ["\n".join(plan_lines(report)), "", means_table(report), ""]
    parts += [seeds_table(report), ""] if len(plan.recipes()) <= MOST_COLUMNS else []
    lines = verdict_lines(report)
    style = "bold green" if report.is_won else "bold"
    parts.append(Text(lines[0], style=style))
    parts.append("\n".join([*lines[1:], *test_lines(report)]))
    return parts


def means_table(report: RoundReport) -> Table:
    """A row for each recipe: its value in the search, its mean now, and its distance to the reference."""
    plan, verdict = report.plan, report.round.verdict
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    together = f" for all {len(plan.candidates)}" if len(plan.candidates) > 1 else ""
    headers = ["", "in the\nsearch %", "mean of\nseeds %", "95 %\ninterval"]
    if plan.reference is not None:
        headers += ["minus the\narticle's", f"95 %\ninterval{together}"]
    for header in headers:
        table.add_column(header, justify="right" if header else "left", no_wrap=True, vertical="bottom")
    for index in range(len(plan.recipes())):
        is_candidate = index < len(plan.candidates)
        known = [value for value in report.standing.values(index) if value is not None]
        cells = [
            recipe_name(plan, index),
            f"{100 * plan.candidates[index].value:.2f}" if is_candidate else "",
            f"{100 * sum(known) / len(known):.2f}" if known else "-",
        ]
        mean, difference = report.mean(index), report.difference(index)
        cells.append("-" if mean is None else f"{100 * mean.low:.2f} to {100 * mean.high:.2f}")
        if plan.reference is not None:
            cells.append("" if difference is None else f"{100 * difference.mean:+.2f}")
            cells.append("" if difference is None else points_text(difference))
        is_winner = report.is_won and verdict is not None and verdict.winner == index
        table.add_row(*cells, style="bold green" if is_winner else "")
    return table


def seeds_table(report: RoundReport) -> Table:
    """A row for each seed: the validation accuracy of each recipe on it, or why there is none."""
    plan = report.plan
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("seed", justify="right", no_wrap=True)
    for index in range(len(plan.recipes())):
        table.add_column(recipe_name(plan, index), justify="right", no_wrap=True)
    for at, seed in enumerate(plan.seeds):
        outcomes = [outcomes[at] for outcomes in report.standing.outcomes]
        table.add_row(
            str(seed),
            *(one.state if one.value is None else f"{100 * one.value:.2f}" for one in outcomes),
        )
    return table
