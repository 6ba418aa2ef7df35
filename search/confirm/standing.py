"""What a round's trials have come to so far, recipe by recipe and seed by seed."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from search.confirm.plan import ConfirmPlan
from search.errors import ConfirmError
from search.hits import HITS_KEY, Hits, unpack_hits
from search.study import OpenStudy
from search.summary import ENDED, summarise_trials


@dataclass(frozen=True)
class Outcome:
    """One recipe on one seed.

    Attributes:
        trial: The number of its trial in the companion.
        seed: The seed.
        state: One of `search.summary.STATES`.
        value: Validation accuracy of its model, in [0, 1]; None while there is none, or where none came.
        note: Why none came, in a few words; empty otherwise.
    """

    trial: int
    seed: int
    state: str
    value: float | None
    note: str = ""


@dataclass(frozen=True)
class Standing:
    """All outcomes: those of each of the plan's recipes, in its order, by seed."""

    outcomes: tuple[tuple[Outcome, ...], ...]

    @property
    def total(self) -> int:
        """How many trials there are."""
        return sum(map(len, self.outcomes))

    @property
    def ended(self) -> int:
        """How many of them are over."""
        return sum(outcome.state in ENDED for outcomes in self.outcomes for outcome in outcomes)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it waits or runs."""
        return self.ended == self.total

    def values(self, recipe: int) -> tuple[float | None, ...]:
        """The accuracies of a recipe by seed; None where there is none."""
        return tuple(outcome.value for outcome in self.outcomes[recipe])

    def lacking(self, recipe: int) -> list[Outcome]:
        """The ended trials of a recipe that left no model."""
        return [one for one in self.outcomes[recipe] if one.state in ENDED and one.value is None]


def read_standing(opened: OpenStudy, plan: ConfirmPlan) -> Standing:
    """What the trials of the companion `opened` have come to.

    Raises:
        ConfirmError: It has other trials than its plan says, or was deleted meanwhile.
    """
    name = opened.study.study_name
    with telling_of_deletion(opened):
        trials = summarise_trials(opened.study)
    runs = plan.runs()
    wrong = next((n for n, run in enumerate(runs) if n >= len(trials) or trials[n].recipe != run), None)
    if wrong is not None:
        raise ConfirmError(
            f"study {name!r} is damaged: trial {wrong} is not the one that its plan has; "
            "--again begins a further round"
        )
    return Standing(
        tuple(
            tuple(
                Outcome(number, seed, trial.state, trial.value if trial.has_model else None, trial.note)
                for at, seed in enumerate(plan.seeds)
                for number in (plan.run_of(recipe, at),)
                for trial in (trials[number],)
            )
            for recipe in range(len(plan.recipes()))
        )
    )


def read_hits(opened: OpenStudy, standing: Standing) -> tuple[tuple[Hits | None, ...], ...]:
    """Which validation images each recipe classified rightly on each seed; None where it left no model.

    Args:
        opened: The companion.
        standing: Of which all trials have ended.

    Raises:
        ConfirmError: They cannot be read, or the study was deleted meanwhile.
    """
    name = opened.study.study_name
    with telling_of_deletion(opened):
        trials = opened.study.get_trials(deepcopy=False)

    def read(outcome: Outcome) -> Hits | None:
        if outcome.value is None:
            return None
        try:
            return unpack_hits(trials[outcome.trial].user_attrs[HITS_KEY], outcome.value)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfirmError(
                f"study {name!r}: which images trial {outcome.trial} classified rightly cannot be read "
                f"({type(error).__name__}: {error}): an older version trained it, or it was changed; delete "
                "that study, and the same command begins anew"
            ) from error

    return tuple(tuple(map(read, outcomes)) for outcomes in standing.outcomes)


def gone(name: str) -> ConfirmError:
    """What to raise where the companion `name` is no more."""
    return ConfirmError(f"study {name!r} is no more: somebody deleted it; the same command begins anew")


@contextlib.contextmanager
def telling_of_deletion(companion: OpenStudy) -> Iterator[None]:
    """Let the error for a study that is not there be the project's.

    Raises:
        ConfirmError: The companion was deleted meanwhile.
    """
    try:
        yield
    except KeyError as error:
        raise gone(companion.study.study_name) from error
