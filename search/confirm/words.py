"""A round in sentences: what it is, who won, and what the test set said."""

from collections.abc import Sequence

from search.confirm.plan import ConfirmPlan
from search.confirm.report import (
    REFERENCE,
    RoundReport,
    difference_text,
    no_winner_text,
    points_text,
    recipe_name,
    recipe_text,
    trained_name,
)
from search.confirm.statistics import FigureComparison


def plan_lines(report: RoundReport) -> list[str]:
    """What the round is, and its recipes in words."""
    plan = report.plan
    candidates = len(plan.candidates)
    of = f"of the best {candidates}" if candidates > 1 else "of the best"
    if candidates < plan.top:
        of += f" ({plan.top} were asked for; the study has no other recipes)"
    lines = [
        f"study {plan.study!r}, round {plan.round}: the recipes {of} of {plan.complete} complete trials on "
        f"{len(plan.seeds)} fresh seeds, in study {report.round.name!r}"
    ]
    for index, recipe in enumerate(plan.recipes()):
        lines.append(f"  {recipe_name(plan, index)}: {recipe_text(recipe)}")
    return lines


def numbers_lines(plan: ConfirmPlan) -> list[str]:
    """Which trials of the companion train which recipe: views know a trial by its number there."""
    lines = []
    for index in range(len(plan.recipes())):
        numbers = [str(plan.run_of(index, at)) for at in range(len(plan.seeds))]
        shown = ", ".join(numbers if len(numbers) < 5 else [*numbers[:3], "...", numbers[-1]])
        lines.append(f"its trials {shown}: {trained_name(plan, index)}")
    return lines


def verdict_lines(report: RoundReport) -> list[str]:
    """Who won on validation, in one line, and what it rests on."""
    plan, standing, verdict = report.plan, report.standing, report.round.verdict
    notes = _barred_lines(report)
    if plan.round > 1:
        notes.append(
            f"It is round {plan.round}: luck has had {plan.round} chances of about 2.5 %, together "
            f"{2.5 * plan.round:g} %{''.join(f'; {one}' for one in report.before)}."
        )
    if verdict is None:
        return [
            f"No verdict yet: {standing.ended} of {standing.total} trials have ended.",
            "Intervals and differences come with it, so that nobody stops where it looks good.",
            *notes,
        ]
    chosen = report.round.chosen
    if plan.reference is None:
        return [_against_figure(report), *notes]
    together = ", for all comparisons together" if len(plan.candidates) > 1 else ""
    if chosen is None or verdict.winner is None:
        return [*_without_winner(report, together), *notes]
    difference = verdict.decision.differences[verdict.winner]
    told = "" if difference is None else f"{100 * difference.mean:+.2f} points, {points_text(difference)}"
    is_upheld = report.round.is_upheld
    return [
        f"The winner is trial {chosen.trial}."
        if is_upheld is not False
        else f"Trial {chosen.trial} wins on validation, but is not better on the test set.",
        f"Its mean difference to the article's recipe on the same seeds is {told}",
        f"(95 % interval{together}): beyond what other seeds and other images would change.",
        *notes,
    ]


def _against_figure(report: RoundReport) -> str:
    """Who has the highest mean, and what the test set makes of it."""
    chosen, figure = report.round.chosen, report.round.figure
    if chosen is None:
        return _sentence(no_winner_text(report.round))
    if figure is None:
        return f"Trial {chosen.trial} has the highest mean on validation; the test set was not scored yet."
    told = f"{100 * figure.figure:.2f} %"
    if figure.is_beyond:
        return f"The winner is trial {chosen.trial}: beyond noise of {told} on the test set."
    return f"No winner beyond noise: trial {chosen.trial}, of the highest mean, is not beyond {told}."


def _without_winner(report: RoundReport, together: str) -> list[str]:
    """Why no recipe won against the article's."""
    first = _sentence(no_winner_text(report.round))
    differences = [report.difference(index) for index in range(len(report.plan.candidates))]
    if not any(differences):
        return [first, "No recipe has two seeds in common with the article's on which both left a model."]
    above = [index for index, one in enumerate(differences) if one is not None and one.low > 0]
    if above:
        names = ", ".join(recipe_name(report.plan, index) for index in above)
        return [
            first,
            f"The 95 % interval of {names} lies above 0, but a recipe that lacks a seed cannot win.",
        ]
    return [
        first,
        "No recipe is better than the article's by more than other seeds and other images would change:",
        f"no 95 % interval of a mean difference{together and together + ','} lies above 0.",
    ]


def test_lines(report: RoundReport) -> list[str]:
    """What the test set says, or that it stays closed."""
    verdict, test = report.round.verdict, report.round.test
    if verdict is None:
        return ["The test set is closed."]
    if report.round.chosen is None:
        return ["The test set stays closed: there is nothing to test."]
    if test is None or not test.is_scored:
        return ["The test set was not scored yet; the same command does it."]
    first = test.attempts[0]
    lines = [
        f"Test set, opened once for these models at {first.at} on {first.host} (opening {report.opening} of "
        "this study's rounds):"
    ]
    if len(test.attempts) > 1:
        lines.append(
            f"  scoring was begun {len(test.attempts)} times (processes that end early, or several at once), "
            "of the same models; the first scores that were stored count"
        )
    lines.append(f"  trial {report.round.chosen.trial}: {_tested([one.accuracy for one in test.winner])}")
    if test.reference:
        lines.append(f"  {REFERENCE}: {_tested([one.accuracy for one in test.reference])}")
    if test.difference is not None:
        lines.append(f"  difference {difference_text(test.difference)}")
    if (figure := report.round.figure) is not None:
        lines += _figure_lines(figure, test.images)
    return lines


def _barred_lines(report: RoundReport) -> list[str]:
    """Which recipes lack a seed, and what that means for them."""
    plan, lines = report.plan, []
    for index in range(len(plan.recipes())):
        lacking = report.standing.lacking(index)
        if not lacking:
            continue
        told = "; ".join(
            f"seed {one.seed} {one.state}{f' ({one.note})' if one.note else ''}" for one in lacking
        )
        means = (
            "it cannot win, since nobody knows what it is worth there"
            if index < len(plan.candidates)
            else "differences are of the other seeds"
        )
        lines.append(f"{recipe_name(plan, index)}: {told}: {means}.")
    everything = [one for index in range(len(plan.recipes())) for one in report.standing.lacking(index)]
    if report.round.verdict is not None and any(one.state == "failed" for one in everything):
        lines.append("A trial that failed tells nothing of its recipe: --again begins a further round.")
    return lines


def _figure_lines(figure: FigureComparison, images: int) -> list[str]:
    low, high = 100 * figure.interval.low, 100 * figure.interval.high
    told = "beyond noise" if figure.is_beyond else "not beyond noise"
    reached = ""
    if not figure.is_beyond and figure.interval.mean >= figure.figure:
        reached = ", although the mean alone reaches it"
    return [
        f"  95 % interval {low:.2f} to {high:.2f} %: {told} of {100 * figure.figure:.2f} %{reached}",
        f"  (it covers other seeds, {100 * figure.of_seeds:.2f} points either way, and the test set's size, "
        f"{images:,} images, {100 * figure.of_images:.2f})",
    ]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _tested(accuracies: Sequence[float]) -> str:
    values = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
    mean = 100 * sum(accuracies) / len(accuracies)
    return f"test accuracy {mean:.2f} %, mean of {values}"
