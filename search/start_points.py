"""Recipes that many have had success with: what a study tries before it draws at random."""

from collections.abc import Mapping
from typing import Final

from search.conditions import applies
from search.space import Space, params_of
from trainer.recipe import ARTICLE, Recipe, Value

_DROPOUTS: Final = ("dropout_block1", "dropout_block2", "dropout_block3", "dropout_dense")

POINTS: Final[tuple[Mapping[str, Value], ...]] = (
    # As residual networks are trained on CIFAR-10 (He et al. 2016, arXiv:1512.03385: momentum 0.9, flipped,
    # shifted by up to 4 of 32 pixels, batch normalisation, no dropout), with weight decay of Zagoruyko and
    # Komodakis 2016, arXiv:1605.07146, and the cosine that took the place of steps (Loshchilov and Hutter
    # 2017, arXiv:1608.03983) from half of their rate.
    {
        "optimizer": "momentum",
        "learning_rate": 0.05,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "flip": True,
        "shift": 0.125,
        "batch_normalization": True,
        **dict.fromkeys(_DROPOUTS, 0.0),
    },
    # Adam as its authors propose it (Kingma and Ba 2015, arXiv:1412.6980), with dropout that grows from the
    # image on, as it does in the convolutional networks of Srivastava et al. 2014 (JMLR 15): it needs fewer
    # epochs than the article's, and the same rate everywhere is worth a point less.
    {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "dropout_block1": 0.1,
        "dropout_block2": 0.2,
        "dropout_block3": 0.4,
        "dropout_dense": 0.2,
    },
)
"""What each changes in the article's recipe; the most promising first."""


def start_points(space: Space) -> tuple[Mapping[str, Value], ...]:
    """The parameters of the first trials after the article's own, in order.

    A point of which the space lacks any value is left out, the article's values of all else included: parts
    of it, as the rate of one optimizer with another, may be far from good.

    Returns:
        For each point the values by field of what is searched, epochs left out.
    """
    recipes = [Recipe.from_dict({**ARTICLE.to_dict(), **point}) for point in POINTS]
    return tuple(
        {name: value for name, value in params_of(recipe, space).items() if name != "epochs"}
        for recipe in recipes
        if _holds(space, recipe)
    )


def _holds(space: Space, recipe: Recipe) -> bool:
    values = recipe.to_dict()
    return all(
        space.range_of(field).holds(value)
        for field, value in values.items()
        if field not in ("epochs", "seed") and applies(field, values)
    )
