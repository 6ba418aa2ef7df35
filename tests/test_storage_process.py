"""Processes as others recognise them: who lives, who ended, who only has the number of one that did."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from storage.process import birth, is_gone, own_identity, own_place


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its input to end."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with process:
        yield process
        process.kill()


def test_this_process_lives() -> None:
    """An identity names it anew each time, and says where and since when it is."""
    first, second = own_identity(), own_identity("H100")

    assert first.worker != second.worker
    assert len(first.worker) == 32
    assert (first.pid, first.place, first.born) == (os.getpid(), own_place(), birth(os.getpid()))
    assert (first.gpu, second.gpu) == (None, "H100")
    assert own_place().startswith(f"{first.host}/")
    assert not is_gone(first.place, first.pid, first.born)


def test_a_process_is_gone_when_it_has_ended(child: subprocess.Popen[bytes]) -> None:
    """Not before; and it is gone as a zombie already, whose parent has not asked for its end."""
    born = birth(child.pid)
    assert born
    assert not is_gone(own_place(), child.pid, born)

    child.kill()
    # Waits for the end and leaves the zombie.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert birth(child.pid) is None
    assert is_gone(own_place(), child.pid, born)
    child.wait()
    assert is_gone(own_place(), child.pid, born)


def test_a_later_process_of_the_same_number_is_another() -> None:
    """When it began tells them apart."""
    born = birth(os.getpid())
    assert born

    assert is_gone(own_place(), os.getpid(), str(int(born) - 1))


@pytest.mark.parametrize("place", ["", "elsewhere/boot/pid:[1]"])
def test_of_another_place_nothing_is_known(place: str, child: subprocess.Popen[bytes]) -> None:
    """Another machine, another boot, another container, or a system that does not tell."""
    child.kill()
    child.wait()

    assert not is_gone(place, child.pid, "1")


@pytest.mark.parametrize(("born", "now"), [("123", ""), ("", "123"), ("", "")])
def test_what_the_system_hides_has_not_ended(born: str, now: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc hides other users' processes, one that exists may be the one that was meant."""
    monkeypatch.setattr("storage.process.birth", lambda _: now)

    assert not is_gone(own_place(), 7, born)


def test_a_command_with_blanks_and_parentheses_has_its_birth(child: subprocess.Popen[bytes]) -> None:
    """The kernel puts the command's name, whatever is in it, among the fields."""
    before = birth(child.pid)
    own = birth(os.getpid())
    with open("/proc/self/comm", "r+") as file:
        former = file.read()
        file.seek(0)
        file.write("a) Z 1 (b")
    try:
        assert birth(os.getpid()) == own
    finally:
        with open("/proc/self/comm", "w") as file:
            file.write(former)
    assert before is not None
