"""Training and scoring what a baseline plan asks for, each step of it stored before the next one."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping

from search.baseline.events import BaselineEvent, SeedEpoch, SeedScored, SeedStarted, SeedSteps
from search.baseline.folder import BaselineFolder, model_file, state_file
from search.baseline.record import (
    BaselineRecord,
    BaselineSettings,
    ModelScore,
    SeedRun,
    SplitScore,
    write_record,
)
from search.baseline.report import results_json
from search.errors import BaselineError
from search.events import Notice
from search.output import replace_file
from trainer.cifar10 import Cifar10
from trainer.device import DeviceSplit
from trainer.evaluation import Evaluator, Score
from trainer.model import forget_models
from trainer.model_file import model_from_bytes, model_to_bytes
from trainer.precision import Precision, choose_precision
from trainer.state import EpochResult, TrainingState
from trainer.training import Trainer, TrainingResult


class BaselineRun:
    """The runs of a plan in a folder, one after the other.

    After each epoch its state is stored, then, after a named one, the model, and then its scores: whatever
    ends the process costs one epoch at most, and a run that goes on is bit for bit one that never stopped.
    """

    def __init__(
        self,
        folder: BaselineFolder,
        data: Cifar10,
        machine: Mapping[str, str | int],
        emit: Callable[[BaselineEvent], None],
        must_stop: Callable[[], bool],
        *,
        jit_compile: bool = False,
    ) -> None:
        """A run in that folder; nothing is written yet.

        Args:
            folder: As `open_baseline` gives it, and held as long as this works.
            data: CIFAR-10, whose test images are scored too.
            machine: What this process trains on, for the record.
            emit: Told what happens.
            must_stop: Asked about once a second; when true, training ends at once.
            jit_compile: Let XLA compile the training; for GPUs.
        """
        self._folder, self._plan = folder, folder.plan
        self._emit, self._must_stop = emit, must_stop
        record = folder.record
        if record is None:
            precision = choose_precision(self._plan.precision)
            settings = BaselineSettings(self._plan.seed, self._plan.train_samples, precision)
            record = BaselineRecord(settings)
        if record.machines and machine not in record.machines:
            emit(Notice(_describe_change(record.machines[-1], machine)))
        self.record = record.on_machine(machine)
        self._trainer = Trainer(
            data.train.first(self._plan.train_samples),
            data.validation,
            record.settings.precision,
            jit_compile=jit_compile,
        )
        self._validation = Evaluator(self._trainer.validation)
        self._test = Evaluator(DeviceSplit.of(data.test))

    @property
    def precision(self) -> Precision:
        """What is trained in."""
        return self.record.settings.precision

    def run(self) -> bool:
        """Train what is left, and score it.

        Returns:
            Whether all of it is done; False where it was told to stop.

        Raises:
            BaselineError: A loss or a weight became NaN or infinite.
            OutputError: Something cannot be written; what was written before is whole.
            OutOfMemoryError: The device had no memory left.
        """
        if not self._folder.unfinished():
            return True
        # Before any state: one without the record that says what it is could not be told from another run's.
        self._write()
        try:
            for seed in self._folder.unfinished():
                self._run_seed(seed)
                forget_models()
        except _StopError:
            return False
        return True

    def _run_seed(self, seed: int) -> None:
        recipe, state = self._plan.recipe(seed), self._folder.states.get(seed)
        done = 0 if state is None else state.epoch
        if state is None:
            # Where somebody deleted the state, what the run had come to was another run's.
            self.record = self.record.with_run(SeedRun(seed))
        self._emit(SeedStarted(seed, done + 1, recipe.epochs))
        self._stop_if_told()
        if state is not None and done in self.record.run_of(seed).lacks(self._plan.epochs):
            # It was stopped between the two.
            self._score(state)

        def on_steps(epoch: int, steps: int, total: int) -> None:
            self._emit(SeedSteps(seed, epoch, steps, total))
            self._stop_if_told()

        def on_epoch(result: EpochResult, state: TrainingState) -> bool:
            replace_file(self._folder.path / state_file(seed), state.to_bytes())
            self._emit(SeedEpoch(seed, result))
            # A score can wait for the next call: the state is all that it needs.
            self._stop_if_told()
            if state.epoch in self._plan.epochs:
                self._score(state)
                self._stop_if_told()
            return False

        result = self._trainer.train(recipe, state=state, on_steps=on_steps, on_epoch=on_epoch)
        if result.status == "diverged":
            raise BaselineError(
                f"seed {seed} diverged: a loss or a weight was no number after epoch "
                f"{result.diverged_epoch}; try --precision float32 in another folder"
            )

    def _stop_if_told(self) -> None:
        if self._must_stop():
            raise _StopError

    def _score(self, state: TrainingState) -> None:
        """Store the model of `state` and its scores, those of exactly the file's bytes."""
        seed, epoch = state.recipe.seed, state.epoch
        # As if it had been trained for so long and no longer.
        ended = dataclasses.replace(state, recipe=dataclasses.replace(state.recipe, epochs=epoch))
        content = model_to_bytes(TrainingResult("finished", ended).build_model())
        name = model_file(seed, epoch)
        replace_file(self._folder.path / name, content)
        model = model_from_bytes(content)
        score = ModelScore(
            epoch,
            test=_split_score(self._test.score(model, self._stop_if_told)),
            validation=_split_score(self._validation.score(model, self._stop_if_told)),
            file=name,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        run = self.record.run_of(seed)
        others = [one for one in run.scores if one.epoch != epoch]
        scores = tuple(sorted([*others, score], key=lambda one: one.epoch))
        run = dataclasses.replace(run, history=state.history, scores=scores)
        self.record = self.record.with_run(run)
        self._write()
        self._emit(SeedScored(seed, score))

    def _write(self) -> None:
        self.record = write_record(self._folder.path, self.record, results_json(self.record))


class _StopError(Exception):
    """Training was told to stop."""


def _split_score(score: Score) -> SplitScore:
    return SplitScore(score.loss, score.accuracy, score.images)


def _describe_change(before: Mapping[str, str | int], now: Mapping[str, str | int]) -> str:
    others = [f"{key} {now[key]}, not {before.get(key)}" for key in now if now[key] != before.get(key)]
    return (
        f"it goes on with {'; '.join(others)}: the weights may differ in their last bits from those of a run "
        "that stayed where it was"
    )
