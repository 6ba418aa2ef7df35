"""What the database costs a trial, in milliseconds and SQL statements, against plain Optuna beside it.

    .venv/bin/python benchmarks/scale.py [--workers 1,8,32,64] [--sizes 100,1000,10000] [--trials 64]
                                         [--storage postgresql://...]

For each number of past trials and of worker processes, two new studies get the same past trials, and then so
many more: one by plain `study.optimize` on Optuna's own storage, one by this project's. Both have this
project's sampler and pruner, the same seed, and trials of 50 epochs of which most are pruned. Training is a
formula and takes no time: all that is measured is bookkeeping. With one worker, both studies have to come out
equal, trial for trial.

    load     a worker's first look at all past trials, seconds
    ask      the next trial and its parameters; here also its lease, its recipe, and a look for a checkpoint
    epoch    report and should_prune; the most statements of an epoch are in brackets
    save     a checkpoint of 1.0 MB every ten epochs; plain Optuna has none
    tell     the end; here with a history, and a model of 1.0 MB where the trial was not pruned
    show     reading what the line of progress says about the trial; plain Optuna has none
    trial    the sum: one of each, and the epochs that a trial has on average over both, with their saves
    CPU      processor time of the worker itself, a trial; unlike the others it does not count who waits

Statements leave BEGIN and COMMIT out. A worker's first trial is not counted. Past trials are written to
Optuna's tables many at a time (`Study.add_trials` would take hours), with the parameters, reports and rungs
that they would have left: recipes drawn at random and pruned by the same rule, on the same curves. Ours have
the attributes as well that this project's trials have.

A worker here is `search.worker`'s loop without TensorFlow, events, interrupts and failures: what
`search.trial_run` writes is written by the same methods in the same order.
"""

import argparse
import bisect
import contextlib
import json
import logging
import math
import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from machine import describe_machine
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.engine import make_url

from search.named_spaces import NAMED
from search.policy import LEASE_SECONDS
from search.ranges import fixed_range
from search.space import suggest
from search.strategy import FIRST_RUNG_LEAST, attach_strategy
from search.study import OpenStudy, Settings, Wishes, open_or_create_study, open_study
from search.summary import (
    RECIPE_KEY,
    SECONDS_KEY,
    WORKER_KEY,
    summarise_trial,
)
from search.target_watch import TargetWatch
from storage.claimed_trial import NamedFile
from storage.database import Database, open_database
from storage.errors import TrialLimitReached
from storage.keeper import LeaseKeeper
from storage.process import own_identity
from storage.schema import LEASES, TRIALS
from storage.trial_rows import META_PREFIX, REPORTS, SYSTEM_ATTRS, USER_ATTRS, VALUES
from trainer.recipe import Recipe

EPOCHS = 50
CHECKPOINT_EPOCHS = 10
FILE_BYTES = 1_000_000
FILL_TRIALS = 1000
PARAMS: Any = models.TrialParamModel.__table__
SPACE = NAMED["article"].replace(fixed_range("epochs", EPOCHS, "the same work for every trial that is kept"))
PATIENCE_SECONDS = 120.0
START_SECONDS = 900.0
PHASES = ("load", "ask", "epoch", "save", "tell", "show")


class Meter:
    """Times and counts statements of this thread, phase by phase."""

    def __init__(self) -> None:
        """Begin to listen to all engines of this process."""
        self.phases: dict[str, list[tuple[float, int]]] = {name: [] for name in PHASES}
        self.busy_since = 0.0
        self._statements = 0
        # The thread that renews leases is no trial's.
        self._thread = threading.get_ident()
        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", self._count)

    def _count(self, *arguments: Any) -> None:
        self._statements += threading.get_ident() == self._thread

    def now(self) -> tuple[float, int]:
        """A moment to measure from."""
        return time.perf_counter(), self._statements

    def add(self, phase: str, began: tuple[float, int]) -> None:
        """Count what was since `began` as one more of `phase`."""
        seconds, statements = self.now()
        self.phases[phase].append((seconds - began[0], statements - began[1]))

    @contextlib.contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Count the block as one more of `phase`."""
        began = self.now()
        yield
        self.add(phase, began)

    def forget(self) -> None:
        """Leave out what was until now, but for the loading."""
        for phase in PHASES[1:]:
            self.phases[phase].clear()
        self.busy_since = time.process_time()


@dataclass(frozen=True)
class Job:
    """What a worker process is to do.

    Attributes:
        url: The database's.
        name: The study's in which the trials are run.
        ours: The study whose settings hold for both.
        trials: How many trials each plain worker has to run; ours run until the study has its total.
    """

    url: str
    name: str
    ours: str
    trials: int


@dataclass
class Measured:
    """What workers report.

    Attributes:
        phases: Seconds and statements of each phase, by its name.
        errors: What went wrong.
        busy_seconds: Processor time of the workers' processes.
        wall_seconds: From the moment when all were ready to the end of the last.
    """

    phases: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: {name: [] for name in PHASES})
    errors: list[str] = field(default_factory=list)
    busy_seconds: float = 0.0
    wall_seconds: float = 0.0

    def mean_ms(self, phase: str) -> float:
        """Milliseconds of one of the phase."""
        return 1000 * statistics.fmean(seconds for seconds, _ in self.phases[phase] or [(0.0, 0)])

    def mean_statements(self, phase: str) -> float:
        """Statements of one of the phase."""
        return statistics.fmean(statements for _, statements in self.phases[phase] or [(0.0, 0)])

    def most_statements(self, phase: str) -> int:
        """The most statements of one of the phase."""
        return max((statements for _, statements in self.phases[phase]), default=0)

    def trial_ms(self, epochs: float) -> float:
        """Milliseconds of a trial of so many epochs, its saves included."""
        saves = epochs * len(self.phases["save"]) / max(1, len(self.phases["epoch"]))
        return (
            self.mean_ms("ask")
            + epochs * self.mean_ms("epoch")
            + saves * self.mean_ms("save")
            + self.mean_ms("tell")
            + self.mean_ms("show")
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", default="1,8,32,64", help="numbers of worker processes")
    parser.add_argument("--sizes", default="100,1000,10000", help="numbers of past trials")
    parser.add_argument("--trials", type=int, default=64, help="trials to measure, at least one a worker")
    parser.add_argument("--storage", metavar="URL", help="a PostgreSQL database; else a server of its own")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with contextlib.ExitStack() as stack:
        if options.storage is None:
            # The tests' server is no package: it is not for users, and its programs come from their wheel.
            sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
            from postgres import PostgresServer

            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = stack.enter_context(PostgresServer(Path(folder))).create_database()
        else:
            url = options.storage
        with closing(open_database(url)) as database:
            print(describe_machine(("optuna", "sqlalchemy", "psycopg2-binary")))
            print(describe_server(database), flush=True)
            print_header()
            for size in map(int, options.sizes.split(",")):
                for workers in map(int, options.workers.split(",")):
                    compare(database, url, size, workers, max(workers, options.trials))


def compare(database: Database, url: str, size: int, workers: int, trials: int) -> None:
    """Run the same number of trials both ways, and print both lines."""
    stamp = f"{datetime.now(UTC):%H%M%S}-{size}-{workers}"
    ours, plain = f"ours-{stamp}", f"plain-{stamp}"
    opened, _ = open_or_create_study(database, ours, Wishes(space=SPACE, seed=1))
    made = optuna.create_study(storage=database.storage, study_name=plain, direction="maximize")
    engine = engine_of(database)
    past = list(past_trials(opened.settings, size))
    with engine.begin() as connection:
        # A study of ours begins with the article's recipe, waiting; the two are to begin alike.
        drop_trials(connection, opened.study._study_id)
    for start in range(0, size, FILL_TRIALS):
        part = past[start : start + FILL_TRIALS]
        fill(engine, opened.study._study_id, start, part, as_ours=True)
        fill(engine, made._study_id, start, part, as_ours=False)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # As the server does by itself, sooner or later.
        connection.execute(sqlalchemy.text("ANALYZE"))
    database.limit_trials(opened.study, size + workers + trials)
    before = count_deadlocks(engine)
    results = {
        "plain": run_workers(plain_worker, Job(url, plain, ours, trials // workers), workers),
        "ours": run_workers(our_worker, Job(url, ours, ours, 0), workers),
    }
    epochs = sum(len(result.phases["epoch"]) for result in results.values()) / max(
        1, sum(len(result.phases["tell"]) for result in results.values())
    )
    for kind, result in results.items():
        print_line(size, workers, kind, result, epochs, results["plain"])
    ends = check(engine, opened, made, size + workers + trials, equal=workers == 1)
    print(f"{'':14}{epochs:.1f} epochs a trial; deadlocks {count_deadlocks(engine) - before}; {ends}")
    for kind, result in results.items():
        for error in result.errors:
            print(f"{'':14}{kind}: {error}")
    sys.stdout.flush()


def run_workers(target: Callable[..., None], job: Job, workers: int) -> Measured:
    """What so many processes measure together."""
    # Like spawned ones, they inherit no connection and no cache; what they import is imported once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["optuna.storages._rdb.storage", "search.strategy", "storage.database"])
    ready, results = context.Barrier(workers + 1), context.Queue()
    processes = [
        context.Process(target=work, args=(target, job, ready, results), daemon=True) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        ready.wait(START_SECONDS)
    began = time.perf_counter()
    total = Measured()
    for _ in processes:
        phases, errors, busy_seconds = results.get(timeout=START_SECONDS)
        total.errors += errors
        total.busy_seconds += busy_seconds
        for name, values in phases.items():
            total.phases[name] += values
    total.wall_seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    return total


def work(target: Callable[..., None], job: Job, ready: Barrier, results: Any) -> None:
    """A worker process."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    meter, errors = Meter(), Warnings()
    logging.getLogger("storage").addHandler(errors)
    try:
        target(job, meter, lambda: ready.wait(START_SECONDS))
    # All that happens to a worker is a result.
    except Exception:  # noqa: BLE001
        ready.abort()
        errors.texts.append(traceback.format_exc())
    results.put((meter.phases, errors.texts, time.process_time() - meter.busy_since))


class Warnings(logging.Handler):
    """Keeps what the storage warns of: outages and deadlocks that it waited out."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.texts.append(record.getMessage())


def plain_worker(job: Job, meter: Meter, wait: Callable[[], object]) -> None:
    """Plain Optuna: an objective and `study.optimize`."""
    with closing(open_database(job.url, create=False)) as database:
        opened = open_study(database, job.ours)
        strategy = attach_strategy(opened)
    address = make_url(job.url).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    storage = RDBStorage(address, skip_table_creation=True)
    study = optuna.load_study(
        study_name=job.name, storage=storage, sampler=strategy.sampler, pruner=strategy.pruner
    )
    began: dict[str, tuple[float, int]] = {}

    def ask(*arguments: Any, **options: Any) -> Trial:
        end_tell()
        began["ask"] = meter.now()
        return Study.ask(study, *arguments, **options)

    def end_tell() -> None:
        if "tell" in began:
            meter.add("tell", began.pop("tell"))

    def objective(trial: Trial) -> float:
        recipe = suggest(trial, opened.settings.capped_space, opened.settings.trial_seed(trial.number))
        meter.add("ask", began["ask"])
        try:
            for epoch in range(1, EPOCHS + 1):
                accuracy = simulate(recipe, epoch)
                with meter.measure("epoch"):
                    trial.report(accuracy, epoch)
                    is_bad = epoch < EPOCHS and trial.should_prune()
                if is_bad:
                    raise optuna.TrialPruned
            return simulate(recipe, EPOCHS)
        finally:
            began["tell"] = meter.now()

    study.ask = ask  # type: ignore[method-assign]  # `optimize` asks and tells by itself.
    with meter.measure("load"):
        study.get_trials(deepcopy=False)
    study.optimize(objective, n_trials=1)
    began.clear()
    wait()
    meter.forget()
    study.optimize(objective, n_trials=job.trials)
    end_tell()


def our_worker(job: Job, meter: Meter, wait: Callable[[], object]) -> None:
    """This project's: `search.worker.Worker` without TensorFlow."""
    with closing(open_database(job.url, create=False, patience_seconds=PATIENCE_SECONDS)) as database:
        opened = open_study(database, job.name)
        study = attach_strategy(opened)
        identity = own_identity()
        keeper = LeaseKeeper(opened.leases(), LEASE_SECONDS, identity)
        database.work_as(identity)
        watch = TargetWatch(database.target(opened.study))
        content = random.Random(0).randbytes(FILE_BYTES)
        keeper.start()
        try:
            with meter.measure("load"):
                study.get_trials(deepcopy=False)
            run_trial(opened, study, meter, keeper, watch, content)
            wait()
            meter.forget()
            with contextlib.suppress(TrialLimitReached):
                while True:
                    run_trial(opened, study, meter, keeper, watch, content)
        finally:
            keeper.stop()


def run_trial(
    opened: OpenStudy, study: Study, meter: Meter, keeper: LeaseKeeper, watch: TargetWatch, content: bytes
) -> None:
    """One trial, as `search.worker` and `search.trial_run` run it."""
    database, settings = opened.database, opened.settings
    began = meter.now()
    watch.is_reached()
    database.release_strays()
    trial = study.ask()
    taken_at = time.monotonic()
    claimed = database.claimed(opened.artifacts, trial._trial_id)
    recipe = suggest(trial, settings.capped_space, settings.trial_seed(trial.number))
    claimed.set_user_attrs({RECIPE_KEY: recipe.to_dict(), WORKER_KEY: WORKER})
    if claimed.read_checkpoint() is not None:
        raise RuntimeError("a new trial has a checkpoint")
    meter.add("ask", began)
    is_bad, accuracy, epoch = False, 0.0, 0
    while epoch < EPOCHS and not is_bad:
        epoch += 1
        accuracy = simulate(recipe, epoch)
        if keeper.has_lost(trial._trial_id, taken_at):
            raise RuntimeError("a worker that is well has lost its lease")
        with meter.measure("epoch"):
            trial.report(accuracy, epoch)
            is_bad = epoch < EPOCHS and trial.should_prune()
            watch.is_reached()
        if epoch % CHECKPOINT_EPOCHS == 0:
            with meter.measure("save"):
                claimed.save_checkpoint(content, {SECONDS_KEY: 1.5 * epoch})
    with meter.measure("tell"):
        files = [NamedFile("history", f"trial-{trial.number}-history.csv", "text/csv", b"1,0.5\n" * epoch)]
        attrs = {SECONDS_KEY: 1.5 * epoch}
        if is_bad:
            claimed.finish(TrialState.PRUNED, accuracy, files, attrs)
        else:
            name = f"trial-{trial.number}-{accuracy:.4f}.h5"
            files.insert(0, NamedFile("model", name, "application/x-hdf5", content))
            claimed.finish(TrialState.COMPLETE, accuracy, files, attrs)
        claimed.let_go()
    # As `TrialRun.ended`.
    with meter.measure("show"):
        summarise_trial(database.storage.get_trial(trial._trial_id))
        with contextlib.suppress(ValueError):
            _ = opened.study.best_value
    watch.note()


WORKER = {"host": "machine", "pid": 1, "gpu": None}


def simulate(recipe: Recipe, epoch: int) -> float:
    """Validation accuracy after an epoch: a curve that saturates, on a hill around the article's recipe."""
    off = abs(math.log10(recipe.learning_rate) + 2) / 4 + abs(recipe.dropout_dense - 0.3)
    off += abs(recipe.dropout_block1 - 0.2) + abs(recipe.dropout_block2 - 0.3)
    off += abs(recipe.dropout_block3 - 0.4) + 0.05 * ("sgd", "momentum", "adam", "nesterov", "rmsprop").index(
        recipe.optimizer
    )
    luck = random.Random(recipe.seed).gauss(1, 0.25)
    noise = random.Random(f"{recipe.seed} {epoch}").gauss(0, 0.01)
    return max(0.0, 0.8 * luck * math.exp(-off / 2) * (1 - math.exp(-epoch / 12)) + noise)


def past_trials(settings: Settings, count: int) -> Iterator[FrozenTrial]:
    """Trials that a random search with this project's pruner would have left, without numbers."""
    source = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=settings.seed)
    )
    rungs: dict[str, list[float]] = {}
    for number in range(count):
        trial = source.ask()
        recipe = suggest(trial, settings.capped_space, settings.trial_seed(number))
        reports: dict[int, float] = {}
        attrs: dict[str, Any] = {"tpe:relative_params:0": json.dumps(trial.params)}
        state = TrialState.COMPLETE
        for epoch in range(1, EPOCHS + 1):
            reports[epoch] = value = simulate(recipe, epoch)
            rung = math.log2(epoch / FIRST_RUNG_LEAST)
            if epoch == EPOCHS or rung < 0 or rung != int(rung):
                continue
            # The rule of Optuna's SuccessiveHalvingPruner with a reduction factor of 2.
            key = f"completed_rung_{int(rung)}"
            others = rungs.setdefault(key, [])
            bisect.insort(others, value)
            attrs[key] = value
            if value < others[-max(1, len(others) // 2)]:
                state = TrialState.PRUNED
                break
        yield create_trial(
            state=state,
            value=value,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={RECIPE_KEY: recipe.to_dict()},
            system_attrs=attrs,
            intermediate_values=reports,
        )


def fill(
    engine: sqlalchemy.Engine, study_id: int, first: int, trials: list[FrozenTrial], *, as_ours: bool
) -> None:
    """Write finished trials, numbered from `first`, as Optuna's own storage would, many rows at a time."""
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        {
            "number": number,
            "study_id": study_id,
            "state": trial.state,
            "datetime_start": now,
            "datetime_complete": now,
        }
        for number, trial in enumerate(trials, first)
    ]
    made = sqlalchemy.insert(TRIALS).returning(TRIALS.c.trial_id, sort_by_parameter_order=True)
    with engine.begin() as connection:
        ids = connection.scalars(made, rows).all()
    tables: dict[Any, list[dict[str, Any]]] = {
        table: [] for table in (PARAMS, VALUES, USER_ATTRS, SYSTEM_ATTRS, REPORTS)
    }
    for trial_id, trial in zip(ids, trials, strict=True):
        tables[PARAMS] += [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": distribution.to_internal_repr(trial.params[name]),
                "distribution_json": distribution_to_json(distribution),
            }
            for name, distribution in trial.distributions.items()
        ]
        tables[VALUES].append(
            {"trial_id": trial_id, "objective": 0, "value": trial.value, "value_type": "FINITE"}
        )
        tables[REPORTS] += [
            {
                "trial_id": trial_id,
                "step": step,
                "intermediate_value": value,
                "intermediate_value_type": "FINITE",
            }
            for step, value in trial.intermediate_values.items()
        ]
        system, user = dict(trial.system_attrs), {}
        if as_ours:
            user = {**trial.user_attrs, WORKER_KEY: WORKER, SECONDS_KEY: 1.5 * len(trial.intermediate_values)}
            for kind in ("h5", "csv")[trial.state == TrialState.PRUNED :]:
                meta = {"artifact_id": f"{trial_id}{kind}", "filename": f"trial.{kind}", "mimetype": "x"}
                system[f"{META_PREFIX}{trial_id}{kind}"] = json.dumps({**meta, "encoding": None})
        for table, attrs in ((USER_ATTRS, user), (SYSTEM_ATTRS, system)):
            tables[table] += [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(attrs[key])} for key in attrs
            ]
    with engine.begin() as connection:
        for table, rows in tables.items():
            if rows:
                connection.execute(sqlalchemy.insert(table), rows)


def drop_trials(connection: sqlalchemy.Connection, study_id: int) -> None:
    """Remove the trials of a study, with what belongs to them."""
    ids = sqlalchemy.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
    for table in (PARAMS, VALUES, USER_ATTRS, SYSTEM_ATTRS, REPORTS, TRIALS):
        connection.execute(sqlalchemy.delete(table).where(table.c.trial_id.in_(ids)))


def check(engine: sqlalchemy.Engine, ours: OpenStudy, plain: Study, total: int, *, equal: bool) -> str:
    """See that our study is exact, that its reader reads what Optuna's own does, and what else must hold."""
    own = RDBStorage(engine.url.render_as_string(hide_password=False), skip_table_creation=True)
    reference = own.get_all_trials(ours.study._study_id, deepcopy=False)
    others = own.get_all_trials(plain._study_id, deepcopy=False)
    found = ours.study.get_trials(deepcopy=False)
    with engine.connect() as connection:
        leases = connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(LEASES))
    facts = {
        f"{len(found)} trials, as told": len(found) == total,
        "numbered without gaps": [trial.number for trial in found] == list(range(len(found))),
        "read as Optuna reads them": found == reference,
        "no lease left": leases == 0,
    }
    if equal:
        facts["equal to plain Optuna's"] = [*map(essence, reference)] == [*map(essence, others)]
    return ", ".join(text if holds else f"NOT {text.upper()}" for text, holds in facts.items())


def essence(trial: FrozenTrial) -> tuple[Any, ...]:
    """What a trial has in both studies; seeds make it the same."""
    return trial.number, trial.state, trial.params, trial.intermediate_values, trial.values


def print_header() -> None:
    """Print the table's head."""
    columns = (
        *(("load s", 8), ("ask ms", 9), ("SQL", 6), ("epoch ms", 10), ("SQL", 11)),
        *(("save ms", 9), ("SQL", 6), ("tell ms", 9), ("SQL", 6), ("show ms", 9), ("SQL", 6)),
        *(("trial ms", 10), ("CPU ms", 9)),
    )
    heads = "".join(f"{column:>{width}}" for column, width in columns)
    print(f"\n{'past':>6}{'workers':>9} {'':6}{heads}{'ratio':>7}{'trials/s':>10}")


def print_line(size: int, workers: int, kind: str, result: Measured, epochs: float, plain: Measured) -> None:
    """Print one row."""

    def optional(phase: str) -> str:
        if not result.phases[phase]:
            return f"{'-':>9}{'-':>6}"
        return f"{result.mean_ms(phase):9.1f}{result.mean_statements(phase):6.1f}"

    most = f"{result.mean_statements('epoch'):.1f} ({result.most_statements('epoch')})"
    ratio = result.trial_ms(epochs) / max(1e-9, plain.trial_ms(epochs))
    print(
        f"{size:6}{workers:9} {kind:6}{result.mean_ms('load') / 1000:8.2f}"
        f"{result.mean_ms('ask'):9.1f}{result.mean_statements('ask'):6.1f}"
        f"{result.mean_ms('epoch'):10.2f}{most:>11}{optional('save')}"
        f"{result.mean_ms('tell'):9.1f}{result.mean_statements('tell'):6.1f}{optional('show')}"
        f"{result.trial_ms(epochs):10.1f}"
        f"{1000 * result.busy_seconds / max(1, len(result.phases['tell'])):9.1f}{ratio:7.2f}"
        f"{len(result.phases['tell']) / max(1e-9, result.wall_seconds):10.1f}"
    )


def describe_server(database: Database) -> str:
    """The server's version, and the settings that decide what a commit costs."""
    with engine_of(database).connect() as connection:
        names = ("server_version", "fsync", "synchronous_commit")
        values = [connection.scalar(sqlalchemy.text(f"SHOW {name}")) for name in names]
    return f"PostgreSQL {values[0]}, fsync {values[1]}, synchronous_commit {values[2]}"


def count_deadlocks(engine: sqlalchemy.Engine) -> int:
    """How many deadlocks the server has found in this database."""
    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with engine.connect() as connection:
        return int(connection.scalar(sqlalchemy.text(query)) or 0)


def engine_of(database: Database) -> sqlalchemy.Engine:
    """The database's engine, which is not for users of the package."""
    return database._backend.engine


@contextlib.contextmanager
def closing(database: Database) -> Iterator[Database]:
    """The database, closed in the end."""
    yield database
    database.close()


if __name__ == "__main__":
    main()
