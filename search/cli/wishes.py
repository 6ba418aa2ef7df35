"""What the options that several commands share stand for: wishes, assignments, databases."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from search.assignment import Assignment
    from search.device import DeviceWish
    from search.engines import EngineWish
    from search.study import OpenStudy, Wishes
    from storage.database import Database


def read_wishes(
    space: str | None,
    max_epochs: int | None,
    train_samples: int | None,
    seed: int | None,
    artifacts: str | None,
) -> "Wishes":
    """What the study options ask for."""
    from search.space_file import load_space
    from search.study import Wishes
    from storage.artifacts import check_outside

    if artifacts is not None:
        check_outside(artifacts)
    return Wishes(None if space is None else load_space(space), max_epochs, train_samples, seed, artifacts)


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of `fleet_options` that shape a worker's work, and those of `wish_options`.

    What to train on is a `DeviceWish`, named `device`, among the first, and what with an `EngineWish`, named
    `engine`.
    """
    from search.device import DeviceWish
    from search.engines import EngineWish

    names = ("precision", "lease", "checkpoint_seconds", "checkpoint_epochs")
    device_names = ("device", "allow_cpu", "workers_per_gpu", "locks")
    work = {name: options[name] for name in names}
    work["device"] = DeviceWish(**{name: options[name] for name in device_names})
    work["engine"] = EngineWish(options["engine"], options["slots"])
    taken = (*names, *device_names, "engine", "slots")
    return work, {name: value for name, value in options.items() if name not in taken}


def make_assignment(
    storage: str,
    study: str,
    data: Path | None,
    minutes: float | None,
    threads: int,
    *,
    precision: str,
    lease: float,
    checkpoint_seconds: float,
    checkpoint_epochs: int | None,
    device: "DeviceWish",
    engine: "EngineWish",
) -> "Assignment":
    """What the options ask a worker to do."""
    from search.assignment import Assignment
    from search.policy import CheckpointPolicy

    return Assignment(
        storage,
        study,
        data,
        ends_at=None if minutes is None else time.time() + 60 * minutes,
        threads=threads,
        precision=precision,
        lease_seconds=lease,
        policy=CheckpointPolicy(checkpoint_seconds, checkpoint_epochs),
        device=device,
        engine=engine,
    )


def open_existing(storage: str, study: str) -> "OpenStudy":
    """The existing study of that name, open until the command ends."""
    from search.study import open_study

    return open_study(open_database_of(storage, create=False), study)


def open_database_of(
    storage: str,
    *,
    create: bool = True,
    patience_seconds: float = 0.0,
    must_hurry: Callable[[], bool] = lambda: False,
) -> "Database":
    """The database at that URL, open until the command ends."""
    import optuna

    from storage.database import open_database

    # Optuna announces each study in its log's format; the commands do it in their own.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = open_database(storage, create=create, patience_seconds=patience_seconds, must_hurry=must_hurry)
    click.get_current_context().call_on_close(database.close)
    return database
