"""The ways to search that `benchmarks/replay.py` compares."""

from collections.abc import Callable

from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from simulation import Method

from search.strategy import TrialSeededSampler, build_pruner
from search.study import Settings

SAMPLERS: dict[str, Callable[[Settings], BaseSampler]] = {
    "random": lambda settings: RandomSampler(seed=settings.seed),
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
RANDOM = "random/none"
"""What the others are compared with."""
PAIRS = (
    *("random/halving2", "tpe/none", "tpe/median", "tpe/patient", "tpe/halving2", "tpe/halving3"),
    *("tpe/halving4", "tpe/hyperband", "gp/none", "gp/halving2", "cmaes/none", "cmaes/halving2"),
)


def _pair(name: str) -> Method:
    sampler, pruner = name.split("/")
    return Method(name, SAMPLERS[sampler], PRUNERS[pruner])


METHODS: dict[str, Method] = {
    **{name: _pair(name) for name in (RANDOM, *PAIRS)},
    "default": Method("default", TrialSeededSampler, build_pruner),
}
"""By name. No Wilcoxon pruner: it compares two trials on the same instances, in whatever order (Optuna's
`WilcoxonPruner`); the epochs of a training are no such instances, each builds on the one before."""
