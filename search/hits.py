"""Which images a model classified rightly, as a trial's attribute of a bit an image.

Only trials that confirm recipes have it: their accuracies are compared image by image (`search.confirm`).
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

HITS_KEY: Final = "hits"
"""Trial user attribute: what `pack_hits` gives, of the validation images."""

Hits = npt.NDArray[np.bool_]
"""bool (images,): whether each image was classified rightly."""


def pack_hits(hits: Hits) -> dict[str, Any]:
    """The hits as JSON-ready values: 1.7 kB for 10,000 images."""
    return {"images": len(hits), "bits": base64.b64encode(np.packbits(hits).tobytes()).decode()}


def unpack_hits(values: Mapping[str, Any], accuracy: float) -> Hits:
    """The hits that `pack_hits` gave.

    Args:
        values: What it gave.
        accuracy: The share of them, in [0, 1], as it is known from elsewhere.

    Raises:
        ValueError, KeyError, TypeError: They are none, or not those of that accuracy.
    """
    try:
        content = base64.b64decode(values["bits"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from error
    images = int(values["images"])
    hits = np.unpackbits(np.frombuffer(content, np.uint8), count=images).astype(np.bool_)
    count = int(hits.sum())
    if images < 1 or len(content) != -(-images // 8) or abs(count - accuracy * images) > 0.5:
        raise ValueError(
            f"{count} hits of {images} images in {len(content)} bytes, not {accuracy:.4f} of them"
        )
    return hits
