"""`cnn-search confirm`: from the plan to the test set, what it prints and writes, and good and bad input."""

import dataclasses
import json
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sample
import sqlalchemy
from confirmed import BETTER, alike, enqueue, finish_trials, one_better, searched
from conftest import Finished
from test_search_cli import assert_refused
from test_search_fleet import Search

from search.assignment import Assignment
from search.confirm.companion import open_round
from search.confirm.ledger import read_rounds
from search.confirm.opening import OpeningRecord
from search.confirm.plan import ConfirmWish
from search.confirm.round import TEST_KEY
from search.events import Notice
from search.fleet import Stop, WorkerFailed
from search.study import OpenStudy, open_study
from search.summary import RECIPE_KEY
from storage.database import Database, open_database
from storage.schema import FILES
from trainer.recipe import Recipe

Cli = Callable[..., Finished]
URL = "sqlite:///cnn-search.db"


@dataclass
class Fleet:
    """Stands for worker processes: ends the trials that wait.

    Attributes:
        outcome: What a recipe comes to.
        most: How many trials it ends in a call.
        result: What `run_fleet` gives.
        told: What it tells the view.
        assignments: What it was to do.
    """

    model: bytes
    outcome: Callable[[Recipe], Any] = alike
    most: int = 1000
    result: Stop = field(default_factory=Stop)
    told: list[Any] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)

    def __call__(self, opened: OpenStudy, assignment: Assignment, workers: int, show: Any) -> Stop:
        """As `search.fleet.run_fleet`."""
        self.assignments.append(assignment)
        for event in self.told:
            show(event)
        finish_trials(opened, self.outcome, self.model, self.most)
        return self.result


@pytest.fixture(scope="module")
def model(tensorflow: None) -> bytes:
    """A model that was never trained."""
    from trainer.model import build_model
    from trainer.model_file import model_to_bytes

    return model_to_bytes(build_model(Recipe()))


@pytest.fixture
def fleet(model: bytes, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Who trains, here with the sample for CIFAR-10."""
    standing = Fleet(model)
    monkeypatch.setattr("search.fleet.run_fleet", standing)
    monkeypatch.setattr("search.runtime.start_tensorflow", lambda *_: None)
    monkeypatch.setattr("trainer.data.load", lambda *_, **__: sample.load())
    return standing


@pytest.fixture
def confirm(cli: Cli, fleet: Fleet) -> Cli:
    """`cnn-search confirm --workers 1`, on a study of three complete trials in this folder."""
    database = open_database(URL)
    searched(database, [0.5, 0.6, 0.7], "cifar10")
    database.close()
    return lambda *arguments: cli("confirm", "--workers", 1, *arguments)


@pytest.fixture
def opened_tests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The trials whose models were scored on the test set, in order; those of `BETTER` are better there."""
    import search.confirm.test_set

    scored: list[int] = []
    score = search.confirm.test_set._score

    def spy(companion: Any, outcome: Any, evaluator: Any) -> Any:
        scored.append(outcome.trial)
        test, hits = score(companion, outcome, evaluator)
        attrs = companion.study.get_trials(deepcopy=False)[outcome.trial].user_attrs
        if Recipe.from_dict(attrs[RECIPE_KEY]).dropout_block1 == BETTER:
            hits = hits | (np.arange(len(hits)) < 40)
            test = dataclasses.replace(test, accuracy=float(hits.mean()))
        return test, hits

    monkeypatch.setattr("search.confirm.test_set._score", spy)
    return scored


def with_study(use: Callable[[OpenStudy], Any]) -> Any:
    """What `use` makes of the study in this folder."""
    database = open_database(URL, create=False)
    try:
        return use(open_study(database, "cifar10"))
    finally:
        database.close()


def test_equal_recipes_leave_the_test_set_closed(confirm: Cli, cli: Cli, opened_tests: list[int]) -> None:
    """No winner is said, with every number behind it; no model is written, no image looked at."""
    ended = confirm("--top", 2, "--seeds", 4)

    assert ended.code == 0, ended.err
    assert "No winner beyond noise." in ended.out
    assert "The test set stays closed" in ended.out
    assert re.search(
        r"^trial 2 +70\.00 +7\d\.\d\d +7\d\.\d\d to 7\d\.\d\d +[+-]0\.\d\d", ended.out, re.MULTILINE
    )
    assert re.search(r"^the article's +7\d\.\d\d +7\d\.\d\d to", ended.out, re.MULTILINE)
    assert len(re.findall(r"^ *\d+ +7\d\.\d\d +7\d\.\d\d +7\d\.\d\d$", ended.out, re.MULTILINE)) == 4
    assert ended.out.endswith("\nwrote confirm.html\n")
    assert not Path("winner.h5").exists()
    assert opened_tests == []
    assert with_study(read_rounds)[0].test is None
    assert "no winner beyond noise; the test set stays closed" in cli("status").out
    assert cli("best").out.endswith(
        "Not confirmed on 4 fresh seeds (round 1, 'cifar10-confirm'): no winner beyond noise.\n"
    )


def test_the_winner_is_tested_once(
    confirm: Cli,
    cli: Cli,
    fleet: Fleet,
    opened_tests: list[int],
    model: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its models and the article's; asked again, the record is shown without the data, and is the same."""
    fleet.outcome = one_better
    first = confirm("--seeds", 3)

    assert first.code == 0, first.err
    assert "The winner is trial 2." in first.out
    assert re.search(r"Test set, opened once for these models at .* \(opening 1 of", first.out)
    # Three recipes a seed: the best, the next, the article's.
    assert opened_tests == [0, 3, 6, 2, 5, 8]
    assert Path("winner.h5").read_bytes() == fleet.model
    assert "the recipes of the best 2 (3 were asked for; the study has no other recipes)" in first.out
    record = with_study(read_rounds)[0].test
    assert [one.trial for one in record.winner] == [0, 3, 6]
    assert (record.images, len(record.attempts)) == (100, 1)

    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError("the data are looked at")

    monkeypatch.setattr("trainer.data.load", load)
    Path("winner.h5").unlink()
    again = confirm()

    assert (again.code, again.out) == (0, first.out)
    assert len(opened_tests) == 6
    assert len(fleet.assignments) == 1
    assert Path("winner.h5").exists()
    said = cli("best").out
    assert "Confirmed: its recipe (trial 2) is +10." in said
    assert re.search(
        r"and on the test set \+3\d\.00 points, 95 % interval [^:]*: beyond noise\.$", said, re.M
    )
    assert re.search(r"^  difference \+3\d\.00 points, .*: beyond noise$", first.out, re.M)
    told = json.loads(cli("best", "--json").out)["confirmation"]
    assert (told["is_confirmed"], told["companion"]) == (True, "cifar10-confirm")
    assert "the winner is trial 2; on the test set +3" in cli("status").out
    assert json.loads(cli("status", "--json").out)["confirm"][0]["winner"] == 2


def test_scores_that_were_not_stored_are_made_again(
    confirm: Cli, fleet: Fleet, opened_tests: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends in between has left its intention; the next one comes to the same numbers."""
    fleet.outcome = one_better
    with monkeypatch.context() as patch:

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("search.confirm.test_set._score", interrupt)
        stopped = confirm("--seeds", 3)
    assert (stopped.code, stopped.out) == (130, "")
    before = with_study(read_rounds)[0].test
    assert (before.is_scored, len(before.attempts)) == (False, 1)

    ended = confirm()

    assert ended.code == 0, ended.err
    assert "scoring was begun 2 times (processes that end early, or several at once)" in ended.out
    after = with_study(read_rounds)[0].test
    assert after.attempts[0] == before.attempts[0]
    assert len(opened_tests) == 6

    def forget(opened: OpenStudy) -> OpeningRecord:
        companion = open_study(opened.database, "cifar10-confirm")
        companion.study.set_user_attr(TEST_KEY, before.to_dict())
        return after

    with_study(forget)
    confirm()
    once_more = with_study(read_rounds)[0].test
    assert (once_more.winner, once_more.reference) == (after.winner, after.reference)


def test_the_data_are_there_before_the_test_set_is_said_to_be_open(
    confirm: Cli, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them nothing is recorded but the verdict."""
    from trainer.errors import DataError

    fleet.outcome = one_better
    confirm("--minutes", 1, "--seeds", 3, "--output", "a")
    with_study(
        lambda opened: open_study(opened.database, "cifar10-confirm").study.set_user_attr(TEST_KEY, None)
    )

    def load(*_: Any, **__: Any) -> Any:
        raise DataError("no CIFAR-10 here")

    monkeypatch.setattr("trainer.data.load", load)

    assert_refused_after_saying(confirm(), "no CIFAR-10 here")
    assert with_study(read_rounds)[0].test is None


def assert_refused_after_saying(ended: Finished, words: str) -> None:
    """Exit code 1, nothing on stdout, and the reason last."""
    assert (ended.code, ended.out) == (1, "")
    assert words in ended.err.strip().split("\n")[-1]


@pytest.mark.parametrize(("figure", "beyond"), [(0.001, True), (0.9, False)])
def test_a_published_figure_is_met_on_the_test_set(
    confirm: Cli, cli: Cli, fleet: Fleet, opened_tests: list[int], figure: float, beyond: bool
) -> None:
    """By the recipe of the highest mean, whose models alone are tested; the article's is not trained."""
    fleet.outcome = one_better
    ended = confirm("--against", figure, "--seeds", 3, "--json")

    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["against"], told["verdict"]["chosen"], told["total"]) == (figure, 2, 6)
    assert told["verdict"]["winner"] == (2 if beyond else None)
    assert told["test"]["is_upheld"] is beyond
    assert Path("winner.h5").exists() is beyond
    assert opened_tests == [0, 2, 4]
    assert told["test"]["figure"]["is_beyond"] is beyond
    assert [one["trial"] for one in told["recipes"]] == [2, 1]
    text = confirm().out
    assert f"{'' if beyond else 'not '}beyond noise of {100 * figure:.2f} %" in text
    assert "it covers other seeds" in text
    if beyond:
        assert "The winner is trial 2: beyond noise of 0.10 % on the test set." in text
    else:
        assert "No winner beyond noise: trial 2, of the highest mean, is not beyond 90.00 %." in text
    page = Path("confirm.html").read_text()
    assert ('class="verdict won"' in page, "trial 2 (winner)" in page) == (beyond, beyond)
    assert json.loads(cli("status", "--json").out)["confirm"][0]["winner"] == (2 if beyond else None)
    said = cli("best").out
    assert ("Confirmed: beyond noise" in said, "Not confirmed: not beyond" in said) == (beyond, not beyond)


def test_a_winner_that_the_test_set_contradicts_is_no_success(confirm: Cli, cli: Cli, fleet: Fleet) -> None:
    """It won on validation; all models are the same one here, so that the difference on the test set is 0."""
    fleet.outcome = one_better
    ended = confirm("--seeds", 3)

    assert "Trial 2 wins on validation, but is not better on the test set." in ended.out
    assert re.search(r"^  difference \+0\.00 points, 95 % interval -.*: not above 0$", ended.out, re.M)
    assert 'class="verdict won"' not in Path("confirm.html").read_text()
    said = cli("best").out
    assert re.search(r"^Not confirmed: its recipe .*, but on the test set \+0\.00 points", said, re.M)
    assert json.loads(cli("best", "--json").out)["confirmation"]["is_confirmed"] is False
    assert "the winner on validation alone is trial 2" in cli("status").out


def test_json_holds_all_of_it(confirm: Cli, fleet: Fleet, opened_tests: list[int]) -> None:
    """Recipes, runs, means, differences, verdict, test and files; shares, not percent."""
    fleet.outcome = one_better
    told = json.loads(confirm("--seeds", 3, "--json", "--output", "out").out)

    assert told["files"] == ["out/winner.h5", "out/confirm.html"]
    assert (told["study"], told["companion"], told["round"]) == ("cifar10", "cifar10-confirm", 1)
    best, _, article = told["recipes"]
    assert (best["trial"], best["search_value"], article["trial"]) == (2, 0.7, None)
    assert [run["seed"] for run in best["runs"]] == told["seeds"]
    assert best["recipe"]["dropout_block1"] == BETTER
    assert best["mean"]["low"] < best["mean"]["mean"] < best["mean"]["high"]
    assert best["difference"]["low"] > 0
    assert article["difference"] is None
    assert told["verdict"]["text"] == "The winner is trial 2."
    values = {run["trial"]: run["value"] for run in best["runs"]}
    assert values[told["verdict"]["median_trial"]] == sorted(values.values())[1]
    assert (told["test"]["is_open"], told["test"]["opening"], told["test"]["images"]) == (True, 1, 100)
    assert len(told["test"]["winner"]) == len(told["test"]["reference"]) == 3


def test_intervals_of_accuracies_stay_between_0_and_100(
    confirm: Cli, fleet: Fleet, opened_tests: list[int]
) -> None:
    """In the table, on the page and as JSON; a difference may lie anywhere."""
    left = [0.1, 0.2]
    fleet.outcome = lambda recipe: left.pop() if recipe.dropout_block1 == BETTER else 0.9
    table = confirm("--top", 1, "--seeds", 2)
    told = json.loads(confirm("--json").out)["recipes"]
    page = Path("confirm.html").read_text()

    mean, difference = told[0]["mean"], told[0]["difference"]
    assert mean["low"] == 0.0 < mean["mean"] < mean["high"] < 1
    assert difference["low"] < -1
    shown = f"0.00 to {100 * mean['high']:.2f}"
    assert re.search(rf"^trial 2 .* {shown} .*-\d\d+\.\d\d to ", table.out, re.M)
    assert f"<td>{shown} %</td>" in page
    # The bar of the mean, too, ends at 0.
    below = re.search(r'"arrayminus":\[([\d.]+),', page)
    assert below is not None
    assert float(below[1]) == pytest.approx(100 * mean["mean"])


def test_the_page_needs_nothing_else(confirm: Cli, fleet: Fleet, opened_tests: list[int]) -> None:
    """No address of another machine that a browser would fetch from; names are no markup."""
    fleet.outcome = one_better
    confirm("--seeds", 3)
    page = Path("confirm.html").read_text()
    own, _, rest = page.partition("<script")

    assert page.startswith("<!doctype html>")
    assert "The winner is trial 2." in own
    for tag in re.findall(
        r"<(?:script|link|img|iframe)\b[^>]*>", page.rpartition("</script>")[0][:2000] + own
    ):
        assert "src=" not in tag
        assert "href=" not in tag
    assert "the article&#x27;s" in rest or "the article&#x27;s" in own
    assert "minus the article" in rest


def test_no_verdict_before_the_end(confirm: Cli, fleet: Fleet, opened_tests: list[int]) -> None:
    """Interrupted, it shows what there is and no interval; the same command goes on."""
    fleet.outcome, fleet.most = one_better, 5
    fleet.result = Stop(requests=1)
    stopped = confirm("--seeds", 3)

    assert stopped.code == 130
    assert "No verdict yet: 5 of 9 trials have ended." in stopped.out
    assert " to " not in re.findall(r"^trial 2 +70.*$", stopped.out, re.MULTILINE)[0]
    assert "waiting" in stopped.out
    assert "interrupted; the same command goes on where it stopped" in stopped.err
    assert (Path("confirm.html").exists(), Path("winner.h5").exists()) == (True, False)

    fleet.most, fleet.result = 1000, Stop()
    ended = confirm()
    assert ended.code == 0
    assert "The winner is trial 2." in ended.out
    assert [one.study for one in fleet.assignments] == ["cifar10-confirm"] * 2


def test_a_worker_that_fails_is_told(confirm: Cli, fleet: Fleet) -> None:
    """With exit code 1, and what there is; the record of the round goes on with the next call."""
    fleet.told = [WorkerFailed(0, "killed by SIGKILL"), Notice("away")]
    fleet.most = 2
    ended = confirm("--seeds", 2)

    assert ended.code == 1
    assert "cnn-search: worker 0: killed by SIGKILL" in ended.err
    assert "2 of 6 trials have ended" in ended.out


def test_a_recipe_that_diverges_is_told(confirm: Cli, fleet: Fleet) -> None:
    """For which seed, and what it means; the reference's means something else."""
    left = ["diverged"]
    fleet.outcome = lambda recipe: (
        left.pop() if left and recipe.dropout_block1 == BETTER else one_better(recipe)
    )
    ended = confirm("--seeds", 3)

    assert re.search(
        r"^trial 2: seed \d+ diverged \(left the numbers in epoch 2\): it cannot win", ended.out, re.M
    )
    assert "No winner: what is beyond noise lacks a seed." in ended.out
    # Ten points better on the two other seeds.
    assert (
        "The 95 % interval of trial 2 lies above 0, but a recipe that lacks a seed cannot win." in ended.out
    )
    assert "lies above 0.\n" not in ended.out.replace("trial 2 lies above 0, but", "")
    assert "--again" not in ended.out


def test_a_reference_without_seeds_is_told(confirm: Cli, fleet: Fleet) -> None:
    """There is nothing to compare; a failure is the machine's, and the way on is named."""
    fleet.outcome = lambda recipe: "failed" if recipe.dropout_block1 == 0.3 else alike(recipe)
    ended = confirm("--seeds", 2)

    assert "No winner: there is nothing to compare." in ended.out
    assert "lies above 0" not in ended.out
    assert "A trial that failed tells nothing of its recipe: --again begins a further round." in ended.out


def test_a_further_round_counts_the_openings(confirm: Cli, fleet: Fleet) -> None:
    """After the study went on; without that, it is refused."""
    fleet.outcome = one_better
    confirm("--seeds", 3)
    refused = confirm("--again")
    assert_refused(refused, 1, "nothing has changed since round 1", "search on first")

    def go_on(opened: OpenStudy) -> None:
        enqueue(opened, Recipe(dropout_block1=0.25, epochs=3))
        finish_trials(opened, lambda _: 0.65, fleet.model)

    with_study(go_on)
    ended = confirm("--again")

    assert ended.code == 0, ended.err
    assert "on 3 fresh seeds" in ended.out
    assert (
        "It is round 2: luck has had 2 chances of about 2.5 %, together 5 %; round 1: the winner on"
        in ended.out
    )
    assert "study 'cifar10', round 2: the recipes of the best 3 of 4 complete trials" in ended.out
    assert "(opening 2 of this study's rounds)" in ended.out
    assert "Beginning round 2 of confirming 'cifar10': 'cifar10-confirm-2'" in ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "77.37"], ["--against", "77.37 is no accuracy between 0 and 1", "write 0.7737"]),
        (["--against", "recipes"], ["'recipes' is neither a test accuracy, such as 0.7737, nor 'recipe'"]),
        (["--against", "1.5"], ["1.5 is no accuracy between 0 and 1; give one such as 0.7737"]),
        (["--against", "nan"], ["nan is no accuracy"]),
        (["--against", "0"], ["0 is no accuracy"]),
        (["--against", "100"], ["100 is no accuracy"]),
        (["--seeds", "1"], ["--seeds", "1 is not in the range 2<=x<=100"]),
        (["--top", "0"], ["--top", "0 is not in the range 1<=x<=20"]),
        (["--trials", "3"], ["No such option", "--trials"]),
    ],
)
def test_wrong_usage_exits_2(cli: Cli, arguments: list[str], words: list[str]) -> None:
    """The value is named, and what it could be."""
    assert_refused(cli("confirm", *arguments), 2, *words)
    assert list(Path.cwd().iterdir()) == []


def test_what_cannot_be_confirmed_is_refused(cli: Cli, fleet: Fleet) -> None:
    """No database, no study, nothing but the yardstick; each says the way on."""
    assert_refused(cli("confirm"), 1, "no such file; `cnn-search run` starts a study there")
    cli("init")
    assert_refused(cli("confirm", "--study", "x"), 1, "has no study 'x'")
    assert_refused(cli("confirm"), 1, "nothing to confirm; `cnn-search run` searches on")
    assert fleet.assignments == []


def test_another_wish_names_the_plan(confirm: Cli) -> None:
    """And the way on; what was asked for before is not lost."""
    confirm("--seeds", 3)

    assert_refused(confirm("--seeds", 5), 1, "it has --seeds 3, not 5; --again begins a further round")
    assert_refused(confirm("--against", 0.7), 1, "it has --against recipe, not 0.7")
    assert confirm("--seeds", 3).code == 0


def test_a_mistaken_round_is_left_with_abandon(confirm: Cli, cli: Cli, fleet: Fleet) -> None:
    """Its costs were told; it stays on record, and the next round has the defaults."""
    fleet.most, fleet.result = 2, Stop(requests=1)
    begun = confirm("--seeds", 50)
    assert "\n  its trials 1, 4, 7, ..., 148: trial 1 of the search\n" in begun.err
    assert "\n  its trials 2, 5, 8, ..., 149: the article's recipe\n" in begun.err
    assert "3 recipes on 50 seeds: 150 trainings of up to 3 epochs" in begun.err

    given_up = cli("confirm", "--abandon")

    assert given_up.code == 0, given_up.err
    assert given_up.out == (
        "abandoned round 1 of confirming 'cifar10', 'cifar10-confirm', after 2 of 150 trainings; it stays on "
        "record, and `cnn-search confirm` begins round 2\n"
    )
    assert "round 1 ('cifar10-confirm'): abandoned after 2 of 150 trials" in cli("status").out
    fleet.most, fleet.result = 1000, Stop()
    ended = confirm("--seeds", 2)
    assert ended.code == 0
    assert "3 recipes on 2 seeds: 6 trainings" in ended.err
    assert (
        "luck has had 2 chances of about 2.5 %, together 5 %; round 1: abandoned after 2 of 150" in ended.out
    )
    assert_refused(cli("confirm", "--abandon"), 1, "there is nothing to abandon")


@pytest.mark.parametrize(
    "ignored",
    [
        ("--top", 2),
        ("--seeds", 3),
        ("--against", 0.7),
        ("--again",),
        ("--minutes", 5),
        ("--workers", 1),
        ("--output", "."),
        ("--data", "d"),
        # The default, but asked for.
        ("--device", "auto"),
        ("--precision", "float32"),
        ("--lease", 60),
        ("--slots", "auto"),
    ],
)
def test_abandon_refuses_what_it_would_ignore(cli: Cli, ignored: tuple[object, ...]) -> None:
    """Options that mean nothing to it are named, before anything is looked at."""
    refused = cli("confirm", "--abandon", *ignored)

    assert_refused(refused, 2, f"--abandon gives the last round up as it is: leave {ignored[0]} out")


def test_abandon_takes_what_means_something(
    confirm: Cli, cli: Cli, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study, JSON and the traceback; what the environment sets is for all commands."""
    fleet.most, fleet.result = 2, Stop(requests=1)
    confirm("--seeds", 2)
    monkeypatch.setenv("CNN_SEARCH_DEVICE", "cpu")
    both = cli("confirm", "--abandon", "--minutes", 5, "--top", 1)
    assert_refused(both, 2, "leave --top, --minutes out")

    given_up = cli("confirm", "--abandon", "--storage", URL, "--study", "cifar10", "--json", "--debug")

    assert given_up.code == 0, given_up.err
    assert json.loads(given_up.out)["confirm"][0]["is_abandoned"]


def test_nothing_is_planned_that_cannot_be_trained(confirm: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither without data, nor where the files that come of it could not be written."""
    from trainer.errors import DataError

    Path("out/winner.h5").mkdir(parents=True)
    assert_refused_after_saying(confirm("--output", "out"), "out/winner.h5: it is no regular file")

    def load(*_: Any, **__: Any) -> Any:
        raise DataError("no CIFAR-10 here")

    monkeypatch.setattr("trainer.data.load", load)
    assert_refused_after_saying(confirm(), "no CIFAR-10 here")
    assert with_study(read_rounds) == []


def test_the_record_is_shown_where_files_cannot_be_written(
    confirm: Cli, fleet: Fleet, opened_tests: list[int]
) -> None:
    """The report comes all the same, then what could not be written, and exit code 1."""
    fleet.outcome = one_better
    first = confirm("--seeds", 2)
    trial = re.search(r"^wrote winner.h5: (.*)$", first.out, re.M)
    assert trial is not None
    assert re.fullmatch(r"trial \d of 'cifar10-confirm', trial 2's recipe on seed \d+", trial[1])
    Path("blocked/winner.h5").mkdir(parents=True)
    Path("file").touch()

    ended = confirm("--output", "blocked")

    assert ended.code == 1
    assert ended.out == first.out.replace(f"wrote winner.h5: {trial[1]}\n", "").replace(
        "wrote confirm", "wrote blocked/confirm"
    )
    assert "cannot write blocked/winner.h5: it is no regular file" in ended.err
    nowhere = confirm("--output", "file")
    assert (nowhere.code, "The winner is trial 2." in nowhere.out) == (1, True)
    assert json.loads(confirm("--output", "blocked", "--json").out)["files"] == ["blocked/confirm.html"]


def test_an_earlier_rounds_model_is_named(confirm: Cli, fleet: Fleet) -> None:
    """Beside a round without a winner it would pass for one's, and so while there is no verdict."""
    Path("winner.h5").write_bytes(b"old")
    fleet.most = 2
    early = confirm("--seeds", 2)
    fleet.most = 1000

    ended = confirm("--seeds", 2)

    assert "winner.h5 is not of this round, which has no winner yet\n" in early.err
    assert "winner.h5 is not of this round, which has no winner\n" in ended.err
    assert Path("winner.h5").read_bytes() == b"old"


@pytest.mark.parametrize("at", [0, 1])
def test_a_companion_that_is_deleted_while_it_is_tested_is_told(
    confirm: Cli, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before its first model is read or after it: in a line, with exit code 1."""
    import search.confirm.test_set

    fleet.outcome = one_better
    score = search.confirm.test_set._score
    left = [at]

    def delete_first(companion: Any, *arguments: Any) -> Any:
        if left[0] == 0:
            optuna.delete_study(study_name="cifar10-confirm", storage=companion.database.storage)
        left[0] -= 1
        return score(companion, *arguments)

    monkeypatch.setattr("search.confirm.test_set._score", delete_first)

    assert_refused_after_saying(confirm("--seeds", 2), "'cifar10-confirm' is no more: somebody deleted it")


@pytest.mark.parametrize("command", ["run", "worker", "init", "best", "plot", "confirm"])
def test_a_companion_is_no_study_to_search(confirm: Cli, cli: Cli, command: str) -> None:
    """The message names the study that is; `status` shows its trials."""
    confirm("--seeds", 2)

    refused = cli(command, "--study", "cifar10-confirm")

    assert_refused(refused, 1, "study 'cifar10-confirm' only confirms 'cifar10'", "`cnn-search confirm`")
    shown = cli("status", "--study", "cifar10-confirm")
    assert "confirms study 'cifar10'" in shown.out
    # The best seed is what a confirmation guards against.
    assert "best: " not in shown.out
    assert "77.37 %" not in shown.out


def test_a_model_that_is_gone_or_damaged_is_told(
    confirm: Cli, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its digest, before anything is scored or written; the verdict is shown, and stays."""
    fleet.outcome = one_better

    def damaging(opened: OpenStudy, *arguments: Any) -> Stop:
        stop = fleet(opened, *arguments)
        database: Database = opened.database
        with database._backend.engine.begin() as connection:
            connection.execute(sqlalchemy.update(FILES).values(content=b"other"))
        return stop

    monkeypatch.setattr("search.fleet.run_fleet", damaging)
    ended = confirm("--seeds", 2)

    assert ended.code == 1
    assert "The winner is trial 2." in ended.out
    assert "The test set was not scored yet" in ended.out
    assert "wrote confirm.html" in ended.out
    told = [line for line in ended.err.split("\n") if "is damaged: 5 bytes" in line]
    assert told
    assert len(set(told)) == len(told)
    assert not Path("winner.h5").exists()
    (current,) = with_study(read_rounds)
    assert current.winner is not None
    assert isinstance(current.test, OpeningRecord)
    assert not current.test.is_scored


def test_a_password_is_never_shown(cli: Cli) -> None:
    """Neither in errors nor in the command that goes on."""
    ended = cli("confirm", "--storage", "postgresql://ann:hunter2@127.0.0.1:1/d")

    assert ended.code == 1
    assert "hunter2" not in ended.out + ended.err


@pytest.mark.full_data
def test_real_workers_killed_and_resumed(
    spawn: Callable[..., subprocess.Popen[str]], cifar10: Path, url: str, tmp_path: Path
) -> None:
    """The command is killed in the middle of a trial; the same command goes on, to the verdict."""
    database = open_database(url)
    opened = searched(database, [0.5, 0.6], "cifar10")
    given = ("--storage", url, "--data", cifar10, "--workers", 1, "--output", tmp_path, "--device", "cpu")
    small = ("--top", 1, "--seeds", 2, "--against", 0.9, "--checkpoint-epochs", 1)
    first = Search(spawn("confirm", *given, *small), url)
    first.wait_for("trial 0 epoch 1/3")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()

    code, out, err = Search(spawn("confirm", *given), url).finish()

    assert code == 0, err
    assert "trial 0 epoch 3/3" in err
    assert "not beyond noise of 90.00 %" in out
    (current,) = read_rounds(opened)
    assert current.test is not None
    assert (current.test.images, len(current.test.winner)) == (10_000, 2)
    _, companion, _ = open_round(opened, ConfirmWish(), again=False)
    assert [trial.state.name for trial in companion.study.trials] == ["COMPLETE"] * 2
    assert [len(trial.intermediate_values) for trial in companion.study.trials] == [3] * 2
    database.close()
