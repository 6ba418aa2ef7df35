"""Which process runs a trial: recorded on it, so that a trial whose process is no more can be taken back."""

import os
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from optuna.trial import FrozenTrial, TrialState

from search.study import OpenStudy

CLAIM_KEY: Final = "worker"
"""Trial user attribute: host, pid and birth of the process that runs it; empty once it is handed back."""
UNCLAIMED_SECONDS: Final = 60.0
"""A running trial without a claim belongs to a process that will claim it, or that died before it could."""


def own_claim() -> dict[str, Any]:
    """This process's claim."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": _birth(os.getpid())}


def reclaim_trials(opened: OpenStudy) -> list[int]:
    """Let the running trials of this host whose process is gone wait for another one.

    They go on from their last checkpoint. Trials of other hosts are left alone: nothing here can tell whether
    their processes live.

    Returns:
        Their numbers.
    """
    with opened.database.exclusive():
        # Read again under the lock: what another process has just reclaimed may already run elsewhere.
        running = opened.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        abandoned = [trial for trial in running if _is_abandoned(trial)]
        for trial in abandoned:
            release_trial(opened, trial._trial_id)
    return [trial.number for trial in abandoned]


def release_trial(opened: OpenStudy, trial_id: int) -> None:
    """Hand an unfinished trial back: it keeps number, parameters and reports, and the next ask takes it."""
    storage = opened.database.storage
    # First the claim: whoever takes the trial next must not be found with a dead process's.
    storage.set_trial_user_attr(trial_id, CLAIM_KEY, {})
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def _is_abandoned(trial: FrozenTrial) -> bool:
    claim = trial.user_attrs.get(CLAIM_KEY)
    if not claim:
        started = trial.datetime_start
        return started is not None and datetime.now() - started > timedelta(seconds=UNCLAIMED_SECONDS)
    if claim["host"] != socket.gethostname():
        return False
    born = _birth(claim["pid"])
    return born is None or born != claim["born"]


def _birth(pid: int) -> str | None:
    """What tells a process from a later one of the same number; None where there is no such process.

    Boot and start time where Linux tells them (proc(5), field 22 of stat), else nothing but that it exists.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        # Another user's, so it exists.
        pass
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The second field is the command in parentheses, which may hold spaces and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended; its parent has not looked yet.
    return None if fields[0] == "Z" else f"{boot}/{fields[19]}"
