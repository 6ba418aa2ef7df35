"""What is known of a study's rounds without working on them: for `best` and `status`."""

from dataclasses import dataclass
from typing import Any

from search.confirm.companion import read_rounds
from search.confirm.plan import without_seed
from search.confirm.round import Round
from search.errors import ConfirmError
from search.study import OpenStudy, open_study
from search.summary import TrialSummary, count_ended, summarise_trials


@dataclass(frozen=True)
class Confirmation:
    """Whether a trial's recipe is confirmed.

    Attributes:
        is_confirmed: By a verdict beyond noise; None where no round has come to one about it.
        companion: The study that compared it last; None for none.
        text: The same in a sentence or two.
    """

    is_confirmed: bool | None
    companion: str | None
    text: str


def find_confirmation(opened: OpenStudy, trial: TrialSummary) -> Confirmation:
    """What the last round that compared the recipe of `trial`, whatever its seed, came to."""
    try:
        rounds = read_rounds(opened)
    except ConfirmError as error:
        return Confirmation(None, None, f"Whether it is confirmed cannot be told: {error}.")
    for one in reversed(rounds):
        recipes = [without_seed(candidate.recipe) for candidate in one.plan.candidates]
        if trial.recipe is not None and without_seed(trial.recipe) in recipes:
            return _of_round(one, recipes.index(without_seed(trial.recipe)))
    if rounds:
        trials = ", ".join(str(candidate.trial) for candidate in rounds[-1].plan.candidates)
        return Confirmation(
            None,
            None,
            f"Not confirmed: {rounds[-1].name!r} compared trials {trials}, before this one was among the "
            "best; `cnn-search confirm --again` compares the best of now.",
        )
    return Confirmation(
        None, None, "Not confirmed yet: `cnn-search confirm` trains it again on fresh seeds and says."
    )


def status_lines(opened: OpenStudy) -> list[str]:
    """A line for the last round of a study, or what a companion confirms; none where there is neither."""
    if opened.confirms is not None:
        return [f"confirms study {opened.confirms!r}: `cnn-search confirm` shows what it came to"]
    try:
        rounds = read_rounds(opened)
    except ConfirmError as error:
        return [f"confirm: {error}"]
    if not rounds:
        return []
    return [f"confirm, round {len(rounds)} ({rounds[-1].name!r}): {_outcome(opened, rounds[-1])}"]


def rounds_json(opened: OpenStudy) -> list[dict[str, Any]]:
    """The rounds as JSON-ready values, the first one first."""
    return [
        {
            "companion": one.name,
            "round": one.plan.round,
            "total": len(one.plan.runs()),
            "is_over": one.verdict is not None,
            "winner": None if one.winner is None else one.winner.trial,
        }
        for one in read_rounds(opened)
    ]


def _of_round(one: Round, index: int) -> Confirmation:
    number = one.plan.candidates[index].trial
    seeds = len(one.plan.seeds)
    if one.verdict is None:
        return Confirmation(
            None, one.name, f"Not confirmed yet: {one.name!r} trains it on {seeds} fresh seeds."
        )
    if one.verdict.winner != index:
        other = "no winner beyond noise" if one.winner is None else f"the winner is trial {one.winner.trial}"
        return Confirmation(
            False, one.name, f"Not confirmed: on {seeds} fresh seeds ({one.name!r}), {other}."
        )
    if one.plan.reference is None:
        figure = one.figure
        if figure is None:
            return Confirmation(None, one.name, f"Not confirmed yet: {one.name!r} has to be tested.")
        low, high = 100 * figure.interval.low, 100 * figure.interval.high
        told = "Confirmed: beyond noise" if figure.is_beyond else "Not confirmed: not beyond noise"
        return Confirmation(
            figure.is_beyond,
            one.name,
            f"{told} of {100 * figure.figure:.2f} %: on the test set {100 * figure.interval.mean:.2f} %, "
            f"95 % interval {low:.2f} to {high:.2f} % ({one.name!r}, {seeds} seeds).",
        )
    difference = one.verdict.decision.differences[index]
    points = "" if difference is None else f"{100 * difference.mean:+.2f} points "
    return Confirmation(
        True,
        one.name,
        f"Confirmed: its recipe (trial {number}) is {points}above the article's on {seeds} fresh seeds, "
        f"beyond noise ({one.name!r}).",
    )


def _outcome(opened: OpenStudy, one: Round) -> str:
    if one.verdict is None:
        try:
            ended = count_ended(summarise_trials(open_study(opened.database, one.name).study))
        except ConfirmError:
            ended = 0
        return f"{ended} of {len(one.plan.runs())} trials ended"
    if one.winner is None:
        return "no winner beyond noise; the test set stays closed"
    tested = "tested" if one.test is not None and one.test.is_scored else "not tested yet"
    if (figure := one.figure) is not None:
        tested = f"{'beyond' if figure.is_beyond else 'not beyond'} noise of {100 * figure.figure:.2f} %"
    return f"the winner is trial {one.winner.trial}; {tested}"
