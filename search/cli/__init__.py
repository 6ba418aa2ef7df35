"""The command line: the one place that parses arguments, prints and exits.

Everything heavy is imported where it is used: `--help` answers before Optuna alone would have loaded.
"""

import os
import sys
import traceback

import click

from search.cli.baseline import baseline
from search.cli.confirm import confirm
from search.cli.dashboard import dashboard
from search.cli.data import data
from search.cli.evaluate import evaluate
from search.cli.local_fleet import INTERRUPTED
from search.cli.predict import predict
from search.cli.run import run
from search.cli.studies import best, init, plot, status
from search.cli.terminal import complain, hide_passwords, is_debugging
from search.cli.train import train
from search.cli.worker import worker
from search.errors import SearchError, SpaceError
from storage.errors import StorageError, StorageUrlError
from trainer.errors import TrainerError


def main() -> None:
    """Run the command that `sys.argv` names, and exit.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    hide_passwords()
    try:
        sys.exit(commands.main(prog_name="cnn-search", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        complain(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        sys.exit(INTERRUPTED)
    except (SpaceError, StorageUrlError) as error:
        sys.exit(_fail(error, 2))
    except (SearchError, StorageError, TrainerError) as error:
        sys.exit(_fail(error, 1))
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    # The last frame of all: what is left is a fault of ours, or of the machine.
    except Exception as error:  # noqa: BLE001
        from storage.outages import DATABASE_ERRORS, explain

        if isinstance(error, DATABASE_ERRORS):
            sys.exit(_fail(error, 1, f"the database: {explain(error)}"))
        reason = str(error).strip().split("\n")[0]
        sys.exit(_fail(error, 1, f"unexpected {type(error).__name__}: {reason} (--debug shows where)"))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cnn-search")
def commands() -> None:
    """Search hyperparameters of the CIFAR-10 baseline CNN, and fetch the best model.

    Start with `cnn-search run --minutes 10`. Every option NAME can also come from the environment variable
    shown with it; the option wins.
    """


for command in (
    *(data, init, run, worker, status, best, confirm, plot, dashboard),
    *(baseline, evaluate, predict, train),
):
    commands.add_command(command)


def _fail(error: Exception, code: int, message: str = "") -> int:
    if is_debugging():
        traceback.print_exception(error)
    complain(message or str(error))
    return code
