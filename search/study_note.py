"""The note on a study's page: how whoever looks at it gets the best model."""

import shlex
from typing import Any, Final
from urllib.parse import quote

NOTE_VERSION_KEY: Final = "dashboard:note_ver"
NOTE_TEXT_KEY: Final = "dashboard:note_str:0"
"""Where optuna-dashboard keeps a study's note, its first 2,045 characters (`optuna_dashboard._note`)."""
LONGEST: Final = 2045
TEXT: Final = """\
**Fetch the best model**

- Here, where `cnn-search dashboard` serves this page: [best.h5](/best.h5?study={quoted}),
  [what it is](/best.json?study={quoted})
- Anywhere that reaches the database:
  `cnn-search best --storage URL --study {shell} --output best.h5`
- By SQL: `SELECT * FROM best_trial`

Each trial's own page has its `.h5`, learning curves, history and confusion matrix.
"""
COMPANION_TEXT: Final = """\
**The best recipes of another study, on fresh seeds**

They are those of `{study}`, which this one confirms; its best trial means nothing by itself.

`cnn-search confirm --storage URL --study {shell}` goes on with it, and shows what it came to.
"""


def note_attrs(study_name: str) -> dict[str, Any]:
    """Study system attributes that make the note, in Markdown; none where the name is too long for it."""
    return _attrs(TEXT.format(quoted=quote(study_name, safe=""), shell=_in_code(shlex.quote(study_name))))


def companion_note_attrs(confirmed: str) -> dict[str, Any]:
    """The same for a study that confirms the best recipes of the study `confirmed`."""
    return _attrs(COMPANION_TEXT.format(study=_in_code(confirmed), shell=_in_code(shlex.quote(confirmed))))


def _in_code(text: str) -> str:
    # In a code span a backtick would end it.
    return text.replace("`", "'")


def _attrs(text: str) -> dict[str, Any]:
    return {NOTE_TEXT_KEY: text, NOTE_VERSION_KEY: 1} if len(text) <= LONGEST else {}
