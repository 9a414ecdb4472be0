"""The loop on the host: runs into slots, dispatches to the device, results to disk, checkpoints to resume from.

One dispatch is always in flight while the results of the one before are written. All decisions follow from step
counts, so every run is trained the same way whatever its slot, its neighbours, or the interruptions.

Where several processes train together, each knows all slots and all runs and decides the same; it computes and writes
what is in its own slots.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from grokjax.columns import FINAL
from grokjax.core import devices as devices_lib
from grokjax.core.hosts import ALONE, Hosts
from grokjax.core.problem import Shape
from grokjax.measures import registry
from grokjax.store import checkpoints, files, snapshots
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import MetricsWriter
from grokjax.store.recovery import Checkpoint
from grokjax.store.workdir import Workdir
from grokjax.sweeps import Run
from grokjax.training import final_keys, population
from grokjax.training.population import Population

DISPATCH_SECONDS = 2.0  # aimed at: short enough to answer an interrupt, long enough to cost nothing
SETTLE_MODELS = 64  # evaluated before metrics on disk are rewritten, unless more runs train together
FLUSH_SECONDS = 20.0  # between parts, so that the metrics can be read while the sweep runs


class Interrupted(Exception):
    """The sweep was asked to stop, and has saved its state."""


class Progress(Protocol):
    """What is told of the sweep's progress while it runs."""

    def advanced(self, run_steps: int, seconds: float | None) -> None:
        """Run-steps that are done, and the wall time they took where that is known (None includes compilation)."""

    def say(self, text: str) -> None:
        """Something worth a line."""


@dataclasses.dataclass
class Slot:
    """A run in training and the steps dispatched for it so far."""

    run: Run
    step: int


@dataclasses.dataclass
class Dispatch:
    """Work handed to the device whose results have not been written yet."""

    outputs: dict[str, Any]
    n_segments: int  # with results
    rows: dict[int, tuple[Run, int, int]]  # by slot: the run, its step at the first result, steps between results
    run_steps: int
    snapshots: list[tuple[Run, int]]  # runs to take a snapshot of, and at which step
    params: Any = None  # of those, stacked in that order


class Scheduler:
    """Trains the groups of a sweep, one after another.

    Args:
      workdir: where results go.
      groups: runs that share a compilation, in order.
      shapes: each group's layout.
      ledger: what has become of the runs so far.
      writer: of the metrics.
      progress: what to tell.
      stop: asked between dispatches; a true answer saves and raises Interrupted.
      hosts: the processes that train together.
    """

    def __init__(
        self,
        workdir: Workdir,
        groups: Sequence[Sequence[Run]],
        shapes: Sequence[Shape],
        ledger: Ledger,
        writer: MetricsWriter,
        progress: Progress,
        stop: Callable[[], bool] = lambda: False,
        hosts: Hosts = ALONE,
    ):
        self.workdir, self.groups, self.shapes = workdir, groups, shapes
        self.ledger, self.writer, self.progress, self.stop = ledger, writer, progress, stop
        self.hosts = hosts
        self._checkpoint_time = self._flush_time = time.monotonic()
        self._steps_since_checkpoint = 0

    def run(self, checkpoint: Checkpoint | None = None) -> None:
        """Trains everything that is left.

        Args:
          checkpoint: to go on from.

        Raises:
          Interrupted: `stop` answered true; the same call with the latest checkpoint goes on.
          StorageError: results cannot be written.
          HostLost: another process is gone.
        """
        if self._asked():  # before anything is compiled, which takes long
            raise Interrupted
        self._number = self.hosts.tell(checkpoints.next_number(self.workdir.checkpoints))[0]
        # The checkpoint's group first: the next checkpoint no longer has its states.
        first = checkpoint.group if checkpoint else 0
        for number in sorted(range(len(self.groups)), key=lambda n: (n != first, n)):
            runs = self.groups[number]
            self._begin_group(number)
            if checkpoint and number == checkpoint.group:
                self._restore(checkpoint)
            self._train_group(collections.deque(run for run in runs if not self._taken(run)))
        self._save(None)

    def _begin_group(self, number: int) -> None:
        self.group, self.shape = number, self.shapes[number]
        self.problem = self.groups[number][0].problem()
        self.columns = registry.metrics_columns(self.problem.measures)
        self.population = Population(self.problem, self.shape)
        # Slots are numbered over all processes; these are the first of ours, and the one after our last.
        width = self.population.width
        self._first, self._end = self.hosts.index * width, (self.hosts.index + 1) * width
        first = self.groups[number][0]
        n_snapshots = 2 + first.steps // self._base["snapshot_every"]
        self._batch = max(self.shape.width, SETTLE_MODELS // n_snapshots)
        self.slots: dict[int, Slot] = {}
        self.offset = 0  # steps into the current segment, the same for all slots
        self.pending: collections.deque[Dispatch] = collections.deque()
        self._seconds_per_step: float | None = None
        self._last_collected: float | None = None

    def _taken(self, run: Run) -> bool:
        return self.ledger.over(run.run) or any(slot.run.run == run.run for slot in self.slots.values())

    # --- the loop -----------------------------------------------------------------------------------------------

    def _train_group(self, waiting: collections.deque[Run]) -> None:
        while waiting or self.slots:
            if self.offset == 0 or not self.slots:
                self.offset = 0
                self._fill(waiting)
            self._dispatch()
            self._collect(leave=1)
            wish = self._wish()
            if wish == "stop":
                self._checkpoint()
                raise Interrupted
            if wish == "checkpoint":
                self._checkpoint()
            elif wish == "flush":
                self._flush()
            self._settle(at_least=self._batch)
        self._collect(leave=0)
        self._settle(at_least=1)
        if self._asked() and self._is_left():
            self._checkpoint()
            raise Interrupted

    def _asked(self) -> bool:
        """Whether any process was asked to stop."""
        return any(self.hosts.tell(self.stop()))

    def _is_left(self) -> bool:
        """Whether there is a run to train or to settle."""
        return bool(self.ledger.without_keys(self.columns)) or not all(map(self.ledger.over, self.ledger.records))

    def _wish(self) -> str:
        """What is to be done between dispatches; the same in all processes, as is the time that a step takes."""
        wishes = ["stop"] if self.stop() else []
        if self.hosts.is_first:  # whose clock counts
            wishes += ["checkpoint"] * self._checkpoint_due()
            wishes += ["flush"] * (time.monotonic() - self._flush_time > FLUSH_SECONDS)
        told = self.hosts.tell([wishes, self._seconds_per_step])
        known = [seconds for _, seconds in told if seconds is not None]
        self._seconds_per_step = max(known, default=None)
        wished = {wish for some, _ in told for wish in some}
        return next((wish for wish in ("stop", "checkpoint", "flush") if wish in wished), "")

    def _settle(self, at_least: int) -> None:
        """Fills in the measures with final keys once enough runs have ended, so that parts are not rewritten often."""
        while len(runs := self._unsettled()) >= at_least:
            self._flush()
            some = runs[: self._batch]  # not all, so that a wish to stop is soon seen
            shape = self.shape
            in_native = bool(shape.n_parts)
            final_keys.settle(self.workdir.path, some, self.ledger, shape.eval_lanes, self.hosts, in_native)
            self.writer.reload()
            self._last_collected = None
            if self._asked():
                break

    def _unsettled(self) -> list[Run]:
        return [run for run in self.ledger.without_keys(self.columns) if run.problem() == self.problem]

    def _fill(self, waiting: collections.deque[Run]) -> None:
        """Starts waiting runs in free slots and evaluates them before their first step."""
        fresh = {slot: waiting.popleft() for slot in self._free_slots()[: len(waiting)]}
        if not fresh:
            return
        mine = {slot: run for slot, run in fresh.items() if self._is_mine(slot)}
        outputs, params = {}, None
        if mine:
            ours = [slot - self._first for slot in mine]
            self.population.start({slot - self._first: run.inputs() for slot, run in mine.items()})
            outputs = self.population.advance(ours, 1, 0, slow=[True])
            params = self.population.take(ours).params
        rows = {slot: (run, 0, 0) for slot, run in fresh.items()}
        self.pending.append(Dispatch(outputs, 1, rows, 0, [(run, 0) for run in mine.values()], params))
        self.slots |= {slot: Slot(run, 0) for slot, run in fresh.items()}

    def _is_mine(self, slot: int) -> bool:
        return self._first <= slot < self._end

    def _mine(self) -> list[int]:
        """Our slots that have runs, as our population numbers them."""
        return [slot - self._first for slot in self.slots if self._is_mine(slot)]

    def _free_slots(self) -> list[int]:
        """In the order in which to fill them, which keeps the devices equally busy."""
        devices = [range(d * self.shape.slots, (d + 1) * self.shape.slots) for d in range(self.shape.n_devices)]
        ranked = []
        for device in devices:
            free = [slot for slot in device if slot not in self.slots]
            ranked += [(self.shape.slots - len(free) + i, slot) for i, slot in enumerate(free)]
        return [slot for _, slot in sorted(ranked)]

    def _dispatch(self) -> None:
        n_segments, n_steps, evaluate = self._size()
        ends = [[slot.step + (i + 1) * n_steps for slot in self.slots.values()] for i in range(n_segments)]
        slow = [any(step % self._base["slow_every"] == 0 for step in steps) for steps in ends]
        mine = self._mine()
        outputs = self.population.advance(mine, n_segments, n_steps, evaluate, slow) if mine else {}
        rows = {i: (slot.run, slot.step + n_steps, n_steps) for i, slot in self.slots.items()}
        for slot in self.slots.values():
            slot.step += n_segments * n_steps
        self.offset = 0 if evaluate else self.offset + n_steps
        ended = [i for i, slot in self.slots.items() if slot.step >= slot.run.steps]
        due = [
            i
            for i, slot in self.slots.items()
            if evaluate and self._is_mine(i) and (i in ended or not slot.step % self._base["snapshot_every"])
        ]
        dispatch = Dispatch(
            outputs,
            n_segments if evaluate else 0,
            rows,
            run_steps=n_segments * n_steps * len(self.slots),
            snapshots=[(self.slots[i].run, self.slots[i].step) for i in due],
            params=self.population.take([i - self._first for i in due]).params if due else None,
        )
        self.pending.append(dispatch)
        self._steps_since_checkpoint += n_segments * n_steps
        for i in ended:
            del self.slots[i]

    def _size(self) -> tuple[int, int, bool]:
        """Segments and steps of the next dispatch, and whether its segments end in an evaluation.

        Whole segments where they are short, part of one where it would take long.
        """
        every = self.problem.eval_every
        left = every - self.offset
        if self._seconds_per_step is None:
            return 1, left, True
        most = max(1, int(DISPATCH_SECONDS / max(self._seconds_per_step, 1e-9)))
        if left < every or 2 * most < every:
            n_steps = left if left <= 2 * most else most
            return 1, n_steps, n_steps == left
        snapshot_every = self._base["snapshot_every"]
        to_end = min(slot.run.steps - slot.step for slot in self.slots.values())
        to_snapshot = min(snapshot_every - slot.step % snapshot_every for slot in self.slots.values())
        limits = [to_end // every, to_snapshot // every, most // every, population.MAX_SEGMENTS]
        if self._checkpoint_steps:
            limits.append(-(-self._checkpoint_steps // every))
        return max(1, min(limits)), every, True

    def _collect(self, leave: int) -> None:
        """Waits for all but `leave` of the dispatches in flight and takes in their results."""
        while len(self.pending) > leave:
            dispatch = self.pending.popleft()
            outputs = {name: np.asarray(x) for name, x in dispatch.outputs.items()}
            self._clock(dispatch)
            self._take_rows(dispatch, outputs)
            self._save_snapshots(dispatch)

    def _save_snapshots(self, dispatch: Dispatch) -> None:
        taken = [(step, run.run, i) for i, (run, step) in enumerate(dispatch.snapshots)]
        whole = [item for item in taken if not self._is_past(*item[:2])]
        for step in sorted({step for step, _, _ in whole}):
            some = sorted((run, i) for s, run, i in whole if s == step)
            picked = {key: np.asarray(x)[[i for _, i in some]] for key, x in dispatch.params.items()}
            snapshots.save_snapshot(self.workdir.snapshots, step, [run for run, _ in some], picked)

    def _clock(self, dispatch: Dispatch) -> None:
        now = time.monotonic()
        seconds = now - self._last_collected if self._last_collected else None
        if seconds and dispatch.run_steps:
            self._seconds_per_step = seconds * len(dispatch.rows) / dispatch.run_steps
        self.progress.advanced(dispatch.run_steps, seconds)
        self._last_collected = now

    def _take_rows(self, dispatch: Dispatch, outputs: dict[str, np.ndarray]) -> None:
        rows = {i: row for i, row in dispatch.rows.items() if not self.ledger.over(row[0].run)}
        if not rows or not dispatch.n_segments:
            return
        mine = {i - self._first: row for i, row in rows.items() if self._is_mine(i)}
        frame = self._frame(dispatch.n_segments, mine, outputs) if mine else None
        self._tell_ledger(frame)
        if frame:
            self.writer.add(self._counted(frame))
        for i, (run, _, _) in rows.items():
            record = self.ledger.records[run.run]
            if record["status"] == "diverged":
                self.progress.say(f"run {run.run} diverged: its loss is not finite at step {record['last_step']}.")
                self._free(run)
            elif record["status"] == "stopped":
                if self._is_mine(i):
                    self._save_stopped(dispatch, i - self._first, run.run, record["last_step"])
                self._free(run)

    def _frame(self, n: int, rows: Mapping[int, tuple[Run, int, int]], outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The results of `n` segments as columns, segment by segment; `rows` by slot of our population."""
        slots, runs = list(rows), [run for run, _, _ in rows.values()]
        steps = np.stack([first + every * np.arange(n) for _, first, every in rows.values()], 1)
        values = registry.counts_to_shares(self.columns, outputs, self.problem.model, self.problem.n_train)
        frame: dict[str, Any] = {name: x[:n, slots].reshape(-1, *x.shape[2:]) for name, x in values.items()}
        not_slow = steps.reshape(-1) % self._base["slow_every"] != 0
        for name in frame:
            if self.columns[name].slow and not_slow.any():
                frame[name] = _nulled(frame[name], not_slow)
        frame["run"] = np.tile([run.run for run in runs], n)
        frame["step"] = steps.reshape(-1)
        for path in self.workdir.sweep.axes:
            frame[path] = np.array([run.values[path] for run in runs] * n, object)
        return frame

    def _tell_ledger(self, frame: Mapping[str, Any] | None) -> None:
        """Tells the ledger of new rows, ours and those of the other processes."""
        names = ("run", "step", *FINAL)
        mine = np.stack([np.asarray(frame[name], np.float64) for name in names]) if frame else np.zeros((len(names), 0))
        for message in self.hosts.gather(mine.tobytes()):
            theirs = np.frombuffer(message).reshape(len(names), -1)
            self.ledger.update(dict(zip(names, theirs, strict=True)))

    def _save_stopped(self, dispatch: Dispatch, slot: int, run: int, step: int) -> None:
        """The final snapshot of a run that has stopped at `step`. Its state has not changed since."""
        runs = [other.run for other, _ in dispatch.snapshots]
        if run in runs:  # its slot may have been given away
            params: Mapping[str, Any] = {key: np.asarray(x)[[runs.index(run)]] for key, x in dispatch.params.items()}
        else:
            params = self.population.take([slot]).params
        snapshots.save_snapshot(self.workdir.snapshots, step, [run], params)

    def _is_past(self, step: int, run: int) -> bool:
        """Whether a snapshot would show a run that has diverged, or not before it stopped, which is saved apart."""
        record = self.ledger.records[run]
        return record["status"] == "diverged" or (record["status"] == "stopped" and step >= record["last_step"])

    def _free(self, run: Run) -> None:
        """Gives up a run's slot, if it still has one."""
        for i, slot in list(self.slots.items()):
            if slot.run.run == run.run:
                self.progress.advanced(run.steps - slot.step, None)
                del self.slots[i]

    def _counted(self, frame: dict[str, Any]) -> dict[str, Any]:
        """The rows that count, until a run stops or diverges, which is a row of nulls."""
        bad = ~np.isfinite(frame["train_loss"])
        described = {"run", "step", *self.workdir.sweep.axes}
        if bad.any():
            frame = {name: x if name in described else _nulled(x, bad) for name, x in frame.items()}
        last = np.array([self.ledger.records[run]["last_step"] for run in frame["run"]])
        return {name: values[frame["step"] <= last] for name, values in frame.items()}

    # --- to disk ------------------------------------------------------------------------------------------------

    @property
    def _base(self) -> Mapping[str, Any]:
        return self.workdir.sweep.base

    @property
    def _checkpoint_steps(self) -> int:
        return self._base["checkpoint_every_steps"]

    def _checkpoint_due(self) -> bool:
        minutes = self._base["checkpoint_every_minutes"]
        by_steps = self._checkpoint_steps and self._steps_since_checkpoint >= self._checkpoint_steps
        return bool(by_steps) or time.monotonic() - self._checkpoint_time > 60 * minutes

    def _flush(self) -> None:
        self.workdir.confirm()
        # Rows before runs.parquet: a run is never said to be finished before its rows are there.
        self.writer.flush()
        self.hosts.wait()
        if self.hosts.is_first:
            files.write_parquet(self.ledger.table(), self.workdir.runs)
        devices_lib.give_back_memory()
        self._flush_time = time.monotonic()

    def _checkpoint(self) -> None:
        self._collect(leave=0)
        mine = self._mine()
        self._save(self.population.take(mine) if mine else None)
        self._last_collected = None

    def _save(self, state: Any) -> None:
        """Puts all rows on disk, and what is needed to go on from here."""
        self._flush()
        slots = {i: slot for i, slot in self.slots.items() if self._is_mine(i)}
        part, rows = self.writer.mark
        progress = {
            "group": self.group,
            "offset": self.offset,
            "runs": [slot.run.run for slot in slots.values()],
            "steps": [slot.step for slot in slots.values()],
            "process": self.hosts.index,
            "part": part,
            "rows": rows,
        }
        name = checkpoints.checkpoint_name(self._number, self.hosts.index, self.hosts.count)
        checkpoints.save(self.workdir.checkpoints / name, state, progress)
        self.hosts.wait()
        if self.hosts.is_first:
            checkpoints.prune(self.workdir.checkpoints, self._number)
        self._number += 1
        self._steps_since_checkpoint = 0
        self._checkpoint_time = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Gives the runs of a checkpoint slots, and reads the states of those that are ours."""
        runs = {run.run: run for run in self.groups[self.group]}
        self.offset = checkpoint.offset
        kept = [run for run in checkpoint.steps if self.ledger.records[run]["status"] == "training"]
        for slot, run in zip(self._free_slots(), kept, strict=False):
            self.slots[slot] = Slot(runs[run], checkpoint.steps[run])
        place = {slot.run.run: i - self._first for i, slot in self.slots.items() if self._is_mine(i)}
        blank = population.blank(self.problem)
        for folder, progress in zip(checkpoint.folders, checkpoint.progress, strict=True):
            some = [i for i, run in enumerate(progress["runs"]) if run in place]
            if some:
                state = checkpoints.load(folder, blank, len(progress["runs"]))
                picked = jax.tree.map(lambda x, some=some: np.asarray(x)[some], state)
                self.population.restore(picked, [place[progress["runs"][i]] for i in some])


def _nulled(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The values with some rows as nulls."""
    if values.dtype.kind == "f":
        values = values.copy()
        values[rows] = np.nan
        return values
    result = np.empty(len(values), object)
    for i, value in enumerate(values):
        result[i] = None if rows[i] else value
    return result
