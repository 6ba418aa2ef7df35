"""What the commands say about a study's trials: tables for people, dicts for scripts."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from search.recipe_words import ARTICLES_OWN, describe_beyond, describe_dropouts
from search.space import Space
from search.study import Settings
from search.summary import STATES, TrialSummary, best_trial
from trainer.article import BAND
from trainer.limits import shown
from trainer.recipe import ARTICLE, Recipe, Value

BAND_PERCENT: Final = f"{100 * BAND[0]:.0f}-{100 * BAND[1]:.0f} %"
"""The article's result as it puts it: "77-78 %"."""

ARTICLE_ALONE: Final = Space("article alone", ())
"""Nothing is searched."""

STATE_STYLES: Final[Mapping[str, str]] = {
    "complete": "green",
    "pruned": "yellow",
    "diverged": "red",
    "failed": "red",
    "running": "cyan",
    "waiting": "dim",
}
"""The terminal style of each of `STATES`."""


_COLUMNS: Final[Sequence[tuple[str, JustifyMethod]]] = (
    ("", "left"),
    ("trial", "right"),
    ("state", "left"),
    ("value %", "right"),
    ("epochs", "right"),
    ("minutes", "right"),
    ("dropouts", "left"),
    # On two lines, for the table to fit into 80 columns.
    ("learning\nrate", "right"),
    ("optimizer", "left"),
)


def is_articles_recipe(trial: TrialSummary) -> bool:
    """Whether `trial` is the study's yardstick: number 0, the article's recipe but for epochs and seed."""
    if trial.number != 0 or trial.recipe is None:
        return False
    return dataclasses.replace(trial.recipe, epochs=ARTICLE.epochs, seed=ARTICLE.seed) == ARTICLE


def compare_with_band(value: float) -> str:
    """Where `value`, an accuracy in [0, 1], stands to the article's band, in percentage points."""
    low, high = BAND
    if value > high:
        return f"{100 * (value - high):.2f} points above"
    if value < low:
        return f"{100 * (low - value):.2f} points below"
    return "within it"


def settings_lines(settings: Settings) -> list[str]:
    """What a study searches and with what, a line each; fields of the same range share one.

    What is held where the article has it goes without saying, but for the article's own numbers.
    """
    space = settings.capped_space
    fields: dict[str, list[str]] = {}
    for field, text, _ in space.describe():
        is_held = str(space.range_of(field)) == str(ARTICLE_ALONE.range_of(field))
        if field in ARTICLES_OWN or (space.means_something(field) and not is_held):
            fields.setdefault(text, []).append(field)
    return [
        *(f"{', '.join(names)}: {text}" for text, names in fields.items()),
        f"space {settings.space.name}; {settings.train_samples:,} training images; seed {settings.seed}",
    ]


def trials_table(trials: Sequence[TrialSummary], limit: int = 20) -> Table:
    """The trials, best first, then the others that ended, then the running and the waiting ones.

    A value in parentheses is the last one that a trial without a stored model reported.

    Args:
        trials: In any order.
        limit: At most this many rows, at least 0; the caption counts what is left out, by state, and tells
            what goes beyond the article in the rows.
    """
    ordered = sorted(trials, key=_rank)
    best = best_trial(list(trials))
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    # A column would leave no room for the others in 80.
    notes = [_left_out(ordered[limit:]), *map(_beyond_line, ordered[:limit])]
    table.caption, table.caption_justify = "\n".join(filter(None, notes)) or None, "left"
    for header, justify in _COLUMNS:
        table.add_column(header, justify=justify, no_wrap=True, vertical="bottom")
    for trial in ordered[:limit]:
        is_best = best is not None and trial.number == best.number
        table.add_row(*_row(trial, is_best), style="bold" if is_best else "")
    return table


def best_report(trials: Sequence[TrialSummary], *, advises: bool = True) -> RenderableType:
    """The best trial beside the article: its value, its recipe field by field, and what the value is not.

    Args:
        trials: The study's.
        advises: Whether to name the command that trains it again; not where what that came to stands below.
    """
    best = best_trial(list(trials))
    if best is None or best.value is None:
        return Text(f"No trial is complete yet; {_count_states(trials) or 'the study has no trials'}.")
    complete = sum(trial.state == "complete" for trial in trials)
    parts: list[RenderableType] = [_headline(best, complete), Text(_comparison(best.value))]
    yardstick = next((trial for trial in trials if is_articles_recipe(trial)), None)
    if yardstick is not None and yardstick.value is not None and yardstick.number != best.number:
        parts.append(Text(_yardstick_comparison(best.value, yardstick)))
    if best.recipe is not None:
        parts.append(Padding(_recipe_table(best.recipe, f"trial {best.number}"), (1, 0)))
    parts.append(Text(_caution(complete, advises), style="dim"))
    return Group(*parts)


def trial_json(trial: TrialSummary) -> dict[str, Any]:
    """One trial as JSON-ready values: accuracies in [0, 1], times in ISO 8601, null for what is not known."""
    return {
        "number": trial.number,
        "state": trial.state,
        "value": _finite(trial.value),
        "last_value": _finite(trial.last_value),
        "epochs_done": trial.epochs_done,
        "recipe": None if trial.recipe is None else trial.recipe.to_dict(),
        "started": None if trial.started is None else trial.started.isoformat(),
        "ended": None if trial.ended is None else trial.ended.isoformat(),
        "seconds": _seconds(trial),
        "note": trial.note,
    }


def status_json(
    study_name: str, trials: Sequence[TrialSummary], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A study as JSON-ready values.

    Args:
        study_name: The study's name.
        trials: All of its trials; they are listed by number.
        settings: What the study was set up with, JSON-ready; passed on as it is.
    """
    best = best_trial(list(trials))
    return {
        "study": study_name,
        "settings": dict(settings),
        "states": {state: sum(trial.state == state for trial in trials) for state in STATES},
        "epochs_trained": sum(trial.epochs_done for trial in trials),
        "best": None if best is None else trial_json(best),
        "article": {"low": BAND[0], "high": BAND[1]},
        "trials": [trial_json(trial) for trial in sorted(trials, key=lambda trial: trial.number)],
    }


def _rank(trial: TrialSummary) -> tuple[int, float, int]:
    """The sort key of `trials_table`."""
    group = {"complete": 0, "running": 2, "waiting": 3}.get(trial.state, 1)
    value = _finite(trial.value if trial.state == "complete" else trial.last_value)
    return group, -(value if value is not None else -1.0), trial.number


def _row(trial: TrialSummary, is_best: bool) -> list[RenderableType]:
    recipe, seconds = trial.recipe, _seconds(trial)
    return [
        Text("*" if is_best else "", style="green"),
        str(trial.number),
        Text(trial.state, style=STATE_STYLES.get(trial.state, "")),
        _value_cell(trial),
        f"{trial.epochs_done}/{recipe.epochs}" if recipe is not None else str(trial.epochs_done),
        "" if seconds is None else f"{seconds / 60:.1f}",
        "" if recipe is None else describe_dropouts(recipe),
        "" if recipe is None else f"{recipe.learning_rate:.3g}",
        "" if recipe is None else recipe.optimizer,
    ]


def _value_cell(trial: TrialSummary) -> str:
    if trial.value is not None:
        return f"{100 * trial.value:.2f}"
    last_value = _finite(trial.last_value)
    return "" if last_value is None else f"({100 * last_value:.2f})"


def _beyond_line(trial: TrialSummary) -> str | None:
    words = "" if trial.recipe is None else describe_beyond(trial.recipe)
    return f"trial {trial.number}: {words}" if words else None


def _left_out(trials: Sequence[TrialSummary]) -> str | None:
    return f"{len(trials)} more not shown: {_count_states(trials)}" if trials else None


def _count_states(trials: Sequence[TrialSummary]) -> str:
    """`3 complete, 1 running`, in the order of `STATES`; empty without trials."""
    counts = {state: sum(trial.state == state for trial in trials) for state in STATES}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def _headline(best: TrialSummary, complete: int) -> Text:
    percent = f"{100 * (best.value or 0.0):.2f} %"
    among = f"the best of {complete} complete trials" if complete > 1 else "the only complete trial"
    return Text.assemble(
        (f"Trial {best.number}", "bold"), ": validation accuracy ", (percent, "bold green"), f", {among}"
    )


def _comparison(value: float) -> str:
    return f"The article reports {BAND_PERCENT} on the test set: this is {compare_with_band(value)}."


def _yardstick_comparison(value: float, yardstick: TrialSummary) -> str:
    reached = yardstick.value or 0.0
    epochs = f"{yardstick.epochs_done} epoch{'' if yardstick.epochs_done == 1 else 's'}"
    return (
        f"The article's recipe in this study (trial 0, {epochs}) reached {100 * reached:.2f} %: "
        f"this is {100 * (value - reached):+.2f} points."
    )


def _recipe_table(recipe: Recipe, title: str) -> Table:
    """The recipe beside the article's, what differs in bold; what neither has is left out."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("recipe")
    table.add_column(title, justify="right")
    table.add_column("the article", justify="right", style="dim")
    for (name, value), article in zip(recipe.to_dict().items(), ARTICLE.to_dict().values(), strict=True):
        if name in ARTICLES_OWN or value != article:
            style = "bold" if value != article else ""
            table.add_row(name.replace("_", " "), Text(_field_text(value), style=style), _field_text(article))
    return table


def _field_text(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _caution(complete: int, advises: bool) -> str:
    """Why the value is no test result; the 0.7 points are docs' estimate for 50 equally good recipes."""
    chosen = (
        f"It was chosen as the highest of {complete}, and the highest flatters: of 50 equally good recipes "
        "luck alone lifts one by about 0.7 points. "
        if complete > 1
        else ""
    )
    advice = (
        "Before you believe a small lead, let `cnn-search confirm` train the recipe again with other seeds."
    )
    return f"A validation accuracy is not yet a test result. {chosen}{advice if advises else ''}".strip()


def _seconds(trial: TrialSummary) -> float | None:
    """What its epochs took; from start to end where another program did not say."""
    if trial.seconds is not None or trial.started is None or trial.ended is None:
        return trial.seconds
    return (trial.ended - trial.started).total_seconds()


def _finite(value: float | None) -> float | None:
    """`value`, or None where it is NaN or infinite, which JSON has no words for."""
    return value if value is not None and math.isfinite(value) else None
