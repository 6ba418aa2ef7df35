"""The ways to search that `benchmarks/replay.py` compares."""

from collections.abc import Callable
from typing import Any

from optuna.distributions import BaseDistribution, IntDistribution
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
from optuna.trial import FrozenTrial, TrialState
from simulation import Method

from search.strategy import SparingPruner, TrialSeededSampler, build_pruner, first_rung
from search.study import Settings
from trainer.recipe import ARTICLE

DEFAULT = "default"
"""What `cnn-search run` does."""
SAMPLERS: dict[str, Callable[[Settings], BaseSampler]] = {
    "random": lambda settings: RandomSampler(seed=settings.seed),
    "whole": lambda settings: WholeRandomSampler(seed=settings.seed),
    "tpe": lambda settings: TPESampler(seed=settings.seed),
    "gp": lambda settings: GPSampler(seed=settings.seed, deterministic_objective=False),
    "cmaes": lambda settings: CmaEsSampler(seed=settings.seed),
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
KEEP = 0.6
"""How likely a field keeps the article's value in a sparse draw."""


class SparseStartSampler(TrialSeededSampler):
    """The default sampler, whose first trials change a part of the article's recipe instead of all of it.

    Of a recipe that is random in thirty fields, one bad field is enough to hide twenty-nine good ones.
    """

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As `TPESampler`'s; while that draws at random, the article's value with probability `KEEP`."""
        value = super().sample_independent(study, trial, param_name, param_distribution)
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        article = getattr(ARTICLE, param_name)
        if len(ended) >= self._n_startup_trials or self._rng.rng.random() >= KEEP:
            return value
        return (
            article if param_distribution._contains(param_distribution.to_internal_repr(article)) else value
        )


class NoStartsSampler(TrialSeededSampler):
    """The default sampler without the start points."""

    def __init__(self, settings: Settings) -> None:
        """A sampler for a study of these settings."""
        super().__init__(settings)
        self._starts = ()


class WholeRandomSampler(RandomSampler):
    """Random search whose trials may all take all epochs."""

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As `RandomSampler`'s, but for epochs."""
        value = super().sample_independent(study, trial, param_name, param_distribution)
        return param_distribution.high if isinstance(param_distribution, IntDistribution) else value


RANDOM = "random/none"
"""What the others are compared with."""
PAIRS = (
    *(
        "whole/none",
        "whole/halving2",
        "random/halving2",
        "tpe/none",
        "tpe/median",
        "tpe/patient",
        "tpe/halving2",
        "tpe/halving3",
    ),
    *("tpe/halving4", "tpe/hyperband", "gp/none", "gp/halving2", "cmaes/none", "cmaes/halving2"),
)


def _pair(name: str) -> Method:
    sampler, pruner = name.split("/")
    return Method(name, SAMPLERS[sampler], PRUNERS[pruner])


METHODS: dict[str, Method] = {
    **{name: _pair(name) for name in (RANDOM, *PAIRS)},
    DEFAULT: Method(DEFAULT, TrialSeededSampler, build_pruner),
    "default, no starts": Method(
        "default, no starts",
        NoStartsSampler,
        lambda settings: SparingPruner(first_rung(settings), ()),
    ),
    "default, sparse": Method("default, sparse", SparseStartSampler, build_pruner),
}
"""By name. No Wilcoxon pruner: it compares two trials on the same instances, in whatever order (Optuna's
`WilcoxonPruner`); the epochs of a training are no such instances, each builds on the one before."""
