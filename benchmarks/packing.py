"""What `benchmarks/packed.py` measures: data, packs, other processes, and a search's pruning."""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.cifar10 import Split
from trainer.recipe import OPTIMIZERS, Recipe

if TYPE_CHECKING:
    from trainer.packed.device import PackData
    from trainer.packed.pack import Pack
    from trainer.packed.shape import Build

TINY: dict[str, Any] = {"width": 0.25, "blocks": 2, "dense_units": 16}
"""The network that a CPU trains."""
ARRAYS = ("x_train", "y_train")
ENDLESS = 10_000
"""Epochs: more than any part trains."""


def load(source: str, train_images: int, validation_images: int) -> tuple[Split, Split]:
    """So many images to train and to validate on, the last ones, or as many as there are.

    Args:
        source: "random" for noise; a .npz, or a folder of .npy, with x_train and y_train.
        train_images: How many are wished.
        validation_images: How many are wished; at most a fifth of what there is.
    """
    if source == "random":
        draws, wanted = np.random.default_rng(0), train_images + validation_images
        images = draws.integers(0, 256, (wanted, 32, 32, 3), np.uint8)
        labels = draws.integers(0, 10, wanted, np.uint8)
    else:
        path = Path(source)
        arrays = np.load(path) if path.is_file() else {name: np.load(path / f"{name}.npy") for name in ARRAYS}
        images, labels = (np.ascontiguousarray(arrays[name]) for name in ARRAYS)
        validation_images = min(validation_images, len(labels) // 5)
    labels = labels.reshape(-1).astype(np.uint8)
    last = len(labels) - validation_images
    first = min(train_images, last)
    return Split(images[:first], labels[:first]), Split(images[last:], labels[last:])


def choose_build(options: argparse.Namespace, steps: int) -> "Build":
    """As this device has it, but for what the options say."""
    import dataclasses

    from trainer.packed.shape import choose_build

    build = choose_build(steps)
    given = {"lowering": options.lowering, "products": options.products}
    return dataclasses.replace(build, **{name: value for name, value in given.items() if value})


def make_pack(
    options: argparse.Namespace, slots: int, data: "PackData", build: "Build | None" = None
) -> "Pack":
    """A full pack of recipes that differ in numbers and optimizers, compiled."""
    from trainer.packed.pack import Pack, PackKey

    network = TINY if options.on_cpu else {}
    key = PackKey.of(Recipe(**network))
    steps = -(-len(data.train.labels) // key.batch_size)
    build = choose_build(options, steps) if build is None else build
    pack = Pack(key, slots, data, options.precision, build=build)
    for slot in range(slots):
        # Momentum first, as in the article.
        optimizer = OPTIMIZERS[(slot + 1) % len(OPTIMIZERS)]
        rate = 0.001 if optimizer in ("adam", "rmsprop") else 0.01
        recipe = Recipe(learning_rate=rate, optimizer=optimizer, epochs=ENDLESS, seed=slot, **network)
        pack.load(slot, pack.begin(recipe))
    pack.run_epoch()
    return pack


def time_epochs(pack: "Pack", rounds: int) -> float:
    """Seconds of an epoch of all slots, the median."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        pack.run_epoch()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def keeps_apart(pack: "Pack") -> bool:
    """Whether a slot whose weights are NaN leaves the others their numbers."""
    import dataclasses

    state = pack.save(0)
    pack.free(0)
    broken = tuple(np.full_like(array, np.nan) for array in state.weights)
    pack.load(0, dataclasses.replace(state, weights=broken))
    outcome = pack.run_epoch()
    return not outcome[0].is_finite and all(outcome[slot].is_finite for slot in outcome if slot)


def draw_recipe(number: int, epochs: int, network: dict[str, Any]) -> Recipe:
    """A random recipe, as the space `article` has them; always the same of that number."""
    draws = random.Random(number)
    optimizer = draws.choice(OPTIMIZERS)
    low, high = (1e-4, 1e-2) if optimizer in ("adam", "rmsprop") else (1e-3, 1e-1)
    rate = low * (high / low) ** draws.random()
    dropout = (draws.uniform(0, 0.6) for _ in range(4))
    return Recipe(*dropout, rate, optimizer, epochs, seed=number, **network)


class Halving:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934): the best third goes on."""

    def __init__(self, epochs: int, factor: int = 3) -> None:
        """For trials of so many epochs; the first look is after a 27th of them."""
        self._factor = factor
        self._rungs = {max(epochs // factor**power, 1) for power in (1, 2, 3)} - {epochs}
        self._values: dict[int, list[float]] = defaultdict(list)

    def prunes(self, epoch: int, value: float) -> bool:
        """Whether a trial with that accuracy after that epoch ends."""
        if epoch not in self._rungs:
            return False
        values = self._values[epoch]
        values.append(value)
        best = sorted(values, reverse=True)[: max(len(values) // self._factor, 1)]
        return value < best[-1]


def serve(options: argparse.Namespace) -> None:
    """Be a process beside others: warm up, say "ready", and train an epoch for each line read."""
    run = SERVED[options.serve](options)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        run()
        print("done", flush=True)


def _serve_pack(options: argparse.Namespace) -> Any:
    from trainer.packed.device import PackData

    splits = load(options.data, options.train_images, options.validation_images)
    pack = make_pack(options, 1, PackData.of(*splits))
    return pack.run_epoch


def _serve_fit(options: argparse.Namespace) -> Any:
    """The article's code on Keras's JAX backend: float32 arrays, one-hot labels, validated each epoch."""
    import keras
    from contestants import article_model

    splits = load(options.data, options.train_images, options.validation_images)
    (images, labels), validation = (
        (split.images.astype("float32") / 255, keras.utils.to_categorical(split.labels, 10))
        for split in splits
    )
    model = article_model()
    return lambda: model.fit(images, labels, batch_size=64, epochs=1, validation_data=validation, verbose=0)


SERVED = {"pack": _serve_pack, "fit": _serve_fit}


def start(options: argparse.Namespace, kind: str, count: int) -> "list[subprocess.Popen[str]]":
    """So many processes that are `kind`, warmed up one after the other; none if one cannot begin."""
    command = [sys.executable, str(Path(__file__).with_name("packed.py")), "--serve", kind]
    for name in ("data", "train_images", "validation_images", "precision", "products", "lowering"):
        if getattr(options, name) is not None:
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    processes: list[subprocess.Popen[str]] = []
    for _ in range(count):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        processes.append(subprocess.Popen(command, **pipes, text=True, env=environment))
        if processes[-1].stdout.readline() != "ready\n":
            end(processes)
            return []
    return processes


def time_processes(processes: "Sequence[subprocess.Popen[str]]", rounds: int) -> float:
    """Seconds of an epoch in each of them at the same time, the median."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            if not process.stdout.readline():
                raise SystemExit(f"{process.args}: ended in the middle")
        seconds.append(time.perf_counter() - began)
    end(processes)
    return statistics.median(seconds)


def end(processes: "Sequence[subprocess.Popen[str]]") -> None:
    """Let them end by themselves."""
    for process in processes:
        process.communicate()
