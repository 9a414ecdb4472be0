"""Runs that other directories have: taken from there, bit for bit, where all that they depend on agrees."""

import json
import shutil

import pandas as pd
import pytest
import tiny
from doubles import StopAfter

from faults import comparison
from grokjax.errors import InputError
from grokjax.report import write
from grokjax.store import check, files, final_states
from grokjax.store.metrics import parts, read_metrics, read_runs
from grokjax.store.records import RECORDS, read_record


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(write, "write", lambda path: None)


def config(seeds=(0, 1), decays=(0.0, 1.0), **fields):
    c = tiny.get_config("paper")
    c.steps, c.slots, c.checkpoint_every_steps, c.snapshot_every = 100, 2, 40, 20
    c.sweep.seed, c.sweep.weight_decay = seeds, decays
    for name, value in fields.items():
        c[name] = value
    return c


def train(path, c, **more):
    status, text = tiny.train(c, path, **more)
    assert status == 0, text
    return " ".join(text.split())


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Two seeds of two decays, with the final states kept."""
    path = tmp_path_factory.mktemp("reuse") / "there"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "write", lambda path: None)
        train(path, config(keep_final_state=1))
    return path


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    path = tmp_path_factory.mktemp("reuse") / "fresh"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "write", lambda path: None)
        train(path, config((2, 1), (1.0, 0.5)))
    return path


def trained(monkeypatch):
    """The runs that are started from now on, by their seeds."""
    from grokjax.training.population import Population

    seeds, start = [], Population.start
    monkeypatch.setattr(
        Population, "start", lambda self, runs: (seeds.extend(int(x.seed) for x in runs.values()), start(self, runs))[1]
    )
    return seeds


def test_what_is_there_is_taken_and_the_rest_is_trained(there, fresh, tmp_path, monkeypatch):
    seeds = trained(monkeypatch)
    text = train(tmp_path / "a", config((2, 1), (1.0, 0.5)), reuse=[there])
    assert f"taken from {there}: run 1" in text
    assert sorted(seeds) == [1, 2, 2]
    assert comparison.differences(tmp_path / "a", fresh) == []
    assert check.check(tmp_path / "a")[1]
    assert "is finished: nothing to do" in train(tmp_path / "a", config((2, 1), (1.0, 0.5)))


@pytest.mark.long
def test_a_sweep_may_be_put_together_of_shards_alone(tmp_path, monkeypatch):
    c = config()
    for i in range(2):
        train(tmp_path / "all", c, shard=(i, 2))
    shards = [tmp_path / "all" / f"shard-{i}-of-2" for i in range(2)]
    assert [read_runs(path)["run"].tolist() for path in shards] == [[0, 2], [1, 3]]
    train(tmp_path / "whole", c)
    seeds = trained(monkeypatch)
    train(tmp_path / "merged", c, reuse=shards)
    assert seeds == []
    assert comparison.differences(tmp_path / "merged", tmp_path / "whole") == []


@pytest.mark.long
def test_states_are_taken_too_and_gone_on_from(there, tmp_path, monkeypatch):
    train(tmp_path / "a", config(keep_final_state=1), reuse=[there])
    assert final_states.find(tmp_path / "a").keys() == final_states.find(there).keys()
    longer = config(keep_final_state=1)
    longer.steps = 140
    train(tmp_path / "a", longer, extend=True)
    train(tmp_path / "long", longer)
    assert comparison.differences(tmp_path / "a", tmp_path / "long") == []


def test_a_sweep_that_is_extended_takes_runs_and_is_stopped(there, fresh, tmp_path):
    path, wanted = tmp_path / "a", config((2, 1), (1.0, 0.5))
    train(path, config((2,), (1.0, 0.5)))
    assert tiny.train(wanted, path, extend=True, reuse=[there], stop=StopAfter(4))[0] == 143
    train(path, wanted)
    mine, theirs = (
        read_metrics(place).sort_values(["seed", "weight_decay", "step"], ignore_index=True).drop(columns="run")
        for place in (path, fresh)
    )
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.fixture
def copy(there, tmp_path):
    return shutil.copytree(there, tmp_path / "copy")


def changed(path, **values):
    record = json.loads((path / "config.json").read_text())
    for name in RECORDS:
        files.write_text(json.dumps(record | values), path / name)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"platform": "tpu"}, "platform was 'tpu' there and is 'cpu' here"),
        ({"instructions": "x"}, "instructions was 'x' there"),
        ({"cpu_threads": 77}, "cpu_threads was 77 there"),
        ({"versions": {"jax": "0.1"}}, "version of grokjax was None there"),
        ({"groups": [{"slots": 2, "lanes": 2, "eval_lanes": 1, "n_devices": 1}]}, "width was 2 there and is 1 here"),
    ],
)
def test_what_differs_is_said_and_the_run_is_trained(copy, tmp_path, values, text, monkeypatch):
    changed(copy, **values)
    seeds = trained(monkeypatch)
    said = train(tmp_path / "a", config((1,), (1.0,)), reuse=[copy])
    assert f"note: run 3 of {copy} cannot be reused: {text}" in said
    assert seeds == [1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"measures": ("paper", "clock")}, "it has no column"),
        ({"key_threshold": 0.5}, "key_threshold was 0.25 there and is 0.5 here"),
        ({"eval_every": 10}, "eval_every was 20 there and is 10 here"),
        ({"snapshot_every": 50, "eval_every": 10}, "eval_every was"),
    ],
)
def test_what_the_sweep_logs_must_be_there(there, tmp_path, fields, text):
    assert f"cannot be reused: {text}" in train(tmp_path / "a", config((1,), (1.0,), **fields), reuse=[there])


def test_fewer_measures_are_there(there, tmp_path, monkeypatch):
    seeds = trained(monkeypatch)
    c = config((1,), (1.0,), measures=())
    train(tmp_path / "a", c, reuse=[there])
    train(tmp_path / "fresh", c)
    assert seeds == [1]
    assert comparison.differences(tmp_path / "a", tmp_path / "fresh") == []


def test_another_length_is_another_run(there, tmp_path):
    c = config((1,), (1.0,))
    c.steps = 60
    assert f"note: {there} has none of the runs that are left to train." in train(tmp_path / "a", c, reuse=[there])


def test_damage_is_not_taken(copy, tmp_path):
    parts(copy / "metrics")[0].write_bytes(b"?")
    text = train(tmp_path / "a", config((1,), (1.0,)), reuse=[copy])
    assert f"note: {copy} has none" in text or "files in it are damaged" in text
    assert read_runs(tmp_path / "a")["status"].tolist() == ["finished"]


def test_a_directory_without_a_sweep_is_refused(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no sweep"):
        tiny.train(config(), tmp_path / "a", reuse=[tmp_path / "none"])
    assert not (tmp_path / "a").exists()


def test_runs_of_an_extension_are_held_against_its_environment(copy, tmp_path):
    record = read_record(copy)
    changed(copy, extensions=[{"from_run": 3, **record, "cpu_threads": 5}])
    text = train(tmp_path / "a", config((0, 1), (1.0,)), reuse=[copy])
    assert f"taken from {copy}: run 0" in text
    assert f"run 3 of {copy} cannot be reused: cpu_threads was 5 there" in text
