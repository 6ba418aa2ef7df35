"""What `benchmarks/replay.py` prints about its searches.

A seed that never got there counts as later than all that did, and one without a complete trial as worse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from traces import Trace

BUDGETS = (100, 200, 400, 800, 1600)
"""Epochs after which the best is told."""
RESAMPLES = 4_000


@dataclass(frozen=True)
class Mark:
    """What is to be matched.

    Attributes:
        name: In a few words.
        accuracy: In [0, 1].
    """

    name: str
    accuracy: float


def print_best(rows: Mapping[str, Sequence[Trace]], budget: int) -> None:
    """The best value after some epochs, and what it was worth after `budget` of them; a row a method."""
    budgets = [one for one in BUDGETS if one <= budget]
    head = "".join(f"{f'at {one}':>9}" for one in budgets)
    print(f"{'best value, %, median':28}{head}{'its worth':>11}{'trials':>8}{'seeds':>7}")
    for name, traces in rows.items():
        bests = "".join(
            f"{percent(quantile([trace.at(one) for trace in traces], 0.5)):>9}" for one in budgets
        )
        worth = percent(quantile([trace.at(budget, truth=True) for trace in traces], 0.5))
        trials = quantile([trace.trials for trace in traces], 0.5)
        print(f"{name:28}{bests}{worth:>11}{trials:>8.0f}{len(traces):>7}")
    print()


def print_match(
    rows: Mapping[str, Sequence[Trace]], mark: Mark, budget: int, compared: Mapping[str, int]
) -> None:
    """Epochs until the mark was matched; a row a method.

    Args:
        rows: Searches by method.
        mark: What is to be matched.
        budget: Epochs of which `matched` tells the share of seeds that needed no more.
        compared: Methods that others are compared with, and the epochs that they had.
    """
    ratios = "".join(f"{f'of {name}':>23}" for name in compared)
    print(
        f"{f'epochs to {100 * mark.accuracy:.1f} %':28}{'median':>9}{'quartiles':>14}{'matched':>9}"
        f"{'by worth':>10}{ratios}"
    )
    for name, traces in rows.items():
        needed = spent(traces, mark)
        low, middle, high = (quantile(needed, share) for share in (0.25, 0.5, 0.75))
        truly = quantile([trace.epochs_to(mark.accuracy, truth=True) for trace in traces], 0.5)
        matched = 100 * sum(epochs <= budget for epochs in needed) / len(needed)
        cells = "".join(
            f"{ratio(quantile(spent(rows[other], mark), 0.5), middle, most):>23}"
            for other, most in compared.items()
        )
        quartiles = f"{shown(low)}-{shown(high)}"
        print(f"{name:28}{shown(middle):>9}{quartiles:>14}{matched:8.0f}%{shown(truly):>10}{cells}")
    print()


def print_interval(
    rows: Mapping[str, Sequence[Trace]], name: str, mark: Mark, compared: Mapping[str, int]
) -> None:
    """How many times fewer epochs `name` needed than others, with a 95 % interval over seeds."""
    for other, most in compared.items():
        ours, theirs = spent(rows[name], mark), spent(rows[other], mark)
        middle = ratio(quantile(theirs, 0.5), quantile(ours, 0.5), most)
        low, high = interval(theirs, ours, most)
        print(f"{name} against {other}, to {mark.name}: {middle} fewer epochs, 95 % interval {low} to {high}")


def spent(traces: Sequence[Trace], mark: Mark) -> list[float]:
    """Epochs to the mark, for each seed."""
    return [trace.epochs_to(mark.accuracy) for trace in traces]


def quantile(values: Sequence[float], share: float) -> float:
    """The value at that share of them in order, infinite ones included; 0.5 is the upper of two middles."""
    return float(sorted(values)[min(len(values) - 1, int(share * len(values)))])


def ratio(plain: float, epochs: float, most: float) -> str:
    """How many times as many epochs `plain` is; at least so many where it was not there after `most`."""
    if not np.isfinite(epochs):
        return "-"
    return f"{'' if np.isfinite(plain) else '>'}{min(plain, most) / epochs:.1f}x"


def interval(plain: Sequence[float], epochs: Sequence[float], most: float) -> tuple[str, str]:
    """The 95 % interval of the medians' ratio, by resampling seeds (bootstrap percentiles).

    A `plain` that was not there after `most` epochs counts as there: both ends are rather too low.
    """
    random = np.random.default_rng(0)
    draws: list[tuple[float, str]] = []
    for _ in range(RESAMPLES):
        first, second = (
            quantile([values[index] for index in random.integers(len(values), size=len(values))], 0.5)
            for values in (plain, epochs)
        )
        draws.append((min(first, most) / second, ratio(first, second, most)))
    draws.sort()
    return draws[int(0.025 * RESAMPLES)][1], draws[int(0.975 * RESAMPLES)][1]


def percent(value: float) -> str:
    """`-` where no trial completed."""
    return f"{100 * value:.2f}" if np.isfinite(value) else "-"


def shown(epochs: float) -> str:
    """`never` for infinite."""
    return f"{epochs:.0f}" if np.isfinite(epochs) else "never"
