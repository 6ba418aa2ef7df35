"""What a view knows of a running search, kept up event by event."""

import threading
from dataclasses import dataclass, replace

from search.events import EpochEnded, StepsDone, TrialEnded, TrialEvent, TrialStarted
from search.summary import TrialSummary
from trainer.recipe import Recipe


@dataclass(frozen=True)
class Seen:
    """What the events said of one running trial so far.

    Attributes:
        number: The trial's number.
        recipe: None for a trial whose start was not seen.
        epoch: The epoch in progress, from 1, or the last one after its end; 0 before any is known.
        fraction: How much of `epoch` is done, in [0, 1].
        trained: Epochs whose end was seen.
        seconds: What those took together.
        loss: Training loss of the last epoch that ended; None before.
        validation: Validation accuracy of the same epoch, in [0, 1].
    """

    number: int
    recipe: Recipe | None = None
    epoch: int = 0
    fraction: float = 0.0
    trained: int = 0
    seconds: float = 0.0
    loss: float | None = None
    validation: float | None = None

    def epochs_over(self) -> float:
        """Epochs done, the running one by its share."""
        return max(self.epoch - 1 + self.fraction, 0.0)

    def seconds_left(self) -> float | None:
        """At the trial's own pace; None before its first epoch's end, and for an unknown recipe."""
        if self.recipe is None or not self.trained:
            return None
        return max(self.recipe.epochs - self.epochs_over(), 0.0) * self.seconds / self.trained


class Board:
    """What a view knows, kept up event by event; any thread may call it, and any order of events is fine."""

    def __init__(self, total: int | None, best: TrialSummary | None = None, *, ranks: bool = True) -> None:
        """Nothing seen yet.

        Args:
            total: How many trials are to end; None where nobody knows.
            best: The best trial of the study before.
            ranks: Whether there is a best; not among the seeds of a confirmation.
        """
        self.total, self.ranks = total, ranks
        self.done = 0
        self.best_value = None if best is None else best.value
        self.best_number = None if best is None else best.number
        self._running: dict[int, Seen] = {}
        self._lock = threading.Lock()

    def update(self, event: TrialEvent) -> Seen:
        """Take `event` in; gives what is known of its trial, for an ended one what was known to the last."""
        with self._lock:
            seen = self._running.get(event.number, Seen(event.number))
            match event:
                case TrialStarted(recipe=recipe, first_epoch=first_epoch):
                    seen = Seen(event.number, recipe, epoch=first_epoch)
                case StepsDone(epoch=epoch, done=done, total=total):
                    fraction = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
                    seen = replace(seen, epoch=epoch, fraction=fraction)
                case EpochEnded(result=result):
                    seen = replace(
                        seen,
                        epoch=result.epoch,
                        fraction=1.0,
                        trained=seen.trained + 1,
                        seconds=seen.seconds + result.seconds,
                        loss=result.loss,
                        validation=result.validation_accuracy,
                    )
                case TrialEnded():
                    self._end(event)
                    return seen
            self._running[event.number] = seen
            return seen

    def running(self) -> list[Seen]:
        """The running trials, by number."""
        with self._lock:
            return sorted(self._running.values(), key=lambda seen: seen.number)

    def describe_best(self) -> str:
        """`71.30 % (trial 5)`; the trial is left out where another worker's is the best."""
        if self.best_value is None:
            return "none yet"
        trial = "" if self.best_number is None else f" (trial {self.best_number})"
        return f"{100 * self.best_value:.2f} %{trial}"

    def _end(self, event: TrialEnded) -> None:
        self._running.pop(event.number, None)
        # A trial that was handed back comes again: only its last end counts.
        self.done += event.state not in ("waiting", "running", "taken")
        if event.best_value is not None and event.best_value != self.best_value:
            self.best_value = event.best_value
            self.best_number = event.number if event.value == event.best_value else None


def describe_outcome(event: TrialEnded) -> str:
    """The state and the note in one line, without saying "pruned: pruned after epoch 3"."""
    note = " ".join(event.note.split())
    if not note or note.startswith(event.state):
        return note or event.state
    return f"{event.state}: {note}"
