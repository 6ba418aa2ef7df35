"""What trains the article's CNN in `benchmarks/training.py`, each in a process of its own."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from search.runtime import start_tensorflow

if TYPE_CHECKING:
    import keras

    from trainer.device import DeviceSplit
    from trainer.engine import Engine

BATCH = 64
CONTESTANTS: dict[str, Callable[[int], Callable[[], None]]] = {
    "article: compile + fit, float32": lambda steps: fit_runner(steps),
    "engine, float32": lambda steps: engine_runner("float32", steps),
    "engine, bfloat16": lambda steps: engine_runner("bfloat16", steps),
    "PyTorch, float32": lambda steps: torch_runner("float32", steps),
    "PyTorch, bfloat16": lambda steps: torch_runner("bfloat16", steps),
}
"""By name: what trains so many steps at each call, warmed up or not."""


def serve(name: str, steps: int) -> None:
    """Be that contestant: warm up, say "ready", and for each line read train, and print the seconds."""
    if not name.startswith("PyTorch"):
        start_tensorflow()
    run = CONTESTANTS[name](steps)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        run()
        print(time.perf_counter() - began, flush=True)


def engine_runner(precision: str, steps: int) -> Callable[[], None]:
    """This project's traced program."""
    from trainer.data import load
    from trainer.device import DeviceSplit
    from trainer.pace import MOST_IMAGES
    from trainer.recipe import ARTICLE

    data = load()
    engine = make_engine(precision, DeviceSplit.of(data.train), DeviceSplit.of(data.validation))
    engine.load(engine.begin(ARTICLE))
    # In pieces, as trials are trained.
    steps_per_call = MOST_IMAGES // ARTICLE.batch_size

    def run() -> None:
        sums = None
        for first in range(0, steps, steps_per_call):
            sums = engine.run_steps(1, first, min(first + steps_per_call, steps), sums)
        assert sums is not None
        sums[0].numpy()

    return run


def make_engine(precision: str, train: "DeviceSplit", validation: "DeviceSplit") -> "Engine":
    """The traced program of the article's recipe."""
    from trainer.engine import Engine, Program
    from trainer.network import Network
    from trainer.precision import choose_precision
    from trainer.recipe import ARTICLE

    network = Network(ARTICLE.architecture, choose_precision(precision), validation)
    return Engine(Program.of(ARTICLE), network, train)


def article_model() -> "keras.Model":
    """The article's code: a Sequential model, compiled with SGD and categorical cross-entropy."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters, rate in ((32, 0.3), (64, 0.3), (128, 0.4)):
        model.add(layers.Conv2D(filters, (3, 3), padding="same"))
        model.add(layers.Activation("relu"))
        model.add(layers.MaxPooling2D((2, 2)))
        model.add(layers.Dropout(rate))
    model.add(layers.Flatten())
    model.add(layers.Dense(80))
    model.add(layers.Activation("relu"))
    model.add(layers.Dropout(0.3))
    model.add(layers.Dense(10))
    model.add(layers.Activation("softmax"))
    optimizer = keras.optimizers.SGD(learning_rate=0.01, momentum=0.9, nesterov=False)
    model.compile(optimizer=optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def fit_runner(steps: int) -> Callable[[], None]:
    """The article's `fit` on scaled float32 arrays and one-hot labels."""
    import keras

    from trainer.data import load

    train = load().train.first(steps * BATCH)
    images = train.images.astype("float32") / 255
    labels = keras.utils.to_categorical(train.labels, 10)
    model = article_model()

    def run() -> None:
        model.fit(images, labels, batch_size=BATCH, epochs=1, shuffle=True, verbose=0)

    return run


def torch_runner(precision: str, steps: int) -> Callable[[], None]:
    """The same network in PyTorch, channels last."""
    import torch
    from torch import nn

    from trainer.data import load

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, precision)
    train = load().train
    images = torch.from_numpy(train.images.copy()).to(device)
    labels = torch.from_numpy(train.labels.copy()).long().to(device)
    blocks: list[nn.Module] = []
    channels = 3
    for filters, rate in ((32, 0.3), (64, 0.3), (128, 0.4)):
        blocks += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
        blocks += [nn.MaxPool2d(2), nn.Dropout(rate)]
        channels = filters
    head = [nn.Flatten(), nn.Linear(2048, 80), nn.ReLU(), nn.Dropout(0.3), nn.Linear(80, 10)]
    model = nn.Sequential(*blocks, *head).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    cross_entropy = nn.CrossEntropyLoss()

    def run() -> None:
        order = torch.randperm(len(images), device=device)
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            inputs = images[batch].permute(0, 3, 1, 2).float().div(255)
            optimizer.zero_grad()
            with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
                loss = cross_entropy(model(inputs), labels[batch])
            loss.backward()
            optimizer.step()
        loss.item()

    return run
