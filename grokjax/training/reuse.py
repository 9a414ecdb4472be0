"""Reuse: runs that another directory has trained are taken from there, bit for bit, instead of being trained.

They are taken where all agrees that bits depend on, and where what the sweep logs and keeps is there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grokjax.columns import FINAL, SPLIT_SEED_USED, disagreement, redefined
from grokjax.core.environment import environment
from grokjax.errors import shown
from grokjax.identity import identity
from grokjax.measures import registry
from grokjax.store import check, final_states, recovery, snapshots
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import MetricsWriter, parts, read_part
from grokjax.store.records import read_record
from grokjax.store.snapshots import named
from grokjax.store.sweep import load_sweep
from grokjax.store.workdir import Workdir
from grokjax.sweeps import Run
from grokjax.training.layouts import Layout
from grokjax.training.plan import Plan

ROWS = ("eval_every", "slow_every", "key_rule", "key_threshold")  # fields that rows depend on and weights do not
TOLD = ("run", "step", *FINAL, "key_freqs")  # to the ledger
VERSIONS = ("grokjax", "jax", "jaxlib", "flax", "optax", "numpy")


class Source:
    """A directory to take runs from.

    Args:
      path: of the directory.

    Attributes:
      runs: that have ended there, by identity and steps.
      ledger: of all runs there.
      schema: of its metrics.
      trouble: why nothing can be taken from it; "" if something can.

    Raises:
      InputError: it holds no sweep.
    """

    def __init__(self, path: Path):
        self.path, self.record = path, read_record(path) or {}
        sweep = check.with_known_measures(load_sweep(path))
        found = recovery.examine(path, sweep, every_snapshot=True)
        self.trouble = "files in it are damaged, as grokjax check says" if found.troubles else ""
        self.ledger, answers = found.ledger, self.record.get("answers") or {}
        unsettled = {run.run for run in found.ledger.without_keys(registry.metrics_columns(sweep.base["measures"]))}
        ended = [run for run in sweep.runs if self.ledger.records[run.run]["status"] in ("finished", "stopped")]
        self.runs = {
            (identity(v, answers.get(f"{v['task']} mod {v['p']}")), run.steps): run
            for run, v in ((run, run.values) for run in ended)
            if run.run not in unsettled
        }
        self._layouts = {
            run.run: Layout.of(layout)
            for layout, runs in zip(self.record["groups"], sweep.groups(), strict=True)
            for run in runs
        }
        self.schema = read_part(parts(path / "metrics")[0]).schema if self.runs else pa.schema([])
        self.snapshots, self.states = snapshots.find_snapshots(path), final_states.find(path)

    def last_step(self, run: Run) -> int:
        """The step at which a run ended."""
        return self.ledger.records[run.run]["last_step"]

    def steps(self, run: Run, every: int) -> list[int]:
        """The steps at which a sweep with this snapshot_every has snapshots of a run."""
        last = self.last_step(run)
        return [*range(0, last, every), last]

    def difference(self, theirs: Run, ours: Run, layout: Layout, schema: pa.Schema) -> str:
        """What keeps a run from being taken, in words; "" if nothing does."""
        there = _compared(self._environment(theirs.run), self._layouts[theirs.run])
        here = _compared(environment(), layout)
        here |= {name: ours.values[name] for name in ROWS}
        there |= {name: theirs.values[name] for name in ROWS}
        for name, value in here.items():
            if there[name] != value:
                return f"{name} was {shown(there[name])} there and is {shown(value)} here"
        if lacks := [name for name in _measured(schema, ours) if name not in self.schema.names]:
            return f"it has no column '{lacks[0]}'"
        if text := disagreement(redefined(self.schema, schema, [ours.values["p"]])):
            return f"the table would hold {text}"
        steps = self.steps(theirs, ours.values["snapshot_every"])
        if missing := [step for step in steps if (theirs.run, step) not in self.snapshots]:
            return f"it has no snapshot at step {missing[0]}"
        if ours.values["keep_final_state"] and (theirs.run, steps[-1]) not in self.states:
            return "its final state was not kept"
        return ""

    def _environment(self, run: int) -> Mapping[str, Any]:
        """What config.json tells of the environment that a run was begun in."""
        told = self.record
        for extension in self.record.get("extensions", ()):
            if extension["from_run"] is not None and extension["from_run"] <= run:
                told = {**told, **extension}
        return told


def _measured(schema: pa.Schema, run: Run) -> list[str]:
    """The columns of the metrics that no config tells."""
    return [name for name in schema.names if name not in ("run", SPLIT_SEED_USED) and name not in run.values]


def _compared(told: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """What bits depend on, of an environment and a layout: the number of slots is not among it."""
    names = ["platform", "device_kind", "xla_flags"]
    names += {"cpu": ["instructions", "cpu_threads"], "gpu": ["compiler_options"]}.get(told.get("platform", ""), [])
    found = {name: told.get(name) for name in names}
    found |= {f"version of {name}": (told.get("versions") or {}).get(name) for name in VERSIONS}
    found |= {"width": layout.vmap_width, "width of evaluations": layout.eval_width, "n_devices": layout.n_devices}
    return found | {"block": layout.backend.block, "n_parts": layout.backend.n_parts}


def take(
    plan: Plan, workdir: Workdir, ledger: Ledger, writer: MetricsWriter, paths: Sequence[Path]
) -> tuple[dict[str, Any], list[list[Any]]] | None:
    """Takes the waiting runs of a sweep that other directories have, and writes them into its own.

    Args:
      plan: of the sweep.
      workdir: its directory.
      ledger: says which runs wait; it is not told.
      writer: of its metrics.
      paths: of the others; the first that has a run gives it.

    Returns:
      For the ledger, the rows taken, in the order of their steps, and each run's number with its keys; None for none.
    """
    tell = plan.job.request.tell
    waiting = {run.run: run for run in workdir.sweep.runs if ledger.records[run.run]["status"] == "waiting"}
    layouts = {
        run.run: layout for runs, layout in zip(plan.job.sweep.groups(), plan.layouts, strict=True) for run in runs
    }
    tables = []
    for path in paths:
        source, why = Source(path), dict[str, list[int]]()
        pairs: dict[int, Run] = {}  # by their number
        for run in waiting.values():
            theirs = source.runs.get((run.identity, run.steps)) if run.identity else None
            if theirs is None:
                continue
            differs = source.trouble or source.difference(theirs, run, layouts[run.run], writer.schema)
            if differs:
                why.setdefault(differs, []).append(theirs.run)
            else:
                pairs[theirs.run] = run
        for text, numbers in why.items():
            tell(f"note: {named(sorted(numbers))} of {path} cannot be reused: {text}.")
        if pairs:
            tell(f"taken from {path}: {named(sorted(run.run for run in pairs.values()))}")
            tables += _copied(source, pairs, workdir, writer)
            waiting = {n: run for n, run in waiting.items() if run not in pairs.values()}
        elif not why:
            tell(f"note: {path} has none of the runs that are left to train.")
    return _for_ledger(pa.concat_tables(tables)) if tables else None


def _copied(source: Source, pairs: Mapping[int, Run], workdir: Workdir, writer: MetricsWriter) -> list[pa.Table]:
    """Writes snapshots, final states and rows of some runs; returns the rows."""
    every, keeps = (workdir.sweep.base[name] for name in ("snapshot_every", "keep_final_state"))
    ours = sorted(pairs.items(), key=lambda pair: pair[1].run)
    steps = {theirs: source.steps(source.ledger.runs[theirs], every) for theirs in pairs}
    for step in sorted({step for some in steps.values() for step in some}):
        at = [(theirs, run) for theirs, run in ours if step in steps[theirs]]
        _copy_stacks(source.snapshots, step, at, workdir.snapshots)
        ends = [(theirs, run) for theirs, run in at if keeps and step == steps[theirs][-1]]
        _copy_stacks(source.states, step, ends, workdir.path / final_states.FOLDER)
    tables = []
    for place in parts(source.path / "metrics"):
        table = read_part(place)
        table = table.filter(pc.is_in(table["run"], pa.array(list(pairs), pa.int32())))
        if table.num_rows:
            rows = _renumbered(table, pairs, writer.schema)
            tables.append(rows.select([name for name in TOLD if name in rows.column_names]))
            writer.add_table(rows)
            writer.flush()
    return tables


def _copy_stacks(found: snapshots.Snapshots, step: int, pairs: Sequence[tuple[int, Run]], folder: Path) -> None:
    """Saves the arrays of some runs at a step under the numbers that they have here."""
    start = 0
    while some := pairs[start : start + snapshots.SNAPSHOT_RUNS]:
        read = snapshots.load_many(found, step, [theirs for theirs, _ in some])
        shapes = [{key: x.shape for key, x in read[theirs].items()} for theirs, _ in some]
        alike = next((i for i, one in enumerate(shapes) if one != shapes[0]), len(some))  # another model comes after
        stacked = {key: np.stack([read[theirs][key] for theirs, _ in some[:alike]]) for key in shapes[0]}
        snapshots.save_snapshot(folder, step, [run.run for _, run in some[:alike]], stacked)
        start += alike


def _renumbered(table: pa.Table, pairs: Mapping[int, Run], schema: pa.Schema) -> pa.Table:
    """Rows as the sweep has them: its numbers, its axes, its columns."""
    runs = [pairs[number] for number in table["run"].to_pylist()]
    columns = []
    for field in schema:
        if field.name == "run":
            columns.append(pa.array([run.run for run in runs], field.type))
        elif field.name == SPLIT_SEED_USED:
            columns.append(pa.array([run.split_seed for run in runs], field.type))
        elif field.name in runs[0].values:
            columns.append(pa.array([run.values[field.name] for run in runs], field.type))
        else:
            columns.append(table[field.name].cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _for_ledger(table: pa.Table) -> tuple[dict[str, Any], list[list[Any]]]:
    frame = table.select(["run", "step", *FINAL]).to_pandas().sort_values(["step", "run"])
    keys: dict[int, Any] = {}
    if "key_freqs" in table.column_names:
        rows = zip(table["run"].to_pylist(), table["step"].to_pylist(), table["key_freqs"].to_pylist(), strict=True)
        for run, _, some in sorted(rows, key=lambda row: row[:2]):  # the last one counts
            keys[run] = some
    return {name: frame[name].to_numpy() for name in frame}, [[run, some] for run, some in keys.items() if some]
