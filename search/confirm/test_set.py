"""Opening the test set: once, for the winner's and the yardstick's models, and with a record of it."""

import hashlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

from search.confirm.ledger import keep_first, now
from search.confirm.opening import Attempt, ModelTest, OpeningRecord
from search.confirm.plan import ConfirmPlan
from search.confirm.round import TEST_KEY
from search.confirm.standing import Outcome, Standing, telling_of_deletion
from search.confirm.statistics import paired_difference
from search.hits import Hits
from search.study import OpenStudy
from storage.trial_files import read_file
from trainer.cifar10 import Cifar10
from trainer.device import DeviceSplit
from trainer.evaluation import Evaluator
from trainer.model_file import model_from_bytes


def open_test_set(
    companion: OpenStudy,
    plan: ConfirmPlan,
    standing: Standing,
    winner: int,
    load: Callable[[], Cifar10],
    tell: Callable[[str], None],
) -> OpeningRecord:
    """Score the models on the test set, unless they are scored: the record is what counts.

    That it is opened is stored before the first image is looked at, all scores together at the end. Where a
    process ends in between, the next one scores the same models, and comes to the same.

    Args:
        companion: The round's.
        plan: Its plan.
        standing: Of which all trials have ended.
        winner: The index of the winner among the plan's candidates.
        load: Gives CIFAR-10; not called where the scores are there.
        tell: Told each score, in a line.

    Raises:
        StorageError: A model is gone or damaged.
        ConfirmError: The companion was deleted meanwhile.
    """
    with telling_of_deletion(companion):
        record = _read(companion.study.user_attrs.get(TEST_KEY))
    if record.is_scored:
        return record
    # Before it is told that the images are looked at: there may be none to look at.
    data = load()

    def intend(former: Mapping[str, Any] | None) -> dict[str, Any]:
        before = _read(former)
        if before.is_scored:
            return before.to_dict()
        return OpeningRecord((*before.attempts, Attempt(now(), socket.gethostname()))).to_dict()

    record = _read(keep_first(companion, plan, TEST_KEY, intend))
    if record.is_scored:
        return record
    evaluator = Evaluator(DeviceSplit.of(data.test))

    def score(recipe: int) -> tuple[tuple[ModelTest, ...], list[Hits | None]]:
        """The scores of a recipe, without seeds that it lacks, and its hits by seed."""
        tests: list[ModelTest] = []
        hits: list[Hits | None] = []
        for outcome in standing.outcomes[recipe]:
            if outcome.value is None:
                hits.append(None)
                continue
            test, found = _score(companion, outcome, evaluator)
            tests.append(test)
            hits.append(found)
            tell(f"trial {outcome.trial}, seed {outcome.seed}: test accuracy {100 * test.accuracy:.2f} %")
        return tuple(tests), hits

    of_winner, mine = score(winner)
    of_reference: tuple[ModelTest, ...] = ()
    difference = None
    if plan.reference is not None:
        of_reference, theirs = score(len(plan.candidates))
        difference = paired_difference(mine, theirs)

    def conclude(former: Mapping[str, Any] | None) -> dict[str, Any]:
        kept = _read(former)
        if kept.is_scored:
            # Another process was faster.
            return kept.to_dict()
        return OpeningRecord(kept.attempts, len(data.test), of_winner, of_reference, difference).to_dict()

    return _read(keep_first(companion, plan, TEST_KEY, conclude))


def _read(kept: Mapping[str, Any] | None) -> OpeningRecord:
    return OpeningRecord(()) if kept is None else OpeningRecord.from_dict(kept)


def _score(companion: OpenStudy, outcome: Outcome, evaluator: Evaluator) -> tuple[ModelTest, Hits]:
    with telling_of_deletion(companion):
        frozen = companion.study.get_trials(deepcopy=False)[outcome.trial]
        content = read_file(companion.artifacts, companion.database.storage, frozen, ".h5").content
    score = evaluator.score(model_from_bytes(content, origin=f"the model of trial {outcome.trial}"))
    digest = hashlib.sha256(content).hexdigest()
    return ModelTest(outcome.trial, outcome.seed, score.accuracy, score.loss, digest), score.hits
