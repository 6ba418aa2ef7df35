"""search.engines: a trial at a time or several in a program, by what is wished for and what is installed."""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from search.engines import JAX_CUDA, EngineWish, choose_engines, has_jax_cuda
from search.errors import EngineError
from search.named_spaces import NAMED


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these packages be all that is installed, of those that are asked for here."""

    def let(*names: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in names else None)

    return let


Installed = Callable[..., None]


@pytest.mark.parametrize(
    ("engine", "space", "packages", "engines"),
    [
        ("auto", "article", ["jax"], ("packed", "tensorflow")),
        ("auto", "augmented", ["jax"], ("packed", "tensorflow")),
        ("auto", "article", [], ("tensorflow",)),
        # Each of their recipes may need a program of its own.
        ("auto", "schedules", ["jax"], ("tensorflow",)),
        ("auto", "architecture", ["jax"], ("tensorflow",)),
        ("auto", "everything", ["jax"], ("tensorflow",)),
        ("single", "article", ["jax"], ("tensorflow",)),
        ("packed", "article", ["jax"], ("packed",)),
        ("packed", "everything", ["jax"], ("packed",)),
    ],
)
def test_an_engine_follows_wish_space_and_packages(
    installed: Installed, engine: str, space: str, packages: list[str], engines: Any
) -> None:
    """Who asks for packs gets them, whatever the space; else they need JAX, and shapes in common."""
    installed(*packages)
    assert choose_engines(EngineWish(engine), NAMED[space]) == engines


def test_packs_without_jax_are_an_error_where_they_are_asked_for(installed: Installed) -> None:
    """With what to install."""
    installed()
    with pytest.raises(EngineError) as refused:
        choose_engines(EngineWish("packed", 8), NAMED["article"])
    assert str(refused.value) == "--engine packed needs JAX (pip install 'cnn-search[jax]')"


@pytest.mark.parametrize("package", JAX_CUDA)
def test_jax_has_cuda_by_a_plugin(installed: Installed, package: str) -> None:
    """A package beside it; without one it trains on the CPU alone."""
    installed("jax")
    assert not has_jax_cuda()
    installed("jax", package)
    assert has_jax_cuda()
