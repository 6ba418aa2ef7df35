"""What `benchmarks/replay.py` prints about its surrogate: how well it tells what it was not shown."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from curves import fill, read, split
from found import LAST
from record_curves import draw_recipes
from replay_tables import Mark
from surrogate import KINDS, Surrogate
from traces import Array

from search.confirm.plan import without_seed

FOLDS = 10
"""Of the recorded recipes, so many parts are each kept from the surrogate once."""
MOST_DRAWN = 1_000
"""No table has more random recipes."""


def find_marks(surrogate: Surrogate, drawn: Sequence[bool]) -> tuple[Mark, ...]:
    """The baselines, and how many of the recorded curves end there."""
    longest = len(surrogate.article)
    marks = tuple(
        Mark(f"the article after {last} epochs", float(surrogate.article[last - 5 : last].mean()))
        for last in (longest // 2, longest)
    )
    ends = fill(surrogate.random, surrogate.epochs)[:, -LAST:].mean(axis=1)
    random, found = ends[np.array(drawn)], ends[~np.array(drawn)]
    print()
    for mark in marks:
        counts = (int((part >= mark.accuracy).sum()) for part in (random, found))
        print(
            f"{mark.name}: {100 * mark.accuracy:.2f} %; by the mean of its last {LAST} epochs, {next(counts)}"
            f" of {len(random)} random trainings match it, {next(counts)} of {len(found)} others"
        )
    print(f"the best: {100 * random.max():.2f} % of the random ones, {100 * max(ends):.2f} % of all\n")
    return marks


def describe_surrogate(path: Path, kind: str) -> tuple[Surrogate, list[bool]]:
    """Say how well surrogates tell what they were not shown; the one of `kind` that learnt from all.

    Returns:
        The surrogate; whether each curve but for the article's is of a recipe that was drawn at random. The
        others are start points, and what searches ended with.
    """
    table = read(path)
    articles, others = split(table)
    planned = {
        without_seed(recipe) for recipe in draw_recipes(table.space, MOST_DRAWN, others[0].recipe.epochs)
    }
    # Of a recipe that was trained twice, both curves are kept from it together.
    keys = [without_seed(curve.recipe) for curve in others]
    drawn = [key in planned for key in keys]
    print(
        f"\n{path}: {len(articles)} curves of the article's recipe, {sum(drawn)} of random ones, "
        f"{len(drawn) - sum(drawn)} of start points and of what searches ended with;"
        f" {table.train_images:,} training and {table.validation_images:,} validation images"
    )
    head = "".join(f"{text:>14}" for text in ("rank corr.", "R2", "error", "error, others", "bias, others"))
    print(f"{f'mean of last {LAST} epochs':22}{head}")
    surrogate = Surrogate(table, kind)
    truth = fill(others, surrogate.epochs)[:, -LAST:].mean(axis=1)
    shuffled = np.random.default_rng(0).permutation(list(dict.fromkeys(keys)))
    folds = {key: index % FOLDS for index, key in enumerate(shuffled)}
    for tried in KINDS:
        guesses = np.empty(len(others))
        for fold in range(FOLDS):
            held = frozenset(index for index, key in enumerate(keys) if folds[key] == fold)
            part = Surrogate(table, tried, held)
            for index in held:
                guesses[index] = part.mean(others[index].recipe)[-LAST:].mean()
        cells = describe_guesses(truth, guesses, np.array(drawn))
        print(f"{tried:22}" + "".join(f"{cell:14.2f}" for cell in cells))
    return surrogate, drawn


def describe_guesses(truth: Array, guesses: Array, drawn: npt.NDArray[np.bool_]) -> tuple[float, ...]:
    """Of random recipes rank correlation, R2 and error; of others error, and how much is promised too much.

    Args:
        truth: Accuracies that were recorded, in [0, 1].
        guesses: Those that were guessed.
        drawn: Which are of random recipes.

    Returns:
        The errors are root mean squares; they and the bias are points.
    """
    ranks = np.corrcoef(truth[drawn].argsort().argsort(), guesses[drawn].argsort().argsort())[0, 1]
    wrong = 100 * (guesses - truth)
    explained = 1 - float(np.mean(wrong[drawn] ** 2)) / float((100 * truth[drawn]).var())
    error, others = (float(np.sqrt(np.mean(wrong[part] ** 2))) for part in (drawn, ~drawn))
    return float(ranks), explained, error, others, float(wrong[~drawn].mean())
