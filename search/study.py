"""A study: what it searches, remembered in the database, and how its trials are chosen and stopped early."""

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from search.errors import StudyError
from search.space import NAMED, Space, difference, params_of
from search.summary import RECIPE_KEY
from storage.database import Database
from trainer.cifar10 import TRAIN_IMAGES
from trainer.recipe import ARTICLE, LIMITS, Recipe

SETTINGS_KEY: Final = "cnn_search"
"""Study user attribute: the settings, as `Settings.to_dict` gives them."""
METRIC: Final = "validation accuracy"
FIRST_RUNG_LEAST: Final = 2
"""The pruner judges no trial before this epoch."""
FIRST_RUNG_DIVISOR: Final = 25
"""The pruner judges first after this part of the space's longest trial."""


@dataclass(frozen=True)
class Settings:
    """What all trials of a study have in common; values of trials that differ in it could not be compared.

    Attributes:
        space: Where recipes are drawn from, before the cap.
        max_epochs: Cap on every trial's epochs, the article's own included; None for no cap.
        train_samples: How many of the 40,000 training images are used, the first ones.
        seed: Fixes what the sampler draws for a trial, given the results before it; trial n trains with seed
            + n.
    """

    space: Space
    max_epochs: int | None = None
    train_samples: int = TRAIN_IMAGES
    seed: int = 0

    @property
    def capped_space(self) -> Space:
        """The space that trials are drawn from."""
        return self.space if self.max_epochs is None else self.space.cap_epochs(self.max_epochs)

    @property
    def article_recipe(self) -> Recipe:
        """Trial 0: the article's own recipe, as far as the cap allows."""
        epochs = ARTICLE.epochs if self.max_epochs is None else min(ARTICLE.epochs, self.max_epochs)
        return Recipe.from_dict({**ARTICLE.to_dict(), "epochs": epochs, "seed": self.trial_seed(0)})

    def trial_seed(self, number: int) -> int:
        """The seed that trial `number` trains with."""
        return int((self.seed + number) % (LIMITS["seed"].high + 1))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return {
            "space": self.space.to_dict(),
            "max_epochs": self.max_epochs,
            "train_samples": self.train_samples,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Settings":
        """The settings that `to_dict` gave.

        Raises:
            SpaceError: The space is not one that this version knows.
        """
        return cls(**{**values, "space": Space.from_dict(values["space"])})


@dataclass(frozen=True)
class Wishes:
    """The settings that a user asked for; None for what was left open."""

    space: Space | None = None
    max_epochs: int | None = None
    train_samples: int | None = None
    seed: int | None = None

    def settings(self) -> Settings:
        """The settings of a new study: what was asked for, defaults elsewhere."""
        return Settings(
            space=NAMED["article"] if self.space is None else self.space,
            max_epochs=self.max_epochs,
            train_samples=TRAIN_IMAGES if self.train_samples is None else self.train_samples,
            seed=0 if self.seed is None else self.seed,
        )

    def conflicts(self, settings: Settings) -> list[str]:
        """Where the wishes contradict the settings of a study, one line each."""
        lines = [] if self.space is None else difference(settings.space, self.space)
        for name in ("max_epochs", "train_samples", "seed"):
            wished, remembered = getattr(self, name), getattr(settings, name)
            if wished not in (None, remembered):
                shown = "none" if remembered is None else remembered
                option = name.replace("_", "-")
                lines.append(f"{option}: the study has {shown}, --{option} gives {wished}")
        return lines


@dataclass(frozen=True, eq=False)
class OpenStudy:
    """A study of this project, its settings and the database it lives in."""

    study: Study
    settings: Settings
    database: Database


def open_or_create_study(database: Database, name: str, wishes: Wishes) -> tuple[OpenStudy, bool]:
    """The study `name`, created with trial 0 waiting where it does not exist.

    Returns:
        The study, and whether it was created now.

    Raises:
        StudyError: It exists with other settings than the wishes, or was made by another program.
    """
    with database.exclusive():
        # A process that dies in here leaves a study without settings or trial: the next one goes on with it.
        study = optuna.create_study(
            storage=database.storage, study_name=name, direction="maximize", load_if_exists=True
        )
        if created := _is_blank(study):
            settings = wishes.settings()
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                study.set_metric_names([METRIC])
            study.set_user_attr(SETTINGS_KEY, settings.to_dict())
        if not study.get_trials(deepcopy=False):
            settings = _read_settings(study)
            recipe = settings.article_recipe
            params = params_of(recipe, settings.capped_space)
            study.enqueue_trial(params, user_attrs={RECIPE_KEY: recipe.to_dict()})
    return _opened(study, database, wishes), created


def open_study(database: Database, name: str) -> OpenStudy:
    """The existing study `name`.

    Raises:
        StudyError: It does not exist, or was made by another program.
    """
    try:
        study = optuna.load_study(storage=database.storage, study_name=name)
    except KeyError as error:
        names = ", ".join(optuna.get_all_study_names(database.storage)) or "none"
        raise StudyError(
            f"{database.shown_url} has no study {name!r} (it has: {names}); `cnn-search run` starts one"
        ) from error
    return _opened(study, database, Wishes())


def attach_strategy(opened: OpenStudy) -> Study:
    """The study with its sampler and pruner."""
    return optuna.load_study(
        study_name=opened.study.study_name,
        storage=opened.database.storage,
        sampler=TrialSeededSampler(opened.settings),
        pruner=_build_pruner(opened.settings),
    )


class TrialSeededSampler(TPESampler):
    """TPE whose draws depend on the study's seed, the trial's number and the results so far alone.

    Optuna's own begins its random numbers anew in each process: with the study's seed, every further run and
    every worker beside it would draw the same recipes again.
    """

    def __init__(self, settings: Settings) -> None:
        """A sampler for a study of these settings."""
        super().__init__(seed=settings.seed)
        self._seed = settings.seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin the random numbers anew for this trial."""
        seed = int(np.random.SeedSequence((self._seed, trial.number)).generate_state(1)[0])
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)
        super().before_trial(study, trial)


def _build_pruner(settings: Settings) -> BasePruner:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    At the first rung and at each doubling of its epochs, a trial goes on if it is in the upper half of all
    that got there, the pruned ones included: it works from the second trial on, and stops half of the trials
    at each rung however good the first one was. The first rung is a 25th of the longest trial, and not epoch
    1, where a high dropout rate looks worse than it is.
    """
    first_rung = max(FIRST_RUNG_LEAST, settings.capped_space.max_epochs // FIRST_RUNG_DIVISOR)
    return SuccessiveHalvingPruner(min_resource=first_rung, reduction_factor=2)


def _is_blank(study: Study) -> bool:
    # A study that minimises is another program's, however empty it is.
    return (
        study.directions == [StudyDirection.MAXIMIZE]
        and SETTINGS_KEY not in study.user_attrs
        and not study.get_trials(deepcopy=False)
    )


def _opened(study: Study, database: Database, wishes: Wishes) -> OpenStudy:
    settings = _read_settings(study)
    if conflicts := wishes.conflicts(settings):
        raise StudyError(
            f"study {study.study_name!r} searches otherwise: {'; '.join(conflicts)}. "
            "Leave these options out, or name a new study with --study"
        )
    return OpenStudy(study, settings, database)


def _read_settings(study: Study) -> Settings:
    try:
        return Settings.from_dict(study.user_attrs[SETTINGS_KEY])
    except (KeyError, TypeError) as error:
        raise StudyError(
            f"study {study.study_name!r} was made by another program or version; name a new one with --study"
        ) from error
