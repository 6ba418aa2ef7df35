"""How a study's recipes are chosen, and which trials are stopped early."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.start_points import start_points
from search.study import OpenStudy, Settings
from trainer.recipe import ARTICLE, Value

Param = TypeVar("Param")

FIRST_RUNG_LEAST: Final = 2
"""The pruner judges no trial before this epoch."""
FIRST_RUNG_DIVISOR: Final = 25
"""The pruner judges first after this part of the space's longest trial."""

EPOCHS: Final = "epochs"
"""The parameter whose draws are not left to TPE alone."""
WHOLE_SHARE: Final = 0.8
"""How many of the trials may take all epochs of the space."""

YARDSTICK: Final = 0
"""The article's own recipe, which every study trains to its end: what others are compared with."""
FIRST_START: Final = YARDSTICK + 1
"""The trial that is the first start point."""


def attach_strategy(opened: OpenStudy) -> Study:
    """The study with its sampler and pruner.

    A companion's trials have their recipes from the beginning, so nothing is drawn there, and each of them is
    trained to its end, since seeds that look bad early would be missing from the mean.
    """
    sampler: BaseSampler = TrialSeededSampler(opened.settings)
    pruner: BasePruner = build_pruner(opened.settings)
    if opened.confirms is not None:
        sampler, pruner = RandomSampler(opened.settings.seed), NopPruner()
    return optuna.load_study(
        study_name=opened.study.study_name,
        storage=opened.database.storage,
        sampler=sampler,
        pruner=pruner,
    )


class TrialSeededSampler(TPESampler):
    """TPE whose draws depend on the study's seed, the trial's number and the results so far alone.

    Optuna's own begins its random numbers anew in each process: with the study's seed, every further run and
    every worker beside it would draw the same recipes again.

    Most trials may take all epochs of the space. How many a trial needs is found by pruning, epoch by epoch;
    one that may not go on cannot show more, and costs the same up to there (`benchmarks/replay.py`,
    docs/search.md). The rest draws its epochs from the whole range.

    The first trials after the article's own are the space's start points (`search.start_points`), for as many
    epochs as the article's, or as the space allows. They are told by their numbers, so that each is tried
    once by however many workers.
    """

    def __init__(self, settings: Settings) -> None:
        """A sampler for a study of these settings.

        Multivariate TPE models together the parameters that all trials have, and each of the others for
        itself. Where some have none of a few, as a trial without steps has no `step_at`, it is told to
        model together what trials have in common (`group`), which is the same where all have all.
        """
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            super().__init__(seed=settings.seed, group=bool(settings.space.conditional))
        self._seed = settings.seed
        self._starts = start_points(settings.capped_space)
        self._whole_share = WHOLE_SHARE

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin the random numbers anew for this trial."""
        # One seed for both would make the draw of the epochs that of the first parameter.
        seeds = np.random.SeedSequence((self._seed, trial.number)).generate_state(2)
        self._rng.rng.seed(int(seeds[0]))
        self._random_sampler._rng.rng.seed(int(seeds[1]))
        super().before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What is modelled together: as `TPESampler`'s, without epochs; nothing for a start point."""
        if self._is_start(trial):
            return {}
        return _without_epochs(super().infer_relative_search_space(study, trial))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As `TPESampler`'s, which would draw all of a group."""
        if not search_space:
            return {}
        return _without_epochs(super().sample_relative(study, trial, search_space))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As `TPESampler`'s, but for epochs: all of them in most trials, any number in the others.

        A start point has its own values, and its epochs are the article's as far as the space has them.
        """
        is_start = self._is_start(trial)
        if is_start and param_name in self._starts[trial.number - FIRST_START]:
            return self._starts[trial.number - FIRST_START][param_name]
        if param_name != EPOCHS:
            return super().sample_independent(study, trial, param_name, param_distribution)
        assert isinstance(param_distribution, IntDistribution)
        if is_start:
            return min(max(ARTICLE.epochs, param_distribution.low), param_distribution.high)
        if self._rng.rng.random() < self._whole_share:
            return param_distribution.high
        return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)

    def _is_start(self, trial: FrozenTrial) -> bool:
        # A trial that somebody enqueued there has what was given, and the rest of it is drawn as ever.
        is_enqueued = "fixed_params" in trial.system_attrs
        return 0 <= trial.number - FIRST_START < len(self._starts) and not is_enqueued


def _without_epochs(values: Mapping[str, Param]) -> dict[str, Param]:
    return {name: value for name, value in values.items() if name != EPOCHS}


class SparingPruner(SuccessiveHalvingPruner):
    """Asynchronous successive halving that never stops the first trials.

    They are the article's recipe and the start points: what others are compared with, and what is known to be
    good at its end. Some of them are behind at each rung: momentum at a high rate that a cosine lowers was at
    35 % after two of ten epochs, the article's recipe at 48 %.
    """

    def __init__(self, rung: int, starts: Sequence[Mapping[str, Value]]) -> None:
        """A pruner that judges first after `rung` epochs, and spares trials with the parameters `starts`."""
        super().__init__(min_resource=rung, reduction_factor=2)
        self._starts = starts

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a running trial is to be stopped after the epoch that it has just reported."""
        # Asked in any case, because others are compared with what it notes there.
        is_behind = super().prune(study, trial)
        return is_behind and not self._is_spared(trial)

    def _is_spared(self, trial: FrozenTrial) -> bool:
        if trial.number == YARDSTICK:
            return True
        # By number alone it might be an enqueued one, or one of a study that is older than start points.
        index = trial.number - FIRST_START
        return 0 <= index < len(self._starts) and self._starts[index].items() <= trial.params.items()


def build_pruner(settings: Settings) -> SparingPruner:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    At the first rung and at each doubling of its epochs, a trial goes on if it is in the upper half of all
    that got there, the pruned ones included: it works from the second trial on, and stops half of the trials
    at each rung however good the first one was. The first rung is a 25th of the longest trial, and not epoch
    1, where a high dropout rate looks worse than it is.
    """
    return SparingPruner(first_rung(settings), start_points(settings.capped_space))


def first_rung(settings: Settings) -> int:
    """The epochs after which trials are judged first."""
    return max(FIRST_RUNG_LEAST, settings.capped_space.max_epochs // FIRST_RUNG_DIVISOR)
