"""What has become of every run so far: the content of runs.parquet."""

import collections
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from grokjax import config
from grokjax.columns import ARROW, THRESHOLD, field_metadata
from grokjax.measures.registry import Measure


class Ledger:
    """What has become of every run so far; the content of runs.parquet.

    A run is "waiting", then "training", then "finished", "stopped" (its stop rule was fulfilled at `last_step`) or
    "diverged" (its loss became non-finite at `last_step`).

    Args:
      runs: of the sweep.
    """

    OVER = ("finished", "stopped", "diverged")
    FINAL = ("train_loss", "test_loss", "train_acc", "test_acc")
    SUMMARY: ClassVar = {
        "status": (
            pa.string(),
            "waiting, training, finished, stopped (early, by stop_loss), or diverged (loss not finite at last_step).",
            "",
        ),
        "last_step": (pa.int64(), "Step of the last evaluation.", "steps"),
        "memorised_step": (
            pa.int64(),
            f"First evaluated step with train_acc ≥ {THRESHOLD}; null if none yet.",
            "steps",
        ),
        "grokked_step": (pa.int64(), f"First evaluated step with test_acc ≥ {THRESHOLD}; null if none yet.", "steps"),
        "train_loss": (pa.float64(), "Training loss at last_step.", "nats"),
        "test_loss": (pa.float64(), "Test loss at last_step.", "nats"),
        "train_acc": (pa.float64(), "Training accuracy at last_step.", "fraction"),
        "test_acc": (pa.float64(), "Test accuracy at last_step.", "fraction"),
        "key_freqs": (pa.list_(pa.int64()), "Key frequencies of the final model; null until they are settled.", "1"),
    }

    def __init__(self, runs):
        self.runs = {run.run: run for run in runs}
        self.records: dict[int, dict[str, Any]] = {
            number: dict.fromkeys(self.SUMMARY) | {"status": "waiting"} for number in self.runs
        }
        self._below = dict.fromkeys(self.runs, 0)
        self._counts = collections.Counter(waiting=len(self.runs))
        self._unsettled: dict[int, None] = {}  # runs that ended without their keys, in the order in which they did

    def update(self, frame: Mapping[str, Any] | pd.DataFrame) -> None:
        """Takes in new rows in the order of their steps (columns run, step, those in FINAL, and key_freqs if any).

        Rows after a run has stopped or diverged are passed over; its `last_step` is the last that counts.
        """
        numbers, steps = (np.asarray(frame[name]).astype(int).tolist() for name in ("run", "step"))
        finals = [np.asarray(frame[name], float).tolist() for name in self.FINAL]
        for run, step, *values in zip(numbers, steps, *finals, strict=True):
            record = self.records[run]
            if record["status"] in ("diverged", "stopped"):
                continue
            record["last_step"] = step
            if not math.isfinite(values[0]):
                self._set_status(run, "diverged")
                continue
            record |= zip(self.FINAL, values, strict=True)
            self._set_status(run, self._status(self.runs[run], step, record["test_loss"]))
            for milestone, accuracy in (("memorised_step", "train_acc"), ("grokked_step", "test_acc")):
                if record[milestone] is None and record[accuracy] >= THRESHOLD:
                    record[milestone] = step
                    self._counts[milestone] += 1
        if "key_freqs" in frame:
            for run, step, keys in zip(numbers, steps, frame["key_freqs"], strict=True):
                record = self.records[run]
                if record["status"] in ("finished", "stopped") and step == record["last_step"] and keys is not None:
                    self.settle(run, keys)

    def settle(self, run: int, keys) -> None:
        """Takes in the key frequencies of a run's final model, bool [(P-1)//2]."""
        self.records[run]["key_freqs"] = [int(k) + 1 for k in np.flatnonzero(keys)]
        self._unsettled.pop(run, None)

    def _set_status(self, run: int, status: str) -> None:
        record = self.records[run]
        if status == record["status"]:
            return
        self._counts[record["status"]] -= 1
        self._counts[status] += 1
        record["status"] = status
        if status in ("finished", "stopped"):
            self._unsettled[run] = None

    def forget(self, run: int) -> None:
        """Takes back what is known of a run, which is waiting again."""
        self._set_status(run, "waiting")
        for milestone in ("memorised_step", "grokked_step"):
            self._counts[milestone] -= self.records[run][milestone] is not None
        self.records[run] = dict.fromkeys(self.SUMMARY) | {"status": "waiting"}
        self._unsettled.pop(run, None)
        self._below[run] = 0

    def _status(self, run, step: int, test_loss: float) -> str:
        """After an evaluation; the rule that `training.stopped` follows on the device, in its dtype."""
        values = run.values
        # A loss is never below 0, which is the limit of a run without the rule.
        is_below = values["stop_loss"] > 0 and np.float32(test_loss) < np.float32(values["stop_loss"])
        self._below[run.run] = self._below[run.run] + 1 if is_below else 0
        if step >= run.steps:
            return "finished"
        return "stopped" if self._below[run.run] >= values["stop_evals"] else "training"

    def unsettled(self, columns: Mapping[str, Measure]) -> list:
        """Finished or stopped runs whose measures with final keys are still to be computed."""
        if not any(m.keyed for m in columns.values()):
            return []
        return [self.runs[number] for number in self._unsettled]

    def over(self, run: int) -> bool:
        """Whether a run needs no more training."""
        return self.records[run]["status"] in self.OVER

    def count(self, name: str) -> int:
        """How many runs have reached "memorised_step" or "grokked_step", or have a status of that name."""
        return self._counts[name]

    def table(self) -> pa.Table:
        """runs.parquet."""
        fields, arrays = (
            [pa.field("run", pa.int32(), False, field_metadata("Number of the run in the sweep."))],
            [pa.array(list(self.records), pa.int32())],
        )
        for name, (kind, description, unit) in self.SUMMARY.items():
            fields.append(pa.field(name, kind, True, field_metadata(description, unit)))
            arrays.append(pa.array([record[name] for record in self.records.values()], kind))
        return pa.Table.from_arrays(arrays + self._config[1], schema=pa.schema(fields + self._config[0]))

    @functools.cached_property
    def _config(self) -> tuple[list[pa.Field], list[pa.Array]]:
        """The columns that never change."""
        fields, arrays = [], []
        for path, spec in config.FIELDS.items():
            kind = pa.list_(pa.string()) if spec.type is tuple else ARROW[spec.type]
            fields.append(pa.field(path, kind, True, field_metadata(f"Config: {spec.doc}.")))
            values = [run.values[path] for run in self.runs.values()]
            arrays.append(pa.array([list(v) if isinstance(v, tuple) else v for v in values], kind))
        return fields, arrays
