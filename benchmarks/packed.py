"""Several trials in one GPU program (`trainer.packed`): what a trial's epoch costs, and a search's trial.

    .venv/bin/python benchmarks/packed.py [--data random|cifar10.npz|FOLDER] [--part NAME]

Needs JAX; where Keras is, `fit` on its JAX backend is timed too. Neither TensorFlow nor a network nor a
database is used. Data are `random` (noise, which takes the same time), or x_train and y_train in a .npz, or
in a folder as .npy. The parts, each of which is a command of its own within the minutes:

- lowerings: the ways to convolve in each precision, and loops of told or fixed length; compiling takes most
  of it, so give 1, 8, 32 and 64 as `--slots` one after the other
- slots: an epoch in packs of 1, 2, 4 ... slots, and by `fit`
- processes: an epoch in processes of one slot each, side by side on the device
- alone: the article's 100 epochs in a pack of one slot
- search: asynchronous successive halving that refills slots: trials an hour, and how busy the slots are

On a CPU all is tiny, to see that it runs, and the figures mean nothing.
"""

import argparse
import math
import os
import sys
import time

from packing import (
    SERVED,
    TINY,
    Halving,
    choose_build,
    draw_recipe,
    keeps_apart,
    load,
    make_pack,
    serve,
    start,
    time_epochs,
    time_processes,
)

from trainer.errors import TrainerError
from trainer.recipe import Recipe

LOWERING_STEPS = 100
"""Of an epoch by which lowerings are compared."""
MOST_PROCESSES = 8


def main() -> None:
    """Print the device and the tables of a part, or of all."""
    options = read_options()
    # It would take three quarters of the device's memory, and leave none for the processes beside it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    options.on_cpu = jax.default_backend() == "cpu"
    options.train_images = options.train_images or (256 if options.on_cpu else 40_000)
    options.validation_images = options.validation_images or (100 if options.on_cpu else 10_000)
    options.slots = options.slots or ([1, 2] if options.on_cpu else [1, 2, 4, 8, 16, 32, 64])
    options.epochs = options.epochs or (4 if options.on_cpu else 100)
    options.ends = time.monotonic() + 60 * options.minutes
    if options.serve is not None:
        serve(options)
        return
    devices = ", ".join(device.device_kind for device in jax.devices())
    print(f"{devices}; jax {jax.__version__}, Python {sys.version.split()[0]}")
    if options.on_cpu:
        print("A CPU: a tiny network on few images, to see that it runs. THE FIGURES MEAN NOTHING.")
    for name in [options.part] if options.part else list(PARTS):
        print(f"\n{name}: {PARTS[name].__doc__.splitlines()[0]}", flush=True)
        PARTS[name](options)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=PARTS, help="all of them unless given")
    parser.add_argument("--data", default="random", help="random, a .npz, or a folder of .npy")
    parser.add_argument("--train-images", type=int, help="40,000 unless given; on a CPU 256")
    parser.add_argument("--validation-images", type=int, help="10,000 unless given; on a CPU 100")
    parser.add_argument("--slots", type=int, nargs="+", help="numbers of slots, or of processes")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--products", choices=("tf32", "highest"), help="of float32")
    parser.add_argument("--lowering", choices=("vmap", "grouped", "slices", "patches"))
    parser.add_argument("--rounds", type=int, default=3, help="epochs timed; medians are shown")
    parser.add_argument("--epochs", type=int, help="of trials, alone or searched; 100, on a CPU 4")
    parser.add_argument("--trials", type=int, help="of the search; 8 for each slot unless given")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin nothing more after so many")
    parser.add_argument("--serve", choices=SERVED, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare_lowerings(options: argparse.Namespace) -> None:
    """Milliseconds a step, of all slots and of one; whether a slot of NaN leaves its neighbours alone."""
    import jax

    from trainer.packed.convolution import LOWERINGS
    from trainer.packed.device import PackData
    from trainer.packed.shape import Build

    steps = 2 if options.on_cpu else LOWERING_STEPS
    data = PackData.of(*load(options.data, 64 * steps, 100))
    kinds = [("float32", "tf32"), ("bfloat16", "tf32"), ("float32", "highest")][: 2 if options.on_cpu else 3]
    counts = [count for count in ((2,) if options.on_cpu else (1, 8, 32, 64)) if count in options.slots]
    header = f"{'slots':>5} {'precision':18}{'lowering':10}{'loop':6}"
    print(f"{header}{'step':>10}{'/ slots':>9}{'compiling':>11}")
    for slots in counts:
        for precision, products in kinds:
            for lowering in LOWERINGS:
                for block in (steps, None):
                    # The loop matters where a step is short, and not for the way to convolve.
                    if block is None and (slots, lowering, precision) != (1, "patches", "float32"):
                        continue
                    if is_over(options):
                        return
                    loop = "told" if block is None else "fixed"
                    label = f"{slots:5} {f'{precision} {products}':18}{lowering:10}{loop:6}"
                    chosen = argparse.Namespace(**{**vars(options), "precision": precision})
                    began = time.perf_counter()
                    try:
                        pack = make_pack(chosen, slots, data, Build(lowering, products, block))
                        compiled = time.perf_counter() - began
                        step = 1e3 * time_epochs(pack, options.rounds) / steps
                        apart = "" if slots == 1 else "apart" if keeps_apart(pack) else "NOT APART"
                    # One may be more than the device's memory or the compiler can do; the others count.
                    except (TrainerError, jax.errors.JaxRuntimeError) as error:
                        print(f"{label} {str(error).splitlines()[0][:100]}", flush=True)
                        continue
                    print(f"{label}{step:10.3f}{step / slots:9.4f}{compiled:11.1f}  {apart}", flush=True)


def compare_slots(options: argparse.Namespace) -> None:
    """Seconds of an epoch with its validation, by the number of slots; and by `fit`."""
    from trainer.packed.device import PackData

    data = PackData.of(*load(options.data, options.train_images, options.validation_images))
    header = f"{'':12}{'s an epoch':>11}{'/ trials':>10}{'trials/h':>10}"
    print(f"{header}{'x 1 slot':>10}{'x fit':>8}{'memory':>10}")
    fit = None
    if processes := start(options, "fit", 1):
        fit = time_processes(processes, options.rounds)
        print(f"{'fit':12}{describe(fit, fit)}", flush=True)
    else:
        print("fit: Keras is not installed, or its JAX backend fails; left out")
    first = None
    for slots in options.slots:
        if is_over(options):
            return
        pack = make_pack(options, slots, data)
        seconds = time_epochs(pack, options.rounds)
        each = seconds / slots
        first = each if first is None else first
        against = f"{fit / each:7.1f}x" if fit else f"{'':8}"
        line = f"{f'{slots} slots':12}{describe(seconds, each)}{first / each:9.1f}x{against}"
        print(f"{line}{describe_memory():>10}", flush=True)
        del pack
    print("(trials/h: of 100 epochs; memory: the most that the device had in use so far)")


def compare_processes(options: argparse.Namespace) -> None:
    """Seconds of an epoch in processes of one slot each that train at the same time."""
    print(f"{'':12}{'s an epoch':>11}{'/ trials':>10}{'trials/h':>10}")
    for count in [count for count in options.slots if count <= MOST_PROCESSES]:
        if is_over(options):
            return
        processes = start(options, "pack", count)
        if not processes:
            print(f"{count} processes: one did not begin; the device's memory may be too small")
            return
        seconds = time_processes(processes, options.rounds)
        print(f"{f'{count} processes':12}{describe(seconds, seconds / count)}", flush=True)


def train_alone(options: argparse.Namespace) -> None:
    """The article's recipe to its end in a pack of one slot, validated each epoch."""
    from trainer.packed.device import PackData
    from trainer.packed.pack import Pack, PackKey

    recipe = Recipe(epochs=options.epochs, **(TINY if options.on_cpu else {}))
    splits = load(options.data, options.train_images, options.validation_images)
    began = time.perf_counter()
    steps = math.ceil(len(splits[0]) / recipe.batch_size)
    pack = Pack(
        PackKey.of(recipe), 1, PackData.of(*splits), options.precision, build=choose_build(options, steps)
    )
    pack.load(0, pack.begin(recipe))
    loaded = time.perf_counter()
    pack.run_epoch()
    first = time.perf_counter()
    while pack.due_slots:
        pack.run_epoch()
    ended = time.perf_counter()
    rest = (ended - first) / max(recipe.epochs - 1, 1)
    accuracy = 100 * pack.save(0).history[-1].validation_accuracy
    print(f"data and state {loaded - began:.2f} s, first epoch with compiling {first - loaded:.2f} s")
    print(f"each of the other epochs {rest:.4f} s, {recipe.epochs} epochs {recipe.epochs * rest:.2f} s")
    print(f"with compiling {ended - began:.2f} s; validation accuracy {accuracy:.2f} %{noted(options)}")


def search(options: argparse.Namespace) -> None:
    """Random recipes through one pack, pruned by asynchronous successive halving, slots refilled."""
    from trainer.packed.device import PackData
    from trainer.packed.pack import Pack, PackKey

    slots, epochs, network = max(options.slots), options.epochs, TINY if options.on_cpu else {}
    total = options.trials or 8 * slots
    splits = load(options.data, options.train_images, options.validation_images)
    build = choose_build(options, math.ceil(len(splits[0]) / Recipe().batch_size))
    pack = Pack(PackKey.of(Recipe(**network)), slots, PackData.of(*splits), options.precision, build=build)
    # Compiled before the clock starts: once for all trials of an architecture.
    pack.load(0, pack.begin(draw_recipe(0, 1, network)))
    pack.run_epoch()
    pack.save(0)
    pack.free(0)
    halving = Halving(epochs)
    begun = done = pruned = trained = offered = 0
    best = changing = 0.0
    began = time.perf_counter()
    while True:
        turned = time.perf_counter()
        for slot in pack.free_slots:
            if begun < total and time.monotonic() < options.ends:
                pack.load(slot, pack.begin(draw_recipe(begun, epochs, network)))
                begun += 1
        changing += time.perf_counter() - turned
        outcome = pack.run_epoch()
        if not outcome:
            break
        trained, offered = trained + len(outcome), offered + slots
        turned = time.perf_counter()
        for slot, epoch in outcome.items():
            accuracy, number = epoch.result.validation_accuracy, epoch.result.epoch
            best = max(best, accuracy)
            ends_early = not epoch.is_finite or halving.prunes(number, accuracy)
            if ends_early or number == epochs:
                pack.save(slot)
                pack.free(slot)
                done, pruned = done + 1, pruned + ends_early
        changing += time.perf_counter() - turned
    seconds = time.perf_counter() - began
    busy, changing = 100 * trained / offered, 100 * changing / seconds
    print(f"{slots} slots; {done} trials of at most {epochs} epochs, {pruned} of them pruned or diverged")
    print(f"{seconds:.1f} s, {3600 * done / seconds:.0f} trials an hour")
    print(f"{trained} trial-epochs of {seconds / trained:.4f} s")
    print(f"slots busy {busy:.1f} %; {changing:.1f} % of the time went to changing trials")
    print(f"best validation accuracy {100 * best:.2f} %{noted(options)}")


def describe(seconds: float, each: float) -> str:
    """Seconds of an epoch, and of a trial's part of it, and trials of 100 epochs in an hour."""
    return f"{seconds:11.3f}{each:10.4f}{3600 / (100 * each):10.0f}"


def describe_memory() -> str:
    """The most of the device's memory that was in use, where it counts."""
    import jax

    statistics = jax.devices()[0].memory_stats()
    return f"{statistics['peak_bytes_in_use'] / 1e9:.2f} GB" if statistics else ""


def noted(options: argparse.Namespace) -> str:
    """What to say of an accuracy."""
    return " (of noise)" if options.data == "random" else ""


def is_over(options: argparse.Namespace) -> bool:
    """Whether the minutes are over; says so."""
    over = time.monotonic() > options.ends
    if over:
        print(f"{options.minutes:g} minutes are over; the rest was left out")
    return over


PARTS = {
    "lowerings": compare_lowerings,
    "slots": compare_slots,
    "processes": compare_processes,
    "alone": train_alone,
    "search": search,
}

if __name__ == "__main__":
    main()
