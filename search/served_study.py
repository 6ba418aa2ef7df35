"""What a worker has of a study whose trials it trains: of its own one, and of those that confirm it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from optuna.study import Study

from search.confirm.plan import ConfirmPlan
from search.confirm.report import trained_name
from search.errors import StudyError
from search.events import Event, Notice, TrialEnded, TrialStarted
from search.published_progress import PublishedProgress
from search.recipe_words import describe_optimizer
from search.strategy import attach_strategy
from search.study import PLAN_KEY, OpenStudy, open_study


@dataclass(frozen=True, eq=False)
class ServedStudy:
    """A study as a worker has it.

    Attributes:
        opened: The study.
        study: The same with its sampler and pruner, to ask for trials.
        progress: Its published plot.
        emit: Told what happens to its trials.
    """

    opened: OpenStudy
    study: Study
    progress: PublishedProgress
    emit: Callable[[Event], None]

    @classmethod
    def of(cls, opened: OpenStudy, emit: Callable[[Event], None]) -> Self:
        """Serve `opened`."""
        return cls(opened, attach_strategy(opened), PublishedProgress(opened), emit)

    def sweep(self) -> None:
        """Remove what workers have left outside the database; in between, each write to a trial does."""
        self.opened.database.sweep(self.study, self.opened.artifacts)


class Companions:
    """The companions of a worker's study: found while it works, each opened once.

    What happens in them is told as notices, since views know a trial by its number in their own study.
    """

    def __init__(self, opened: OpenStudy, emit: Callable[[Event], None]) -> None:
        """Those of `opened`, none of them looked for yet; `emit` is told what happens there."""
        self._opened, self._emit = opened, emit
        self._served: dict[str, ServedStudy] = {}
        self.are_open = False
        """Whether any had trials that wait or run, when they were last looked for."""

    def find_waiting(self) -> list[ServedStudy]:
        """Those with trials that wait, the oldest first; one statement where there is no new one."""
        if self._opened.confirms is not None:
            # It is one itself.
            return []
        database = self._opened.database
        found = database.open_companions(self._opened.study)
        self.are_open = bool(found)
        for one in found:
            if one.identity in self._served or not one.waiting:
                continue
            try:
                opened = open_study(database, one.name)
            except StudyError:
                # Deleted just now.
                continue
            # Of one that was deleted, which may have had the same id.
            database.forget_study(opened.study._study_id)
            served = ServedStudy.of(opened, _telling_notices(one.name, _names_of(opened), self._emit))
            served.sweep()
            self._served[one.identity] = served
        return [self._served[one.identity] for one in found if one.waiting and one.identity in self._served]

    def served(self) -> list[ServedStudy]:
        """Those whose trials this worker may have trained."""
        return list(self._served.values())


def _names_of(opened: OpenStudy) -> Callable[[int], str]:
    """What each trial of a companion trains, by its number: `trial 17 of the search`, or the article's."""
    try:
        plan = ConfirmPlan.from_dict(opened.study.user_attrs[PLAN_KEY])
    except (ValueError, KeyError, TypeError, AttributeError):
        # Of another version; its trials are trained all the same.
        return lambda _: "?"
    return lambda number: trained_name(plan, plan.recipe_of(number))


def _telling_notices(
    name: str, trains: Callable[[int], str], emit: Callable[[Event], None]
) -> Callable[[Event], None]:
    """Tells `emit` of a companion's trials, and what each `trains`, when one starts and when it ends."""

    def tell(event: Event) -> None:
        match event:
            case TrialStarted(number=number, recipe=recipe, first_epoch=first):
                on = f", goes on at epoch {first}" if first > 1 else ""
                words = f"{describe_optimizer(recipe)}, {recipe.epochs} epochs, seed {recipe.seed}"
                emit(Notice(f"{name}: trial {number} ({trains(number)}) started: {words}{on}"))
            case TrialEnded(number=number, state=state, value=value, note=note):
                reached = "" if value is None else f", validation accuracy {100 * value:.2f} %"
                told = f"{state}{f': {note}' if note else ''}{reached}"
                emit(Notice(f"{name}: trial {number} ({trains(number)}) {told}"))
            case Notice():
                emit(event)

    return tell
