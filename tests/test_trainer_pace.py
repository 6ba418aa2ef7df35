"""trainer.pace: how many steps are taken at a time."""

from trainer.pace import FAST_SECONDS, MOST_IMAGES, SLOW_SECONDS, Pace


def test_a_fast_network_is_soon_looked_at_every_fifty_steps() -> None:
    """It begins with one step, doubles, and stays at the bound."""
    pace, taken = Pace(), []
    for _ in range(10):
        steps = pace.steps(64)
        taken.append(steps)
        pace.note(64 * steps, 0.018 * steps)
    assert taken[:4] == [1, 2, 4, 8]
    # Half a second is 27 steps: no faster is needed.
    assert FAST_SECONDS <= 0.018 * taken[-1] <= SLOW_SECONDS
    assert taken[-1] <= MOST_IMAGES // 64


def test_a_slow_network_is_looked_at_after_each_step() -> None:
    """Seconds a step: one at a time, also after a faster one, or the tracing, misled it."""
    pace = Pace()
    pace.note(256, 0.01)
    assert pace.steps(256) == 2
    for _ in range(3):
        steps = pace.steps(256)
        pace.note(256 * steps, 4.0 * steps)
    assert pace.steps(256) == 1


def test_larger_batches_take_fewer_steps() -> None:
    """What counts is images: another trial of the same program may have other batches."""
    pace = Pace()
    for _ in range(12):
        pace.note(64 * pace.steps(64), 0.0)
    assert pace.steps(64) == MOST_IMAGES // 64
    assert pace.steps(256) == MOST_IMAGES // 256
    assert pace.steps(MOST_IMAGES + 1) == 1


def test_what_took_its_time_once_is_forgotten() -> None:
    """The first call traces the program; the next ones are fast, and more are taken."""
    pace = Pace()
    pace.note(64, 30.0)
    assert pace.steps(64) == 1
    pace.note(64, 0.02)
    assert pace.steps(64) == 2
