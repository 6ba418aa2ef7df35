"""A study: what it remembers, which wishes it refuses, how it begins."""

import io
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.errors import SpaceError, StudyError
from search.named_spaces import NAMED
from search.ranges import Choices, NumberRange
from search.space import Space
from search.strategy import attach_strategy
from search.study import (
    METRIC,
    SETTINGS_KEY,
    Settings,
    Wishes,
    open_or_create_study,
    open_study,
)
from search.study_note import note_attrs
from search.summary import RECIPE_KEY
from storage.database import Database, open_database
from storage.errors import StorageUrlError
from trainer.recipe import ARTICLE, LIMITS, Recipe

ADAM_ONLY = Space(
    "adam.toml", (Choices("optimizer", ("adam",)), NumberRange("learning_rate", 1e-4, 1e-3, log=True))
)
SETTINGS = st.builds(
    Settings,
    space=st.sampled_from([*NAMED.values(), ADAM_ONLY]),
    max_epochs=st.none() | st.integers(1, 10_000),
    train_samples=st.integers(1, 40_000),
    seed=st.integers(0, 2**31 - 1),
    artifacts=st.none() | st.sampled_from(["file:///somewhere", "s3://bucket/prefix"]),
    folder=st.just("a-folder"),
)


@given(settings=SETTINGS)
def test_settings_survive_json(settings: Settings) -> None:
    """What a study remembers is what it was given."""
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_settings_of_the_version_before_are_read() -> None:
    """As that version wrote them; the space has no word on the fields that came later, and is the same."""
    text = """{"space": {"name": "article", "ranges": {
        "dropout_block1": {"low": 0.0, "high": 0.6, "log": false, "reason": "r"},
        "dropout_block2": {"low": 0.0, "high": 0.6, "log": false, "reason": "r"},
        "dropout_block3": {"low": 0.0, "high": 0.6, "log": false, "reason": "r"},
        "dropout_dense": {"low": 0.0, "high": 0.6, "log": false, "reason": "r"},
        "learning_rate": {"low": 0.0001, "high": 0.1, "log": true, "reason": "r"},
        "optimizer": {"choices": ["sgd", "momentum", "nesterov", "rmsprop", "adam"], "reason": "r"},
        "epochs": {"low": 5, "high": 200, "log": true, "reason": "r"}}},
        "max_epochs": null, "train_samples": 40000, "seed": 0, "artifacts": null, "folder": ""}"""
    settings = Settings.from_dict(json.loads(text))
    assert Wishes(NAMED["article"]).conflicts(settings) == []
    assert settings.space.conditional == ()


@given(settings=SETTINGS)
def test_settings_never_contradict_themselves(settings: Settings) -> None:
    """Whoever repeats the options that made a study may go on with it."""
    wishes = Wishes(
        settings.space, settings.max_epochs, settings.train_samples, settings.seed, settings.artifacts
    )

    assert wishes.conflicts(settings) == []
    assert Wishes().conflicts(settings) == []
    # Each study that keeps files elsewhere has a folder that no other has.
    made = wishes.settings()
    assert replace(made, folder="a-folder") == settings
    assert (made.folder == "") == (settings.artifacts is None)
    assert settings.artifacts is None or wishes.settings().folder != made.folder


@given(settings=SETTINGS, number=st.integers(0, 2**31))
def test_each_trial_has_a_seed_a_recipe_may_have(settings: Settings, number: int) -> None:
    """Trial n trains with the study's seed + n, and neighbours differ."""
    seed = settings.trial_seed(number)

    assert Recipe(seed=seed).seed == (settings.seed + number) % (LIMITS["seed"].high + 1)
    assert settings.trial_seed(number + 1) != seed


@given(settings=SETTINGS)
def test_trial_0_is_the_articles_recipe_capped(settings: Settings) -> None:
    """Nothing but epochs and seed can differ, and epochs only downwards."""
    recipe = settings.article_recipe

    assert recipe == Recipe(epochs=min(100, settings.max_epochs or 100), seed=settings.seed)


@pytest.mark.parametrize("name", ["cifar10", "a b/c?&`d`", "it's", "x" * 512])
def test_a_new_studys_page_says_how_to_fetch_the_best(database: Database, name: str) -> None:
    """optuna-dashboard finds the note, whole; it is the user's from then on."""
    from optuna_dashboard import get_note, save_note

    opened, _ = open_or_create_study(database, name, Wishes())
    note = get_note(opened.study)
    assert shlex.quote(name).replace("`", "'") in note
    assert f"/best.h5?study={quote(name, safe='')})" in note
    save_note(opened.study, "mine")
    open_or_create_study(database, name, Wishes())
    assert get_note(opened.study) == "mine"


def test_a_name_too_long_for_the_note_gets_none() -> None:
    """A note that is cut would name another study."""
    assert note_attrs("ü" * 400) == {}


def test_a_new_study_remembers_its_settings(database: Database, url: str) -> None:
    """A second process that opens it by its name alone reads them."""
    wishes = Wishes(ADAM_ONLY, max_epochs=7, train_samples=300, seed=5)
    opened, created = open_or_create_study(database, "s", wishes)
    assert created
    assert opened.settings == Settings(ADAM_ONLY, 7, 300, 5)

    elsewhere = open_database(url)
    assert open_study(elsewhere, "s").settings == opened.settings
    again, created = open_or_create_study(elsewhere, "s", Wishes())
    assert (again.settings, created) == (opened.settings, False)
    assert again.study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert again.study.metric_names == [METRIC]
    elsewhere.close()


def test_a_study_has_defaults_for_what_nobody_asked(database: Database) -> None:
    """The article's space, all training images, no cap, seed 0."""
    opened, _ = open_or_create_study(database, "s", Wishes())

    assert opened.settings == Settings(NAMED["article"], None, 40_000, 0)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (Wishes(max_epochs=8), ["max-epochs: the study has 7, --max-epochs gives 8"]),
        (Wishes(train_samples=301), ["train-samples: the study has 300, --train-samples gives 301"]),
        (Wishes(seed=0), ["seed: the study has 5, --seed gives 0"]),
        (
            Wishes(space=ADAM_ONLY, seed=6),
            ["optimizer: the study has ", "--space gives adam (fixed)", "learning_rate: ", "--seed gives 6"],
        ),
    ],
)
def test_other_wishes_are_refused_with_the_differences(
    database: Database, wishes: Wishes, words: list[str]
) -> None:
    """Each difference is shown with both values, in one line that says what to do; the study stays."""
    settings = open_or_create_study(database, "s", Wishes(None, 7, 300, 5))[0].settings

    with pytest.raises(StudyError) as refused:
        open_or_create_study(database, "s", wishes)

    for word in (*words, "name a new study with --study"):
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)
    assert open_study(database, "s").settings == settings


def test_a_space_that_is_quite_another_is_told_by_its_name(database: Database) -> None:
    """Two dozen fields would fill the screen."""
    open_or_create_study(database, "s", Wishes(space=NAMED["everything"]))

    with pytest.raises(StudyError) as refused:
        open_or_create_study(database, "s", Wishes(space=NAMED["article"]))

    told = str(refused.value)
    assert "space: the study has everything, --space gives article, which differ in 2" in told
    assert len(told) < 250


def test_a_cap_is_refused_where_the_study_has_none(database: Database) -> None:
    """It would make trials that cannot be compared with the ones before."""
    open_or_create_study(database, "s", Wishes())

    with pytest.raises(StudyError, match="max-epochs: the study has none, --max-epochs gives 3"):
        open_or_create_study(database, "s", Wishes(max_epochs=3))


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(),
        Wishes(max_epochs=7),
        Wishes(ADAM_ONLY, 7, 300, 5),
        Wishes(space=Space("renamed.toml", tuple(reversed(ADAM_ONLY.ranges)))),
    ],
)
def test_the_same_wishes_continue(database: Database, wishes: Wishes) -> None:
    """All of them, some or none; a space counts by its ranges, not by its name."""
    open_or_create_study(database, "s", Wishes(ADAM_ONLY, 7, 300, 5))

    opened, created = open_or_create_study(database, "s", wishes)

    assert not created
    assert opened.settings == Settings(ADAM_ONLY, 7, 300, 5)
    assert len(opened.study.trials) == 1


def test_trial_0_waits_with_the_articles_recipe_and_parameters(database: Database) -> None:
    """The first worker that asks gets it, whole."""
    opened, _ = open_or_create_study(database, "s", Wishes(max_epochs=3, seed=9))
    (waiting,) = opened.study.trials

    assert waiting.state == TrialState.WAITING
    assert Recipe.from_dict(waiting.user_attrs[RECIPE_KEY]) == Recipe(epochs=3, seed=9)
    fixed = waiting.system_attrs["fixed_params"]
    assert fixed["learning_rate"] == ARTICLE.learning_rate
    assert fixed["optimizer"] == ARTICLE.optimizer
    assert "epochs" not in fixed
    assert attach_strategy(opened).ask().number == 0


def test_trial_0_is_the_articles_in_a_space_that_excludes_it(database: Database) -> None:
    """The yardstick does not move; of its parameters only those in the space are enqueued."""
    opened, _ = open_or_create_study(database, "s", Wishes(ADAM_ONLY, max_epochs=3))
    (waiting,) = opened.study.trials

    assert Recipe.from_dict(waiting.user_attrs[RECIPE_KEY]) == Recipe(epochs=3)
    assert waiting.system_attrs["fixed_params"] == {}


def test_an_unknown_name_lists_the_studies_there_are(database: Database) -> None:
    """Reading a study never makes one."""
    with pytest.raises(StudyError, match=r"has no study 'x' \(it has: none\); `cnn-search init` makes one"):
        open_study(database, "x")
    for name in ("first", "second"):
        open_or_create_study(database, name, Wishes())

    with pytest.raises(StudyError, match=r"has no study 'x' \(it has: first, second\)"):
        open_study(database, "x")
    assert optuna.get_all_study_names(database.storage) == ["first", "second"]


@pytest.mark.parametrize(
    "foreign",
    [
        lambda study: study.add_trial(optuna.create_trial(value=1.0)),
        lambda study: study.set_user_attr(SETTINGS_KEY, "nonsense"),
        lambda study: study.set_user_attr(SETTINGS_KEY, {"space": Space("x", ()).to_dict(), "new": 1}),
    ],
    ids=["trials of another program", "settings of another program", "settings of another version"],
)
def test_a_foreign_study_is_refused_and_left_alone(
    database: Database, foreign: Callable[[optuna.Study], Any]
) -> None:
    """Searching in it would mix trials that have nothing in common."""
    study = optuna.create_study(storage=database.storage, study_name="s", direction="maximize")
    foreign(study)
    before = (study.user_attrs, len(study.trials))

    with pytest.raises(StudyError, match="'s' was made by another program or version; name a new one"):
        open_or_create_study(database, "s", Wishes())
    with pytest.raises(StudyError, match="made by another program"):
        open_study(database, "s")
    assert (study.user_attrs, len(study.trials)) == before


def test_an_empty_study_that_minimises_is_foreign(database: Database) -> None:
    """It would take the worst model for the best."""
    study = optuna.create_study(storage=database.storage, study_name="s", direction="minimize")

    with pytest.raises(StudyError, match="made by another program"):
        open_or_create_study(database, "s", Wishes())
    assert study.user_attrs == {}


def test_a_space_of_another_version_is_refused(database: Database) -> None:
    """The message shows what was remembered."""
    opened, _ = open_or_create_study(database, "s", Wishes())
    values = opened.settings.to_dict()
    values["space"]["ranges"]["warmth"] = {"low": 1, "high": 2}
    opened.study.set_user_attr(SETTINGS_KEY, values)

    with pytest.raises(SpaceError, match="warmth"):
        open_study(database, "s")


@pytest.mark.parametrize("missing", ["set_user_attr", "enqueue_trial", "set_metric_names"])
def test_a_study_left_half_made_is_completed(
    database: Database, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Whoever comes next does what the process that died did not get to, and once."""

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, missing, die)
        open_or_create_study(database, "s", Wishes(max_epochs=2, seed=4))

    opened, _ = open_or_create_study(database, "s", Wishes(max_epochs=2, seed=4))

    assert opened.settings == Settings(NAMED["article"], 2, seed=4)
    assert opened.study.metric_names == [METRIC]
    (waiting,) = opened.study.trials
    assert Recipe.from_dict(waiting.user_attrs[RECIPE_KEY]) == Recipe(epochs=2, seed=4)


def test_the_settings_of_a_half_made_study_hold(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trial 0 is enqueued by what the study remembers, not by what the next process would like."""
    opened, _ = open_or_create_study(database, "other", Wishes())
    study = optuna.create_study(storage=database.storage, study_name="s", direction="maximize")
    study.set_user_attr(SETTINGS_KEY, Settings(ADAM_ONLY, max_epochs=2).to_dict())

    with pytest.raises(StudyError, match="max-epochs: the study has 2, --max-epochs gives 9"):
        open_or_create_study(database, "s", Wishes(max_epochs=9))

    (waiting,) = study.trials
    assert Recipe.from_dict(waiting.user_attrs[RECIPE_KEY]).epochs == 2
    assert len(opened.study.trials) == 1


def test_a_study_remembers_where_its_files_are(database: Database, url: str, tmp_path: Path) -> None:
    """In a folder of its own there, which whoever opens it finds; another study has another."""
    wishes = Wishes(artifacts=f"file://{tmp_path}/kept")
    opened, _ = open_or_create_study(database, "s", wishes)
    other, _ = open_or_create_study(database, "t", wishes)
    opened.artifacts.write("a", io.BytesIO(b"file"))

    elsewhere = open_database(url)
    found = open_study(elsewhere, "s")
    assert found.settings == opened.settings
    assert found.artifacts.open_reader("a").read() == b"file"
    assert (tmp_path / "kept" / opened.settings.folder / "a").read_bytes() == b"file"
    assert other.settings.folder != opened.settings.folder
    again, created = open_or_create_study(elsewhere, "s", wishes)
    assert (again.settings, created) == (opened.settings, False)
    elsewhere.close()


@pytest.mark.parametrize("is_outside", [False, True])
def test_files_cannot_move_within_a_study(database: Database, tmp_path: Path, is_outside: bool) -> None:
    """What was stored first would be missing from the new place."""
    has = f"file://{tmp_path}/a" if is_outside else None
    open_or_create_study(database, "s", Wishes(artifacts=has))

    with pytest.raises(StudyError) as refused:
        open_or_create_study(database, "s", Wishes(artifacts=f"file://{tmp_path}/b"))

    shown = "none" if has is None else has
    assert f"artifacts: the study has {shown}, --artifacts gives file://{tmp_path}/b" in str(refused.value)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("place", ["folder", "http://host/x", "file://host/x", "file:///", "s3://k:secret@b"])
def test_a_place_for_files_that_is_none_makes_no_study(database: Database, place: str) -> None:
    """The forms are listed, and what may be a key is not shown."""
    with pytest.raises(StorageUrlError, match="give file:///folder or s3://bucket/prefix") as refused:
        open_or_create_study(database, "s", Wishes(artifacts=place))

    assert "secret" not in str(refused.value)
    assert optuna.get_all_study_names(database.storage) == []


def test_a_study_of_the_version_before_keeps_its_files_in_the_database(database: Database) -> None:
    """Its settings do not say where."""
    opened, _ = open_or_create_study(database, "s", Wishes(max_epochs=2))
    values = opened.settings.to_dict()
    opened.study.set_user_attr(
        SETTINGS_KEY, {key: values[key] for key in values if key not in ("artifacts", "folder")}
    )

    assert open_study(database, "s").settings == opened.settings
    assert open_study(database, "s").artifacts.outside is None
