"""A search over recorded curves: simulated workers, the study, sampler and pruner of a real one."""

import heapq
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from sklearn.exceptions import ConvergenceWarning
from surrogate import Array, Surrogate

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
        prepare: What is done to a new study besides.
    """

    name: str
    sampler: Callable[[Settings], BaseSampler]
    pruner: Callable[[Settings], BasePruner]
    prepare: Callable[[Study, Settings], None] = lambda study, settings: None


@dataclass(frozen=True)
class Trace:
    """How a search went.

    Attributes:
        epochs: Epochs spent by all workers when a trial completed, in order.
        values: The best value of a complete trial by then.
        truths: What the best trial's recipe is worth without noise, by then.
        trials: Trials begun.
    """

    epochs: Array
    values: Array
    truths: Array
    trials: int

    def at(self, budget: int, *, truth: bool = False) -> float:
        """The best value, or what it is worth, after so many epochs; NaN before any trial completed."""
        index = int(np.searchsorted(self.epochs, budget, side="right")) - 1
        return float((self.truths if truth else self.values)[index]) if index >= 0 else float("nan")

    def epochs_to(self, target: float) -> float:
        """Epochs spent until a value of at least `target` was had; infinite where it never was."""
        reached = np.flatnonzero(self.values >= target)
        return float(self.epochs[reached[0]]) if len(reached) else float("inf")


@dataclass
class _Running:
    trial: optuna.Trial
    recipe: Recipe
    curve: Array
    epoch: int = 0


def replay(
    method: Method, surrogate: Surrogate, settings: Settings, workers: int, budget_epochs: int
) -> Trace:
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
    article = settings.article_recipe
    study.enqueue_trial(params_of(article, space), user_attrs={RECIPE_KEY: article.to_dict()})
    method.prepare(study, settings)
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
        return _Running(trial, recipe, surrogate.draw(recipe, random))

    # Ties are broken by the worker, and a worker that begins late is never ahead.
    running = {worker: begin() for worker in range(workers)}
    clock = [(1.0 + worker / workers, worker) for worker in range(workers)]
    heapq.heapify(clock)
    spent, best, truth = 0, -np.inf, 0.0
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
                best, truth = accuracy, _worth(surrogate, one.recipe)
                epochs.append(spent)
                values.append(best)
                truths.append(truth)
            running[worker] = begin()
        heapq.heappush(clock, (time + 1.0, worker))
    return Trace(np.array(epochs), np.array(values), np.array(truths), len(study.get_trials(deepcopy=False)))


def _worth(surrogate: Surrogate, recipe: Recipe) -> float:
    quiet = surrogate.mean(recipe)
    return float(quiet[recipe.epochs - 1])


def be_quiet() -> None:
    """Neither logs nor warnings of what is experimental."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    # A surrogate's length scale at its bound says that a hyperparameter hardly matters.
    warnings.simplefilter("ignore", ConvergenceWarning)
