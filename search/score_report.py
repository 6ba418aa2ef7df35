"""A model's score, as lines and as JSON."""

from typing import Any, Final

from trainer.cifar10 import CLASS_NAMES
from trainer.evaluation import Score

_NAME_LENGTH: Final = 5
"""Of a class above its column, so that the table fits into 80 columns."""


def class_accuracies(score: Score) -> dict[str, float | None]:
    """The share of each class's images that were taken for it, in [0, 1]; None for a class without images."""
    totals = score.confusion.sum(axis=1)
    return {
        name: float(score.confusion[index, index] / totals[index]) if totals[index] else None
        for index, name in enumerate(CLASS_NAMES)
    }


def score_lines(score: Score) -> list[str]:
    """A line for each class: its accuracy, and what its images were taken for."""
    lines = [
        f"{'true class':<11}{'right':>8}  taken for",
        " " * 19 + "".join(f"{name[:_NAME_LENGTH]:>6}" for name in CLASS_NAMES),
    ]
    for (name, share), row in zip(class_accuracies(score).items(), score.confusion, strict=True):
        right = "-" if share is None else f"{100 * share:.1f} %"
        lines.append(f"{name:<11}{right:>8}" + "".join(f"{count:>6}" for count in row))
    return lines


def score_json(score: Score) -> dict[str, Any]:
    """All of the score, ready for JSON.

    `confusion[i][j]` is how many images of class `classes[i]` were taken for class `classes[j]`.
    """
    return {
        "images": score.images,
        "accuracy": score.accuracy,
        "loss": score.loss,
        "classes": list(CLASS_NAMES),
        "class_accuracy": class_accuracies(score),
        "confusion": score.confusion.tolist(),
    }
