"""Going on, in pretence: what is cut, what is trained again, and whose state each run goes on from."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
from doubles import StopAfter
from pretended import Population, models, rows, train, value

from grokjax import sweeps
from grokjax.columns import FINAL, SUMMARY
from grokjax.store import checkpoints, files, recovery
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import part_name, parts, read_part, read_runs
from grokjax.store.recovery import Checkpoint, Findings
from grokjax.store.snapshots import find_snapshots
from grokjax.training import scheduler

STEPS = [60, 100, 40, 80, 60, 40, 60]  # of run 0, 1, …; runs 0 to 3 are of one group, 4 to 6 of another
LAST = [60, 60, 40, 80, 60, 40, 60]  # run 1 stops


def several(monkeypatch):
    """Seven runs of two groups on two slots, of which one stops; dispatches of 7 steps, or 6 to the evaluation."""
    monkeypatch.setattr(Population, "low", {1: [20, 40, 60, 80]})
    monkeypatch.setattr(scheduler.Group, "_size", sevens)
    c = tiny.get_config()
    c.sweep.weight_decay = c.sweep.seed = None
    c.stop_loss, c.stop_evals, c.snapshot_every = 0.5, 3, 40
    fields = [{"seed": i, "steps": n, "model.d_mlp": 16 if i < 4 else 8} for i, n in enumerate(STEPS)]
    return c, lambda c: fields


def sevens(self):
    """In place of `Group._size`."""
    left = self.problem.eval_every - self.offset
    return 1, min(7, left), left <= 7


def assert_whole(path):
    """The rows and snapshots are those of an uninterrupted sweep."""
    assert rows(path) == {(run, step): value(run, step) for run, n in enumerate(LAST) for step in range(0, n + 1, 20)}
    wanted = {(run, step) for run, n in enumerate(LAST) for step in {*range(0, n + 1, 40), n}}
    assert models(path) == {key: value(*key) for key in wanted}
    statuses = ["finished", "stopped", *["finished"] * 5]
    assert read_runs(path)["status"].tolist() == statuses
    assert read_runs(path)["last_step"].tolist() == LAST


@pytest.mark.parametrize("asks", [6, 11])
def test_a_sweep_in_pieces_trains_nothing_twice_and_nothing_else(asks, tmp_path, monkeypatch):
    c, get_sweep = several(monkeypatch)
    n, done, starts, groups = 0, False, 0, set()
    while not done:
        starts += 1
        assert starts < 40
        try:
            train(monkeypatch, c, tmp_path / "a", stop=StopAfter(asks), get_sweep=get_sweep)
            done = True
        except scheduler.Interrupted:
            ((_, (newest,)), *_) = checkpoints.complete(tmp_path / "a" / "checkpoints")
            groups.add(checkpoints.read_progress(newest)["group"])
        n += sum(len(seeds) * n_segments * n_steps for seeds, n_segments, n_steps, *_ in Population.dispatches)
    assert_whole(tmp_path / "a")
    assert groups == {0, 1}
    # A dispatch is in flight when run 1 is seen to have stopped, so that it may be asked for a few steps too many.
    assert sum(LAST) <= n <= sum(LAST) + 20


def interrupted(monkeypatch, path, asks=9):
    c, get_sweep = several(monkeypatch)
    with pytest.raises(scheduler.Interrupted):
        train(monkeypatch, c, path, stop=StopAfter(asks), get_sweep=get_sweep)
    return sweeps.expand(c, get_sweep), lambda: train(monkeypatch, c, path, get_sweep=get_sweep)


def test_rows_after_the_checkpoint_are_cut(tmp_path, monkeypatch):
    sweep, go_on = interrupted(monkeypatch, tmp_path / "a")
    (part,) = parts(tmp_path / "a" / "metrics")
    table = read_part(part)
    found = recovery.examine(tmp_path / "a", sweep)
    assert not found.changed
    assert found.checkpoint.marks == {0: (0, table.num_rows)}
    last = table.to_pylist()[-1]
    later = pa.Table.from_pylist([{**last, "run": run, "step": step} for run, step in ((0, 980), (0, 960), (1, 960))])
    later = later.cast(table.schema)
    files.write_parquet(pa.concat_tables([table, later.slice(0, 1)]), part)
    other = part.with_name(part_name(1))
    files.write_parquet(later.slice(1), other)
    found = recovery.examine(tmp_path / "a", sweep)
    assert found.surplus == {part: table.num_rows, other: 0}
    assert found.redone == {0: 980, 1: 960}
    assert (found.troubles, found.lost) == ({}, [])
    recovery.repair(tmp_path / "a", found)
    assert read_part(part).equals(table)
    assert not other.exists()
    go_on()
    assert_whole(tmp_path / "a")


def spoil(folder):
    """Damages one of its files."""
    next(file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size > 99).write_bytes(b"?")


def test_a_damaged_checkpoint_means_the_one_before(tmp_path, monkeypatch):
    sweep, go_on = interrupted(monkeypatch, tmp_path / "a", 6)
    before = recovery.examine(tmp_path / "a", sweep)
    interrupted(monkeypatch, tmp_path / "a", 5)
    newest = recovery.examine(tmp_path / "a", sweep)
    assert newest.checkpoint.number > before.checkpoint.number
    (older,), (folder,) = before.checkpoint.folders, newest.checkpoint.folders
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    spoil(tmp_path / "b" / "checkpoints" / older.name)
    assert not recovery.examine(tmp_path / "b", sweep).troubles  # no resume needs it
    assert len(recovery.examine(tmp_path / "b", sweep, every_snapshot=True).troubles) == 1
    spoil(folder)
    found = recovery.examine(tmp_path / "a", sweep)
    assert vars(found.checkpoint) == vars(before.checkpoint)
    assert list(found.troubles) == [folder]
    assert found.at == before.at
    assert found.lost == []
    go_on()
    assert_whole(tmp_path / "a")


def test_a_run_without_all_of_its_rows_is_trained_again_and_the_others_are_not(tmp_path, monkeypatch):
    sweep, go_on = interrupted(monkeypatch, tmp_path / "a", 12)
    (part,) = parts(tmp_path / "a" / "metrics")
    table = read_part(part)
    ended = table.filter((np.array(table["run"]) == 0) & (np.array(table["step"]) == 60))
    assert ended.num_rows == 1
    kept = ~((np.array(table["run"]) == 0) & (np.array(table["step"]) == 20))
    files.write_parquet(table.filter(kept), part)
    found = recovery.examine(tmp_path / "a", sweep)
    assert found.lost == [0]
    recovery.repair(tmp_path / "a", found)
    assert 0 not in {run for run, _ in rows(tmp_path / "a")}
    assert read_runs(tmp_path / "a")["status"][0] == "waiting"
    go_on()
    assert_whole(tmp_path / "a")


def without(path, run, step):
    """Removes a row."""
    for part in parts(path / "metrics"):
        table = read_part(part)
        files.write_parquet(table.filter((np.array(table["run"]) != run) | (np.array(table["step"]) != step)), part)


def test_a_run_that_goes_on_has_its_own_state_where_the_one_before_it_has_lost_rows(tmp_path, monkeypatch):
    sweep, go_on = interrupted(monkeypatch, tmp_path / "a", 9)
    found = recovery.examine(tmp_path / "a", sweep)
    first, second = found.checkpoint.steps
    assert min(found.at[first], found.at[second]) > 20
    without(tmp_path / "a", first, 0)
    assert list(recovery.examine(tmp_path / "a", sweep).at) == [second]
    go_on()
    assert_whole(tmp_path / "a")


def test_a_run_whose_snapshot_is_lost_waits_again(tmp_path, monkeypatch):
    sweep, _ = interrupted(monkeypatch, tmp_path / "a", 12)
    run = next(iter(recovery.examine(tmp_path / "a", sweep).at))
    place, _ = find_snapshots(tmp_path / "a")[run, 0]
    shutil.rmtree(place)
    found = recovery.examine(tmp_path / "a", sweep)
    assert run in found.lost
    recovery.repair(tmp_path / "a", found)
    assert recovery.examine(tmp_path / "a", sweep).ledger.records[run] == dict.fromkeys(SUMMARY) | {"status": "waiting"}
    assert read_runs(tmp_path / "a")["status"][run] == "waiting"
    assert run not in {other for other, _ in rows(tmp_path / "a")}


def test_the_checkpoints_group_goes_on_before_an_earlier_one_is_trained_again(tmp_path, monkeypatch):
    sweep, go_on = interrupted(monkeypatch, tmp_path / "a", 30)
    found = recovery.examine(tmp_path / "a", sweep)
    assert found.checkpoint.group == 1
    assert found.at.keys() <= {4, 5, 6}
    without(tmp_path / "a", 2, 0)
    go_on()
    groups = ["later" if min(seeds) >= 4 else "earlier" for seeds, *_ in Population.dispatches]
    assert groups == sorted(groups, reverse=True)
    assert set(groups) == {"later", "earlier"}
    assert_whole(tmp_path / "a")


def test_what_is_kept_of_each_part():
    marks = {0: (3, 10), 1: (2, 5)}
    all_of_it = recovery._rows_to_keep(Path("part-000000.parquet"), None)
    assert all_of_it > 1e18
    wanted = {(2, 0): all_of_it, (3, 0): 10, (4, 0): 0, (1, 1): all_of_it, (2, 1): 5, (3, 1): 0}
    wanted |= {(1, 2): all_of_it, (2, 2): 0, (3, 2): 0}  # of a process that had no part in the checkpoint
    for (number, process), rows_kept in wanted.items():
        path = Path(part_name(number, process))
        assert recovery._rows_to_keep(path, marks) == rows_kept, path


def test_a_checkpoint_of_two_processes_tells_of_all_runs():
    progress = [
        {"group": 1, "offset": 7, "runs": [4, 2], "steps": [47, 27], "process": 0, "part": 3, "rows": 10},
        {"group": 1, "offset": 7, "runs": [5], "steps": [67], "process": 1, "part": 2, "rows": 5},
    ]
    one = Checkpoint(3, ["a", "b"], progress)
    assert (one.group, one.offset) == (1, 7)
    assert one.steps == {4: 47, 2: 27, 5: 67}
    assert one.marks == {0: (3, 10), 1: (2, 5)}


def test_snapshots_that_a_run_cannot_do_without():
    c = tiny.get_config()
    c.snapshot_every = 60
    runs = sweeps.expand(c).runs
    found = Findings(Ledger(runs))
    frame = {"run": [0, 1], "step": [200, 100]} | {name: [1.0, 1.0] for name in FINAL}
    found.ledger.update(frame)
    progress = {"group": 0, "offset": 13, "runs": [1, 2], "steps": [113, 60], "process": 0, "part": 0, "rows": 9}
    found.checkpoint = Checkpoint(0, [], [progress])
    assert [recovery.needed_snapshots(run, found) for run in runs[:3]] == [{0, 60, 120, 180, 200}, {0, 60}, {0, 60}]
