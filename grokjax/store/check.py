"""Whether a sweep's working directory is whole: every file against its checksum, every run's rows counted."""

import dataclasses
from pathlib import Path, PurePosixPath
from typing import Any

from grokjax.measures import registry
from grokjax.store import checkpoints, files, recovery
from grokjax.store.files import Damaged
from grokjax.store.metrics import is_part, read_runs
from grokjax.store.records import ONLY, RECORDS, part, read_record
from grokjax.store.recovery import Findings
from grokjax.store.snapshots import find_snapshots, named
from grokjax.store.sweep import load_sweep
from grokjax.sweeps import Sweep


def check(path: str | Path) -> tuple[list[str], bool]:
    """Examines a working directory.

    Args:
      path: of the directory.

    Returns:
      What was found, in lines to read, and whether all is whole.

    Raises:
      InputError: it holds no sweep, or its config.json is damaged beyond reading.
    """
    path = files.path(path)
    sweep = with_known_measures(load_sweep(path))
    found = recovery.examine(path, sweep, every_snapshot=True)
    _check_others(path, found)
    missing = _missing(path, sweep, found)
    bad = f"{len(found.troubles)} damaged or missing" if found.troubles else "all whole"
    some = part(read_record(path))
    lines = [f"{path}: {some or f'{len(sweep.runs)} runs'}, {found.checked} files and folders checked, {bad}"]
    lines += [f"damaged   {place.relative_to(path)} {what}" for place, what in found.troubles.items()]
    lines += [f"missing   {what}" for what in missing]
    lines += _resume(path, sweep, found)
    whole = not found.troubles and not missing
    for inner in files.listed(path):
        if inner.name.startswith(ONLY) and any((inner / name).exists() for name in RECORDS):
            inside, fine = check(inner)
            lines, whole = lines + inside, whole and fine
    return lines, whole


def with_known_measures(sweep: Sweep) -> Sweep:
    """A sweep less the groups of measures that nobody has registered: files are checked without evaluating anything."""
    known = tuple(name for name in sweep.base["measures"] if name in registry.groups())
    return dataclasses.replace(sweep, base={**sweep.base, "measures": known})


def _check_others(path: Path, found: Findings) -> None:
    """Holds against their checksums what no resume reads: tables, the report, earlier checkpoints, later parts."""
    names = [n for n in files.names_below(path) if ".damaged." not in str(n) and not n.parts[0].startswith(ONLY)]
    sums = (PurePosixPath(*name.parts[name.parts[0] == files.CHECKSUMS :]) for name in names if name.match(".*.sha256"))
    wanted = {name.with_name(name.name[1:].removesuffix(".sha256")) for name in sums}
    wanted |= {PurePosixPath(name) for name in ("runs.parquet", *RECORDS)}
    wanted |= {name for name in names if name.parts[0] in ("report", "replay") and not name.name.startswith(".")}
    for file in (path / str(name) for name in sorted(wanted)):
        if not is_part(file.name) or file in found.surplus:
            found.note(file, files.trouble(file))
    for _, folders in checkpoints.complete(path / "checkpoints"):
        for folder in folders:
            if not (found.checkpoint and folder in found.checkpoint.folders):
                found.note(folder, files.folder_trouble(folder))


def _missing(path: Path, sweep: Sweep, found: Findings) -> list[str]:
    """Rows and snapshots that have been there, as others tell, and of which nothing is left to be damaged."""
    missing = []
    there = set(find_snapshots(path))
    table = path / "runs.parquet"
    stated: dict[Any, Any] = {}
    if not files.trouble(table):
        try:
            stated = read_runs(path).set_index("run")["last_step"].dropna().to_dict()
        except (Damaged, KeyError):
            found.troubles.setdefault(table, "is no table of a sweep's runs")
    for run in sweep.runs:
        number, record = run.run, found.ledger.records[run.run]
        done = -1 if record["last_step"] is None else record["last_step"]
        lacks = set()
        if done >= 0 and record["status"] != "diverged":
            lacks = {step for step in recovery.needed_snapshots(run, found) if (number, step) not in there}
            missing += [f"snapshot of run {number} at step {step}" for step in sorted(lacks)]
        if stated.get(number, -1) > found.redone.get(number, -1):
            told = f"of run {number}, which runs.parquet has up to step {stated[number]:.0f}"
            if stated[number] > done:
                missing.append(f"metrics {told}")
            elif number in found.lost and not lacks:
                missing.append(f"checkpoint {told}")
    return missing


def _resume(path: Path, sweep: Sweep, found: Findings) -> list[str]:
    """What the sweep's command would do now."""
    ledger, at, lost = found.ledger, found.at, set(found.lost)
    over = [run.run for run in sweep.runs if ledger.over(run.run) and run.run not in lost]
    fresh = [run.run for run in sweep.runs if run.run not in at and run.run not in over and run.run not in lost]
    lines = []
    if over:
        lines.append(f"done      {named(over)}")
    for step in sorted(set(at.values())):
        lines.append(f"goes on   {named([run for run, s in at.items() if s == step])} from step {step:,}")
    if lost:
        lines.append(f"again     {named(sorted(lost))} from nothing, with the same results: rows or snapshots are gone")
    if fresh:
        lines.append(f"waiting   {named(fresh)}")
    without_keys = ledger.without_keys(registry.metrics_columns(sweep.base["measures"]))
    if [run for run in without_keys if run.run not in lost]:
        lines.append(f"keys      of {named([run.run for run in without_keys])} are to be finalised")
    if set(over) == {run.run for run in sweep.runs}:
        wrong = [place for place in found.troubles if place.parent == path / "snapshots"]
        if wrong:
            lines.append("          the tables need none of the damaged snapshots; --only=RUN trains a run's again")
        return lines
    return [*lines, "To go on, give the sweep's command again. It mends what is damaged by itself."]
