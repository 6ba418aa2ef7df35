"""What is kept of a round of a confirmation, read from its companion's attributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from search.confirm.opening import OpeningRecord
from search.confirm.plan import Candidate, ConfirmPlan
from search.confirm.statistics import FigureComparison, compare_with_figure
from search.confirm.verdict import Verdict
from search.errors import ConfirmError
from search.study import PLAN_KEY

VERDICT_KEY: Final = "confirm_verdict"
"""Study user attribute of a companion: a `Verdict`."""
TEST_KEY: Final = "confirm_test"
"""Study user attribute of a companion: an `OpeningRecord`; none as long as the test set is closed."""
ABANDONED_KEY: Final = "confirm_abandoned"
"""Study user attribute of a companion: an `Abandonment`; none as long as it goes on."""


@dataclass(frozen=True)
class Abandonment:
    """That a round was given up.

    Attributes:
        at: When, in UTC, ISO 8601 to the second.
        host: On which machine.
        ended: How many of its trials had ended.
    """

    at: str
    host: str
    ended: int


@dataclass(frozen=True)
class Round:
    """What is kept of a round.

    Attributes:
        name: Its companion's.
        plan: What it trains.
        is_whole: Whether all of its trials are there.
        verdict: None until all of them have ended and somebody looked.
        test: None as long as the test set is closed.
        abandoned: None unless it was given up.
        is_deleted: Whether its companion is gone, and only the study's own record of it left.
    """

    name: str
    plan: ConfirmPlan
    is_whole: bool
    verdict: Verdict | None
    test: OpeningRecord | None
    abandoned: Abandonment | None = None
    is_deleted: bool = False

    @property
    def is_void(self) -> bool:
        """Whether it ended without a verdict: given up, or deleted."""
        return self.verdict is None and (self.abandoned is not None or self.is_deleted)

    @property
    def chosen(self) -> Candidate | None:
        """Who is tested: the best on validation, beyond noise where there is a reference; None for none."""
        if self.verdict is None or self.verdict.winner is None:
            return None
        return self.plan.candidates[self.verdict.winner]

    @property
    def winner(self) -> Candidate | None:
        """Who won beyond noise: on validation, or against a published figure on the test set.

        None where nobody did, and as long as nobody can tell.
        """
        if self.plan.reference is None and (self.figure is None or not self.figure.is_beyond):
            return None
        return self.chosen

    @property
    def is_upheld(self) -> bool | None:
        """Whether the test set upholds the winner: beyond noise of a figure, or a difference above 0.

        None where nobody was chosen, and as long as nothing is scored.
        """
        if self.test is None or not self.test.is_scored:
            return None
        if self.figure is not None:
            return self.figure.is_beyond
        return self.test.difference is not None and self.test.difference.mean > 0

    @property
    def figure(self) -> FigureComparison | None:
        """The test accuracies of who was chosen beside the figure; None without figure or scores."""
        test = self.test
        if self.plan.against == "recipe" or test is None or not test.is_scored:
            return None
        return compare_with_figure([one.accuracy for one in test.winner], test.images, self.plan.against)


def read_round(
    name: str, attrs: Mapping[str, Any], *, is_whole: bool = True, is_deleted: bool = False
) -> Round:
    """The round of the companion `name`, which has or had these user attributes.

    Raises:
        ConfirmError: They are not to be read.
    """
    verdict, test, abandoned = (attrs.get(key) for key in (VERDICT_KEY, TEST_KEY, ABANDONED_KEY))
    try:
        return Round(
            name,
            ConfirmPlan.from_dict(attrs[PLAN_KEY]),
            is_whole,
            None if verdict is None else Verdict.from_dict(verdict),
            None if test is None else OpeningRecord.from_dict(test),
            None if abandoned is None else Abandonment(**abandoned),
            is_deleted,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        what, way = f"study {name!r} holds a confirmation", "delete that study, or use"
        if is_deleted:
            what, way = f"of study {name!r}, which was deleted, a record is left", "use"
        raise ConfirmError(f"{what} that cannot be read: {reason}; {way} the version that made it") from error
