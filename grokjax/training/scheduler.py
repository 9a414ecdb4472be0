"""The loop on the host: runs into slots, dispatches to the device, checkpoints and final keys in between.

One dispatch is always in flight while the results of the one before are written. All decisions follow from step
counts, so every run is trained the same way whatever its slot, its neighbours, or the interruptions.

Where several processes train together, each knows all slots and all runs and decides the same; it computes and writes
what is in its own slots.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from grokjax.store import checkpoints, final_states
from grokjax.store.recovery import Checkpoint
from grokjax.sweeps import Run
from grokjax.training import population, speeds, starting
from grokjax.training.layouts import Layout
from grokjax.training.plan import Plan
from grokjax.training.recorder import Dispatch, Recorder

DISPATCH_SECONDS = 2.0  # aimed at: short enough to answer an interrupt, long enough to cost nothing
FINALISED_MODELS = 64  # evaluated before metrics on disk are rewritten, unless more runs train together
FLUSH_SECONDS = 20.0  # between parts, so that the metrics can be read while the sweep runs


class Interrupted(Exception):
    """The sweep was asked to stop, and has saved its state."""


def train_groups(
    plan: Plan, recorder: Recorder, checkpoint: Checkpoint | None = None, kept: Mapping[int, int] | None = None
) -> None:
    """Trains everything that is left of a sweep, one group after another.

    Args:
      plan: with each group's layout.
      recorder: of the sweep; its ledger says what is left.
      checkpoint: to go on from.
      kept: the step that runs go on from by their final state, by run.

    Raises:
      Interrupted: the request's `stop` answered true; the same call with the latest checkpoint goes on.
      StorageError: results cannot be written.
      HostLost: another process is gone.
    """
    stop = plan.job.request.stop
    if any(recorder.hosts.all_gather(stop())):  # before anything is compiled, which takes long
        raise Interrupted
    groups = plan.job.sweep.groups()
    # The checkpoint's group first: the next checkpoint no longer has its states.
    first = checkpoint.group if checkpoint else 0
    for number in sorted(range(len(groups)), key=lambda n: (n != first, n)):
        group = Group(number, groups[number], plan.layouts[number], recorder, stop, kept)
        group.train(checkpoint if checkpoint and number == checkpoint.group else None)
    recorder.save_checkpoint(number, group.offset, {}, None)


@dataclasses.dataclass
class Slot:
    """A run in training and the steps dispatched for it so far."""

    run: Run
    step: int


class Slots:
    """The slots of a group over all processes, numbered from 0, with the runs that are in them.

    Args:
      layout: of the group.
      ours: numbers of this process's slots.
    """

    def __init__(self, layout: Layout, ours: range):
        self.layout, self.ours = layout, ours
        self.held: dict[int, Slot] = {}

    def mine(self) -> dict[int, Slot]:
        """Our slots that have runs, by their number in our population."""
        return {i - self.ours.start: slot for i, slot in self.held.items() if i in self.ours}

    def free(self) -> list[int]:
        """The empty slots in the order in which to fill them, which keeps the devices equally busy."""
        n = self.layout.slots
        ranked = []
        for first in range(0, self.layout.width, n):
            free = [i for i in range(first, first + n) if i not in self.held]
            ranked += [(n - len(free) + rank, i) for rank, i in enumerate(free)]
        return [i for _, i in sorted(ranked)]


class Group:
    """The runs that share a compilation, in training.

    Args:
      number: of the group in the sweep.
      runs: of it.
      layout: of its population.
      recorder: takes in the results, and saves the state.
      stop: asked between dispatches.
      kept: the step that runs go on from by their final state, by run.
    """

    def __init__(
        self,
        number: int,
        runs: Sequence[Run],
        layout: Layout,
        recorder: Recorder,
        stop: Callable[[], bool],
        kept: Mapping[int, int] | None = None,
    ):
        self.number, self.runs, self.layout = number, runs, layout
        self.recorder, self.stop, self.kept = recorder, stop, kept or {}
        self.hosts, self.ledger = recorder.hosts, recorder.ledger
        self.problem = runs[0].problem()
        self.population = population.Population(self.problem, layout)
        n = self.population.width
        self.slots = Slots(layout, range(self.hosts.index * n, (self.hosts.index + 1) * n))
        self.offset = 0  # steps into the current segment, the same for all slots
        self.pending: collections.deque[Dispatch] = collections.deque()
        self.seconds_per_step: float | None = None  # as all processes agreed, since sizes of dispatches follow from it
        self._measured: float | None = None  # here
        self._collected_at: float | None = None
        base = recorder.workdir.sweep.base
        self._timed = speeds.Clock()
        self.snapshot_every, self.slow_every = base["snapshot_every"], base["slow_every"]
        self.keeps_states = bool(base["keep_final_state"])
        self._batch = max(layout.width, FINALISED_MODELS // (2 + runs[0].steps // self.snapshot_every))

    # --- the loop -----------------------------------------------------------------------------------------------

    def train(self, checkpoint: Checkpoint | None = None) -> None:
        """Trains the runs that are not over, from a checkpoint of this group if there is one.

        Raises:
          Interrupted: as for `train_groups`.
        """
        if checkpoint:
            self._restore(checkpoint)
        in_slots = {slot.run.run for slot in self.slots.held.values()}
        left = (run for run in self.runs if not self.ledger.over(run.run) and run.run not in in_slots)
        waiting = collections.deque(left)
        while waiting or self.slots.held:
            if self.offset == 0 or not self.slots.held:
                self.offset = 0
                self._fill(waiting)
            self._dispatch()
            self._collect(leave=1)
            wish = self._wish()
            if wish in ("stop", "checkpoint"):
                self._checkpoint()
            elif wish == "flush":
                self.recorder.flush()
            if wish == "stop":
                self._keep_speed()
                raise Interrupted
            self._finalise(at_least=self._batch)
        self._collect(leave=0)
        self._finalise(at_least=1)
        self._keep_speed()
        if self._asked() and self._is_left():
            self._checkpoint()
            raise Interrupted

    def _keep_speed(self) -> None:
        """Keeps what steps took, from which plans are made and nothing else."""
        if self.hosts.is_first:
            self._timed.keep(speeds.key(self.problem, self.recorder.workdir.sweep.base, self.layout))

    def _asked(self) -> bool:
        """Whether any process was asked to stop."""
        return any(self.hosts.all_gather(self.stop()))

    def _is_left(self) -> bool:
        """Whether there is a run, of any group, to train or to finalise."""
        return bool(self.recorder.unfinished(self.problem)) or not all(map(self.ledger.over, self.ledger.records))

    def _wish(self) -> str:
        """The thing to do between dispatches; the same in all processes, as is the time that a step takes."""
        wishes = ["stop"] if self.stop() else []
        if self.hosts.is_first:
            wishes += ["checkpoint"] * self.recorder.is_checkpoint_due()
            wishes += ["flush"] * (time.monotonic() - self.recorder.flushed_at > FLUSH_SECONDS)
        told = self.hosts.all_gather([wishes, self._measured])
        known = [seconds for _, seconds in told if seconds is not None]
        self.seconds_per_step = max(known, default=None)
        wished = {wish for some, _ in told for wish in some}
        return next((wish for wish in ("stop", "checkpoint", "flush") if wish in wished), "")

    def _finalise(self, at_least: int) -> None:
        """Fills in the measures with final keys once enough runs have ended, so that parts are not rewritten often."""
        while len(runs := self.recorder.unfinished(self.problem)) >= at_least:
            self.recorder.finalise(runs[: self._batch], self.layout)  # not all, so that a wish to stop is soon seen
            self._collected_at = None
            if self._asked():
                break

    # --- to the device ------------------------------------------------------------------------------------------

    def _fill(self, waiting: collections.deque[Run]) -> None:
        """Gives waiting runs free slots, and evaluates those that have no final state before their first step."""
        runs = {i: waiting.popleft() for i in self.slots.free()[: len(waiting)]}
        self.slots.held |= {i: Slot(run, self.kept.get(run.run, 0)) for i, run in runs.items()}
        self._go_on([i for i, run in runs.items() if run.run in self.kept and i in self.slots.ours])
        fresh = {i: run for i, run in runs.items() if run.run not in self.kept}
        if not fresh:
            return
        mine = {i - self.slots.ours.start: run for i, run in fresh.items() if i in self.slots.ours}
        outputs, params = {}, None
        if mine:
            self.population.start({i: starting.inputs(run) for i, run in mine.items()})
            outputs = self.population.advance(list(mine), 1, 0, slow=[True])
            params = self.population.take(list(mine)).params
        rows = {i: (run, 0, 0) for i, run in fresh.items()}
        snapshots = [(run, 0) for run in mine.values()]
        self.pending.append(Dispatch(outputs, 1, rows, self.slots.ours, 0, snapshots, params))

    def _go_on(self, slots: Sequence[int]) -> None:
        """Puts the final states of runs that are to be trained longer into their slots, which are ours."""
        if slots:
            held = [self.slots.held[i] for i in slots]
            found = final_states.find(self.recorder.workdir.path)
            steps, inputs = [(slot.run.run, slot.step) for slot in held], [slot.run.inputs() for slot in held]
            state = final_states.load(found, steps, population.blank(self.problem), inputs)
            self.population.restore(state, [i - self.slots.ours.start for i in slots])

    def _dispatch(self) -> None:
        n_segments, n_steps, evaluate = self._size()
        held = self.slots.held
        rows = {i: (slot.run, slot.step + n_steps, n_steps) for i, slot in held.items()}
        steps_at = [[slot.step + (i + 1) * n_steps for slot in held.values()] for i in range(n_segments)]
        slow = [any(step % self.slow_every == 0 for step in steps) for steps in steps_at]
        mine = self.slots.mine()
        outputs = self.population.advance(list(mine), n_segments, n_steps, evaluate, slow) if mine else {}
        for slot in held.values():
            slot.step += n_segments * n_steps
        self.offset = 0 if evaluate else self.offset + n_steps
        due = {i: slot for i, slot in mine.items() if evaluate and self._needs_snapshot(slot)}
        snapshots = [(slot.run, slot.step) for slot in due.values()]
        params = self.population.take(list(due)).params if due else None
        ends = {i: slot for i, slot in mine.items() if self.keeps_states and slot.step >= slot.run.steps}
        finals = [(slot.run, slot.step) for slot in ends.values()]
        states = self.population.take(list(ends)) if ends else None
        n_results, run_steps = n_segments if evaluate else 0, n_segments * n_steps * len(held)
        self.pending.append(
            Dispatch(outputs, n_results, rows, self.slots.ours, run_steps, snapshots, params, finals, states)
        )
        self.recorder.stepped(n_segments * n_steps)
        self.slots.held = {i: slot for i, slot in held.items() if slot.step < slot.run.steps}

    def _needs_snapshot(self, slot: Slot) -> bool:
        return slot.step >= slot.run.steps or slot.step % self.snapshot_every == 0

    def _size(self) -> tuple[int, int, bool]:
        """Segments and steps of the next dispatch, and whether its segments end in an evaluation.

        Whole segments where they are short, part of one where it would take long.
        """
        every = self.problem.eval_every
        left = every - self.offset
        if self.seconds_per_step is None:
            return 1, left, True
        most = max(1, int(DISPATCH_SECONDS / max(self.seconds_per_step, 1e-9)))
        if left < every or 2 * most < every:
            n_steps = left if left <= 2 * most else most
            return 1, n_steps, n_steps == left
        slots = self.slots.held.values()
        to_end = min(slot.run.steps - slot.step for slot in slots)
        to_snapshot = min(self.snapshot_every - slot.step % self.snapshot_every for slot in slots)
        limits = [to_end // every, to_snapshot // every, most // every, population.MAX_SEGMENTS]
        if self.recorder.checkpoint_steps:
            limits.append(-(-self.recorder.checkpoint_steps // every))
        return max(1, min(limits)), every, True

    # --- from the device ----------------------------------------------------------------------------------------

    def _collect(self, leave: int) -> None:
        """Waits for all but `leave` of the dispatches in flight and takes in their results."""
        while len(self.pending) > leave:
            dispatch = self.pending.popleft()
            jax.block_until_ready(dispatch.outputs)
            self._clock(dispatch)
            for i in self.recorder.take(dispatch, self.problem):
                run = dispatch.rows[i][0]
                if i in self.slots.ours and self.recorder.status(run) == "stopped":
                    self.recorder.save_stopped(run, self._params_of(run, i, dispatch))
                self._free(run)
            self.recorder.save_snapshots(dispatch)

    def _clock(self, dispatch: Dispatch) -> None:
        now = time.monotonic()
        n_steps = dispatch.run_steps // len(dispatch.rows)
        self._timed.took_in(self.layout, dispatch.rows, n_steps)
        seconds = now - self._collected_at if self._collected_at else None
        if seconds and dispatch.run_steps:
            self._measured = seconds * len(dispatch.rows) / dispatch.run_steps
        self.recorder.progress.advanced(dispatch.run_steps, seconds)
        self._collected_at = now

    def _params_of(self, run: Run, slot: int, dispatch: Dispatch) -> Mapping[str, Any]:
        """The parameters of a run that was in this slot, [1, …]; the slot may have been given away since."""
        for i, (other, _) in enumerate(dispatch.snapshots):
            if other.run == run.run:
                return {key: np.asarray(x)[[i]] for key, x in dispatch.params.items()}
        return self.population.take([slot - self.slots.ours.start]).params

    def _free(self, run: Run) -> None:
        """Gives up a run's slot, if it still has one."""
        for i, slot in list(self.slots.held.items()):
            if slot.run.run == run.run:
                self.recorder.progress.advanced(run.steps - slot.step, None)
                del self.slots.held[i]

    # --- to resume from -----------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        self._collect(leave=0)
        mine = self.slots.mine()
        steps = {slot.run.run: slot.step for slot in mine.values()}
        self.recorder.save_checkpoint(
            self.number, self.offset, steps, self.population.take(list(mine)) if mine else None
        )
        self._collected_at = None

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Gives the runs of a checkpoint slots, and reads the states of those that are ours."""
        runs = {run.run: run for run in self.runs}
        self.offset = checkpoint.offset
        kept = [run for run in checkpoint.steps if self.ledger.records[run]["status"] == "training"]
        for i, run in zip(self.slots.free(), kept, strict=False):
            self.slots.held[i] = Slot(runs[run], checkpoint.steps[run])
        place = {slot.run.run: i for i, slot in self.slots.mine().items()}
        blank = population.blank(self.problem)
        for folder, progress in zip(checkpoint.folders, checkpoint.progress, strict=True):
            some = [i for i, run in enumerate(progress["runs"]) if run in place]
            if some:
                state = checkpoints.load(folder, blank, len(progress["runs"]))
                ours = jax.tree.map(lambda x, some=some: np.asarray(x)[some], state)
                self.population.restore(ours, [place[progress["runs"][i]] for i in some])
