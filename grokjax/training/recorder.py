"""The recorder: takes the results of dispatches to the ledger and to disk, and saves the state to resume from."""

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from grokjax.columns import FINAL, SPLIT_SEED_USED
from grokjax.core.devices import give_back_memory
from grokjax.core.hosts import Hosts
from grokjax.core.problem import Problem, State
from grokjax.measures import registry
from grokjax.store import checkpoints, files, final_states, snapshots
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import MetricsWriter
from grokjax.store.workdir import Workdir
from grokjax.sweeps import Run
from grokjax.training import final_keys
from grokjax.training.layouts import Layout
from grokjax.training.progress import LiveProgress


@dataclasses.dataclass
class Dispatch:
    """Work handed to the device whose results have not been written yet.

    Attributes:
      outputs: of our slots, by column.
      n_segments: that have results.
      rows: by slot of all processes: the run, its step at the first result, steps between results.
      ours: numbers of our slots, in the order in which the outputs have them.
      run_steps: of all slots.
      snapshots: runs to take a snapshot of, and at which step.
      params: of those, stacked in that order.
      finals: runs that end, whose final state is kept, and at which step.
      states: of those, stacked in that order.
    """

    outputs: dict[str, Any]
    n_segments: int
    rows: dict[int, tuple[Run, int, int]]
    ours: range
    run_steps: int
    snapshots: list[tuple[Run, int]]
    params: Any = None
    finals: list[tuple[Run, int]] = dataclasses.field(default_factory=list)
    states: State | None = None


class Recorder:
    """Writes down what happens to the runs of a sweep.

    Args:
      workdir: where results go.
      ledger: of every run.
      writer: of the metrics.
      progress: is told what is worth a line.
      hosts: the processes that train together.

    Attributes:
      checkpoint_steps: population steps between checkpoints; 0 for by time alone.
    """

    def __init__(self, workdir: Workdir, ledger: Ledger, writer: MetricsWriter, progress: LiveProgress, hosts: Hosts):
        self.workdir, self.ledger, self.writer = workdir, ledger, writer
        self.progress, self.hosts = progress, hosts
        base = workdir.sweep.base
        self.checkpoint_steps: int = base["checkpoint_every_steps"]
        self._checkpoint_seconds = 60 * base["checkpoint_every_minutes"]
        self._checkpoint = hosts.all_gather(checkpoints.next_number(workdir.checkpoints))[0]
        self.flushed_at = self._saved_at = time.monotonic()
        self._steps = 0

    def take(self, dispatch: Dispatch, problem: Problem) -> list[int]:
        """Takes in the rows of a dispatch.

        Returns:
          The slots whose runs have stopped or diverged in it.
        """
        outputs = {name: np.asarray(x) for name, x in dispatch.outputs.items()}
        rows = {i: row for i, row in dispatch.rows.items() if not self.ledger.over(row[0].run)}
        if not rows or not dispatch.n_segments:
            return []
        mine = {i - dispatch.ours.start: row for i, row in rows.items() if i in dispatch.ours}
        frame = self._frame(dispatch.n_segments, mine, outputs, problem) if mine else None
        self._tell_ledger(frame)
        if frame:
            self.writer.add(self._counted(frame))
        ended = [i for i, (run, _, _) in rows.items() if self.status(run) in ("diverged", "stopped")]
        for run in (rows[i][0] for i in ended):
            if self.status(run) == "diverged":
                step = self.ledger.records[run.run]["last_step"]
                self.progress.say(f"run {run.run} diverged: its loss is not finite at step {step}.")
        return ended

    def status(self, run: Run) -> str:
        """The status of a run in the ledger."""
        return self.ledger.records[run.run]["status"]

    def _frame(
        self, n: int, rows: Mapping[int, tuple[Run, int, int]], outputs: Mapping[str, Any], problem: Problem
    ) -> dict[str, Any]:
        """The results of `n` segments as columns, segment by segment; `rows` by slot of our population."""
        columns = registry.metrics_columns(problem.measures)
        slots, runs = list(rows), [run for run, _, _ in rows.values()]
        steps = np.stack([first + every * np.arange(n) for _, first, every in rows.values()], 1)
        values = registry.counts_to_shares(columns, outputs, problem)
        frame: dict[str, Any] = {name: x[:n, slots].reshape(-1, *x.shape[2:]) for name, x in values.items()}
        not_slow = steps.reshape(-1) % self.workdir.sweep.base["slow_every"] != 0
        for name in frame:
            if columns[name].slow and not_slow.any():
                frame[name] = _nulled(frame[name], not_slow)
        frame["run"] = np.tile([run.run for run in runs], n)
        frame["step"] = steps.reshape(-1)
        for path in self.workdir.sweep.axes:
            frame[path] = np.array([run.values[path] for run in runs] * n, object)
        frame[SPLIT_SEED_USED] = np.array([run.split_seed for run in runs] * n)
        return frame

    def _tell_ledger(self, frame: Mapping[str, Any] | None) -> None:
        """Tells the ledger of new rows, ours and those of the other processes."""
        mine = {name: frame[name] for name in ("run", "step", *FINAL)} if frame else None
        for theirs in filter(None, self.hosts.all_gather(mine)):
            self.ledger.update(theirs)

    def _counted(self, frame: dict[str, Any]) -> dict[str, Any]:
        """The rows that count, until a run stops or diverges, which is a row of nulls."""
        bad = ~np.isfinite(frame["train_loss"])
        described = {"run", "step", SPLIT_SEED_USED, *self.workdir.sweep.axes}
        if bad.any():
            frame = {name: x if name in described else _nulled(x, bad) for name, x in frame.items()}
        last = np.array([self.ledger.records[run]["last_step"] for run in frame["run"]])
        return {name: values[frame["step"] <= last] for name, values in frame.items()}

    # --- to disk ------------------------------------------------------------------------------------------------

    def save_snapshots(self, dispatch: Dispatch) -> None:
        """Saves the snapshots that a dispatch was to take, but for runs that were over by then."""
        by_step: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
        for i, (run, step) in enumerate(dispatch.snapshots):
            if not self._is_past(run, step):
                by_step[step].append((run.run, i))
        for step, some in sorted(by_step.items()):
            some.sort()
            picked = {key: np.asarray(x)[[i for _, i in some]] for key, x in dispatch.params.items()}
            snapshots.save_snapshot(self.workdir.snapshots, step, [run for run, _ in some], picked)
        self._save_final_states(dispatch)

    def _save_final_states(self, dispatch: Dispatch) -> None:
        """Keeps the states of runs that have ended in a dispatch, but for those that were over by then."""
        by_step: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
        for i, (run, step) in enumerate(dispatch.finals):
            if self.status(run) == "finished":
                by_step[step].append((run.run, i))
        for step, some in sorted(by_step.items()):
            some.sort()
            index = [i for _, i in some]
            state = jax.tree.map(lambda x, index=index: np.asarray(x)[index], dispatch.states)
            final_states.save(self.workdir.path, step, [run for run, _ in some], state)

    def _is_past(self, run: Run, step: int) -> bool:
        """Whether a snapshot would show a run that has diverged, or not before it stopped, which is saved apart."""
        status, last = self.status(run), self.ledger.records[run.run]["last_step"]
        return status == "diverged" or (status == "stopped" and step >= last)

    def save_stopped(self, run: Run, params: Mapping[str, Any]) -> None:
        """Saves the final snapshot of a run that has stopped (arrays [1, …]); its state has not changed since."""
        step = self.ledger.records[run.run]["last_step"]
        snapshots.save_snapshot(self.workdir.snapshots, step, [run.run], params)

    def flush(self) -> None:
        """Puts all rows and runs.parquet on disk."""
        self.workdir.confirm()
        # Rows before runs.parquet: a run is never said to be finished before its rows are there.
        self.writer.flush()
        self.hosts.barrier()
        if self.hosts.is_first:
            files.write_parquet(self.ledger.table(), self.workdir.runs)
        give_back_memory()
        self.flushed_at = time.monotonic()

    def stepped(self, n_steps: int) -> None:
        """Takes in steps that have been dispatched."""
        self._steps += n_steps

    def is_checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        by_steps = self.checkpoint_steps and self._steps >= self.checkpoint_steps
        return bool(by_steps) or time.monotonic() - self._saved_at > self._checkpoint_seconds

    def save_checkpoint(self, group: int, offset: int, steps: dict[int, int], state: State | None) -> None:
        """Puts all rows on disk, and what is needed to go on from here.

        Args:
          group: in training.
          offset: steps into the current segment.
          steps: done, by run in training in our slots.
          state: of these runs, stacked in that order; None if there are none.
        """
        self.flush()
        part, rows = self.writer.mark
        hosts, folder = self.hosts, self.workdir.checkpoints
        progress: dict[str, Any] = {
            "group": group,
            "offset": offset,
            "runs": list(steps),
            "steps": list(steps.values()),
            "process": hosts.index,
            "part": part,
            "rows": rows,
        }
        name = checkpoints.checkpoint_name(self._checkpoint, hosts.index, hosts.count)
        checkpoints.save(folder / name, state, progress)
        hosts.barrier()
        if hosts.is_first:
            checkpoints.prune(folder, self._checkpoint)
        self._checkpoint += 1
        self._saved_at, self._steps = time.monotonic(), 0

    def unfinished(self, problem: Problem) -> list[Run]:
        """Runs of a problem that have ended and whose keys are still to be finalised."""
        columns = registry.metrics_columns(problem.measures)
        return [run for run in self.ledger.without_keys(columns) if run.problem() == problem]

    def finalise(self, runs: Sequence[Run], layout: Layout) -> None:
        """Fills in the measures with final keys of runs that have ended."""
        self.flush()
        final_keys.finalise(self.workdir.path, runs, self.ledger, layout.eval_width, self.hosts, layout.backend)
        self.writer.reload()


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
