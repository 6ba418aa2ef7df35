"""Several trials in one program: each in a slot, which the next one takes when it has ended."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from search.events import Event, Notice
from search.finisher import Finisher
from search.pack_plan import PackPlan
from search.running_trial import Interrupted, RunningTrial
from search.trial_run import describe_failure
from trainer.errors import DeviceError
from trainer.evaluation import Evaluator
from trainer.packed.device import PackData
from trainer.packed.pack import Pack, PackKey, SlotEpoch
from trainer.precision import Precision
from trainer.recipe import Recipe
from trainer.state import StateError, TrainingState
from trainer.training import TrainingResult

LOG: Final = logging.getLogger(__name__)
STEPS_SECONDS: Final = 1.0
"""How often it is told how far an epoch is; a pack looks more often."""


@dataclass(eq=False)
class _Seats:
    """A pack, and whose trial is in which of its slots."""

    pack: Pack
    trials: dict[int, RunningTrial] = field(default_factory=dict)

    def leave(self, slot: int) -> RunningTrial:
        """Let the slot be another's."""
        self.pack.free(slot)
        return self.trials.pop(slot)


_Kind = tuple[PackKey, Precision]
"""What the trials of a pack have in common."""


class PackedRunner:
    """Trains trials in packs. One that has ended is stored and scored beside the others' next epoch."""

    def __init__(
        self,
        plan: PackPlan,
        data: PackData,
        evaluator: Evaluator,
        emit: Callable[[Event], None],
        *,
        make_pack: Callable[[PackKey, int, PackData, Precision], Pack] = Pack,
    ) -> None:
        """A runner for a study's trials.

        Args:
            plan: Which packs there may be.
            data: What they train and validate on, on the device.
            evaluator: Scores what they trained.
            emit: Told what concerns no single trial.
            make_pack: Makes a pack.
        """
        self._plan, self._data = plan, data
        self._emit, self._make_pack = emit, make_pack
        self._seats: dict[_Kind, _Seats] = {}
        self._in_hand: RunningTrial | None = None
        self._finisher = Finisher(evaluator)
        self._ended: list[RunningTrial] = []
        self._told_at = 0.0

    @property
    def has_room(self) -> bool:
        """Whether it can train another trial, as far as one can know before its recipe is drawn."""
        return self._in_hand is None and self._count() < self._plan.capacity

    @property
    def is_idle(self) -> bool:
        """Whether it has no trial."""
        return not (self._count() or self._in_hand or self._ended) and self._finisher.is_idle

    def admit(self, running: RunningTrial) -> None:
        """Let a trial begin, in a slot if one is free for it, else as soon as one is."""
        running.attempt(running.begin)
        if running.end is None:
            self._in_hand = running
            self._place()
        else:
            self._ended.append(running)

    def advance(self) -> None:
        """Train an epoch of a pack, of each in turn; see to the trials that it ends, and fill their slots."""
        self._place()
        due = [kind for kind, seats in self._seats.items() if seats.trials]
        if due:
            # The last one's turn comes last again.
            self._seats[due[0]] = self._seats.pop(due[0])
            self._train(due[0])
        else:
            self._finisher.wait()
        # States that wait to be stored take memory: training must not run away from storing.
        self._finisher.collect(self._ended, most_waiting=max(self._plan.capacity, 2))

    def take_ended(self) -> Sequence[RunningTrial]:
        """The trials that have ended since it was last asked, each with its end."""
        ended, self._ended = self._ended, []
        return ended

    def close(self, *, saves: bool = True) -> None:
        """Hand back all that trains, and wait for what is being finished."""
        try:
            self._hand_all_back(saves=saves)
            self._finisher.collect(self._ended, most_waiting=0)
        finally:
            self._finisher.close()

    def drop(self) -> None:
        """Leave all trials as they are."""
        self._finisher.drop()
        self._seats.clear()

    def _count(self) -> int:
        return sum(len(seats.trials) for seats in self._seats.values())

    def _place(self) -> None:
        """Give the trial in hand a slot, if there is one."""
        if self._in_hand is not None and self._seat(self._in_hand):
            self._in_hand = None

    def _seat(self, running: RunningTrial) -> bool:
        """Load a trial that has begun into a free slot; False where it has to wait for one."""
        waits = False

        def load() -> None:
            nonlocal waits
            running.look()
            waits = not self._load(running)

        running.attempt(load)
        if running.end is not None:
            self._ended.append(running)
        return not waits

    def _load(self, running: RunningTrial) -> bool:
        state = running.state
        if state is not None and (problem := _problem(state, running.recipe)):
            running.begin_anew(problem)
            state = None
        if state is None:
            state = TrainingState.begin(running.recipe, self._plan.precision, "packed")
        if state.epoch >= running.recipe.epochs:
            # It was trained to its end before, and not stored.
            self._finisher.submit(running, TrainingResult("finished", state))
            return True
        seats = self._open(self._plan.key_of(running.recipe), state.precision)
        if seats is None or not seats.pack.free_slots:
            return False
        slot = seats.pack.free_slots[0]
        seats.pack.load(slot, state)
        seats.trials[slot] = running
        # The slot has it now.
        running.state = None
        return True

    def _open(self, key: PackKey, precision: Precision) -> _Seats | None:
        """The pack for such trials; None where others have to end first."""
        kind = (key, precision)
        if kind not in self._seats:
            if len(self._seats) >= self._plan.packs:
                empty = [kind for kind, seats in self._seats.items() if not seats.trials]
                if not empty:
                    return None
                # Its arrays take memory.
                del self._seats[empty[0]]
            slots = self._plan.slots_of(key, precision)
            while True:
                try:
                    self._seats[kind] = _Seats(self._make_pack(key, slots, self._data, precision))
                    break
                except DeviceError as error:
                    if slots == 1:
                        raise
                    slots = self._halve(slots, str(error))
        return self._seats[kind]

    def _halve(self, slots: int, reason: str) -> int:
        """What to go on with where so many slots are too many, said and planned with."""
        half = slots // 2
        self._plan = replace(self._plan, slots=min(self._plan.slots, half))
        self._emit(Notice(f"a program of {slots} slots failed, going on with {half}: {reason}"))
        return half

    def _train(self, kind: _Kind) -> None:
        """Train an epoch of a pack."""
        seats, reason = self._seats[kind], ""
        try:
            outcome = seats.pack.run_epoch(lambda done, total: self._look(seats, done, total))
        except Interrupted:
            self._hand_all_back()
            return
        # Nobody knows which trial is to blame, if any, as long as there are several.
        except Exception as error:  # noqa: BLE001
            if seats.pack.slots == 1:
                self._fail(kind, error)
                return
            reason = str(error) if isinstance(error, DeviceError) else describe_failure(error)
        if reason:
            # The error's traceback holds what is to be freed, and so would this.
            del seats
            self._shrink(kind, reason)
            return
        for slot, epoch in outcome.items():
            self._note_epoch(seats, slot, epoch)

    def _look(self, seats: _Seats, done: int, total: int) -> None:
        next(iter(seats.trials.values())).check_stop()
        if time.monotonic() - self._told_at >= STEPS_SECONDS:
            self._told_at = time.monotonic()
            for running in seats.trials.values():
                running.note_steps(running.epochs + 1, done, total)

    def _note_epoch(self, seats: _Seats, slot: int, epoch: SlotEpoch) -> None:
        """Report a slot's epoch, and see to a trial that ends with it."""
        running, pack = seats.trials[slot], seats.pack
        result: TrainingResult | None = None

        def note() -> None:
            nonlocal result
            # Epochs that were reported before are not written, which would tell.
            running.check_lease()
            if not epoch.is_finite:
                result = TrainingResult("diverged", pack.save(slot), epoch.result.epoch)
            elif running.note_epoch(epoch.result, lambda: pack.save(slot)):
                result = TrainingResult("stopped", pack.save(slot))
            elif epoch.result.epoch >= running.recipe.epochs:
                result = TrainingResult("finished", pack.save(slot))

        running.attempt(note)
        if running.end is not None:
            self._ended.append(seats.leave(slot))
        elif result is not None:
            self._finisher.submit(seats.leave(slot), result)

    def _shrink(self, kind: _Kind, reason: str) -> None:
        """Go on in a pack of half the slots; trials that have no room in it are handed back.

        Args:
            kind: The pack's, which has several slots.
            reason: Why.
        """
        seats = self._seats.pop(kind)
        self._halve(seats.pack.slots, reason)
        trials = list(seats.trials.items())
        for slot, running in trials:
            try:
                running.keep(seats.pack.save(slot))
            # A device that failed gives nothing: the trial goes on from its checkpoint, and is not to blame.
            except Exception as error:  # noqa: BLE001
                LOG.warning("the state of slot %d is lost: %s", slot, describe_failure(error))
                running.hand_back(saves=False)
                self._ended.append(running)
        # Its memory has to be free before the other's is taken.
        del seats
        for _, running in trials:
            if running.end is None and not self._seat(running):
                running.hand_back()
                self._ended.append(running)

    def _fail(self, kind: _Kind, error: Exception) -> None:
        """Let an error be that of the pack's trial, and make no more use of the pack."""

        def fail() -> None:
            raise error

        for running in self._seats.pop(kind).trials.values():
            running.attempt(fail, is_last=True)
            self._ended.append(running)

    def _hand_all_back(self, *, saves: bool = True) -> None:
        for seats in self._seats.values():
            for slot in list(seats.trials):
                seats.trials[slot].hand_back(saves=saves)
                self._ended.append(seats.leave(slot))
        if self._in_hand is not None:
            self._in_hand.hand_back(saves=saves)
            self._ended.append(self._in_hand)
            self._in_hand = None


def _problem(state: TrainingState, recipe: Recipe) -> StateError | None:
    """What is wrong with going on from a checkpoint; None for nothing."""
    try:
        state.check_recipe(recipe)
        state.check()
    except StateError as error:
        return error
    return None
