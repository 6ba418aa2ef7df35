"""Rounds of a search whose workers are killed, stopped or cut off at random, and what has to be true after.

Used by the fault suite, one round each, and by `benchmarks/faults.py`, which runs many and counts.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy
from optuna.trial import TrialState

from search.space import Choices, NumberRange, Space
from search.study import Wishes, open_or_create_study, open_study
from storage.database import open_database
from storage.leases import FAILURE_KEY
from storage.schema import FILES, LEASES, LOOSE_FILES, TRIALS, WORKERS

SPACE = Space("momentum", (Choices("optimizer", ("momentum",)), NumberRange("dropout_block1", 0.0, 0.5)))
"""One optimizer, so that a worker that starts anew traces one program."""
EPOCHS = 8
LEASE_SECONDS = 5.0
WORKER = Path(__file__).with_name("sample_worker.py")
SETTLE_EVERY = 3
"""Of so many faults, one waits until each worker has finished an epoch."""
ROUND_SECONDS = 400.0
"""A round that is not over by then has failed."""


@dataclass
class Outcome:
    """What a round came to.

    Attributes:
        seconds: How long it took.
        faults: How often the fault was made.
        hits: How many trials were taken up again.
        states: Trials by state at the end.
        wrong: What is not as it has to be, a line each; empty for a good round.
        slowest_exit_seconds: Of the workers that were asked to stop.
    """

    seconds: float = 0.0
    faults: int = 0
    hits: int = 0
    states: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_exit_seconds: float = 0.0


@dataclass
class Fleet:
    """Worker processes of one round."""

    url: str
    folder: Path
    options: tuple[str, ...]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: int = 0

    def start(self) -> None:
        """One more worker."""
        log = self.folder / f"worker-{self.started}"
        self.started += 1
        with log.with_suffix(".err").open("wb") as errors:
            command = [sys.executable, str(WORKER), self.url, f"{log}.jsonl", *self.options]
            environment = {**os.environ, "PYTHONPATH": f"{WORKER.parents[1]}:{WORKER.parent}"}
            self.processes.append(
                subprocess.Popen(
                    command, stdout=errors, stderr=errors, env=environment, start_new_session=True
                )
            )

    def living(self) -> list[subprocess.Popen[bytes]]:
        """Those that have not ended."""
        return [process for process in self.processes if process.poll() is None]

    def events(self) -> list[dict[str, Any]]:
        """What all of them told, in order of time."""
        lines = [
            json.loads(line)
            for path in self.folder.glob("*.jsonl")
            for line in path.read_text().splitlines()
            if line.endswith("}")
        ]
        return sorted(lines, key=lambda line: line["at"])

    def is_settled(self) -> bool:
        """Whether each living worker has finished an epoch."""
        trained = {line["pid"] for line in self.events() if line["kind"] == "EpochEnded"}
        return all(process.pid in trained for process in self.living())

    def last_words(self) -> str:
        """The ends of what workers wrote that ended with an error, which were started in this order."""
        errors = [
            self.folder.joinpath(f"worker-{index}.err").read_text(errors="replace").strip()[-1500:]
            for index, process in enumerate(self.processes)
            if process.returncode == 1
        ]
        return "\n---\n".join(errors)

    def end(self) -> None:
        """Kill what is left."""
        for process in self.living():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self.processes:
            process.wait()


Fault = Callable[[Fleet, random.Random, Outcome], None]


def kill_one(fleet: Fleet, chance: random.Random, outcome: Outcome) -> None:
    """SIGKILL, and another worker in its place."""
    chance.choice(fleet.living()).kill()
    outcome.faults += 1
    fleet.start()


def stop_one(fleet: Fleet, chance: random.Random, outcome: Outcome) -> None:
    """SIGTERM, as `docker stop` sends it; it has ten seconds; and another worker in its place."""
    process = chance.choice(fleet.living())
    began = time.monotonic()
    process.terminate()
    fleet.start()
    try:
        process.wait(timeout=10.0)
    except subprocess.TimeoutExpired:
        outcome.wrong.append("a worker did not end within 10 s of SIGTERM")
        process.kill()
    # Before it can hear the signal, Python dies of it; and it may have been about to end by itself.
    if process.wait() not in (130, 0, -signal.SIGTERM):
        outcome.wrong.append(f"a worker ended with {process.returncode} on SIGTERM")
    outcome.slowest_exit_seconds = max(outcome.slowest_exit_seconds, time.monotonic() - began)
    outcome.faults += 1


def freeze_one(fleet: Fleet, chance: random.Random, outcome: Outcome) -> None:
    """SIGSTOP for longer than a lease holds, then SIGCONT: it returns to a trial that others have."""
    process = chance.choice(fleet.living())
    process.send_signal(signal.SIGSTOP)
    time.sleep(2 * LEASE_SECONDS)
    process.send_signal(signal.SIGCONT)
    outcome.faults += 1


def run_round(
    url: str,
    folder: Path,
    fault: Fault,
    seed: int,
    *,
    workers: int = 4,
    trials: int = 24,
    pause_seconds: tuple[float, float] = (3.0, 8.0),
    most_faults: int | None = None,
    artifacts: str | None = None,
) -> Outcome:
    """Run a study to its end with a fault every few seconds, and look at what is left.

    Args:
        url: An empty database.
        folder: For logs.
        fault: What is done to the fleet.
        seed: Of the choices of workers and pauses.
        workers: How many at a time.
        trials: The study's total.
        pause_seconds: Least and longest time between two faults.
        most_faults: How many at most; None for no limit.
        artifacts: URL of the folder that keeps files' bytes; None for the database.
    """
    chance, outcome = random.Random(seed), Outcome()
    database = open_database(url, patience_seconds=60.0)
    opened, _ = open_or_create_study(database, "sample", Wishes(SPACE, EPOCHS, 320, seed, artifacts))
    database.limit_trials(opened.study, trials)
    fleet = Fleet(url, folder, (f"lease={LEASE_SECONDS}", "checkpoint_seconds=1"))
    began = time.monotonic()
    try:
        for _ in range(workers):
            fleet.start()
        while fleet.living() and time.monotonic() - began < ROUND_SECONDS:
            until = time.monotonic() + chance.uniform(*pause_seconds)
            while time.monotonic() < until and fleet.living():
                time.sleep(0.1)
            # Whoever has ended by itself has seen the study's end.
            if len(fleet.living()) < workers or outcome.faults == most_faults:
                continue
            # Workers may be hit before their first epoch, but on a slow machine not again and again: a trial
            # whose workers all end that early fails, as it should.
            if outcome.faults % SETTLE_EVERY < SETTLE_EVERY - 1 or fleet.is_settled():
                fault(fleet, chance, outcome)
        outcome.seconds = time.monotonic() - began
        if fleet.living():
            outcome.wrong.append(f"not over after {ROUND_SECONDS:.0f} s")
    finally:
        fleet.end()
    codes = Counter(process.returncode for process in fleet.processes)
    if codes[1]:
        outcome.wrong.append(f"{codes[1]} workers ended with an error: {fleet.last_words()}")
    check_round(url, trials, fleet.events(), outcome)
    database.close()
    return outcome


def check_round(url: str, trials: int, events: list[dict[str, Any]], outcome: Outcome) -> None:
    """Write down in `outcome` what is not right in the study and its files."""
    database = open_database(url, create=False, patience_seconds=60.0)
    opened = open_study(database, "sample")
    found = opened.study.trials
    outcome.states = Counter(trial.state.name for trial in found)
    wrong = outcome.wrong.append
    finished = [trial for trial in found if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(found) != trials or len(finished) != trials:
        # One that was told to fail from outside has no reason of its own.
        failed = [trial for trial in found if trial.state == TrialState.FAIL]
        reasons = [trial.user_attrs.get(FAILURE_KEY, "not by a worker") for trial in failed]
        wrong(f"{trials} trials were to finish, these are there: {dict(outcome.states)}; {reasons}")
    if [trial.number for trial in found] != list(range(len(found))):
        wrong("trial numbers are not 0, 1, 2 ...")
    for trial in finished:
        steps = sorted(trial.intermediate_values)
        if steps != list(range(1, len(steps) + 1)):
            wrong(f"trial {trial.number} has reports for epochs {steps}")
        if trial.state == TrialState.COMPLETE and len(steps) != trial.user_attrs["recipe"]["epochs"]:
            wrong(f"trial {trial.number} is complete after {len(steps)} epochs")
    ends = Counter(
        line["trial"]
        for line in events
        if line["kind"] == "TrialEnded" and line["state"] in ("complete", "pruned", "diverged", "failed")
    )
    if any(count > 1 for count in ends.values()):
        wrong(f"trials that ended more than once: {[number for number, count in ends.items() if count > 1]}")
    starts = Counter(line["trial"] for line in events if line["kind"] == "TrialStarted")
    outcome.hits = sum(count - 1 for count in starts.values())
    with database._backend.engine.connect() as connection:
        if left := connection.execute(sqlalchemy.select(LEASES.c.trial_id)).all():
            wrong(f"{len(left)} leases are left")
        if left := connection.execute(
            sqlalchemy.select(WORKERS.c.pid).where(WORKERS.c.expires > time.time() + 60)
        ).all():
            wrong(f"{len(left)} workers seem alive")
        if left := connection.execute(sqlalchemy.select(LOOSE_FILES.c.artifact_id)).all():
            wrong(f"{len(left)} files are noted as loose")
        rows = connection.execute(
            sqlalchemy.select(FILES, TRIALS.c.state).outerjoin(TRIALS, TRIALS.c.trial_id == FILES.c.trial_id)
        ).all()
    kinds = Counter((row.trial_id, row.kind) for row in rows)
    for trial in finished:
        due = {"history", "curves"}
        if trial.state == TrialState.COMPLETE:
            due |= {"model", "confusion"}
        if (
            trial.state == TrialState.PRUNED
            and "diverged_epoch" in trial.user_attrs
            and not trial.intermediate_values
        ):
            due = set()
        has = {kind for (trial_id, kind) in kinds if trial_id == trial._trial_id}
        if has != due:
            wrong(f"trial {trial.number}, {trial.state.name}, has the files {sorted(map(str, has))}")
    known = {trial._trial_id for trial in found}
    if orphans := [row.artifact_id for row in rows if row.trial_id not in known]:
        wrong(f"orphaned files: {orphans}")
    for row in rows:
        content = row.content
        if opened.artifacts.outside is not None:
            content = opened.artifacts.outside.open_reader(row.artifact_id).read()
        if hashlib.sha256(content).hexdigest() != row.sha256 or len(content) != row.size_bytes:
            wrong(f"file {row.artifact_id} has not the digest that was written")
    if opened.settings.artifacts is not None:
        folder = Path(unquote(urlsplit(opened.settings.artifacts).path)) / opened.settings.folder
        if left := sorted({path.name for path in folder.iterdir()} ^ {row.artifact_id for row in rows}):
            wrong(f"only in the folder or only in the table: {left}")
    database.close()
