"""A study: what it searches and where its files are, remembered in the database."""

import warnings
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study, StudyDirection

from search.errors import StudyError
from search.named_spaces import NAMED
from search.space import Space, difference, params_of
from search.study_note import note_attrs
from search.summary import RECIPE_KEY
from storage.artifacts import Artifacts, check_outside
from storage.database import Database
from storage.leases import Leases
from trainer.cifar10 import TRAIN_IMAGES
from trainer.recipe import ARTICLE, LIMITS, Recipe

SETTINGS_KEY: Final = "cnn_search"
"""Study user attribute: the settings, as `Settings.to_dict` gives them."""
IDENTITY_KEY: Final = "cnn_search:identity"
"""Study system attribute that no two studies share: SQLite gives a deleted study's id to the next one."""
MOST_DIFFERENCES: Final = 8
"""Fields in which two spaces differ that a message names; where there are more, the spaces' names say it."""
METRIC: Final = "validation accuracy"
MAX_RETRIES: Final = 5
"""How often a trial may lose its worker, or fail in a way that can pass, without an epoch in between."""


@dataclass(frozen=True)
class Settings:
    """What all trials of a study have in common; values of trials that differ in it could not be compared.

    Attributes:
        space: Where recipes are drawn from, before the cap.
        max_epochs: Cap on every trial's epochs, the article's own included; None for no cap.
        train_samples: How many of the 40,000 training images are used, the first ones.
        seed: Fixes what the sampler draws for a trial, given the results before it; trial n trains with seed
            + n.
        artifacts: URL of where files are kept; None for the database.
        folder: The study's own folder or prefix there, which no other study has.
    """

    space: Space
    max_epochs: int | None = None
    train_samples: int = TRAIN_IMAGES
    seed: int = 0
    artifacts: str | None = None
    folder: str = ""

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
            "artifacts": self.artifacts,
            "folder": self.folder,
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
    artifacts: str | None = None

    def settings(self) -> Settings:
        """The settings of a new study: what was asked for, defaults elsewhere."""
        return Settings(
            space=NAMED["article"] if self.space is None else self.space,
            max_epochs=self.max_epochs,
            train_samples=TRAIN_IMAGES if self.train_samples is None else self.train_samples,
            seed=0 if self.seed is None else self.seed,
            artifacts=self.artifacts,
            folder="" if self.artifacts is None else uuid4().hex,
        )

    def conflicts(self, settings: Settings) -> list[str]:
        """Where the wishes contradict the settings of a study, one line each."""
        lines = [] if self.space is None else difference(settings.space, self.space)
        if self.space is not None and len(lines) > MOST_DIFFERENCES:
            names = f"space: the study has {settings.space.name}, --space gives {self.space.name}"
            lines = [f"{names}, which differ in {len(lines)} fields"]
        for name in ("max_epochs", "train_samples", "seed", "artifacts"):
            wished, remembered = getattr(self, name), getattr(settings, name)
            if wished not in (None, remembered):
                shown = "none" if remembered is None else remembered
                option = name.replace("_", "-")
                lines.append(f"{option}: the study has {shown}, --{option} gives {wished}")
        return lines


@dataclass(frozen=True, eq=False)
class OpenStudy:
    """A study of this project, its settings, the database it lives in and the files it keeps."""

    study: Study
    settings: Settings
    database: Database
    artifacts: Artifacts

    def leases(self) -> Leases:
        """Which workers run its trials."""
        return self.database.leases(self.study, MAX_RETRIES)


def open_or_create_study(database: Database, name: str, wishes: Wishes) -> tuple[OpenStudy, bool]:
    """The study `name`, created with trial 0 waiting where it does not exist.

    Returns:
        The study, and whether it was created now.

    Raises:
        StudyError: It exists with other settings than the wishes, or was made by another program.
    """
    if wishes.artifacts is not None:
        check_outside(wishes.artifacts)
    with database.exclusive():
        # A process that dies in here leaves a study without settings or trial: the next one goes on with it.
        study = optuna.create_study(
            storage=database.storage, study_name=name, direction="maximize", load_if_exists=True
        )
        if created := _is_blank(study):
            settings = wishes.settings()
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                study.set_metric_names([METRIC])
            for key, value in {**note_attrs(name), IDENTITY_KEY: uuid4().hex}.items():
                database.storage.set_study_system_attr(study._study_id, key, value)
            study.set_user_attr(SETTINGS_KEY, settings.to_dict())
        if not study.get_trials(deepcopy=False):
            settings = _read_settings(study)
            recipe = settings.article_recipe
            params = params_of(recipe, settings.capped_space)
            study.enqueue_trial(params, user_attrs={RECIPE_KEY: recipe.to_dict()})
    return _opened(study, database, wishes), created


def open_study(database: Database, name: str, wishes: Wishes | None = None) -> OpenStudy:
    """The existing study `name`.

    Raises:
        StudyError: It does not exist, has other settings than the wishes, or was made by another program.
    """
    try:
        study = optuna.load_study(storage=database.storage, study_name=name)
    except KeyError as error:
        names = ", ".join(optuna.get_all_study_names(database.storage)) or "none"
        raise StudyError(
            f"{database.shown_url} has no study {name!r} (it has: {names}); `cnn-search init` makes one"
        ) from error
    return _opened(study, database, wishes or Wishes())


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
    return OpenStudy(study, settings, database, database.open_artifacts(settings.artifacts, settings.folder))


def _read_settings(study: Study) -> Settings:
    try:
        return Settings.from_dict(study.user_attrs[SETTINGS_KEY])
    except (KeyError, TypeError) as error:
        raise StudyError(
            f"study {study.study_name!r} was made by another program or version; name a new one with --study"
        ) from error
