"""`cnn-search evaluate`: a model without a study."""

import json
from pathlib import Path

import click

from search.cli.options import data_option, debug_option, json_option


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
@json_option
@debug_option
def evaluate(model: Path, data: Path | None, split: str, as_json: bool) -> None:
    """Score the model in the file MODEL (.h5)."""
    from search.runtime import start_tensorflow

    start_tensorflow()
    from trainer.data import load
    from trainer.device import DeviceSplit
    from trainer.evaluation import Evaluator
    from trainer.model_file import load_model

    loaded = load_model(model)
    cifar10 = load(data)
    scored = cifar10.validation if split == "validation" else cifar10.test
    score = Evaluator(DeviceSplit.of(scored)).score(loaded)
    if as_json:
        result = {
            "model": str(model),
            "split": split,
            "images": score.images,
            "accuracy": score.accuracy,
            "loss": score.loss,
        }
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"{model}: {split} accuracy {100 * score.accuracy:.2f} %, loss {score.loss:.4f}")
    click.echo(f"({score.images:,} images; the article's CNN has 77-78 % on the test images)")
