"""Studies that belong to another one: its workers train their trials too, and take back their stale leases.

A companion names its study by what no two studies share, not by an id, which SQLite gives again. The mark is
made last, when all of its trials are there: no worker ever sees a part of it.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy
from optuna.trial import TrialState

from storage.schema import LEASES, TRIALS
from storage.shared_storage import STUDY_ATTRS
from storage.trial_reader import STUDIES

IDENTITY_KEY: Final = "cnn_search:identity"
"""Study system attribute that no two studies share: SQLite gives a deleted study's id to the next one."""
COMPANION_KEY: Final = "cnn_search:companion_of"
"""Study system attribute of a companion: the identity of the study that it belongs to."""


@dataclass(frozen=True)
class OpenCompanion:
    """A companion with trials that wait or run.

    Attributes:
        name: The study's.
        identity: As under `IDENTITY_KEY`.
        waiting: How many of its trials wait for a worker.
    """

    name: str
    identity: str
    waiting: int


def companions_of(study_id: int) -> Any:
    """The ids of a study's companions, as SQL."""
    own, theirs = STUDY_ATTRS.alias(), STUDY_ATTRS.alias()
    return (
        sqlalchemy.select(theirs.c.study_id)
        .join(own, own.c.value_json == theirs.c.value_json)
        .where(own.c.study_id == study_id, own.c.key == IDENTITY_KEY, theirs.c.key == COMPANION_KEY)
    )


def find_open(connection: sqlalchemy.Connection, study_id: int) -> list[OpenCompanion]:
    """The companions of a study that have work left, the oldest first, in one statement."""
    is_waiting = TRIALS.c.state == TrialState.WAITING
    waiting = sqlalchemy.func.sum(sqlalchemy.case((is_waiting, 1), else_=0))
    query = (
        sqlalchemy.select(STUDIES.c.study_name, STUDY_ATTRS.c.value_json, waiting)
        .join(TRIALS, TRIALS.c.study_id == STUDIES.c.study_id)
        .join(STUDY_ATTRS, STUDY_ATTRS.c.study_id == STUDIES.c.study_id)
        .outerjoin(LEASES, LEASES.c.trial_id == TRIALS.c.trial_id)
        .where(
            STUDIES.c.study_id.in_(companions_of(study_id)),
            STUDY_ATTRS.c.key == IDENTITY_KEY,
            # What another program runs has no lease, and nobody could tell whether it lives.
            is_waiting | LEASES.c.trial_id.is_not(None),
        )
        .group_by(STUDIES.c.study_id, STUDIES.c.study_name, STUDY_ATTRS.c.value_json)
        .order_by(STUDIES.c.study_id)
    )
    return [
        OpenCompanion(name, json.loads(identity), int(count))
        for name, identity, count in connection.execute(query)
    ]
