"""A study: what it searches and where its files are, remembered in the database."""

import warnings
from collections.abc import Mapping
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
from storage.companions import IDENTITY_KEY
from storage.database import Database
from storage.leases import Leases
from trainer.cifar10 import TRAIN_IMAGES
from trainer.recipe import ARTICLE, LIMITS, Recipe

SETTINGS_KEY: Final = "cnn_search"
"""Study user attribute: the settings, as `Settings.to_dict` gives them."""
PLAN_KEY: Final = "confirm_plan"
"""Study user attribute of a companion, which confirms another study's best recipes: a `ConfirmPlan`."""
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
    """A study of this project, its settings, the database it lives in and the files it keeps.

    `confirms` is the name of the study that it is a companion of (`search.confirm`); None for a search.
    """

    study: Study
    settings: Settings
    database: Database
    artifacts: Artifacts
    confirms: str | None = None

    def leases(self) -> Leases:
        """Which workers run its trials."""
        return self.database.leases(self.study, MAX_RETRIES)

    def check_is_search(self) -> None:
        """See that it is a search, whose trials are drawn and whose best trial means something.

        Raises:
            StudyError: It confirms another study's recipes.
        """
        if self.confirms is not None:
            raise StudyError(
                f"study {self.study.study_name!r} only confirms {self.confirms!r}: name that with --study; "
                "`cnn-search confirm` goes on with it and shows what it came to"
            )


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
        if created := is_blank(study):
            set_up_study(database, study, wishes.settings(), note_attrs(name))
        if not study.get_trials(deepcopy=False):
            settings = _read_settings(study, study.user_attrs)
            recipe = settings.article_recipe
            params = params_of(recipe, settings.capped_space)
            study.enqueue_trial(params, user_attrs={RECIPE_KEY: recipe.to_dict()})
    return _opened(study, database, wishes), created


def set_up_study(database: Database, study: Study, settings: Settings, note: Mapping[str, Any]) -> None:
    """Make a blank study one of this project, its settings last; `note` holds the attributes of its note."""
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        study.set_metric_names([METRIC])
    for key, value in {**note, IDENTITY_KEY: uuid4().hex}.items():
        database.storage.set_study_system_attr(study._study_id, key, value)
    study.set_user_attr(SETTINGS_KEY, settings.to_dict())


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


def is_blank(study: Study) -> bool:
    """Whether it was created just now, or left so by a process that died."""
    # A study that minimises is another program's, however empty it is.
    return (
        study.directions == [StudyDirection.MAXIMIZE]
        and not {SETTINGS_KEY, PLAN_KEY} & study.user_attrs.keys()
        and not study.get_trials(deepcopy=False)
    )


def _opened(study: Study, database: Database, wishes: Wishes) -> OpenStudy:
    attrs = study.user_attrs
    settings = _read_settings(study, attrs)
    if conflicts := wishes.conflicts(settings):
        raise StudyError(
            f"study {study.study_name!r} searches otherwise: {'; '.join(conflicts)}. "
            "Leave these options out, or name a new study with --study"
        )
    artifacts = database.open_artifacts(settings.artifacts, settings.folder)
    # With care: nobody but the commands that need it shall stumble over a damaged plan.
    plan = attrs.get(PLAN_KEY)
    confirms = str(plan.get("study", "?")) if isinstance(plan, dict) else None
    return OpenStudy(study, settings, database, artifacts, confirms)


def _read_settings(study: Study, attrs: Mapping[str, Any]) -> Settings:
    try:
        return Settings.from_dict(attrs[SETTINGS_KEY])
    except (KeyError, TypeError) as error:
        raise StudyError(
            f"study {study.study_name!r} was made by another program or version; name a new one with --study"
        ) from error
