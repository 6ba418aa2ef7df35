"""search.runtime: how cores are shared among workers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.runtime import Layout, choose_layout, count_cores


@pytest.mark.parametrize(
    ("cores", "layout"),
    [
        (1, Layout(1, 1)),
        (2, Layout(1, 2)),
        (4, Layout(1, 4)),
        (7, Layout(1, 7)),
        (8, Layout(2, 4)),
        (64, Layout(16, 4)),
    ],
)
def test_a_machine_gets_a_worker_for_every_four_cores(cores: int, layout: Layout) -> None:
    """And one at least, with all the cores there are."""
    assert choose_layout(cores) == layout


@given(cores=st.integers(1, 256), workers=st.integers(1, 256))
def test_workers_asked_for_share_the_cores(cores: int, workers: int) -> None:
    """As many as asked for, with a thread each at least, and no more threads than cores where that can be."""
    layout = choose_layout(cores, workers)
    assert layout.workers == workers
    assert layout.threads >= 1
    assert layout.threads == 1 or layout.workers * layout.threads <= cores


def test_there_is_a_core_to_count() -> None:
    """This process runs on one at least."""
    assert count_cores() >= 1
