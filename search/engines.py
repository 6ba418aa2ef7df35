"""Which engine trains a study's trials: one at a time (TensorFlow), or several in a program (JAX)."""

import importlib.util
from dataclasses import dataclass
from typing import Final

from search.errors import EngineError
from search.packing import shares_programs
from search.space import Space
from trainer.state import EngineKind

ENGINES: Final = ("auto", "single", "packed")
JAX_CUDA: Final = ("jax_cuda12_plugin", "jax_cuda13_plugin")
"""Packages that let JAX use NVIDIA's GPUs."""


@dataclass(frozen=True)
class EngineWish:
    """How a worker may train; travels to it.

    Attributes:
        engine: One of `ENGINES`: "auto" is "packed" on a GPU that JAX can use, where the recipes have shapes
            in common, else "single".
        slots: Of a pack, at least 1; None for as many as a measurement finds best.
    """

    engine: str = "auto"
    slots: int | None = None


def choose_engines(wish: EngineWish, space: Space) -> tuple[EngineKind, ...]:
    """The kinds of engine that may train recipes of a space, the best first.

    What follows is for where that one cannot be used.

    Raises:
        EngineError: Packs are wished for, and JAX is not installed.
    """
    has_jax = importlib.util.find_spec("jax") is not None
    match wish.engine:
        case "packed":
            if not has_jax:
                raise EngineError("--engine packed needs JAX (pip install 'cnn-search[jax]')")
            return ("packed",)
        case "auto" if has_jax and shares_programs(space):
            return ("packed", "tensorflow")
    return ("tensorflow",)


def has_jax_cuda() -> bool:
    """Whether the JAX that is installed can use NVIDIA's GPUs."""
    return any(importlib.util.find_spec(name) is not None for name in JAX_CUDA)
