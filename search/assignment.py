"""What a worker process is to do, and doing it: in a child of `run`, or in the foreground as `worker`."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from search.device import DeviceWish, take_device
from search.engines import EngineWish, choose_engines
from search.events import Event, Notice
from search.policy import LEASE_SECONDS, CheckpointPolicy
from search.runners import build_runner
from search.study import open_study
from storage.database import open_database
from storage.process import own_identity
from trainer.cifar10 import OFFICIAL, Digests

PATIENCE_SECONDS: Final = 600.0
"""How long a worker waits for a database that is away before it gives up."""


@dataclass(frozen=True)
class Assignment:
    """What a worker process is to do; travels to it.

    Attributes:
        storage: The database's URL, password included.
        study: The study's name.
        data: Where CIFAR-10 is, as `trainer.data.load` takes it.
        ends_at: When to hand back, in seconds since the epoch; None for never.
        threads: Threads that TensorFlow may use.
        precision: What to train in, one of `trainer.precision.WISHES`.
        lease_seconds: How long the worker may be silent before others take its trials.
        policy: When a running trial's state is stored.
        device: What to train on.
        engine: What to train with.
        digests: What the data must hash to; tests bring those of their small data.
    """

    storage: str = field(repr=False)
    study: str
    data: Path | None
    ends_at: float | None
    threads: int
    precision: str = "auto"
    lease_seconds: float = LEASE_SECONDS
    policy: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    device: DeviceWish = field(default_factory=lambda: DeviceWish("cpu"))
    engine: EngineWish = field(default_factory=EngineWish)
    digests: Digests = OFFICIAL


def carry_out(
    assignment: Assignment,
    emit: Callable[[Event], None],
    must_stop: Callable[[], bool],
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Work until the study has its total or its target, the time is up or `must_stop` says so.

    For a process of its own: it starts TensorFlow, and keeps the GPU that it claims until the process ends.

    Args:
        assignment: What to do.
        emit: Told what happens.
        must_stop: Asked about once a second, also while the database is away.
        on_ready: Called before the first trial is asked for; until then nothing is lost by a sudden end.

    Raises:
        StorageError: The database cannot be used, or was away for too long.
        GpuError: It was to train on a GPU, and cannot have one that works.
        SearchError: There is no such study, or trial after trial fails.
        EngineError: What is to train is not installed.
        TrainerError: The data cannot be had, or the device has no room.
    """
    with _logs_as_notices(emit):
        from search.runtime import start_jax, start_tensorflow

        database = open_database(
            assignment.storage, create=False, patience_seconds=PATIENCE_SECONDS, must_hurry=must_stop
        )
        opened = open_study(database, assignment.study)
        engines = choose_engines(assignment.engine, opened.settings.space)
        # A process's GPUs are settled once and for all when TensorFlow starts.
        device = take_device(assignment.device, assignment.precision, emit, must_stop, engines)
        if device is None:
            database.close()
            return
        start_tensorflow(assignment.threads, device.visible, hides_gpu=device.engine == "packed")
        if device.engine == "packed":
            start_jax(device.visible)
        from search.worker import Worker
        from trainer.data import load

        data = load(assignment.data, digests=assignment.digests)
        worker = Worker(
            opened,
            build_runner(opened, data, device, assignment.engine, assignment.precision, emit, must_stop),
            emit,
            identity=own_identity(None if device.gpu is None else str(device.gpu)),
            must_stop=must_stop,
            time_is_up=lambda: assignment.ends_at is not None and time.time() >= assignment.ends_at,
            lease_seconds=assignment.lease_seconds,
            policy=assignment.policy,
            engine=device.engine,
        )
        on_ready()
        worker.run()
        database.close()


class _Notices(logging.Handler):
    """Log records as events."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        super().__init__(logging.WARNING)
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        self._emit(Notice(record.getMessage()))


@contextmanager
def _logs_as_notices(emit: Callable[[Event], None]) -> Iterator[None]:
    """Show what is logged, such as outages, in its place among the events."""
    loggers, handler = [logging.getLogger(name) for name in ("storage", "search")], _Notices(emit)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
