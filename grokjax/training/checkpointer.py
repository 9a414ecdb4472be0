"""The checkpointer: when to save the state to resume from, and saving it."""

import time
from typing import Any

from grokjax.core.problem import State
from grokjax.store import checkpoints
from grokjax.training.recorder import Recorder


class Checkpointer:
    """Saves checkpoints of a sweep, each with all rows before it on disk.

    Args:
      recorder: of the sweep.

    Attributes:
      every_steps: population steps between checkpoints; 0 for by time alone.
    """

    def __init__(self, recorder: Recorder):
        self._recorder = recorder
        workdir, hosts = recorder.workdir, recorder.hosts
        self.every_steps: int = workdir.sweep.base["checkpoint_every_steps"]
        self._every_seconds = 60 * workdir.sweep.base["checkpoint_every_minutes"]
        self._number = hosts.all_gather(checkpoints.next_number(workdir.checkpoints))[0]
        self._saved_at, self._steps = time.monotonic(), 0

    def stepped(self, n_steps: int) -> None:
        """Takes in steps that have been dispatched."""
        self._steps += n_steps

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        by_steps = self.every_steps and self._steps >= self.every_steps
        return bool(by_steps) or time.monotonic() - self._saved_at > self._every_seconds

    def save(self, group: int, offset: int, steps: dict[int, int], state: State | None) -> None:
        """Puts all rows on disk, and what is needed to go on from here.

        Args:
          group: in training.
          offset: steps into the current segment.
          steps: done, by run in training in our slots.
          state: of these runs, stacked in that order; None if there are none.
        """
        recorder = self._recorder
        recorder.flush()
        part, rows = recorder.writer.mark
        hosts, folder = recorder.hosts, recorder.workdir.checkpoints
        progress: dict[str, Any] = {
            "group": group,
            "offset": offset,
            "runs": list(steps),
            "steps": list(steps.values()),
            "process": hosts.index,
            "part": part,
            "rows": rows,
        }
        checkpoints.save(folder / checkpoints.checkpoint_name(self._number, hosts.index, hosts.count), state, progress)
        hosts.barrier()
        if hosts.is_first:
            checkpoints.prune(folder, self._number)
        self._number += 1
        self._saved_at, self._steps = time.monotonic(), 0
