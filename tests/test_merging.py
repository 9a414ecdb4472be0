"""Parts of a sweep put together: what one process would have left, and a sentence where that cannot be."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import tiny
from commands import assert_refused, call
from doubles import StopAfter

import grokjax
from faults import comparison
from grokjax import sweeps
from grokjax.cli.main import main
from grokjax.errors import InputError
from grokjax.store import check, final_states, merging
from grokjax.store.records import read_record


def config(steps=100):
    """Groups of two sizes, of which one diverges, so that parts differ in what they hold."""
    c = tiny.get_config("paper")
    c.steps, c.slots, c.checkpoint_every_steps, c.snapshot_every, c.keep_final_state = steps, 2, 40, 20, 1
    c.optimizer = "sgd"
    c.sweep = {"learning_rate": (1e-2, 1e6), "p": (7, 11)}
    return c


def train(path, c, **more):
    status, text = tiny.train(c, path, **more)
    assert status == 0, text
    return text


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    """Run 3 alone, and the others."""
    path = tmp_path_factory.mktemp("merging") / "shares"
    train(path, config(), shard=(0, 3))
    train(path, config(), shard=(1, 3))
    train(path, config(), shard=(2, 3))
    return [path / f"shard-{i}-of-3" for i in range(3)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("merging") / "whole"
    train(path, config())
    return path


@pytest.mark.long
def test_it_is_what_one_process_would_have_left(shares, whole, tmp_path, capsys):
    out = tmp_path / "merged"
    given = [str(path) for path in reversed(shares)]
    assert call(capsys, main, "merge", *given, f"--out={out}") == (0, f"written: {out}\n", "")
    assert comparison.differences(out, whole) == []
    assert final_states.find(out).keys() == final_states.find(whole).keys()
    mine, theirs = read_record(out), read_record(whole)
    assert {name for name in theirs if mine[name] != theirs[name]} <= {"width"}
    assert check.check(out)[1]
    assert (out / "report" / "index.html").is_file()
    assert "is finished: nothing to do" in train(out, config())
    grown = shutil.copytree(whole, tmp_path / "grown")
    for path in (out, grown):
        train(path, config(140), extend=True)
    assert comparison.differences(out, grown) == []


def changed(path, target, **values):
    """A copy whose config.json has other values, as one made by hand."""
    copy = shutil.copytree(path, target)
    record = json.loads((copy / "config.json").read_text()) | values
    for name in ("config.json", ".config.json.spare"):
        (copy / name).write_text(json.dumps(record))
        (copy / ".checksums" / f".{name}.sha256").unlink(missing_ok=True)
    return copy


@pytest.mark.parametrize(
    "change", [{"device_kind": "abacus"}, {"n_devices": 2}, {"n_devices": 0}, {"versions": {"jax": "0.0"}}]
)
def test_bits_of_another_machine_are_refused_whichever_comes_first(change):
    record = {"platform": "gpu", "device_kind": "card", "n_devices": 1, "versions": {"jax": "1.0"}}
    sweep = dataclasses.replace(sweeps.expand(tiny.get_config()), runs=())
    parts = [
        merging.Part(Path(name), made, sweep, found=None) for name, made in (("a", record), ("b", record | change))
    ]
    merging._refuse_other(parts[0], dataclasses.replace(parts[0], path=Path("c")))
    for first, second in (parts, parts[::-1]):
        with pytest.raises(InputError, match=f"{first.path} and {second.path} were not trained alike"):
            merging._refuse_other(first, second)


@pytest.mark.long
def test_what_is_no_part_or_not_whole_is_refused(shares, whole, tmp_path, capsys):
    out = tmp_path / "out"

    def refused(*given):
        done = call(capsys, main, "merge", *map(str, given), f"--out={out}")
        assert not out.exists()
        return done

    assert_refused(refused(*shares[:2]), "run 2 of the sweep's 4 are in none of the directories")
    assert_refused(refused(*shares, whole), f"run 0 is in {shares[0]} and in {whole}: leave one of them out")
    assert_refused(refused(shares[0], shares[0]), f"{shares[0]} is given twice")
    assert_refused(refused(tmp_path), f"{tmp_path} holds no sweep")
    other = changed(shares[1], tmp_path / "other", device_kind="abacus")
    assert_refused(refused(shares[0], other, shares[2]), "device_kind is 'cpu' in the first and 'abacus' in the second")
    lanes = [group | {"lanes": 2} for group in read_record(shares[1])["groups"]]
    other = changed(shares[1], tmp_path / "wider", groups=lanes)
    assert_refused(refused(shares[0], other, shares[2]), "were not trained alike, and bits depend on it: the layout is")
    train(tmp_path / "longer", config(120), shard=(1, 3))
    longer = tmp_path / "longer" / "shard-1-of-3"
    assert_refused(refused(shares[0], longer, shares[2]), "config.steps is 100 in the first and 120 in the second")
    assert tiny.train(config(), tmp_path / "begun", shard=(1, 3), stop=StopAfter(2))[0] == 143
    begun = tmp_path / "begun" / "shard-1-of-3"
    assert_refused(refused(shares[0], begun, shares[2]), f"run 1 of {begun} are not done: go on there")
    copy = shutil.copytree(shares[2], tmp_path / "copy")
    next((copy / "snapshots").iterdir()).joinpath(".manifest.json").write_text("?")
    assert_refused(refused(*shares[:2], copy), f"files in {copy} are damaged: grokjax check {copy} says which")


@pytest.mark.long
def test_what_is_there_already_stays(shares, whole, capsys):
    assert_refused(call(capsys, main, "merge", *map(str, shares), f"--out={whole}"), f"--out={whole} is there already")
    assert grokjax.open(whole).runs["run"].tolist() == [0, 1, 2, 3]


@pytest.mark.long
def test_a_failure_leaves_nothing(shares, tmp_path, monkeypatch):
    from grokjax.store import files, merging

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_parquet", full)
    with pytest.raises(OSError, match="No space"):
        merging.merge(shares, tmp_path / "out")
    assert not (tmp_path / "out").exists()
