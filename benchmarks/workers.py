"""How many worker processes, of how many threads each, train the most steps a second on this machine.

    .venv/bin/python benchmarks/workers.py [--rounds 7] [--steps 200] [--layouts 1x2,2x1]

A layout KxT is K processes of T threads. Each round starts every layout in turn; its processes wait for one
another, so that none measures an empty machine, and its figure is all their steps by the slowest's time.
Ratios are taken round by round against the first layout.
"""

import argparse
import statistics
import subprocess
import sys
import time

from contestants import make_engine
from machine import describe_machine

from search.runtime import count_cores


def main() -> None:
    """Print the table."""
    cores = count_cores()
    layouts = dict.fromkeys((f"1x{cores}", f"{cores}x1", f"2x{max(1, cores // 2)}", f"2x{cores}"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--layouts", default=",".join(layouts), help="KxT, ...: processes and threads of each"
    )
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--part", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        run_part(options.part, options.steps, options.precision)
        return
    print(describe_machine(("tensorflow", "keras")))
    names = options.layouts.split(",")
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            processes, threads = map(int, name.split("x"))
            rates[name].append(measure(processes, threads, options.steps, options.precision))
    print(f"\n{'processes x threads':22}{'steps a second':>16}{'min':>8}{'max':>8}{'ratio':>8}")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[names[0]], strict=True))
        middle = statistics.median(values)
        print(f"{name:22}{middle:16.1f}{min(values):8.1f}{max(values):8.1f}{ratio:7.2f}x")


def measure(processes: int, threads: int, steps: int, precision: str) -> float:
    """Steps a second, all processes together."""
    command = [sys.executable, __file__, "--part", str(threads), "--steps", str(steps)]
    command += ["--precision", precision]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    seconds = [float(process.communicate()[0].splitlines()[-1]) for process in started]
    # Until the last one ends: its last steps, alone on the machine, are not every process's rate.
    return processes * steps / max(seconds)


def run_part(threads: int, steps: int, precision: str) -> None:
    """One process: warm up, say so, wait for the word, train, and print the seconds."""
    from search.runtime import start_tensorflow

    start_tensorflow(threads)
    from trainer.data import load
    from trainer.device import DeviceSplit
    from trainer.recipe import ARTICLE

    data = load()
    train, validation = DeviceSplit.of(data.train), DeviceSplit.of(data.validation)
    engine = make_engine(precision, train, validation)
    engine.load(engine.begin(ARTICLE))
    engine.run_steps(1, 0, 20)[0].numpy()
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    engine.run_steps(1, 0, steps)[0].numpy()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
