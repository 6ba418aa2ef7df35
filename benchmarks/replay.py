"""Replay samplers and pruners on recorded learning curves: best value against epochs, epochs to the baseline.

    .venv/bin/python benchmarks/replay.py [--seeds 20] [--budget 1600] [--random-budget 6400]
        [--workers 1,4,16] [--methods NAME,...] [--curves benchmarks/curves.npz] [--figure docs/replay.png]

The curves are real (`benchmarks/record_curves.py`). What they leave open, the curve of a recipe that was
never trained, a surrogate fills in; how well it does is printed first, on recipes that it was not shown. Then
each method searches, with each number of simulated workers and each seed, until its epochs are spent; plain
random search has more of them, so that the median of its epochs to the baseline can be told. The study is
Optuna's, in memory; the default's sampler and pruner are the ones that `cnn-search run` uses.
"""

import argparse
import multiprocessing
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from curves import read
from machine import describe_machine
from methods import METHODS, RANDOM
from replay_figure import draw
from simulation import Trace, be_quiet, replay
from surrogate import Surrogate, features, fill, split
from threadpoolctl import threadpool_limits

from search.named_spaces import NAMED
from search.runtime import count_cores
from search.study import Settings

FOLDS = 10
"""Of the recorded recipes, so many parts are each kept from the surrogate once."""
MARKS = (100, 200, 400, 800, 1600)
"""Epochs after which the best is told."""

_surrogate: Surrogate | None = None


def main() -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--curves", type=Path, default=Path("benchmarks/curves.npz"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=1600, help="epochs that a search may spend")
    parser.add_argument("--random-budget", type=int, default=6400, help=f"those of {RANDOM}")
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    names = dict.fromkeys([RANDOM, *options.methods.split(",")])
    counts = [int(text) for text in options.workers.split(",")]
    be_quiet()
    print(describe_machine(("optuna", "numpy", "scikit-learn", "cmaes", "torch")))
    surrogate = describe_surrogate(options.curves)
    capped, whole = surrogate.article[surrogate.epochs - 1], float(np.mean(surrogate.article[-5:]))
    print(
        f"\nThe article's recipe: {100 * capped:.2f} % after {surrogate.epochs} epochs, {100 * whole:.2f} %"
        f" after {len(surrogate.article)} (mean of the last five). The second is the baseline to match.\n"
    )
    jobs = [
        (name, workers, seed, options.random_budget if name == RANDOM else options.budget)
        for name in names
        for workers in counts
        for seed in range(options.seeds)
    ]
    traces: dict[tuple[str, int], list[Trace]] = {}
    with multiprocessing.get_context("spawn").Pool(count_cores(), prepare, (options.curves,)) as pool:
        for (name, workers, *_), trace in zip(jobs, pool.imap(run, jobs), strict=True):
            traces.setdefault((name, workers), []).append(trace)
    for workers in counts:
        rows = {name: traces[name, workers] for name in names}
        print_table(rows, workers, whole, options.budget, options.random_budget)
    if options.figure is not None:
        draw(options.figure, traces, counts, whole, options.budget)
        print(f"wrote {options.figure}")


def describe_surrogate(path: Path) -> Surrogate:
    """Say how well the surrogate tells what it was not shown; the one that learnt from all."""
    table = read(path)
    articles, random = split(table)
    print(
        f"\n{path}: {len(articles)} curves of the article's recipe, {len(random)} of others;"
        f" {table.train_images:,} training and {table.validation_images:,} validation images"
    )
    print(f"{'surrogate':12}{'rank correlation, last epoch':>32}{'error, points':>16}{'R2':>8}")
    surrogate = Surrogate(table)
    truth = fill(random, surrogate.epochs)[:, -1]
    # Of a recipe that was trained twice, both curves are kept from it together.
    keys = [features(curve.recipe).tobytes() for curve in random]
    folds = {key: index % FOLDS for index, key in enumerate(dict.fromkeys(keys))}
    for kind in ("gp", "trees"):
        guesses = np.empty(len(random))
        for fold in range(FOLDS):
            held = frozenset(index for index, key in enumerate(keys) if folds[key] == fold)
            part = Surrogate(table, kind, held)
            for index in held:
                guesses[index] = part.mean(random[index].recipe)[-1]
        ranks = np.corrcoef(truth.argsort().argsort(), guesses.argsort().argsort())[0, 1]
        error = 100 * float(np.sqrt(np.mean((truth - guesses) ** 2)))
        explained = 1 - float(np.mean((truth - guesses) ** 2) / truth.var())
        print(f"{kind:12}{ranks:32.2f}{error:16.2f}{explained:8.2f}")
    return surrogate


def prepare(path: Path) -> None:
    """Set a process up."""
    # A pool's processes have no other place.
    global _surrogate
    be_quiet()
    # Searches run side by side; threads within one would only wait for each other.
    with threadpool_limits(1):
        _surrogate = Surrogate(read(path))


def run(job: tuple[str, int, int, int]) -> Trace:
    """One search."""
    name, workers, seed, budget = job
    assert _surrogate is not None
    settings = Settings(NAMED["article"], max_epochs=_surrogate.epochs, seed=1000 * seed)
    return replay(METHODS[name], _surrogate, settings, workers, budget)


def print_table(
    traces: dict[str, list[Trace]], workers: int, whole: float, budget: int, random_budget: int
) -> None:
    """One row a method; matched is within `budget` epochs for all."""
    marks = [mark for mark in MARKS if mark <= budget]
    print(f"{workers} worker{'s' if workers > 1 else ''}, {len(traces[RANDOM])} seeds")
    head = "".join(f"{f'best at {mark}':>13}" for mark in marks)
    print(
        f"{'method':20}{head}{'epochs to match':>17}{'quartiles':>15}{'matched':>9}{'ratio':>9}{'trials':>8}"
    )
    plain = spent(traces[RANDOM], whole)
    for name, rows in traces.items():
        bests = "".join(f"{100 * np.nanmedian([row.at(mark) for row in rows]):13.2f}" for mark in marks)
        needed = spent(rows, whole)
        low, middle, high = (quantile(needed, share) for share in (0.25, 0.5, 0.75))
        matched = sum(epochs <= budget for epochs in needed) / len(needed)
        trials = statistics.median(row.trials for row in rows)
        quartiles = f"{shown(low)}-{shown(high)}"
        counts = (
            f"{100 * matched:8.0f}%{compare(quantile(plain, 0.5), middle, random_budget):>9}{trials:8.0f}"
        )
        print(f"{name:20}{bests}{shown(middle):>17}{quartiles:>15}{counts}")
    print()


def spent(traces: Sequence[Trace], target: float) -> list[float]:
    """Epochs to the target, for each seed."""
    return [trace.epochs_to(target) for trace in traces]


def quantile(values: Sequence[float], share: float) -> float:
    """The value at that share of them in order; infinite ones are the largest."""
    return float(sorted(values)[min(len(values) - 1, int(share * len(values)))])


def compare(plain: float, epochs: float, random_budget: int) -> str:
    """How many times fewer epochs than plain random search, at least where that never got there."""
    if not np.isfinite(epochs):
        return "-"
    if not np.isfinite(plain):
        return f">{random_budget / epochs:.1f}x"
    return f"{plain / epochs:.1f}x"


def shown(epochs: float) -> str:
    """`never` for infinite."""
    return f"{epochs:.0f}" if np.isfinite(epochs) else "never"


if __name__ == "__main__":
    main()
