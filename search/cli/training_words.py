"""What `cnn-search train` says of a training: how it begins, how it ended, and the command that goes on."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from search.cli.local_fleet import INTERRUPTED
from search.cli.terminal import counted, format_options, program_name, say
from search.output import show_name

if TYPE_CHECKING:
    from trainer.continuation import Continuation
    from trainer.record import TrainingRecord

LEAST_RATE: Final = 1e-8
"""The lowest learning rate that can be asked for."""
KEPT: Final = ("data", "device", "allow_cpu", "workers_per_gpu", "locks")
"""Options on which a training depends and that no file tells."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        asked: Epochs that were to be trained.
        done: Epochs that were, and are kept.
        diverged: The epoch that left the numbers, if one did.
        interrupted: Whether somebody stopped it.
    """

    asked: int
    done: int
    diverged: int | None
    interrupted: bool

    @property
    def reason(self) -> str:
        """Why it ended too early."""
        if self.diverged is None:
            return "interrupted"
        return f"epoch {self.diverged} diverged (a loss or weight is no number)"

    @property
    def exit_code(self) -> int:
        """The command's."""
        if self.interrupted:
            return INTERRUPTED
        return 0 if self.diverged is None else 1


def default_output(model: Path) -> Path:
    """Where the model goes on unless told otherwise: beside the one that it was."""
    return model.with_name(f"{model.stem}-continued.h5")


def announce(
    opened: "Continuation",
    record: "TrainingRecord | None",
    model: Path,
    epochs: int,
    options: dict[str, Any],
) -> None:
    """Say what will be trained, and what of it is not as if it had not stopped."""
    stretched = _describe_stretch(opened, epochs)
    say(f"{show_name(model)}: {_describe_start(record)}; training {epochs} more{stretched}")
    for line in _describe_assumptions(record, options):
        say(f"  {line}")


def _describe_start(record: "TrainingRecord | None") -> str:
    """What the file has had, in a few words."""
    from trainer.record import RecipePlan

    if record is None:
        return "its training is not recorded"
    if isinstance(record.plan, RecipePlan):
        recipe = record.plan.recipe
        schedule = "" if recipe.schedule == "constant" else f" with schedule {recipe.schedule}"
        return (
            f"{counted(len(record.history), 'epoch')} so far by {recipe.optimizer} at learning rate "
            f"{recipe.learning_rate:g}{schedule}, in {record.plan.precision}"
        )
    return f"{counted(len(record.history), 'epoch')} since it came from elsewhere"


def _describe_stretch(opened: "Continuation", epochs: int) -> str:
    """What so many more epochs do to a schedule, if they do anything."""
    stretch = opened.stretch(epochs)
    if stretch is None:
        return ""
    last = "" if stretch.last_rate is None else f"; the last one's was {stretch.last_rate:.3g}"
    return (
        f", for which the schedule is stretched from {stretch.before} to {stretch.after} epochs: "
        f"the next one's learning rate is {stretch.next_rate:.3g}{last}"
    )


def _describe_assumptions(record: "TrainingRecord | None", options: dict[str, Any]) -> list[str]:
    """What is not as if the training had not stopped."""
    from trainer.continuation import ASSUMED

    names = {"learning_rate": "learning rate", "batch_size": "batch size", "seed": "seed"}
    names |= {"train_samples": "training images", "threads": "threads"}
    given = {name: f"{names[name]} {options[name]}" for name in names if options[name] is not None}
    if record is not None:
        if not given:
            return []
        told = ", ".join(given.values())
        return [f"with {told} as asked for: not exactly the training that stopped, if that differs"]
    size = ASSUMED.batch_size if options["batch_size"] is None else options["batch_size"]
    seed = ASSUMED.seed if options["seed"] is None else options["seed"]
    lines = [
        f"assumed: batches of {size}, seed {seed}; epochs are counted from here; "
        "its own optimizer, state and loss go on"
    ]
    others = [words for name, words in given.items() if name not in ("batch_size", "seed")]
    return [*lines, f"with {', '.join(others)} as asked for"] if others else lines


def describe_end(outcome: Outcome, opened: "Continuation", target: Path, was_named: bool) -> str:
    """Why a training ended too early, and the command that goes on."""
    rate = None if outcome.diverged is None or opened.rate is None else max(opened.rate / 10, LEAST_RATE)
    if not outcome.done:
        lower = "" if rate is None else f"; try a lower rate, such as --learning-rate {rate:g}"
        return f"{outcome.reason}; no epoch is full, so nothing was written{lower}"
    left = outcome.asked - outcome.done
    told = f"{outcome.reason} after {outcome.done} of {outcome.asked} epochs, which {show_name(target)} has"
    return f"{told}; {_format_command(target, left, was_named, rate)} goes on" if left else told


def _format_command(target: Path, epochs: int, was_named: bool, rate: float | None) -> str:
    """The command, to type, that trains what is in `target` for so many more epochs.

    Args:
        target: What was written.
        epochs: How many.
        was_named: Whether the user chose the name, which then is where the whole training belongs.
        rate: Another learning rate, if there is to be one.
    """
    context = click.get_current_context()
    given = {
        name: context.params[name]
        for name in KEPT
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    flags = " --allow-cpu" if given.pop("allow_cpu", False) else ""
    output = show_name(target) if was_named or default_output(target).exists() else None
    learning_rate = None if rate is None else f"{rate:g}"
    options = {"--epochs": epochs, "--output": output, "--learning-rate": learning_rate}
    options |= {f"--{name.replace('_', '-')}": value for name, value in given.items()}
    # A name that begins with a hyphen would be taken for an option.
    name = f"./{show_name(target)}" if str(target).startswith("-") else show_name(target)
    return f"{program_name()} train {shlex.quote(name)}{format_options(options)}{flags}"
