"""Optuna's storage for many workers: an exact total, leases taken with the trial, retries, few statements."""

import json
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from storage.errors import TrialLimitReached
from storage.outages import Retries
from storage.schema import LEASES, TRIALS, ServerNow
from storage.trial_reader import PARAMS, find_trials, read_trials
from storage.trial_rows import (
    REPORTS,
    SYSTEM_ATTRS,
    USER_ATTRS,
    hold_lease,
    insert_with_lease,
    utc_now,
)

TOTAL_KEY: Final = "cnn_search:total"
"""Study system attribute: how many trials the study may have; null for no limit."""
STUDY_ATTRS: Final[Any] = models.StudySystemAttributeModel.__table__


class SharedStorage(RDBStorage):
    """Optuna's storage, with what it lacks where workers come and go.

    - A trial is created only where the study has fewer than its total, counted in the same transaction.
    - With a `worker`, the transaction that makes a trial run also takes its lease, so that no running trial
      of ours is without one; and each later transaction first sees that the lease is still there.
    - Errors that pass are waited out, as long as `retries` has patience.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], retries: Retries, *, create: bool) -> None:
        """Open the database at `url`; `create` makes Optuna's tables where they are missing."""
        self.retries = retries
        self.worker: str | None = None
        self.claimed: set[int] = set()
        super().__init__(url, engine_kwargs, skip_table_creation=not create)

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        """Called by Optuna in each transaction that writes to a trial; with a worker, its fence.

        Raises:
            UpdateFinishedTrialError: The trial has ended.
            LeaseLost: The trial was taken from this worker.
        """
        if trial_state.is_finished():
            # Optuna's own check reads the trial for its message. Here that is a transaction of its own, which
            # on SQLite would wait for the one that this is called in.
            raise UpdateFinishedTrialError(f"the trial with id {trial_id} has ended ({trial_state.name})")
        if trial_id in self.claimed:
            hold_lease(self.scoped_session(), trial_id, self.worker)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; a worker that makes a waiting trial run takes its lease with it."""
        if self.worker is not None and state == TrialState.RUNNING:
            self.claimed.discard(trial_id)
            if taken := self.retries.run(self._take, trial_id):
                # Only now is it known to be ours: one whose commit was not confirmed is a stray.
                self.claimed.add(trial_id)
            return taken
        return self.retries.run(super().set_trial_state_values, trial_id, state, values)

    def _take(self, trial_id: int) -> bool:
        taken = (
            sqlalchemy.update(TRIALS)
            .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state == TrialState.WAITING)
            # A trial that goes on began when it first began.
            .values(
                state=TrialState.RUNNING,
                datetime_start=sqlalchemy.func.coalesce(TRIALS.c.datetime_start, utc_now()),
            )
            .returning(TRIALS.c.study_id)
        )
        with self.engine.begin() as connection:
            study_id = connection.scalar(taken)
            if study_id is None:
                return False
            self._claim(connection, study_id, trial_id)
        return True

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        trial: FrozenTrial = self.retries.run(super()._create_new_trial, study_id, template_trial)
        if self.worker is not None and template_trial is None:
            self.claimed.add(trial._trial_id)
        return trial

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> Any:
        # Optuna calls this in the transaction that holds the study's lock, so that no other process can
        # create a trial between the count and the insert. A callback that counts afterwards overshoots by
        # the number of workers (optuna issue #3518).
        total = sqlalchemy.select(STUDY_ATTRS.c.value_json).where(
            STUDY_ATTRS.c.study_id == study_id, STUDY_ATTRS.c.key == TOTAL_KEY
        )
        count = sqlalchemy.select(sqlalchemy.func.count()).where(TRIALS.c.study_id == study_id)
        trials, limit = session.execute(
            sqlalchemy.select(count.scalar_subquery(), total.scalar_subquery())
        ).one()
        if limit not in (None, "null") and trials >= int(limit):
            raise TrialLimitReached(
                f"the study has {trials} of its {limit} trials, waiting ones included; raise its total first"
            )
        if template_trial is not None:
            return super()._get_prepared_new_trial(study_id, template_trial, session)
        # Optuna inserts first, and then counts the trials before it. They are those that were just counted.
        trial = models.TrialModel(
            study_id=study_id, number=trials, state=TrialState.RUNNING, datetime_start=datetime.now()
        )
        session.add(trial)
        session.flush()
        if self.worker is not None:
            self._claim(session, study_id, trial.trial_id)
        return trial

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As Optuna's, in one statement."""
        trials: list[FrozenTrial] = self.retries.run(self._transact, read_trials, [trial_id])
        if not trials:
            raise KeyError(models.NOT_FOUND_MSG)
        return trials[0]

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        def read(connection: sqlalchemy.Connection) -> list[FrozenTrial]:
            ids = find_trials(connection, study_id, included_trial_ids, trial_id_greater_than)
            return read_trials(connection, ids)

        trials = self.retries.run(self._transact, read)
        return [trial for trial in trials if states is None or trial.state in states]

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        if trial_id not in self.claimed:
            self.retries.run(
                super()._set_trial_param,
                *(trial_id, param_name, param_value_internal, distribution, previous_distribution),
            )
            return
        if previous_distribution is None:
            previous_distribution = self.retries.run(self._transact, _find_distribution, trial_id, param_name)
        if previous_distribution is not None:
            check_distribution_compatibility(previous_distribution, distribution)
        row = {
            "param_name": param_name,
            "param_value": param_value_internal,
            "distribution_json": distribution_to_json(distribution),
        }
        # As with Optuna, a parameter that is there stays as it is.
        self._insert(PARAMS, trial_id, row, key="param_name", changed="param_name")

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna's, in one statement for a trial of this worker."""
        if trial_id not in self.claimed:
            self.retries.run(super().set_trial_intermediate_value, trial_id, step, intermediate_value)
            return
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(
            intermediate_value
        )
        row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        # A step that was reported before stays as it is.
        self._insert(REPORTS, trial_id, row, key="step", changed="step")

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's, in one statement for a trial of this worker."""
        if trial_id not in self.claimed:
            self.retries.run(super().set_trial_user_attr, trial_id, key, value)
        else:
            self._set_attr(USER_ATTRS, trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's, in one statement for a trial of this worker; pruners keep their rungs here."""
        if trial_id not in self.claimed:
            self.retries.run(super().set_trial_system_attr, trial_id, key, value)
        else:
            self._set_attr(SYSTEM_ATTRS, trial_id, key, value)

    def _set_attr(self, table: Any, trial_id: int, key: str, value: Any) -> None:
        row = {"key": key, "value_json": json.dumps(value)}
        self._insert(table, trial_id, row, key="key", changed="value_json")

    def _insert(self, table: Any, trial_id: int, row: Mapping[str, Any], *, key: str, changed: str) -> None:
        """`insert_with_lease` as this worker, in a transaction of its own."""
        self.retries.run(
            self._transact,
            lambda connection: insert_with_lease(
                connection, table, trial_id, self.worker, row, key=key, changed=changed
            ),
        )

    def _transact(self, work: Callable[..., Any], *arguments: Any) -> Any:
        with self.engine.begin() as connection:
            return work(connection, *arguments)

    def release_strays(self) -> None:
        """Let trials wait that this worker has without knowing: their commit was never confirmed."""
        self.retries.run(self._release_strays)

    def _release_strays(self) -> None:
        # Copied at once, for other threads end trials meanwhile.
        claimed = list(self.claimed)
        # Deleted by one statement: a trial that another worker takes meanwhile has that one's lease.
        strays = (
            sqlalchemy.delete(LEASES)
            .where(LEASES.c.worker == self.worker, LEASES.c.trial_id.not_in(claimed))
            .returning(LEASES.c.trial_id)
        )
        with self.engine.begin() as connection:
            released = connection.scalars(strays).all()
            if released:
                connection.execute(
                    sqlalchemy.update(TRIALS)
                    .where(TRIALS.c.trial_id.in_(released), TRIALS.c.state == TrialState.RUNNING)
                    .values(state=TrialState.WAITING)
                )

    def _claim(self, session: Session | sqlalchemy.Connection, study_id: int, trial_id: Any) -> None:
        session.execute(
            sqlalchemy.insert(LEASES).values(
                trial_id=trial_id, study_id=study_id, worker=self.worker, since=ServerNow()
            )
        )


def _find_distribution(
    connection: sqlalchemy.Connection, trial_id: int, param_name: str
) -> BaseDistribution | None:
    """The distribution of some trial's parameter of that name, in the study of `trial_id`."""
    study = sqlalchemy.select(TRIALS.c.study_id).where(TRIALS.c.trial_id == trial_id)
    query = (
        sqlalchemy.select(PARAMS.c.distribution_json)
        .join(TRIALS, TRIALS.c.trial_id == PARAMS.c.trial_id)
        .where(TRIALS.c.study_id == study.scalar_subquery(), PARAMS.c.param_name == param_name)
        .limit(1)
    )
    found = connection.scalar(query)
    return None if found is None else json_to_distribution(found)


def _retried(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    def call(self: SharedStorage, *arguments: Any, **options: Any) -> Any:
        return self.retries.run(method, self, *arguments, **options)

    call.__doc__ = method.__doc__
    return call


# Each is one transaction that can be run again: Optuna's are upserts, or find out what is there already.
for _name in (
    *("set_study_user_attr", "set_study_system_attr", "get_trial_user_attrs", "get_trial_system_attrs"),
    *("get_study_id_from_name", "get_study_name_from_id", "get_study_directions", "get_all_studies"),
    *("get_study_user_attrs", "get_study_system_attrs", "get_trial_id_from_study_id_trial_number"),
    *("get_trial_param", "_get_best_trial_id"),
):
    setattr(SharedStorage, _name, _retried(_name))
