"""What a confirmation trains: which recipes, on which fresh seeds, compared with what."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from search.errors import ConfirmError
from search.study import Settings
from search.summary import TrialSummary
from trainer.recipe import LIMITS, Recipe

Against = float | Literal["recipe"]
"""What the best are compared with: the article's recipe on the same seeds, or a published test accuracy."""
TOP: Final = 3
SEEDS: Final = 5
LEAST_SEEDS: Final = 2
"""One seed has no spread."""
MOST_RUNS: Final = 500
"""Trials that are enqueued, one after another, while others wait for their set-ups: 2 s in SQLite (measured);
at 11 statements each a minute with a database 10 ms away, half of what others wait at most."""
FORMAT: Final = 1
"""Version of the stored plan; another version's is refused."""
STREAM: Final = 0x636F6E66
"""Tells these seeds from other uses of the study's seed ("conf" in ASCII)."""


@dataclass(frozen=True)
class ConfirmWish:
    """What a user asked for; None for what was left open."""

    top: int | None = None
    seeds: int | None = None
    against: Against | None = None


@dataclass(frozen=True)
class Candidate:
    """A trial of the search whose recipe is trained again.

    Attributes:
        trial: Its number in the search.
        value: What it reached there, in [0, 1].
        recipe: As it was trained there, seed and all.
    """

    trial: int
    value: float
    recipe: Recipe


@dataclass(frozen=True)
class ConfirmPlan:
    """One round of confirming a study's best recipes.

    Attributes:
        study: The study's name.
        identity: What no other study has (`storage.companions.IDENTITY_KEY`).
        round: From 1; a further round has seeds of its own.
        top: How many recipes were asked for.
        against: What they are compared with.
        complete: How many trials of the study were complete, the best of which were taken.
        seeds: All recipes are trained on each of them.
        candidates: The best first, at least one; fewer than `top` where there are no more.
        reference: The study's yardstick, its seed without meaning; None where a figure is one.
    """

    study: str
    identity: str
    round: int
    top: int
    against: Against
    complete: int
    seeds: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    reference: Recipe | None

    def recipes(self) -> tuple[Recipe, ...]:
        """The candidates' recipes, then the reference's, each with some seed."""
        recipes = tuple(candidate.recipe for candidate in self.candidates)
        return recipes if self.reference is None else (*recipes, self.reference)

    def runs(self) -> tuple[Recipe, ...]:
        """The recipes to train, by trial number: seed by seed, so that pairs complete early."""
        return tuple(
            dataclasses.replace(recipe, seed=seed) for seed in self.seeds for recipe in self.recipes()
        )

    def run_of(self, recipe: int, seed: int) -> int:
        """The number of the trial that trains `recipes()[recipe]` on `seeds[seed]`."""
        return seed * len(self.recipes()) + recipe

    def recipe_of(self, run: int) -> int:
        """The index among `recipes()` of what the trial `run` trains."""
        return run % len(self.recipes())

    def differences(self, wish: ConfirmWish) -> list[str]:
        """Where a wish contradicts the plan, one line each."""
        pairs = (
            ("--top", self.top, wish.top),
            ("--seeds", len(self.seeds), wish.seeds),
            ("--against", self.against, wish.against),
        )
        return [
            f"it has {option} {planned}, not {wished}"
            for option, planned, wished in pairs
            if wished not in (None, planned)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready values."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConfirmPlan":
        """The plan that `to_dict` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: It is none.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}, and this version reads {FORMAT}")
        given = {key: value for key, value in values.items() if key != "format"}
        given["seeds"] = tuple(map(int, values["seeds"]))
        given["candidates"] = tuple(
            Candidate(int(one["trial"]), float(one["value"]), Recipe.from_dict(one["recipe"]))
            for one in values["candidates"]
        )
        if values["reference"] is not None:
            given["reference"] = Recipe.from_dict(values["reference"])
        return cls(**given)


def check_asks_anew(plan: ConfirmPlan, answered: Sequence[ConfirmPlan]) -> None:
    """See that a further round asks something that no earlier one has answered.

    The same recipes on other seeds, again and again until one wins, would be no confirmation. So one of them
    was never compared with this yardstick, or all get more seeds than any of them had before. One published
    figure is as good as another: it changes nothing of what is trained, and the test set is the same.

    Args:
        plan: The further round's.
        answered: Those of all rounds before that came to a verdict.

    Raises:
        ConfirmError: It does not.
    """
    mine = {without_seed(candidate.recipe) for candidate in plan.candidates}
    alike = [one for one in answered if (one.reference is None) == (plan.reference is None)]
    theirs = [{without_seed(candidate.recipe) for candidate in one.candidates} for one in alike]
    most, number = max(
        ((len(one.seeds), one.round) for one, recipes in zip(alike, theirs, strict=True) if mine & recipes),
        default=(0, 0),
    )
    if mine <= set().union(*theirs) and len(plan.seeds) <= most:
        raise ConfirmError(
            f"nothing has changed since round {number} of confirming {plan.study!r}, which had {most} seeds: "
            "other seeds until one recipe wins would be no confirmation; search on first, or ask for more "
            "than that with --seeds"
        )


def without_seed(recipe: Recipe) -> Recipe:
    """The recipe as it is compared with others: what it does, whatever chance it had."""
    return dataclasses.replace(recipe, seed=0)


def count_complete(trials: Sequence[TrialSummary]) -> int:
    """How many trials have a value and a model."""
    return sum(trial.value is not None and trial.has_model for trial in trials)


def make_plan(
    study: str,
    identity: str,
    settings: Settings,
    trials: Sequence[TrialSummary],
    wish: ConfirmWish,
    earlier: Sequence[ConfirmPlan] = (),
    last: ConfirmPlan | None = None,
) -> ConfirmPlan:
    """The plan of the next round.

    Args:
        study: The study's name.
        identity: Its identity.
        settings: Its settings.
        trials: All of its trials, in any order.
        wish: What was asked for; what it leaves open is as in the round `last`, else the default.
        earlier: The plans of the rounds before, whatever came of them.
        last: The one that a further round is like.

    Raises:
        ConfirmError: There is no recipe to confirm, or too much to train.
    """
    reference = settings.article_recipe
    top = wish.top or (TOP if last is None else last.top)
    count = wish.seeds or (SEEDS if last is None else len(last.seeds))
    against = wish.against or ("recipe" if last is None else last.against)
    candidates = choose_candidates(trials, reference, top)
    if not candidates:
        known = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
        raise ConfirmError(
            f"study {study!r} has no complete trial besides the article's recipe, which is the yardstick "
            f"({known}): there is nothing to confirm; `cnn-search run` searches on"
        )
    runs = count * (len(candidates) + (against == "recipe"))
    if runs > MOST_RUNS:
        raise ConfirmError(
            f"--top {top} with --seeds {count} is {runs} trainings, and a round has {MOST_RUNS} at most: "
            "take fewer of either"
        )
    number = 1 + max((plan.round for plan in earlier), default=0)
    taken = {trial.recipe.seed for trial in trials if trial.recipe is not None}
    taken.update(settings.trial_seed(trial.number) for trial in trials)
    taken.update(seed for plan in earlier for seed in plan.seeds)
    return ConfirmPlan(
        study,
        identity,
        number,
        top,
        against,
        count_complete(trials),
        fresh_seeds(settings.seed, number, taken, count),
        candidates,
        reference if against == "recipe" else None,
    )


def choose_candidates(trials: Sequence[TrialSummary], reference: Recipe, top: int) -> tuple[Candidate, ...]:
    """The `top` best complete trials by value, the earlier of equals, or as many as there are.

    Of trials that differ in their seeds alone the best stands for all. Neither trial 0 nor another one with
    the yardstick's recipe is one: on the same seed it would be trained to the same weights.
    """
    seen = {without_seed(reference)}
    chosen: list[Candidate] = []
    known = [trial for trial in trials if trial.value is not None and trial.has_model and trial.number != 0]
    for trial in sorted(known, key=lambda trial: (-(trial.value or 0.0), trial.number)):
        if trial.recipe is None or trial.value is None or without_seed(trial.recipe) in seen:
            continue
        seen.add(without_seed(trial.recipe))
        chosen.append(Candidate(trial.number, trial.value, trial.recipe))
    return tuple(chosen[:top])


def fresh_seeds(seed: int, round_number: int, taken: Collection[int], count: int) -> tuple[int, ...]:
    """`count` different seeds that are none of `taken`, fixed by the study's seed and the round.

    Args:
        seed: The study's.
        round_number: From 1.
        taken: Seeds that something was trained with.
        count: How many.
    """
    drawn = count
    while True:
        words = np.random.SeedSequence((seed, STREAM, round_number)).generate_state(drawn)
        seeds = dict.fromkeys(int(word) % (int(LIMITS["seed"].high) + 1) for word in words)
        fresh = [one for one in seeds if one not in taken]
        if len(fresh) >= count:
            return tuple(fresh[:count])
        drawn *= 2
