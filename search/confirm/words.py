"""A round in sentences: what it is, who won, and what the test set said."""

from collections.abc import Sequence

from search.confirm.report import REFERENCE, RoundReport, points_text, recipe_name, recipe_text
from search.confirm.statistics import FigureComparison


def plan_lines(report: RoundReport) -> list[str]:
    """What the round is, and its recipes in words."""
    plan = report.plan
    candidates = len(plan.candidates)
    of = f"of the best {candidates}" if candidates > 1 else "of the best"
    if candidates < plan.top:
        of += f" (asked for {plan.top}, no others differ)"
    lines = [
        f"study {plan.study!r}, round {plan.round}: the recipes {of} of {plan.complete} complete trials on "
        f"{len(plan.seeds)} fresh seeds, in study {report.round.name!r}"
    ]
    for index, recipe in enumerate(plan.recipes()):
        lines.append(f"  {recipe_name(plan, index)}: {recipe_text(recipe)}")
    return lines


def verdict_lines(report: RoundReport) -> list[str]:
    """Who won on validation, in one line, and what it rests on."""
    plan, standing, verdict = report.plan, report.standing, report.round.verdict
    notes = _barred_lines(report)
    if plan.round > 1:
        notes.append(f"It is round {plan.round}: luck has had a chance in each, of 2.5 % at most.")
    if verdict is None:
        return [
            f"No verdict yet: {standing.ended} of {standing.total} trials have ended.",
            "Intervals and differences come with it, so that nobody stops where it looks good.",
            *notes,
        ]
    winner = report.round.winner
    if plan.reference is None:
        if winner is None:
            return ["No winner: each recipe lacks a seed.", *notes]
        return [f"Trial {winner.trial} has the highest mean on validation.", *notes]
    together = ", for all comparisons together" if len(plan.candidates) > 1 else ""
    if winner is None or verdict.winner is None:
        return [
            "No winner beyond noise.",
            "No recipe is better than the article's by more than other seeds would change:",
            f"no 95 % interval of a mean difference{together and together + ','} lies above 0.",
            *notes,
        ]
    difference = verdict.decision.differences[verdict.winner]
    told = "" if difference is None else f"{100 * difference.mean:+.2f} points, {points_text(difference)}"
    return [
        f"The winner is trial {winner.trial}.",
        f"Its mean difference to the article's recipe on the same seeds is {told}",
        f"(95 % interval{together}): beyond what other seeds would change.",
        *notes,
    ]


def test_lines(report: RoundReport) -> list[str]:
    """What the test set says, or that it stays closed."""
    verdict, test = report.round.verdict, report.round.test
    if verdict is None:
        return ["The test set is closed."]
    if report.round.winner is None:
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
            f"  scored {len(test.attempts)} times, as a process ended before it had stored the scores; the "
            "models were the same"
        )
    lines.append(f"  trial {report.round.winner.trial}: {_tested([one.accuracy for one in test.winner])}")
    if test.reference:
        lines.append(f"  {REFERENCE}: {_tested([one.accuracy for one in test.reference])}")
    if (difference := report.round.test_difference) is not None:
        lines.append(
            f"  difference {100 * difference.mean:+.2f} points, 95 % interval over seeds "
            f"{points_text(difference)}"
        )
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


def _tested(accuracies: Sequence[float]) -> str:
    values = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
    mean = 100 * sum(accuracies) / len(accuracies)
    return f"test accuracy {mean:.2f} %, mean of {values}"
