"""search.gpu_claims: each place on a GPU has one holder at most, a process that lives."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gpu_machine import make_gpu

from search import gpu_claims
from search.errors import GpuError
from search.gpu_claims import Claim, claim_slot, count_free

A, B = make_gpu(0), make_gpu(1)
CLAIMANT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gpu_machine import make_gpu
from search.gpu_claims import claim_slot
claim = claim_slot([make_gpu(0), make_gpu(1)], 2, Path(sys.argv[2]))
print(None if claim is None else (claim.gpu.index, claim.slot), flush=True)
sys.stdin.read()
"""
"""Claims one of four places, tells which, and holds it until its stdin ends."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of locks that does not exist yet."""
    return tmp_path / "node" / "locks"


@pytest.fixture
def claim(folder: Path) -> Iterator[Callable[..., Claim]]:
    """Claim a place in this process, of as many as wanted on A and B; all are released in the end."""
    claims: list[Claim] = []

    def take(slots: int) -> Claim:
        claim = claim_slot([A, B], slots, folder)
        assert claim is not None
        claims.append(claim)
        return claim

    yield take
    for one in claims:
        one.release()


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a process that claims a place, or finds none free."""
    processes: list[subprocess.Popen[str]] = []

    def run() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CLAIMANT, str(Path(__file__).parent), str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        with process:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    """What the process tells next."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_workers_spread_over_the_gpus(claim: Callable[..., Claim], folder: Path) -> None:
    """Each takes the GPU with most free places; the last one finds none."""
    taken = [claim(2) for _ in range(4)]

    assert [(one.gpu, one.slot) for one in taken] == [(A, 0), (B, 0), (A, 1), (B, 1)]
    assert claim_slot([A, B], 2, folder) is None


def test_the_least_loaded_gpu_is_taken(folder: Path) -> None:
    """Also where the other one's free place has a lower number, as after some workers have ended."""
    taken = [claim_slot([gpu], 3, folder) for gpu in (A, A, A, B)]
    ended, *others = [one for one in taken if one is not None]
    ended.release()

    new = claim_slot([A, B], 3, folder)

    assert new is not None
    assert (ended.gpu, ended.slot) == (A, 0)
    assert (new.gpu, new.slot) == (B, 1)
    for one in (*others, new):
        one.release()


def test_a_released_place_is_free(claim: Callable[..., Claim], folder: Path) -> None:
    """For whoever comes next, as is counted."""
    claim(1)
    other = claim_slot([A, B], 1, folder)
    assert other is not None
    assert count_free([A, B], 1, folder) == 0

    other.release()

    assert count_free([A, B], 1, folder) == 1
    assert count_free([A], 1, folder) == 0
    assert claim(1).gpu == B


def test_counting_takes_nothing(claim: Callable[..., Claim], folder: Path) -> None:
    """It may be done at any time."""
    assert [count_free([A, B], 3, folder) for _ in range(2)] == [6, 6]
    claim(3)
    assert count_free([A, B], 3, folder) == 5
    # Who allows fewer on a GPU sees fewer.
    assert count_free([A, B], 1, folder) == 1


def test_of_many_processes_each_place_has_one_holder(start: Callable[[], subprocess.Popen[str]]) -> None:
    """They come at the same moment; those that find no place learn it."""
    processes = [start() for _ in range(6)]

    told = sorted(read_line(process) for process in processes)

    assert told == ["(0, 0)", "(0, 1)", "(1, 0)", "(1, 1)", "None", "None"]


def test_a_killed_process_frees_its_place(start: Callable[[], subprocess.Popen[str]]) -> None:
    """With SIGKILL, it can do nothing for it; the next one has it, and no other."""
    holders = {}
    for _ in range(4):
        process = start()
        holders[read_line(process)] = process
    victim = holders["(1, 0)"]

    victim.kill()
    victim.wait()

    assert read_line(start()) == "(1, 0)"
    assert read_line(start()) == "None"


def test_programs_that_a_worker_starts_do_not_hold_its_place(folder: Path) -> None:
    """They may outlive it."""
    claim = claim_slot([A], 1, folder)
    assert claim is not None
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
        text=True,
    ) as child:
        read_line(child)
        claim.release()
        assert count_free([A], 1, folder) == 1
        child.kill()


def test_workers_look_one_after_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped while it looks does not stop the others for ever, who say what they waited for."""
    monkeypatch.setattr(gpu_claims, "WAIT_SECONDS", 0.0)
    count_free([A], 1, folder)
    descriptor = os.open(folder / gpu_claims.LOOKERS, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    with pytest.raises(GpuError, match=r"another process, .*looking.lock"):
        claim_slot([A], 1, folder)

    os.close(descriptor)
    assert count_free([A], 1, folder) == 1


def test_all_users_of_a_machine_share_the_folder(folder: Path, claim: Callable[..., Claim]) -> None:
    """Whatever the umask of whoever comes first; nobody can remove another one's files."""
    before = os.umask(0o077)
    try:
        claim(1)
    finally:
        os.umask(before)

    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_sees_what_is_taken(tmp_path: Path) -> None:
    """And takes what is not, of files that are not theirs."""
    folder = tmp_path / "locks"
    for parent in list(tmp_path.parents)[:-2]:
        parent.chmod(0o755)
    tmp_path.chmod(0o755)
    ours = claim_slot([A], 1, folder)
    os.seteuid(54321)
    try:
        theirs = claim_slot([A, B], 1, folder)
    finally:
        os.seteuid(0)

    assert ours is not None
    assert theirs is not None
    assert theirs.gpu == B
    assert claim_slot([A, B], 1, folder) is None
    for one in (ours, theirs):
        one.release()
    assert count_free([A, B], 1, folder) == 2


def test_a_claim_keeps_its_folder_from_being_tidied(folder: Path) -> None:
    """systemd-tmpfiles leaves alone what it cannot lock; claims do not keep each other from it."""

    def tidy() -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)

    claims = [claim_slot([A, B], 1, folder) for _ in range(2)]
    for one in claims:
        assert one is not None
        with pytest.raises(BlockingIOError):
            tidy()
        one.release()
    tidy()


def test_a_folder_that_cannot_be_used_is_told_of(tmp_path: Path) -> None:
    """With its name, the reason and the option for another one."""
    (tmp_path / "file").touch()
    with pytest.raises(GpuError, match=r"locks, .*/file/locks, cannot be used: Not a directory; --locks "):
        claim_slot([A], 1, tmp_path / "file" / "locks")


def test_a_link_in_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """Anybody may put one there, to have a file of somebody else's locked, or made."""
    count_free([A, B], 1, folder)
    (tmp_path / "precious").touch()
    for gpu, target in ((A, "precious"), (B, "not there")):
        path = folder / f"{gpu.uuid}.0.lock"
        path.unlink()
        path.symlink_to(tmp_path / target)
        with pytest.raises(GpuError, match="cannot be used"):
            claim_slot([gpu], 1, folder)

    assert not (tmp_path / "not there").exists()
