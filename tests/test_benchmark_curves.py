"""benchmarks/curves.py and record_curves.py: recorded curves are kept, and never mixed with others."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from curves import Curve, Table, pack, read
from found import Found, describe_found, read_found, write_found
from record_curves import plan, read_output, read_work

from trainer.recipe import ARTICLE, Recipe

TABLE = Table(
    (
        Curve(ARTICLE, (0.25, 0.5, 0.75)),
        Curve(Recipe(epochs=2, optimizer="adam", seed=3), (0.1, 1.0)),
        Curve(Recipe(epochs=2, learning_rate=0.1, seed=4), (0.125,)),
    ),
    train_images=40,
    validation_images=4_000,
    space="schedules",
)


def test_a_table_is_read_as_it_was_packed(tmp_path: Path) -> None:
    """Recipes whole, accuracies to the image, a curve that left the numbers as short as it was."""
    pack(tmp_path / "curves.npz", TABLE)
    assert read(tmp_path / "curves.npz") == TABLE
    assert [path.name for path in tmp_path.iterdir()] == ["curves.npz"]


def test_the_curves_of_an_earlier_table_are_not_trained_again(tmp_path: Path) -> None:
    """Where there is none, all are."""
    wanted = dataclasses.replace(TABLE, curves=())
    assert read_output(tmp_path / "curves.npz", wanted, 2) == {}
    pack(tmp_path / "curves.npz", TABLE)
    assert read_output(tmp_path / "curves.npz", wanted, 2) == {
        curve.recipe: list(curve.accuracies) for curve in TABLE.curves
    }


@pytest.mark.parametrize(
    ("changes", "epochs"), [({"space": "article"}, 2), ({"train_images": 41}, 2), ({}, 3)], ids=str
)
def test_curves_of_something_else_are_left_alone(
    tmp_path: Path, changes: dict[str, object], epochs: int
) -> None:
    """Another space, other images, other epochs; the message says what is there."""
    pack(tmp_path / "curves.npz", TABLE)
    wanted = dataclasses.replace(TABLE, curves=(), **changes)
    with pytest.raises(SystemExit, match=r"schedules, 40 and 4000 images, 2 epochs; give another --output"):
        read_output(tmp_path / "curves.npz", wanted, epochs)


def write_work(path: Path, **changes: object) -> None:
    """Append a line of what was recorded, and half of one."""
    line = {"space": "schedules", "images": [40, 4_000], **changes}
    curve = TABLE.curves[1]
    whole = json.dumps({**line, "recipe": curve.recipe.to_dict(), "accuracies": curve.accuracies})
    with path.open("a") as file:
        file.write(f"{whole}\n{whole[:50]}\n")


def test_what_was_recorded_goes_on(tmp_path: Path) -> None:
    """Whole lines; half a line, of a process that was killed, is none."""
    wanted = dataclasses.replace(TABLE, curves=())
    assert read_work(tmp_path / "work.jsonl", wanted, 2) == {}
    write_work(tmp_path / "work.jsonl")
    assert read_work(tmp_path / "work.jsonl", wanted, 2) == {TABLE.curves[1].recipe: [0.1, 1.0]}


@pytest.mark.parametrize(
    ("changes", "epochs"), [({"space": "article"}, 2), ({"images": [41, 4_000]}, 2), ({}, 3)], ids=str
)
def test_work_on_something_else_is_left_alone(
    tmp_path: Path, changes: dict[str, object], epochs: int
) -> None:
    """Since it would be packed into a table that is of another thing."""
    write_work(tmp_path / "work.jsonl", **changes)
    with pytest.raises(SystemExit, match="give another --work"):
        read_work(tmp_path / "work.jsonl", dataclasses.replace(TABLE, curves=()), epochs)


def test_more_recipes_begin_with_the_fewer() -> None:
    """A table that is made larger has nothing to train again."""
    fewer, more = list(plan("article", 3, 27)), list(plan("article", 12, 27))
    assert more[: len(fewer)] == fewer
    assert len(set(more)) == len(more)


def test_what_searches_found_is_kept_once(tmp_path: Path) -> None:
    """Two searches that ended with the same recipe, whatever its seed, ask for one training."""
    found = [Found(curve.recipe, 0.5) for curve in TABLE.curves[1:]]
    again = Found(dataclasses.replace(found[1].recipe, seed=9), 0.5)
    write_found(tmp_path / "found.jsonl", [again, *found])
    assert sorted(read_found(tmp_path / "found.jsonl"), key=lambda one: one.recipe.seed) == found


def test_what_searches_found_is_compared_with_what_was_expected() -> None:
    """By the last three epochs of those that were trained to their end, and not of others."""
    whole, half = Recipe(epochs=4, seed=1), Recipe(epochs=4, seed=2)
    curves = {whole: [0.1, 0.5, 0.6, 0.7], half: [0.1, 0.2]}
    told = describe_found([Found(whole, 0.625), Found(half, 0.9), Found(ARTICLE, 0.9)], curves)
    assert told.startswith(
        "1 of 3 recipes that searches found: expected 62.50 % on average, measured 60.00 %"
    )
    assert "(-2.50 points, standard deviation 0.00); the best 60.00 %" in told
    assert describe_found([Found(half, 0.9)], curves).startswith("none of 1 ")
