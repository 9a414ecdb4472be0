"""The seed that a split was drawn with: in the tables, where split_seed may be null, which pandas' groupby drops."""

import shutil

import pyarrow.parquet as pq
import pytest
import tiny
from commands import call

from grokjax.cli import phases
from grokjax.interp.circuit.runs import circuits_of
from grokjax.interp.replay import Replay, replay
from grokjax.store import files
from grokjax.store.metrics import parts, read_metrics, read_part, read_runs, read_table

USED = [0, 5, 1, 5]  # by run


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "seeds"
    c = tiny.get_config("paper")
    c.steps, c.snapshot_every = 20, 20
    c.sweep.weight_decay, c.sweep.split_seed = (1.0,), (None, 5)
    assert tiny.train(c, path)[0] == 0
    return path


@pytest.fixture
def old(swept, tmp_path):
    """A directory as earlier versions made it, without the column."""
    path = shutil.copytree(swept, tmp_path / "old")
    for place in (path / "runs.parquet", *parts(path / "metrics")):
        files.write_parquet(read_part(place).drop_columns(["split_seed_used"]), place)
    return path


def test_groupby_keeps_every_run(swept):
    runs = read_runs(swept).sort_values("run")
    assert sum(len(some) for _, some in runs.groupby("split_seed")) == 2  # what was seen before
    assert runs["split_seed_used"].tolist() == USED
    metrics = read_table(swept / "metrics")
    assert {used: set(some["run"]) for used, some in metrics.groupby("split_seed_used")} == {0: {0}, 1: {2}, 5: {1, 3}}
    assert metrics.columns.get_loc("split_seed_used") == metrics.columns.get_loc("split_seed") + 1


def test_it_says_what_it_is(swept):
    field = pq.read_schema(swept / "runs.parquet").field("split_seed_used")
    assert (
        field.metadata[b"description"] == b"Seed that the split was drawn with: split_seed, or seed where that is null."
    )


def test_replays_have_it(swept):
    found = read_table(replay(swept, Replay(keys=(1, 2))))
    assert dict(zip(found["run"], found["split_seed_used"], strict=True)) == dict(enumerate(USED))


def test_old_tables_are_filled_when_they_are_read(old, swept):
    assert read_runs(old).sort_values("run")["split_seed_used"].tolist() == USED
    new = read_metrics(swept)
    assert read_metrics(old)[new.columns.tolist()].map(str).equals(new.map(str))
    assert read_metrics(old, ["run", "step"]).columns.tolist() == ["run", "step"]


def test_metrics_of_another_tool_are_read_without(old):
    files.remove(old / "runs.parquet")
    assert "split_seed_used" not in read_metrics(old)


def test_a_sweep_over_other_fields_has_it_in_its_runs_alone(finished):
    assert read_runs(finished[0])["split_seed_used"].tolist() == read_runs(finished[0])["seed"].tolist()
    assert "split_seed_used" not in read_metrics(finished[0])


def test_phases_are_grouped_by_it(swept, capsys):
    status, out, _ = call(capsys, phases.main, str(swept), "--by=split_seed_used")
    assert status == 0
    assert "split_seed_used" in out


def test_circuits_have_it(swept):
    found = read_part(circuits_of(swept)[0]).to_pylist()
    assert {row["run"]: row["split_seed_used"] for row in found} == dict(enumerate(USED))
