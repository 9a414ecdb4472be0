"""Several sweeps read as one: their runs numbered anew, and each trained run once. No JAX."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from grokjax.columns import ARROW, SPLIT_SEED_USED, moduli, redefined, run_field
from grokjax.config import FIELDS, OPERATIONAL
from grokjax.errors import InputError
from grokjax.identity import IDENTITY
from grokjax.phases.survival import counted
from grokjax.store import files
from grokjax.store.metrics import ROW, metrics_table, parts, read_part, read_progress
from grokjax.store.records import read_record

SWEEP, NUMBER = "sweep", "sweep_run"  # columns: which sweep a run is of, and its number there
# Fields that say how often something is written, and how many runs are trained at once: no settings of a run.
CADENCES = ("eval_every", "snapshot_every", "slow_every", "slots", *OPERATIONAL)
NAMED = 4  # names in a list, of which there may be hundreds


@dataclasses.dataclass(frozen=True)
class Joined:
    """Several sweeps as one.

    Attributes:
      paths: of the working directories, by the name that each sweep has in `runs`.
      records: config.json by the same.
      runs: rows per run as in runs.parquet, `run` counted from 0 over all sweeps; `sweep` and `sweep_run` say whose
        it is and its number there.
      differing: the config fields in which runs differ, but for those that change no run.
      notes: what was left out, in sentences.
    """

    paths: Mapping[str, Path]
    records: Mapping[str, Mapping[str, Any]]
    runs: pd.DataFrame
    differing: Sequence[str]
    notes: Sequence[str]

    def place(self, run: int) -> tuple[Path, int]:
        """The directory that a run is in, and its number there.

        Raises:
          InputError: there is no such run.
        """
        if run not in range(len(self.runs)):
            raise InputError(f"run {run} is none of the joined runs, which are 0 to {len(self.runs) - 1}.")
        row = self.runs.iloc[run]
        return self.paths[row[SWEEP]], int(row[NUMBER])

    def schemas(self) -> list[pa.Schema]:
        """Of the metrics of each sweep that has any."""
        found = (parts(path / "metrics") for path in self.paths.values())
        return [read_part(some[0]).schema for some in found if some]

    def tables(self, columns: Iterable[str] | None = None) -> tuple[dict[str, pa.Table], list[str]]:
        """Each sweep's metrics, of its kept runs under their new numbers, and what is missing in which, in sentences.

        Args:
          columns: to read beside run and step, of those that there are; by default all but config fields.

        Raises:
          FileNotFoundError: there is no evaluation yet.
        """
        wanted = None if columns is None else [*ROW, *columns]
        found = {}
        for label, path in self.paths.items():
            try:
                found[label] = self._renumbered(label, metrics_table(path, wanted, needed=False))
            except FileNotFoundError:  # none in this one
                continue
        if not found:
            raise FileNotFoundError(f"{', '.join(map(str, self.paths.values()))}: no metrics yet")
        return self._agreeing(found)

    def metrics(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """Rows per (run, step), sorted, with `sweep` and the fields in `differing`.

        A column that a sweep lacks is null there, as is one whose definition has changed since; `attrs["notes"]` say
        so. Arguments as of `tables`.
        """
        tables, notes = self.tables(columns)
        whole = pa.concat_tables(tables.values(), promote_options="permissive")
        frame = whole.to_pandas().sort_values(list(ROW), ignore_index=True)
        fields = [*self.differing, *([SPLIT_SEED_USED] if "split_seed" in self.differing else [])]
        given = self.runs.loc[frame["run"], [SWEEP, *fields]].reset_index(drop=True)
        rest = frame.drop(columns=list(ROW))
        joined = pd.concat([frame[["run"]], given[[SWEEP]], frame[["step"]], given[fields], rest], axis=1)
        joined.attrs["notes"] = [*self.notes, *notes]
        return joined

    def _renumbered(self, label: str, table: pa.Table) -> pa.Table:
        mine = self.runs[self.runs[SWEEP] == label]
        there = table["run"].to_numpy()
        number = np.full(1 + max(there.max(initial=0), mine[NUMBER].max() if len(mine) else 0), -1, np.int32)
        number[mine[NUMBER].to_numpy(int)] = mine["run"].to_numpy()
        table = table.set_column(table.column_names.index("run"), run_field(), pa.array(number[there]))
        table = table.drop_columns([name for name in table.column_names if name in (*FIELDS, SPLIT_SEED_USED)])
        return table.filter(pa.array(number[there] >= 0))

    def _agreeing(self, tables: Mapping[str, pa.Table]) -> tuple[dict[str, pa.Table], list[str]]:
        """Tables without the columns of which another one has a later definition."""
        found: dict[str, pa.Table] = {}
        lacking: dict[tuple[str, str], str] = {}
        for label, table in tables.items():
            p = moduli(self.records[label])
            both = [redefined(table.schema, other.schema, p) for other in tables.values()]
            old = {name for one in both for name, (mine, theirs) in one.items() if mine < theirs}
            found[label] = table.drop_columns(sorted(old))
            lacking |= {(name, label): "has an earlier definition of" for name in sorted(old)}
        for name in dict.fromkeys(name for table in found.values() for name in table.column_names):
            lacking |= {(name, one): "lacks" for one, table in tables.items() if name not in table.column_names}
        said: dict[tuple[str, str], list[str]] = {}
        for (name, label), why in lacking.items():
            said.setdefault((label, why), []).append(name)
        return found, [f"{label} {why} {_listed(names)}, null there" for (label, why), names in said.items()]


def join(workdirs: Sequence[str | Path]) -> Joined:
    """Reads several working directories, also while sweeps are trained there, as one sweep.

    A run that several directories have, by its identity, is kept once: where it came furthest, and of equals in the
    first.

    Raises:
      InputError: a directory holds no sweep, or is given twice.
      Damaged: a runs.parquet is not what was written.
    """
    if not workdirs:
        raise InputError("no directory is given: name those of one or more sweeps.")
    given = [files.path(workdir) for workdir in workdirs]
    twice = {str(path) for path in given if given.count(path) > 1}
    if twice:
        raise InputError(f"{min(twice)} is given twice: name each directory once.")
    paths = dict(zip(labels(given), given, strict=True))
    records, frames, notes = {}, [], []
    for label, path in paths.items():
        record = read_record(path)
        if record is None:
            files.refuse_missing(path)
            raise InputError(f"{path} holds no sweep: only working directories of sweeps are joined.")
        records[label] = record
        if (path / "runs.parquet").is_file():
            frames.append(_of_one(label, read_progress(path)))
        else:
            notes.append(f"{label} has no runs yet")
    if not frames:
        raise InputError(f"{', '.join(map(str, given))}: none of these has runs yet.")
    tables = [pa.Table.from_pandas(frame, preserve_index=False) for frame in frames]  # which pandas cannot always join
    runs = pa.concat_tables(tables, promote_options="permissive").to_pandas()
    holders = _holders(runs)
    notes += _dropped(runs, holders)
    runs = runs[holders == runs[SWEEP]].reset_index(drop=True)
    runs.insert(0, "run", np.arange(len(runs), dtype=np.int32))
    return Joined(paths, records, runs, _differing(runs, records), notes)


def labels(paths: Sequence[Path]) -> list[str]:
    """The names of directories, with as many of the folders above as it takes to tell them apart."""
    depth = 1
    while len(labels := ["/".join(path.parts[-depth:]) for path in paths]) > len(set(labels)):
        depth += 1
    return labels


def _of_one(label: str, runs: pd.DataFrame) -> pd.DataFrame:
    """A sweep's runs with its name; a field that is younger than the sweep has its default, which changed nothing."""
    young = {name: field.default for name, field in FIELDS.items() if field.type in ARROW and name not in runs}
    runs = runs.rename(columns={"run": NUMBER}).assign(**young)
    runs.insert(0, SWEEP, label)
    return runs


def _holders(runs: pd.DataFrame) -> pd.Series:
    """For each row the sweep whose rows count for its run: that in which it came furthest, the first of equals."""
    known = runs[runs[IDENTITY].notna()].sort_values("last_step", ascending=False, kind="stable")
    holders = known.groupby([IDENTITY, "precision"])[SWEEP].transform("first")
    return holders.reindex(runs.index).fillna(runs[SWEEP])


def _dropped(runs: pd.DataFrame, holders: pd.Series) -> list[str]:
    """Which runs were left out, since another sweep has them, in sentences."""
    gone = runs[holders != runs[SWEEP]].assign(holder=holders)
    return [
        f"{label} has {counted(len(rows), 'run')} that {holder} has, too ({_listed(rows[NUMBER])}): left out"
        for (label, holder), rows in gone.groupby([SWEEP, "holder"], sort=False)
    ]


def _differing(runs: pd.DataFrame, records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The fields in which runs differ: swept ones, and the others but for cadences."""
    swept = {name for record in records.values() for name in record["axes"]}
    fields = [name for name in FIELDS if name in runs and FIELDS[name].type in ARROW]
    fields = [name for name in fields if name in swept or name not in CADENCES]
    return [name for name in fields if runs[name].nunique(dropna=False) > 1]


def _listed(names: Iterable[Any]) -> str:
    """Names in a sentence, the first of many."""
    names = list(map(str, names))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
