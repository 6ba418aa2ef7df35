"""The rounds of a study, as their companions keep them and as the study itself does.

A companion that is deleted leaves a trace: a copy of its record in the study, written before the record.
While the companion is there its own counts; after that the copy tells that there was a round, what it came
to, and that the test set was opened.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import optuna

from search.confirm.plan import ConfirmPlan
from search.confirm.round import ABANDONED_KEY, TEST_KEY, VERDICT_KEY, Round, read_round
from search.confirm.standing import gone
from search.study import PLAN_KEY, OpenStudy
from storage.companions import COMPANION_KEY, IDENTITY_KEY
from storage.database import Database

LEDGER_KEY: Final = "cnn_search:confirm:"
"""Study system attribute, with the number of a round after it: the companion's name and `KEPT` of it."""
KEPT: Final = (PLAN_KEY, VERDICT_KEY, TEST_KEY, ABANDONED_KEY)
"""The companion's user attributes of which there is a copy."""


def read_rounds(opened: OpenStudy) -> list[Round]:
    """The rounds of a study, the first one first, those included whose companion was deleted.

    Raises:
        ConfirmError: What is kept of one cannot be read.
    """
    database, study_id = opened.database, opened.study._study_id
    attrs = database.storage.get_study_system_attrs(study_id)
    identity = attrs.get(IDENTITY_KEY)
    if identity is None:
        return []
    living = [
        read_round(study.study_name, study.user_attrs, is_whole=COMPANION_KEY in study.system_attrs)
        for study in database.storage.get_all_studies()
        if _identity_of(study.user_attrs) == identity
    ]
    # Not by their names, which come again.
    numbers = {one.plan.round for one in living}
    deleted = [
        read_round(copy["companion"], copy, is_deleted=True)
        for key, copy in attrs.items()
        if key.startswith(LEDGER_KEY) and int(key.removeprefix(LEDGER_KEY)) not in numbers
    ]
    return sorted([*living, *deleted], key=lambda one: one.plan.round)


def note_round(database: Database, companion: str, attrs: Mapping[str, Any]) -> None:
    """Keep a copy of what the user attributes of a companion are about to be; under `exclusive()`.

    A study that was deleted keeps nothing, and its companion goes on without it.

    Args:
        database: Has both studies.
        companion: Its name.
        attrs: Its user attributes.
    """
    plan = attrs[PLAN_KEY]
    try:
        study = optuna.load_study(storage=database.storage, study_name=plan["study"])
    except KeyError:
        return
    known = database.storage.get_study_system_attrs(study._study_id)
    if known.get(IDENTITY_KEY) != plan["identity"]:
        return
    key = f"{LEDGER_KEY}{plan['round']}"
    copy = {"companion": companion, **{name: attrs[name] for name in KEPT if name in attrs}}
    if known.get(key) != copy:
        database.storage.set_study_system_attr(study._study_id, key, copy)


def keep(database: Database, name: str, key: str, value: Mapping[str, Any]) -> None:
    """Set a user attribute of the companion `name`, the study's copy of it first; under `exclusive()`."""
    study = optuna.load_study(storage=database.storage, study_name=name)
    note_round(database, name, {**study.user_attrs, key: value})
    study.set_user_attr(key, value)


def keep_first(
    companion: OpenStudy,
    plan: ConfirmPlan,
    key: str,
    change: Callable[[Mapping[str, Any] | None], Mapping[str, Any]],
) -> Mapping[str, Any]:
    """Change what a companion keeps under `key`, one process at a time; what is there afterwards.

    Args:
        companion: The study.
        plan: That of its round, which tells it from a study of the same id.
        key: Of its user attribute.
        change: Gives what is to be there for what is there now, None for nothing.

    Raises:
        ConfirmError: The companion was deleted meanwhile.
    """
    database, study = companion.database, companion.study
    with database.exclusive():
        try:
            attrs = study.user_attrs
            # SQLite gives a deleted study's id to the next one.
            if not _is_of(plan, attrs):
                raise KeyError(study.study_name)
            former = attrs.get(key)
            value = change(former)
            if value != former:
                keep(database, study.study_name, key, value)
        except KeyError as error:
            raise gone(study.study_name) from error
    return value


def now() -> str:
    """The time as records have it: UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_of(plan: ConfirmPlan, attrs: Mapping[str, Any]) -> bool:
    """Whether a study with these user attributes is the companion that has that plan."""
    try:
        return ConfirmPlan.from_dict(attrs[PLAN_KEY]) == plan
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _identity_of(user_attrs: Mapping[str, Any]) -> Any:
    plan = user_attrs.get(PLAN_KEY)
    return plan.get("identity") if isinstance(plan, dict) else None
