"""What a working directory holds, what of it is whole, and how to go on from there.

Nothing is believed unread: parts, checkpoints and snapshots are held against their checksums, and every run's rows are
counted. A damaged checkpoint means the one before; rows that are missing mean that their run is trained again from
nothing, since it gives the same bits.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from grokjax.columns import FINAL
from grokjax.measures import registry
from grokjax.store import checkpoints, files, final_states
from grokjax.store.files import Damaged
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import ROW, is_part, part_number, parts, read_part, refuse_kinds
from grokjax.store.snapshots import Snapshots, find_snapshots
from grokjax.sweeps import Run, Sweep


class Checkpoint:
    """A whole checkpoint: one folder for each process that took part.

    Args:
      number: its own.
      folders: one per process.
      progress: what the scheduler saved in each.

    Attributes:
      group: the one that was in training.
      offset: steps into the current segment.
      steps: done by the runs that were in training.
      marks: where each process's parts ended: the number of the last one, and its rows.
    """

    def __init__(self, number: int, folders: Sequence[Path], progress: Sequence[Mapping[str, Any]]):
        self.number, self.folders, self.progress = number, folders, progress
        self.group: int = progress[0]["group"]
        self.offset: int = progress[0]["offset"]
        self.steps = {run: n for one in progress for run, n in zip(one["runs"], one["steps"], strict=True)}
        self.marks = {one["process"]: (one["part"], one["rows"]) for one in progress}


@dataclasses.dataclass
class Findings:
    """What is on disk, and what is to be done before training goes on.

    Attributes:
      ledger: what has become of every run, as far as whole files tell.
      checkpoint: the newest whole one, or None.
      troubles: what is wrong, by path, in the order in which it was found.
      checked: how many files and folders were held against their checksums.
      surplus: parts written after the checkpoint, and how many of their rows to keep.
      kept: the step that runs go on from by their final state, since they are to be trained longer.
      lost: runs with missing rows or snapshots, which are to be trained from nothing.
      redone: steps that were done after the checkpoint, by run, as far as rows tell; they are trained again.
    """

    ledger: Ledger
    checkpoint: Checkpoint | None = None
    troubles: dict[Path, str] = dataclasses.field(default_factory=dict)
    checked: int = 0
    surplus: dict[Path, int] = dataclasses.field(default_factory=dict)
    kept: dict[int, int] = dataclasses.field(default_factory=dict)
    lost: list[int] = dataclasses.field(default_factory=list)
    redone: dict[int, int] = dataclasses.field(default_factory=dict)

    def is_done(self, sweep: Sweep) -> bool:
        """Whether nothing is left to train, and every run has its final keys."""
        columns = registry.metrics_columns(sweep.base["measures"])
        return all(self.ledger.over(run.run) for run in sweep.runs) and not self.ledger.without_keys(columns)

    def note(self, place: Path, what: str) -> None:
        """Counts a file or folder that was checked, with what is wrong with it, if anything is."""
        self.checked += 1
        if what:
            self.troubles.setdefault(place, what)

    @property
    def changed(self) -> bool:
        """Whether `repair` changes anything."""
        return bool(self.troubles or self.surplus or self.lost)

    @property
    def at(self) -> dict[int, int]:
        """The step that each run in training goes on from."""
        steps = self.kept | (self.checkpoint.steps if self.checkpoint else {})
        return {run: step for run, step in steps.items() if run not in self.lost and not self.ledger.over(run)}


def examine(path: Path, sweep: Sweep, every_snapshot: bool = False) -> Findings:
    """Reads a working directory; nothing is changed.

    Args:
      path: of the working directory.
      sweep: that it was made from.
      every_snapshot: check those snapshots and checkpoints too that no resume needs.
    """
    found = Findings(Ledger(sweep.runs))
    _find_checkpoint(path / "checkpoints", found, every_snapshot)
    rows = _whole_rows(path / "metrics", sweep, found)
    _judge(rows, sweep, found, final_states.find(path))
    _check_snapshots(path, sweep, found, every_snapshot)
    return found


def _find_checkpoint(folder: Path, found: Findings, every: bool) -> None:
    """The newest whole one; with `every` those before it are checked too."""
    for number, folders in checkpoints.complete(folder):
        try:
            progress = [checkpoints.read_progress(path) for path in folders]
        except Damaged as error:
            if found.checkpoint is None or all(path.exists() for path in folders):  # older ones are removed at times
                wrong = {path: files.folder_trouble(path) for path in folders}
                found.troubles |= {path: what for path, what in wrong.items() if what} or {folders[0]: str(error)}
            continue
        found.checked += len(folders)
        if found.checkpoint is None:
            found.checkpoint = Checkpoint(number, folders, progress)
        if not every:
            return


def _whole_rows(folder: Path, sweep: Sweep, found: Findings) -> pd.DataFrame:
    """The rows that count, of the columns that the ledger needs; notes damaged parts, and what is surplus."""
    columns = ["run", "step", *FINAL]
    if "key_freqs" in registry.metrics_columns(sweep.base["measures"]):
        columns.append("key_freqs")
    marks = found.checkpoint.marks if found.checkpoint else None
    tables = []
    for path in _expected_parts(folder):
        found.checked += 1
        keep, wrong = _rows_to_keep(path, marks), files.trouble(path)
        try:
            if wrong:
                raise Damaged(wrong)
            table = _of_sweep(path, read_part(path, columns), sweep)
        except (OSError, ValueError, KeyError) as error:
            if keep:
                found.troubles[path] = wrong or f"cannot be read as metrics ({error})"
            else:
                found.surplus[path] = 0  # say, because its writer was killed before the checksum was there
            continue
        if table.num_rows > keep:
            found.surplus[path] = keep
            after = table.slice(keep).group_by("run").aggregate([("step", "max")]).to_pylist()
            for row in after:
                found.redone[row["run"]] = max(row["step_max"], found.redone.get(row["run"], 0))
        tables.append(table.slice(0, keep))
    if not tables:
        return pd.DataFrame({name: [] for name in columns})
    rows = pa.concat_tables(tables, promote_options="default").to_pandas()
    return rows.sort_values(["step", "run"], ignore_index=True)


def _of_sweep(path: Path, table: pa.Table, sweep: Sweep) -> pa.Table:
    """A part whose rows are of the sweep's runs.

    Raises:
      Damaged: they are not.
    """
    kinds = {"run": pa.int32(), "step": pa.int32(), "key_freqs": pa.list_(pa.bool_())}
    refuse_kinds(path, table, kinds | dict.fromkeys(FINAL, pa.float32()), ROW)
    strange = set(table["run"].unique().to_pylist()) - {run.run for run in sweep.runs}
    if strange:
        raise Damaged(f"it has rows of run {min(strange)}, which the sweep has not")
    return table


def _expected_parts(folder: Path) -> list[Path]:
    """The parts that are there, and those whose checksums are."""
    some = {*files.listed(folder), *files.checksummed(folder)}
    return sorted((path for path in some if is_part(path.name)), key=part_number)


def _rows_to_keep(path: Path, marks: Mapping[int, tuple[int, int]] | None) -> int:
    """How many of a part's rows were there at the checkpoint; without one all are, if their runs are complete."""
    everything = 1 << 62
    if marks is None:
        return everything
    number, process = part_number(path)
    if process not in marks:
        # Written by a process that had no part in the checkpoint, so by one of an earlier start, or after it.
        return everything if number < min(first for first, _ in marks.values()) else 0
    last, rows = marks[process]
    return everything if number < last else rows if number == last else 0


def _judge(rows: pd.DataFrame, sweep: Sweep, found: Findings, states: Snapshots) -> None:
    """Tells the ledger of the runs whose rows are all there, and notes those of which some are missing."""
    by_run = {run: steps.to_numpy() for run, steps in rows.groupby("run")["step"]}
    gaps = [run.run for run in sweep.runs if not _in_order(by_run.get(run.run), run)]
    found.ledger.update(rows[~rows["run"].isin(gaps)])
    steps = found.checkpoint.steps if found.checkpoint else {}
    offset = found.checkpoint.offset if found.checkpoint else 0
    for run in sweep.runs:
        number = run.run
        has, last = number in by_run, found.ledger.records[number]["last_step"]
        goes_on = number in steps and last == steps[number] - offset
        if number not in steps and not found.ledger.over(number) and (number, last) in states:
            folder = states[number, last][0]
            found.note(folder, files.folder_trouble(folder))
            goes_on = folder not in found.troubles
            found.kept |= {number: last} if goes_on else {}
        if number in gaps or (has and not found.ledger.over(number) and not goes_on) or (number in steps and not has):
            found.lost.append(number)


def _in_order(steps: np.ndarray | None, run: Run) -> bool:
    """Whether a run's evaluated steps are 0, eval_every, 2 eval_every, …, if there are any."""
    return steps is None or bool((steps == run.values["eval_every"] * np.arange(len(steps))).all())


def _check_snapshots(path: Path, sweep: Sweep, found: Findings, every: bool) -> None:
    """Notes damaged snapshots, and runs that cannot do without one that is not there."""
    columns = registry.metrics_columns(sweep.base["measures"])
    needing = {run.run for run in found.ledger.without_keys(columns)} | set(found.at)
    # Those of a run that is trained again stay if they are whole, since they would be the same.
    read = {run.run for run in sweep.runs if not found.ledger.over(run.run)} | needing | set(found.lost)
    there = find_snapshots(path)
    folders = {place for (run, _), (place, _) in there.items() if every or run in read}
    for folder in sorted(folders):
        found.note(folder, files.folder_trouble(folder))
    whole = {key for key, (place, _) in there.items() if place not in found.troubles}
    for run in sweep.runs:
        number = run.run
        if number not in needing or number in found.lost:
            continue
        if not needed_snapshots(run, found) <= {step for other, step in whole if other == number}:
            found.lost.append(number)


def needed_snapshots(run: Run, found: Findings) -> set[int]:
    """The steps at which there must be snapshots of a run that has begun."""
    done = found.at.get(run.run, found.ledger.records[run.run]["last_step"] or 0)
    steps = set(range(0, done + 1, run.values["snapshot_every"]))
    return steps | ({done} if found.ledger.over(run.run) else set())


def repair(path: Path, found: Findings) -> None:
    """Removes what is surplus, sets aside what is damaged, and takes back the rows of lost runs.

    Raises:
      StorageError: something cannot be changed.
    """
    for folder in (
        path,
        *(path / name for name in ("metrics", "checkpoints", "snapshots", final_states.FOLDER, "report")),
    ):
        files.remove_leftovers(folder)
        files.remove_leftovers(files.checksum_path(folder / "name").parent)
    if found.changed:
        # Before the rows: a run is never said to have more of them than there are.
        files.write_parquet(found.ledger.table(waiting=found.lost), path / "runs.parquet")
    for place in found.troubles:
        files.set_aside(place)
    for place, rows in found.surplus.items():
        if rows:
            files.write_parquet(read_part(place).slice(0, rows), place)
        else:
            files.remove(place)
    if found.lost:
        lost = pa.array(found.lost, pa.int32())
        for place in parts(path / "metrics"):
            table = read_part(place)
            kept = table.filter(pc.invert(pc.is_in(table["run"], lost)))
            if not kept.num_rows:
                files.remove(place)
            elif kept.num_rows < table.num_rows:
                files.write_parquet(kept, place)
