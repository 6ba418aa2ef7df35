"""Leases: which worker runs which trial, kept alive by the worker, taken back when it is silent or gone.

A lease belongs to a worker, and all of a worker's leases run out together: one renewal is one statement
however many trials it runs. Times are the database's, so that no worker's clock matters.

A trial that is taken back waits, with its number, parameters, reports and checkpoint, for whoever asks next;
there is no copy of it, so nothing can go on twice. One that is taken back again and again without finishing
an epoch in between fails in the end.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy
from optuna.trial import TrialState

from storage.companions import companions_of
from storage.outages import Retries
from storage.process import Identity, is_gone
from storage.schema import LEASES, TRIALS, WORKERS, ServerNow
from storage.trial_reader import STUDIES
from storage.trial_rows import REPORTS, USER_ATTRS, end_trial, insert_on, set_attrs

RETRIES_KEY: Final = "retries"
"""Trial user attribute: how often the trial was taken from a worker that failed it, how often since it last
finished an epoch, and that epoch."""
FAILURE_KEY: Final = "failure"
"""Trial user attribute: why a trial failed, or was last taken from a worker, in one line."""
RESTART_SECONDS: Final = 30.0
"""How long workers have to come back after a restart of the server before their leases run out."""
FORGET_SECONDS: Final = 3600.0
"""How long a worker without trials is remembered after its leases ran out."""


@dataclass(frozen=True)
class Taken:
    """A trial that was taken from its worker.

    Attributes:
        number: The trial's.
        reason: Why.
        failed: Whether it was its last chance; else it waits for another worker.
        companion: The name of the trial's study where that is a companion of the one asked about; else None.
    """

    number: int
    reason: str
    failed: bool
    companion: str | None = None

    def __str__(self) -> str:
        """Which trial it is, in words."""
        return f"trial {self.number}" + ("" if self.companion is None else f" of {self.companion!r}")


@dataclass(frozen=True)
class WorkerStatus:
    """A worker as others see it.

    Attributes:
        worker: Its name.
        host: Its machine; None for a worker that has left, of which nothing but its leases is known.
        pid: Its process there; None as well.
        gpu: What it trains on, None for the CPU.
        alive_seconds: Since when it works.
        left_seconds: Until its leases run out unless it renews them; at 0 and below they have.
        is_gone: Its process is known to have ended, or it has left.
        trials: The numbers of the trials that it runs.
        elsewhere: Name of the study and number of each trial that it runs in another one.
    """

    worker: str
    host: str | None
    pid: int | None
    gpu: str | None
    alive_seconds: float
    left_seconds: float
    is_gone: bool
    trials: tuple[int, ...]
    elsewhere: tuple[tuple[str, int], ...] = ()

    @property
    def is_alive(self) -> bool:
        """Whether its leases hold."""
        return self.left_seconds > 0 and not self.is_gone


class Leases:
    """The leases of one study; stale ones are taken back in its companions too."""

    def __init__(self, engine: sqlalchemy.Engine, retries: Retries, study_id: int, max_retries: int) -> None:
        """Leases of the study in the database behind `engine`.

        Args:
            engine: Has the tables of `storage.schema`.
            retries: How its outages are met.
            study_id: The study's id there.
            max_retries: How often in a row a trial may be taken back without finishing an epoch in between;
                after that it fails.
        """
        self._engine, self._retries, self._study_id = engine, retries, study_id
        self._max_retries = max_retries

    def renew(self, identity: Identity, seconds: float) -> set[int]:
        """Make the worker's leases hold for `seconds` from now; its first call makes it known.

        Tries once: the caller comes again, and knows best when.

        Returns:
            The ids of the trials whose leases it has.
        """
        row = {
            "worker": identity.worker,
            "study_id": self._study_id,
            "host": identity.host,
            "pid": identity.pid,
            "place": identity.place,
            "born": identity.born,
            "gpu": identity.gpu,
            "started": ServerNow(),
            "expires": ServerNow() + seconds,
        }
        upsert = (
            insert_on(self._engine, WORKERS)
            .values(row)
            .on_conflict_do_update(index_elements=["worker"], set_={"expires": row["expires"]})
        )
        held = sqlalchemy.select(LEASES.c.trial_id).where(LEASES.c.worker == identity.worker)
        with self._engine.begin() as connection:
            connection.execute(upsert)
            return set(connection.scalars(held))

    def leave(self, identity: Identity) -> None:
        """Forget the worker; what it still has to hand back is taken back by the next who looks."""
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.delete(WORKERS).where(WORKERS.c.worker == identity.worker))

    def workers(self) -> list[WorkerStatus]:
        """The study's workers, the longest-serving first; last, those who left and still have leases.

        A worker of another study that runs a trial of this one is among them.
        """
        return self._retries.run(self._list_workers)

    def _list_workers(self) -> list[WorkerStatus]:
        here = LEASES.c.study_id == self._study_id
        query = (
            sqlalchemy.select(
                WORKERS, (ServerNow() - WORKERS.c.started).label("age"), self._left().label("left")
            )
            .where(
                (WORKERS.c.study_id == self._study_id)
                | WORKERS.c.worker.in_(sqlalchemy.select(LEASES.c.worker).where(here))
            )
            .order_by(WORKERS.c.started)
        )
        own = sqlalchemy.select(WORKERS.c.worker).where(WORKERS.c.study_id == self._study_id)
        running = (
            sqlalchemy.select(LEASES.c.worker, LEASES.c.study_id, STUDIES.c.study_name, TRIALS.c.number)
            .join(TRIALS, TRIALS.c.trial_id == LEASES.c.trial_id)
            .join(STUDIES, STUDIES.c.study_id == LEASES.c.study_id)
            .where(here | LEASES.c.worker.in_(own))
            .order_by(TRIALS.c.number)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            trials: dict[str, list[int]] = {}
            elsewhere: dict[str, list[tuple[str, int]]] = {}
            for worker, study_id, name, number in connection.execute(running):
                if study_id == self._study_id:
                    trials.setdefault(worker, []).append(number)
                else:
                    elsewhere.setdefault(worker, []).append((name, number))
        known = [
            WorkerStatus(
                worker=row.worker,
                host=row.host,
                pid=row.pid,
                gpu=row.gpu,
                alive_seconds=row.age,
                left_seconds=row.left,
                is_gone=is_gone(row.place, row.pid, row.born),
                trials=tuple(trials.pop(row.worker, ())),
                elsewhere=tuple(elsewhere.get(row.worker, ())),
            )
            for row in rows
        ]
        return [
            *known,
            *(
                WorkerStatus(worker, None, None, None, 0.0, 0.0, is_gone=True, trials=tuple(numbers))
                for worker, numbers in trials.items()
            ),
        ]

    def end_open(self, reason: str) -> int:
        """Let all trials of the study that wait or run fail for that reason; their workers lose them.

        Returns:
            How many they were.
        """
        here = LEASES.c.study_id == self._study_id
        held = sqlalchemy.select(LEASES.c.trial_id).where(here).with_for_update()
        is_open = TRIALS.c.state.in_([TrialState.WAITING, TrialState.RUNNING])
        query = sqlalchemy.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == self._study_id, is_open)

        def end() -> int:
            with self._engine.begin() as connection:
                # Leases before trials, in the order that workers take them.
                connection.execute(held).all()
                trial_ids = list(connection.scalars(query.with_for_update()))
                for trial_id in trial_ids:
                    set_attrs(connection, USER_ATTRS, trial_id, {FAILURE_KEY: reason})
                    end_trial(connection, trial_id, TrialState.FAIL)
                connection.execute(sqlalchemy.delete(LEASES).where(here))
                return len(trial_ids)

        return self._retries.run(end)

    def read_clock(self) -> float:
        """Now by the database's clock, in seconds since the epoch; tries once."""
        with self._engine.connect() as connection:
            return float(connection.scalar(sqlalchemy.select(ServerNow())) or 0.0)

    def count_open(self) -> int:
        """How many trials wait or are some worker's; a study with its total and none of these is done."""
        query = (
            sqlalchemy.select(sqlalchemy.func.count())
            .select_from(TRIALS)
            .outerjoin(LEASES, LEASES.c.trial_id == TRIALS.c.trial_id)
            .where(
                TRIALS.c.study_id == self._study_id,
                (TRIALS.c.state == TrialState.WAITING) | LEASES.c.trial_id.is_not(None),
            )
        )

        def count() -> int:
            with self._engine.connect() as connection:
                return int(connection.scalar(query) or 0)

        return self._retries.run(count)

    def reap(self, *, expired: bool = True, blameless: bool = False) -> list[Taken]:
        """Take back the trials of workers that are gone, and with `expired` of those that are silent.

        Any process may do it, any number of them at once: each trial is taken back by one of them. Tries
        once: what was found stale before an outage need not be so after it.

        Args:
            expired: Whether silence for longer than a lease is enough.
            blameless: Whether it costs the trials none of their chances, since their workers were killed by
                somebody who wanted them to stop.

        Returns:
            What this call took back.
        """
        taken = [self._take_back(lease, blameless) for lease in self._stale(expired)]
        return [one for one in taken if one is not None]

    def _stale(self, expired: bool) -> list[Any]:
        """The leases that do not hold, as rows; those without a worker's row are of one that has left."""
        query = (
            sqlalchemy.select(LEASES.c.trial_id, LEASES.c.worker, WORKERS, self._left().label("left"))
            .outerjoin(WORKERS, WORKERS.c.worker == LEASES.c.worker)
            .where(
                (LEASES.c.study_id == self._study_id) | LEASES.c.study_id.in_(companions_of(self._study_id))
            )
        )
        forget = sqlalchemy.delete(WORKERS).where(
            WORKERS.c.study_id == self._study_id,
            WORKERS.c.expires < ServerNow() - FORGET_SECONDS,
            WORKERS.c.worker.not_in(sqlalchemy.select(LEASES.c.worker)),
        )
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
            connection.execute(forget)
        return [
            row
            for row in rows
            if row.pid is None or (expired and row.left <= 0) or is_gone(row.place, row.pid, row.born)
        ]

    def _take_back(self, lease: Any, blameless: bool) -> Taken | None:
        if lease.pid is None:
            reason = "its worker left without handing it back"
        else:
            ended = is_gone(lease.place, lease.pid, lease.born)
            what = "ended" if ended else "was not heard of in time"
            reason = f"its worker {what} (host {lease.host}, pid {lease.pid})"
        with self._engine.begin() as connection:
            # The row is the lease: of several that find it stale, one deletes it. A worker that was late is
            # alive again if it has renewed since.
            condition = [LEASES.c.trial_id == lease.trial_id, LEASES.c.worker == lease.worker]
            if lease.pid is not None and not is_gone(lease.place, lease.pid, lease.born):
                silent = sqlalchemy.select(WORKERS.c.worker).where(
                    WORKERS.c.worker == lease.worker, self._left() > 0
                )
                condition.append(~silent.exists())
            if connection.execute(sqlalchemy.delete(LEASES).where(*condition)).rowcount == 0:
                return None
            trial = connection.execute(
                sqlalchemy.select(TRIALS.c.number, TRIALS.c.study_id, STUDIES.c.study_name)
                .join(STUDIES, STUDIES.c.study_id == TRIALS.c.study_id)
                .where(TRIALS.c.trial_id == lease.trial_id, TRIALS.c.state == TrialState.RUNNING)
            ).one_or_none()
            if trial is None:
                return None
            if blameless:
                failed = False
                end_trial(connection, lease.trial_id, TrialState.WAITING)
            else:
                failed = end_or_wait(connection, lease.trial_id, reason, self._max_retries)
        companion = None if trial.study_id == self._study_id else trial.study_name
        return Taken(trial.number, reason, failed, companion)

    def _left(self) -> Any:
        """Seconds until a worker's leases run out, as SQL.

        A server that was away gave nobody a chance to renew: on PostgreSQL, time counts from its start.
        """
        expires: Any = WORKERS.c.expires
        if self._engine.dialect.name == "postgresql":
            up = sqlalchemy.text("CAST(extract(epoch FROM pg_postmaster_start_time()) AS double precision)")
            expires = sqlalchemy.func.greatest(expires, sqlalchemy.literal_column(up.text) + RESTART_SECONDS)
        return expires - ServerNow()


def end_or_wait(
    connection: sqlalchemy.Connection, trial_id: int, reason: str, max_retries: int | None
) -> bool:
    """Let a trial that its worker could not finish wait for another, or fail where it had chances enough.

    Chances count from the last epoch that it finished: a fleet of short-lived machines gets a long trial
    done, a trial that kills each of its workers at the same place does not go round for ever.

    Args:
        connection: In a transaction that holds or has just ended the trial's lease.
        trial_id: A running trial.
        reason: Why its worker could not finish it, in one line.
        max_retries: How many chances it has; None for one that the trial is not to blame for.

    Returns:
        Whether it failed.
    """
    epoch = connection.scalar(
        sqlalchemy.select(sqlalchemy.func.max(REPORTS.c.step)).where(REPORTS.c.trial_id == trial_id)
    )
    recorded = connection.scalar(
        sqlalchemy.select(USER_ATTRS.c.value_json).where(
            USER_ATTRS.c.trial_id == trial_id, USER_ATTRS.c.key == RETRIES_KEY
        )
    )
    former = json.loads(recorded) if recorded else {"total": 0, "without_progress": 0, "epoch": 0}
    progressed = (epoch or 0) > former["epoch"]
    retries = {
        "total": former["total"] + 1,
        "without_progress": 1 if progressed else former["without_progress"] + 1,
        "epoch": epoch or 0,
    }
    failed = max_retries is not None and retries["without_progress"] > max_retries
    if failed:
        reason = f"{reason}; that was chance {retries['without_progress']} without finishing an epoch"
    set_attrs(connection, USER_ATTRS, trial_id, {RETRIES_KEY: retries, FAILURE_KEY: reason})
    end_trial(connection, trial_id, TrialState.FAIL if failed else TrialState.WAITING)
    return failed
