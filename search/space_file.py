"""Spaces by name or from a TOML file that changes a named one."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from search.conditions import CONDITIONS
from search.errors import SpaceError
from search.named_spaces import NAMED
from search.ranges import CHOICES, SEARCHABLE, Choices, NumberRange, Range, did_you_mean, fixed_range
from search.space import Space
from trainer.architecture import MAX_PARAMETERS

NUMBER_KEYS: Final = ("low", "high", "log", "fixed")
"""What the table of a number may say."""
CHOICE_KEYS: Final = ("choices", "fixed")
"""What the table of a field of names may say."""

OF_NETWORKS: Final = (
    "width",
    "blocks",
    "convolutions",
    "batch_normalization",
    "residual",
    "head",
    "dense_units",
)
"""The fields that make a network larger or smaller."""

_POSITION: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def load_space(name_or_path: str) -> Space:
    """The space that `--space NAME|FILE.toml` asks for; a name goes before a file of the same name.

    A file says what differs from `base`, a named space, `article` if it names none: a table for a field with
    `low`, `high` and `log`, each the base's where it is missing; or with `choices`; or with `fixed`, a value
    to hold. A field that the base does not search needs both `low` and `high`.

    Raises:
        SpaceError: There is no such space; the file cannot be read; or it says what a space cannot be, with
            its line.
    """
    if name_or_path in NAMED:
        return NAMED[name_or_path]
    if not name_or_path.endswith(".toml") and not os.path.exists(name_or_path):
        raise SpaceError(
            f"unknown space {name_or_path!r}; known are {', '.join(NAMED)},"
            f" and a file must end in .toml or exist{did_you_mean(name_or_path, NAMED)}"
        )
    path = Path(name_or_path)
    return _space(path, _text(path))


def _text(path: Path) -> str:
    try:
        # Windows editors begin a UTF-8 file with a mark that TOML does not allow.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        byte = exc.object[exc.start]
        raise SpaceError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from exc
    except OSError as exc:
        raise SpaceError(
            f"cannot read the space file {path}: {exc.strerror or exc};"
            f" give a TOML file or one of {', '.join(NAMED)}"
        ) from exc


def _space(path: Path, text: str) -> Space:
    """The space that `text` describes; `path` gives it its name and the errors their place."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        position = _POSITION.search(str(exc))
        line = int(position[1]) if position and position[1] else _line_of(text, ())
        raise SpaceError(f"{path}:{line}: not TOML: {_POSITION.sub('', str(exc))}") from exc

    where: tuple[str, ...] = ("base",)
    try:
        base = _base(document.pop("base", "article"))
        ranges = {range_.field: range_ for range_ in base.ranges}
        for field, table in document.items():
            where = (field,)
            ranges[field] = _changed(field, table, ranges.get(field), f"set in {path.name}")
        space = Space(path.name, tuple(ranges.values()))
        for field in document:
            where = (field,)
            _check_effect(field, space)
        where = next(((field,) for field in document if field in OF_NETWORKS), where)
        _check_size(space)
        return space
    except SpaceError as exc:
        table = document.get(where[0])
        if exc.key and isinstance(table, dict):
            # Where the key is the base's, it is something that the file does say which makes it wrong.
            where = (*where, exc.key if exc.key in table else next(iter(table)))
        raise SpaceError(f"{path}:{_line_of(text, where)}: {exc}", key=exc.key) from exc


def _base(name: object) -> Space:
    if not isinstance(name, str) or name not in NAMED:
        raise SpaceError(
            f"base must be one of {', '.join(NAMED)}, got {name!r}{did_you_mean(name, NAMED)}", key="base"
        )
    return NAMED[name]


def _changed(field: str, table: Any, old: Range | None, reason: str) -> Range:
    """The range that `table` makes of `old`, which is None where the base does not search the field."""
    if field not in SEARCHABLE:
        if field == "seed":
            raise SpaceError("a seed is not searched; `cnn-search run --seed` sets the study's")
        hint = did_you_mean(field, ("base", *SEARCHABLE))
        known = f"; known are base, {', '.join(SEARCHABLE)}"
        raise SpaceError(f"unknown key {field!r}{hint or known}")
    keys = CHOICE_KEYS if field in CHOICES else NUMBER_KEYS
    if not isinstance(table, dict) or not table:
        raise SpaceError(f"{field} must be a table with {' or '.join(keys)}, got {table!r}")
    for key in table:
        if key not in keys:
            raise SpaceError(
                f"{field} has no {key!r}; its keys are {', '.join(keys)}{did_you_mean(key, keys)}", key=key
            )
    if "fixed" in table:
        if len(table) > 1:
            others = ", ".join(key for key in table if key != "fixed")
            raise SpaceError(f"{field}: fixed stands alone, but {others} is given too; keep one", key="fixed")
        return fixed_range(field, table["fixed"], reason)
    if field in CHOICES:
        return Choices(field, table["choices"], reason)
    if isinstance(old, NumberRange):
        table = {"low": old.low, "high": old.high, "log": old.log, **table}
    elif "low" not in table or "high" not in table:
        raise SpaceError(f"{field} is not searched by the base; give both low and high, or fixed")
    return NumberRange(field, reason=reason, **table)


def _check_effect(field: str, space: Space) -> None:
    """Refuse what the file says of a field that means nothing in any of the space's recipes."""
    if space.means_something(field):
        return
    condition = CONDITIONS[field]
    raise SpaceError(
        f"{field} means something only {condition}, but {condition.field} is"
        f" {space.range_of(condition.field)}; widen {condition.field}, or leave {field} out"
    )


def _check_size(space: Space) -> None:
    """Refuse a space with networks that no recipe may have: a trial that drew one would be lost."""
    parameters = space.count_largest_network()
    if parameters > MAX_PARAMETERS:
        raise SpaceError(
            f"the largest network has {parameters:,} parameters, above the bound of {MAX_PARAMETERS:,};"
            f" lower the high of {', '.join(OF_NETWORKS[:3])} or dense_units"
        )


def _line_of(text: str, path: tuple[str, ...]) -> int:
    """The line, from 1, where the statement begins that gives `path`, such as `("epochs", "low")`.

    `tomllib` tells no lines. But the first lines of a document are a document exactly where no statement is
    left open, so the statement sought is the one whose last line makes `path` appear; this holds for dotted
    keys, inline tables and arrays over several lines. An empty path asks for the statement that never ends.
    """
    lines = text.split("\n")
    first_line = 1
    for last_line in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("\n".join(lines[:last_line]))
        except (ValueError, RecursionError):
            continue
        if path and _has(document, path):
            break
        first_line = last_line + 1
    return min(first_line, len(lines))


def _has(document: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True
