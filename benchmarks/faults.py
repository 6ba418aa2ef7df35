"""Whether a study stays right when its workers are killed, stopped, frozen, or lose their database.

    .venv/bin/python benchmarks/faults.py [--rounds 20] [--faults kill,term,freeze,restart]

Each round runs 4 real worker processes on a sample of CIFAR-10 to 24 finished trials, and does something to
a random one of them every few seconds: `kill` (SIGKILL, replaced), `term` (SIGTERM, replaced), `freeze`
(SIGSTOP for twice the time of a lease, then SIGCONT), `restart` (the PostgreSQL server stops for five
seconds, twice a round). Then everything that is stored is looked at. Prints a table; exit code 1 where a
round went wrong.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

# The rounds are the fault suite's, which runs one of each.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fault_rounds import Fleet, Outcome, freeze_one, kill_one, run_round, stop_one
from machine import describe_machine
from postgres import PostgresServer

HEADER = (
    "fault",
    "database",
    "rounds",
    "good",
    "faults",
    "taken up again",
    "finished",
    "minutes",
    "slowest exit",
)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--faults", default="kill,term,freeze,restart")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    print(describe_machine(("tensorflow", "optuna", "sqlalchemy")), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder, PostgresServer(Path(folder)) as server:
        for name in options.faults.split(","):
            outcomes = []
            for seed in range(options.first_seed, options.first_seed + options.rounds):
                outcome = one_round(name, server, options.database, Path(folder), seed)
                outcomes.append(outcome)
                text = "; ".join(outcome.wrong) or "good"
                print(f"{name} {seed}: {outcome.seconds:.0f} s, {outcome.faults} faults, {text}", flush=True)
            rows.append(summarise(name, options.database, outcomes))
    print("\n" + " | ".join(HEADER))
    for row in rows:
        print(" | ".join(row))
    return 0 if all(row[2] == row[3] for row in rows) else 1


def one_round(name: str, server: PostgresServer, database: str, folder: Path, seed: int) -> Outcome:
    """Run a round with the fault of that name."""
    with tempfile.TemporaryDirectory(dir=folder) as logs:
        url = server.create_database() if database == "postgresql" else f"sqlite:///{logs}/study.db"

        def restart(fleet: Fleet, chance: Random, outcome: Outcome) -> None:
            server.stop("immediate" if outcome.faults % 2 else "fast")
            time.sleep(5.0)
            server.start()
            outcome.faults += 1

        faults = {"kill": kill_one, "term": stop_one, "freeze": freeze_one, "restart": restart}
        if name != "restart":
            return run_round(url, Path(logs), faults[name], seed)
        return run_round(url, Path(logs), restart, seed, pause_seconds=(8.0, 14.0), most_faults=2)


def summarise(name: str, database: str, outcomes: list[Outcome]) -> tuple[str, ...]:
    """A row of the table."""
    finished = sum(outcome.states["COMPLETE"] + outcome.states["PRUNED"] for outcome in outcomes)
    slowest = max(outcome.slowest_exit_seconds for outcome in outcomes)
    return (
        name,
        database,
        str(len(outcomes)),
        str(sum(not outcome.wrong for outcome in outcomes)),
        str(sum(outcome.faults for outcome in outcomes)),
        str(sum(outcome.hits for outcome in outcomes)),
        f"{finished} of {24 * len(outcomes)}",
        f"{sum(outcome.seconds for outcome in outcomes) / 60:.0f}",
        f"{slowest:.1f} s" if slowest else "",
    )


if __name__ == "__main__":
    sys.exit(main())
