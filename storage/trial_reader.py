"""Reading trials: the `FrozenTrial`s that Optuna's own storage would give, in a statement or two.

Optuna makes an object of each row, and a distribution of each parameter's text, twice. That takes seconds for
a worker's first look at a long study, and at every look the most of the time for the trials that run.
"""

import functools
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Float, String, Text, bindparam, cast, literal, null

from storage.schema import TRIALS
from storage.trial_rows import REPORTS, SYSTEM_ATTRS, USER_ATTRS, VALUES

PARAMS: Final[Any] = models.TrialParamModel.__table__
STUDIES: Final[Any] = models.StudyModel.__table__
TRIALS_A_STATEMENT: Final = 500
"""Both databases bound a statement's parameters, SQLite at 32,766 (https://sqlite.org/limits.html), and each
trial takes one a table."""
NOT_FINITE: Final = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}
"""How Optuna stores the numbers that not every database holds."""


def _rows_of(source: int, table: Any, key: Any, step: Any, number: Any, text: Any) -> Any:
    """The rows of some trials in a table, in columns that are the same for every table."""
    times = (TRIALS.c.datetime_start, TRIALS.c.datetime_complete) if table is TRIALS else (null(), null())
    return sqlalchemy.select(
        literal(source, literal_execute=True).label("source"),
        next(iter(table.primary_key)).label("row_id"),
        table.c.trial_id.label("trial_id"),
        *(column.label(name) for name, column in (("key", key), ("step", step), ("number", number))),
        text.label("text"),
        *(time.label(name) for name, time in zip(("started", "ended"), times, strict=True)),
    ).where(table.c.trial_id.in_(bindparam("trial_ids", expanding=True)))


# One statement, so that all it tells of a trial is of the same moment. The first part settles the types.
_ROWS: Final[Any] = sqlalchemy.union_all(
    _rows_of(
        0,
        TRIALS,
        cast(TRIALS.c.state, String),
        TRIALS.c.number,
        cast(null(), Float(53)),
        cast(null(), Text),
    ),
    _rows_of(1, PARAMS, PARAMS.c.param_name, null(), PARAMS.c.param_value, PARAMS.c.distribution_json),
    _rows_of(2, VALUES, null(), VALUES.c.objective, VALUES.c.value, cast(VALUES.c.value_type, String)),
    _rows_of(
        3,
        REPORTS,
        null(),
        REPORTS.c.step,
        REPORTS.c.intermediate_value,
        cast(REPORTS.c.intermediate_value_type, String),
    ),
    _rows_of(4, USER_ATTRS, USER_ATTRS.c.key, null(), null(), USER_ATTRS.c.value_json),
    _rows_of(5, SYSTEM_ATTRS, SYSTEM_ATTRS.c.key, null(), null(), SYSTEM_ATTRS.c.value_json),
).order_by("trial_id", "source", "row_id")


def find_trials(
    connection: sqlalchemy.Connection, study_id: int, included: set[int], greater_than: int
) -> list[int]:
    """The ids of a study's trials above `greater_than`, and of those of `included` that are not, ascending.

    Raises:
        KeyError: There is no such study.
    """
    wanted = TRIALS.c.trial_id > greater_than
    among = {trial_id for trial_id in included if trial_id <= greater_than}
    is_few = len(among) <= TRIALS_A_STATEMENT
    if among:
        wanted = wanted | TRIALS.c.trial_id.in_(among) if is_few else sqlalchemy.true()
    # The study's row comes without a trial too, which tells an empty answer from a study that is not there.
    query = (
        sqlalchemy.select(TRIALS.c.trial_id)
        .select_from(STUDIES)
        .outerjoin(TRIALS, (TRIALS.c.study_id == STUDIES.c.study_id) & wanted)
        .where(STUDIES.c.study_id == study_id)
    )
    rows = connection.scalars(query).all()
    if not rows:
        raise KeyError(models.NOT_FOUND_MSG)
    ids = sorted(trial_id for trial_id in rows if trial_id is not None)
    return ids if is_few else [trial_id for trial_id in ids if trial_id > greater_than or trial_id in among]


def read_trials(connection: sqlalchemy.Connection, trial_ids: Sequence[int]) -> list[FrozenTrial]:
    """The trials with those ids, in that order; one that does not exist is left out."""
    trials: dict[int, FrozenTrial] = {}
    for start in range(0, len(trial_ids), TRIALS_A_STATEMENT):
        rows = connection.execute(_ROWS, {"trial_ids": trial_ids[start : start + TRIALS_A_STATEMENT]})
        _add_rows(trials, rows.all())
    return [trials[trial_id] for trial_id in trial_ids if trial_id in trials]


def _add_rows(trials: dict[int, FrozenTrial], rows: Sequence[Any]) -> None:
    values: dict[int, dict[int, float]] = {}
    for source, _, trial_id, key, step, number, text, started, ended in rows:
        if source == 0:
            trials[trial_id] = _blank_trial(trial_id, step, TrialState[key], started, ended)
            continue
        trial = trials[trial_id]
        if source == 1:
            distribution = _distribution(text)
            trial.params[key] = distribution.to_external_repr(number)
            trial.distributions[key] = distribution
        elif source == 2:
            values.setdefault(trial_id, {})[step] = _number(number, text)
        elif source == 3:
            trial.intermediate_values[step] = _number(number, text)
        else:
            (trial.user_attrs if source == 4 else trial.system_attrs)[key] = json.loads(text)
    for trial_id, by_objective in values.items():
        trials[trial_id].values = [by_objective[objective] for objective in sorted(by_objective)]


def _blank_trial(
    trial_id: int, number: int, state: TrialState, started: datetime | None, ended: datetime | None
) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=state,
        value=None,
        datetime_start=_local(started),
        datetime_complete=_local(ended),
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial_id,
    )


@functools.lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    # Nobody changes a distribution, so trials can share one.
    return json_to_distribution(text)


def _number(number: float | None, kind: str) -> float:
    return NOT_FINITE[kind] if number is None else number


def _local(time: datetime | None) -> datetime | None:
    """A time as Optuna gives it, in this machine's zone without saying so, from UTC as Optuna stores it."""
    return None if time is None else time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
