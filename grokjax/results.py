"""Results on disk: one row per (run, step) in metrics/*.parquet, one row per run in runs.parquet.

Columns describe themselves: description, unit, range and source are in the Parquet schema's field metadata, the
resolved config is in the file's.
"""

import collections
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from grokjax import config as config_lib
from grokjax import storage
from grokjax.measures import registry
from grokjax.measures.registry import COUNTS, Measure
from grokjax.storage import Damaged

ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string()}
PART_BYTES = 16 << 20  # uncompressed, at which a part of the metrics is full
ROW = ("run", "step")  # what every row of the metrics must have
THRESHOLD = 0.99  # accuracy at which a run counts as having memorised (train) or grokked (test)


def field_metadata(description: str, unit: str = "", **more: str) -> dict[str, str]:
    """A Parquet field's metadata; empty entries are left out."""
    return {name: text for name, text in {"description": description, "unit": unit, **more}.items() if text}


def metrics_columns(groups: Iterable[str]) -> dict[str, Measure]:
    """The measures in a metrics table by column: those of the step, and keyed ones again with final keys."""
    groups = list(groups)
    return registry.in_step(groups) | registry.in_step(groups, slow=True) | registry.final(groups)


def metrics_schema(columns: Mapping[str, Measure], axes: Iterable[str], metadata: Mapping[str, Any]) -> pa.Schema:
    """The schema that every part of a sweep's metrics has.

    Args:
      columns: measures by column name.
      axes: the swept fields, by dotted path.
      metadata: for the file: JSON-serializable values by key.
    """
    fields = [
        pa.field("run", pa.int32(), False, field_metadata("Number of the run in the sweep.")),
        pa.field("step", pa.int32(), False, field_metadata("Optimizer steps done before this evaluation.", "steps")),
    ]
    for path in axes:
        spec = config_lib.FIELDS[path]
        fields.append(pa.field(path, ARROW[spec.type], True, field_metadata(f"Swept: {spec.doc}.")))
    for name, m in columns.items():
        fields.append(measure_field(name, m))
    return pa.schema(fields, {key: json.dumps(value) for key, value in metadata.items()})


def measure_field(name: str, m: Measure) -> pa.Field:
    """A measure's column, described by its metadata."""
    shape = f"[{', '.join(m.shape)}]" if m.shape else ""
    return pa.field(
        name,
        _arrow_type(m),
        True,
        field_metadata(
            described(name, m), m.unit, range=m.range, source=m.source, shape=shape, null=null_reasons(name, m)
        ),
    )


def described(name: str, m: Measure) -> str:
    """A column's description; for keyed measures with whose keys."""
    if not m.keyed:
        return m.description
    whose = "the model at this step" if name.endswith("_online") else "the run's final model"
    return f"{m.description} Keys: those of {whose}."


def null_reasons(name: str, m: Measure) -> str:
    """When a column holds null."""
    if m.keyed and not name.endswith("_online"):
        return f"there is no snapshot at this step, or the run has not ended, or {m.when_null}"
    return f"{m.when_null}, or this evaluation was not one of every slow_every steps" if m.slow else m.when_null


def _arrow_type(m: Measure) -> pa.DataType:
    scalar = pa.float64() if m.count_of else {"float": pa.float32(), "int32": pa.int32(), "bool": pa.bool_()}[m.dtype]
    return pa.list_(scalar) if m.shape else scalar


class MetricsWriter:
    """Collects rows and writes them as numbered parts, each of which appears whole or not at all.

    The part that rows are being added to is written anew by each flush until it has `PART_BYTES`; so the number of
    parts depends on the amount of data, not on time, and no part ever holds what another one does.

    Args:
      folder: of the parts; made if missing.
      schema: of every part.
      number: of the first part to be written.
      process: that writes, of those that train the sweep; each writes parts of its own.
    """

    def __init__(self, folder: Path, schema: pa.Schema, number: int = 0, process: int = 0):
        self.folder, self.schema, self.number, self.process = folder, schema, number, process
        self._written: pa.Table = schema.empty_table()
        self._tables: list[pa.Table] = []
        storage.make_folder(folder)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Adds rows, given as arrays by column name; a column that is not given is null, as is a non-finite value."""
        self._tables.append(to_table(columns, self.schema))

    @property
    def n_rows(self) -> int:
        """Rows not yet on disk."""
        return sum(table.num_rows for table in self._tables)

    @property
    def mark(self) -> tuple[int, int]:
        """Where what has been flushed ends: the number of the part being written, and its rows."""
        return self.number, self._written.num_rows

    @property
    def path(self) -> Path:
        """Of the part being written."""
        return self.folder / part_name(self.number, self.process)

    def flush(self) -> None:
        """Puts what has been added on disk."""
        if not self.n_rows:
            return
        # In one piece, since a piece of few rows takes many times the memory of what it holds.
        self._written = pa.concat_tables([self._written, *self._tables]).combine_chunks()
        self._tables = []
        storage.write_parquet(self._written, self.path)
        if self._written.nbytes >= PART_BYTES:
            self.number += 1
            self._written = self.schema.empty_table()

    def reload(self) -> None:
        """Takes in what `fill` has changed in the part being written."""
        if self._written.num_rows:
            self._written = read_part(self.path).cast(self.schema)


def part_name(number: int, process: int = 0) -> str:
    """part-000003.parquet; part-000003-1.parquet of process 1, of those that train a sweep together."""
    return f"part-{number:06d}{f'-{process}' if process else ''}.parquet"


def part_number(path: Path) -> tuple[int, int]:
    """A part's number and the process that wrote it."""
    _, number, *process = path.stem.split("-")
    return int(number), int(process[0]) if process else 0


def parts(folder: Path) -> list[Path]:
    """The parts in a metrics folder, in order."""
    return sorted((path for path in storage.listed(folder) if is_part(path.name)), key=part_number)


def is_part(name: str) -> bool:
    """Whether this is the name of a part."""
    return bool(re.fullmatch(r"part-\d+(-\d+)?\.parquet", name))


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A part, or some of its columns.

    Raises:
      Damaged: it is not what was written, or no such table.
    """
    data = storage.read(path)
    try:
        table = pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
        table.validate(full=True)
    except Exception as error:  # pyarrow has several, some of which no class of it covers
        raise Damaged(f"{path} cannot be read as Parquet ({error})") from None
    lacks = [name for name in columns or () if name not in table.column_names]
    if lacks:
        raise Damaged(f"{path} has no column '{lacks[0]}'")
    return table


def read_schema(path: Path) -> pa.Schema:
    """A part's schema.

    Raises:
      Damaged: it is not what was written, or no table.
    """
    try:
        return pq.read_schema(pa.BufferReader(storage.read(path)))
    except Damaged:
        raise
    except Exception as error:
        raise Damaged(f"{path} cannot be read as Parquet ({error})") from None


def to_table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Arrays by column name as a table; a column that is not given is null, as is a non-finite value."""
    n = len(columns["run"])
    arrays = [_to_arrow(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _to_arrow(values, arrow_type: pa.DataType) -> pa.Array:
    values = np.asarray(values)
    if values.dtype == object:
        return pa.array(list(values), arrow_type)
    bad = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if not pa.types.is_list(arrow_type):
        return pa.array(values, arrow_type, mask=bad)
    n, length = values.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * length)
    flat = pa.array(values.ravel(), arrow_type.value_type)
    return pa.ListArray.from_arrays(offsets, flat, mask=pa.array(bad.any(1)))


def finish(columns: Mapping[str, Measure], values: Mapping[str, Any], cfg, n_train: int) -> dict[str, np.ndarray]:
    """What the device returned as what a column holds: counts become shares, in float64."""
    result = {}
    for name, value in values.items():
        of = columns[name].count_of
        result[name] = np.asarray(value) / COUNTS[of](cfg, n_train) if of else np.asarray(value)
    return result


def fill(some: Iterable[Path], frame: Mapping[str, Any]) -> None:
    """Sets columns of rows that are on disk already; each part is replaced whole.

    Args:
      some: of the parts.
      frame: columns "run" and "step", which say which rows, and the columns to set.
    """
    wanted = _row_ids(frame["run"], frame["step"])
    order = np.argsort(wanted)
    for path in some:
        if not _may_hold(path, frame["run"]):
            continue
        keys = read_part(path, ["run", "step"])
        rows = _row_ids(keys["run"].to_numpy(), keys["step"].to_numpy())
        place = order[np.searchsorted(wanted, rows, sorter=order).clip(max=len(order) - 1)]
        found = wanted[place] == rows
        if not found.any():
            continue
        table = read_part(path)
        # Of the old values followed by the new ones.
        take = pa.array(np.where(found, len(rows) + place, np.arange(len(rows))))
        for name in set(frame) - {"run", "step"}:
            field = table.schema.field(name)
            both = pa.chunked_array([*table[name].chunks, _to_arrow(frame[name], field.type)], field.type)
            table = table.set_column(table.schema.get_field_index(name), field, both.take(take))
        storage.write_parquet(table, path)


def _row_ids(runs, steps) -> np.ndarray:
    return np.asarray(runs, np.int64) << 32 | np.asarray(steps, np.int64)


def _may_hold(path: Path, runs) -> bool:
    """Whether a part's statistics allow for rows of some of these runs."""
    with path.open("rb") as file:
        metadata = pq.read_metadata(file)
    index = metadata.schema.names.index("run")
    groups = [metadata.row_group(i).column(index).statistics for i in range(metadata.num_row_groups)]
    return any(((runs >= group.min) & (runs <= group.max)).any() for group in groups if group.has_min_max)


def how_to_read(place: Path) -> str:
    """The Python that reads a Parquet file or a folder of them."""
    # What pandas makes of gs:// and s3:// depends on what is installed, and is not always what grokjax wrote with.
    return f"{'pandas.read_parquet' if storage.is_local(place) else 'grokjax.read_table'}('{place}')"


def read_table(place: str | Path) -> pd.DataFrame:
    """A Parquet file, or all in a folder one after another, as pandas.read_parquet reads them from a disk.

    Args:
      place: local, gs://bucket/path or s3://bucket/path.
    """
    place = storage.path(place)
    if place.suffix == ".parquet" and place.is_file():
        return read_part(place).to_pandas()
    some = [path for path in storage.listed(place) if path.suffix == ".parquet" and not path.name.startswith(".")]
    if not some:
        raise FileNotFoundError(f"{place} holds no Parquet files")
    return pa.concat_tables([read_part(path) for path in some], promote_options="default").to_pandas()


def read_metrics(workdir: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All rows so far, sorted by run and step; the same as pandas.read_parquet(workdir + "/metrics"), sorted.

    Args:
      workdir: a sweep's, also gs://bucket/path or s3://bucket/path.
      columns: to read; by default all.
    """
    places = parts(storage.path(workdir) / "metrics")
    tables = [read_part(path, columns) for path in places]
    if not tables:
        raise FileNotFoundError(f"{workdir} holds no metrics")
    for path, table in zip(places, tables, strict=True):
        refuse_kinds(path, table, {"run": pa.int32(), "step": pa.int32()}, ROW)
        if not table.schema.equals(tables[0].schema):
            raise Damaged(f"{path} has other columns than {places[0].name}")
    return pa.concat_tables(tables).to_pandas().sort_values(["run", "step"], ignore_index=True)


def refuse_kinds(path: Path, table: pa.Table, kinds: Mapping[str, pa.DataType], needed: Iterable[str] = ()) -> None:
    """Refuses a table with a column of another kind than was written, or without one that is needed in every row.

    Raises:
      Damaged: says which.
    """
    for name in needed:
        if name not in table.column_names or table[name].null_count:
            raise Damaged(f"{path} has no column '{name}' that is filled in every row")
    for name, kind in kinds.items():
        if name in table.column_names and not _alike(table.schema.field(name).type, kind):
            raise Damaged(f"{path} has a column '{name}' of {table.schema.field(name).type}, but {kind} was expected")


def _alike(found: pa.DataType, kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_null(found):
        return True
    if types.is_integer(kind) or types.is_floating(kind):
        return types.is_integer(found) or types.is_floating(found)
    if types.is_list(kind):
        return types.is_list(found) or types.is_large_list(found)
    return types.is_string(kind) and (types.is_string(found) or types.is_large_string(found))


def read_runs(workdir: str | Path) -> pd.DataFrame:
    """One row per run: its status, every hyperparameter, summary figures."""
    path = storage.path(workdir) / "runs.parquet"
    table = read_part(path)
    kinds = {"run": pa.int32()} | {name: kind for name, (kind, _, _) in Ledger.SUMMARY.items()}
    kinds |= {name: ARROW[field.type] for name, field in config_lib.FIELDS.items() if field.type in ARROW}
    refuse_kinds(path, table, kinds, ["run"])
    if len(table["run"].unique()) < table.num_rows:
        raise Damaged(f"{path} does not have one row for each run")
    return table.to_pandas()


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
        for path, spec in config_lib.FIELDS.items():
            kind = pa.list_(pa.string()) if spec.type is tuple else ARROW[spec.type]
            fields.append(pa.field(path, kind, True, field_metadata(f"Config: {spec.doc}.")))
            values = [run.values[path] for run in self.runs.values()]
            arrays.append(pa.array([list(v) if isinstance(v, tuple) else v for v in values], kind))
        return fields, arrays
