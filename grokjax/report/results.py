"""The results of a sweep, finished or not, read from its files."""

import dataclasses
import functools
import io
import json
import operator
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from grokjax import config, phases
from grokjax.columns import ARROW, FINAL, SPLIT_SEED_USED
from grokjax.errors import InputError
from grokjax.interp import metrics_table
from grokjax.phases.curves import COLUMNS as PHASE_COLUMNS
from grokjax.phases.names import recognised
from grokjax.phases.rules import RULES
from grokjax.phases.text import shown, shown_steps
from grokjax.report.panels import FIGURES, SPECTRA
from grokjax.report.words import Words, of_columns
from grokjax.store import files, locks
from grokjax.store.joined import NUMBER, SWEEP, Joined, join
from grokjax.store.metrics import parts, read_metrics, read_part, read_progress
from grokjax.store.records import read_record

CIRCUIT = "circuit.parquet"
_ABOUT = (metrics_table.MEASURED, b"key_freqs")
LOG_RATIO = 100  # of a column's largest value to its smallest, from which on its axis is logarithmic
MAX_GROUPS = 60  # rows of a table over settings; a random search has as many settings as runs


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything that a report shows of a sweep.

    Attributes:
      path: of the working directory, or of a table of metrics; of joined sweeps the first one's.
      record: config.json, or what a table says of what was measured; empty if there is neither.
      runs: rows per run as in runs.parquet, with `n_key_freqs`; for runs with evaluations the columns of
        `phases.DESCRIPTIONS`, among them `last_step`, the last evaluation with a finite loss.
      circuit: rows per run of circuit.parquet; None if it has not been made.
      metrics: rows per (run, step), sorted: the columns of `FIGURES` that there are, the experiment's own measures, and
        those asked for.
      spectra: by column of `SPECTRA` and run: steps [T] and norms [T, F], NaN where null.
      columns: metadata of the metrics' fields by column: description, unit, source.
      axes: config fields in which runs differ, seeds included.
      settings: those of them that are no seeds.
      summary: of the phases over the settings.
      by: the settings that the summary's groups are formed by; empty where there are too many.
      joined: the sweeps that were joined; None of one.
      known_as: what the page calls the directory, where that is not for its readers.
    """

    path: Path
    record: Mapping[str, Any]
    runs: pd.DataFrame
    circuit: pd.DataFrame | None
    metrics: pd.DataFrame
    spectra: Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray]]]
    columns: Mapping[str, Mapping[str, str]]
    axes: Sequence[str]
    settings: Sequence[str]
    summary: phases.Summary
    by: Sequence[str]
    joined: Joined | None = None
    known_as: str | None = None

    @property
    def paths(self) -> list[Path]:
        """Of every working directory, or of the table."""
        return list(self.joined.paths.values()) if self.joined else [self.path]

    @property
    def arguments(self) -> str:
        """The directories as a command is given them."""
        return self.known_as or " ".join(shlex.quote(str(path)) for path in self.paths)

    @property
    def name(self) -> str:
        """What the results are called."""
        return "_".join(self.joined.paths) if self.joined else self.known_as or self.path.resolve().name

    @functools.cached_property
    def words(self) -> Words:
        """The words for what lists over frequencies run over."""
        return of_columns(self.columns)

    @property
    def is_table(self) -> bool:
        """Whether this is a table alone, without a sweep's directory."""
        return files.is_local(self.path) and self.path.is_file()

    @property
    def running(self) -> bool:
        """Whether runs are still to be trained."""
        return bool(self.runs["status"].isin(["waiting", "training", "interrupted"]).any())

    @property
    def interrupted(self) -> bool:
        """Whether they are, and no process trains them."""
        return self.running and not any(map(locks.is_held, self.paths))


def read(path: str | Path, more: Sequence[str] = ()) -> Results:
    """Reads a working directory, also while its sweep is being trained, or a table of metrics alone.

    Args:
      path: of the directory.
      more: columns of the metrics to read beside those that figures of every sweep show, and its own measures.

    Raises:
      InputError: it holds no evaluations, or files that cannot be read.
    """
    path = files.path(path)
    files.refuse_missing(path)
    if path.is_file():
        return _of_table(path)
    if not (path / "runs.parquet").is_file() or not parts(path / "metrics"):
        raise InputError(f"{path} holds no metrics yet: name the directory of a sweep that has begun to train.")
    record = read_record(path) or {}
    try:
        runs, schema = read_progress(path), read_part(parts(path / "metrics")[0]).schema
        wanted = ["run", "step", *PHASE_COLUMNS, *(line.column for figure in FIGURES for line in figure.lines)]
        columns = described(schema)
        wanted += [name for name, about in columns.items() if is_own(about) or name in more]
        metrics = read_metrics(path, [name for name in dict.fromkeys(wanted) if name in schema.names])
        spectra = {n: _spectra(read_metrics(path, ["run", "step", n]), n) for n in SPECTRA if n in schema.names}
        circuit = read_part(path / CIRCUIT).to_pandas() if (path / CIRCUIT).is_file() else None
    except InputError:
        raise
    except Exception as error:  # a table of another kind may make pyarrow and pandas raise anything
        raise InputError(f"{path} cannot be read as a sweep's results: {error}") from None
    missing = [name for name in ("run", "status", "last_step") if name not in runs]
    if missing:
        raise InputError(f"{path / 'runs.parquet'} has no column '{missing[0]}', so it is no table of a sweep's runs.")
    return _gathered(path, record, runs, metrics, spectra, described(schema), circuit)


def read_all(paths: Sequence[str | Path], more: Sequence[str] = ()) -> Results:
    """Reads one working directory or table, or several directories as one sweep.

    Args:
      paths: of them.
      more: as for `read`.

    Raises:
      InputError: as for `read`, or there is none, or one of several is no sweep's.
    """
    if not paths:
        raise InputError("no directory is given: name one or more.")
    return read(paths[0], more) if len(paths) == 1 else of_joined(join(paths), more)


def of_joined(joined: Joined, more: Sequence[str] = ()) -> Results:
    """The results of several sweeps as those of one; arguments as of `read`."""
    columns: dict[str, dict[str, str]] = functools.reduce(_both, map(described, joined.schemas()), {})
    if not columns:
        raise InputError(f"{', '.join(map(str, joined.paths.values()))} hold no metrics yet: wait for an evaluation.")
    wanted = {*PHASE_COLUMNS, *(line.column for figure in FIGURES for line in figure.lines), *more}
    metrics = joined.metrics(wanted | {name for name, about in columns.items() if is_own(about)} | {*SPECTRA})
    spectra = {name: _spectra(metrics, name) for name in SPECTRA if name in metrics}
    records = list(joined.records.values())
    agreed = {name: value for name, value in records[0].items() if all(r.get(name) == value for r in records)}
    columns = {name: columns.get(name, {}) for name in ("run", "step", *joined.differing, *columns)}
    metrics = metrics.drop(columns=[SWEEP, *spectra, *joined.differing, SPLIT_SEED_USED], errors="ignore")
    path, circuit = joined.paths[joined.runs[SWEEP].iloc[0]], _circuits(joined)
    return _gathered(path, agreed, joined.runs, metrics, spectra, columns, circuit, joined)


def _both(first: Mapping[str, dict[str, str]], second: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Metadata of the columns of two sweeps: that of the first where both tell, with the groups of both."""
    found = {**second, **first}
    for name in first.keys() & second.keys():
        if held := [json.loads(about[name]["blocks"]) for about in (second, first) if about[name].get("blocks")]:
            found[name] = first[name] | {"blocks": json.dumps(functools.reduce(operator.or_, held))}
    return found


def _circuits(joined: Joined) -> pd.DataFrame | None:
    """The rows of every circuit.parquet that there is, under the runs' new numbers; None if there is none."""
    frames = []
    for label, path in joined.paths.items():
        if (path / CIRCUIT).is_file():
            frame, mine = read_part(path / CIRCUIT).to_pandas(), joined.runs[joined.runs[SWEEP] == label]
            frame["run"] = frame["run"].map(dict(zip(mine[NUMBER], mine["run"], strict=True)))
            frames.append(frame.dropna(subset="run"))
    return pd.concat(frames, ignore_index=True) if frames else None


def _of_table(path: Path) -> Results:
    """The results in a table of metrics: a run's fields are the config's columns that are constant in it."""
    frame = metrics_table.read(path, every_column=True)
    frame = frame.rename(columns={old: new for new, old in recognised(frame.columns).items()})
    phases.find_phases(frame)  # which refuses what it cannot read
    frame = frame if "run" in frame else frame.assign(run=0)
    try:
        schema = pq.read_schema(io.BytesIO(path.read_bytes())) if path.suffix == ".parquet" else pa.schema([])
        about = {key.decode(): json.loads(value) for key, value in (schema.metadata or {}).items() if key in _ABOUT}
        by_run = frame.groupby("run", sort=True)
        fields = [n for n in frame if n in config.FIELDS and (by_run[n].nunique(dropna=False) == 1).all()]
        runs = by_run[fields].first().reset_index().assign(status="finished", last_step=by_run["step"].max().to_numpy())
        runs = runs.join(by_run[[name for name in FINAL if name in frame]].last(), on="run")
        if keys := about.get("key_freqs"):
            runs["key_freqs"] = [keys] * len(runs)
        frame = frame.sort_values(["run", "step"], ignore_index=True)
        spectra = {name: _spectra(frame, name) for name in SPECTRA if name in frame}
    except Exception as error:  # of a table of another kind
        raise InputError(f"{path} cannot be read as a table of metrics: {error}") from None
    columns = {"run", "step", *PHASE_COLUMNS, *(line.column for figure in FIGURES for line in figure.lines)}
    metrics = frame[[name for name in frame if name in columns]]
    return _gathered(path, about.get("measured", {}), runs, metrics, spectra, described(schema), None)


def _gathered(
    path: Path,
    record: Mapping[str, Any],
    runs: pd.DataFrame,
    metrics: pd.DataFrame,
    spectra: Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray]]],
    columns: Mapping[str, Mapping[str, str]],
    circuit: pd.DataFrame | None,
    joined: Joined | None = None,
) -> Results:
    """What was read, with the phases found in it."""
    settings = [name for name in varied(runs) if joined is None or name in joined.differing]
    axes = [*settings, *(name for name in ("seed", "split_seed", SWEEP) if name in runs and _differs(runs[name]))]
    found = phases.find_phases(metrics[[name for name in metrics if name in ("run", "step", *PHASE_COLUMNS)]])
    # A table of one evaluation has every measure as a constant, and eval_every is a config field too.
    found = found[[name for name in ("run", *phases.DESCRIPTIONS) if name in ("run", "last_step") or name not in runs]]
    by = settings if len(runs[settings].drop_duplicates()) <= MAX_GROUPS else []
    return Results(
        path=path,
        record=record,
        runs=_with_phases(runs, found),
        circuit=circuit,
        metrics=metrics,
        spectra=spectra,
        columns=columns,
        axes=axes,
        settings=settings,
        summary=phases.summarize(found.merge(runs[["run", *axes]], on="run"), by),
        by=by,
        joined=joined,
    )


def _with_phases(runs: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Runs with their phases and the number of their final keys, NaN where these are not known."""
    keys: Iterable[Any] = runs["key_freqs"] if "key_freqs" in runs else [None] * len(runs)
    n_keys = [np.nan if np.ndim(k) == 0 else len(k) for k in keys]
    return runs.drop(columns="last_step").assign(n_key_freqs=n_keys).merge(found, on="run", how="left")


def varied(runs: pd.DataFrame) -> list[str]:
    """The config fields that differ between runs, seeds left out."""
    fields = [name for name in runs if name in config.FIELDS and config.FIELDS[name].type in ARROW]
    if "group" in fields and runs["group"].notna().all():
        fields = [name for name in fields if name != "p"]  # which is the group's order
    return [name for name in fields if not name.endswith("seed") and _differs(runs[name])]


def _differs(values: pd.Series) -> bool:
    return values.nunique(dropna=False) > 1


def described(schema: pa.Schema) -> dict[str, dict[str, str]]:
    """Fields' metadata by column."""
    return {f.name: {k.decode(): v.decode() for k, v in (f.metadata or {}).items()} for f in schema}


def is_own(about: Mapping[str, str]) -> bool:
    """Whether a column is a measure of the experiment's own, with a number in each row, by its metadata."""
    return bool(about.get("own")) and not about.get("shape")


def _spectra(metrics: pd.DataFrame, column: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """A column of lists by run, of rows sorted by step; runs of one sweep may differ in P."""
    result: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
    for run, rows in metrics.groupby("run"):
        n_freqs = max((len(norms) for norms in rows[column] if norms is not None), default=0)
        if n_freqs:
            nothing = np.full(n_freqs, np.nan, np.float32)
            values = np.stack([nothing if norms is None else norms for norms in rows[column]])
            result[run] = rows["step"].to_numpy(), values
    return result


def wants_log(values: np.ndarray) -> bool:
    """Whether an axis of these values is better logarithmic: all are above 0, and far apart."""
    some = values[np.isfinite(values)]
    return bool(some.size and some.min() > 0 and some.max() > LOG_RATIO * some.min())


def shade(row: Mapping[Any, Any]) -> list[tuple[str, float, float]]:
    """`phases.shade`, also of a run that has no evaluation yet."""
    return [] if pd.isna(row["memorised"]) else phases.shade(row)


def shown_value(value: Any) -> str:
    """A config value as text."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "unset"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def label(row: Mapping[Any, Any], axes: Iterable[str]) -> str:
    """Names a run: "run 3: weight_decay = 1, seed = 2"."""
    what = ", ".join(f"{name} = {shown_value(row[name])}" for name in axes)
    return f"run {row['run']}" + (f": {what}" if what else "")


def sentence(row: Mapping[Any, Any]) -> str:
    """A sentence about a run: how far it came, and when."""
    if pd.isna(row["memorised"]):
        return "Not trained yet."
    by = {name: row[f"{name}_by"] for name in ("memorised", "grokked")}
    said = [f"{name} by step {shown_steps(step)}" if step == step else f"not {name}" for name, step in by.items()]
    said += [f"{name} {shown_steps(begin)}–{shown_steps(end)}" for name, begin, end in shade(row)]
    losses = [f"{name} loss {shown(float(row[f'{name}_loss']))}" for name in ("train", "test") if f"{name}_loss" in row]
    end = f"{', '.join(losses)} at step {shown_steps(row['last_step'])}"
    begun = {
        "diverged": "Diverged; ",
        "training": "In training; ",
        "interrupted": "Interrupted; ",
        "stopped": "Stopped; ",
    }
    status = begun.get(row["status"], "")
    text = f"{status}{', '.join(said)}; {end}."
    apart = f" {row['phases_sentence']}" if row["overlap"] else ""
    return text[0].upper() + text[1:] + apart


def first_run(runs: pd.DataFrame) -> int:
    """The run to show first, as an index: the one with the median time to grok, of those with all phases if any are."""
    times = runs["grokked_by"].to_numpy(float)
    grokked = np.flatnonzero(~np.isnan(times))
    whole = [i for i in grokked if len(shade(runs.iloc[i].to_dict())) == len(RULES)]
    some = np.array(whole if whole else grokked, int)
    if some.size:
        return int(some[times[some].argsort(kind="stable")[some.size // 2]])
    trained = np.flatnonzero(runs["memorised"].notna())
    return int(trained[0]) if trained.size else 0


def groups(results: Results) -> list[tuple[str, np.ndarray]]:
    """Sets of two or more runs to look at together: a label, and indices of rows."""
    runs = results.runs
    result = [(f"all {len(runs)} runs", np.arange(len(runs)))] if len(runs) > 1 else []
    keys = [[name] for name in results.axes] + ([list(results.settings)] if len(results.settings) > 1 else [])
    for names in keys:
        for values, members in runs.groupby(names, sort=True, dropna=False).indices.items():
            members = np.asarray(members)
            values = values if isinstance(values, tuple) else (values,)
            if 1 < len(members) < len(runs):
                what = ", ".join(f"{n} = {shown_value(v)}" for n, v in zip(names, values, strict=True))
                result.append((f"{what} ({len(members)} runs)", members))
    return result
