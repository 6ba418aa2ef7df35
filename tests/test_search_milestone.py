"""When validation accuracy first came to the article's or the target's value, and what that took."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_search_progress import ANY_TRIALS, START, summary

from search.milestone import (
    BASELINE,
    Milestone,
    describe_duration,
    find_milestone,
    milestone_lines,
    milestones_json,
    percent_text,
)
from search.summary import TrialSummary


def trained(trial: TrialSummary, epochs: int, seconds: float | None = None) -> TrialSummary:
    """The trial with so many epochs, which took so long together."""
    return replace(trial, epochs_done=epochs, seconds=seconds)


STUDY = [
    trained(summary(0, accuracy=0.7736, minute=25), 100, 1500.0),
    trained(summary(1, "pruned", 0.79, minute=5), 8, 120.0),
    trained(summary(2, accuracy=0.7801, minute=31), 60, 900.0),
    trained(summary(3, "failed", None, minute=12), 0),
    trained(summary(4, accuracy=0.7737, minute=32), 64, 1600.0),
    trained(summary(5, accuracy=0.81, minute=90), 200, 3600.0),
    trained(summary(6, "running", 0.5), 30),
    trained(summary(7, "waiting", None), 0),
]
"""The fifth to end, trial 2, is the first above the article's 77.37 %."""


def test_the_baseline_is_the_articles_result_after_100_epochs() -> None:
    """77.37 %, and a trial that has exactly that has matched it."""
    assert BASELINE == 0.7737
    assert find_milestone([summary(1, accuracy=0.7737)], BASELINE).trial == 1


def test_what_was_spent_is_that_of_all_trials_until_then() -> None:
    """Time from the first beginning, trials that had ended, epochs also of those that ran."""
    # Trial 4 had 31 min at 25 s an epoch, so all of its 64; trial 5 103 at 18 s; trial 6 tells no pace.
    epochs = 100 + 8 + 60 + 0 + 64 + 103 + 30
    assert find_milestone(STUDY, BASELINE) == Milestone(BASELINE, 2, 31 * 60.0, epochs, 4)
    assert find_milestone(list(reversed(STUDY)), BASELINE) == find_milestone(STUDY, BASELINE)


def test_without_such_a_trial_it_is_what_was_spent_so_far() -> None:
    """Until the last end; all epochs, those of running trials too."""
    assert find_milestone(STUDY, 0.9) == Milestone(0.9, None, 5400.0, 462, 6)
    assert find_milestone([], 0.9) == Milestone(0.9, None, None, 0, 0)
    running = trained(summary(0, "running"), 3)
    assert find_milestone([running], 0.9) == Milestone(0.9, None, None, 3, 0)


def test_what_was_spent_so_far_is_of_one_moment() -> None:
    """Until the last end: epochs that were trained after it have no time yet."""
    moment = START + timedelta(minutes=30)
    ended = replace(summary(0, accuracy=0.5), started=START, ended=moment, epochs_done=7)
    running = replace(
        trained(summary(1, "running"), 8, 480.0), started=moment - timedelta(minutes=3, seconds=5)
    )

    assert find_milestone([ended, running], 0.9) == Milestone(0.9, None, 1800.0, 10, 1)


@pytest.mark.parametrize(
    ("started", "seconds", "epochs"),
    [
        (-10, 600.0, 99),
        (-10, 60.0, 100),
        (-10, None, 100),
        (-10, 0.0, 100),
        (-10, float("nan"), 100),
        (0, 600.0, 0),
        (10, 600.0, 0),
    ],
)
def test_a_trial_that_ran_at_that_moment_counts_with_what_it_had_time_for(
    started: float, seconds: float | None, epochs: int
) -> None:
    """At its own pace, full epochs alone, never more than it reached, and none where it began later."""
    moment = START + timedelta(minutes=30)
    first = replace(summary(0, accuracy=0.8), started=START, ended=moment, epochs_done=7)
    other = replace(
        trained(summary(1, "running"), 100, seconds),
        started=moment + timedelta(minutes=started, seconds=5 if started < 0 else 0),
    )
    for trial in (other, replace(other, ended=moment + timedelta(hours=1)), replace(other, state="waiting")):
        assert find_milestone([first, trial], 0.8).epochs == 7 + epochs


def test_only_complete_trials_with_a_model_are_milestones() -> None:
    """As they alone are the best; what another program set as a value may be no accuracy at all."""
    trials = [
        summary(0, "pruned", 0.8),
        replace(summary(1, accuracy=0.8), has_model=False),
        summary(2, accuracy=float("inf")),
        summary(3, accuracy=float("nan")),
    ]
    assert find_milestone(trials, 0.7).trial is None


@given(ANY_TRIALS, st.floats(0.01, 0.99))
def test_a_milestone_is_the_first_of_all(drawn: list[tuple[str, float, int]], value: float) -> None:
    """Whatever the trials: none that ended before is as good, and what was spent is within what there is."""
    trials = [summary(number, *rest) for number, rest in enumerate(drawn)]
    found = find_milestone(trials, value)
    good = [trial for trial in trials if trial.value is not None and trial.value >= value]
    assert (found.trial is None) == (not good)
    assert 0 <= found.epochs <= sum(trial.epochs_done for trial in trials)
    ended = [trial for trial in trials if trial.ended is not None]
    assert found.trials <= len(ended)
    if found.trial is not None:
        first = trials[found.trial]
        assert all((one.ended, one.number) >= (first.ended, first.number) for one in good)
        assert found.seconds == ((first.ended or START) - START).total_seconds()


def test_the_lines_say_what_it_is_of_and_what_it_took() -> None:
    """Validation accuracy; the target where there is one."""
    matched = "validation accuracy matched the article's 77.37 % after"
    reached = "validation accuracy reached the target of 81.00 % after"
    first = f"{matched} 31 min, 365 epochs and 4 trials, by trial 2"
    assert milestone_lines(STUDY, None) == [first]
    second = f"{reached} 1 h 30 min, 462 epochs and 6 trials, by trial 5"
    assert milestone_lines(STUDY, 0.81) == [first, second]
    so_far = "yet, after 25 min, 108 epochs and 2 trials"
    assert milestone_lines(STUDY[:2], 0.78) == [
        f"validation accuracy has not matched the article's 77.37 % {so_far}",
        f"validation accuracy has not reached the target of 78.00 % {so_far}",
    ]


def test_the_lines_leave_out_what_there_is_not() -> None:
    """An empty study, one whose first trial runs, and one trial of one epoch."""
    yet = "validation accuracy has not matched the article's 77.37 % yet"
    assert milestone_lines([], None) == [yet]
    assert milestone_lines([trained(summary(0, "waiting", None), 0)], None) == [yet]
    assert milestone_lines([trained(summary(0, "running"), 1)], None) == [f"{yet}, after 1 epoch"]
    one = trained(summary(0, accuracy=0.78), 1)
    assert milestone_lines([one], None)[0].endswith("after 10 min, 1 epoch and 1 trial, by trial 0")
    failed = trained(summary(0, "failed", None), 0)
    assert milestone_lines([failed], None) == [f"{yet}, after 10 min and 1 trial"]


def test_json_has_nulls_until_it_is_reached() -> None:
    """The baseline is always there, the target where there is one."""
    told = json.loads(json.dumps(milestones_json(STUDY, 0.9), allow_nan=False))
    assert told == {
        "baseline": {"value": 0.7737, "trial": 2, "seconds": 1860.0, "epochs": 365, "trials": 4},
        "target": {"value": 0.9, "trial": None, "seconds": None, "epochs": None, "trials": None},
    }
    assert milestones_json([], None)["target"] is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.7737, "77.37 %"), (0.8, "80.00 %"), (0.77375, "77.375 %"), (0.99999, "99.999 %")]
)
def test_percents_are_never_rounded_to_another_value(value: float, text: str) -> None:
    """A target of 0.77375 is not met by 77.37 %."""
    assert percent_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (3569, "59 min"),
        (3571, "1 h 0 min"),
        (7800, "2 h 10 min"),
        (47 * 3600, "47 h 0 min"),
        (48 * 3600, "2 days 0 h"),
        (76 * 3600, "3 days 4 h"),
    ],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    """Two units at most, none of them overfull."""
    assert describe_duration(seconds) == words
