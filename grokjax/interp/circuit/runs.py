"""The reverse engineering of every finished run of a sweep, into circuit.parquet."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from grokjax.columns import SPLIT_SEED_USED, axis_fields, field_metadata
from grokjax.errors import InputError
from grokjax.interp.checkpoint import load_checkpoint
from grokjax.interp.circuit.analysis import analyse
from grokjax.interp.circuit.registry import Number, numbers
from grokjax.interp.subject import subject_of
from grokjax.measures import blocks
from grokjax.store import files
from grokjax.store.metrics import read_runs
from grokjax.store.snapshots import compact, find_snapshots
from grokjax.store.sweep import load_sweep, refuse_strangers
from grokjax.store.weights import find_weights
from grokjax.sweeps import Run

FILE = "circuit.parquet"


# --- a sweep --------------------------------------------------------------------------------------------------------


def circuits_of(
    folder: str | Path,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    track: Callable[[Sequence[Run], str], Iterable[Run]] = lambda runs, text: runs,
) -> tuple[Path, dict[int, str]]:
    """Analyses the last snapshot of every finished run and writes circuit.parquet, one row per run.

    Args:
      folder: a sweep's working directory.
      keys, rule, threshold: as for `analyse`; by default each run's own.
      track: wraps the runs, to show progress.

    Returns:
      The file, and why each run that is not in it is missed.

    Raises:
      InputError: no sweep there, or none of its runs can be analysed.
    """
    path = files.path(folder)
    sweep = load_sweep(path)
    refuse_strangers(path, sweep)
    missed = dict(_missed(path, sweep.runs))
    some = [run for run in sweep.runs if run.run not in missed]
    if not some:
        raise InputError(f"{path} has no run to analyse: {listed(missed)}.")
    # Runs of one shape together: their compilation is kept.
    by_shape = sorted(some, key=lambda run: repr(run.problem()))
    keys, found = tuple(keys), {}
    # Before any work: what is wrong with the arguments.
    for run in {run.problem(): run for run in some}.values():
        subject_of(load_checkpoint(f"{path}:{run.run}"), keys, rule, threshold, None, None)
    for run in track(by_shape, "analysing"):
        checkpoint = load_checkpoint(f"{path}:{run.run}")
        found[run.run] = analyse(checkpoint, keys, rule, threshold) | {
            "step": int(checkpoint.source.rpartition(":")[2]),
            **{axis: run.values[axis] for axis in sweep.axes},
            SPLIT_SEED_USED: run.split_seed,
        }
    table_schema = schema(sweep.axes, blocks.described(run.problem() for run in some))
    files.write_parquet(_to_table(found, table_schema), path / FILE)
    return path / FILE, missed


def _missed(path: Path, runs: Sequence[Run]) -> Iterator[tuple[int, str]]:
    if not (path / "runs.parquet").is_file():
        raise InputError(f"{path} has no runs.parquet yet: its sweep has not begun.")
    ledger = read_runs(path).set_index("run")
    have = {run for run, _ in find_snapshots(path)} | find_weights(path).keys()
    for run in runs:
        status = ledger["status"].get(run.run, "waiting")
        if status == "diverged":
            yield run.run, f"diverged at step {int(ledger['last_step'][run.run])}"
        elif status not in ("finished", "stopped"):
            yield run.run, {"training": "still training", "waiting": "not begun"}[status]
        elif run.run not in have:
            yield run.run, "no snapshot"


def listed(missed: Mapping[int, str]) -> str:
    """Runs by reason: "runs 3-5: still training; run 7: diverged at step 20"."""
    by_reason: dict[str, list[int]] = {}
    for run, reason in missed.items():
        by_reason.setdefault(reason, []).append(run)
    return "; ".join(f"run{'s' * (len(some) > 1)} {compact(some)}: {reason}" for reason, some in by_reason.items())


def schema(axes: Iterable[str] = (), blocks: Mapping[str, Any] | None = None) -> pa.Schema:
    """Builds the schema of circuit.parquet: each column tells its meaning, unit, source and the paper's number.

    Args:
      axes: swept fields, by dotted path.
      blocks: what lists over frequencies run over, by group, where they are read by blocks; as in the metrics.
    """
    blocks_text = json.dumps(blocks, ensure_ascii=False) if blocks else ""
    fields = [
        pa.field("run", pa.int32(), False, field_metadata("Number of the run in the sweep, as in runs.parquet.")),
        pa.field("step", pa.int64(), False, field_metadata("Step of the snapshot.", "steps")),
        *axis_fields(axes),
        *(_field(f, blocks_text) for f in numbers(bool(blocks)).values()),
        pa.field("null", pa.string(), False, field_metadata("Why each null is one, as JSON.")),
        pa.field("measured", pa.string(), False, field_metadata("What was measured and how, as JSON.")),
    ]
    return pa.schema(fields)


def _field(f: Number, blocks: str) -> pa.Field:
    is_set = f.dtype == "bool" and f.shape == ("freq",)
    kind = pa.int64() if is_set or f.dtype == "int32" else pa.float64()
    return pa.field(
        f.name,
        pa.list_(kind) if f.shape else kind,
        True,
        field_metadata(
            f"{f.description} (the list of k)" if is_set else f.description,
            f.unit,
            range=f.range,
            source=f.source,
            shape=f"[{', '.join(f.shape)}]" if f.shape and not is_set else "",
            null=f.when_null,
            claim=f.claim or f.in_group,
            paper=f.paper,
            blocks=blocks * ("freq" in f.shape),
        ),
    )


def _to_table(found: Mapping[int, Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    records = [{**found[run], "run": run} for run in sorted(found)]
    for row in records:
        row |= {name: json.dumps(row[name], ensure_ascii=False) for name in ("null", "measured")}
    return pa.Table.from_pylist(records, schema)
