"""Which package may look where, and what no module does but the command line."""

import ast
import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search", "storage", "trainer")
FILES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
CLI = Path("search/cli")
PACKED = Path("trainer/packed")
"""What uses the extra `jax`."""
JAX = {"jax", "jaxlib"}
PACKED_SEARCH = {"search.pack_plan", "search.packed_runner"}
"""What of the service needs it: imported where packs are to train, and nowhere else."""

FORBIDDEN = {
    "trainer": {"optuna", "sqlalchemy", "search", "storage", "click"},
    "storage": {"keras", "tensorflow", "search", "trainer", "click"},
    "search": {"click"},
}
"""What a package never imports; `search/cli/` is the one place for click."""

EDGE = {
    "print",
    "input",
    "click.echo",
    "sys.exit",
    "sys.argv",
    "os.environ",
    "os.environb",
    "os.getenv",
    "os.putenv",
    "os._exit",
    "exit",
    "quit",
    "logging.basicConfig",
}
"""What only the command line may touch."""

EXCEPTIONS = {
    # TensorFlow and Keras read their settings from the environment, and nowhere else.
    (Path("search/runtime.py"), "os.environ"),
    # A program that fetches the data gets our environment, with the user's proxies in it.
    (Path("trainer/download.py"), "os.environ"),
}


def tree_of(path: Path) -> ast.Module:
    """A module's syntax."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def imports_of(tree: ast.Module) -> Iterator[str]:
    """The top-level package of each import, wherever in the module it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports here name their package in full"
            yield str(node.module).split(".")[0]


def names_of(tree: ast.Module) -> Iterator[str]:
    """Each name and dotted name that a module uses, calls included, as it is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_there_are_modules_to_check() -> None:
    """An empty list would pass everything below."""
    assert {path.parts[0] for path in FILES} == set(PACKAGES)
    assert CLI / "__init__.py" in FILES
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=str)
def test_packages_look_only_where_they_may(path: Path) -> None:
    """`trainer` knows no study, `storage` no model, and neither the other nor `search`."""
    forbidden = set() if path.parent == CLI else FORBIDDEN[path.parts[0]]

    assert set(imports_of(tree_of(path))) & forbidden == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != CLI], ids=str)
def test_only_the_command_line_prints_exits_and_reads_the_environment(path: Path) -> None:
    """Each exception to it is named here, with its reason, and still needed."""
    allowed = {name for file, name in EXCEPTIONS if file == path}

    assert set(names_of(tree_of(path))) & EDGE == allowed


@pytest.mark.parametrize("name", ["print", "os.environ", "sys.exit"])
def test_the_check_sees_what_it_looks_for(name: str) -> None:
    """In a call, in an expression, and imported from its module."""
    written = [f"def f():\n    return {name}('x')", f"x = [{name}]"]
    if "." in name:
        module, attribute = name.split(".")
        written.append(f"from {module} import {attribute}")
    assert all(name in set(names_of(ast.parse(text))) for text in written)


def test_no_module_does_anything_at_import(python: Callable[[str], str]) -> None:
    """No logging set-up, no signal handler, no thread or process, no change of environment or folder."""
    has_jax = importlib.util.find_spec("jax") is not None
    modules = [module_of(path) for path in FILES]
    light = [one for one in modules if not needs_tensorflow(one) and (has_jax or not needs(one, JAX))]
    script = f"""
import importlib, logging, os, signal, sys, threading, warnings

def snapshot():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    root = logging.getLogger()
    log = (list(root.handlers), root.level)
    return dict(os.environ), os.getcwd(), handlers, threading.active_count(), log

# What other packages do is theirs: scikit-learn and JAX, where they are installed, change the environment.
try:
    import jax
except ImportError:
    pass
import click, filelock, numpy, optuna, optuna_dashboard, PIL.Image, platformdirs, rich.live
import plotly.graph_objects, sqlalchemy.orm
before = snapshot()
optuna_before = (optuna.logging.get_verbosity(), list(logging.getLogger("optuna").handlers))
for module in {light!r}:
    importlib.import_module(module)
    assert snapshot() == before, module
    loggers = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in {PACKAGES!r}]
    assert not any(logging.getLogger(name).handlers for name in loggers), module
assert optuna_before == (optuna.logging.get_verbosity(), list(logging.getLogger("optuna").handlers))
assert "tensorflow" not in sys.modules
print(len({light!r}))
"""
    assert int(python(script)) >= 20


def module_of(path: Path) -> str:
    """The name that a file is imported by."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def needs_tensorflow(module: str) -> bool:
    """Whether importing a module of ours imports TensorFlow or Keras."""
    return needs(module, {"tensorflow", "keras"})


def needs(module: str, packages: set[str]) -> bool:
    """Whether importing a module of ours imports one of these packages, itself or through others of ours."""
    seen: set[str] = set()
    left = [module]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        imported = imported_at_once(one)
        if any(name.split(".")[0] in packages for name in imported):
            return True
        left += [name for name in imported if name.split(".")[0] in PACKAGES]
    return False


@functools.cache
def imported_at_once(module: str) -> tuple[str, ...]:
    """What importing a module of ours names in its own import statements; none where it is no module."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists():
        return ()
    names: list[str] = []
    for node in tree_of(path.relative_to(ROOT)).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def test_only_training_needs_tensorflow() -> None:
    """All that a command does before it trains or scores is quick to start."""
    for name in ("cli", "study", "strategy", "assignment", "fleet", "summary", "progress", "report", "views"):
        assert not needs_tensorflow(f"search.{name}")
    for path in FILES:
        if path.parts[0] == "storage":
            assert not needs_tensorflow(module_of(path))
    assert needs_tensorflow("search.worker")
    assert needs_tensorflow("trainer.training")


def test_packs_alone_need_jax_and_nothing_of_keras() -> None:
    """They train where TensorFlow is not installed, and all else works where JAX is not."""
    users = {path for path in FILES if JAX & set(imports_of(tree_of(path)))}
    assert users
    assert {path.parent for path in users} == {PACKED}
    for path in FILES:
        module = module_of(path)
        if path.parent == PACKED:
            assert not needs_tensorflow(module)
        else:
            assert needs(module, JAX) == (module in PACKED_SEARCH), module


def test_a_worker_starts_before_it_knows_what_trains() -> None:
    """Its device, its engine and its runner are chosen before TensorFlow and JAX start."""
    for name in ("assignment", "device", "engines", "gpu_probe", "packing", "runners", "runtime"):
        assert not needs(f"search.{name}", {"tensorflow", "keras", *JAX})
