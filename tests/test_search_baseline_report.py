"""A baseline run's table beside the article's, and what chance explains."""

import csv
import dataclasses
import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from search.baseline.record import (
    BaselineRecord,
    BaselineSettings,
    ModelScore,
    SeedRun,
    SplitScore,
)
from search.baseline.report import (
    curves_csv,
    results_json,
    results_lines,
    results_markdown,
    results_table,
    scored_epochs,
    summarise_json,
)
from search.baseline.rows import Comparison, Spread, compare, rows_of
from trainer.article import ARTICLE_RESULTS
from trainer.state import EpochResult

MACHINE = {"processor": "a processor", "threads": 2, "gpu": "none"}


def score_of(epoch: int, percent: float, loss: float = 0.65, validation: float = 78.0) -> ModelScore:
    """A score on 10,000 images each."""
    return ModelScore(
        epoch,
        SplitScore(loss, percent / 100, 10_000),
        SplitScore(0.6, validation / 100, 10_000),
        f"{epoch}.h5",
        "0" * 64,
    )


def record_of(*percents: dict[int, float], train_samples: int = 40_000) -> BaselineRecord:
    """A run with a seed for each of these, test accuracies in percent by epoch."""
    runs = [
        SeedRun(
            seed,
            # Of 20 of them the sample standard deviation is 0.3 points.
            tuple(
                EpochResult(e, 1.0, 0.5, 0.9, 0.6 + (-1) ** e * 0.003 * math.sqrt(0.95), 0.01, 30.0)
                for e in range(1, max(scores) + 1)
            ),
            tuple(score_of(epoch, percent) for epoch, percent in scores.items()),
        )
        for seed, scores in enumerate(percents)
    ]
    return BaselineRecord(BaselineSettings(0, train_samples, "float32"), tuple(runs), (MACHINE,))


def shown(record: BaselineRecord, width: int = 80) -> str:
    """The table as a terminal of that width shows it."""
    console = Console(file=io.StringIO(), width=width)
    console.print(results_table(rows_of(record)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_article_is_quoted_as_it_is() -> None:
    """Its three test accuracies and losses."""
    assert {(one.epochs, one.percent, one.loss) for one in ARTICLE_RESULTS} == {
        (100, 77.37, 0.670),
        (150, 78.22, 0.646),
        (200, 77.77, 0.670),
    }


def test_a_row_has_mean_and_spread_over_the_seeds_that_were_scored_there() -> None:
    """The sample standard deviation; a single seed has none, and epochs of no article no comparison."""
    rows = rows_of(record_of({50: 75.0, 100: 77.0}, {100: 77.6}, {100: 76.4}))

    assert [(row.epoch, row.seeds) for row in rows] == [(50, 1), (100, 3)]
    assert rows[0].accuracy.mean == pytest.approx(75.0)
    assert rows[0].accuracy.deviation is None
    assert (rows[0].article, rows[0].comparison) == (None, None)
    assert rows[1].accuracy.mean == pytest.approx(77.0)
    assert rows[1].accuracy.deviation == pytest.approx(0.6)
    assert rows[1].article is not None
    assert (rows[1].article.percent, rows[1].article.loss) == (77.37, 0.670)


def test_what_chance_explains_of_one_seed() -> None:
    """The test set's binomial noise, and how much its accuracy moves by itself, ours and the article's."""
    comparison = compare(Spread.of([76.37]), 1, ARTICLE_RESULTS[2], 10_000, 0.3)

    assert comparison.difference == pytest.approx(-1.0)
    # sqrt(0.7737 * 0.2263 / 10000), in points.
    assert comparison.images == pytest.approx(0.4184, abs=1e-4)
    assert comparison.seeds == pytest.approx(0.3 * math.sqrt(2))
    assert comparison.explained == pytest.approx(2 * math.sqrt(0.4184**2 + 2 * 0.3**2), abs=1e-3)
    assert comparison.from_epochs
    assert comparison.is_inside


def test_what_chance_explains_of_several_seeds() -> None:
    """Their own spread, once for the article's run and once for our mean; fewer images explain more."""
    values = [77.2, 78.0, 77.6]
    comparison = compare(Spread.of(values), 3, ARTICLE_RESULTS[2], 10_000, 9.0)

    assert comparison.seeds == pytest.approx(0.4 * math.sqrt(4 / 3))
    assert not comparison.from_epochs
    assert compare(Spread.of(values), 3, ARTICLE_RESULTS[2], 100, 9.0).images == pytest.approx(
        4.184, abs=1e-3
    )


@pytest.mark.parametrize(
    ("difference", "is_inside"), [(1.0, True), (-1.0, True), (1.01, False), (-1.01, False), (0.0, True)]
)
def test_a_difference_is_inside_up_to_two_deviations(difference: float, is_inside: bool) -> None:
    """Above and below alike."""
    assert Comparison(difference, 0.3, 0.4, False).is_inside is is_inside


def test_the_table_fits_a_narrow_terminal() -> None:
    """With all figures, also those with a spread; the article's stand beside ours."""
    text = shown(record_of({50: 70.0, 100: 77.1, 150: 78.3}, {100: 77.9, 150: 78.5}))

    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "…" not in text
    assert lines[-3].split() == ["50", "70.00", "%", "0.650", "78.00", "%", "1"]
    assert lines[-2].split()[:6] == ["100", "77.37", "%", "0.670", "77.50", "±"]
    assert "78.22 %" in lines[-1]
    assert "0.646" in lines[-1]


def test_each_row_of_the_article_has_its_sentence() -> None:
    """Inside or outside, with the noise that it is judged by."""
    record = record_of({50: 70.0, 100: 76.8, 150: 70.0})

    lines = results_lines(record, rows_of(record))

    assert "10,000 test images" in lines[0]
    (inside,) = (line for line in lines if line.startswith("100 epochs: "))
    assert inside == (
        "100 epochs: -0.57 points to the article, inside the 1.19 that chance explains (2 standard "
        "deviations: 0.42 of the test set's size, 0.42 of 1 seed, by its last epochs)."
    )
    (outside,) = (line for line in lines if line.startswith("150 epochs: "))
    assert "-8.22 points to the article, OUTSIDE the 1.18 that chance explains" in outside
    assert not any(line.startswith("50 epochs") for line in lines)
    assert "150 epochs in float32 took 75.0 minutes on a processor, 2 threads, GPU: none." in lines


def test_several_seeds_are_named() -> None:
    """And what the ± is."""
    record = record_of({100: 77.0}, {100: 77.6}, {100: 76.4})

    lines = results_lines(record, rows_of(record))

    assert any("sample standard deviation" in line for line in lines)
    assert any("of 3 seeds)." in line for line in lines)


def test_fewer_images_are_not_compared() -> None:
    """The article trained on all of them; its figures stand there, without a verdict."""
    record = record_of({100: 40.0}, train_samples=2_000)

    lines = results_lines(record, rows_of(record))

    assert any("the first 2,000 of 40,000 images: not the article's experiment" in line for line in lines)
    assert not any("chance" in line for line in lines)
    assert results_json(record)["rows"][0]["comparison"] is None
    assert "77.37 %" in shown(record)


def test_nothing_scored_is_said() -> None:
    """Instead of an empty table's explanation."""
    record = BaselineRecord(BaselineSettings(0, 40_000, "float32"))

    assert rows_of(record) == []
    assert results_lines(record, []) == ["Nothing is scored yet."]


def test_the_markdown_has_the_tables_cells() -> None:
    """As many in each line."""
    text = results_markdown(rows_of(record_of({50: 70.0, 100: 77.1}, {100: 77.9})))

    lines = text.splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {8}
    assert lines[0].startswith("| epochs | article: accuracy | article: loss | ours: accuracy |")
    assert lines[3] == "| 100 | 77.37 % | 0.670 | 77.50 ± 0.57 % | 0.650 ± 0.000 | 78.00 ± 0.00 % | 2 |"


def test_scripts_get_shares_and_points() -> None:
    """Strict JSON; accuracies in [0, 1], differences in points."""
    record = record_of({100: 77.1}, {100: 77.9})

    values: dict[str, Any] = json.loads(json.dumps(results_json(record), allow_nan=False))

    (row,) = values["rows"]
    assert row["epochs"] == 100
    assert row["seeds"] == 2
    assert row["test"]["accuracy"]["mean"] == pytest.approx(0.775)
    assert row["test"]["accuracy"]["deviation"] == pytest.approx(0.00566, abs=1e-5)
    assert row["test"]["loss"] == {"mean": pytest.approx(0.65), "deviation": pytest.approx(0.0)}
    assert row["validation"]["accuracy"]["mean"] == pytest.approx(0.78)
    assert row["article"] == {"accuracy": pytest.approx(0.7737), "loss": 0.67}
    assert row["comparison"]["difference_points"] == pytest.approx(0.13)
    assert row["comparison"]["is_inside"] is True
    assert row["comparison"]["seed_points_are_from_epochs"] is False


def test_the_summary_is_the_record_without_its_curves() -> None:
    """Which are long, and in the files."""
    record = record_of({1: 20.0})

    values = summarise_json(record)

    assert "history" not in values["runs"][0]
    assert values["results"] == results_json(record)
    assert values["runs"][0]["seed"] == 0
    assert record.to_dict()["runs"][0]["history"]


def test_the_csv_has_a_line_for_each_seed_and_epoch() -> None:
    """With the test images' scores where they were scored."""
    record = record_of({2: 70.0}, {2: 71.0})

    lines = list(csv.DictReader(io.StringIO(curves_csv(record))))

    assert [(line["seed"], line["epoch"]) for line in lines] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "1"),
        ("1", "2"),
    ]
    assert [line["test_accuracy"] for line in lines] == ["", "0.7", "", "0.71"]
    assert [line["test_loss"] for line in lines] == ["", "0.65", "", "0.65"]
    names = {field.name for field in dataclasses.fields(EpochResult)}
    assert set(lines[0]) == {"seed", "test_loss", "test_accuracy", *names}
    assert lines[0]["validation_accuracy"] == str(record.runs[0].history[0].validation_accuracy)


def test_the_picture_marks_what_the_table_has() -> None:
    """Ours and, where there is one, the article's."""
    marks = scored_epochs(rows_of(record_of({50: 70.0, 100: 77.1}, {100: 77.9})))

    assert [(mark.epoch, mark.article) for mark in marks] == [(50, None), (100, (77.37, 0.670))]
    assert marks[1].percent == pytest.approx(77.5)
    assert marks[1].loss == pytest.approx(0.65)
