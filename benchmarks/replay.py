"""Replay samplers and pruners on recorded learning curves: best value against epochs, epochs to the baseline.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/replay.py [--seeds 20] [--slow-seeds 5] [--budget 1600]
        [--random-budget 6400] [--workers 1,4,16] [--methods NAME,...] [--surrogate gp|trees]
        [--curves benchmarks/curves.npz] [--figure docs/replay.png] [--found found.jsonl]

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

import numpy as np
from curves import fill, is_article, read, split
from found import Found, write_found
from machine import describe_machine
from methods import DEFAULT, METHODS, RANDOM, WHOLE
from replay_figure import draw
from replay_tables import Mark, print_best, print_interval, print_match, quantile, shown, spent
from simulation import be_quiet, replay
from surrogate import KINDS, Surrogate
from threadpoolctl import threadpool_limits
from traces import Trace

from search.named_spaces import NAMED
from search.runtime import count_cores
from search.study import Settings

FOLDS = 10
"""Of the recorded recipes, so many parts are each kept from the surrogate once."""

_surrogate: Surrogate | None = None


def main() -> None:
    """Print the tables, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--curves", type=Path, default=Path("benchmarks/curves.npz"))
    parser.add_argument("--surrogate", choices=KINDS, default=KINDS[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slow-seeds", type=int, default=5, help="those of methods that take minutes")
    parser.add_argument("--budget", type=int, default=1600, help="epochs that a search may spend")
    parser.add_argument("--random-budget", type=int, default=6400, help=f"those of {RANDOM} and {WHOLE}")
    parser.add_argument("--workers", default="1,4,16")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--found", type=Path, help="where each search's best recipe is kept")
    options = parser.parse_args()
    compared = dict.fromkeys((RANDOM, WHOLE), options.random_budget)
    names = dict.fromkeys([*compared, *options.methods.split(",")])
    counts = [int(text) for text in options.workers.split(",")]
    be_quiet()
    print(describe_machine(("optuna", "numpy", "scikit-learn", "cmaes", "torch")))
    surrogate = describe_surrogate(options.curves, options.surrogate)
    marks = find_marks(surrogate)
    jobs = [
        (name, workers, seed, compared.get(name, options.budget))
        for name in names
        for workers in counts
        for seed in range(METHODS[name].seeds(options.seeds, options.slow_seeds))
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
        for mark in marks if DEFAULT in names else ():
            print_interval(rows, DEFAULT, mark, compared)
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
                yield Found(recipe, float(surrogate.mean(recipe)[-1]))


def find_marks(surrogate: Surrogate) -> tuple[Mark, ...]:
    """The baselines, and how many of the recorded curves are ever there."""
    longest = len(surrogate.article)
    marks = tuple(
        Mark(f"the article after {last} epochs", float(surrogate.article[last - 5 : last].mean()))
        for last in (longest // 2, longest)
    )
    tops = fill(surrogate.random, surrogate.epochs).max(axis=1)
    print()
    for mark in marks:
        matched = int((tops >= mark.accuracy).sum())
        print(
            f"{mark.name}: {100 * mark.accuracy:.2f} %, matched by {matched} of {len(tops)} recorded curves"
        )
    print(f"the best of these: {100 * tops.max():.2f} %\n")
    return marks


def describe_surrogate(path: Path, kind: str) -> Surrogate:
    """Say how well surrogates tell what they were not shown; the one of `kind` that learnt from all."""
    table = read(path)
    articles, random = split(table)
    print(
        f"\n{path}: {len(articles)} curves of the article's recipe, {len(random)} of others;"
        f" {table.train_images:,} training and {table.validation_images:,} validation images"
    )
    print(f"{'surrogate':12}{'rank correlation, last epoch':>32}{'error, points':>16}{'R2':>8}")
    surrogate = Surrogate(table, kind)
    truth = fill(random, surrogate.epochs)[:, -1]
    # Of a recipe that was trained twice, both curves are kept from it together.
    keys = [dataclasses.replace(curve.recipe, seed=0) for curve in random]
    folds = {key: index % FOLDS for index, key in enumerate(dict.fromkeys(keys))}
    for tried in KINDS:
        guesses = np.empty(len(random))
        for fold in range(FOLDS):
            held = frozenset(index for index, key in enumerate(keys) if folds[key] == fold)
            part = Surrogate(table, tried, held)
            for index in held:
                guesses[index] = part.mean(random[index].recipe)[-1]
        ranks = np.corrcoef(truth.argsort().argsort(), guesses.argsort().argsort())[0, 1]
        error = 100 * float(np.sqrt(np.mean((truth - guesses) ** 2)))
        explained = 1 - float(np.mean((truth - guesses) ** 2) / truth.var())
        print(f"{tried:12}{ranks:32.2f}{error:16.2f}{explained:8.2f}")
    return surrogate


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
    settings = Settings(NAMED["article"], max_epochs=_surrogate.epochs, seed=1000 * seed)
    return replay(METHODS[name], _surrogate, settings, workers, budget)


if __name__ == "__main__":
    main()
