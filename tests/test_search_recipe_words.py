"""A recipe in a few words: what goes beyond the article is told, and nothing else."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from test_search_space import recipes

from search.recipe_words import ARTICLES_OWN, describe_beyond
from trainer.recipe import ARTICLE, Recipe


def test_the_article_needs_no_words() -> None:
    """Whatever its own numbers are, a recipe without anything beyond them has nothing to add."""
    assert describe_beyond(ARTICLE) == ""
    assert describe_beyond(Recipe(0, 0, 0, 0, 1.0, "adam", 3, 64, 9)) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batch_size": 128}, "batch 128"),
        ({"schedule": "step", "step_at": 0.85}, "step x0.1 at 85 %"),
        ({"schedule": "cosine", "step_at": 0.85}, "cosine"),
        ({"schedule": "warmup_cosine", "warmup": 0.056}, "warm-up 6 % + cosine"),
        ({"schedule": "plateau", "plateau_factor": 0.25}, "plateau x0.25 after 10 %"),
        (
            {"flip": True, "shift": 0.125, "rotation": 15.0, "zoom": 0.1, "cutout": 8, "whitening": True},
            "flip, shift 0.12, rotation 15, zoom 0.1, cutout 8, whitening",
        ),
        (
            {"activation": "gelu", "width": 1.5, "blocks": 4, "convolutions": 2, "residual": True},
            "gelu, width 1.5, 4 blocks, 2 convolutions, residual",
        ),
        ({"batch_normalization": True, "head": "pooling", "dense_units": 9}, "normalised, pooling head"),
        ({"blocks": 1, "dense_units": 128}, "1 block, dense 128"),
        ({"weight_decay": 0.00051, "label_smoothing": 0.1}, "decay 0.00051, smoothing 0.1"),
    ],
)
def test_what_goes_beyond_the_article_in_words(fields: dict[str, Any], words: str) -> None:
    """A few words for each group of fields, and none for what means nothing in the recipe."""
    assert describe_beyond(Recipe(**fields)) == words


def test_the_batch_may_be_left_out() -> None:
    """Where it is told anyway."""
    assert describe_beyond(Recipe(batch_size=128, schedule="cosine"), batch=False) == "cosine"


@given(recipes())
def test_any_recipe_is_told_on_one_line(recipe: Recipe) -> None:
    """There are words exactly where something is switched on, and they suit a figure's HTML."""
    words = describe_beyond(recipe, batch=False)
    assert len(words) < 300
    assert not set(words) & set("<>&\n")
    off = [name for name in recipe.to_dict() if name not in ARTICLES_OWN]
    as_article = dataclasses.replace(recipe, **{name: getattr(ARTICLE, name) for name in off})
    assert describe_beyond(as_article, batch=False) == ""
