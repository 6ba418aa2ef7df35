"""What is known of a study's rounds without working on them: for `best` and `status`."""

from dataclasses import dataclass, replace
from typing import Any

from search.confirm.ledger import read_rounds
from search.confirm.plan import Candidate, without_seed
from search.confirm.report import difference_text, no_winner_text
from search.confirm.round import Round
from search.errors import ConfirmError, StudyError
from search.study import OpenStudy, open_study
from search.summary import TrialSummary, count_ended, summarise_trials
from trainer.recipe import Recipe


@dataclass(frozen=True)
class PastRound:
    """What an earlier round came to.

    Attributes:
        round: Its number, from 1.
        companion: Its study.
        outcome: In a few words.
    """

    round: int
    companion: str
    outcome: str


@dataclass(frozen=True)
class Confirmation:
    """Whether a trial's recipe is confirmed.

    Attributes:
        is_confirmed: By a verdict beyond noise that the test set does not contradict; None where no round has
            come to that about it.
        companion: The study of the round that decides it; None for none.
        text: The same in a sentence or two.
        round: Which round that is, from 1; None for none.
        others: What the other rounds came to that compared it, the first one first.
    """

    is_confirmed: bool | None
    companion: str | None
    text: str
    round: int | None = None
    others: tuple[PastRound, ...] = ()


def find_confirmation(opened: OpenStudy, trial: TrialSummary) -> Confirmation:
    """What the rounds that compared the recipe of `trial`, whatever its seed, came to.

    The last one against the article's recipe decides and is told first. Where there is none, the last one
    against a published figure does. Rounds without a verdict that are over decide nothing.
    """
    try:
        rounds = read_rounds(opened)
    except ConfirmError as error:
        return Confirmation(None, None, f"Whether it is confirmed cannot be told: {error}.")
    recipe = None if trial.recipe is None else without_seed(trial.recipe)
    if trial.number == 0 or recipe == without_seed(opened.settings.article_recipe):
        return Confirmation(
            None,
            None,
            "It is the article's recipe, the yardstick of `cnn-search confirm`.",
        )
    compared = [(one, at) for one in rounds if (at := _place(one, recipe)) is not None]
    told_by = [pair for pair in compared if not pair[0].is_void]
    if told_by:
        # Whether a figure is beaten is another question: one that nobody reaches would take a confirmation
        # back, and a low one would give it to a recipe that lost.
        decides, at = ([pair for pair in told_by if pair[0].plan.reference is not None] or told_by)[-1]
        others = tuple(
            PastRound(one.plan.round, one.name, _past(one, place))
            for one, place in compared
            if one is not decides
        )
        told = "".join(f" Round {one.round} of it: {one.outcome}." for one in others)
        found = _of_round(decides, at)
        return replace(found, text=found.text + told, round=decides.plan.round, others=others)
    if rounds and not compared:
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
    return [f"confirm, round {rounds[-1].plan.round} ({rounds[-1].name!r}): {_outcome(opened, rounds[-1])}"]


def rounds_json(opened: OpenStudy) -> dict[str, Any]:
    """As JSON-ready values: `confirm`, the rounds, and `confirm_error`, null where they can be read."""
    try:
        rounds, error = read_rounds(opened), None
    except ConfirmError as unreadable:
        rounds, error = [], str(unreadable)
    told = [
        {
            "companion": one.name,
            "round": one.plan.round,
            "total": len(one.plan.runs()),
            "is_over": one.verdict is not None,
            "is_abandoned": one.abandoned is not None,
            "is_deleted": one.is_deleted,
            "is_tested": one.test is not None,
            "winner": None if one.winner is None else one.winner.trial,
            "is_upheld": one.is_upheld,
        }
        for one in rounds
    ]
    return {"confirm": told, "confirm_error": error}


def _place(one: Round, recipe: Recipe | None) -> int | None:
    """The index of a recipe without seed among a round's candidates; None where it is none of them."""
    recipes = [without_seed(candidate.recipe) for candidate in one.plan.candidates]
    return recipes.index(recipe) if recipe in recipes else None


def _past(one: Round, index: int) -> str:
    """What a round came to for one of its candidates, in a few words."""
    if one.verdict is None:
        return _void(one) if one.is_void else "no verdict yet"
    if one.chosen is None:
        return no_winner_text(one)
    if one.verdict.winner != index:
        return _other(one.chosen, one)
    if one.plan.against != "recipe":
        figure = f"{100 * one.plan.against:.2f} %"
        if one.figure is None:
            return f"it has the highest mean, and was not tested against {figure}"
        return f"{'beyond' if one.figure.is_beyond else 'not beyond'} noise of {figure}"
    return "it won" if one.is_upheld else "it won on validation alone"


def _void(one: Round) -> str:
    """How a round ended that has no verdict."""
    if one.abandoned is None:
        return "its study was deleted before it had a verdict"
    return f"abandoned after {one.abandoned.ended} of {len(one.plan.runs())} trials"


def _other(chosen: Candidate, one: Round) -> str:
    """Who was better, where it was another one."""
    is_winner = one.plan.reference is not None
    return f"the winner is trial {chosen.trial}" if is_winner else f"trial {chosen.trial} has a higher mean"


def _of_round(one: Round, index: int) -> Confirmation:
    number = one.plan.candidates[index].trial
    on = f"on {len(one.plan.seeds)} fresh seeds (round {one.plan.round}, {one.name!r})"
    if one.verdict is None:
        return Confirmation(None, one.name, f"Not confirmed yet: it is trained {on}.")
    if one.chosen is None or one.verdict.winner != index:
        other = no_winner_text(one) if one.chosen is None else _other(one.chosen, one)
        return Confirmation(False, one.name, f"Not confirmed {on}: {other}.")
    if one.plan.reference is None:
        figure = one.figure
        if figure is None:
            text = f"Not confirmed yet: it has the highest mean {on}, and the test set was not scored yet."
            return Confirmation(None, one.name, text)
        low, high = 100 * figure.interval.low, 100 * figure.interval.high
        told = "Confirmed: beyond noise" if figure.is_beyond else "Not confirmed: not beyond noise"
        return Confirmation(
            figure.is_beyond,
            one.name,
            f"{told} of {100 * figure.figure:.2f} %: on the test set {100 * figure.interval.mean:.2f} %, "
            f"95 % interval {low:.2f} to {high:.2f} %, {on}.",
        )
    difference = one.verdict.decision.differences[index]
    points = "" if difference is None else f"{100 * difference.mean:+.2f} points "
    won = f"its recipe (trial {number}) is {points}above the article's on validation, beyond noise, {on}"
    if one.test is None or one.test.difference is None:
        return Confirmation(None, one.name, f"Not confirmed yet: {won}; the test set was not scored yet.")
    word, joint = ("Confirmed", "and") if one.is_upheld else ("Not confirmed", "but")
    tested = f"on the test set {difference_text(one.test.difference)}"
    return Confirmation(one.is_upheld, one.name, f"{word}: {won}, {joint} {tested}.")


def _outcome(opened: OpenStudy, one: Round) -> str:
    if one.is_void:
        return _void(one)
    if one.verdict is None:
        try:
            ended = count_ended(summarise_trials(open_study(opened.database, one.name).study))
        except (StudyError, KeyError):
            # Deleted just now.
            ended = 0
        return f"{ended} of {len(one.plan.runs())} trials ended"
    return outcome_text(one)


def outcome_text(one: Round) -> str:
    """What a round came to, in a few words."""
    if one.verdict is None:
        return _void(one) if one.is_void else "no verdict yet"
    if one.chosen is None:
        return f"{no_winner_text(one)}; the test set stays closed"
    name = f"trial {one.chosen.trial}"
    if (figure := one.figure) is not None:
        told = f"beyond noise of {100 * figure.figure:.2f} %"
        return f"the winner is {name}: {told}" if figure.is_beyond else f"no winner: {name} is not {told}"
    if one.test is None or one.test.difference is None:
        return f"the best on validation is {name}; not tested yet"
    word = "the winner is" if one.is_upheld else "the winner on validation alone is"
    return f"{word} {name}; on the test set {difference_text(one.test.difference)}"
