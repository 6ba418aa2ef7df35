"""A search over recorded curves: simulated workers, the study, sampler and pruner of a real one."""

import heapq
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from traces import Array, Trace

from search.ranges import NumberRange
from search.space import params_of, suggest
from search.strategy import YARDSTICK
from search.study import Settings
from search.summary import RECIPE_KEY
from trainer.recipe import Recipe


@dataclass(frozen=True)
class Method:
    """A way to search.

    Attributes:
        name: What tables call it.
        sampler: Makes its sampler for a study of these settings.
        pruner: Makes its pruner.
        is_slow: Whether a search takes minutes.
        whole: Whether all trials may take all epochs; otherwise they are drawn, as the sampler will.
    """

    name: str
    sampler: Callable[[Settings], BaseSampler]
    pruner: Callable[[Settings], BasePruner]
    is_slow: bool = False
    whole: bool = False

    def seeds(self, most: int, slow: int) -> int:
        """How many it is tried with: `slow` of a slow one, else `most`."""
        return slow if self.is_slow else most


class Curves(Protocol):
    """What is known of recipes' learning curves; `surrogate.Surrogate` is one."""

    def mean(self, recipe: Recipe) -> Array:
        """The expected accuracies after each epoch, (epochs,)."""

    def draw(self, recipe: Recipe, random: np.random.Generator) -> Array:
        """The accuracies of one training, (epochs,)."""


@dataclass
class _Running:
    trial: optuna.Trial
    recipe: Recipe
    curve: Array
    epoch: int = 0


def replay(method: Method, curves: Curves, settings: Settings, workers: int, budget_epochs: int) -> Trace:
    """Search until `budget_epochs` are spent.

    An epoch takes every worker the same time. What a worker does at the end of one is what `search.worker`
    does: it reports, and asks whether to go on; trial 0 is never pruned.
    """
    # Hyperband assigns its brackets by the name, which would be random.
    study = optuna.create_study(
        study_name=f"{method.name} {settings.seed}",
        direction="maximize",
        sampler=method.sampler(settings),
        pruner=method.pruner(settings),
    )
    space = settings.capped_space
    if method.whole:
        space = space.replace(NumberRange("epochs", space.max_epochs, space.max_epochs))
    article = settings.article_recipe
    study.enqueue_trial(params_of(article, space), user_attrs={RECIPE_KEY: article.to_dict()})
    random = np.random.default_rng(settings.seed)

    def begin() -> _Running:
        trial = study.ask()
        remembered = trial.user_attrs.get(RECIPE_KEY)
        seed = settings.trial_seed(trial.number)
        if remembered is None:
            recipe = suggest(trial, space, seed)
        else:
            suggest(trial, space, seed)
            recipe = Recipe.from_dict(remembered)
        return _Running(trial, recipe, curves.draw(recipe, random))

    # Ties are broken by the worker, and a worker that begins late is never ahead.
    running = {worker: begin() for worker in range(workers)}
    clock = [(1.0 + worker / workers, worker) for worker in range(workers)]
    heapq.heapify(clock)
    spent, best, winner = 0, -np.inf, None
    epochs, values, truths = [], [], []
    while spent < budget_epochs:
        time, worker = heapq.heappop(clock)
        spent += 1
        one = running[worker]
        accuracy = float(one.curve[one.epoch])
        one.epoch += 1
        one.trial.report(accuracy, one.epoch)
        is_last = one.epoch == one.recipe.epochs
        if is_last or (one.trial.should_prune() and one.trial.number != YARDSTICK):
            state = optuna.trial.TrialState.COMPLETE if is_last else optuna.trial.TrialState.PRUNED
            study.tell(one.trial, accuracy if is_last else None, state=state)
            if is_last and accuracy > best:
                best, winner = accuracy, one.recipe
                epochs.append(spent)
                values.append(best)
                truths.append(_worth(curves, one.recipe))
            running[worker] = begin()
        heapq.heappush(clock, (time + 1.0, worker))
    trials = len(study.get_trials(deepcopy=False))
    return Trace(np.array(epochs), np.array(values), np.array(truths), trials, winner)


def _worth(curves: Curves, recipe: Recipe) -> float:
    return float(curves.mean(recipe)[recipe.epochs - 1])


def be_quiet() -> None:
    """Neither logs nor warnings of what is experimental."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
