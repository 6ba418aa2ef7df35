"""search.confirm: what is planned, how its companion is made whole whatever happens, and what it comes to."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
from confirmed import BETTER, alike, enqueue, finish_trials, one_better, searched
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from search.confirm.companion import look_ahead, open_round
from search.confirm.ending import abandon_round, settle_verdict
from search.confirm.ledger import keep_first, read_rounds
from search.confirm.lookup import Confirmation, find_confirmation, rounds_json, status_lines
from search.confirm.opening import Attempt, ModelTest, OpeningRecord
from search.confirm.plan import ConfirmPlan, ConfirmWish, fresh_seeds, make_plan
from search.confirm.round import TEST_KEY, VERDICT_KEY
from search.confirm.standing import Standing, read_hits, read_standing
from search.confirm.statistics import Difference
from search.confirm.verdict import Verdict
from search.errors import ConfirmError, StudyError
from search.strategy import attach_strategy
from search.study import PLAN_KEY, OpenStudy, Wishes, open_or_create_study, open_study
from search.summary import RECIPE_KEY, summarise_trials
from storage.companions import COMPANION_KEY, IDENTITY_KEY
from storage.database import Database, open_database
from storage.errors import LeaseLost
from storage.process import own_identity
from trainer.recipe import Recipe

SMALL = ConfirmWish(top=2, seeds=3)


def plan_of(
    opened: OpenStudy, wish: ConfirmWish = SMALL, earlier: tuple[ConfirmPlan, ...] = ()
) -> ConfirmPlan:
    """The plan for the study as it is."""
    return make_plan("sample", "i", opened.settings, summarise_trials(opened.study), wish, earlier)


def test_the_best_recipes_are_planned_seed_by_seed(database: Database) -> None:
    """Never trial 0 itself; the reference is the yardstick, and all have the same fresh seeds."""
    opened = searched(database, [0.9, 0.5, 0.7, 0.6])

    plan = plan_of(opened)

    assert [(one.trial, one.value) for one in plan.candidates] == [(2, 0.7), (3, 0.6)]
    assert (plan.round, plan.top, plan.against, plan.complete) == (1, 2, "recipe", 4)
    assert plan.reference == opened.settings.article_recipe
    runs = plan.runs()
    assert len(runs) == 9
    assert [run.seed for run in runs] == [seed for seed in plan.seeds for _ in range(3)]
    assert [run.dropout_block1 for run in runs] == [0.1, 0.15, 0.3] * 3
    assert runs[plan.run_of(1, 2)] == dataclasses.replace(plan.candidates[1].recipe, seed=plan.seeds[2])
    assert plan.recipe_of(plan.run_of(1, 2)) == 1
    assert ConfirmPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_figure_needs_no_reference(database: Database) -> None:
    """Nothing is trained beside the candidates."""
    plan = plan_of(searched(database, [0.9, 0.5, 0.7]), ConfirmWish(2, 3, 0.7737))

    assert (plan.reference, plan.against, len(plan.runs())) == (None, 0.7737, 6)
    assert ConfirmPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(ValueError, match="format 9"):
        ConfirmPlan.from_dict({**plan.to_dict(), "format": 9})


def test_recipes_that_differ_in_their_seed_alone_are_one(database: Database) -> None:
    """The best of them stands for all; those of the yardstick are none. There may be fewer than asked for."""
    opened = searched(database, [0.5, 0.6])
    for recipe in (Recipe(dropout_block1=0.05, epochs=3, seed=77), opened.settings.article_recipe):
        enqueue(opened, dataclasses.replace(recipe, seed=88))
    finish_trials(opened, lambda _: 0.8)

    assert [(one.trial, one.value) for one in plan_of(opened).candidates] == [(2, 0.8)]


def test_seeds_are_fresh() -> None:
    """None that something was trained with, all different, the same each time, others in each round."""
    first, second = (fresh_seeds(7, number, (), 5) for number in (1, 2))

    assert fresh_seeds(7, 1, (), 5) == first
    assert fresh_seeds(8, 1, (), 5) != first
    assert len(set(first)) == 5
    assert not set(first) & set(second)
    assert fresh_seeds(7, 1, first[:3], 2) == first[3:]
    assert len(set(fresh_seeds(7, 1, first, 100)) - set(first)) == 100
    assert all(0 <= seed < 2**31 for seed in fresh_seeds(7, 1, (), 100))


def test_a_studys_own_seeds_are_not_fresh(database: Database) -> None:
    """Neither those that its trials trained with, nor those of earlier rounds."""
    opened = searched(database, [0.5, 0.6, 0.7])
    first = plan_of(opened)
    enqueue(opened, Recipe(dropout_block1=0.5, epochs=3, seed=first.seeds[1]))
    finish_trials(opened, lambda _: 0.1)

    assert first.seeds[1] not in plan_of(opened).seeds
    assert not set(plan_of(opened, earlier=(first,)).seeds) & set(first.seeds)


def test_a_study_without_candidates_has_nothing_to_confirm(database: Database) -> None:
    """Only the yardstick is complete, or not even that."""
    opened = searched(database, [0.9])

    with pytest.raises(
        ConfirmError, match=r"no complete trial besides the article's recipe.*\(1 trial\).*run` searches on"
    ):
        open_round(opened, SMALL, again=False)
    assert read_rounds(opened) == []
    assert database.storage.get_all_studies()[0].study_name == "sample"


def test_the_companion_has_exactly_what_is_planned(any_database: Database) -> None:
    """As many trials as there are runs, each with its recipe, none of them ever pruned; and the settings."""
    opened = searched(any_database, [0.5, 0.6, 0.7])

    current, companion, begun = open_round(opened, SMALL, again=False)

    assert (begun, current.name, current.is_whole, current.verdict) == (True, "sample-confirm", True, None)
    assert any_database.read_limit(companion.study) == 9
    trials = companion.study.get_trials(deepcopy=False)
    assert [Recipe.from_dict(trial.user_attrs[RECIPE_KEY]) for trial in trials] == list(current.plan.runs())
    assert {trial.state for trial in trials} == {TrialState.WAITING}
    assert companion.settings == opened.settings
    assert companion.confirms == "sample"
    assert isinstance(attach_strategy(companion).pruner, NopPruner)
    (waiting,) = any_database.open_companions(opened.study)
    assert (waiting.name, waiting.waiting) == ("sample-confirm", 9)
    again, _, begun = open_round(opened, ConfirmWish(), again=True)
    assert (again.plan, begun) == (current.plan, False)


def steps_of_creation(monkeypatch: pytest.MonkeyPatch, storage: Any, dies_at: int) -> list[str]:
    """Let the process die, as it were, at so many writes of studies and trials from now on."""
    done: list[str] = []
    names = ("set_study_user_attr", "set_study_system_attr", "create_new_trial", "create_new_study")

    def guard(name: str) -> Any:
        method = getattr(storage, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if len(done) == dies_at:
                raise KeyboardInterrupt
            done.append(name)
            return method(*arguments, **options)

        return call

    for name in names:
        monkeypatch.setattr(storage, name, guard(name))
    return done


@pytest.mark.parametrize("dies_at", range(0, 20))
def test_what_a_killed_process_leaves_is_completed(
    database: Database, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """At whatever write it dies; until the last one, no worker sees anything of it."""
    opened = searched(database, [0.5, 0.6, 0.7])
    with monkeypatch.context() as patch:
        done = steps_of_creation(patch, database.storage, dies_at)
        try:
            open_round(opened, SMALL, again=False)
        except KeyboardInterrupt:
            assert database.open_companions(opened.study) == []
            assert len(done) == dies_at
        else:
            assert dies_at > 16

    current, companion, _ = open_round(opened, ConfirmWish(), again=False)

    # Before the plan was written nobody could know what was wished for.
    assert len(current.plan.runs()) == (9 if dies_at > 1 else 20 - 5)
    recipes = [Recipe.from_dict(trial.user_attrs[RECIPE_KEY]) for trial in companion.study.trials]
    assert recipes == list(current.plan.runs())
    assert database.read_limit(companion.study) == len(recipes)
    assert len(database.storage.get_all_studies()) == 2
    assert len(database.open_companions(opened.study)) == 1


def test_two_at_once_make_one_companion(any_url: str) -> None:
    """One makes it, the others find it."""
    database = open_database(any_url)
    searched(database, [0.5, 0.6, 0.7])

    def confirm(_: int) -> tuple[str, bool]:
        own = open_database(any_url)
        current, _, begun = open_round(open_study(own, "sample"), SMALL, again=False)
        own.close()
        return current.name, begun

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(confirm, range(4)))

    assert sorted(made) == [("sample-confirm", False)] * 3 + [("sample-confirm", True)]
    assert len(database.storage.get_all_studies()) == 2
    database.close()


def test_a_name_that_is_taken_is_left_alone(database: Database) -> None:
    """The companion gets another one, and is found by what it is."""
    opened = searched(database, [0.5, 0.6])
    open_or_create_study(database, "sample-confirm", Wishes())

    current, _, _ = open_round(opened, SMALL, again=False)

    assert current.name == "sample-confirm-2"
    assert [one.name for one in read_rounds(opened)] == ["sample-confirm-2"]
    assert len(open_study(database, "sample-confirm").study.trials) == 1


def test_another_wish_is_refused_with_the_way_on(database: Database) -> None:
    """The plan is named; what is the same or left open is none."""
    opened = searched(database, [0.5, 0.6, 0.7])
    open_round(opened, SMALL, again=False)

    for wish, words in (
        (ConfirmWish(top=3), "it has --top 2, not 3; leave these options out"),
        (ConfirmWish(seeds=9), "--seeds 3, not 9"),
        (ConfirmWish(against=0.7), "--against recipe, not 0.7"),
    ):
        with pytest.raises(ConfirmError, match=words):
            open_round(opened, wish, again=False)
    assert open_round(opened, SMALL, again=False)[0].plan.round == 1


def run_round(opened: OpenStudy, outcome: Any, wish: ConfirmWish = SMALL, *, again: bool = False) -> Verdict:
    """A whole round but for the test set."""
    current, companion, _ = open_round(opened, wish, again=again)
    finish_trials(companion, outcome)
    return settle_verdict(companion, current.plan, read_standing(companion, current.plan))


def keep_test(opened: OpenStudy, mean: float) -> None:
    """Let the winner of the last round be so much better on the test set, give or take half a point."""
    current = read_rounds(opened)[-1]
    tests = (ModelTest(0, 1, 0.7, 1.0, "0" * 64),)
    difference = Difference(mean, mean - 0.005, mean + 0.005, 0.001, 0.002)
    record = OpeningRecord((Attempt("2026-11-23T12:00:00+00:00", "h"),), 10_000, tests, tests, difference)
    assert OpeningRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    open_study(opened.database, current.name).study.set_user_attr(TEST_KEY, record.to_dict())


def keep_figure_test(opened: OpenStudy, accuracy: float) -> None:
    """Let the models of who was chosen in the last round have this accuracy on the test set."""
    current = read_rounds(opened)[-1]
    tests = tuple(ModelTest(number, number, accuracy, 1.0, "0" * 64) for number in range(3))
    record = OpeningRecord((Attempt("2026-11-23T12:00:00+00:00", "h"),), 10_000, tests, (), None)
    open_study(opened.database, current.name).study.set_user_attr(TEST_KEY, record.to_dict())


def test_hits_that_are_gone_are_told(database: Database) -> None:
    """Nothing is decided without them; who counts them finds another number."""
    opened = searched(database, [0.5, 0.6])
    current, companion, _ = open_round(opened, SMALL, again=False)
    finish_trials(companion, alike)
    standing = read_standing(companion, current.plan)
    first = standing.outcomes[0][0]
    wrong = dataclasses.replace(first, value=0.5)
    changed = Standing(((wrong, *standing.outcomes[0][1:]), *standing.outcomes[1:]))

    with pytest.raises(
        ConfirmError, match=r"which images trial 0 classified rightly .*, not 0\.5000 of them"
    ):
        settle_verdict(companion, current.plan, changed)
    assert [one.mean() for one in read_hits(companion, standing)[0]] == pytest.approx(
        standing.values(0), abs=1e-4
    )


def test_a_verdict_is_kept(database: Database) -> None:
    """The first one, whatever is decided later; it comes back as it was."""
    opened = searched(database, [0.5, 0.6, 0.7])
    verdict = run_round(opened, one_better)
    (current,) = read_rounds(opened)

    assert current.verdict == verdict
    assert current.winner == current.plan.candidates[0]
    assert current.winner is not None
    assert current.winner.recipe.dropout_block1 == BETTER
    companion = open_study(database, current.name)
    again = settle_verdict(companion, current.plan, read_standing(companion, current.plan))
    assert again == verdict
    kept = keep_first(companion, current.plan, VERDICT_KEY, lambda former: former or {})
    assert Verdict.from_dict(kept) == verdict


def test_equal_recipes_have_no_winner(database: Database) -> None:
    """Whatever they had in the search."""
    assert run_round(searched(database, [0.5, 0.6, 0.9]), alike).winner is None


@pytest.mark.parametrize("outcome", ["diverged", "failed"])
def test_a_recipe_that_lacks_a_seed_cannot_win(database: Database, outcome: str) -> None:
    """However good it is on the others; against a figure the next one is the highest."""
    opened = searched(database, [0.5, 0.6, 0.7])
    left = [outcome]

    def fails_once(recipe: Recipe) -> Any:
        return left.pop() if left and recipe.dropout_block1 == BETTER else one_better(recipe)

    verdict = run_round(opened, fails_once)

    assert verdict.winner is None
    (current,) = read_rounds(opened)
    standing = read_standing(open_study(database, current.name), current.plan)
    assert [one.state for one in standing.lacking(0)] == [outcome]
    assert standing.lacking(1) == []
    assert status_lines(opened)[0].endswith(
        ": no winner: what is beyond noise lacks a seed; the test set stays closed"
    )


def test_a_further_round_follows_a_search_that_went_on(database: Database) -> None:
    """With a recipe that no round had; the same again on other seeds is refused."""
    opened = searched(database, [0.5, 0.6, 0.7])
    run_round(opened, alike)
    first = read_rounds(opened)[0].plan
    with pytest.raises(ConfirmError, match=r"nothing has changed since round 1 .*, which had 3 seeds"):
        open_round(opened, ConfirmWish(2, 3), again=True)

    run_round(opened, alike, ConfirmWish(2, 4), again=True)
    enqueue(opened, Recipe(dropout_block1=0.5, epochs=3))
    finish_trials(opened, lambda _: 0.9)
    third, companion, begun = open_round(opened, ConfirmWish(2, 4), again=True)

    assert (begun, third.plan.round, third.name) == (True, 3, "sample-confirm-3")
    assert third.plan.candidates[0].value == 0.9
    assert not set(third.plan.seeds) & set(first.seeds)
    same, _, begun = open_round(opened, ConfirmWish(), again=True)
    assert (begun, same.plan) == (False, third.plan)
    assert len(companion.study.trials) == 12
    assert [one.plan.round for one in read_rounds(opened)] == [1, 2, 3]


def test_the_same_question_is_refused_however_it_is_worded(database: Database) -> None:
    """With another number of recipes, or of trials, of which the best are the same; and after any round."""
    opened = searched(database, [0.5, 0.6, 0.7])
    run_round(opened, alike, ConfirmWish(2, 3))
    for top in (9, 4, 1):
        with pytest.raises(ConfirmError, match="nothing has changed since round 1"):
            open_round(opened, ConfirmWish(top, 3), again=True)
    enqueue(opened, Recipe(dropout_block1=0.5, epochs=3))
    finish_trials(opened, lambda _: 0.1)
    with pytest.raises(ConfirmError, match="nothing has changed since round 1"):
        open_round(opened, ConfirmWish(2, 3), again=True)

    run_round(opened, alike, ConfirmWish(2, 9), again=True)
    for seeds in (3, 4, 9):
        with pytest.raises(ConfirmError, match=r"nothing has changed since round 2 .* which had 9 seeds"):
            open_round(opened, ConfirmWish(2, seeds), again=True)
    assert len(read_rounds(opened)) == 2


def test_another_figure_is_no_other_question(database: Database) -> None:
    """The article's recipe in place of a figure is one."""
    opened = searched(database, [0.5, 0.6, 0.7])
    run_round(opened, alike, ConfirmWish(2, 3, 0.7737))
    with pytest.raises(ConfirmError, match="nothing has changed since round 1"):
        open_round(opened, ConfirmWish(2, 3, 0.7738), again=True)

    assert open_round(opened, ConfirmWish(2, 3, "recipe"), again=True)[0].plan.round == 2


def test_a_failed_trial_allows_another_try(database: Database) -> None:
    """A machine's fault tells nothing about a recipe."""
    opened = searched(database, [0.5, 0.6])
    left = ["failed"]
    run_round(opened, lambda recipe: left.pop() if left else alike(recipe))

    assert open_round(opened, ConfirmWish(2, 3), again=True)[0].plan.round == 2


def test_a_round_can_be_abandoned(any_database: Database) -> None:
    """What waits and what runs fails at once, for nobody to train; it is counted and no default."""
    opened = searched(any_database, [0.5, 0.6, 0.7])
    first, companion, _ = open_round(opened, ConfirmWish(2, 9), again=False)
    finish_trials(companion, alike, most=4)
    any_database.work_as(own_identity())
    claimed = any_database.claimed(companion.artifacts, companion.study.ask()._trial_id)

    given_up = abandon_round(opened)

    assert given_up.abandoned is not None
    assert (given_up.abandoned.ended, given_up.is_void, given_up.verdict) == (4, True, None)
    states = [trial.state for trial in companion.study.get_trials(deepcopy=False)]
    assert states == [TrialState.COMPLETE] * 4 + [TrialState.FAIL] * 23
    assert any_database.open_companions(opened.study) == []
    with pytest.raises(LeaseLost):
        claimed.hand_back(None, {})
    claimed.let_go()
    assert status_lines(opened) == ["confirm, round 1 ('sample-confirm'): abandoned after 4 of 27 trials"]
    assert abandon_round(opened) == given_up
    # Another process was at it, and sees that all trials have ended.
    with pytest.raises(ConfirmError, match="round 1 of confirming 'sample' was abandoned"):
        settle_verdict(companion, first.plan, read_standing(companion, first.plan))

    second, _, begun = open_round(opened, ConfirmWish(), again=False)
    assert (begun, second.plan.round, len(second.plan.seeds)) == (True, 2, 5)
    assert not set(second.plan.seeds) & set(first.plan.seeds)
    run_round(opened, alike, ConfirmWish())
    found = find_confirmation(opened, summarise_trials(opened.study)[2])
    assert (found.round, found.text.split(". ")[-1]) == (
        2,
        "Round 1 of it: abandoned after 4 of 27 trials.",
    )
    with pytest.raises(ConfirmError, match="no open round: round 2 has its verdict"):
        abandon_round(opened)


@pytest.mark.parametrize("most", [0, 9])
def test_only_an_open_round_is_abandoned(database: Database, most: int) -> None:
    """Neither one that never was, nor one whose last trial has ended: who saw it all cannot unsee it."""
    opened = searched(database, [0.5, 0.6, 0.7])
    if most:
        _, companion, _ = open_round(opened, SMALL, again=False)
        finish_trials(companion, alike, most=most)

    with pytest.raises(ConfirmError, match="all 9 trials .* have ended" if most else "has no round"):
        abandon_round(opened)


def test_who_dies_while_abandoning_leaves_no_verdict(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its mark and its trials; the next one ends them."""
    opened = searched(database, [0.5, 0.6])
    open_round(opened, SMALL, again=False)
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("storage.leases.Leases.end_open", die)
        with pytest.raises(KeyboardInterrupt):
            abandon_round(opened)

    second, companion, begun = open_round(opened, SMALL, again=False)

    assert (begun, second.plan.round) == (True, 2)
    (waiting,) = database.open_companions(opened.study)
    assert waiting.name == companion.study.study_name


def test_a_deleted_companion_leaves_a_trace(database: Database) -> None:
    """That there was a round, what it came to, its seeds, and that the test set was opened."""
    opened = searched(database, [0.5, 0.6, 0.7])
    run_round(opened, one_better, ConfirmWish(2, 4))
    keep_test(opened, 0.1)
    companion = open_study(database, "sample-confirm")
    former = companion.study.user_attrs[TEST_KEY]
    keep_first(companion, read_rounds(opened)[0].plan, TEST_KEY, lambda _: {**former, "images": 9_999})
    (before,) = read_rounds(opened)
    optuna.delete_study(study_name="sample-confirm", storage=database.storage)

    (after,) = read_rounds(opened)

    assert after == dataclasses.replace(before, is_deleted=True)
    assert after.test is not None
    assert (after.test.images, after.winner) == (9_999, before.plan.candidates[0])
    assert rounds_json(opened)["confirm"][0]["is_tested"]
    with pytest.raises(ConfirmError, match=r"nothing has changed since round 1 .* which had 4 seeds"):
        open_round(opened, ConfirmWish(2, 4), again=False)
    second, _, _ = open_round(opened, ConfirmWish(2, 5), again=False)
    assert (second.plan.round, second.name) == (2, "sample-confirm-2")
    assert not set(second.plan.seeds) & set(before.plan.seeds)


def test_round_numbers_do_not_come_again(database: Database) -> None:
    """Of three rounds the first is deleted: the next one is the fourth."""
    opened = searched(database, [0.5, 0.6, 0.7])
    for seeds in (2, 3, 4):
        run_round(opened, alike, ConfirmWish(2, seeds), again=True)
    optuna.delete_study(study_name="sample-confirm", storage=database.storage)

    run_round(opened, alike, ConfirmWish(2, 5), again=True)

    assert [(one.plan.round, one.is_deleted) for one in read_rounds(opened)] == [
        (1, True),
        (2, False),
        (3, False),
        (4, False),
    ]
    assert status_lines(opened)[0].startswith("confirm, round 4 ('sample-confirm-4')")


def test_looking_ahead_writes_nothing(database: Database) -> None:
    """It says what would be begun, gone on with or shown, and refuses what would be refused."""
    opened = searched(database, [0.5, 0.6, 0.7])
    plan, trains = look_ahead(opened, SMALL, again=False)
    assert (len(plan.runs()), trains) == (9, True)
    assert len(database.storage.get_all_studies()) == 1
    current, _, _ = open_round(opened, SMALL, again=False)
    assert look_ahead(opened, SMALL, again=False) == (current.plan, True)
    run_round(opened, alike)
    assert look_ahead(opened, SMALL, again=False) == (current.plan, False)
    with pytest.raises(ConfirmError, match="nothing has changed"):
        look_ahead(opened, SMALL, again=True)


def test_a_damaged_companion_is_told(database: Database) -> None:
    """Its trials are not the plan's: nothing is made of them, and a further round may follow."""
    opened = searched(database, [0.5, 0.6])
    current, companion, _ = open_round(opened, SMALL, again=False)
    other = Recipe(epochs=3, seed=1).to_dict()
    trial_id = companion.study.trials[2]._trial_id
    database.storage.set_trial_user_attr(trial_id, RECIPE_KEY, other)

    with pytest.raises(ConfirmError, match=r"'sample-confirm' is damaged: trial 2 .*--again"):
        read_standing(companion, current.plan)
    assert open_round(opened, SMALL, again=True)[0].name == "sample-confirm-2"


def test_an_unreadable_plan_is_told_and_hides_nothing_else(database: Database) -> None:
    """`confirm` refuses to guess; `best` and `status` say so and go on."""
    opened = searched(database, [0.5, 0.6])
    _, companion, _ = open_round(opened, SMALL, again=False)
    plan = companion.study.user_attrs[PLAN_KEY]
    companion.study.set_user_attr(PLAN_KEY, {**plan, "format": 2})

    with pytest.raises(
        ConfirmError, match=r"'sample-confirm' holds a confirmation that cannot be read: format 2"
    ):
        open_round(opened, SMALL, again=False)
    trial = summarise_trials(opened.study)[1]
    assert "cannot be told" in find_confirmation(opened, trial).text
    assert status_lines(opened)[0].startswith("confirm: study 'sample-confirm' holds")
    told = rounds_json(opened)
    assert (told["confirm"], "cannot be read: format 2" in told["confirm_error"]) == ([], True)


def test_a_companion_that_was_deleted_is_begun_anew(database: Database) -> None:
    """Meanwhile it is said to be gone; of the old one nothing is left."""
    opened = searched(database, [0.5, 0.6])
    current, companion, _ = open_round(opened, SMALL, again=False)
    optuna.delete_study(study_name=current.name, storage=database.storage)

    with pytest.raises(ConfirmError, match="is no more"):
        read_standing(companion, current.plan)
    with pytest.raises(ConfirmError, match="is no more"):
        keep_first(companion, current.plan, VERDICT_KEY, lambda _: {})
    with pytest.raises(ConfirmError, match="is no more"):
        settle_verdict(companion, current.plan, Standing(()))
    with pytest.raises(ConfirmError, match="is no more"):
        read_hits(companion, Standing(()))
    assert database.open_companions(opened.study) == []
    assert open_round(opened, SMALL, again=False)[2]


@pytest.mark.parametrize("name", ["other", "sample-confirm"])
def test_another_study_of_the_same_id_is_left_alone(database: Database, name: str) -> None:
    """SQLite gives a deleted study's id again: what was to be kept of the old one is not kept of the new."""
    opened = searched(database, [0.5, 0.6])
    current, companion, _ = open_round(opened, SMALL, again=False)
    study_id = companion.study._study_id
    optuna.delete_study(study_name=current.name, storage=database.storage)
    other = optuna.create_study(storage=database.storage, study_name=name, direction="maximize")
    assert other._study_id == study_id
    if name == current.name:
        # As if the study, too, had been deleted and made again.
        other.set_user_attr(PLAN_KEY, dataclasses.replace(current.plan, identity="another").to_dict())
    before = other.user_attrs

    with pytest.raises(ConfirmError, match="'sample-confirm' is no more"):
        keep_first(companion, current.plan, VERDICT_KEY, lambda _: {"format": 2})
    assert other.user_attrs == before


def test_a_name_that_comes_again_hides_no_round(database: Database) -> None:
    """The second round's name was taken; when that one is deleted, the third has what stood for it."""
    opened = searched(database, [0.5, 0.6, 0.7])
    run_round(opened, alike)
    open_or_create_study(database, "sample-confirm-2", Wishes())
    run_round(opened, alike, ConfirmWish(2, 4), again=True)
    optuna.delete_study(study_name="sample-confirm-3", storage=database.storage)

    third, _, _ = open_round(opened, ConfirmWish(2, 5), again=False)

    assert third.name == "sample-confirm-3"
    assert [(one.plan.round, one.name, one.is_deleted) for one in read_rounds(opened)] == [
        (1, "sample-confirm", False),
        (2, "sample-confirm-3", True),
        (3, "sample-confirm-3", False),
    ]


def test_status_survives_a_companion_that_goes_between_two_looks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had none of its trials ended, as far as anybody can tell."""
    opened = searched(database, [0.5, 0.6])
    open_round(opened, SMALL, again=False)
    rounds = read_rounds(opened)
    optuna.delete_study(study_name="sample-confirm", storage=database.storage)
    monkeypatch.setattr("search.confirm.lookup.read_rounds", lambda _: rounds)

    assert status_lines(opened) == ["confirm, round 1 ('sample-confirm'): 0 of 6 trials ended"]


def test_a_round_has_a_bound(database: Database) -> None:
    """While it is planned, others wait for their set-ups."""
    opened = searched(database, [0.5, *[0.6] * 7])

    with pytest.raises(ConfirmError, match=r"--top 6 with --seeds 72 is 504 trainings, .* 500 at most"):
        look_ahead(opened, ConfirmWish(6, 72), again=False)
    assert len(look_ahead(opened, ConfirmWish(6, 71), again=False)[0].runs()) == 497


def test_a_companion_is_no_search(database: Database) -> None:
    """Nobody draws trials for it, confirms it, or makes a search of one that is half made."""
    opened = searched(database, [0.5, 0.6])
    _, companion, _ = open_round(opened, SMALL, again=False)
    study = optuna.create_study(storage=database.storage, study_name="half", direction="maximize")
    study.set_user_attr(PLAN_KEY, {"study": "sample", "identity": "x"})

    with pytest.raises(StudyError, match="only confirms 'sample'"):
        companion.check_is_search()
    with pytest.raises(StudyError, match="only confirms 'sample'"):
        open_round(companion, SMALL, again=False)
    with pytest.raises(StudyError, match="made by another program"):
        open_or_create_study(database, "half", Wishes())
    opened.check_is_search()
    assert status_lines(companion) == ["confirms study 'sample': `cnn-search confirm` shows what it came to"]


def test_a_study_of_before_gets_an_identity(database: Database) -> None:
    """Which ties its companion to it."""
    opened = searched(database, [0.5, 0.6])
    storage, study_id = database.storage, opened.study._study_id
    storage.set_study_system_attr(study_id, IDENTITY_KEY, None)

    _, companion, _ = open_round(opened, SMALL, again=False)

    attrs = [storage.get_study_system_attrs(one._study_id) for one in (opened.study, companion.study)]
    assert attrs[0][IDENTITY_KEY] == attrs[1][COMPANION_KEY] != attrs[1][IDENTITY_KEY]


def test_best_and_status_say_what_is_confirmed(database: Database) -> None:
    """Before, while it runs, after it; and of a trial that came later, or differs in its seed alone."""
    opened = searched(database, [0.5, 0.6, 0.7])

    def told(number: int) -> tuple[bool | None, str]:
        found = find_confirmation(opened, summarise_trials(opened.study)[number])
        return found.is_confirmed, found.text

    assert told(2) == (
        None,
        "Not confirmed yet: `cnn-search confirm` trains it again on fresh seeds and says.",
    )
    assert (status_lines(opened), rounds_json(opened)["confirm"]) == ([], [])
    current, companion, _ = open_round(opened, SMALL, again=False)
    finish_trials(companion, one_better, most=4)
    assert told(2) == (None, "Not confirmed yet: it is trained on 3 fresh seeds (round 1, 'sample-confirm').")
    assert status_lines(opened) == ["confirm, round 1 ('sample-confirm'): 4 of 9 trials ended"]
    run_round(opened, one_better)
    confirmed, text = told(2)
    assert confirmed is None
    assert text.startswith("Not confirmed yet: its recipe (trial 2) is +10.")
    assert text.endswith("; the test set was not scored yet.")
    keep_test(opened, -0.001)
    confirmed, text = told(2)
    assert confirmed is False
    assert text.startswith("Not confirmed: its recipe (trial 2) is +10.")
    assert text.endswith(", but on the test set -0.10 points, 95 % interval -0.60 to +0.40: not above 0.")
    keep_test(opened, 0.001)
    confirmed, text = told(2)
    assert confirmed
    assert text.startswith("Confirmed: its recipe (trial 2) is +10.")
    assert text.endswith(
        ", and on the test set +0.10 points, 95 % interval -0.40 to +0.60: not beyond noise."
    )
    assert told(1) == (
        False,
        "Not confirmed on 3 fresh seeds (round 1, 'sample-confirm'): the winner is trial 2.",
    )
    assert status_lines(opened) == [
        "confirm, round 1 ('sample-confirm'): the winner is trial 2; on the test set +0.10 points, 95 % "
        "interval -0.40 to +0.60: not beyond noise"
    ]
    assert rounds_json(opened)["confirm"][0]["winner"] == 2
    enqueue(opened, dataclasses.replace(current.plan.candidates[0].recipe, seed=99))
    enqueue(opened, Recipe(dropout_block1=0.5, epochs=3))
    finish_trials(opened, lambda _: 0.9)
    assert told(3)[0]
    assert told(4)[1].endswith("`cnn-search confirm --again` compares the best of now.")


def test_best_names_all_rounds_that_compared_the_recipe(database: Database) -> None:
    """A round that wins after one that did not is another thing than a first one."""
    opened = searched(database, [0.5, 0.6, 0.7])
    run_round(opened, alike)
    run_round(opened, one_better, ConfirmWish(2, 4), again=True)

    found = find_confirmation(opened, summarise_trials(opened.study)[2])

    assert (found.companion, found.round) == ("sample-confirm-2", 2)
    assert "on 4 fresh seeds (round 2, 'sample-confirm-2')" in found.text
    assert found.text.endswith(" Round 1 of it: no winner beyond noise.")
    assert [dataclasses.asdict(one) for one in found.others] == [
        {"round": 1, "companion": "sample-confirm", "outcome": "no winner beyond noise"}
    ]
    loser = find_confirmation(opened, summarise_trials(opened.study)[1])
    assert loser.text.endswith("the winner is trial 2. Round 1 of it: no winner beyond noise.")


def test_a_figure_takes_no_confirmation_back(database: Database) -> None:
    """The last round against the article's recipe decides, whatever figure was tried after it or before."""
    opened = searched(database, [0.5, 0.6, 0.7])

    def told(number: int) -> Confirmation:
        return find_confirmation(opened, summarise_trials(opened.study)[number])

    run_round(opened, one_better, ConfirmWish(2, 3, 0.6))
    keep_figure_test(opened, 0.7)
    run_round(opened, one_better, ConfirmWish(2, 3, "recipe"), again=True)
    keep_test(opened, 0.1)
    run_round(opened, one_better, ConfirmWish(2, 4, 0.99), again=True)
    untested = told(2)
    keep_figure_test(opened, 0.7)
    found, loser = told(2), told(1)

    assert (found.is_confirmed, found.companion, found.round) == (True, "sample-confirm-2", 2)
    assert found.text.startswith("Confirmed: its recipe (trial 2) is +10.")
    assert found.text.endswith(
        " Round 1 of it: beyond noise of 60.00 %. Round 3 of it: not beyond noise of 99.00 %."
    )
    assert [one.round for one in found.others] == [1, 3]
    assert untested.is_confirmed
    assert untested.text.endswith(
        " Round 3 of it: it has the highest mean, and was not tested against 99.00 %."
    )
    assert (loser.is_confirmed, loser.round) == (False, 2)
    # Of a round that ended without a verdict there is nothing to decide by.
    open_round(opened, ConfirmWish(2, 5, "recipe"), again=True)
    assert told(2).round == 4
    abandon_round(opened)
    assert (told(2).is_confirmed, told(2).round) == (True, 2)


def test_a_figure_decides_where_no_round_compared_the_article(database: Database) -> None:
    """The last of them, as long as the article's recipe was tried in rounds alone that were given up."""
    opened = searched(database, [0.5, 0.6, 0.7])
    open_round(opened, ConfirmWish(2, 3, "recipe"), again=False)
    abandon_round(opened)
    for seeds, figure in ((3, 0.6), (4, 0.99)):
        run_round(opened, one_better, ConfirmWish(2, seeds, figure), again=True)
        keep_figure_test(opened, 0.7)

    found = find_confirmation(opened, summarise_trials(opened.study)[2])

    assert (found.is_confirmed, found.round) == (False, 3)
    assert found.text.startswith("Not confirmed: not beyond noise of 99.00 %: on the test set 70.00 %")
    assert found.text.endswith(
        " Round 1 of it: abandoned after 0 of 9 trials. Round 2 of it: beyond noise of 60.00 %."
    )


def test_the_yardstick_needs_no_confirmation(database: Database) -> None:
    """Before a round and after one; another trial with its recipe is the same thing."""
    opened = searched(database, [0.9, 0.6])
    enqueue(opened, dataclasses.replace(opened.settings.article_recipe, seed=88))
    finish_trials(opened, lambda _: 0.95)

    for number in (0, 2):
        found = find_confirmation(opened, summarise_trials(opened.study)[number])
        assert found.is_confirmed is None
        assert found.text.startswith("It is the article's recipe, the yardstick")
    run_round(opened, alike, ConfirmWish(1, 2))
    assert "yardstick" in find_confirmation(opened, summarise_trials(opened.study)[2]).text
