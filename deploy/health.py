"""Whether the command of this container does its work: exit code 0, or 1 with the reason on stdout.

    python health.py            for the HEALTHCHECK of an image, and probes

A dashboard is healthy while it answers and reaches its database; a worker while the database holds a lease of
a living process of this container, for then others leave its trial to it. That a database is away makes both
unhealthy, and is no reason to end either: they go on when it is back. Others are healthy while they run.

It loads neither Optuna nor TensorFlow, so that asking twice a minute costs nothing.
"""

import http.client
import itertools
import os
import sys
from pathlib import Path

PORT = 8080
TIMEOUT_SECONDS = 5
# A server that has just started gives everybody 30 s, as `storage.leases` does.
WORKERS = """
SELECT place, pid, born FROM cnn_search_workers WHERE host = %s AND extract(epoch FROM clock_timestamp())
    < greatest(expires, extract(epoch FROM pg_postmaster_start_time()) + 30)
"""


def main() -> int:
    """Print what is wrong, if anything is."""
    problem = {"worker": check_worker, "dashboard": check_dashboard}.get(find_command(), lambda: "")()
    print(problem or "healthy")
    return 1 if problem else 0


def find_command(proc: Path = Path("/proc")) -> str:
    """What `cnn-search` was started to do here; empty where it does not run."""
    for folder in sorted(proc.glob("[0-9]*"), key=lambda folder: int(folder.name)):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            # It ended meanwhile.
            continue
        for word, following in itertools.pairwise(words):
            if word.rpartition("/")[2] == "cnn-search":
                return following
    return ""


def check_dashboard() -> str:
    """Why the dashboard is not healthy; empty where it is."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer on port {PORT}: {error}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"/healthz answers {answer.status}: {body.strip()}"


def check_worker() -> str:
    """Why the worker is not healthy; empty where it is."""
    url = os.environ.get("CNN_SEARCH_STORAGE", "").replace("+psycopg2", "", 1)
    if not url.startswith(("postgresql://", "postgres://")):
        # A database that came with an option, or SQLite, cannot be asked from here; the process runs.
        return ""
    import psycopg2

    from storage.process import is_gone, own_place

    try:
        connection = psycopg2.connect(url, connect_timeout=TIMEOUT_SECONDS, application_name="health")
        with connection, connection.cursor() as cursor:
            cursor.execute(WORKERS, [os.uname().nodename])
            workers = cursor.fetchall()
        connection.close()
    except psycopg2.Error as error:
        return f"the database: {' '.join(str(error).split())}"
    if any(place == own_place() and not is_gone(place, pid, born) for place, pid, born in workers):
        return ""
    return "the database knows no lease of this worker that holds"


if __name__ == "__main__":
    sys.exit(main())
