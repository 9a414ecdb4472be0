"""What is found in a damaged or interrupted working directory, and what going on there gives."""

import shutil

import pytest
import tiny
from faultless import assert_goes_on_the_same, files, halfway, whole_and_halfway
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from grokjax.errors import InputError
from grokjax.store import checkpoints, recovery, workdir
from grokjax.store import files as files_lib
from grokjax.store.metrics import part_name, part_number, parts, read_metrics, read_part
from grokjax.store.records import RECORDS
from grokjax.store.snapshots import find_snapshots
from grokjax.store.sweep import load_sweep

__all__ = ["whole_and_halfway"]


def examine(path):
    return recovery.examine(path, load_sweep(path))


def test_halfway_has_something_to_go_on_from(whole_and_halfway):
    found = examine(whole_and_halfway[1])
    assert found.checkpoint
    assert found.at
    assert not found.changed
    assert len(checkpoints.complete(whole_and_halfway[1] / "checkpoints")) == 2
    assert found.ledger.count("finished") >= 1


def test_a_part_without_a_checksum_after_the_checkpoint_is_removed(whole_and_halfway, tmp_path):
    """As SIGKILL leaves it between a part's rename and its checksum's."""
    path = halfway(whole_and_halfway, tmp_path)
    part = parts(path / "metrics")[-1]
    later = part.with_name(part_name(1 + part_number(part)[0]))
    shutil.copy(part, later)
    found = examine(path)
    assert found.surplus == {later: 0}
    assert not found.troubles
    assert "set aside" not in assert_goes_on_the_same(path, whole_and_halfway)
    assert not read_metrics(path).duplicated(["run", "step"]).any()


def test_what_killed_processes_left_is_removed(whole_and_halfway, tmp_path):
    path = halfway(whole_and_halfway, tmp_path)
    for name in ("metrics/.part-000099.parquet.tmp", "snapshots/.step_00000099.runs_0.tmp/half", ".runs.parquet.tmp"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"half of it")
    recovery.repair(path, examine(path))
    assert not list(path.rglob("*.tmp"))


@pytest.mark.parametrize("left", [[".config.json.spare"], [".config.json.tmp", "..config.json.spare.tmp", ".lock"]])
def test_a_start_killed_while_it_wrote_its_config_is_started_again(left, tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    for name in left:
        (path / name).write_text('{"half": ')
    c = tiny.get_config()
    c.steps = 20
    assert tiny.train(c, path)[0] == 0


def test_a_directory_that_was_half_cleared_can_be_cleared_again(whole_and_halfway, tmp_path):
    path = halfway(whole_and_halfway, tmp_path)
    sweep = load_sweep(path)
    shutil.rmtree(path / "metrics")
    files_lib.remove(path / "config.json")
    workdir.Workdir(path, sweep).close()
    workdir.Workdir(path, sweep, overwrite=True).close()
    assert [p.name for p in path.iterdir()] == [".lock"]


def test_overwrite_is_possible_where_config_json_is_beyond_reading(whole_and_halfway, tmp_path):
    path = halfway(whole_and_halfway, tmp_path)
    sweep = load_sweep(path)
    for name in RECORDS:
        (path / name).write_text("{")
    with pytest.raises(InputError, match=r"config\.json is damaged: its checksum differs: restore it, or --overwrite"):
        workdir.Workdir(path, sweep)
    workdir.Workdir(path, sweep, overwrite=True).close()


def test_runs_that_are_trained_again_do_not_meet_damaged_snapshots(whole_and_halfway, tmp_path):
    path = halfway(whole_and_halfway, tmp_path)
    for part in parts(path / "metrics"):
        files_lib.remove(part)
    shutil.rmtree(path / "checkpoints")
    (snapshot,) = {place for (run, step), (place, _) in find_snapshots(path).items() if (run, step) == (0, 0)}
    (snapshot / "_METADATA").unlink(missing_ok=True)
    next(f for f in sorted(snapshot.rglob("*")) if f.is_file() and f.stat().st_size).write_bytes(b"?")
    assert "set aside" in assert_goes_on_the_same(path, whole_and_halfway)


@settings(max_examples=30)
@given(st.data())
def test_whatever_is_deleted_what_is_left_fits_together(whole_and_halfway, tmp_path_factory, data):
    path = halfway(whole_and_halfway, tmp_path_factory.mktemp("deleted"))
    delete(path, data)
    sweep = load_sweep(path)
    recovery.repair(path, examine(path))
    found = examine(path)
    assert not found.troubles
    assert not found.surplus
    rows = [read_part(part, ["run", "step"]).to_pandas() for part in parts(path / "metrics")]
    for run in sweep.runs:
        steps = sorted(step for part in rows for step in part[part["run"] == run.run]["step"])
        assert steps == list(range(0, 20 * len(steps), 20))
        done = 200 if found.ledger.over(run.run) else found.at.get(run.run, -20)
        assert len(steps) == done // 20 + 1


def delete(path, data):
    """Deletes any of a directory's files, but for one of the two copies of config.json."""
    kept = {path / ".config.json.spare", files_lib.checksum_path(path / ".config.json.spare")}
    for file in data.draw(st.sets(st.sampled_from([f for f in files(path) if f not in kept]))):
        file.unlink()


@pytest.mark.long
@settings(max_examples=3, phases=[Phase.generate])
@given(st.data())
def test_whatever_is_deleted_going_on_gives_the_same_tables(whole_and_halfway, tmp_path_factory, data):
    path = halfway(whole_and_halfway, tmp_path_factory.mktemp("deleted"))
    delete(path, data)
    assert_goes_on_the_same(path, whole_and_halfway, parameters=False)  # what has ended and is settled needs none
