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

from search.runtime import start_tensorflow

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Two-sided 95 % quantiles of Student's t by degrees of freedom."""


def main() -> None:
    """Print a line for each seed, then means, spreads and the paired difference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11), metavar="2..10")
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
    scores: dict[str, list[float]] = {kind: [] for kind in trainers}
    seconds: dict[str, list[float]] = {kind: [] for kind in trainers}
    for seed in range(options.seeds):
        for kind, trainer in trainers.items():
            result = trainer.train(Recipe(epochs=options.epochs, seed=seed))
            scores[kind].append(100 * evaluator.score(result.build_model()).accuracy)
            seconds[kind] += [epoch.seconds for epoch in result.history]
        row = "   ".join(f"{kind} {scores[kind][-1]:.2f} %" for kind in trainers)
        print(f"seed {seed}: {row}", flush=True)
    print(f"\n{len(train):,} images, {options.epochs} epochs, {options.seeds} seeds")
    for kind, values in scores.items():
        spread = statistics.stdev(values)
        pace = statistics.median(seconds[kind])
        centre = statistics.mean(values)
        print(f"{kind:10} mean {centre:.2f} %, standard deviation {spread:.2f}, {pace:.1f} s an epoch")
    differences = [b - a for a, b in zip(scores["float32"], scores["bfloat16"], strict=True)]
    half = T_95[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.mean(differences)
    interval = f"{mean - half:+.2f} to {mean + half:+.2f}"
    print(f"bfloat16 - float32, paired: {mean:+.2f} points, 95 % interval {interval}")


if __name__ == "__main__":
    main()
