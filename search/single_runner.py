"""One trial after another, each from its beginning, or where it goes on, to its end."""

from collections.abc import Sequence
from functools import partial

from search.running_trial import RunningTrial
from trainer.cifar10 import Cifar10
from trainer.evaluation import Evaluator
from trainer.model import TRIALS_OF_KERNELS, forget_models
from trainer.precision import Precision
from trainer.state import EpochResult, StateError, TrainingState
from trainer.training import Trainer


class SingleRunner:
    """Trains a trial at a time, by TensorFlow's engine."""

    def __init__(
        self,
        data: Cifar10,
        train_samples: int,
        precision: Precision = "float32",
        *,
        jit_compile: bool = False,
    ) -> None:
        """A runner for a study's trials.

        Args:
            data: CIFAR-10, of which the test images are not touched.
            train_samples: How many of the training images are used, the first ones.
            precision: What to train in. A value is that of the stored model, in float32, all the same.
            jit_compile: Let XLA compile the training; for GPUs.
        """
        train = data.train.first(train_samples)
        self._trainer = Trainer(train, data.validation, precision, jit_compile=jit_compile)
        self._evaluator = Evaluator(self._trainer.validation)
        self._running: RunningTrial | None = None
        self._ended: list[RunningTrial] = []
        self._trials = 0

    @property
    def has_room(self) -> bool:
        """Whether it has no trial."""
        return self.is_idle

    @property
    def is_idle(self) -> bool:
        """Whether it has no trial."""
        return self._running is None

    def admit(self, running: RunningTrial) -> None:
        """Take the trial that `advance` is to train."""
        self._running = running

    def advance(self) -> None:
        """Train the trial to its end here."""
        running, self._running = self._running, None
        if running is None:
            return
        try:
            running.attempt(lambda: self._train(running), is_last=True)
        finally:
            self._trials += 1
            forget_models(kernels=self._trials % TRIALS_OF_KERNELS == 0)
        self._ended.append(running)

    def take_ended(self) -> Sequence[RunningTrial]:
        """The trial that `advance` has trained, or `close` handed back, once."""
        ended, self._ended = self._ended, []
        return ended

    def close(self, *, saves: bool = True) -> None:
        """Hand back a trial that was not begun."""
        running, self._running = self._running, None
        if running is not None:
            running.hand_back(saves=saves)
            self._ended.append(running)

    def drop(self) -> None:
        """Do nothing: a trial that was not begun has nothing to leave."""
        self._running = None

    def _train(self, running: RunningTrial) -> None:
        running.begin()

        def on_steps(epoch: int, done: int, total: int) -> None:
            running.note_steps(epoch, done, total)
            running.look()

        def on_epoch(result: EpochResult, state: TrainingState) -> bool:
            return running.note_epoch(result, lambda: state)

        train = partial(self._trainer.train, running.recipe, on_epoch=on_epoch, on_steps=on_steps)
        try:
            result = train(state=running.state)
        except StateError as error:
            # Of another version of this program, say; it is told before anything is trained.
            running.begin_anew(error)
            result = train()
        running.finish(result, self._evaluator)
