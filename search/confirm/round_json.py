"""A round as JSON for scripts."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from search.confirm.report import RoundReport, recipe_text
from search.confirm.statistics import Interval
from search.confirm.words import verdict_lines


def report_json(report: RoundReport, files: Sequence[str] = ()) -> dict[str, Any]:
    """All of it as JSON-ready values: accuracies and differences in [0, 1], null for what is not known."""
    plan, verdict, test = report.plan, report.round.verdict, report.round.test
    recipes = []
    for index, recipe in enumerate(plan.recipes()):
        candidate = plan.candidates[index] if index < len(plan.candidates) else None
        recipes.append(
            {
                "trial": None if candidate is None else candidate.trial,
                "recipe": recipe.to_dict(),
                "words": recipe_text(recipe),
                "search_value": None if candidate is None else candidate.value,
                "runs": [asdict(outcome) for outcome in report.standing.outcomes[index]],
                "mean": _interval_json(report.mean(index)),
                "difference": _interval_json(report.difference(index)),
            }
        )
    winner, chosen, figure = report.round.winner, report.round.chosen, report.round.figure
    return {
        "study": plan.study,
        "companion": report.round.name,
        "round": plan.round,
        "against": plan.against,
        "top": plan.top,
        "seeds": list(plan.seeds),
        "complete_trials": plan.complete,
        "total": report.standing.total,
        "ended": report.standing.ended,
        "recipes": recipes,
        "verdict": None
        if verdict is None
        else {
            "winner": None if winner is None else winner.trial,
            "chosen": None if chosen is None else chosen.trial,
            "median_trial": report.median_trial,
            "text": verdict_lines(report)[0],
            "at": verdict.at,
            "host": verdict.host,
        },
        "test": {
            "is_open": test is not None,
            "opening": None if test is None else report.opening,
            "attempts": [] if test is None else [asdict(attempt) for attempt in test.attempts],
            "images": None if test is None or not test.is_scored else test.images,
            "winner": [] if test is None else [asdict(one) for one in test.winner],
            "reference": [] if test is None else [asdict(one) for one in test.reference],
            "difference": _interval_json(None if test is None else test.difference),
            "is_upheld": report.round.is_upheld,
            "figure": None if figure is None else {**asdict(figure), "is_beyond": figure.is_beyond},
        },
        "files": list(files),
    }


def _interval_json(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else asdict(interval)
