"""A study's target: the value at which all its workers stop, and whether one of its trials has it."""

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

import sqlalchemy
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy import Float, bindparam, cast, func

from storage.outages import Retries
from storage.schema import FILES, TRIALS
from storage.shared_storage import STUDY_ATTRS
from storage.trial_rows import VALUES

TARGET_KEY: Final = "cnn_search:target"
"""Study system attribute: the value at which the study stops; null for none."""
ROUNDING: Final = 1e-9
"""More than a database loses of a number that it reads from text."""
Result = TypeVar("Result")

_TARGET: Final[Any] = sqlalchemy.select(STUDY_ATTRS.c.value_json).where(
    STUDY_ATTRS.c.study_id == bindparam("study_id"),
    STUDY_ATTRS.c.key == TARGET_KEY,
    STUDY_ATTRS.c.value_json != "null",
)
# What is below the target goes first: until the study stops that is everything, and nothing is joined.
_BEST: Final[Any] = (
    sqlalchemy.select(func.max(VALUES.c.value))
    .join(TRIALS, TRIALS.c.trial_id == VALUES.c.trial_id)
    .join(FILES, FILES.c.trial_id == TRIALS.c.trial_id)
    .where(
        VALUES.c.objective == 0,
        VALUES.c.value >= cast(func.nullif(STUDY_ATTRS.c.value_json, "null"), Float(53)) - ROUNDING,
        TRIALS.c.study_id == STUDY_ATTRS.c.study_id,
        TRIALS.c.state == TrialState.COMPLETE,
        FILES.c.kind == "model",
    )
    .correlate(STUDY_ATTRS)
    .scalar_subquery()
)
_TARGET_AND_BEST: Final[Any] = _TARGET.add_columns(_BEST)


class Target:
    """The target of one study, kept in the database as its total is: any process sets it for all."""

    def __init__(
        self, storage: BaseStorage, engine: sqlalchemy.Engine, retries: Retries, study_id: int
    ) -> None:
        """The target of the study with that id.

        Raises:
            SQLAlchemyError: From each method, where the database is away for longer than patience lasts.
        """
        self._storage, self._engine, self._retries, self._study_id = storage, engine, retries, study_id

    def set(self, value: float | None) -> None:
        """Let the study stop once a trial has that value; None lifts the target."""
        self._storage.set_study_system_attr(self._study_id, TARGET_KEY, value)

    def read(self) -> float | None:
        """The value at which the study stops; None for none."""

        def read(connection: sqlalchemy.Connection) -> float | None:
            text = connection.scalar(_TARGET, {"study_id": self._study_id})
            return None if text is None else float(json.loads(text))

        return self._run(read)

    def is_reached(self) -> bool:
        """Whether there is a target, and a complete trial with a model whose value is as high or higher.

        One statement, which reads the values of all trials, and of a study without a target nothing.
        """

        def find(connection: sqlalchemy.Connection) -> bool:
            row = connection.execute(_TARGET_AND_BEST, {"study_id": self._study_id}).one_or_none()
            # Compared here, where the text is the very number that was given.
            return row is not None and row[1] is not None and row[1] >= json.loads(row[0])

        return self._run(find)

    def _run(self, work: Callable[[sqlalchemy.Connection], Result]) -> Result:
        def transaction() -> Result:
            with self._engine.connect() as connection:
                return work(connection)

        return self._retries.run(transaction)
