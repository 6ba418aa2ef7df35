"""The replay as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from methods import DEFAULT, NO_STARTS, RANDOM, WHOLE
from replay_tables import Mark, quantile
from traces import Trace

LEAST = 45.0
"""Percent."""
MARK_COLOR = "#e11d48"
STYLES: dict[str, dict[str, Any]] = {
    RANDOM: {"color": "#475569", "linestyle": "--", "linewidth": 2.0},
    WHOLE: {"color": "#94a3b8", "linestyle": "--", "linewidth": 2.0},
    "tpe/none": {"color": "#ca8a04"},
    "whole tpe/none": {"color": "#a16207"},
    "whole tpe/hyperband": {"color": "#9333ea"},
    "whole tpe/halving2": {"color": "#0d9488"},
    "whole cmaes/halving2": {"color": "#f97316"},
    "whole gp/none": {"color": "#15803d"},
    NO_STARTS: {"color": "#60a5fa", "linewidth": 2.5},
    DEFAULT: {"color": "#1d4ed8", "linewidth": 2.5},
}
"""Of the methods that are drawn; more lines than these could not be told apart."""


def draw(
    path: Path,
    traces: Mapping[tuple[str, int], Sequence[Trace]],
    counts: Sequence[int],
    marks: Sequence[Mark],
    budget: int,
) -> None:
    """Median best value against epochs spent, a panel for each number of workers."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, len(counts), figsize=(5 * len(counts), 4.2), sharey=True, squeeze=False
    )
    at = np.arange(10, budget + 1, 5)
    names = [name for name in STYLES if (name, counts[0]) in traces]
    for panel, workers in zip(panels[0], counts, strict=True):
        for name in names:
            rows = np.array([[trace.at(int(mark)) for mark in at] for trace in traces[name, workers]])
            middle = np.array([quantile(list(column), 0.5) for column in rows.T])
            known = np.isfinite(middle)
            panel.plot(at[known], 100 * middle[known], label=name, **STYLES[name])
        for mark in marks:
            panel.axhline(100 * mark.accuracy, color=MARK_COLOR, linewidth=1)
            at_edge = panel.get_yaxis_transform()
            panel.text(
                0.01,
                100 * mark.accuracy,
                mark.name,
                transform=at_edge,
                fontsize=7,
                color=MARK_COLOR,
                va="bottom",
            )
        panel.set_title(f"{workers} worker{'s' if workers > 1 else ''}")
        panel.set_xlabel("epochs spent by all trials")
        panel.set_xscale("log")
        panel.grid(alpha=0.3)
        # Below is what trials of a few epochs have.
        panel.set_ylim(bottom=LEAST)
    panels[0][0].set_ylabel("best validation accuracy, % (median of seeds)")
    # Many workers have nothing to show for their first epochs.
    panels[0][-1].legend(fontsize=7, loc="center left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
