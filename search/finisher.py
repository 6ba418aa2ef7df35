"""Stores and scores what trials came to, beside the training of others."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

from search.running_trial import RunningTrial
from storage.errors import OutsideStoreError
from trainer.evaluation import Evaluator
from trainer.model import TRIALS_OF_KERNELS, forget_models
from trainer.training import TrainingResult

WAIT_SECONDS: Final = 0.2
"""How long to wait for a trial where nothing else is to be done."""


class Finisher:
    """A thread in which trials that have been trained are stored and scored, one after another.

    The thread only does the work, which takes about a second of a CPU each. What becomes of a trial where it
    fails is seen to in the thread that takes the trial out again, and asks for others: a trial that waits
    again must not be asked for while this worker still has it.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        """Without trials; `evaluator` scores their models."""
        self._evaluator = evaluator
        self._thread = ThreadPoolExecutor(1, "finish")
        self._waiting: deque[tuple[RunningTrial, Future[None]]] = deque()
        self._done = 0

    @property
    def is_idle(self) -> bool:
        """Whether it has no trial."""
        return not self._waiting

    def submit(self, running: RunningTrial, result: TrainingResult) -> None:
        """Let a trial be stored with this result."""
        running.keep(result.state)
        self._waiting.append((running, self._thread.submit(self._finish, running, result)))

    def wait(self) -> None:
        """Wait a little for the next trial, if there is one."""
        if self._waiting:
            wait([self._waiting[0][1]], timeout=WAIT_SECONDS)

    def collect(self, ended: list[RunningTrial], most_waiting: int) -> None:
        """Take out the trials that have ended, once no more than so many are left.

        Args:
            ended: They are added to it.
            most_waiting: More than these are waited for.

        Raises:
            SQLAlchemyError: The database is away. So for `StorageInternalError`.
            OutsideStoreError: The files of one cannot be kept. It was handed back, and the others seen to.
        """
        failed: OutsideStoreError | None = None
        while self._waiting and (len(self._waiting) > most_waiting or self._waiting[0][1].done()):
            running, future = self._waiting.popleft()
            try:
                running.attempt(future.result, is_last=True)
            except OutsideStoreError as error:
                failed = failed or error
            else:
                ended.append(running)
        if failed is not None:
            raise failed

    def close(self) -> None:
        """End the thread, once it has done what is left."""
        self._thread.shutdown()

    def drop(self) -> None:
        """Let the thread begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _finish(self, running: RunningTrial, result: TrainingResult) -> None:
        try:
            if result.status == "finished":
                # Others may have been scored before it. One that was pruned would train on, so it is stored.
                running.look()
            running.finish(result, self._evaluator)
        finally:
            self._done += 1
            forget_models(kernels=self._done % TRIALS_OF_KERNELS == 0)
