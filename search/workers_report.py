"""Who works on a study, what has gone silent, and how long the rest will take, as lines and as JSON."""

from collections.abc import Sequence
from typing import Any

from search.summary import TrialSummary, count_ended
from storage.leases import WorkerStatus


def workers_lines(
    workers: Sequence[WorkerStatus], trials: Sequence[TrialSummary], total: int | None
) -> list[str]:
    """A line for the whole, one for each worker that lives or has left a trial running."""
    alive = [worker for worker in workers if worker.is_alive]
    stale = sum(len(worker.trials) for worker in workers if not worker.is_alive)
    ended = count_ended(trials)
    noun = f"trial{'' if (total or ended) == 1 else 's'}"
    lines = [f"{ended} of {total} {noun} ended" if total else f"{ended} {noun} ended; no total is set"]
    lines[0] += f"; {len(alive) or 'no'} worker{'' if len(alive) == 1 else 's'} alive"
    left = seconds_left(workers, trials, total)
    if left is not None:
        lines[0] += f"; about {describe_seconds(left)} left"
    if stale:
        lines[0] += f"; {stale} stale claim{'' if stale == 1 else 's'}, which any worker takes back"
    for worker in workers:
        if worker.is_alive or worker.trials or worker.elsewhere:
            lines.append(f"  {_describe(worker)}")
    return lines


def workers_json(
    workers: Sequence[WorkerStatus], trials: Sequence[TrialSummary], total: int | None
) -> dict[str, Any]:
    """The same as JSON-ready values; seconds, and null for what is not known."""
    return {
        "total": total,
        "ended": count_ended(trials),
        "seconds_left": seconds_left(workers, trials, total),
        "stale_claims": sum(len(worker.trials) for worker in workers if not worker.is_alive),
        "workers": [
            {
                "host": worker.host,
                "pid": worker.pid,
                "gpu": worker.gpu,
                "alive": worker.is_alive,
                "alive_seconds": round(worker.alive_seconds, 1),
                "lease_left_seconds": round(worker.left_seconds, 1),
                "trials": list(worker.trials),
                "elsewhere": [{"study": name, "trial": number} for name, number in worker.elsewhere],
            }
            for worker in workers
        ],
    }


def seconds_left(
    workers: Sequence[WorkerStatus], trials: Sequence[TrialSummary], total: int | None
) -> float | None:
    """How long the living workers need for the rest, at the mean of those that ended; None if unknown."""
    alive = sum(worker.is_alive for worker in workers)
    known = [trial.seconds for trial in trials if trial.ended is not None and trial.seconds is not None]
    if not alive or total is None or not known:
        return None
    open_seconds = (total - count_ended(trials)) * sum(known) / len(known)
    spent = sum(trial.seconds or 0.0 for trial in trials if trial.ended is None)
    return max(open_seconds - spent, 0.0) / alive


def describe_seconds(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _describe(worker: WorkerStatus) -> str:
    parts = [f"trial {', '.join(map(str, worker.trials))}"] if worker.trials else []
    parts += [f"trial {number} of {name!r}" for name, number in worker.elsewhere]
    runs = ", ".join(parts) or "no trial"
    if worker.host is None:
        return f"a worker that left without handing back: had {runs}"
    place = f"{worker.host}, pid {worker.pid}, {worker.gpu or 'CPU'}"
    if worker.is_alive:
        return f"{place}: for {describe_seconds(worker.alive_seconds)}, runs {runs}"
    why = (
        "its process has ended" if worker.is_gone else f"silent, {-worker.left_seconds:.0f} s past its lease"
    )
    return f"{place}: {why}, had {runs}"
