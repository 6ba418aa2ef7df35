"""Options that several commands share, and what they stand for."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from search.study import OpenStudy, Wishes
    from storage.database import Database

TRAIN_IMAGES: Final = 40_000
"""`trainer.cifar10.TRAIN_IMAGES`, whose module would make `--help` wait for numpy."""
DEFAULT_STORAGE: Final = "sqlite:///cnn-search.db"
DEFAULT_STUDY: Final = "cifar10"
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
)


def _check_name(name: str) -> str:
    if not name.strip():
        raise click.BadParameter("a study needs a name.")
    return name


def read_wishes(
    space: str | None, max_epochs: int | None, train_samples: int | None, seed: int | None
) -> "Wishes":
    """What the study options ask for."""
    from search.space_file import load_space
    from search.study import Wishes

    return Wishes(None if space is None else load_space(space), max_epochs, train_samples, seed)


def open_existing(storage: str, study: str) -> "OpenStudy":
    """The existing study of that name, open until the command ends."""
    from search.study import open_study

    return open_study(open_database_of(storage, create=False), study)


def open_database_of(storage: str, *, create: bool = True) -> "Database":
    """The database at that URL, open until the command ends."""
    import optuna

    from storage.database import open_database

    # Optuna announces each study in its log's format; the commands do it in their own.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = open_database(storage, create=create)
    click.get_current_context().call_on_close(database.close)
    return database
