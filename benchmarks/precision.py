"""Whether bfloat16 costs accuracy: the article's recipe, shortened, with several seeds in both precisions.

    .venv/bin/python benchmarks/precision.py [--seeds 5] [--epochs 6] [--train-samples 40000]

The two precisions of a seed are trained one after the other, from the same weights, with the same order of
images and the same dropout masks. The score is the validation accuracy of the finished model in float32, as
in a search.
"""

import argparse
import math
import statistics

from machine import describe_machine
from scipy import stats

from search.runtime import start_tensorflow

FIGURES = (
    "validation accuracy of the model, %",
    "validation accuracy, later epochs, %",
    "training loss, later epochs",
    "seconds an epoch",
)
"""What is taken from each training. A mean over the later half of the epochs is less noisy than the last."""


def main() -> None:
    """Print a line for each seed, then means, standard deviations and paired differences."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train-samples", type=int, default=40_000)
    options = parser.parse_args()
    start_tensorflow()
    from trainer.data import load
    from trainer.evaluation import Evaluator
    from trainer.recipe import Recipe
    from trainer.training import Trainer

    print(describe_machine(("tensorflow", "keras")))
    data = load()
    train = data.train.first(options.train_samples)
    trainers = {kind: Trainer(train, data.validation, kind) for kind in ("float32", "bfloat16")}
    evaluator = Evaluator(trainers["float32"].validation)
    figures: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in trainers} for name in FIGURES}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for kind, trainer in trainers.items():
            result = trainer.train(Recipe(epochs=options.epochs, seed=seed))
            late = result.history[options.epochs // 2 :]
            row = (
                100 * evaluator.score(result.build_model()).accuracy,
                100 * statistics.mean(epoch.validation_accuracy for epoch in late),
                statistics.mean(epoch.loss for epoch in late),
                statistics.median(epoch.seconds for epoch in result.history),
            )
            for name, value in zip(FIGURES, row, strict=True):
                figures[name][kind].append(value)
            text = "  ".join(f"{value:.3f}" for value in row)
            print(f"seed {seed} {kind:10} {text}", flush=True)
    print(f"\n{len(train):,} images, {options.epochs} epochs, {options.seeds} seeds")
    print(f"{'':40}{'float32':>18}{'bfloat16':>18}   paired difference (95 % interval)")
    for name, values in figures.items():
        cells = "".join(
            f"{statistics.mean(column):10.3f} ± {statistics.stdev(column):5.3f}" for column in values.values()
        )
        print(f"{name:40}{cells}   {compare(values['float32'], values['bfloat16'])}")


def compare(first: list[float], second: list[float]) -> str:
    """The mean of `second` - `first`, pair by pair, with its 95 % interval by Student's t."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    quantile = float(stats.t.ppf(0.975, len(differences) - 1))
    half = quantile * statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.mean(differences)
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


if __name__ == "__main__":
    main()
