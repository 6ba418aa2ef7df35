"""trainer.schedule: the learning rate of each epoch."""

# isort: off
import tensorflow_started  # noqa: F401  # before Keras is imported

# isort: on
import math
from types import SimpleNamespace
from typing import Any

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.recipe import SCHEDULES, Recipe
from trainer.schedule import learning_rate


def rates(losses: list[float] | None = None, **fields: Any) -> list[float]:
    """The rates of all epochs of a recipe of rate 1, whose validation losses are those given."""
    recipe = Recipe(learning_rate=1.0, **fields)
    losses = losses or [1.0] * recipe.epochs
    return [learning_rate(recipe, losses[:done]) for done in range(recipe.epochs)]


def test_the_articles_rate_is_the_same_in_every_epoch() -> None:
    """No schedule is the recipe's own rate, to the last bit."""
    assert {learning_rate(Recipe(), [1.0] * done) for done in range(100)} == {0.01}


@pytest.mark.parametrize(
    ("fields", "table"),
    [
        ({"schedule": "step", "epochs": 4}, [1, 1, 0.1, 0.1]),
        ({"schedule": "step", "epochs": 4, "step_at": 0.75, "step_factor": 0.5}, [1, 1, 1, 0.5]),
        ({"schedule": "step", "epochs": 2, "step_at": 1.0}, [1, 0.1]),
        ({"schedule": "step", "epochs": 5, "step_at": 0.95}, [1, 1, 1, 1, 0.1]),
        ({"schedule": "step", "epochs": 1, "step_at": 1.0}, [1]),
        ({"schedule": "step", "epochs": 2, "step_at": 0.0}, [0.1, 0.1]),
        ({"schedule": "cosine", "epochs": 1}, [1]),
        ({"schedule": "cosine", "epochs": 2}, [1, 0.5]),
        ({"schedule": "cosine", "epochs": 3}, [1, 0.75, 0.25]),
        ({"schedule": "warmup_cosine", "epochs": 4, "warmup": 0.5}, [1 / 3, 2 / 3, 1, 0.5]),
        ({"schedule": "warmup_cosine", "epochs": 3, "warmup": 0.0}, [1, 0.75, 0.25]),
        ({"schedule": "warmup_cosine", "epochs": 3, "warmup": 1.0}, [1 / 3, 2 / 3, 1]),
        ({"schedule": "warmup_cosine", "epochs": 3, "warmup": 0.02}, [1 / 2, 1, 0.5]),
        ({"schedule": "warmup_cosine", "epochs": 1, "warmup": 1.0}, [1]),
    ],
    ids=str,
)
def test_a_schedules_table(fields: dict[str, Any], table: list[float]) -> None:
    """Each epoch has the rate that the schedule's definition gives it."""
    assert rates(**fields) == pytest.approx(table)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cap_on_the_epochs_keeps_a_schedules_shape(schedule: str) -> None:
    """A tenth of the epochs passes the same rates, a tenth as long."""
    losses = [1.0] * 200
    long = rates(losses, schedule=schedule, epochs=200, step_at=0.6, warmup=0.2, plateau_patience=0.2)
    short = rates(losses, schedule=schedule, epochs=20, step_at=0.6, warmup=0.2, plateau_patience=0.2)
    assert short[4:] == pytest.approx(long[40::10], rel=0.25)


@given(
    st.lists(st.floats(0, 3), min_size=12, max_size=12),
    st.integers(1, 4),
    st.sampled_from([0.1, 0.5]),
)
def test_plateau_is_kerass(losses: list[float], patience: int, factor: float) -> None:
    """Whatever the validation losses, the rates are those that ReduceLROnPlateau sets."""
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1.0))
    callback = keras.callbacks.ReduceLROnPlateau(patience=patience, factor=factor, mode="min")
    callback.set_model(model)
    callback.on_train_begin()
    theirs = []
    for epoch, loss in enumerate(losses):
        theirs.append(model.optimizer.learning_rate)
        callback.on_epoch_end(epoch, {"val_loss": loss})
    ours = rates(losses, schedule="plateau", epochs=12, plateau_patience=patience / 12, plateau_factor=factor)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_plateau_waits_an_epoch_at_least() -> None:
    """A share of less than an epoch is one."""
    assert rates([1.0, 1.0, 0.5, 0.5], schedule="plateau", epochs=4, plateau_patience=0.0) == [
        1.0,
        1.0,
        0.1,
        0.1,
    ]


@given(
    st.builds(
        Recipe,
        schedule=st.sampled_from(SCHEDULES),
        epochs=st.integers(1, 30),
        step_at=st.floats(0, 1),
        warmup=st.floats(0, 1),
        plateau_patience=st.floats(0, 1),
    ),
    st.lists(st.floats(0, 10), min_size=30, max_size=30),
)
def test_a_rate_is_positive_and_never_above_the_recipes(recipe: Recipe, losses: list[float]) -> None:
    """No schedule raises the rate beyond the one searched for, stops the training or leaves the numbers."""
    for done in range(recipe.epochs):
        rate = learning_rate(recipe, losses[:done])
        assert 0 < rate <= recipe.learning_rate
        assert math.isfinite(rate)
