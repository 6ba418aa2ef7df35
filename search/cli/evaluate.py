"""`cnn-search evaluate`."""

import json
from pathlib import Path
from typing import Final

import click

from search.cli.options import data_option, debug_option, json_option
from search.errors import OutputError
from search.output import check_writable, replace_file, show_name

TITLE_NAME: Final = 30
"""Letters of the model's name in the picture's title, which has room for some 60."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@data_option
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="The last 10,000 training images, by which trials are compared, or the 10,000 test images.",
)
@click.option(
    "--picture",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the confusion matrix there, as PNG.",
)
@json_option
@debug_option
def evaluate(model: Path, data: Path | None, split: str, picture: Path | None, as_json: bool) -> None:
    """Score the model in the file MODEL (.h5): loss, accuracy, and which class it takes for which."""
    if picture is not None:
        _check_picture(picture, model)
    from search.runtime import start_tensorflow

    start_tensorflow()
    from search.score_report import score_json, score_lines
    from trainer.data import load
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator
    from trainer.figures import draw_confusion
    from trainer.model_file import load_model

    loaded = load_model(model)
    cifar10 = load(data)
    scored = cifar10.validation if split == "validation" else cifar10.test
    score = Evaluator(DeviceSplit.of(scored)).score(loaded, checked_as=show_name(model))
    if picture is not None:
        name = show_name(model.name)
        if len(name) > TITLE_NAME:
            name = f"{name[: TITLE_NAME - 3]}..."
        title = f"{name}: {100 * score.accuracy:.2f} % of {score.images:,} {split} images"
        replace_file(picture, draw_confusion(score.confusion, title), "--picture")
    if as_json:
        click.echo(json.dumps({"model": str(model), "split": split, **score_json(score)}, indent=2))
        return
    click.echo(f"{show_name(model)}: {split} accuracy {100 * score.accuracy:.2f} %, loss {score.loss:.4f}")
    click.echo(f"({score.images:,} images; the article's CNN has 77-78 % on the test images)")
    click.echo("\n" + "\n".join(score_lines(score)))
    if picture is not None:
        click.echo(f"\nwrote {show_name(picture)}")


def _check_picture(picture: Path, model: Path) -> None:
    """See that the picture can be written, and is not to take the place of the model."""
    check_writable(picture, "--picture")
    if picture.exists() and model.exists() and picture.samefile(model):
        raise OutputError(
            f"cannot write {show_name(picture)}: it is the model; name a new file with --picture"
        )
