"""The record of the test set: who opened it when, for which models, and what they scored."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from search.confirm.statistics import Difference

FORMAT: Final = 2
"""Version of the stored record; another version's is refused."""


@dataclass(frozen=True)
class Attempt:
    """That a process was about to score models on the test set.

    Attributes:
        at: When, in UTC, ISO 8601 to the second.
        host: On which machine.
    """

    at: str
    host: str


@dataclass(frozen=True)
class ModelTest:
    """One model's score on the test set.

    Attributes:
        trial: The number of its trial in the companion.
        seed: It was trained on.
        accuracy: In [0, 1].
        loss: Mean cross-entropy.
        sha256: Of the stored `.h5`, in hexadecimal.
    """

    trial: int
    seed: int
    accuracy: float
    loss: float
    sha256: str


@dataclass(frozen=True)
class OpeningRecord:
    """All that is known of a round's opening of the test set.

    Attributes:
        attempts: Each time that models were about to be scored, the first one first; a second one where a
            process ended before it had stored the scores, or two were at it at once. The scores are the same,
            as the models are.
        images: How many test images there are; 0 as long as nothing is scored.
        winner: The winner's scores by seed; empty as long as nothing is scored.
        reference: The same of the reference, where there is one; a seed that it lacks is left out.
        difference: How much better the winner is than the reference on the test images; None without one.
    """

    attempts: tuple[Attempt, ...]
    images: int = 0
    winner: tuple[ModelTest, ...] = ()
    reference: tuple[ModelTest, ...] = ()
    difference: Difference | None = None

    @property
    def is_scored(self) -> bool:
        """Whether the scores are there."""
        return bool(self.winner)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "OpeningRecord":
        """The record that `to_dict` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: It is none.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}, and this version reads {FORMAT}")
        return cls(
            tuple(Attempt(**one) for one in values["attempts"]),
            int(values["images"]),
            tuple(ModelTest(**one) for one in values["winner"]),
            tuple(ModelTest(**one) for one in values["reference"]),
            None if values["difference"] is None else Difference(**values["difference"]),
        )
