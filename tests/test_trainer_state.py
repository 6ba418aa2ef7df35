"""trainer.state: a trial's state as bytes, whole or refused, and its history as CSV."""

import csv
import dataclasses
import hashlib
import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from trainer.errors import TrainerError
from trainer.recipe import OPTIMIZERS, Recipe
from trainer.state import EpochResult, StateError, TrainingState, history_to_csv

FINITE = st.floats(allow_nan=False, allow_infinity=False)
RESULTS = st.builds(EpochResult, st.integers(1, 10_000), FINITE, FINITE, FINITE, FINITE, FINITE, FINITE)
ARRAYS = st.lists(
    st.sampled_from([np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8, np.bool_]).flatmap(
        lambda dtype: st_numpy.arrays(
            dtype, st_numpy.array_shapes(min_dims=0, max_dims=4, max_side=4, min_side=0)
        )
    ),
    max_size=4,
).map(tuple)
STATES = st.builds(
    TrainingState,
    st.builds(
        Recipe,
        learning_rate=st.floats(1e-8, 10),
        optimizer=st.sampled_from(OPTIMIZERS),
        seed=st.integers(0, 2**31 - 1),
    ),
    st.sampled_from(["float32", "bfloat16"]),
    ARRAYS,
    ARRAYS,
    st.lists(RESULTS, max_size=3).map(tuple),
    st.sampled_from(["tensorflow", "packed"]),
)

STATE = TrainingState(
    Recipe(optimizer="adam", seed=3),
    "bfloat16",
    (np.arange(6, dtype=np.float32).reshape(2, 3), np.full(10, -0.0, np.float32)),
    (np.array(7, np.int64), np.array(0.01, np.float32), np.ones((2, 3), np.float32)),
    (EpochResult(1, 2.25, 0.125, 2.5, 0.25, 0.01, 1.5), EpochResult(2, 0.1, 0.9, 0.2, 0.8, 0.01, 1.25)),
)
CONTENT = STATE.to_bytes()


@given(STATES)
def test_a_state_comes_back_bit_for_bit(state: TrainingState) -> None:
    """Recipe, history and every array with its type, shape and bits survive the way through bytes."""
    _assert_same(TrainingState.from_bytes(state.to_bytes()), state)


@pytest.mark.parametrize("bits", [0x7FC00001, 0x7F800000, 0xFF800000, 0x80000000, 0x00000001])
def test_unusual_floats_come_back_bit_for_bit(bits: int) -> None:
    """A NaN with a payload, infinities, minus zero and a subnormal are kept as they are."""
    array = np.array([bits], np.uint32).view(np.float32)
    state = dataclasses.replace(STATE, weights=(array,))
    _assert_same(TrainingState.from_bytes(state.to_bytes()), state)


def test_a_view_is_saved_as_what_it_shows() -> None:
    """Arrays that are transposed, strided or read-only are saved by their values."""
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    frozen = base.copy()
    frozen.flags.writeable = False
    state = dataclasses.replace(STATE, weights=(base.T, base[::2, ::3], frozen))
    for kept, given_ in zip(TrainingState.from_bytes(state.to_bytes()).weights, state.weights, strict=True):
        np.testing.assert_array_equal(kept, given_)


def test_the_epoch_is_the_length_of_the_history() -> None:
    """A state counts the epochs that it has results of."""
    assert STATE.epoch == 2
    assert dataclasses.replace(STATE, history=()).epoch == 0


@given(st.integers(0, len(CONTENT) - 1))
def test_truncated_bytes_are_refused(length: int) -> None:
    """A file that was cut off, at whatever byte, is no state."""
    with pytest.raises(StateError, match=f"^{length} bytes"):
        TrainingState.from_bytes(CONTENT[:length])


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x93NUMPY\x01\x00")
@example(b"PK\x03\x04")
@example(hashlib.sha256(b"").digest())
@example(b"{}")
def test_garbage_is_refused(content: bytes) -> None:
    """Bytes of anything else are no state."""
    with pytest.raises(StateError):
        TrainingState.from_bytes(content)


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 255)), min_size=1, max_size=5))
def test_damaged_bytes_never_give_another_state(flips: list[tuple[int, int]]) -> None:
    """Whatever bits flip, the bytes give the true state or a StateError, and no other exception."""
    damaged = bytearray(CONTENT)
    for index, mask in flips:
        damaged[index] ^= mask
    _assert_true_or_refused(bytes(damaged))


def test_no_single_damaged_byte_gives_another_state() -> None:
    """Every byte matters: the zip's directory, the arrays' headers and the values alike."""
    for index in range(len(CONTENT)):
        _assert_true_or_refused(CONTENT[:index] + bytes([CONTENT[index] ^ 1]) + CONTENT[index + 1 :])


@given(st.integers(0, len(CONTENT)), st.binary(min_size=1, max_size=50))
def test_bytes_put_in_never_give_another_state(index: int, more: bytes) -> None:
    """Bytes put in anywhere, or behind the end, are noticed."""
    _assert_true_or_refused(CONTENT[:index] + more + CONTENT[index:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 1}, "format 1; this version reads 2"),
        ({"format": "2"}, "format 2; this version reads 2"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"engine": "steam"}, "unknown kind of engine 'steam'"),
        ({"recipe": {"epochs": 0}}, "epochs must be a whole number"),
        ({"recipe": {"decay": 0.1}}, "no field 'decay'"),
        ({"recipe": None}, "saved state"),
        ({"weights": "2"}, "saved state"),
        ({"history": [{"epoch": 1}]}, "saved state"),
        ({"history": 3}, "saved state"),
    ],
)
def test_another_versions_bytes_are_refused(change: dict[str, Any], reason: str) -> None:
    """A header that this version does not know is refused with the reason, not guessed at."""
    header = {"format": 2, "recipe": {}, "precision": "float32", "weights": 2, "history": []}
    header.update(change)
    content = _sealed(np.frombuffer(json.dumps(header).encode(), np.uint8), *STATE.weights)
    with pytest.raises(StateError, match=reason):
        TrainingState.from_bytes(content)


def test_a_state_of_the_version_before_is_read() -> None:
    """Its recipe had nine fields, and there was one kind of engine; what they lack is switched off."""
    older = {name: value for name, value in list(STATE.recipe.to_dict().items())[:9]}
    assert list(older)[-1] == "seed"
    header = {"format": 2, "recipe": older, "precision": "bfloat16", "weights": 2}
    header["history"] = [dataclasses.asdict(result) for result in STATE.history]
    arrays = (*STATE.weights, *STATE.optimizer)
    content = _sealed(np.frombuffer(json.dumps(header).encode(), np.uint8), *arrays)
    _assert_same(TrainingState.from_bytes(content), STATE)


@pytest.mark.parametrize("header", [b"[]", b"1", b"{}", b"not JSON", b"\xff", b""])
def test_whole_bytes_without_a_header_are_refused(header: bytes) -> None:
    """Arrays of another program are refused as such."""
    with pytest.raises(StateError, match="saved state"):
        TrainingState.from_bytes(_sealed(np.frombuffer(header, np.uint8), *STATE.weights))


def test_no_pickle_is_executed(tmp_path: Path) -> None:
    """A pickle among the arrays, or in place of them, is refused without running what it says."""
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trap,)

    array = np.array([Trap()], dtype=object)
    header = json.dumps(
        {"format": 2, "recipe": {}, "precision": "float32", "weights": 1, "history": []}
    ).encode()
    pickled = pickle.dumps(Trap())
    contents = [
        _sealed(np.frombuffer(header, np.uint8), array),
        _sealed(array),
        pickled,
        hashlib.sha256(pickled).digest() + pickled,
    ]
    for content in contents:
        with pytest.raises(StateError):
            TrainingState.from_bytes(content)
    assert not trap.exists()
    pickle.loads(pickled)
    assert trap.exists(), "the trap would not have shown it"


def test_a_state_error_is_one_of_the_packages_own() -> None:
    """Who catches the trainer's errors catches this one."""
    assert issubclass(StateError, TrainerError)


@given(st.lists(RESULTS, max_size=5))
def test_the_history_reads_back_from_csv(history: list[EpochResult]) -> None:
    """Every number in the CSV is the number itself, under its field's name."""
    rows = list(csv.DictReader(io.StringIO(history_to_csv(history))))
    assert [
        EpochResult(int(row.pop("epoch")), **{k: float(v) for k, v in row.items()}) for row in rows
    ] == history


def test_the_history_as_text() -> None:
    """A header, then one line for each epoch, each ended by a newline alone."""
    assert history_to_csv(STATE.history) == (
        "epoch,loss,accuracy,validation_loss,validation_accuracy,learning_rate,seconds\n"
        "1,2.25,0.125,2.5,0.25,0.01,1.5\n"
        "2,0.1,0.9,0.2,0.8,0.01,1.25\n"
    )
    assert history_to_csv([]).count("\n") == 1


def test_nan_in_the_history_is_kept() -> None:
    """A NaN, should one be in a history, stays one."""
    state = dataclasses.replace(STATE, history=(EpochResult(1, math.nan, 0, 0, 0, 0, 0),))
    assert math.isnan(TrainingState.from_bytes(state.to_bytes()).history[0].loss)


def _sealed(*arrays: np.ndarray) -> bytes:
    """The arrays as undamaged bytes, whatever they hold."""
    file = io.BytesIO()
    np.savez(file, *arrays)
    return hashlib.sha256(file.getvalue()).digest() + file.getvalue()


def _assert_true_or_refused(content: bytes) -> None:
    try:
        state = TrainingState.from_bytes(content)
    except StateError:
        return
    _assert_same(state, STATE)


def _assert_same(left: TrainingState, right: TrainingState) -> None:
    assert left.recipe == right.recipe
    assert left.history == right.history
    assert left.engine == right.engine
    for ours, theirs in ((left.weights, right.weights), (left.optimizer, right.optimizer)):
        assert [(a.shape, a.dtype, a.tobytes()) for a in ours] == [
            (a.shape, a.dtype, a.tobytes()) for a in theirs
        ]
