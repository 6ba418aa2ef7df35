"""JAX without optimisation: it compiles in half the time, and tests hardly compute."""

import functools
from collections.abc import Iterator

import pytest

jax = pytest.importorskip("jax")


@pytest.fixture(autouse=True, scope="module")
def compile_quickly() -> Iterator[None]:
    """For all tests of a module that imports this."""
    with pytest.MonkeyPatch.context() as patch:
        options = {"xla_backend_optimization_level": 0}
        patch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=options))
        yield
