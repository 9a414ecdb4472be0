"""Parts of one sweep, trained apart, put together into one directory; nothing is trained, and no row changes."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from grokjax.errors import InputError, shown
from grokjax.store import files, final_states, recovery
from grokjax.store.metrics import part_name, parts, read_part
from grokjax.store.records import read_record
from grokjax.store.recovery import Findings
from grokjax.store.snapshots import named
from grokjax.store.sweep import load_sweep, refuse_strangers
from grokjax.store.workdir import Workdir
from grokjax.sweeps import Sweep

SWEEP = ("config", "axes", "n_runs")  # of config.json: what parts of one sweep have in common
# What bits depend on, which config.json tells once for all runs.
MACHINE = ("platform", "device_kind", "n_devices", "xla_flags", "compiler_options", "native")
CPU = ("instructions", "cpu_threads")
VERSIONS = ("grokjax", "jax", "jaxlib", "flax", "optax", "numpy")
TOGETHER = "to read them as one nevertheless, name all of them: grokjax report A B --out=DIR, grokjax.open([A, B])"


@dataclasses.dataclass(frozen=True)
class Part:
    """A directory with some runs of a sweep.

    Attributes:
      path: of the directory.
      record: its config.json.
      sweep: of its runs.
      found: what is in it.
    """

    path: Path
    record: Mapping[str, Any]
    sweep: Sweep
    found: Findings

    @classmethod
    def read(cls, path: Path) -> "Part":
        """Reads a directory and holds every file against its checksum.

        Raises:
          InputError: it holds no sweep, or one of tasks or measures that nobody has registered.
        """
        sweep = load_sweep(path)
        refuse_strangers(path, sweep)
        return cls(path, read_record(path) or {}, sweep, recovery.examine(path, sweep, every_snapshot=True))

    def of_groups(self, name: str) -> dict[int, Any]:
        """What a list of config.json has for each run's group."""
        groups = self.sweep.groups()
        listed = self.record.get(name) or [None] * len(groups)
        return {run.run: one for one, runs in zip(listed, groups, strict=True) for run in runs}

    @property
    def machine(self) -> dict[str, Any]:
        """What the bits of its runs depend on, by name."""
        names = MACHINE + CPU * (self.record.get("platform") == "cpu")
        versions = self.record.get("versions") or {}
        return {name: self.record.get(name) for name in names} | {
            f"version of {name}": versions.get(name) for name in VERSIONS
        }


def merge(paths: Sequence[str | Path], out: str | Path) -> Path:
    """Puts directories that have a share of a sweep's runs each together; they stay as they are.

    Args:
      paths: of the directories, which together have each run once, all of them ended.
      out: the directory to make, which must not be there yet.

    Returns:
      Its path. What is there opens, is extended and reported as if one process had trained all runs.

    Raises:
      InputError: they are no parts of one sweep, of one kind of machine, or a run is missing; nothing is written.
      StorageError: the directory cannot be written.
    """
    given, target = [files.path(path) for path in paths], files.path(out)
    if files.listed(target) or target.is_file():
        raise InputError(f"--out={target} is there already: choose another directory.")
    if twice := [path for path in given if given.count(path) > 1]:
        raise InputError(f"{twice[0]} is given twice: name each directory once.")
    some = [Part.read(path) for path in given]
    for other in some[1:]:
        _refuse_other(some[0], other)
    _refuse_incomplete(some)
    runs = sorted((run for part in some for run in part.sweep.runs), key=lambda run: run.run)
    whole = dataclasses.replace(some[0].sweep, runs=tuple(runs))
    _write(some, whole, _record(some, whole), target)
    return target


def _refuse_other(first: Part, other: Part) -> None:
    """Refuses a part of another sweep, or of a machine that gives other bits."""
    for name in SWEEP:
        mine, theirs = first.record.get(name), other.record.get(name)
        if mine != theirs:
            if isinstance(mine, dict) and isinstance(theirs, dict):
                field = next(key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key))
                name, mine, theirs = f"{name}.{field}", mine.get(field), theirs.get(field)
            raise InputError(
                f"{first.path} and {other.path} are no parts of one sweep, as --shard makes them: {name} is "
                f"{shown(mine)} in the first and {shown(theirs)} in the second; {TOGETHER}."
            )
    machine = [(name, value, other.machine[name]) for name, value in first.machine.items()]
    ours, theirs = first.of_groups("groups"), other.of_groups("groups")
    problems = {run.problem(): run.run for run in first.sweep.runs}
    alike = [(problems[run.problem()], run.run) for run in other.sweep.runs if run.problem() in problems]
    machine += [("the layout", ours[mine], theirs[its]) for mine, its in alike]
    if differs := next(((name, a, b) for name, a, b in machine if a != b), None):
        raise InputError(
            f"{first.path} and {other.path} were not trained alike, and bits depend on it: {differs[0]} is "
            f"{shown(differs[1])} in the first and {shown(differs[2])} in the second; {TOGETHER}; or train the sweep "
            "with --reuse, which takes what agrees and trains the rest."
        )


def _refuse_incomplete(some: Sequence[Part]) -> None:
    """Refuses damaged parts, and those of which a run has not ended, is missing, or is there twice."""
    holders: dict[int, Path] = {}
    for part in some:
        if part.found.troubles:
            raise InputError(f"files in {part.path} are damaged: grokjax check {part.path} says which.")
        left = [run.run for run in part.sweep.runs if not part.found.ledger.over(run.run)]
        if left or not part.found.is_done(part.sweep):
            of = f"{named(left)} of" if left else "the keys of"
            raise InputError(f"{of} {part.path} are not done: go on there with its command before merging.")
        for run in part.sweep.runs:
            if run.run in holders:
                raise InputError(f"run {run.run} is in {holders[run.run]} and in {part.path}: leave one of them out.")
            holders[run.run] = part.path
    n = some[0].record.get("n_runs") or 1 + max(holders)
    if missing := [run for run in range(n) if run not in holders]:
        raise InputError(f"{named(missing)} of the sweep's {n} are in none of the directories: name all parts.")


def _record(some: Sequence[Part], whole: Sweep) -> dict[str, Any]:
    """config.json of all runs."""
    runs = sorted((values for part in some for values in part.record["runs"]), key=lambda values: values["run"])
    record = {**some[0].record, "runs": runs, "checksums": files.CHECKSUMS}
    for name in ("groups", "width"):
        told = {run: one for part in some for run, one in part.of_groups(name).items()}
        record[name] = [told[group[0].run] for group in whole.groups()]
    for name in ("answers", "elements"):
        told = {key: one for part in some for key, one in (part.record.get(name) or {}).items()}
        record |= {name: told} if told else {}
    return record


def _write(some: Sequence[Part], whole: Sweep, record: Mapping[str, Any], target: Path) -> None:
    """Copies what the parts hold, and writes config.json last: without it nothing counts as a sweep."""
    workdir = Workdir(target, whole)
    try:
        files.keep_checksums(target)
        files.make_folder(workdir.metrics)
        places = [place for part in some for place in parts(part.path / "metrics")]
        for number, place in enumerate(places):
            files.write_bytes(files.read(place), workdir.metrics / part_name(number))
        for part in some:
            for name in ("snapshots", final_states.FOLDER):
                for folder in files.appeared(part.path / name):
                    _copy(folder, target / name / folder.name)
        tables = [read_part(part.path / "runs.parquet") for part in some]
        files.write_parquet(pa.concat_tables(tables).sort_by("run"), workdir.runs)
        for name in reversed(files.RECORDS):
            files.write_text(json.dumps(record, indent=1) + "\n", target / name)
    except BaseException:
        files.drop(target)
        raise
    finally:
        workdir.close()


def _copy(source: Path, target: Path) -> None:
    """Copies a folder, which appears whole."""
    with files.folder(source) as local, files.new_folder(target, files.note(local)) as temporary:
        shutil.copytree(local, temporary, ignore=shutil.ignore_patterns(files.MANIFEST))
