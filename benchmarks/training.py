"""This project's training program against the article's own code and against PyTorch, side by side.

    .venv/bin/python benchmarks/training.py [--rounds 5] [--steps 300]

Each round runs every contestant for the same number of steps of 64 images, one after another, each in a
process of its own that lives through all rounds; ratios are taken round by round, so that a machine that
slows down slows all of them. Then, each in a fresh process: the time from asking for a trial to the end of
its first step, and peak memory, both of a whole worker with its study in SQLite.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contestants import BATCH, CONTESTANTS, article_model, serve
from machine import describe_machine

from search.events import StepsDone
from search.runtime import start_tensorflow

if TYPE_CHECKING:
    from optuna.trial import Trial

    from search.events import Event
    from search.worker import Worker

EPOCH_STEPS = 625


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help=f"at most {EPOCH_STEPS}")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 1 <= options.steps <= EPOCH_STEPS:
        parser.error(f"--steps must be 1 to {EPOCH_STEPS}, an epoch")
    if options.contestant is not None:
        serve(options.contestant, options.steps)
        return
    if options.part is not None:
        print(json.dumps(PARTS[options.part]()))
        return
    print(describe_machine(("tensorflow", "keras", "torch", "numpy")))
    compare_steps(options.rounds, options.steps)
    compare_processes()


def compare_steps(rounds: int, steps: int) -> None:
    """Milliseconds a step, alternating."""
    has_torch = importlib.util.find_spec("torch") is not None
    if not has_torch:
        print("PyTorch is not installed (pip install '.[bench]'): left out")
    names = [name for name in CONTESTANTS if has_torch or not name.startswith("PyTorch")]
    contestants = {name: start_contestant(name, steps) for name in names}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(1000 * run_contestant(contestant) / steps)
    for contestant in contestants.values():
        contestant.communicate()
    reference = next(iter(times.values()))
    floor = run_part("floor")
    print(f"\n{'':34}{'ms a step':>12}{'min':>8}{'max':>8}{'times fit':>11}{'by the best':>13}")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(reference, values, strict=True))
        best = min(reference) / min(values)
        spread = f"{statistics.median(values):12.1f}{min(values):8.1f}{max(values):8.1f}"
        print(f"{name:34}{spread}{ratio:10.2f}x{best:12.2f}x")
    for precision, milliseconds in floor.items():
        print(f"{'floor, ' + precision:34}{milliseconds:12.1f}   3.92 GFLOP at this machine's matmul rate")
    print("(times fit: median of the rounds' ratios; by the best: of each one's fastest round)")


def start_contestant(name: str, steps: int) -> "subprocess.Popen[str]":
    """A process that is that contestant, warmed up."""
    command = [sys.executable, __file__, "--contestant", name, "--steps", str(steps)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{name}: ended before it began")
    return process


def run_contestant(process: "subprocess.Popen[str]") -> float:
    """Seconds of its steps, run now."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args}: ended in the middle")
    return float(line)


def compare_processes() -> None:
    """First steps and peak memory, each in a process of its own."""
    starts, peak = run_part("starts"), run_part("peak")
    fit = run_part("fit")
    print(f"\nseconds from asking to the end of the first step{'worker':>20}{'fit':>10}")
    names = {
        "first": "the first trial",
        "second": "the second",
        "tenth": "the tenth",
        "other": "the first of another optimizer",
        "other second": "the second of that",
    }
    for key, name in names.items():
        theirs = f"{fit[key]:10.2f}" if key in fit else ""
        print(f"{name:48}{starts[key]:20.2f}{theirs}")
    print("(worker: database, recipe and state included; fit: from the recipe, no database)")
    print(f"peak resident memory, GB{peak['peak_bytes'] / 1e9:44.2f}{fit['peak_bytes'] / 1e9:10.2f}")
    print("(worker: an epoch of each of five optimizers on all images, stored and scored)")
    many = run_part("many")
    after = ", ".join(f"{many[number] / 1e9:.2f} GB after {number}" for number in ("20", "100", "200"))
    print(f"\n200 short trials in one process: {after}; {many['traces']} programs traced")


def run_part(part: str) -> dict[str, float]:
    """What that part measures, in a fresh process."""
    command = [sys.executable, __file__, "--part", part]
    result: dict[str, float] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    )
    return result


def measure_floor() -> dict[str, float]:
    """Milliseconds that a step's 3.92 GFLOP would take at the rate of large matrix products, by precision.

    61.2 MFLOP an image (forward, backward to inputs and to weights; two a multiply-add), 64 images.
    """
    start_tensorflow()
    import tensorflow as tf

    size = 2048
    floors = {}
    for dtype in (tf.float32, tf.bfloat16):
        left, right = (tf.cast(tf.random.normal([size, size]), dtype) for _ in range(2))
        multiply = tf.function(lambda a, b: tf.reduce_sum(tf.matmul(a, b)))
        multiply(left, right)
        seconds = []
        for _ in range(10):
            began = time.perf_counter()
            multiply(left, right).numpy()
            seconds.append(time.perf_counter() - began)
        floors[dtype.name] = 1000 * 64 * 61.2e6 / (2 * size**3 / min(seconds))
    return floors


def measure_starts() -> dict[str, float]:
    """From asking for a trial to the end of its first step, in a worker; recipes differ in every number."""
    optimizers = ["momentum"] * 10 + ["adam"] * 2
    began, seconds = time.perf_counter(), []

    def note(event: "Event") -> None:
        if isinstance(event, StepsDone) and event.done == 1:
            seconds.append(time.perf_counter() - began)

    def start(worker: "Worker") -> None:
        ask = worker._served.study.ask

        def timed_ask() -> "Trial":
            nonlocal began
            began = time.perf_counter()
            return ask()

        worker._served.study.ask = timed_ask

    # Each step is told.
    run_worker(optimizers, note, start, train_samples=10 * BATCH, steps_per_call=1)
    keys = {"first": 0, "second": 1, "tenth": 9, "other": 10, "other second": 11}
    return {key: seconds[index] for key, index in keys.items()}


def measure_peak() -> dict[str, float]:
    """Peak memory of a worker that trains, stores and scores one epoch of each optimizer, on all images."""
    from trainer.recipe import OPTIMIZERS

    run_worker(OPTIMIZERS, lambda _: None, lambda _: None)
    return {"peak_bytes": memory_bytes("VmHWM")}


def run_worker(
    optimizers: Sequence[str],
    emit: Callable[["Event"], None],
    on_start: Callable[["Worker"], None],
    *,
    train_samples: int | None = None,
    steps_per_call: int | None = None,
) -> None:
    """A worker in this process that runs a trial of one epoch for each of `optimizers`, in their order."""
    start_tensorflow()
    import optuna

    from search.single_runner import SingleRunner
    from search.study import Wishes, open_or_create_study
    from search.worker import Worker
    from storage.database import open_database
    from trainer.data import load
    from trainer.pace import Pace
    from trainer.precision import choose_precision

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if steps_per_call is not None:
        Pace.steps = lambda *_: steps_per_call  # type: ignore[method-assign, misc, assignment]
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/study.db")
        wishes = Wishes(max_epochs=1, train_samples=train_samples)
        opened, _ = open_or_create_study(database, "benchmark", wishes)
        # The first trial of a study is the article's recipe, with momentum.
        rest = optimizers[1:] if optimizers[0] == "momentum" else optimizers
        for optimizer in rest:
            opened.study.enqueue_trial({"optimizer": optimizer})
        database.limit_trials(opened.study, 1 + len(rest))
        runner = SingleRunner(load(), opened.settings.train_samples, choose_precision())
        worker = Worker(opened, runner, emit)
        on_start(worker)
        worker.run()
        database.close()


def measure_fit() -> dict[str, float]:
    """The same with the article's code: each trial builds, compiles and traces its own model."""
    start_tensorflow()
    import keras

    from trainer.data import load

    data = load()
    arrays = [
        (split.images.astype("float32") / 255, keras.utils.to_categorical(split.labels, 10))
        for split in (data.train, data.validation)
    ]
    images, labels = arrays[0]
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        model = article_model()
        model.fit(images[:BATCH], labels[:BATCH], batch_size=BATCH, epochs=1, verbose=0)
        seconds.append(time.perf_counter() - began)
    model.fit(images, labels, batch_size=BATCH, epochs=1, validation_data=arrays[1], verbose=0)
    return {
        "first": seconds[0],
        "second": seconds[1],
        "tenth": seconds[-1],
        "peak_bytes": memory_bytes("VmHWM"),
    }


def measure_many() -> dict[str, float]:
    """Resident memory over 200 trials of all optimizers on little data, stored and scored."""
    start_tensorflow()
    from trainer.data import load
    from trainer.evaluation import Evaluator
    from trainer.model import TRIALS_OF_KERNELS, forget_models
    from trainer.model_file import model_from_bytes, model_to_bytes
    from trainer.precision import choose_precision
    from trainer.recipe import OPTIMIZERS, Recipe
    from trainer.training import Trainer

    data = load()
    trainer = Trainer(data.train.first(10 * BATCH), data.validation.first(1000), choose_precision())
    evaluator = Evaluator(trainer.validation)
    resident = {}
    for number in range(1, 201):
        recipe = Recipe(
            dropout_block1=number / 400,
            learning_rate=1e-5 * number,
            optimizer=OPTIMIZERS[number % len(OPTIMIZERS)],
            epochs=1,
            seed=number,
        )
        model = trainer.train(recipe).build_model()
        evaluator.score(model_from_bytes(model_to_bytes(model)))
        # Before the kernels are freed, that is at the most.
        if number in (20, 100, 200):
            resident[str(number)] = memory_bytes("VmRSS")
        forget_models(kernels=number % TRIALS_OF_KERNELS == 0)
    return {**resident, "traces": trainer.traces}


def memory_bytes(key: str) -> int:
    """This process's memory; `getrusage` would count what its parent had when it forked.

    Args:
        key: "VmHWM" for the peak of resident memory, "VmRSS" for now (proc(5)).
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])


PARTS = {
    "floor": measure_floor,
    "starts": measure_starts,
    "peak": measure_peak,
    "fit": measure_fit,
    "many": measure_many,
}

if __name__ == "__main__":
    main()
