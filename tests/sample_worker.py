"""A worker process on the sample: `python sample_worker.py URL LOG [name=value ...]`.

What `cnn-search worker` does once it has read its options, with the sample for CIFAR-10. Each event is a line
of JSON in LOG, written at once, so that a killed worker's are there too.
"""

import json
import os
import signal
import sys
import time
from typing import Any

import sample

from search.assignment import Assignment, carry_out
from search.cli.terminal import end_process
from search.cli.worker import StopRequest
from search.engines import EngineWish
from search.events import EpochEnded, Event, Notice, TrialEnded, TrialStarted
from search.policy import CheckpointPolicy


def main(url: str, log: str, *options: str) -> None:
    """Work; 130 when asked to stop."""
    values: dict[str, Any] = {key: json.loads(value) for key, value in (o.split("=", 1) for o in options)}
    kill_after = values.get("kill_after")
    stop = StopRequest()
    with open(log, "a", encoding="utf-8", buffering=1) as file:

        def tell(event: Event) -> None:
            line: dict[str, Any] = {"pid": os.getpid(), "at": time.time(), "kind": type(event).__name__}
            match event:
                case TrialStarted(number, _, first_epoch):
                    line |= {"trial": number, "epoch": first_epoch}
                case EpochEnded(number, result):
                    line |= {"trial": number, "epoch": result.epoch}
                case TrialEnded(number, state):
                    line |= {"trial": number, "state": state}
                case Notice(text):
                    line |= {"text": text}
                case _:
                    return
            file.write(json.dumps(line) + "\n")
            if kill_after is not None and isinstance(event, EpochEnded) and event.result.epoch >= kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

        policy = CheckpointPolicy(values.get("checkpoint_seconds", 60.0), values.get("checkpoint_epochs"))
        assignment = Assignment(
            url,
            "sample",
            sample.PATH,
            ends_at=None,
            threads=1,
            precision="float32",
            lease_seconds=values.get("lease", 60.0),
            policy=policy,
            engine=EngineWish(values.get("engine", "auto"), values.get("slots")),
            digests=sample.DIGESTS,
        )
        carry_out(assignment, tell, stop, stop.defer)
    end_process(130 if stop() else 0)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        # As the command line does.
        sys.exit(130)
