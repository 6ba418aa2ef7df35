"""Studies to confirm, and rounds of them that end as a test wants it, without training."""

from collections.abc import Callable, Sequence

import numpy as np
from optuna.trial import TrialState
from test_search_worker import WISHES

from search.confirm.statistics import IMAGES
from search.hits import HITS_KEY, pack_hits
from search.space import params_of
from search.study import OpenStudy, open_or_create_study
from search.summary import DIVERGED_KEY, RECIPE_KEY
from storage.claimed_trial import ClaimedTrial, NamedFile
from storage.database import Database
from storage.errors import TrialLimitReached
from storage.process import own_identity
from trainer.recipe import Recipe

MODEL = b"\x89HDF\r\n\x1a\n" + bytes(range(256))
"""What stands for a model where none is loaded."""
BETTER = 0.1
"""`dropout_block1` of the recipe that `finish_trials` can make better than others."""

Outcome = float | str
"""A value, or "diverged" or "failed"."""


def searched(database: Database, values: Sequence[float], name: str = "sample") -> OpenStudy:
    """A study whose trials are complete with these values; trial n > 0 has `dropout_block1` n / 20."""
    opened, _ = open_or_create_study(database, name, WISHES)
    for number in range(1, len(values)):
        recipe = Recipe(dropout_block1=number / 20, epochs=3, seed=number)
        enqueue(opened, recipe)
    left = list(values)
    finish_trials(opened, lambda _: left.pop(0))
    return opened


def enqueue(opened: OpenStudy, recipe: Recipe) -> None:
    """Make a recipe the next trial's."""
    params = params_of(recipe, opened.settings.capped_space)
    opened.study.enqueue_trial(params, user_attrs={RECIPE_KEY: recipe.to_dict()})


def finish_trials(
    opened: OpenStudy, outcome: Callable[[Recipe], Outcome], model: bytes = MODEL, most: int = 1000
) -> int:
    """End the trials that wait, up to `most`; how many that were."""
    database = opened.database
    database.work_as(own_identity())
    total = database.read_limit(opened.study)
    database.limit_trials(opened.study, len(opened.study.get_trials(deepcopy=False)))
    ended = 0
    try:
        while ended < most:
            trial = opened.study.ask()
            claimed = database.claimed(opened.artifacts, trial._trial_id)
            end(claimed, outcome(Recipe.from_dict(trial.user_attrs[RECIPE_KEY])), model)
            ended += 1
    except TrialLimitReached:
        pass
    database.limit_trials(opened.study, total)
    return ended


def end(claimed: ClaimedTrial, outcome: Outcome, model: bytes) -> None:
    """End a trial."""
    if outcome == "diverged":
        claimed.finish(TrialState.PRUNED, None, attrs={DIVERGED_KEY: 2})
    elif isinstance(outcome, str):
        claimed.finish(TrialState.FAIL, None, attrs={"failure": "ValueError: of no number"})
    else:
        file = NamedFile("model", f"trial-{outcome:.4f}.h5", "application/x-hdf5", model)
        images = np.arange(IMAGES)
        claimed.finish(
            TrialState.COMPLETE, outcome, [file], {HITS_KEY: pack_hits(images < round(outcome * IMAGES))}
        )
    claimed.let_go()


def alike(recipe: Recipe) -> float:
    """All recipes as good as each other, and seeds different."""
    return (
        0.7 + (recipe.seed % 97) / 10_000 + round(recipe.dropout_block1 * 1000 * (recipe.seed % 7 - 3)) / 1e6
    )


def one_better(recipe: Recipe) -> float:
    """The recipe of `BETTER` ten points better than the others."""
    return alike(recipe) + 0.1 * (recipe.dropout_block1 == BETTER)
