"""Extensions: a directory's sweep with more runs, which keeps the numbers that its runs have."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from grokjax.columns import SPLIT_SEED_USED
from grokjax.config import FIELDS, OPERATIONAL, SETTING
from grokjax.errors import InputError, shown
from grokjax.identity import depends_on_steps
from grokjax.store import files, final_states
from grokjax.store.metrics import parts, read_part, read_runs
from grokjax.store.records import part
from grokjax.store.snapshots import named
from grokjax.store.sweep import described, difference, load_sweep, refuse_strangers
from grokjax.sweeps import Run, Sweep


@dataclasses.dataclass(frozen=True)
class Extension:
    """What a command's sweep adds to that of a directory.

    Attributes:
      held: the directory's sweep.
      whole: the runs of both: those that are there with their numbers, and then the new ones.
      idle: how many runs are there that the command does not ask for; they stay.
    """

    held: Sweep
    whole: Sweep
    idle: int

    @property
    def n_new(self) -> int:
        """How many runs are new."""
        return len(self.whole.runs) - len(self.held.runs)

    @property
    def is_nothing(self) -> bool:
        """Whether the sweeps are the same, but for the numbers of their runs."""
        return not (self.n_new or self.idle or self.is_longer)

    @property
    def is_longer(self) -> bool:
        """Whether runs that are there are to be trained longer."""
        return any(run.steps > old.steps for run, old in zip(self.whole.runs, self.held.runs, strict=False))


def found(path: Path, record: Mapping[str, Any] | None, wanted: Sweep) -> Extension | None:
    """The extension of a directory by a command's sweep; None where there is nothing to extend.

    Args:
      path: of the directory.
      record: its config.json, if it holds a sweep.
      wanted: the command's sweep.

    Raises:
      InputError: the sweeps differ in more than their runs.
    """
    if not record or part(record) or not difference(record["runs"], described(wanted)):
        return None
    held = load_sweep(path)
    _refuse_others(path, held, wanted)
    axes = _axes(held, wanted)
    apart = {*OPERATIONAL} | (set() if "steps" in axes else {"steps"})

    def key(run: Run) -> tuple:
        return tuple(run.values[path] for path in FIELDS if path not in apart)

    there = {key(run) for run in held.runs}
    asked = {key(run): run for run in wanted.runs}
    # As it is asked for where it is, since what changes no number may have changed.
    runs = [Run(run.run, asked.get(key(run), run).values) for run in held.runs]
    new = [run for one, run in asked.items() if one not in there]
    runs += [Run(number, run.values) for number, run in enumerate(new, 1 + runs[-1].run)]
    base = dict(held.base) | {path: wanted.base[path] for path in apart}
    values = {path: tuple(dict.fromkeys(run.values[path] for run in runs)) for path in axes}
    made = Extension(held, Sweep(base, values, tuple(runs)), len(there - asked.keys()))
    if made.is_longer:
        _refuse_longer(path, made)
    return made


def _axes(held: Sweep, wanted: Sweep) -> list[str]:
    """The axes of both, in the directory's order; where one is new, in the command's, as a fresh sweep has them."""
    if wanted.axes.keys() <= held.axes.keys():
        return list(held.axes)
    return [*wanted.axes, *(path for path in held.axes if path not in wanted.axes)]


def _refuse_others(path: Path, held: Sweep, wanted: Sweep) -> None:
    """Refuses a sweep that has another value of a field that is no axis."""
    axes = _axes(held, wanted)
    for name, there in held.base.items():
        here = wanted.base[name]
        if name in axes or name in OPERATIONAL or here == there or (name == "steps" and here > there):
            continue
        if FIELDS[name].kind == SETTING:
            hint = "it is one for all runs of a sweep, so choose another directory"
        else:
            hint = f"to have runs of both, give config.sweep.{name} = ({shown(there)}, {shown(here)})"
        raise InputError(
            f"--extend: the sweep in {path} has config.{name} {shown(there)}, but this one has {shown(here)}: {hint}."
        )


def _refuse_longer(path: Path, made: Extension) -> None:
    """Refuses to train runs longer that cannot go on as if they had been that long from the start."""
    old, new = made.held.base["steps"], made.whole.base["steps"]
    text = f"--extend: the runs in {path} cannot go on from step {old} to {new}"
    for run in made.held.runs:
        if depends_on_steps(run.values):
            raise InputError(f"{text}, since their learning rate follows from steps: choose another directory.")
    every = made.held.base["snapshot_every"]
    if old % every:
        raise InputError(
            f"{text}, since {old} is no multiple of snapshot_every, {every}, but have a snapshot there, as longer ones "
            "have not: choose another directory."
        )
    if made.idle:
        raise InputError(
            f"{text} without {made.idle} of them that this command does not ask for: give all values that are there."
        )
    states, runs = final_states.find(path), read_runs(path)
    ended = runs[runs["status"] == "finished"][["run", "last_step"]].astype(int).to_numpy().tolist()
    if lacks := [run for run, step in ended if (run, step) not in states]:
        raise InputError(
            f"{text}, since the final state of {named(lacks)} was not kept, which config.keep_final_state = 1 asks for "
            "from the start: choose another directory."
        )


def offered(path: Path, record: Mapping[str, Any], wanted: Sweep) -> str:
    """What --extend would do in a directory that holds another sweep, for a message; "" where it cannot be extended."""
    try:
        extension = found(path, record, wanted)
    except InputError:
        return ""
    if not extension:
        return ""
    n = extension.n_new
    if extension.is_longer:
        return "--extend goes on with the runs that are there; or "
    trains = f"trains the {n} run{'s' * (n > 1)} that {'are' if n > 1 else 'is'} new there and " if n else ""
    return f"--extend {trains}leaves what is there as it is; or "


def numbered(
    path: Path, record: Mapping[str, Any] | None, wanted: Sweep, extend: bool
) -> tuple[Sweep, Extension | None]:
    """A command's sweep with the numbers that its runs have in a directory, and what it adds to it.

    Args:
      path: of the directory.
      record: its config.json, if it holds a sweep.
      wanted: the command's sweep.
      extend: whether it may have runs that are not there, or lack some that are.

    Returns:
      The sweep, as it is where it may not be trained there; what it adds, or None if that is nothing.

    Raises:
      InputError: the directory's sweep is to be extended and differs in more than its runs.
    """
    try:
        extension = found(path, record, wanted)
    except InputError:
        if extend:
            raise
        return wanted, None
    if not extension or not (extend or extension.is_nothing):
        return wanted, None
    refuse_strangers(path, extension.held)
    return extension.whole, None if extension.is_nothing else extension


def add_axes(folder: Path, sweep: Sweep, schema: pa.Schema) -> None:
    """Gives the parts of a directory's metrics the columns of new axes, each part at once and the first one last.

    Args:
      folder: of the metrics.
      sweep: of the directory.
      schema: of the parts to come.
    """
    places = parts(folder)
    there = read_part(places[0]).column_names if places else schema.names
    if all(path in there for path in sweep.axes):
        return
    values = {run.run: {**run.values, SPLIT_SEED_USED: run.split_seed} for run in sweep.runs}
    for place in reversed(places):
        table = read_part(place)
        # Columns of measures that an earlier version did not have stay away.
        fields = [f for f in schema if f.name in table.column_names or f.name in values[sweep.runs[0].run]]
        lacks = [f for f in fields if f.name not in table.column_names]
        runs = table["run"].to_pylist()
        more = {f.name: pa.array([values[run][f.name] for run in runs], f.type) for f in lacks}
        columns = [more[f.name] if f.name in more else table[f.name] for f in fields]
        fields = [f if f.name in more else table.schema.field(f.name) for f in fields]
        if more:
            files.write_parquet(pa.Table.from_arrays(columns, schema=pa.schema(fields, schema.metadata)), place)
