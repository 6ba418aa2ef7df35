"""From nothing to a confirmed model: how long a search and its confirmation take together, unattended.

    .venv/bin/python benchmarks/cold_start.py --max-epochs 45 --minutes 0 --target 0.78 --confirm-workers 3
    .venv/bin/python benchmarks/cold_start.py --space everything --max-epochs 18 --minutes 0 --target 0.785
        --confirm-workers 3 --folder cold-start-everything

A new study in an empty folder; CIFAR-10 is at hand. `cnn-search run` searches, then `cnn-search confirm`
trains the best recipe again with fresh seeds and scores those models on the test images, once. Nothing else
is given. `--against` is a figure: the mean of the seeds on the test images is one thing that is told, and
whether the whole of its interval lies above the figure another.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from machine import describe_machine


def main() -> None:
    """Run both, and print what came of it, and when."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--space", default="article")
    parser.add_argument("--max-epochs", default="25")
    parser.add_argument("--minutes", type=float, default=25, help="of the search; 0 for none but --target")
    parser.add_argument("--target", help="validation accuracy at which the search stops")
    parser.add_argument("--top", default="1")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--against", default="0.7737")
    parser.add_argument("--confirm-workers", help="processes that train the confirmation's seeds")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--folder", type=Path, default=Path("cold-start"))
    options = parser.parse_args()
    if not options.minutes and options.target is None:
        parser.error("without --minutes the search needs a --target to end")
    try:
        options.folder.mkdir(parents=True)
    except FileExistsError:
        parser.error(f"{options.folder} exists; a cold start needs a new --folder")
    print(describe_machine(("tensorflow", "keras", "optuna")), flush=True)
    where = ["--storage", f"sqlite:///{options.folder / 'study.db'}", "--study", "cold"]
    began = time.monotonic()

    def call(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("cnn-search")), *arguments, *where]
        print(f"{(time.monotonic() - began) / 60:6.1f} min  {' '.join(command[1:])}", flush=True)
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"exit code {result.returncode}: {result.stdout}")
        return result.stdout

    ends = ["--minutes", str(options.minutes)] if options.minutes else []
    ends += [] if options.target is None else ["--target", options.target]
    place = ["--output", str(options.folder)]
    call(
        "run",
        "--space",
        options.space,
        "--max-epochs",
        options.max_epochs,
        "--seed",
        options.seed,
        *ends,
        *place,
    )
    searched = time.monotonic()
    status = json.loads(call("status", "--json"))
    against = ["--top", options.top, "--seeds", options.seeds, "--against", options.against]
    against += [] if options.confirm_workers is None else ["--workers", options.confirm_workers]
    record = json.loads(call("confirm", *against, *place, "--json"))
    ended = time.monotonic()
    best = status["best"]
    print(f"\nspace {options.space}, trials of {options.max_epochs} epochs at most")
    spent = f"{status['states']}, {status['epochs_trained']} epochs"
    print(f"search        {(searched - began) / 60:6.1f} min  {spent}")
    print(f"  its best    trial {best['number']}, {100 * best['value']:.2f} % validation: {best['recipe']}")
    print(f"confirmation  {(ended - searched) / 60:6.1f} min")
    print(f"together      {(ended - began) / 60:6.1f} min")
    tested = record["test"]["figure"]
    mean, figure = tested["interval"]["mean"], tested["figure"]
    reached = "at least" if mean >= figure else "below"
    print(f"test images   {100 * mean:.2f} %, mean of the seeds, {reached} {100 * figure:.2f} %")
    print(f"  {record['verdict']['text']}")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
