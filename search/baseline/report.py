"""A baseline run beside the article: a table for people, figures for scripts, marks for its picture."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table

from search.baseline.record import BaselineRecord
from search.baseline.rows import SIGMAS, Comparison, Row, Spread, is_articles_experiment, rows_of
from trainer.cifar10 import TRAIN_IMAGES
from trainer.run_curves import ScoredEpoch
from trainer.state import EpochResult

_HEADERS: Final = (
    "epochs",
    "article:\naccuracy",
    "article:\nloss",
    "ours:\naccuracy",
    "ours:\nloss",
    "ours:\nvalidation",
    "seeds",
)


def results_table(rows: Sequence[Row]) -> Table:
    """The article's table beside ours, on the test images; 80 columns are enough."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for header in _HEADERS:
        table.add_column(header, justify="right", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def results_markdown(rows: Sequence[Row]) -> str:
    """The same table in Markdown."""
    lines = [[header.replace("\n", " ") for header in _HEADERS], ["---:"] * len(_HEADERS), *map(_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: Row) -> list[str]:
    article = ("", "") if row.article is None else (f"{row.article.percent:.2f} %", f"{row.article.loss:.3f}")
    return [
        str(row.epoch),
        *article,
        f"{_format(row.accuracy, 2)} %",
        _format(row.loss, 3),
        f"{_format(row.validation, 2)} %",
        str(row.seeds),
    ]


def results_lines(record: BaselineRecord, rows: Sequence[Row]) -> list[str]:
    """What the table's figures are, and what chance explains of each difference, a sentence a line."""
    if not rows:
        return ["Nothing is scored yet."]
    lines = [f"Accuracy and loss are those of the {rows[0].images:,} test images, of the stored models."]
    if any(row.seeds > 1 for row in rows):
        lines.append("A mean over seeds has their sample standard deviation after the ±.")
    if not is_articles_experiment(record):
        samples = record.settings.train_samples
        lines.append(
            f"Trained on the first {samples:,} of {TRAIN_IMAGES:,} images: not the article's experiment, so "
            "its figures are no yardstick."
        )
    lines.append(_describe_work(record))
    lines += [_sentence(row, row.comparison) for row in rows if row.comparison is not None]
    return lines


def _describe_work(record: BaselineRecord) -> str:
    """How long it took, where, and in what arithmetic."""
    epochs = sum(len(run.history) for run in record.runs)
    minutes = sum(result.seconds for run in record.runs for result in run.history) / 60
    machines = "; then ".join(
        f"{machine.get('processor')}, {machine.get('threads')} threads, GPU: {machine.get('gpu')}"
        for machine in record.machines
    )
    return f"{epochs} epochs in {record.settings.precision} took {minutes:.1f} minutes on {machines}."


def _sentence(row: Row, comparison: Comparison) -> str:
    seeds = "1 seed, by its last epochs" if comparison.from_epochs else f"{row.seeds} seeds"
    return (
        f"{row.epoch} epochs: {comparison.difference:+.2f} points to the article, "
        f"{'inside' if comparison.is_inside else 'OUTSIDE'} the {comparison.explained:.2f} that chance "
        f"explains ({SIGMAS:.0f} standard deviations: {comparison.images:.2f} of the test set's size, "
        f"{comparison.seeds:.2f} of {seeds})."
    )


def results_json(record: BaselineRecord) -> dict[str, Any]:
    """The table and its comparisons; accuracies in [0, 1], differences in points."""
    rows = []
    for row in rows_of(record):
        values: dict[str, Any] = {
            "epochs": row.epoch,
            "seeds": row.seeds,
            "test": {"accuracy": _shares(row.accuracy), "loss": dataclasses.asdict(row.loss)},
            "validation": {"accuracy": _shares(row.validation)},
            "article": None,
            "comparison": None,
        }
        if row.article is not None:
            values["article"] = {"accuracy": row.article.percent / 100, "loss": row.article.loss}
        if row.comparison is not None:
            values["comparison"] = {
                "difference_points": row.comparison.difference,
                "explained_points": row.comparison.explained,
                "is_inside": row.comparison.is_inside,
                "test_set_points": row.comparison.images,
                "seed_points": row.comparison.seeds,
                "seed_points_are_from_epochs": row.comparison.from_epochs,
            }
        rows.append(values)
    return {"rows": rows}


def summarise_json(record: BaselineRecord) -> dict[str, Any]:
    """The record without its curves, and its results."""
    values = record.to_dict()
    for run in values["runs"]:
        del run["history"]
    return {**values, "results": results_json(record)}


def curves_csv(record: BaselineRecord) -> str:
    """A line for each seed and epoch, with the scores of the test images where there are any."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(EpochResult)]
    writer.writerow(["seed", *names, "test_loss", "test_accuracy"])
    for run in record.runs:
        for result in run.history:
            score = run.score_at(result.epoch)
            scored = ["", ""] if score is None else [score.test.loss, score.test.accuracy]
            writer.writerow([run.seed, *dataclasses.astuple(result), *scored])
    return file.getvalue()


def scored_epochs(rows: Sequence[Row]) -> list[ScoredEpoch]:
    """The rows as the picture of the curves marks them."""
    return [
        ScoredEpoch(
            row.epoch,
            row.accuracy.mean,
            row.loss.mean,
            None if row.article is None else (row.article.percent, row.article.loss),
        )
        for row in rows
    ]


def _format(spread: Spread, digits: int) -> str:
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.{digits}f}"
    return f"{spread.mean:.{digits}f}{deviation}"


def _shares(spread: Spread) -> dict[str, float | None]:
    return {
        "mean": spread.mean / 100,
        "deviation": None if spread.deviation is None else spread.deviation / 100,
    }
