"""How a round ends: with a verdict, once all of its trials have ended, or given up before."""

import dataclasses
import socket

import optuna

from search.confirm.ledger import keep, keep_first, now, read_rounds
from search.confirm.plan import ConfirmPlan
from search.confirm.round import ABANDONED_KEY, VERDICT_KEY, Abandonment, Round
from search.confirm.standing import Standing, read_hits, telling_of_deletion
from search.confirm.verdict import Verdict, decide
from search.errors import ConfirmError
from search.study import MAX_RETRIES, OpenStudy
from search.summary import count_ended, summarise_trials
from storage.database import Database


def settle_verdict(companion: OpenStudy, plan: ConfirmPlan, standing: Standing) -> Verdict:
    """The round's verdict: the one that is kept, else it is decided and kept now.

    Args:
        companion: The round's.
        plan: Its plan.
        standing: Of which all trials have ended.

    Raises:
        ConfirmError: What its trials classified rightly cannot be read, or the round was abandoned or its
            companion deleted meanwhile.
    """
    with telling_of_deletion(companion):
        attrs = companion.study.user_attrs
    if attrs.get(ABANDONED_KEY) is not None:
        # Somebody did so while this process trained; that its trials failed is no recipe's doing.
        raise ConfirmError(
            f"round {plan.round} of confirming {plan.study!r} was abandoned; the same command begins another"
        )
    if (former := attrs.get(VERDICT_KEY)) is not None:
        return Verdict.from_dict(former)
    decision = decide(plan, standing, lambda: read_hits(companion, standing))
    made = Verdict(decision, now(), socket.gethostname())
    kept = keep_first(companion, plan, VERDICT_KEY, lambda former: former or made.to_dict())
    return Verdict.from_dict(kept)


def abandon_round(opened: OpenStudy) -> Round:
    """Give up the last round: its trials that wait or run fail, and it stays on record.

    Raises:
        ConfirmError: There is none, or it is over.
    """
    opened.check_is_search()
    database, name = opened.database, opened.study.study_name
    with database.exclusive():
        rounds = [one for one in read_rounds(opened) if not one.is_deleted]
        last = rounds[-1] if rounds else None
        if last is None or last.verdict is not None:
            what = "no round" if last is None else f"no open round: round {last.plan.round} has its verdict"
            raise ConfirmError(f"study {name!r} has {what}; there is nothing to abandon")
        trials = summarise_trials(optuna.load_study(storage=database.storage, study_name=last.name))
        ended = count_ended(trials)
        if last.abandoned is None:
            if ended == len(last.plan.runs()):
                raise ConfirmError(
                    f"all {ended} trials of {last.name!r} have ended: `cnn-search confirm` has the verdict"
                )
            made = Abandonment(now(), socket.gethostname(), ended)
            # Before its trials fail: whoever looks in between must not take that for the recipes' doing.
            keep(database, last.name, ABANDONED_KEY, dataclasses.asdict(made))
        end_trials(database, last.name)
        (abandoned,) = (one for one in read_rounds(opened) if one.plan.round == last.plan.round)
        return abandoned


def end_trials(database: Database, name: str) -> None:
    """Let the trials of the companion `name` that wait or run fail: its round is abandoned."""
    study = optuna.load_study(storage=database.storage, study_name=name)
    database.leases(study, MAX_RETRIES).end_open("abandoned with its round")
