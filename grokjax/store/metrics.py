"""The tables on disk: one row per (run, step) in metrics/*.parquet, one row per run in runs.parquet. No JAX."""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from grokjax.columns import SPLIT_SEED_USED, runs_schema
from grokjax.config import FIELDS
from grokjax.identity import IDENTITY, identity
from grokjax.store import files, locks
from grokjax.store.files import Damaged
from grokjax.store.records import read_record

PART_BYTES = 16 << 20  # uncompressed, at which a part of the metrics is full
ROW = ("run", "step")  # what every row of the metrics must have


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
        files.make_folder(folder)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Adds rows, given as arrays by column name; a column that is not given is null, as is a non-finite value."""
        self.add_table(to_table(columns, self.schema))

    def add_table(self, table: pa.Table) -> None:
        """Adds rows of the schema."""
        self._tables.append(table)

    @property
    def n_rows(self) -> int:
        """Rows not yet on disk."""
        return sum(table.num_rows for table in self._tables)

    @property
    def mark(self) -> tuple[int, int]:
        """The end of what has been flushed: the number of the part being written, and its rows."""
        return self.number, self._written.num_rows

    @property
    def path(self) -> Path:
        """Path of the part being written."""
        return self.folder / part_name(self.number, self.process)

    def flush(self) -> None:
        """Puts what has been added on disk."""
        if not self.n_rows:
            return
        # In one piece, since a piece of few rows takes many times the memory of what it holds.
        self._written = pa.concat_tables([self._written, *self._tables]).combine_chunks()
        self._tables = []
        files.write_parquet(self._written, self.path)
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
    return sorted((path for path in files.listed(folder) if is_part(path.name)), key=part_number)


def is_part(name: str) -> bool:
    """Whether this is the name of a part."""
    return bool(re.fullmatch(r"part-\d+(-\d+)?\.parquet", name))


def read_part(path: Path, columns: Sequence[str] | None = None, needed: bool = True) -> pa.Table:
    """A part, or some of its columns.

    Args:
      path: of the part.
      columns: to read; by default all.
      needed: whether it must have every one of them.

    Raises:
      Damaged: it is not what was written, or no such table.
    """
    data = files.read(path)
    try:
        if columns is not None and not needed:
            columns = [name for name in pq.read_schema(pa.BufferReader(data)).names if name in columns]
        table = pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
        table.validate(full=True)
        # What pandas would be told of types and indices: nothing of ours says any, and it is read unchecked.
        about = {name: value for name, value in (table.schema.metadata or {}).items() if name != b"pandas"}
        table = table.replace_schema_metadata(about)
    except Exception as error:  # pyarrow has several, some of which no class of it covers
        raise Damaged(f"{path} cannot be read as Parquet ({error})") from None
    lacks = [name for name in columns or () if name not in table.column_names]
    if lacks:
        raise Damaged(f"{path} has no column '{lacks[0]}'")
    return table


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


def fill(some: Iterable[Path], frame: Mapping[str, Any]) -> None:
    """Sets columns of rows that are on disk already; each part is replaced whole.

    Args:
      some: of the parts.
      frame: columns "run" and "step", which say which rows, and the columns to set; those that a part lacks, since an
        earlier version began it, stay away.
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
        for name in (set(frame) & set(table.column_names)) - {"run", "step"}:
            field = table.schema.field(name)
            both = pa.chunked_array([*table[name].chunks, _to_arrow(frame[name], field.type)], field.type)
            table = table.set_column(table.schema.get_field_index(name), field, both.take(take))
        files.write_parquet(table, path)


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
    return f"{'pandas.read_parquet' if files.is_local(place) else 'grokjax.read_table'}('{place}')"


def read_table(place: str | Path) -> pd.DataFrame:
    """Reads a Parquet file, or all in a folder one after another, as pandas.read_parquet reads them from a disk.

    Args:
      place: local, gs://bucket/path or s3://bucket/path.

    Example:
      >>> import grokjax
      >>> len(grokjax.read_table("results/tiny/runs.parquet"))
      4
    """
    place = files.path(place)
    if place.suffix == ".parquet" and place.is_file():
        return read_part(place).to_pandas()
    some = [path for path in files.listed(place) if path.suffix == ".parquet" and not path.name.startswith(".")]
    if not some:
        raise FileNotFoundError(files.missing(place) or f"{place} holds no Parquet files")
    return pa.concat_tables([read_part(path) for path in some], promote_options="default").to_pandas()


def read_metrics(workdir: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Reads all rows so far, sorted by run and step; the same as pandas.read_parquet(workdir + "/metrics"), sorted.

    Args:
      workdir: a sweep's, also gs://bucket/path or s3://bucket/path.
      columns: to read; by default all.

    Example:
      >>> import grokjax
      >>> grokjax.read_metrics("results/tiny", ["run", "step", "test_loss"]).columns.tolist()
      ['run', 'step', 'test_loss']
    """
    frame = metrics_table(workdir, columns).to_pandas().sort_values(list(ROW), ignore_index=True)
    if columns is None and "split_seed" in frame and SPLIT_SEED_USED not in frame:  # of an earlier version
        with contextlib.suppress(Damaged):  # where it cannot be derived
            used = read_runs(workdir).set_index("run")[SPLIT_SEED_USED]
            frame.insert(frame.columns.get_loc("split_seed") + 1, SPLIT_SEED_USED, frame["run"].map(used))
    return frame


def metrics_table(workdir: str | Path, columns: Sequence[str] | None = None, needed: bool = True) -> pa.Table:
    """All rows so far, or some of their columns, as they were written, with metadata; arguments as of `read_part`."""
    places = parts(files.path(workdir) / "metrics")
    tables = [read_part(path, columns, needed) for path in places]
    if not tables:
        raise FileNotFoundError(files.missing(files.path(workdir)) or f"{workdir} holds no metrics")
    # Where a new axis comes to the parts of a sweep, it comes to the first one last.
    first = tables[0].column_names
    tables = [table.select(first) if _is_extended(table, first) else table for table in tables]
    for path, table in zip(places, tables, strict=True):
        refuse_kinds(path, table, {"run": pa.int32(), "step": pa.int32()}, ROW)
        if not table.schema.equals(tables[0].schema):
            raise Damaged(f"{path} has other columns than {places[0].name}")
    return pa.concat_tables(tables)


def _is_extended(table: pa.Table, names: Sequence[str]) -> bool:
    """Whether a table has these columns and more, all of which are axes."""
    more = set(table.column_names) - set(names)
    return bool(more) and more <= {*FIELDS, SPLIT_SEED_USED} and set(names) <= set(table.column_names)


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


def read_progress(workdir: str | Path) -> pd.DataFrame:
    """Reads runs as `read_runs` does; those in training that no process trains any more have status "interrupted"."""
    runs, path = read_runs(workdir), files.path(workdir)
    if "status" in runs and runs["status"].eq("training").any() and not locks.is_held(path):
        runs["status"] = runs["status"].replace("training", "interrupted")
    return runs


def read_runs(workdir: str | Path) -> pd.DataFrame:
    """Reads one row per run: its status, every hyperparameter, and what it had come to at its last evaluation.

    Args:
      workdir: a sweep's, also gs://bucket/path or s3://bucket/path.

    Raises:
      Damaged: runs.parquet is not what was written.

    Example:
      >>> import grokjax
      >>> grokjax.read_runs("results/tiny")["status"].tolist()
      ['finished', 'finished', 'finished', 'finished']
    """
    files.refuse_missing(files.path(workdir))
    path = files.path(workdir) / "runs.parquet"
    table = read_part(path)
    refuse_kinds(path, table, {field.name: field.type for field in runs_schema()}, ["run"])
    if len(table["run"].unique()) < table.num_rows:
        raise Damaged(f"{path} does not have one row for each run")
    frame = table.to_pandas()
    if SPLIT_SEED_USED not in frame and {"seed", "split_seed"} <= set(frame):
        frame[SPLIT_SEED_USED] = frame["split_seed"].fillna(frame["seed"]).astype("int64")
    if IDENTITY not in frame:
        frame[IDENTITY] = _identities(table, files.path(workdir))
    return frame


def _identities(table: pa.Table, path: Path) -> list[str | None]:
    """The identities of the runs in a runs.parquet that an earlier version has made."""
    answers = (read_record(path) or {}).get("answers") or {}
    fields = table.select([name for name in table.column_names if name in FIELDS]).to_pylist()
    return [identity(values, answers.get(f"{values.get('task')} mod {values.get('p')}")) for values in fields]
