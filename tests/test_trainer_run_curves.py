"""The picture of several runs: what it shows, and that it is the same each time."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_trainer_figures import MOST_BYTES, count, history_of, pixels_of

from trainer.drawing import CURVES_SIZE
from trainer.run_curves import ScoredEpoch, draw_runs
from trainer.state import EpochResult

TEST = (185, 28, 28)
ARTICLE = (194, 65, 12)
VALIDATION = (37, 99, 235)


def runs_of(runs: int, epochs: int) -> list[list[EpochResult]]:
    """Curves that differ by a noise of a point."""
    generator = np.random.default_rng(1)
    return [
        [
            replace(
                result,
                validation_accuracy=result.validation_accuracy + float(generator.normal(0, 0.01)),
                validation_loss=result.validation_loss + float(generator.normal(0, 0.03)),
            )
            for result in history_of(epochs)
        ]
        for _ in range(runs)
    ]


MARKS = [ScoredEpoch(10, 70.0, 0.9), ScoredEpoch(20, 76.0, 0.7, (77.37, 0.67))]


def test_it_is_a_small_png_and_the_same_each_time() -> None:
    """As large as a trial's curves."""
    png = draw_runs(runs_of(3, 100), [ScoredEpoch(100, 77.0, 0.66, (77.37, 0.67))], "The article's recipe")

    assert png == draw_runs(
        runs_of(3, 100), [ScoredEpoch(100, 77.0, 0.66, (77.37, 0.67))], "The article's recipe"
    )
    assert pixels_of(png).shape == (CURVES_SIZE[1], CURVES_SIZE[0], 3)
    assert len(png) < 2 * MOST_BYTES


@pytest.mark.parametrize("name", ["loss", "accuracy", "validation_loss", "validation_accuracy"])
def test_every_run_is_in_it(name: str) -> None:
    """A number of any of them changes the picture."""
    runs = runs_of(3, 20)
    png = draw_runs(runs, MARKS, "t")

    for index in range(3):
        other = [list(run) for run in runs]
        other[index][7] = replace(other[index][7], **{name: getattr(other[index][7], name) + 0.1})
        assert draw_runs(other, MARKS, "t") != png
    assert draw_runs(runs[:2], MARKS, "t") != png


def test_the_scored_epochs_are_marked() -> None:
    """Ours and the article's, each where it is; an epoch without the article's has ours alone."""
    runs = runs_of(2, 20)
    bare, png = draw_runs(runs, [], "t"), draw_runs(runs, MARKS, "t")

    assert count(bare, TEST) == 0
    assert count(png, TEST) > 300
    assert draw_runs(runs, MARKS[:1], "t") != png
    for changed in (
        replace(MARKS[1], percent=70.0),
        replace(MARKS[1], loss=0.9),
        replace(MARKS[1], epoch=15),
        replace(MARKS[1], article=None),
        replace(MARKS[1], article=(70.0, 0.67)),
        replace(MARKS[1], article=(77.37, 0.9)),
    ):
        assert draw_runs(runs, [MARKS[0], changed], "t") != png


def test_marks_far_from_the_curves_are_in_view() -> None:
    """The axes reach to them."""
    panel = slice(200, CURVES_SIZE[1] // 2)
    close = np.abs(pixels_of(draw_runs(runs_of(1, 5), [ScoredEpoch(5, 99.0, 9.0)], "t")).astype(int) - TEST)

    assert (close.max(axis=2) <= 8)[panel].sum() > 50
    assert (close.max(axis=2) <= 8)[CURVES_SIZE[1] // 2 :].sum() > 50


@pytest.mark.parametrize(("runs", "epochs"), [(1, 1), (1, 200), (2, 2), (8, 31)])
def test_any_number_of_runs_and_epochs_can_be_drawn(runs: int, epochs: int) -> None:
    """A run of one epoch has no line, and shows its points all the same."""
    assert count(draw_runs(runs_of(runs, epochs), [], "t"), VALIDATION) > 100


def test_runs_of_different_lengths_can_be_drawn() -> None:
    """The mean ends with the shortest, the longer one goes on."""
    short, long = runs_of(2, 20)
    png = draw_runs([short[:10], long], [], "t")

    other = [*long[:15], replace(long[15], validation_accuracy=0.2), *long[16:]]
    assert draw_runs([short[:10], other], [], "t") != png


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e308])
def test_numbers_that_are_none_leave_a_gap(number: float) -> None:
    """Nothing warns, and no axis overflows."""
    runs = runs_of(2, 10)
    runs[0][4] = replace(runs[0][4], loss=number, validation_loss=number)

    assert count(draw_runs(runs, MARKS[:1], "t"), VALIDATION) > 500


@pytest.mark.parametrize("runs", [[], [[]], [[], [history_of(1)[0]]]])
def test_runs_without_an_epoch_are_refused(runs: list[list[EpochResult]]) -> None:
    """Instead of empty axes."""
    with pytest.raises(ValueError, match="give at least one run, each of at least one epoch"):
        draw_runs(runs, [], "t")
