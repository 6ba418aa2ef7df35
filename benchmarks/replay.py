"""Replay samplers and pruners on recorded learning curves: best value against epochs, epochs to the baseline.

    .venv/bin/python -m pip install --editable '.[bench]'
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/replay.py [--seeds 20] [--slow-seeds 5] [--budget 1600]
        [--random-budget 6400] [--workers 1,4,16] [--methods NAME,...] [--first-seed 1000]
        [--surrogate both|gp|trees] [--curves benchmarks/curves.npz] [--figure docs/replay.png]
        [--found found.jsonl]

The curves are real (`benchmarks/record_curves.py`). What they leave open, the curve of a recipe that was
never trained, a surrogate fills in; how well it does is printed first, on recipes that it was not shown. Then
each method searches, with each number of simulated workers and each seed, until its epochs are spent; plain
random search has more of them, so that the median of its epochs to the baseline can be told. The study is
Optuna's, in memory; the default's sampler and pruner are the ones that `cnn-search run` uses.

A search ends where the surrogate is at its most hopeful, so what it says there has to be tried: `--found`
keeps each search's best recipe, for `record_curves.py --found` to train in earnest and to add to the table.

What is to be matched is the article's recipe after its 100 epochs, longer than any searched trial has, and,
to see what depends on that, after 50. After as many as searched trials have there is nothing to see: trial 0
is that recipe.
"""

import argparse
import dataclasses
import multiprocessing
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from curves import is_article, read
from found import LAST, Found, write_found
from machine import describe_machine
from methods import DEFAULT, METHODS, NO_STARTS, RANDOM, WHOLE
from replay_figure import draw
from replay_tables import print_best, print_interval, print_match, quantile, shown, spent
from simulation import be_quiet, replay
from surrogate import KINDS, Surrogate
from surrogate_tables import describe_surrogate, find_marks
from threadpoolctl import threadpool_limits
from traces import Trace

from search.named_spaces import NAMED
from search.runtime import count_cores
from search.study import Settings

_surrogate: Surrogate | None = None


def main() -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--curves", type=Path, default=Path("benchmarks/curves.npz"))
    parser.add_argument("--surrogate", choices=KINDS, default=next(iter(KINDS)))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slow-seeds", type=int, default=5, help="those of methods that take minutes")
    parser.add_argument("--first-seed", type=int, default=1000, help="defaults were chosen by smaller ones")
    parser.add_argument("--budget", type=int, default=1600, help="epochs that a search may spend")
    parser.add_argument("--random-budget", type=int, default=6400, help=f"those of {RANDOM} and {WHOLE}")
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--found", type=Path, help="where each search's best recipe is kept")
    options = parser.parse_args()
    compared = dict.fromkeys((RANDOM, WHOLE), options.random_budget)
    names = dict.fromkeys([*compared, *options.methods.split(",")])
    if unknown := sorted(set(names) - set(METHODS)):
        parser.error(f"no methods {', '.join(unknown)}; there are {', '.join(METHODS)}")
    counts = [int(text) for text in options.workers.split(",")]
    be_quiet()
    print(describe_machine(("optuna", "numpy", "scikit-learn", "cmaes", "torch")))
    surrogate, drawn = describe_surrogate(options.curves, options.surrogate)
    marks = find_marks(surrogate, drawn)
    jobs = [
        (name, workers, seed, compared.get(name, options.budget))
        for name in names
        for workers in counts
        for seed in range(
            options.first_seed, options.first_seed + METHODS[name].seeds(options.seeds, options.slow_seeds)
        )
    ]
    traces: dict[tuple[str, int], list[Trace]] = {}
    setup = partial(prepare, options.curves, options.surrogate)
    with multiprocessing.get_context("spawn").Pool(count_cores(), setup) as pool:
        for (name, workers, *_), trace in zip(jobs, pool.imap(run, jobs), strict=True):
            searches = traces.setdefault((name, workers), [])
            searches.append(trace)
            if len(searches) == METHODS[name].seeds(options.seeds, options.slow_seeds):
                middle = quantile(spent(searches, marks[-1]), 0.5)
                print(f"{name}, {workers} workers: {shown(middle)} epochs to match", file=sys.stderr)
    for workers in counts:
        rows = {name: traces[name, workers] for name in names}
        print(f"{workers} worker{'s' if workers > 1 else ''}\n")
        print_best(rows, options.budget)
        for mark in marks:
            print_match(rows, mark, options.budget, compared)
        for name in (DEFAULT, NO_STARTS):
            for mark in marks if name in names else ():
                print_interval(rows, name, mark, compared)
        print()
    if options.figure is not None:
        draw(options.figure, traces, counts, marks, options.budget)
        print(f"wrote {options.figure}")
    if options.found is not None:
        write_found(options.found, find_winners(surrogate, traces))


def find_winners(surrogate: Surrogate, traces: Mapping[tuple[str, int], Sequence[Trace]]) -> Iterator[Found]:
    """The best recipe of each search but for the article's own, for as many epochs as recorded ones have."""
    for searches in traces.values():
        for trace in searches:
            if trace.winner is not None and not is_article(trace.winner):
                recipe = dataclasses.replace(trace.winner, epochs=surrogate.epochs)
                yield Found(recipe, float(surrogate.mean(recipe)[-LAST:].mean()))


def prepare(path: Path, kind: str) -> None:
    """Set a process up."""
    # A pool's processes have no other place.
    global _surrogate
    be_quiet()
    # Searches run side by side; threads within one would only wait for each other.
    with threadpool_limits(1):
        _surrogate = Surrogate(read(path), kind)


def run(job: tuple[str, int, int, int]) -> Trace:
    """One search."""
    name, workers, seed, budget = job
    assert _surrogate is not None
    settings = Settings(NAMED[_surrogate.space], max_epochs=_surrogate.epochs, seed=1000 * seed)
    return replay(METHODS[name], _surrogate, settings, workers, budget)


if __name__ == "__main__":
    main()
