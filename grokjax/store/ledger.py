"""The state of every run so far: the content of runs.parquet. No JAX."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from grokjax import config
from grokjax.columns import FINAL, SUMMARY, Column, runs_schema
from grokjax.milestones import Milestone

ACCURACIES = {"memorised_step": "train_acc", "grokked_step": "test_acc"}  # by the milestone that is read from it
WAITING = dict.fromkeys(SUMMARY) | {"status": "waiting"}  # the record of a run that has not begun


class Ledger:
    """The state of every run so far; the content of runs.parquet.

    A run is "waiting", then "training", then "finished", "stopped" (its stop rule was fulfilled at `last_step`) or
    "diverged" (its loss became non-finite at `last_step`).

    Args:
      runs: of the sweep.
    """

    OVER = ("finished", "stopped", "diverged")

    def __init__(self, runs):
        self.runs = {run.run: run for run in runs}
        self.records: dict[int, dict[str, Any]] = {number: dict(WAITING) for number in self.runs}
        self._below = dict.fromkeys(self.runs, 0)
        self._milestones = {number: {name: Milestone() for name in ACCURACIES} for number in self.runs}
        self._without_keys: dict[int, None] = {}  # runs that ended and lack final keys, in the order of their ends

    def update(self, frame: Mapping[str, Any] | pd.DataFrame) -> None:
        """Takes in new rows in the order of their steps (columns run, step, those of `FINAL`, and key_freqs if any).

        Rows after a run has stopped or diverged are passed over; its `last_step` is the last that counts.
        """
        numbers, steps = (np.asarray(frame[name]).astype(int).tolist() for name in ("run", "step"))
        finals = [np.asarray(frame[name], float).tolist() for name in FINAL]
        for run, step, *values in zip(numbers, steps, *finals, strict=True):
            record = self.records[run]
            if record["status"] in ("diverged", "stopped"):
                continue
            record["last_step"] = step
            if not math.isfinite(values[0]):
                self._set_status(run, "diverged")
            else:
                record |= zip(FINAL, values, strict=True)
                self._set_status(run, self._status(self.runs[run], step, record["test_loss"]))
            self._set_milestones(run)
        if "key_freqs" in frame:
            for run, step, keys in zip(numbers, steps, frame["key_freqs"], strict=True):
                record = self.records[run]
                if record["status"] in ("finished", "stopped") and step == record["last_step"] and keys is not None:
                    self.set_keys(run, keys)

    def set_keys(self, run: int, keys) -> None:
        """Takes in the key frequencies of a run's final model, bool [P//2]."""
        self.records[run]["key_freqs"] = [int(k) + 1 for k in np.flatnonzero(keys)]
        self._without_keys.pop(run, None)

    def _set_milestones(self, run: int) -> None:
        """Takes the last evaluation's accuracies to the milestones, which it may reach, keep or take back."""
        record = self.records[run]
        for name, milestone in self._milestones[run].items():
            if record["status"] == "diverged":
                milestone.end()
            else:
                milestone.add(record["last_step"], record[ACCURACIES[name]])
            record[name] = milestone.step

    def _set_status(self, run: int, status: str) -> None:
        if status in ("finished", "stopped") and status != self.records[run]["status"]:
            self._without_keys[run] = None
        self.records[run]["status"] = status

    def _status(self, run, step: int, test_loss: float) -> str:
        """The status after an evaluation, by the rule that the device follows, in its dtype."""
        values = run.values
        # A loss is never below 0, which is the limit of a run without the rule.
        is_below = values["stop_loss"] > 0 and np.float32(test_loss) < np.float32(values["stop_loss"])
        self._below[run.run] = self._below[run.run] + 1 if is_below else 0
        if step >= run.steps:
            return "finished"
        return "stopped" if self._below[run.run] >= values["stop_evals"] else "training"

    def without_keys(self, columns: Mapping[str, Column]) -> list:
        """Finished or stopped runs whose final keys are still to be found; none if no column needs them."""
        if not any(m.keyed for m in columns.values()):
            return []
        return [self.runs[number] for number in self._without_keys]

    def over(self, run: int) -> bool:
        """Whether a run needs no more training."""
        return self.records[run]["status"] in self.OVER

    def count(self, name: str) -> int:
        """How many runs have reached "memorised_step" or "grokked_step", or have a status of that name."""
        return sum(record["status"] == name or record.get(name) is not None for record in self.records.values())

    def table(self, waiting: Collection[int] = ()) -> pa.Table:
        """The content of runs.parquet; some runs can be told as waiting, whatever is known of them."""
        schema = runs_schema()
        records = [WAITING if number in waiting else record for number, record in self.records.items()]
        values = [list(self.records)] + [[record[name] for record in records] for name in SUMMARY]
        for path in config.FIELDS:
            fields = [run.values[path] for run in self.runs.values()]
            values.append([list(value) if isinstance(value, tuple) else value for value in fields])
        values.append([run.split_seed for run in self.runs.values()])
        values.append([run.identity for run in self.runs.values()])
        arrays = [pa.array(some, field.type) for some, field in zip(values, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)
