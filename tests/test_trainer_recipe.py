"""trainer.recipe: the article's values, every field's range, and the way through JSON."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.errors import RecipeError
from trainer.recipe import ARTICLE, CHOICES, LIMITS, Recipe, Value

FLOAT_FIELDS = sorted(name for name, limits in LIMITS.items() if limits.kind is float)
INT_FIELDS = sorted(name for name, limits in LIMITS.items() if limits.kind is int)


def _inside(name: str) -> st.SearchStrategy[Any]:
    limits = LIMITS[name]
    if limits.kind is int:
        return st.integers(int(limits.low), int(limits.high))
    return st.floats(limits.low, limits.high)


def _outside(name: str) -> st.SearchStrategy[Any]:
    limits = LIMITS[name]
    whole = st.integers(max_value=math.ceil(limits.low) - 1) | st.integers(min_value=int(limits.high) + 1)
    if limits.kind is int:
        return whole
    return (
        whole
        | st.floats(max_value=limits.low, exclude_max=True)
        | st.floats(min_value=limits.high, exclude_min=True)
    )


FIELDS_AND_OUTSIDE = st.sampled_from(sorted(LIMITS)).flatmap(
    lambda name: st.tuples(st.just(name), _outside(name))
)


@st.composite
def _recipes(draw: st.DrawFn) -> Recipe:
    """Any recipe."""
    values = {name: draw(_inside(name)) for name in LIMITS}
    values |= {name: draw(st.sampled_from(choices)) for name, choices in CHOICES.items()}
    try:
        return Recipe(**values)
    except RecipeError as error:
        assert "parameters is above the bound" in str(error)
        # Any other values, with the article's network.
        network = ("width", "blocks", "convolutions", "residual", "dense_units")
        return Recipe(**{**values, **{name: getattr(ARTICLE, name) for name in network}})


BEYOND: dict[str, Value] = {
    "schedule": "constant",
    "step_at": 0.5,
    "step_factor": 0.1,
    "warmup": 0.05,
    "plateau_patience": 0.1,
    "plateau_factor": 0.1,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "flip": False,
    "shift": 0.0,
    "rotation": 0.0,
    "zoom": 0.0,
    "cutout": 0,
    "whitening": False,
    "activation": "relu",
    "width": 1.0,
    "blocks": 3,
    "convolutions": 1,
    "batch_normalization": False,
    "residual": False,
    "head": "dense",
    "dense_units": 80,
}
"""What a recipe has beyond the article, as it is where it does nothing."""


def test_the_article_is_the_articles_recipe() -> None:
    """ARTICLE holds the numbers that the article prints, and all else is switched off."""
    assert ARTICLE.to_dict() == {
        "dropout_block1": 0.3,
        "dropout_block2": 0.3,
        "dropout_block3": 0.4,
        "dropout_dense": 0.3,
        "learning_rate": 0.01,
        "optimizer": "momentum",
        "epochs": 100,
        "batch_size": 64,
        "seed": 0,
        **BEYOND,
    }


def test_a_recipe_of_an_older_version_is_the_same_recipe() -> None:
    """Where the fields beyond the article are missing, they are switched off."""
    older = {name: value for name, value in ARTICLE.to_dict().items() if name not in BEYOND}
    assert len(older) == 9
    assert Recipe.from_dict({**older, "seed": 4}) == dataclasses.replace(ARTICLE, seed=4)


def test_every_field_is_checked() -> None:
    """Each has either a range or a list of what it may hold."""
    assert sorted(field.name for field in dataclasses.fields(Recipe)) == sorted([*LIMITS, *CHOICES])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("dropout_block1", 0.0, 0.95),
        ("dropout_block2", 0.0, 0.95),
        ("dropout_block3", 0.0, 0.95),
        ("dropout_dense", 0.0, 0.95),
        ("learning_rate", 1e-8, 10.0),
        ("epochs", 1, 10_000),
        ("batch_size", 1, 10_000),
        ("seed", 0, 2**31 - 1),
    ],
)
def test_both_ends_of_a_range_belong_to_it_and_nothing_beyond(name: str, low: float, high: float) -> None:
    """A range is closed: its ends are taken, the next number outside is refused."""
    for end in (low, high):
        assert getattr(Recipe(**{name: end}), name) == end
    beyond = (
        [low - 1, high + 1] if isinstance(low, int) else [math.nextafter(low, -1), math.nextafter(high, 99)]
    )
    for value in beyond:
        with pytest.raises(RecipeError, match=name):
            Recipe(**{name: value})


@given(_recipes())
def test_a_recipe_within_the_ranges_goes_through_json_unchanged(recipe: Recipe) -> None:
    """to_dict, JSON and from_dict give the same recipe back."""
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@given(FIELDS_AND_OUTSIDE)
@example(("epochs", 10**400))
@example(("learning_rate", 10**400))
@example(("dropout_dense", -(10**400)))
@example(("seed", -1))
def test_a_number_outside_its_range_is_refused(case: tuple[str, Any]) -> None:
    """The error names the field, the value and the range."""
    name, value = case
    _assert_refused(name, value)


@pytest.mark.parametrize("name", sorted(LIMITS))
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, True, False, "0.5", "1", b"1", None, [1], 1j, (), {}],
    ids=repr,
)
def test_what_is_no_number_in_range_is_refused(name: str, value: Any) -> None:
    """NaN, infinities, truth values, texts and containers are no hyperparameters."""
    _assert_refused(name, value)


@pytest.mark.parametrize("name", INT_FIELDS)
@pytest.mark.parametrize("value", [2.0, 2.5])
def test_a_whole_number_field_takes_no_float(name: str, value: float) -> None:
    """Even 2.0 is refused where a count is wanted, lest 2.5 be cut silently."""
    _assert_refused(name, value)


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 1), ("dropout_block1", 0)])
def test_a_float_field_takes_a_whole_number_as_a_float(name: str, value: int) -> None:
    """`learning_rate = 1` in a file means 1.0, and is kept as a float."""
    kept = getattr(Recipe(**{name: value}), name)
    assert kept == value
    assert type(kept) is float


def test_every_number_is_kept_as_the_fields_own_type() -> None:
    """A recipe of numpy's floats is a recipe of plain floats, which JSON can write."""
    assert type(Recipe(learning_rate=np.float64(0.5)).learning_rate) is float


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["SGD", "", "adamw", " adam", None, 1, 0, ["adam"], "True"], ids=repr)
def test_an_unknown_choice_is_refused(name: str, value: Any) -> None:
    """The error names the field, the value and every choice there is; 1 is not true."""
    with pytest.raises(RecipeError) as caught:
        Recipe(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} must be one of ")
    assert message.endswith(f"got {value!r}")
    assert all(str(choice).lower() in message for choice in CHOICES[name])


@pytest.mark.parametrize(("name", "choice"), [(name, one) for name in CHOICES for one in CHOICES[name]])
def test_every_choice_is_taken(name: str, choice: Any) -> None:
    """Each value in CHOICES makes a recipe."""
    assert getattr(Recipe(**{name: choice}), name) == choice


@given(st.text().filter(lambda name: name not in ARTICLE.to_dict()))
@example("momentum")
@example("__class__")
def test_an_unknown_key_is_refused(name: str) -> None:
    """The error names the key and the fields that there are."""
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({**ARTICLE.to_dict(), name: 1})
    message = str(caught.value)
    assert repr(name) in message
    assert all(field in message for field in ARTICLE.to_dict())


def test_missing_keys_take_the_articles_values() -> None:
    """A dict of some fields is the article's recipe with those changed."""
    assert Recipe.from_dict({}) == ARTICLE
    assert Recipe.from_dict({"seed": 7}) == dataclasses.replace(ARTICLE, seed=7)


def test_from_dict_checks_values_too() -> None:
    """A stored recipe is checked like any other."""
    with pytest.raises(RecipeError, match="epochs must be a whole number from 1 to 10000, got 0"):
        Recipe.from_dict({**ARTICLE.to_dict(), "epochs": 0})


@pytest.mark.parametrize("name", [*LIMITS, *CHOICES])
def test_a_recipe_cannot_be_changed(name: str) -> None:
    """A recipe is a value: equal ones are interchangeable, also as keys."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Recipe(), name, getattr(ARTICLE, name))
    assert hash(Recipe()) == hash(ARTICLE)


def _assert_refused(name: str, value: Any) -> None:
    """Refused with a RecipeError that names field, value and range."""
    with pytest.raises(RecipeError) as caught:
        Recipe(**{name: value})
    message = str(caught.value)
    limits = LIMITS[name]
    assert message.startswith(f"{name} must be ")
    assert message.endswith(f"got {value!r}")
    assert f"{limits.low:g} to {limits.high:g}" in message
