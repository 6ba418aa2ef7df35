"""Statements on a trial's rows, for transactions that do several things at once.

Optuna's storage does one thing a transaction. Ending a trial is a dozen that belong together, and a report is
one statement instead of three. The rows are those that Optuna's own storage would write.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.errors import LeaseLost
from storage.schema import FILES, LEASES, LOOSE_FILES, TRIALS

REPORTS: Final[Any] = models.TrialIntermediateValueModel.__table__
VALUES: Final[Any] = models.TrialValueModel.__table__
USER_ATTRS: Final[Any] = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRS: Final[Any] = models.TrialSystemAttributeModel.__table__
CHECKPOINT: Final = "checkpoint"
"""Kind of a file: what a trial goes on from."""
META_PREFIX: Final = "artifacts:"
"""Where Optuna keeps the metadata of a trial's artifacts, among its system attributes."""


def hold_lease(connection: Session | sqlalchemy.Connection, trial_id: int, worker: str | None) -> None:
    """See that `worker` has the trial's lease, and keep others from taking it until the transaction ends.

    Raises:
        LeaseLost: It has not.
    """
    lease = sqlalchemy.select(LEASES.c.trial_id).where(
        LEASES.c.trial_id == trial_id, LEASES.c.worker == worker
    )
    if connection.execute(lease.with_for_update()).one_or_none() is None:
        raise _lost(trial_id)


def insert_with_lease(
    connection: sqlalchemy.Connection,
    table: Any,
    trial_id: int,
    worker: str | None,
    row: Mapping[str, Any],
    *,
    key: str,
    changed: str,
) -> None:
    """Insert a trial's row, or change a column of the one that has its key, if `worker` has the lease.

    One statement: its rows come from the lease, which it locks.

    Args:
        connection: In a transaction.
        table: One of Optuna's that have a trial's rows.
        trial_id: The trial's id.
        worker: Who writes.
        row: The columns' values, without the trial's id.
        key: The column that, with the trial's id, tells a row from others.
        changed: What is changed where there is such a row. `key` itself changes nothing and still counts as
            a row, which a statement that does nothing would not.

    Raises:
        LeaseLost: The worker has not the trial's lease.
    """
    columns = [sqlalchemy.literal(value, table.c[name].type) for name, value in row.items()]
    lease = (
        sqlalchemy.select(LEASES.c.trial_id, *columns)
        .where(LEASES.c.trial_id == trial_id, LEASES.c.worker == worker)
        .with_for_update()
    )
    insert = insert_on(connection, table).from_select(["trial_id", *row], lease)
    statement = insert.on_conflict_do_update(
        index_elements=["trial_id", key], set_={changed: insert.excluded[changed]}
    )
    if connection.execute(statement).rowcount == 0:
        raise _lost(trial_id)


def set_attrs(connection: sqlalchemy.Connection, table: Any, trial_id: int, attrs: Mapping[str, Any]) -> None:
    """Set a trial's attributes, in `USER_ATTRS` or `SYSTEM_ATTRS`."""
    if not attrs:
        return
    rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(attrs[key])} for key in attrs]
    statement = insert_on(connection, table).values(rows)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["trial_id", "key"], set_={"value_json": statement.excluded.value_json}
        )
    )


def set_value(connection: sqlalchemy.Connection, trial_id: int, value: float) -> None:
    """Set a trial's value."""
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    statement = insert_on(connection, VALUES).values(
        trial_id=trial_id, objective=0, value=stored, value_type=kind
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["trial_id", "objective"], set_={"value": stored, "value_type": kind}
        )
    )


def end_trial(connection: sqlalchemy.Connection, trial_id: int, state: TrialState) -> None:
    """Put a running trial into that state, its checkpoint gone if it is a last one."""
    values: dict[str, Any] = {"state": state}
    if state.is_finished():
        values["datetime_complete"] = utc_now()
        drop_file(connection, trial_id, CHECKPOINT)
    connection.execute(sqlalchemy.update(TRIALS).where(TRIALS.c.trial_id == trial_id).values(values))


def drop_file(connection: sqlalchemy.Connection, trial_id: int, kind: str) -> None:
    """Remove a trial's file of that kind, if it has one.

    Bytes outside the database are noted as loose, and have to go once the transaction is over.
    """
    which = (FILES.c.trial_id == trial_id, FILES.c.kind == kind)
    outside = (
        sqlalchemy.select(FILES.c.artifact_id, TRIALS.c.study_id, sqlalchemy.literal(""))
        .join(TRIALS, TRIALS.c.trial_id == FILES.c.trial_id)
        .where(*which, FILES.c.content.is_(None))
    )
    columns = ["artifact_id", "study_id", "worker"]
    connection.execute(sqlalchemy.insert(LOOSE_FILES).from_select(columns, outside))
    connection.execute(sqlalchemy.delete(FILES).where(*which))


def insert_on(bind: sqlalchemy.Connection | sqlalchemy.Engine, table: Any) -> Any:
    """An insert that knows ON CONFLICT, which SQLAlchemy has for each database apart."""
    return (sqlite if bind.dialect.name == "sqlite" else postgresql).insert(table)


def utc_now() -> datetime:
    """Now, as Optuna keeps its times: UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def _lost(trial_id: int) -> LeaseLost:
    return LeaseLost(f"the trial with id {trial_id} was taken from this worker")
