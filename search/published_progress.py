"""The progress plots on the study's page in optuna-dashboard, kept right by whoever changes the study."""

import json
import logging
import time
from typing import Final

from search.progress import draw_progress
from search.progress_axes import Against
from search.study import OpenStudy
from search.summary import TrialSummary, count_ended, summarise_trials
from storage.outages import explain

FIGURES: Final[dict[str, Against]] = {"progress-by-time": "time", "progress-by-trials": "trials"}
"""Names of the figures, and what their x axes are.

Two figures, side by side on the page: buttons for the axis of one are undone by the dashboard, which at each
poll draws the figure as it was published.
"""
MOST_POINTS: Final = 600
"""How many trials are drawn at most; both figures, which the page is sent at each poll, stay below 60 kB."""
SHARE: Final = 20.0
"""After a drawing that took t seconds, the next one comes after this many times t."""
LONGEST_PAUSE_SECONDS: Final = 300.0
"""The longest pause after a drawing: of one that waited out an outage, most was no work."""
LOG: Final = logging.getLogger(__name__)


class PublishedProgress:
    """Draws the study's progress for its page, when something changed, but seldom enough to cost little.

    Whoever ends a trial, or finds that one has ended, says so with `note()`, and calls `update()` when there
    is time: both cost nothing where nothing is to be done. `update(force=True)` comes last, when no trial of
    this process runs any more, so that the figures hold the last trial too.

    Any number of processes do this at once: a figure is replaced only by one of as many ended trials or more.
    `note()` may be called from any thread, `update()` from one at a time.
    """

    def __init__(self, opened: OpenStudy) -> None:
        """The page of `opened`; nothing is drawn before the first `note()`."""
        self._opened = opened
        self._is_due = False
        self._not_before = 0.0

    @property
    def is_due(self) -> bool:
        """Whether something was noted that was not drawn since."""
        return self._is_due

    def note(self) -> None:
        """Say that a trial has ended, or another reason to draw has come up.

        Of a companion nothing is drawn: the best of several seeds is what a confirmation guards against.
        """
        self._is_due = self._opened.confirms is None

    def update(self, force: bool = False) -> None:
        """Read the trials, draw and publish, if something was noted and enough time has passed.

        That is 20 times as long as the last drawing took, so that drawing takes at most about a twentieth of
        the process's time; but 5 minutes at most. What fails is logged as a warning, and stays due.

        It waits for a database that is away as every other transaction does, for as long as patience lasts.

        Args:
            force: Draw what is due even so soon after the last time.
        """
        began = time.monotonic()
        if not self._is_due or (began < self._not_before and not force):
            return
        # What is noted from here on may come too late to be read.
        self._is_due = False
        try:
            self._publish()
        # Whatever is wrong with a picture, the trials are what matters.
        except Exception as error:  # noqa: BLE001
            self._is_due = True
            LOG.warning("the progress plot on the study's page was not renewed: %s", explain(error))
        now = time.monotonic()
        self._not_before = now + min(SHARE * (now - began), LONGEST_PAUSE_SECONDS)

    def _publish(self) -> None:
        study = self._opened.study
        target = self._opened.database.target(study).read()
        trials = summarise_trials(study)
        for name, against in FIGURES.items():
            figure = figure_json(trials, study.study_name, against, target)
            # The version never falls, for a trial that has ended stays so. Of two readings the later has all
            # ended trials of the earlier: as many of them are the same ones, of which nothing changes any
            # more, and the figures differ in nothing but how many trials they say run or wait.
            self._opened.database.publish(study, name, count_ended(trials), figure)


def figure_json(
    trials: list[TrialSummary], study_name: str, against: Against, target: float | None = None
) -> str:
    """The progress plot of the study's page, as plotly's JSON in as few characters as can be.

    Args:
        trials: In any order.
        study_name: For the title.
        against: What the x axis is.
        target: The validation accuracy at which the study stops; None for none.
    """
    figure = draw_progress(trials, study_name, against, MOST_POINTS, target)
    # Not by plotly, which a worker then need not import.
    return json.dumps(figure, separators=(",", ":"), allow_nan=False)
