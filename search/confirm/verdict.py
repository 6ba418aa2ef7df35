"""Who won on validation: decided once, when all trials of a round have ended, and kept."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from search.confirm.plan import ConfirmPlan
from search.confirm.standing import Standing
from search.confirm.statistics import (
    Decision,
    Difference,
    Interval,
    accuracy_interval,
    decide_against_reference,
    decide_highest,
)
from search.hits import Hits

FORMAT: Final = 2
"""Version of the stored verdict; another version's is refused."""


@dataclass(frozen=True)
class Verdict:
    """The outcome on validation.

    Attributes:
        decision: Means, intervals, and the winner as an index into the plan's candidates.
        at: When it was decided, in UTC, ISO 8601 to the second.
        host: On which machine.
    """

    decision: Decision
    at: str
    host: str

    @property
    def winner(self) -> int | None:
        """The index of the winner among the plan's candidates; None for none."""
        return self.decision.winner

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready values."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Verdict":
        """The verdict that `to_dict` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: It is none.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}, and this version reads {FORMAT}")
        given = values["decision"]
        decision = Decision(
            tuple(map(_accuracy, given["means"])),
            _accuracy(given["reference"]),
            tuple(None if one is None else Difference(**one) for one in given["differences"]),
            given["winner"],
        )
        return cls(decision, str(values["at"]), str(values["host"]))


def decide(
    plan: ConfirmPlan,
    standing: Standing,
    read_hits: Callable[[], Sequence[Sequence[Hits | None]]],
) -> Decision:
    """Who won, by the plan's own comparison.

    Args:
        plan: The round's.
        standing: Of which all trials have ended.
        read_hits: Gives what each recipe classified rightly, by seed; asked where there is a reference.

    Raises:
        ValueError: One has not: whoever looks before the end could stop when it looks good.
    """
    if not standing.is_over:
        raise ValueError(f"{standing.ended} of {standing.total} trials have ended")
    if plan.reference is None:
        return decide_highest([standing.values(index) for index in range(len(plan.candidates))])
    *candidates, reference = read_hits()
    return decide_against_reference(candidates, reference)


def _accuracy(values: Mapping[str, Any] | None) -> Interval | None:
    # A verdict of before may hold one that leaves [0, 1].
    return None if values is None else accuracy_interval(**values)
