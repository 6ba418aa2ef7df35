"""The dashboard against the stock `optuna-dashboard` command, over the same long study.

    .venv/bin/python benchmarks/dashboard.py [--trials 5000] [--steps 50] [--polls 3]

Both serve one SQLite database, made here with learning curves from a formula. Measured, ours and stock in
turn: the requests of a browser's first visit after the server's start (page, program, list of studies, the
study with all trials), the same once more, polls (the study again, with the unfinished trials; more
than ten seconds apart, because optuna-dashboard keeps what it has read for so long), and the bytes over the
wire that a client which takes gzip receives.
"""

import argparse
import json
import math
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from machine import describe_machine
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FixedTrial

from search.space import suggest
from search.study import Wishes, open_or_create_study
from storage.database import open_database
from trainer.recipe import ARTICLE, OPTIMIZERS, Recipe

CACHED_SECONDS = 10.5
"""optuna-dashboard reads the trials of a long study again after ten seconds."""
RUNNING = 8
"""Trials that run while others look on."""
LOCAL = "127.0.0.1"
STUDY = "/api/studies/1?after="
"""The study with the trials after so many."""


@dataclass(frozen=True)
class Answer:
    """How long a request took, in seconds, and how many bytes came over the wire."""

    seconds: float
    size: int


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--polls", type=int, default=3)
    options = parser.parse_args()
    print(describe_machine(("optuna", "optuna-dashboard", "sqlalchemy", "waitress")))
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/study.db"
        fill_study(url, options.trials, options.steps)
        print(f"{options.trials} trials of {options.steps} steps, {RUNNING} of them running")
        results: dict[str, dict[str, list[Answer]]] = {"ours": {}, "stock": {}}
        with serve_ours(url) as (ours, ours_up), serve_stock(url) as (stock, stock_up):
            servers = {"ours": ours, "stock": stock}
            for name, up in (("ours", ours_up), ("stock", stock_up)):
                results[name]["start to listening"] = [Answer(up, 0)]
            for visit in ("first visit", "second visit"):
                for name, address in servers.items():
                    results[name][visit] = [visit_page(address)]
            for _ in range(options.polls):
                time.sleep(CACHED_SECONDS)
                for name, address in servers.items():
                    poll = get(f"{address}{STUDY}{options.trials - RUNNING}")
                    results[name].setdefault("poll", []).append(poll)
    print_table(results)


def print_table(results: dict[str, dict[str, list[Answer]]]) -> None:
    """Medians, and stock's as a multiple of ours."""
    heads = ("ours, s", "stock, s", "times", "ours, kB", "stock, kB", "times")
    print(f"\n{'':20}" + "".join(f"{head:>11}" for head in heads))
    for what in results["ours"]:
        cells = []
        for key, unit, digits in (("seconds", 1, 3), ("size", 1000, 1)):
            ours, stock = (
                statistics.median(getattr(answer, key) / unit for answer in results[name][what])
                for name in ("ours", "stock")
            )
            if ours:
                cells += [f"{ours:.{digits}f}", f"{stock:.{digits}f}", f"{stock / ours:.1f}"]
        print(f"{what:20}" + "".join(f"{cell:>11}" for cell in cells))


def fill_study(url: str, trials: int, steps: int) -> None:
    """A study of `trials` trials, the last ones running, in a new database; written in a few statements."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = open_database(url)
    opened, _ = open_or_create_study(database, "cifar10", Wishes(max_epochs=steps))
    space = opened.settings.capped_space
    database.close()
    template = FixedTrial({**ARTICLE.to_dict(), "epochs": steps})
    suggest(template, space, seed=0)
    rows: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    chance = random.Random(0)
    # Trial 0, the article's, is there and waits. It would have been the first to end.
    for number in range(1, trials):
        state = "RUNNING" if number >= trials - RUNNING else chance.choice(["PRUNED", "PRUNED", "COMPLETE"])
        add_trial(rows, number, state, steps, template.distributions, chance)
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        ended = {"state": "FAIL", "datetime_complete": datetime(2026, 11, 1)}
        connection.execute(sqlalchemy.update(models.TrialModel).values(ended))
        for model, values in rows.items():
            connection.execute(sqlalchemy.insert(model.__table__), values)
    engine.dispose()


def add_trial(
    rows: dict[Any, list[dict[str, Any]]],
    number: int,
    state: str,
    steps: int,
    distributions: dict[str, BaseDistribution],
    chance: random.Random,
) -> None:
    """Add the rows of a trial in that state, by Optuna's models, with a learning curve from a formula."""
    trial_id = number + 1
    recipe = Recipe(
        *(round(chance.uniform(0, 0.6), 3) for _ in range(4)),
        learning_rate=10 ** chance.uniform(-4, -2),
        optimizer=chance.choice(OPTIMIZERS),
        epochs=chance.randint(steps // 2, steps),
        seed=number,
    )
    done = recipe.epochs if state == "COMPLETE" else chance.randint(1, recipe.epochs - 1)
    ceiling = 0.8 - 0.2 * abs(recipe.dropout_block1 - 0.25) + 0.02 * math.log10(recipe.learning_rate)
    curve = [round(ceiling * (1 - math.exp(-step / 6)) + chance.gauss(0, 0.005), 4) for step in range(done)]
    began = datetime(2026, 11, 1) + timedelta(seconds=40 * number)
    rows[models.TrialModel].append(
        {
            "trial_id": trial_id,
            "study_id": 1,
            "number": number,
            "state": state,
            "datetime_start": began,
            "datetime_complete": None if state == "RUNNING" else began + timedelta(seconds=10 * done),
        }
    )
    rows[models.TrialParamModel] += [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distribution.to_internal_repr(recipe.to_dict()[name]),
            "distribution_json": distribution_to_json(distribution),
        }
        for name, distribution in distributions.items()
    ]
    rows[models.TrialIntermediateValueModel] += [
        {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": value,
            "intermediate_value_type": "FINITE",
        }
        for step, value in enumerate(curve, 1)
    ]
    if state != "RUNNING":
        rows[models.TrialValueModel].append(
            {"trial_id": trial_id, "objective": 0, "value": curve[-1], "value_type": "FINITE"}
        )
    worker = {"host": "node", "pid": 1, "gpu": None}
    attrs = {"recipe": recipe.to_dict(), "seconds": 10.0 * done, "worker": worker}
    rows[models.TrialUserAttributeModel] += [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attrs.items()
    ]


@contextmanager
def serve_ours(url: str) -> Iterator[tuple[str, float]]:
    """`cnn-search dashboard`, its address, and the seconds from its start until it answers."""
    command = [
        str(Path(sys.executable).with_name("cnn-search")),
        "dashboard",
        "--storage",
        url,
        "--port",
        "0",
    ]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip().removesuffix("/dashboard")
        yield address, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


@contextmanager
def serve_stock(url: str) -> Iterator[tuple[str, float]]:
    """The stock command, its address, and the seconds from its start until it listens."""
    with socket.socket() as free:
        free.bind((LOCAL, 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("optuna-dashboard")),
        url,
        "--host",
        LOCAL,
        "--port",
        str(port),
    ]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://{LOCAL}:{port}"
        while True:
            try:
                socket.create_connection((LOCAL, port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield address, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def visit_page(address: str) -> Answer:
    """What a browser asks for when it opens the study's page."""
    paths = (
        "/dashboard/studies/1",
        "/static/bundle.js",
        "/api/meta",
        "/api/studies",
        "/api/studies/1?after=0",
    )
    answers = [get(address + path) for path in paths]
    return Answer(sum(answer.seconds for answer in answers), sum(answer.size for answer in answers))


def get(url: str) -> Answer:
    """One request of a client that takes gzip, as browsers do."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as response:
        size = len(response.read())
    return Answer(time.perf_counter() - began, size)


if __name__ == "__main__":
    main()
