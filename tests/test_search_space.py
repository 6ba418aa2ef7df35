"""What a study searches: ranges, files that change them, and the way to Optuna and back."""

import dataclasses
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.conditions import CONDITIONS, applies
from search.errors import SpaceError, StudyError
from search.named_spaces import NAMED
from search.ranges import CHOICES, SEARCHABLE, Choices, NumberRange, Range, fixed_range
from search.space import Space, difference, params_of, record_params, suggest
from search.space_file import load_space
from trainer.architecture import MAX_PARAMETERS
from trainer.recipe import ARTICLE, LIMITS, OPTIMIZERS, Recipe

pytestmark = pytest.mark.filterwarnings("error")

ARTICLE_SPACE = NAMED["article"]
NAMES = ", ".join(NAMED)


def values_of(field: str) -> st.SearchStrategy[Any]:
    """Every value that a recipe's field may have, but for networks that are too large."""
    if field in CHOICES:
        return st.sampled_from(CHOICES[field])
    limits = LIMITS[field]
    low, high = NETWORK.get(field, (limits.low, limits.high))
    if limits.kind is int:
        return st.integers(int(low), int(high))
    # Nobody searches among numbers below 1e-308.
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def ranges_of(draw: st.DrawFn, field: str) -> Range:
    """Any range of a field."""
    reason = draw(st.text(max_size=5))
    if field in CHOICES:
        return Choices(field, tuple(draw(st.sets(values_of(field), min_size=1))), reason)
    low, high = sorted((draw(values_of(field)), draw(values_of(field))))
    return NumberRange(field, low, high, draw(st.booleans()) and low > 0, reason)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Any space."""
    fields = draw(st.permutations(SEARCHABLE))[: draw(st.integers(0, len(SEARCHABLE)))]
    return Space(draw(st.text(max_size=5)), tuple(draw(ranges_of(field)) for field in fields))


NETWORK: dict[str, tuple[float, float]] = {
    "width": (0.25, 1.0),
    "blocks": (1, 4),
    "convolutions": (1, 2),
    "dense_units": (1, 128),
}
"""Ranges of which no network is above the bound of parameters."""


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any recipe."""
    return Recipe(**{field: draw(values_of(field)) for field in SEARCHABLE}, seed=draw(values_of("seed")))


def assert_in_space(recipe: Recipe, space: Space) -> None:
    """Each field lies in its range, or means nothing and has the article's value."""
    for field, value in recipe.to_dict().items():
        if field != "seed":
            meant = applies(field, recipe.to_dict())
            assert space.range_of(field).holds(value) if meant else value == getattr(ARTICLE, field), field


def has_effect(field: str, space: Space) -> bool:
    """Whether the field means something in a recipe of the space."""
    condition = CONDITIONS.get(field)
    if condition is None:
        return True
    other = space.range_of(condition.field)
    return any(map(condition.holds, other.choices if isinstance(other, Choices) else (other.high,)))


def new_study() -> optuna.Study:
    """A study in memory that draws at random."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def write(folder: Path, text: str) -> str:
    """A space file of that text."""
    path = folder / "my.toml"
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def refusal(name_or_path: str) -> str:
    """What `load_space` says when it refuses; in one or two lines."""
    with pytest.raises(SpaceError) as caught:
        load_space(name_or_path)
    message = str(caught.value)
    assert message.count("\n") < 2
    return message


# ranges and spaces


@pytest.mark.parametrize("name", NAMED)
def test_a_named_space_goes_by_its_key_and_gives_a_reason_for_each_range(name: str) -> None:
    """Each named space is found under its own name, and each of its ranges says why."""
    assert NAMED[name].name == name
    assert all(range_.reason for range_ in NAMED[name].ranges)


def test_the_docs_have_every_range_with_its_reason() -> None:
    """docs/search.md shows what the widest space searches, word for word."""
    docs = (Path(__file__).parents[1] / "docs/search.md").read_text(encoding="utf-8")
    for range_ in NAMED["everything"].ranges:
        row = rf"^\| `{range_.field}` \| {re.escape(str(range_))}[ ,].*{re.escape(range_.reason)} \|$"
        assert re.search(row, docs, re.MULTILINE), range_.field


@pytest.mark.parametrize("space", NAMED.values(), ids=lambda space: space.name)
def test_the_article_is_a_point_of_every_space(space: Space) -> None:
    """Every field of the article's recipe lies in the range searched, also where it means nothing there."""
    assert all(range_.holds(getattr(ARTICLE, range_.field)) for range_ in space.ranges)
    meant = [range_.field for range_ in space.ranges if applies(range_.field, ARTICLE.to_dict())]
    assert list(params_of(ARTICLE, space)) == meant


@pytest.mark.parametrize("space", NAMED.values(), ids=lambda space: space.name)
def test_a_named_space_searches_what_the_article_space_does(space: Space) -> None:
    """The ranges of the article's own fields are the same in all of them."""
    for range_ in ARTICLE_SPACE.ranges:
        assert space.range_of(range_.field) == range_


def test_the_article_space_searches_the_articles_fields() -> None:
    """The batch size is held, and nothing beyond the article is searched; no field depends on another."""
    fields = [field.name for field in dataclasses.fields(Recipe)]
    assert [range_.field for range_ in ARTICLE_SPACE.ranges] == fields[: fields.index("batch_size")]
    assert ARTICLE_SPACE.conditional == ()


@pytest.mark.parametrize("field", CONDITIONS)
def test_a_condition_is_of_a_field_that_has_none(field: str) -> None:
    """What a field depends on depends on nothing, is searchable, and can be such and otherwise."""
    condition = CONDITIONS[field]
    assert field in SEARCHABLE
    assert condition.field in SEARCHABLE
    assert condition.field not in CONDITIONS
    if condition.values:
        assert set(condition.values) < set(CHOICES[condition.field])
    else:
        assert LIMITS[condition.field].low < condition.at_least <= LIMITS[condition.field].high


def test_the_article_space_searches_every_optimizer_and_costs_by_their_ratio() -> None:
    """Optimizers are all there; the learning rate and the epochs, 5 to 200, are drawn by their ratio."""
    assert str(ARTICLE_SPACE.range_of("optimizer")) == ", ".join(OPTIMIZERS)
    assert str(ARTICLE_SPACE.range_of("learning_rate")) == "0.0001 to 0.1 (log)"
    assert str(ARTICLE_SPACE.range_of("epochs")) == "5 to 200 (log)"


def test_a_table_of_the_space_shows_what_is_not_searched_too() -> None:
    """The rows are all fields in the recipe's order, the batch size held at the article's 64."""
    rows = ARTICLE_SPACE.describe()
    assert [row[0] for row in rows] == list(SEARCHABLE)
    assert ("batch_size", "64 (fixed)", "the article's value, not searched") in rows


def test_a_range_that_means_nothing_in_any_recipe_says_so() -> None:
    """A space file that holds the blocks' convolutions at one leaves nothing to be residual."""
    space = NAMED["architecture"].replace(fixed_range("convolutions", 1, ""))
    rows = {field: (text, reason) for field, text, reason in space.describe()}
    assert rows["residual"] == ("none", "means nothing where convolutions is 1 (fixed)")
    assert rows["dense_units"][0] == "32 to 256 (log), where head is dense"


def test_a_table_of_a_space_says_when_a_field_is_searched() -> None:
    """A range that is drawn in some trials only says in which; where it always is, nothing needs saying."""
    rows = {row[0]: row[1] for row in NAMED["schedules"].describe()}
    assert rows["step_at"] == "0.3 to 0.95, where schedule is step"
    assert rows["schedule"] == "constant, step, cosine, warmup_cosine, plateau"
    steps = NAMED["schedules"].replace(Choices("schedule", ("step",)))
    assert dict(row[:2] for row in steps.describe())["step_at"] == "0.3 to 0.95"


def test_order_of_ranges_and_choices_makes_no_other_space() -> None:
    """Ranges and choices given in another order are the same, as Optuna needs them to be."""
    assert Space("article", ARTICLE_SPACE.ranges[::-1]) == ARTICLE_SPACE
    assert Choices("optimizer", ("adam", "sgd")) == Choices("optimizer", ("sgd", "adam"))


def test_a_field_has_one_range() -> None:
    """Two ranges of one field are refused."""
    with pytest.raises(SpaceError, match="epochs has 2 ranges"):
        Space("twice", (NumberRange("epochs", 1, 2), NumberRange("epochs", 3, 4)))


@pytest.mark.parametrize("field", ["seed", "optimizer", "epoch"])
def test_a_number_range_is_of_a_numeric_field(field: str) -> None:
    """The seed is no hyperparameter, and a field of names has no bounds."""
    with pytest.raises(SpaceError, match=f"unknown field '{field}'"):
        NumberRange(field, 1, 2)


@pytest.mark.parametrize(
    ("max_epochs", "text"), [(60, "5 to 60 (log)"), (3, "3 (fixed)"), (500, "5 to 200 (log)")]
)
def test_epochs_are_capped(max_epochs: int, text: str) -> None:
    """A cap lowers both bounds as far as it must, and changes nothing else."""
    capped = ARTICLE_SPACE.cap_epochs(max_epochs)
    assert str(capped.range_of("epochs")) == text
    assert len(difference(ARTICLE_SPACE, capped)) == (max_epochs < 200)


def test_epochs_that_are_not_searched_are_capped_too() -> None:
    """A space that leaves the article's 100 epochs alone trains no more than the cap."""
    assert str(Space("none", ()).cap_epochs(7).range_of("epochs")) == "7 (fixed)"


@pytest.mark.parametrize("max_epochs", [0, -1, 10_001, True])
def test_a_cap_is_a_number_of_epochs(max_epochs: int) -> None:
    """What no recipe could have as its epochs is no cap."""
    with pytest.raises(SpaceError, match="epochs must be a whole number from 1 to 10000"):
        ARTICLE_SPACE.cap_epochs(max_epochs)


# what a study remembers


@given(spaces())
def test_a_space_survives_json_and_processes(space: Space) -> None:
    """A space that went through JSON, or to another process, is the same to the last digit."""
    back = Space.from_dict(json.loads(json.dumps(space.to_dict())))
    assert back == space == pickle.loads(pickle.dumps(space))
    assert hash(back) == hash(space)
    assert difference(space, back) == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "x"},
        {"name": "x", "ranges": []},
        {"name": 1, "ranges": {}},
        {"name": "x", "ranges": {"epochs": 3}},
        {"name": "x", "ranges": {"epochs": {"low": 1}}},
        {"name": "x", "ranges": {"epochs": {"low": 1, "high": 2, "step": 3}}},
        {"name": "x", "ranges": {"epochs": {"low": 1, "high": 2.5}}},
        {"name": "x", "ranges": {"epochs": {"low": 1, "high": 2, "reason": None}}},
        {"name": "x", "ranges": {"momentum": {"low": 0.1, "high": 0.2}}},
        {"name": "x", "ranges": {"optimizer": {"choices": "adam"}}},
    ],
)
def test_a_remembered_space_is_checked(values: dict[str, Any]) -> None:
    """What another version, or a hand, wrote into the study is refused rather than half understood."""
    with pytest.raises(SpaceError):
        Space.from_dict(values)


def test_a_difference_names_field_and_both_ranges() -> None:
    """A line each for what differs; names and reasons do not count."""
    given_space = ARTICLE_SPACE.replace(NumberRange("learning_rate", 1e-3, 0.3))
    assert difference(ARTICLE_SPACE, given_space) == [
        "learning_rate: the study has 0.0001 to 0.1 (log), --space gives 0.001 to 0.3"
    ]
    renamed = ARTICLE_SPACE.replace(NumberRange("learning_rate", 1e-4, 0.1, True, "because"))
    assert difference(ARTICLE_SPACE, dataclasses.replace(renamed, name="other")) == []


def test_a_difference_in_the_last_digit_is_seen() -> None:
    """Ranges that differ at all are shown with the digits that tell them apart."""
    high = 0.1 + 2**-54
    assert (
        f"{high!r}"
        in difference(ARTICLE_SPACE, ARTICLE_SPACE.replace(NumberRange("learning_rate", 1e-4, high, True)))[0]
    )


def test_the_articles_value_is_the_same_said_or_unsaid() -> None:
    """A field held at the article's value searches the same as a field that is not mentioned."""
    assert difference(ARTICLE_SPACE, ARTICLE_SPACE.replace(fixed_range("batch_size", 64, "said"))) == []


# Optuna


@settings(deadline=None, max_examples=30)
@given(spaces(), st.integers(0, 2**31 - 1))
def test_a_suggested_recipe_lies_in_its_space(space: Space, seed: int) -> None:
    """A sampled recipe has its seed, and each field in its range, or where it means nothing the article's."""
    trial = new_study().ask()
    recipe = suggest(trial, space, seed)
    assert recipe.seed == seed
    assert_in_space(recipe, space)
    assert trial.params == params_of(recipe, space)


@pytest.mark.parametrize("space", NAMED.values(), ids=lambda space: space.name)
def test_a_field_is_a_parameter_only_where_it_means_something(space: Space) -> None:
    """Of a hundred trials each has the parameters that its own choices call for, and all come up."""
    study = new_study()
    drawn: set[str] = set()
    for _ in range(100):
        trial = study.ask()
        recipe = suggest(trial, space, 0)
        assert_in_space(recipe, space)
        assert trial.params == params_of(recipe, space)
        drawn |= set(trial.params)
    assert drawn == {range_.field for range_ in space.ranges}


@pytest.mark.parametrize("space", NAMED.values(), ids=lambda space: space.name)
def test_no_network_of_a_named_space_is_too_large(space: Space) -> None:
    """The largest of each space is a recipe, and the count is that of its largest recipe."""
    assert space.count_largest_network() <= MAX_PARAMETERS
    assert Space("x", ()).count_largest_network() == 257_978
    drawn = [suggest(new_study().ask(), space, 0) for _ in range(20)]
    counts = [recipe.architecture.count_parameters() for recipe in drawn]
    assert max(counts) <= space.count_largest_network()


def test_a_held_field_that_means_nothing_keeps_the_articles_value() -> None:
    """A file may hold the factor of steps; trials without steps do not carry it."""
    space = Space("x", (Choices("schedule", ("constant", "step")), NumberRange("step_factor", 0.3, 0.3)))
    drawn = [suggest(optuna.trial.FixedTrial({"schedule": name}), space, 0) for name in ("constant", "step")]
    assert [recipe.step_factor for recipe in drawn] == [ARTICLE.step_factor, 0.3]


@settings(deadline=None, max_examples=30)
@given(spaces(), recipes())
def test_an_enqueued_recipe_of_the_space_comes_back(space: Space, recipe: Recipe) -> None:
    """A recipe that the space holds comes back from an enqueued trial as it was, without a warning."""
    values = recipe.to_dict()
    for range_ in (space.range_of(field) for field in SEARCHABLE):
        if not range_.holds(values[range_.field]):
            values[range_.field] = range_.choices[0] if isinstance(range_, Choices) else range_.low
    meaningless = [field for field in SEARCHABLE if not applies(field, values)]
    inside = Recipe.from_dict({**values, **{field: getattr(ARTICLE, field) for field in meaningless}})
    study = new_study()
    study.enqueue_trial(params_of(inside, space))
    assert suggest(study.ask(), space, inside.seed) == inside
    assert suggest(optuna.trial.FixedTrial(params_of(inside, space)), space, inside.seed) == inside


@settings(deadline=None, max_examples=30)
@given(spaces(), recipes())
def test_any_recipe_can_be_enqueued_in_any_space(space: Space, recipe: Recipe) -> None:
    """A recipe outside the space is recorded as far as the space holds it: no warning, nothing made up."""
    study = new_study()
    study.enqueue_trial(params_of(recipe, space))
    trial = study.ask()
    record_params(trial, space, recipe)
    assert trial.params == params_of(recipe, space)
    assert trial.params.items() <= recipe.to_dict().items()


def test_a_trial_enqueued_with_other_parameters_is_refused() -> None:
    """A trial whose parameters are not its recipe's would teach the sampler wrongly, so it fails."""
    study = new_study()
    study.enqueue_trial(params_of(dataclasses.replace(ARTICLE, epochs=50), ARTICLE_SPACE))
    with pytest.raises(StudyError, match="trial 0 has epochs 50, its recipe 100"):
        record_params(study.ask(), ARTICLE_SPACE, ARTICLE)


@pytest.mark.parametrize("max_epochs", [1, 20, 1000])
def test_the_capped_article_is_a_point_of_the_capped_space(max_epochs: int) -> None:
    """Trial 0, the article with its epochs capped, is recorded in full whatever the cap."""
    space = ARTICLE_SPACE.cap_epochs(max_epochs)
    recipe = dataclasses.replace(ARTICLE, epochs=min(ARTICLE.epochs, max_epochs))
    assert suggest(optuna.trial.FixedTrial(params_of(recipe, space)), space, 0) == recipe


# files


def test_a_name_is_a_space_and_goes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that happens to be called `article` does not hide the space."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "article").write_text("base = 3")
    assert load_space("article") is ARTICLE_SPACE


def test_a_file_changes_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    """Bounds, log, choices and held values are the file's; every other field is the base's."""
    space = load_space(
        write(
            tmp_path,
            'base = "article"\n[learning_rate]\nlow = 1e-3\nhigh = 0.3\nlog = false\n'
            '[optimizer]\nchoices = ["momentum", "adam"]\n[epochs]\nhigh = 60\n[dropout_dense]\nfixed = 0.5\n'
            "[batch_size]\nlow = 32\nhigh = 256\nlog = true\n",
        )
    )
    assert space.name == "my.toml"
    assert dict(row[:2] for row in space.describe() if "not searched" not in row[2]) == {
        "dropout_block1": "0 to 0.6",
        "dropout_block2": "0 to 0.6",
        "dropout_block3": "0 to 0.6",
        "dropout_dense": "0.5 (fixed)",
        "learning_rate": "0.001 to 0.3",
        "optimizer": "momentum, adam",
        "epochs": "5 to 60 (log)",
        "batch_size": "32 to 256 (log)",
    }
    assert space.range_of("epochs").reason == "set in my.toml"
    assert space.range_of("dropout_block1") == ARTICLE_SPACE.range_of("dropout_block1")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", 'base = "article"', "\ufeff# a mark\r\n"])
def test_a_file_that_changes_nothing_is_its_base(tmp_path: Path, text: str) -> None:
    """An empty file, one with comments only, and one that names its base alone search what the base does."""
    assert difference(ARTICLE_SPACE, load_space(write(tmp_path, text))) == []


def test_equal_bounds_hold_a_field(tmp_path: Path) -> None:
    """`low` and `high` alike are the same as `fixed`."""
    bounds = load_space(write(tmp_path, "[learning_rate]\nlow = 0.02\nhigh = 0.02"))
    assert difference(bounds, load_space(write(tmp_path, "learning_rate.fixed = 0.02"))) == []


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spaces())
def test_any_space_can_be_written_as_a_file(tmp_path: Path, space: Space) -> None:
    """A file that states the ranges of a space, in whatever way, gives that space's ranges."""
    lines = []
    # What a file says of a field without effect is refused.
    space = Space(space.name, tuple(range_ for range_ in space.ranges if has_effect(range_.field, space)))
    for range_ in space.ranges:
        match range_:
            case Choices():
                lines.append(f"[{range_.field}]\nchoices = {json.dumps(range_.choices)}")
            case NumberRange(log=True):
                lines.append(f"[{range_.field}]\nlow = {range_.low}\nhigh = {range_.high}\nlog = true")
            case _:
                inline = f"low = {range_.low}, high = {range_.high}, log = false"
                lines.insert(0, f"{range_.field} = {{ {inline} }}")
    expected = ARTICLE_SPACE
    for range_ in space.ranges:
        expected = expected.replace(range_)
    assert difference(expected, load_space(write(tmp_path, "\n".join(lines)))) == []


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        # TOML itself
        ("[epochs]\nlow = \n", 2, "not TOML: Invalid value"),
        ("[epochs]\nlow = 1\nlow = 2", 3, "not TOML: Cannot overwrite a value"),
        ("[epochs]\nlow = 10\n\n[optimizer]\nchoices = [\n  'adam',\n\n", 5, "not TOML: "),
        (f"\nx = {'9' * 5000}\n", 2, "not TOML: Exceeds the limit"),
        # keys and tables
        ("[learing_rate]\nlow = 0.1", 1, "unknown key 'learing_rate'; did you mean 'learning_rate'?"),
        ("[xyz]\nlow = 0.1", 1, "unknown key 'xyz'; known are base, dropout_block1, "),
        ("base = 'architecture'\n[residual]\nchoices = ['true']", 3, "got 'true'; write it without quotes"),
        ("\nbas = 'article'", 2, "did you mean 'base'?"),
        ("[seed]\nfixed = 1", 1, "a seed is not searched; `cnn-search run --seed` sets the study's"),
        (
            "[epochs]\nlow = 1\nhihg = 4",
            3,
            "epochs has no 'hihg'; its keys are low, high, log, fixed; did you",
        ),
        (
            "[epochs]\nlow = 1\nchoices = [4]",
            3,
            "epochs has no 'choices'; its keys are low, high, log, fixed",
        ),
        ("[optimizer]\nlow = 1", 2, "optimizer has no 'low'; its keys are choices, fixed"),
        ("\n[epochs]\n", 2, "epochs must be a table with low or high or log or fixed, got {}"),
        ("epochs = 7", 1, "epochs must be a table with low or high or log or fixed, got 7"),
        ("[[epochs]]\nlow = 7", 1, "epochs must be a table"),
        ("\nbase = 'artcle'", 2, f"base must be one of {NAMES}, got 'artcle'; did you mean 'article'?"),
        ("base = 3", 1, f"base must be one of {NAMES}, got 3"),
        ("[base]\nx = 3", 1, f"base must be one of {NAMES}, got {{'x': 3}}"),
        (
            "[batch_size]\nlow = 3",
            1,
            "batch_size is not searched by the base; give both low and high, or fixed",
        ),
        # numbers
        ("[epochs]\nhigh = 60\nlow = 20.0", 3, "epochs must be a whole number from 1 to 10000, got 20.0"),
        ("[epochs]\nlow = true", 2, "epochs must be a whole number from 1 to 10000, got True"),
        ("[epochs]\nfixed = 0", 2, "epochs must be a whole number from 1 to 10000, got 0"),
        ("[learning_rate]\nlow = '0.1'", 2, "learning_rate must be a number from 1e-08 to 10, got '0.1'"),
        (
            "[learning_rate]\nlow = 0.01\nhigh = 11",
            3,
            "learning_rate must be a number from 1e-08 to 10, got 11",
        ),
        ("[learning_rate]\nhigh = inf", 2, "learning_rate must be a number from 1e-08 to 10, got inf"),
        ("[learning_rate]\nlow = nan", 2, "learning_rate must be a number from 1e-08 to 10, got nan"),
        (
            f"[learning_rate]\nlow = 1{'0' * 400}",
            2,
            "learning_rate must be a number from 1e-08 to 10, got 10",
        ),
        ("[learning_rate]\nlow = 2026-11-01", 2, "learning_rate must be a number"),
        ("[learning_rate]\nlow = 0.2\nhigh = 0.1", 3, "low 0.2 is above high 0.1; swap them"),
        ("\n\n[learning_rate]\nlow = 0.2", 4, "low 0.2 is above high 0.1"),
        ("[learning_rate]\nlog = 1", 2, "learning_rate: log must be true or false, got 1"),
        ("[dropout_dense]\nlow = 0\nlog = true", 3, "dropout_dense: a log range needs a low above 0, got 0"),
        ("[epochs]\nlow = 7\nfixed = 8", 3, "epochs: fixed stands alone, but low is given too; keep one"),
        # choices
        ("[optimizer]\nchoices = []", 2, "optimizer: choices must be a list of one or more of sgd, momentum"),
        (
            "[optimizer]\nchoices = 'adam'",
            2,
            "optimizer: choices must be a list of one or more of sgd, momentum",
        ),
        ("[optimizer]\nchoices = [\n'adam',\n'adam']", 2, "optimizer: choices names 'adam' more than once"),
        (
            "[optimizer]\nchoices = ['adma']",
            2,
            "optimizer must be one of sgd, momentum, nesterov, rmsprop, adam",
        ),
        ("[optimizer]\nchoices = ['adma']", 2, "got 'adma'; did you mean 'adam'?"),
        ("[optimizer]\nchoices = [['adam']]", 2, "got ['adam']"),
        (
            "[optimizer]\nfixed = 1",
            2,
            "optimizer must be one of sgd, momentum, nesterov, rmsprop, adam, got 1",
        ),
        # what depends on another field
        (
            "[epochs]\nlow = 5\n[step_at]\nlow = 0.5\nhigh = 0.6",
            3,
            "step_at means something only where schedule is step, but schedule is constant (fixed); widen",
        ),
        (
            "base = 'schedules'\n[warmup]\nfixed = 0.1\n[schedule]\nfixed = 'step'",
            2,
            "warmup means something",
        ),
        # what makes networks too large
        (
            "base = 'architecture'\n[epochs]\nhigh = 9\n[width]\nhigh = 4",
            4,
            "the largest network has 10,",
        ),
        (
            "[width]\nfixed = 4.0\n[convolutions]\nfixed = 2",
            1,
            "above the bound of 3,000,000; lower the high",
        ),
        # ways to write a key
        ("# note\nepochs.high = 60\nepochs.low = 0", 3, "got 0"),
        ("\nepochs = { high = 60, low = 0 }", 2, "got 0"),
        ("a = '''\nlow = 0'''\n[epochs]\nlow = 0", 1, "unknown key 'a'"),
        ("[epochs]\n# low = 1\n\n'high' = 60\n \"low\" = 0 # low", 5, "got 0"),
        ("[epochs]\r\nhigh = 60\r\n\r\nlow = 0\r\n", 4, "got 0"),
        ("[optimizer]\nchoices = [\n 'adam', # [\n]\n[epochs]\nlow = 0", 6, "got 0"),
    ],
)
def test_a_file_that_cannot_be_a_space_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    """The refusal names the file, the line, what is wrong, the value, and what is allowed."""
    path = write(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}:{line}: ")
    assert said in message


def test_a_file_is_utf_8(tmp_path: Path) -> None:
    """Bytes of another encoding are refused with their line."""
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# fine\n# caf\xe9\n")
    assert refusal(str(path)) == f"{path}:2: byte 0xe9 is not UTF-8; save the file as UTF-8"


def test_a_file_must_be_there_and_be_a_file(tmp_path: Path) -> None:
    """A missing file and a folder are refused with the system's reason and the names that would do."""
    missing = str(tmp_path / "missing.toml")
    assert refusal(missing).startswith(
        f"cannot read the space file {missing}: No such file or directory; give a"
    )
    assert "article" in refusal(str(tmp_path))
    assert refusal(str(tmp_path)).startswith(f"cannot read the space file {tmp_path}: ")


@pytest.mark.parametrize("name", ["artcle", "", "no/such/file", "a\0b"])
def test_an_unknown_name_lists_the_names(name: str) -> None:
    """What is neither a name nor a file is refused with the names and with what a file must be."""
    message = refusal(name)
    assert f"unknown space {name!r}; known are {NAMES}, and a file must end in .toml or exist" in message
    assert message.endswith("did you mean 'article'?") == (name == "artcle")


def test_the_space_is_there_without_optuna() -> None:
    """`cnn-search --help` can list the spaces without the time that importing Optuna takes."""
    code = "import sys, search.space_file; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
