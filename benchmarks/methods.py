"""The ways to search that `benchmarks/replay.py` compares."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from simulation import Method

from search.start_points import start_points
from search.strategy import EPOCHS, YARDSTICK, SparingPruner, TrialSeededSampler, build_pruner, first_rung
from search.study import Settings

DEFAULT = "default"
"""What `cnn-search run` does."""
NO_STARTS = "default: no starts"
"""What it does where a space has no start point."""
SAMPLERS: dict[str, Callable[[Settings], BaseSampler]] = {
    "random": lambda settings: RandomSampler(seed=settings.seed),
    "tpe": lambda settings: TPESampler(seed=settings.seed),
    "gp": lambda settings: GPSampler(seed=settings.seed, deterministic_objective=False),
    "cmaes": lambda settings: CmaEsSampler(seed=settings.seed, consider_pruned_trials=True),
}
PRUNERS: dict[str, Callable[[Settings], BasePruner]] = {
    "none": lambda settings: NopPruner(),
    "median": lambda settings: MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    "patient": lambda settings: PatientPruner(MedianPruner(n_startup_trials=5, n_warmup_steps=1), patience=2),
    "halving2": lambda settings: SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
    "halving3": lambda settings: SuccessiveHalvingPruner(min_resource=2, reduction_factor=3),
    "halving4": lambda settings: SuccessiveHalvingPruner(min_resource=1, reduction_factor=4),
    "hyperband": lambda settings: HyperbandPruner(
        min_resource=1, max_resource=settings.capped_space.max_epochs, reduction_factor=3
    ),
}


class NoStartsSampler(TrialSeededSampler):
    """The default sampler without the start points."""

    def __init__(self, settings: Settings) -> None:
        """A sampler for a study of these settings."""
        super().__init__(settings)
        self._starts = ()


class NoStartsAllEpochsSampler(NoStartsSampler):
    """That, but each trial may take all epochs."""

    def __init__(self, settings: Settings) -> None:
        """A sampler for a study of these settings."""
        super().__init__(settings)
        self._whole_share = 1.0


class ThirdRandomSampler(TrialSeededSampler):
    """The default sampler, but a third of the trials is drawn at random however much is known.

    As in BOHB (Falkner et al. 2018, arXiv:1807.01774): TPE alone may stay with recipes that were lucky once.
    """

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the default's; nothing is modelled for these."""
        return {} if self._is_random(trial) else super().infer_relative_search_space(study, trial)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the default's; all but the epochs of these at random."""
        if self._is_random(trial) and not self._is_start(trial) and param_name != EPOCHS:
            return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _is_random(self, trial: FrozenTrial) -> bool:
        draw = np.random.default_rng((self._seed, trial.number, 1)).random()
        return bool(draw < 1 / 3)


class NoModelSampler(TrialSeededSampler):
    """The default sampler without TPE: after the start points it draws at random for ever."""

    def __init__(self, settings: Settings) -> None:
        """A sampler for a study of these settings."""
        super().__init__(settings)
        self._n_startup_trials = sys.maxsize


class NeitherSampler(NoStartsSampler, NoModelSampler):
    """The default sampler without the start points and without TPE."""


class BaselinePruner(SparingPruner):
    """The default pruner, that from its third rung on also stops trials that never were where trial 0 is.

    What does not match the article's recipe is of no use however it compares with other trials.
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a running trial is to be stopped after the epoch that it has just reported."""
        is_behind = super().prune(study, trial)
        step = trial.last_step
        if is_behind or step is None or step < 4 * self._min_resource or self._is_spared(trial):
            return is_behind
        article = study.get_trials(deepcopy=False)[YARDSTICK].intermediate_values
        return step in article and max(trial.intermediate_values.values()) < article[step]


RANDOM = "random/none"
WHOLE = "whole random/none"
"""What the others are compared with: random search without pruning, of any number of epochs and of all."""
EPOCHS_DRAWN = (RANDOM, "tpe/none", "tpe/halving2")
"""Their trials' epochs are a hyperparameter like any other."""
EPOCHS_WHOLE = (
    *("random/none", "random/halving2"),
    *(f"tpe/{pruner}" for pruner in PRUNERS),
    *("cmaes/none", "cmaes/halving2", "gp/none", "gp/halving2"),
)
"""All of their trials may take all epochs, as most of the default's."""


def _pair(pair: str, *, whole: bool) -> Method:
    sampler, pruner = pair.split("/")
    name = f"whole {pair}" if whole else pair
    # Fitting the Gaussian process takes minutes in each search.
    return Method(name, SAMPLERS[sampler], PRUNERS[pruner], is_slow=sampler == "gp", whole=whole)


def _without_starts(settings: Settings) -> BasePruner:
    return SparingPruner(first_rung(settings), ())


_METHODS = (
    *(_pair(pair, whole=False) for pair in EPOCHS_DRAWN),
    *(_pair(pair, whole=True) for pair in EPOCHS_WHOLE),
    Method(DEFAULT, TrialSeededSampler, build_pruner),
    Method(
        "default: baseline-aware",
        TrialSeededSampler,
        lambda settings: BaselinePruner(first_rung(settings), start_points(settings.capped_space)),
    ),
    Method("default: third random", ThirdRandomSampler, build_pruner),
    Method(NO_STARTS, NoStartsSampler, _without_starts),
    Method("no starts: all epochs", NoStartsAllEpochsSampler, _without_starts),
    Method("no starts/halving3", NoStartsSampler, PRUNERS["halving3"]),
    Method("default: no TPE", NoModelSampler, build_pruner),
    Method("no starts/no TPE", NeitherSampler, _without_starts),
)
METHODS: dict[str, Method] = {method.name: method for method in _METHODS}
"""By name. No Wilcoxon pruner: it compares two trials on the same instances, in whatever order (Optuna's
`WilcoxonPruner`); the epochs of a training are no such instances, each builds on the one before."""
