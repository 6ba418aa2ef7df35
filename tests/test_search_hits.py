"""search.hits: which images were classified rightly comes back as it was, or not at all."""

import json
from typing import Any

import numpy as np
import pytest

from search.hits import pack_hits, unpack_hits


@pytest.mark.parametrize("images", [1, 8, 9, 10_000])
def test_hits_come_back(images: int) -> None:
    """Through JSON, whatever their number."""
    hits = np.random.default_rng(1).random(images) < 0.7

    again = unpack_hits(json.loads(json.dumps(pack_hits(hits))), hits.mean())

    assert again.dtype == np.bool_
    np.testing.assert_array_equal(again, hits)


@pytest.mark.parametrize(
    "damage",
    [{"images": 17}, {"images": 0}, {"images": 800}, {"bits": "gIA"}, {"bits": "?"}, {"bits": None}],
)
def test_what_is_no_hits_is_refused(damage: dict[str, Any]) -> None:
    """Of another number of images, or of no bits."""
    good = pack_hits(np.arange(12) == 0)
    with pytest.raises((ValueError, TypeError)):
        unpack_hits({**good, **damage}, 1 / 12)


def test_hits_of_another_accuracy_are_refused() -> None:
    """By an image, even of 10,000."""
    hits = np.arange(10_000) < 7_700
    good = pack_hits(hits)

    np.testing.assert_array_equal(unpack_hits(good, 0.77), hits)
    with pytest.raises(ValueError, match=r"7700 hits of 10000 images in 1250 bytes, not 0\.7701 of them"):
        unpack_hits(good, 0.7701)
