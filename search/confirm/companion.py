"""A round of a confirmation as a companion study: made whole or completed later, found again.

All that a round is stands in attributes of its companion: the plan (first of all), the verdict, the record of
the test set. Its trials are enqueued with their recipes, as trial 0 of a search is, and it is marked as the
study's companion when all of them are there; from then on the study's workers find it.
"""

import dataclasses
from collections.abc import Sequence
from uuid import uuid4

import optuna

from search.confirm.ending import end_trials
from search.confirm.ledger import note_round, read_rounds
from search.confirm.plan import ConfirmPlan, ConfirmWish, check_asks_anew, make_plan
from search.confirm.round import Round
from search.confirm.standing import read_standing
from search.errors import ConfirmError, StudyError
from search.space import params_of
from search.study import (
    PLAN_KEY,
    SETTINGS_KEY,
    OpenStudy,
    Settings,
    is_blank,
    open_study,
    set_up_study,
)
from search.study_note import companion_note_attrs
from search.summary import RECIPE_KEY, summarise_trials
from storage.companions import COMPANION_KEY, IDENTITY_KEY
from storage.database import Database


def look_ahead(opened: OpenStudy, wish: ConfirmWish, *, again: bool) -> tuple[ConfirmPlan, bool]:
    """What `open_round` would do if nobody else does anything meanwhile; nothing is written.

    Returns:
        The plan of the round that it would begin or go on with, and whether a trial of it is still to end.

    Raises:
        ConfirmError: As there.
    """
    opened.check_is_search()
    plan, last = _decide(opened, wish, again, read_rounds(opened), identity="")
    if last is None or not last.is_whole:
        return plan, True
    return plan, not read_standing(open_study(opened.database, last.name), plan).is_over


def open_round(opened: OpenStudy, wish: ConfirmWish, *, again: bool) -> tuple[Round, OpenStudy, bool]:
    """The round to work on, and its companion: the last one, or a new one if there is none that goes on.

    One process at a time does this; what an earlier one left half made is completed.

    Args:
        opened: The study.
        wish: What was asked for; where a round goes on, it must not contradict the round's plan.
        again: Begin a further round if the last one is over.

    Returns:
        The round, its companion, and whether it was begun now.

    Raises:
        ConfirmError: There is nothing to confirm, the wish is another round's, or it asks nothing that no
            round has answered.
    """
    opened.check_is_search()
    database = opened.database
    with database.exclusive():
        rounds = read_rounds(opened)
        for one in rounds:
            if one.abandoned is not None and not one.is_deleted:
                # Who abandoned it may have died before this.
                end_trials(database, one.name)
        plan, last = _decide(opened, wish, again, rounds, _identity(opened))
        name, is_whole = (_claim_name(database, plan), False) if last is None else (last.name, last.is_whole)
        if not is_whole:
            _complete(database, name, plan, opened.settings)
        (current,) = (one for one in read_rounds(opened) if one.plan.round == plan.round)
        return current, open_study(database, name), last is None


def _identity(opened: OpenStudy) -> str:
    """The study's identity; one that was made before studies had any gets it now."""
    storage, study_id = opened.database.storage, opened.study._study_id
    identity = storage.get_study_system_attrs(study_id).get(IDENTITY_KEY)
    if identity is None:
        identity = uuid4().hex
        storage.set_study_system_attr(study_id, IDENTITY_KEY, identity)
    return str(identity)


def _decide(
    opened: OpenStudy, wish: ConfirmWish, again: bool, rounds: Sequence[Round], identity: str
) -> tuple[ConfirmPlan, Round | None]:
    """The plan to work on, and the round that goes on with it; None for a new one.

    Raises:
        ConfirmError: As `open_round`.
    """
    last = rounds[-1] if rounds else None
    if last is None or last.is_deleted or last.is_void or (again and _is_over(opened.database, last)):
        return _plan_next(opened, wish, rounds, identity), None
    _check_wish(last, wish)
    return last.plan, last


def _is_over(database: Database, last: Round) -> bool:
    """Whether a further round may follow: the last one has its verdict, or cannot have one any more."""
    if last.verdict is not None:
        return True
    if not last.is_whole:
        return False
    try:
        read_standing(open_study(database, last.name), last.plan)
    except ConfirmError:
        return True
    return False


def _plan_next(opened: OpenStudy, wish: ConfirmWish, rounds: Sequence[Round], identity: str) -> ConfirmPlan:
    """The plan of a further round, which asks something that none of `rounds` has answered.

    Raises:
        ConfirmError: It does not, or there is nothing to confirm.
    """
    trials = summarise_trials(opened.study)
    # What a mistaken round asked for is no default.
    last = next((one.plan for one in reversed(rounds) if not one.is_void), None)
    plan = make_plan(
        opened.study.study_name,
        identity,
        opened.settings,
        trials,
        wish,
        [one.plan for one in rounds],
        last,
    )
    # What a machine's fault left open may be asked again.
    settled = [one for one in rounds if one.verdict is not None]
    check_asks_anew(plan, [one.plan for one in settled if not _has_failures(opened.database, one)])
    return plan


def _has_failures(database: Database, settled: Round) -> bool:
    try:
        standing = read_standing(open_study(database, settled.name), settled.plan)
    except (ConfirmError, StudyError):
        # Its trials were meddled with, or it was deleted; its verdict holds.
        return False
    return any(one.state == "failed" for outcomes in standing.outcomes for one in outcomes)


def _check_wish(last: Round, wish: ConfirmWish) -> None:
    """See that a round that goes on is what was asked for.

    Raises:
        ConfirmError: It is not.
    """
    plan = last.plan
    if lines := plan.differences(wish):
        way = "leave these options out, or give it up with --abandon"
        if last.verdict is not None:
            way = "--again begins a further round"
        raise ConfirmError(
            f"round {plan.round} of confirming {plan.study!r}, {last.name!r}, is planned otherwise: "
            f"{'; '.join(lines)}; {way}"
        )


def _claim_name(database: Database, plan: ConfirmPlan) -> str:
    """A companion that is nothing but its plan: the first name that no other study has."""
    number = plan.round
    while True:
        name = f"{plan.study}-confirm" + ("" if number == 1 else f"-{number}")
        study = optuna.create_study(
            storage=database.storage, study_name=name, direction="maximize", load_if_exists=True
        )
        # A process that died before the next line leaves a blank one.
        if is_blank(study):
            study.set_user_attr(PLAN_KEY, plan.to_dict())
            return name
        number += 1


def _complete(database: Database, name: str, plan: ConfirmPlan, settings: Settings) -> None:
    """Make what is missing of the companion `name`: settings, total, trials, and at last the mark.

    A process may die between any two lines: with the plan the next one knows what it is, and goes on.
    """
    study = optuna.load_study(storage=database.storage, study_name=name)
    if SETTINGS_KEY not in study.user_attrs:
        # Files outside the database have a folder of their own.
        folder = "" if settings.artifacts is None else uuid4().hex
        mine = dataclasses.replace(settings, folder=folder)
        set_up_study(database, study, mine, companion_note_attrs(plan.study))
    runs = plan.runs()
    database.limit_trials(study, len(runs))
    space = settings.capped_space
    for recipe in runs[len(study.get_trials(deepcopy=False)) :]:
        study.enqueue_trial(params_of(recipe, space), user_attrs={RECIPE_KEY: recipe.to_dict()})
    # Nobody trains anything of it before the mark, so that a round that is not noted was none.
    note_round(database, name, study.user_attrs)
    database.storage.set_study_system_attr(study._study_id, COMPANION_KEY, plan.identity)
