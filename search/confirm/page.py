"""A round as one self-contained HTML page: its sentences, a figure of every seed, its tables."""

import html
from collections.abc import Sequence
from typing import Any, Final

from search.confirm.report import RoundReport, points_text, recipe_name
from search.confirm.statistics import Interval
from search.confirm.words import plan_lines, test_lines, verdict_lines
from search.progress_layout import ARTICLE_COLOUR, FAINT_INK, FONT, GRID, INK

SEED_COLOUR: Final = "#94a3b8"
CANDIDATE_COLOUR: Final = "#60a5fa"
WINNER_COLOUR: Final = "#2563eb"
SPREAD: Final = 0.6
"""The seeds of a recipe stand side by side over so much of its place, the same seed at the same spot."""
MEAN_PLACE: Final = 0.32
"""Its mean stands so far to the right of the place's middle."""
SEEDS_PLACE: Final = -0.12
"""And the middle of its seeds there."""
MOST_LINES: Final = 12
"""Seeds up to which a line joins the points of each; more would be a thicket."""


def confirm_page(report: RoundReport) -> str:
    """The page, of about 5 MB: plotly comes with it."""
    from plotly.graph_objects import Figure  # type: ignore[import-untyped]  # plotly ships no types

    figure = Figure(draw_round(report))
    figure.layout.template = None
    plot = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="confirm",
        config={"responsive": True, "displaylogo": False},
    )
    plan = report.plan
    title = f"{plan.study}: confirming the best, round {plan.round}"
    first, *others = verdict_lines(report)
    about, *recipes = plan_lines(report)
    return _PAGE.format(
        title=html.escape(title),
        verdict=html.escape(first),
        won="won" if report.is_won else "",
        others=_paragraph([*others, *test_lines(report)]),
        about=html.escape(about),
        recipes="".join(f"<li>{html.escape(line.strip())}</li>" for line in recipes),
        plot=plot,
        table=_table(report),
    )


def draw_round(report: RoundReport) -> dict[str, Any]:
    """Every seed's accuracy, means and differences with their intervals, as plotly's JSON without template.

    The differences have a second panel, with a line at 0, where there is a reference and a verdict.
    """
    plan, verdict = report.plan, report.round.verdict
    names = [recipe_name(plan, index) for index in range(len(plan.recipes()))]
    data = [*_seed_lines(report), *_points(report)]
    has_differences = verdict is not None and plan.reference is not None
    if verdict is not None:
        means = [report.mean(index) for index in range(len(names))]
        data.append(_intervals("mean, 95 % interval", means, "", "%{y:.2f} %", MEAN_PLACE))
    if verdict is not None and has_differences:
        data.append(_intervals("minus the article's", verdict.decision.differences, "2", "%{y:+.2f} points"))
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": "#cbd5e1", "ticks": "", "automargin": True}
    places = {
        **axis,
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "range": [-0.6, len(names) - 0.4],
        "showgrid": False,
    }
    layout: dict[str, Any] = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "margin": {"l": 70, "r": 24, "t": 16, "b": 72},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top", "font": {"size": 11}},
        "xaxis": {**places, "domain": [0, 0.62 if has_differences else 1], "anchor": "y"},
        "yaxis": {
            **axis,
            "title": {"text": "validation accuracy", "font": {"color": FAINT_INK}},
            "ticksuffix": " %",
        },
    }
    if has_differences:
        candidates = len(plan.candidates)
        layout["xaxis2"] = {
            **places,
            "tickvals": list(range(candidates)),
            "ticktext": names[:candidates],
            "range": [-0.6, candidates - 0.4],
            "domain": [0.74, 1],
            "anchor": "y2",
        }
        layout["yaxis2"] = {
            **axis,
            "title": {"text": "points above the article's", "font": {"color": FAINT_INK}},
            "anchor": "x2",
            "zeroline": True,
            "zerolinecolor": ARTICLE_COLOUR,
            "zerolinewidth": 2,
            "rangemode": "tozero",
        }
    return {"data": data, "layout": layout}


def _seed_lines(report: RoundReport) -> list[dict[str, Any]]:
    """A faint line through the points of each seed, so that it is seen what a seed does to all recipes."""
    seeds = report.plan.seeds
    if len(seeds) > MOST_LINES:
        return []
    lines = []
    for at in range(len(seeds)):
        points = [
            (_place(index, at, len(seeds)), outcomes[at].value)
            for index, outcomes in enumerate(report.standing.outcomes)
        ]
        known = [(x, 100 * value) for x, value in points if value is not None]
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [x for x, _ in known],
                "y": [y for _, y in known],
                "line": {"color": GRID, "width": 1.5},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    return lines


def _points(report: RoundReport) -> list[dict[str, Any]]:
    """A trace of each recipe's seeds."""
    plan, verdict = report.plan, report.round.verdict
    traces = []
    for index, outcomes in enumerate(report.standing.outcomes):
        is_winner = report.is_won and verdict is not None and verdict.winner == index
        colour = WINNER_COLOUR if is_winner else CANDIDATE_COLOUR
        if index == len(plan.candidates):
            colour = ARTICLE_COLOUR
        known = [(at, one) for at, one in enumerate(outcomes) if one.value is not None]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": recipe_name(plan, index) + (" (winner)" if is_winner else ""),
                "x": [_place(index, at, len(outcomes)) for at, _ in known],
                "y": [round(100 * (one.value or 0.0), 4) for _, one in known],
                "text": [f"seed {one.seed}, trial {one.trial}" for _, one in known],
                "hovertemplate": "<b>%{y:.2f} %</b>  %{text}<extra></extra>",
                "marker": {"size": 9, "color": colour, "line": {"width": 1, "color": "#ffffff"}},
            }
        )
    return traces


def _intervals(
    name: str, intervals: Sequence[Interval | None], panel: str, shown: str, place: float = 0.0
) -> dict[str, Any]:
    """Means with their intervals, in the panel of the axes `x` + `panel` and `y` + `panel`."""
    known = [(index, one) for index, one in enumerate(intervals) if one is not None]
    # An accuracy's interval ends at 0 and 100 %, so that its halves may differ.
    above = [100 * (one.high - one.mean) for _, one in known]
    below = [100 * (one.mean - one.low) for _, one in known]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "showlegend": not panel,
        "x": [index + place for index, _ in known],
        "y": [100 * one.mean for _, one in known],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "color": INK,
            "thickness": 2,
            "width": 9,
        },
        "marker": {"symbol": "line-ew", "size": 20, "color": INK, "line": {"width": 2.5, "color": INK}},
        "customdata": [[100 * one.low, 100 * one.high] for _, one in known],
        "hovertemplate": f"<b>{shown}</b>  %{{customdata[0]:.2f}} to %{{customdata[1]:.2f}}<extra></extra>",
        "xaxis": f"x{panel}",
        "yaxis": f"y{panel}",
    }


def _place(index: int, at: int, seeds: int) -> float:
    """Where the `at`th seed of a recipe stands, left and right of the recipe's place."""
    return round(index + SEEDS_PLACE + SPREAD * ((at + 0.5) / seeds - 0.5), 4)


def _paragraph(lines: Sequence[str]) -> str:
    return "".join(
        f"<p{' class=in' if line.startswith(' ') else ''}>{html.escape(line.strip())}</p>" for line in lines
    )


def _table(report: RoundReport) -> str:
    """A row for each recipe: mean, interval, difference, interval, and each seed's accuracy."""
    plan = report.plan
    head = ["recipe", "in the search", "mean", "95 % interval", "minus the article's", "95 % interval"]
    head += [f"seed {seed}" for seed in plan.seeds]
    rows = []
    for index in range(len(plan.recipes())):
        is_candidate = index < len(plan.candidates)
        mean, difference = report.mean(index), report.difference(index)
        cells = [
            recipe_name(plan, index),
            f"{100 * plan.candidates[index].value:.2f} %" if is_candidate else "",
            "" if mean is None else f"{100 * mean.mean:.2f} %",
            "" if mean is None else f"{100 * mean.low:.2f} to {100 * mean.high:.2f} %",
            "" if difference is None else f"{100 * difference.mean:+.2f}",
            "" if difference is None else points_text(difference),
        ]
        cells += [
            one.state if one.value is None else f"{100 * one.value:.2f} %"
            for one in report.standing.outcomes[index]
        ]
        rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<thead><tr>{''.join(f'<th>{html.escape(one)}</th>' for one in head)}</tr></thead>{body}"


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 1080px; padding: 24px; background: #fff; color: #1e293b;
  font: 15px/1.45 Inter, system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }}
h1 {{ font-size: 20px; margin: 0 0 12px; }}
.verdict {{ font-size: 18px; font-weight: 600; margin: 0 0 6px; }}
.won {{ color: #15803d; }}
p {{ margin: 2px 0; }}
p.in {{ padding-left: 1.5em; }}
ul {{ color: #475569; margin: 4px 0; padding-left: 1.5em; }}
#confirm {{ height: 430px; margin: 18px 0; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }}
th, td {{ padding: 4px 12px 4px 0; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ border-bottom: 1px solid #cbd5e1; color: #64748b; font-weight: 600; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="verdict {won}">{verdict}</p>
{others}
{plot}
<p>{about}:</p>
<ul>{recipes}</ul>
<div class="wide"><table>{table}</table></div>
</body>
</html>
"""
