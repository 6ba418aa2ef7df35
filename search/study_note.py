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


def note_attrs(study_name: str) -> dict[str, Any]:
    """Study system attributes that make the note, in Markdown; none where the name is too long for it."""
    # In a code span a backtick would end it.
    shell = shlex.quote(study_name).replace("`", "'")
    text = TEXT.format(quoted=quote(study_name, safe=""), shell=shell)
    return {NOTE_TEXT_KEY: text, NOTE_VERSION_KEY: 1} if len(text) <= LONGEST else {}
