"""What commands print: results to stdout, everything else to stderr."""

import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from search.cli.options import DEFAULT_STORAGE, DEFAULT_STUDY

PASSWORD: Final = re.compile(r"(?<=://)([^/@:]*:).*(?=@)|(?<=[?&])((?:ssl)?password=)[^&]*")
"""A URL's password, before its host or among its parameters."""
DEFAULTS: Final = {"--storage": DEFAULT_STORAGE, "--study": DEFAULT_STUDY, "--output": Path(".")}

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def show(*parts: "RenderableType") -> None:
    """Print results."""
    console = make_console(stderr=False)
    for part in parts:
        if isinstance(part, str):
            # Names and paths in brackets are no markup, and lines to copy from stay whole.
            click.echo(part)
        else:
            console.print(part, highlight=False)


def counted(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def say(message: str) -> None:
    """Print what is no result."""
    click.echo(message, err=True)


def complain(message: str) -> None:
    """Print what went wrong; what it quotes from the command line may hold a password."""
    for argument in sys.argv:
        message = message.replace(argument, mask_passwords(argument))
    click.echo(f"cnn-search: {message}", err=True)


def make_console(*, stderr: bool) -> "Console":
    """A console on stdout or stderr, as it is now."""
    from rich.console import Console

    return Console(stderr=stderr)


def program_name() -> str:
    """The command as the user can type it here: its name where it is on the path, else its file."""
    name = Path(sys.argv[0])
    if shutil.which(name.name) == str(name):
        return name.name
    return os.path.relpath(name) if name.is_absolute() and Path.cwd() in name.parents else str(name)


def format_options(given: Mapping[str, object]) -> str:
    """Options to type, a space before each: those unlike their defaults, and never a password."""
    from storage.url import parse_url, show_url

    parts = []
    for key, value in given.items():
        if value is None or value == DEFAULTS.get(key):
            continue
        if key == "--storage" and value == os.environ.get("CNN_SEARCH_STORAGE"):
            continue
        text = str(value)
        if key == "--storage":
            # A masked password would be taken for one; without any, the server's error says what is missing.
            text = show_url(parse_url(text)).replace(":***@", "@")
        parts.append(f" {key} {shlex.quote(text)}")
    return "".join(parts)


def mask_passwords(argument: str) -> str:
    """An argument of the command line without the password of the URL in it."""
    return PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", argument)


def hide_passwords() -> None:
    """Take passwords in URLs out of the command line that others see in lists of processes."""
    from setproctitle import setproctitle

    shown = [mask_passwords(argument) for argument in sys.argv]
    if shown != sys.argv:
        setproctitle(shlex.join(shown))


def is_debugging() -> bool:
    """Whether tracebacks are wanted."""
    # Asked for when there is no click context any more.
    return "--debug" in sys.argv


def end_process(code: int) -> NoReturn:
    """End this process, once it has stored and told all, with exit code `code`.

    Python's own end takes apart what TensorFlow made. That is seconds on a busy machine, and no thread may
    run in them: nothing would end a worker that was told to stop ten seconds ago.
    """
    for stream in (sys.stdout, sys.stderr):
        # Whoever read it may be gone.
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)
