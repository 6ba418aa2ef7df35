"""A recipe in a few words, for lines, tables and figures."""

from collections.abc import Iterator
from typing import Final

from trainer.recipe import ARTICLE, Recipe

ARTICLES_OWN: Final = (
    "dropout_block1",
    "dropout_block2",
    "dropout_block3",
    "dropout_dense",
    "learning_rate",
    "optimizer",
    "epochs",
    "batch_size",
    "seed",
)
"""The fields that the article has numbers for; all else is switched off in its recipe."""


def describe_optimizer(recipe: Recipe | None) -> str:
    """What drives the training, in about 20 characters: `adam lr 0.0012`; `?` for an unknown recipe."""
    return "?" if recipe is None else f"{recipe.optimizer} lr {recipe.learning_rate:.3g}"


def describe_dropouts(recipe: Recipe) -> str:
    """The four dropout rates from the image to the classes: `0.30/0.30/0.40/0.30`."""
    rates = (recipe.dropout_block1, recipe.dropout_block2, recipe.dropout_block3, recipe.dropout_dense)
    return "/".join(f"{rate:.2f}" for rate in rates)


def describe_beyond(recipe: Recipe, *, batch: bool = True) -> str:
    """What goes beyond the article, `batch 128, cosine, decay 0.0005`; empty where nothing does.

    Args:
        recipe: Any.
        batch: Whether the batch size, if it is not the article's, is to be told as well.
    """
    words = list(_words(recipe))
    if batch and recipe.batch_size != ARTICLE.batch_size:
        words.insert(0, f"batch {recipe.batch_size}")
    return ", ".join(words)


def _words(recipe: Recipe) -> Iterator[str]:
    match recipe.schedule:
        case "step":
            yield f"step x{recipe.step_factor:.2g} at {100 * recipe.step_at:.0f} %"
        case "cosine":
            yield "cosine"
        case "warmup_cosine":
            yield f"warm-up {100 * recipe.warmup:.0f} % + cosine"
        case "plateau":
            yield f"plateau x{recipe.plateau_factor:.2g} after {100 * recipe.plateau_patience:.0f} %"
    if recipe.weight_decay:
        yield f"decay {recipe.weight_decay:.2g}"
    if recipe.label_smoothing:
        yield f"smoothing {recipe.label_smoothing:.2g}"
    if recipe.flip:
        yield "flip"
    if recipe.shift:
        yield f"shift {recipe.shift:.2g}"
    if recipe.rotation:
        yield f"rotation {recipe.rotation:.2g}"
    if recipe.zoom:
        yield f"zoom {recipe.zoom:.2g}"
    if recipe.cutout:
        yield f"cutout {recipe.cutout}"
    if recipe.whitening:
        yield "whitening"
    if recipe.activation != ARTICLE.activation:
        yield recipe.activation
    if recipe.width != ARTICLE.width:
        yield f"width {recipe.width:.2g}"
    if recipe.blocks != ARTICLE.blocks:
        yield f"{recipe.blocks} blocks" if recipe.blocks > 1 else "1 block"
    if recipe.convolutions != ARTICLE.convolutions:
        yield f"{recipe.convolutions} convolutions"
    if recipe.batch_normalization:
        yield "normalised"
    if recipe.residual:
        yield "residual"
    if recipe.head == "pooling":
        yield "pooling head"
    elif recipe.dense_units != ARTICLE.dense_units:
        yield f"dense {recipe.dense_units}"
