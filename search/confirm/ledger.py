"""What a study itself keeps of its rounds, so that a companion that is deleted leaves a trace.

A copy of the companion's own record, written before it. While the companion is there its own counts; after
that the copy tells that there was a round, what it came to, and that the test set was opened.
"""

from collections.abc import Mapping
from typing import Any, Final

import optuna

from search.confirm.round import ABANDONED_KEY, TEST_KEY, VERDICT_KEY
from search.study import PLAN_KEY
from storage.companions import IDENTITY_KEY
from storage.database import Database

LEDGER_KEY: Final = "cnn_search:confirm:"
"""Study system attribute, with the number of a round after it: the companion's name and `KEPT` of it."""
KEPT: Final = (PLAN_KEY, VERDICT_KEY, TEST_KEY, ABANDONED_KEY)
"""The companion's user attributes of which there is a copy."""


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


def read_ledger(database: Database, study_id: int) -> dict[str, Mapping[str, Any]]:
    """The copies of all rounds of a study, by their companions' names."""
    attrs = database.storage.get_study_system_attrs(study_id)
    return {str(copy["companion"]): copy for key, copy in attrs.items() if key.startswith(LEDGER_KEY)}
