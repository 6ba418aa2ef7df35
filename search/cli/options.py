"""Options that several commands share."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

TRAIN_IMAGES: Final = 40_000
"""`trainer.cifar10.TRAIN_IMAGES`, whose module would make `--help` wait for numpy."""
DEFAULT_STORAGE: Final = "sqlite:///cnn-search.db"
DEFAULT_STUDY: Final = "cifar10"
MOST_SLOTS: Final = 1024
"""Trials in a program."""
LEAST_PERCENT: Final = 10
"""From here on, a number that should be a share is taken for percent: chance alone gives 10 %."""
Function = TypeVar("Function", bound=Callable[..., Any])


def together(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options as one decorator, in the order given."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show a traceback when something fails."
)
storage_option = click.option(
    "--storage",
    metavar="URL",
    envvar="CNN_SEARCH_STORAGE",
    default=DEFAULT_STORAGE,
    show_default=True,
    show_envvar=True,
    help="The study's database.",
)
study_option = click.option(
    "--study",
    metavar="NAME",
    envvar="CNN_SEARCH_STUDY",
    default=DEFAULT_STUDY,
    show_default=True,
    show_envvar=True,
    callback=lambda _, __, name: _check_name(name),
    help="The study's name in it.",
)
data_option = click.option(
    "--data",
    metavar="PATH",
    envvar="CNN_SEARCH_DATA",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="CIFAR-10: a folder to find or keep it in, the official archive, or an .npz. "
    "[default: a per-user cache folder]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
wish_options = together(
    click.option(
        "--space",
        metavar="NAME|FILE.toml",
        help="What to search. [default: the study's; article for a new one]",
    ),
    click.option(
        "--max-epochs",
        type=click.IntRange(1, 10_000),
        help="Cap on a trial's epochs, the article's recipe included. [default: the study's]",
    ),
    click.option(
        "--train-samples",
        type=click.IntRange(1, TRAIN_IMAGES),
        help="Train on the first so many images, for a quick look. [default: the study's; all 40000]",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**31 - 1),
        help="Fixes the recipes drawn and their training. [default: the study's; 0 for a new one]",
    ),
    click.option(
        "--artifacts",
        metavar="URL",
        help="Keep a new study's files in file:///folder or s3://bucket/prefix. [default: the database]",
    ),
)
total_option = click.option(
    "--trials",
    type=click.IntRange(1),
    help="The study's total, over all workers.",
)
target_option = click.option(
    "--target",
    metavar="ACCURACY",
    type=float,
    callback=lambda _, __, target: _check_target(target),
    help="The study's target: all workers stop once a trial has this validation accuracy, such as 0.7737.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of training; auto is bfloat16 where the processor has it. Models are float32.",
)
device_options = together(
    click.option(
        "--device",
        type=click.Choice(["auto", "gpu", "cpu"]),
        envvar="CNN_SEARCH_DEVICE",
        default="auto",
        show_default=True,
        show_envvar=True,
        help="Train on a GPU that no other worker has; auto takes the CPU where the machine has none.",
    ),
    click.option(
        "--allow-cpu",
        is_flag=True,
        envvar="CNN_SEARCH_ALLOW_CPU",
        show_envvar=True,
        help="Train on the CPU instead of failing where no GPU is free or it does not work.",
    ),
    click.option(
        "--workers-per-gpu",
        type=click.IntRange(1, 100),
        envvar="CNN_SEARCH_WORKERS_PER_GPU",
        default=1,
        show_default=True,
        show_envvar=True,
        help="How many workers may share a GPU.",
    ),
    click.option(
        "--locks",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="CNN_SEARCH_LOCKS",
        show_envvar=True,
        help="Where workers claim GPUs, the same for all of a machine. [default: /tmp/cnn-search-gpus]",
    ),
)
engine_options = together(
    click.option(
        "--engine",
        type=click.Choice(["auto", "single", "packed"]),
        envvar="CNN_SEARCH_ENGINE",
        default="auto",
        show_default=True,
        show_envvar=True,
        help="Train a trial at a time, or several in one program (JAX). auto: several on a GPU, if "
        "the space has few shapes of network and batch.",
    ),
    click.option(
        "--slots",
        metavar="G|auto",
        envvar="CNN_SEARCH_SLOTS",
        default="auto",
        show_default=True,
        show_envvar=True,
        callback=lambda _, __, slots: _read_slots(slots),
        help="Trials in a program; auto measures at the start.",
    ),
)
fleet_options = together(
    click.option(
        "--minutes",
        type=float,
        callback=lambda _, __, minutes: _check_minutes(minutes),
        help="Stop after so many minutes, at the end of an epoch; running trials are kept to go on later.",
    ),
    precision_option,
    click.option(
        "--lease",
        metavar="SECONDS",
        type=click.FloatRange(1, 86_400),
        default=60.0,
        show_default=True,
        help="A worker that is silent for so long loses its trial to another.",
    ),
    click.option(
        "--checkpoint-seconds",
        type=click.FloatRange(0, 86_400),
        default=60.0,
        show_default=True,
        help="Store a running trial's state so often, at the end of an epoch.",
    ),
    click.option(
        "--checkpoint-epochs", type=click.IntRange(1), help="And after so many epochs. [default: time alone]"
    ),
    device_options,
    engine_options,
)
work_options = together(
    total_option,
    target_option,
    fleet_options,
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes that train. [default: one for each core, up to 8; or for each free place on GPUs]",
)


def _check_minutes(minutes: float | None) -> float | None:
    # NaN passes every range.
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise click.BadParameter(f"{minutes} is not a number of minutes above 0.")
    return minutes


def _check_target(target: float | None) -> float | None:
    if target is None or 0 < target < 1:
        return target
    instead = f"; write {target / 100:.10g}" if LEAST_PERCENT <= target < 100 else ", such as 0.7737"
    raise click.BadParameter(f"{target} is no validation accuracy between 0 and 1{instead}.")


def _read_slots(text: str) -> int | None:
    """A number of slots; None for auto."""
    if text == "auto":
        return None
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_SLOTS))
    if not (is_number and 1 <= int(text) <= MOST_SLOTS):
        raise click.BadParameter(f"{text!r} is neither 'auto' nor a whole number from 1 to {MOST_SLOTS}.")
    return int(text)


def _check_name(name: str) -> str:
    if not name.strip():
        raise click.BadParameter("a study needs a name.")
    return name
