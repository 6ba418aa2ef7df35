"""Record real learning curves of random recipes of a space, for `benchmarks/replay.py` to replay.

    .venv/bin/python benchmarks/record_curves.py [--space article] [--recipes 240] [--epochs 27]
        [--train-samples 4000] [--validation-samples 4000] [--found found.jsonl] [--work curves.jsonl]
        [--output benchmarks/curves.npz]

The article's recipe comes first, for its 100 epochs, with several seeds; then the space's start points, and
the random recipes, each for all epochs, whatever was drawn for it: with the article's constant rate, the
curve of fewer epochs is the beginning of it. Some are trained with a second seed, which tells how much is
chance. One process of one thread for each core. Each curve is appended to `--work` as it ends, so that the
same command goes on where it was stopped; then all are packed, with what is in `--output` already, so that a
table can be made larger. A table of another space, of other images or of other epochs is left alone.

`--found` adds the recipes that replayed searches ended with, and says how far they are from what the
surrogate expected of them.
"""

import argparse
import dataclasses
import json
import multiprocessing
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from curves import Curve, Table, pack, read
from found import describe_found, read_found
from machine import describe_machine

from search.named_spaces import NAMED
from search.runtime import count_cores, start_tensorflow
from search.space import suggest
from search.start_points import start_points
from trainer.recipe import ARTICLE, Recipe

ARTICLE_SEEDS = 6
"""Trainings of the article's recipe."""
START_SEEDS = 2
"""Of each start point."""
SECOND_EVERY = 10
"""Of so many random recipes one is trained twice."""
SEED_STEP = 1_000_000
"""From a recipe's seed to its second one."""


def main() -> None:
    """Train what is missing, and pack."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--space", default="article", choices=NAMED)
    parser.add_argument("--recipes", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--train-samples", type=int, default=4_000)
    parser.add_argument("--validation-samples", type=int, default=4_000)
    parser.add_argument("--work", type=Path, default=Path("curves.jsonl"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/curves.npz"))
    parser.add_argument("--found", type=Path, help="recipes of `replay.py --found`, trained besides")
    options = parser.parse_args()
    print(describe_machine(("tensorflow", "keras")), flush=True)
    found = read_found(options.found) if options.found is not None else []
    recipes = [*plan(options.space, options.recipes, options.epochs), *(one.recipe for one in found)]
    images = (options.train_samples, options.validation_samples)
    wanted = Table((), *images, options.space)
    work = partial(read_work, options.work, wanted, options.epochs)
    done = {**read_output(options.output, wanted, options.epochs), **work()}
    missing = [recipe for recipe in recipes if recipe not in done]
    print(f"{len(recipes)} curves, {len(missing)} to train", flush=True)
    if missing:
        processes = count_cores()
        with (
            multiprocessing.get_context("spawn").Pool(processes, prepare, images) as pool,
            options.work.open("a") as file,
        ):
            for recipe, accuracies in pool.imap_unordered(train, missing):
                line = {"space": options.space, "images": images, "recipe": recipe, "accuracies": accuracies}
                file.write(json.dumps(line) + "\n")
                file.flush()
                print(f"{100 * (accuracies or [0])[-1]:6.2f} % after {len(accuracies)} epochs", flush=True)
    done |= work()
    # Those that are planned in their order, then those of plans before.
    order = dict.fromkeys([*(recipe for recipe in recipes if recipe in done), *done])
    curves = tuple(Curve(recipe, tuple(done[recipe])) for recipe in order)
    pack(options.output, dataclasses.replace(wanted, curves=curves))
    print(f"wrote {options.output}: {len(curves)} curves, {options.output.stat().st_size:,} bytes")
    if found:
        print(describe_found(found, done))


def plan(name: str, recipes: int, epochs: int) -> Iterator[Recipe]:
    """What is trained, in that order; any number of random recipes is the beginning of any larger one.

    Args:
        name: The space's.
        recipes: How many random ones.
        epochs: Of each.
    """
    if name == "article":
        for seed in range(ARTICLE_SEEDS):
            yield dataclasses.replace(ARTICLE, seed=seed)
        for params in start_points(NAMED[name]):
            for seed in range(START_SEEDS):
                yield dataclasses.replace(ARTICLE, epochs=epochs, seed=seed, **params)
    for number, recipe in enumerate(draw_recipes(name, recipes, epochs)):
        yield recipe
        if number % SECOND_EVERY == 0:
            yield dataclasses.replace(recipe, seed=number + SEED_STEP)


def draw_recipes(name: str, recipes: int, epochs: int) -> Iterator[Recipe]:
    """Random recipes of the space `name`, all for `epochs`; the same ones each time."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(recipes):
        yield dataclasses.replace(suggest(study.ask(), NAMED[name], seed=number), epochs=epochs)


def read_output(path: Path, wanted: Table, epochs: int) -> dict[Recipe, list[float]]:
    """The curves of an earlier table, which are not trained again.

    Raises:
        SystemExit: They are of another space, of other images or of other epochs than `wanted`.
    """
    if not path.exists():
        return {}
    table = read(path)
    done = {curve.recipe: list(curve.accuracies) for curve in table.curves}
    check_same(path, "--output", dataclasses.replace(table, curves=()), done, wanted, epochs)
    return done


def read_work(path: Path, wanted: Table, epochs: int) -> dict[Recipe, list[float]]:
    """The curves that are trained; half a line, of a process that was killed, is none.

    Raises:
        SystemExit: As `read_output`.
    """
    done = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        one = {Recipe.from_dict(values["recipe"]): values["accuracies"]}
        check_same(path, "--work", Table((), *values["images"], values["space"]), one, wanted, epochs)
        done |= one
    return done


def check_same(
    path: Path, option: str, table: Table, recipes: Iterable[Recipe], wanted: Table, epochs: int
) -> None:
    """Refuse curves that cannot stand beside those that are wanted, with what they are of."""
    # The article's recipe has its own number of epochs.
    lengths = sorted({recipe.epochs for recipe in recipes} - {ARTICLE.epochs})
    if table != wanted or set(lengths) - {epochs}:
        images = f"{table.train_images} and {table.validation_images} images"
        raise SystemExit(
            f"{path} is of the space {table.space}, {images}, {', '.join(map(str, lengths))} epochs; "
            f"give another {option}"
        )


_trainer: Any = None


def prepare(train_samples: int, validation_samples: int) -> None:
    """Set a process up."""
    # A pool's processes have no other place.
    global _trainer
    start_tensorflow(1)
    from trainer.data import load
    from trainer.precision import choose_precision
    from trainer.training import Trainer

    data = load()
    _trainer = Trainer(
        data.train.first(train_samples), data.validation.first(validation_samples), choose_precision("auto")
    )


def train(recipe: Recipe) -> tuple[dict[str, Any], list[float]]:
    """The recipe and its validation accuracies, epoch by epoch, up to where it left the numbers."""
    from trainer.model import forget_models

    result = _trainer.train(recipe)
    forget_models()
    return recipe.to_dict(), [epoch.validation_accuracy for epoch in result.history]


if __name__ == "__main__":
    main()
