"""`cnn-search dashboard`."""

import os
import signal
from pathlib import Path
from typing import Final

import click

from search.cli.local_fleet import INTERRUPTED
from search.cli.options import debug_option, storage_option, study_option
from search.cli.terminal import say
from search.cli.wishes import open_database_of

PASSWORD_VARIABLE: Final = "CNN_SEARCH_DASHBOARD_PASSWORD"
PATIENCE_SECONDS: Final = 5.0
"""How long a page waits for a database that is away."""
EDIT_BYTES: Final = 16 << 20
"""Largest request where edits are allowed: a file that a user adds to a page."""


@click.command()
@storage_option
@study_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="Port; 0 for any that is free.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help=f"Ask visitors for the password in this file. [or: {PASSWORD_VARIABLE}, the password itself]",
)
@click.option("--no-password", is_flag=True, help="Listen beyond this machine without a password.")
@click.option("--allow-edits", is_flag=True, help="Let visitors change notes, delete studies and so on.")
@debug_option
def dashboard(
    storage: str,
    study: str,
    host: str,
    port: int,
    password_file: Path | None,
    no_password: bool,
    allow_edits: bool,
) -> int:
    """Serve optuna-dashboard with the progress toward 77-78 %, models and pictures.

    It shows every study of the database. Beside it there are /best.h5 and /best.json of the study that
    --study names, /healthz, and /metrics for Prometheus.
    """
    password = _read_password(password_file, no_password)
    from search.dashboard.guard import LOOPBACK_NAMES, Access, host_name, is_loopback

    host = host.strip("[]")
    local = is_loopback(host)
    if not local and password is None and not no_password:
        raise click.UsageError(
            f"whoever reaches {host} would see everything: give --password-file or {PASSWORD_VARIABLE}, "
            "or say --no-password"
        )
    stop = _Stop()
    from search.dashboard.app import MOST_BODY_BYTES, build_app, listen, prepare
    from search.dashboard.upkeep import Upkeep

    database = open_database_of(storage, create=False, patience_seconds=PATIENCE_SECONDS)
    hosts = (host_name(host), *LOOPBACK_NAMES) if local and password is None else None
    upkeep = Upkeep(database)
    access = Access(password, allow_edits, hosts)
    app = build_app(database, study, access, upkeep)
    server = listen(app, host, port, EDIT_BYTES if allow_edits else MOST_BODY_BYTES)
    say(f"reading the studies in {database.shown_url}")
    try:
        upkeep.start()
        prepare(app, database, access)
        click.echo(f"{server.url}/dashboard")
        say("read-only; Ctrl-C stops" if not allow_edits else "changes are allowed; Ctrl-C stops")
        if not stop.requested:
            server.run()
    except KeyboardInterrupt:
        # Before the server could hear it.
        pass
    finally:
        upkeep.stop()
    return INTERRUPTED if stop.by_user else 0


class _Stop:
    """Ends the server on SIGTERM as on Ctrl-C, and tells which it was."""

    def __init__(self) -> None:
        self.requested = self.by_user = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # `nohup` ignores one of them, and means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        # An exception can be swallowed where it comes, in a destructor; the flag cannot.
        self.requested, self.by_user = True, number == signal.SIGINT
        raise KeyboardInterrupt


def _read_password(path: Path | None, no_password: bool) -> str | None:
    """The password that visitors have to give; None for none."""
    given = os.environ.get(PASSWORD_VARIABLE)
    if no_password:
        if path is not None:
            raise click.UsageError("--password-file and --no-password contradict each other; leave one out")
        return None
    if path is None:
        if given == "":
            raise click.UsageError(f"{PASSWORD_VARIABLE} is empty; put a password into it, or unset it")
        if given is not None and not given.isprintable():
            raise click.UsageError(f"{PASSWORD_VARIABLE} holds what nobody can type; put plain text into it")
        return given
    try:
        # Editors end a file with a line break, which nobody types.
        password = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise click.UsageError(f"--password-file {path} cannot be read: {reason}") from error
    if not password:
        raise click.UsageError(f"--password-file {path} is empty; put a password into it")
    return password
