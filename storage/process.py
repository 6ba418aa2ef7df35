"""This process as others can recognise it, and whether another one of this machine still lives."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4


@dataclass(frozen=True)
class Identity:
    """A worker process.

    Attributes:
        worker: Its name, 32 hexadecimal digits; no other process, now or later, has it.
        host: The machine's name.
        pid: Its number there.
        place: What makes process numbers comparable: host, boot and process namespace; empty where the system
            does not tell.
        born: When it began, which tells it from a later one of the same number.
        gpu: The GPU that it trains on, None for the CPU.
    """

    worker: str
    host: str
    pid: int
    place: str
    born: str
    gpu: str | None = None


def own_identity(gpu: str | None = None) -> Identity:
    """A new name for this process."""
    pid = os.getpid()
    return Identity(uuid4().hex, socket.gethostname(), pid, own_place(), birth(pid) or "", gpu)


def own_place() -> str:
    """Where this process's number means something; empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return f"{socket.gethostname()}/{boot}/{namespace}"


def is_gone(place: str, pid: int, born: str) -> bool:
    """Whether that process is known to have ended; False too where nothing here can tell."""
    if not place or place != own_place():
        return False
    now = birth(pid)
    # Empty where /proc hides other users' processes, which exist all the same.
    return now is None or (now != "" and born != "" and now != born)


def birth(pid: int) -> str | None:
    """When process `pid` of this machine began, in ticks since the boot; None where there is none.

    Empty where the system does not tell (proc(5), field 22 of stat).
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        # Another user's, so it exists.
        pass
    try:
        # The second field is the command in parentheses, which may hold spaces and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended; its parent has not looked yet.
    return None if fields[0] == "Z" else fields[19]
