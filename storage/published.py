"""Figures that optuna-dashboard shows on a study's page, each replaced as a whole and only by a later one.

The page reads a figure from the study's system attributes, in chunks of any length. One chunk is one row,
which a transaction replaces; `optuna_dashboard.save_plotly_graph_object` writes several, in a transaction
each, and a reader between two of them gets the halves of two figures.
"""

import json
from typing import Any, Final

import sqlalchemy
from sqlalchemy import Integer, String, Text, cast, literal

from storage.shared_storage import STUDY_ATTRS
from storage.trial_reader import STUDIES
from storage.trial_rows import insert_on

VERSION_PREFIX: Final = "cnn_search:published:"
"""Study system attribute, with a figure's name: the version of what is there."""
FIGURE_PREFIX: Final = "dashboard:plot_data:"
"""Where optuna-dashboard looks for figures: behind it come the name, a colon and the number of a chunk."""


def publish(connection: sqlalchemy.Connection, study_id: int, name: str, version: int, text: str) -> bool:
    """Show the figure `text` on the study's page, unless a later one is there.

    Args:
        connection: In a transaction.
        study_id: The study's id.
        name: The figure's, from letters, digits, `-`, `_` and `.`: an element of the page is called so.
        version: 0 or more; a higher one is later, an equal one as late.
        text: Plotly's JSON of the figure.

    Returns:
        Whether it is there now. It is not where one of a higher version is, or where the study is gone.
    """
    # First of all, so that of several at once each waits here for the one before, and sees its version.
    if not _upsert(connection, study_id, f"{VERSION_PREFIX}{name}", version, not_above=version):
        return False
    _upsert(connection, study_id, f"{FIGURE_PREFIX}{name}:0", text)
    return True


def _upsert(
    connection: sqlalchemy.Connection, study_id: int, key: str, value: Any, *, not_above: int | None = None
) -> bool:
    """Set a study's system attribute, unless it is a number above `not_above`; whether it is set."""
    # From the study's row: SQLite would keep attributes of a study that is gone, for the next one of its id.
    row = sqlalchemy.select(STUDIES.c.study_id, literal(key, String), literal(json.dumps(value), Text)).where(
        STUDIES.c.study_id == study_id
    )
    insert = insert_on(connection, STUDY_ATTRS).from_select(["study_id", "key", "value_json"], row)
    former = cast(STUDY_ATTRS.c.value_json, Integer)
    statement = insert.on_conflict_do_update(
        index_elements=["study_id", "key"],
        set_={"value_json": insert.excluded.value_json},
        where=None if not_above is None else former <= not_above,
    )
    return bool(connection.execute(statement).rowcount)
