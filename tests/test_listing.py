"""Sweeps found under a folder and shown: finished, in training, interrupted, waiting, unreadable; `list` and `show`."""

import json
import os
import signal
import time

import pytest
import tiny
from commands import assert_refused, call
from doubles import StopAfter
from launches import ended, launch, wait_for

from grokjax.cli import list as list_command
from grokjax.cli import show
from grokjax.cli.main import main
from grokjax.errors import InputError
from grokjax.store import files, listing, locks
from grokjax.store.metrics import read_progress


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished sweep, a part of it inside, one that was stopped, and what is no sweep."""
    root = tmp_path_factory.mktemp("listed")
    assert tiny.train(tiny.get_config(), root / "done")[0] == 0
    assert tiny.train(tiny.get_config(), root / "done", only=[1])[0] == 0
    c = tiny.get_config("long")
    assert tiny.train(c, root / "deep" / "stopped", stop=StopAfter(3))[0] != 0
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text('{"architectures": ["GPT2"]}')
    return root


def by_name(root):
    return {str(one.path.relative_to(root)): one for one in listing.find(root)}


def test_what_is_found(folder):
    found = by_name(folder)
    assert list(found) == ["deep/stopped", "done", "done/only_1"]
    done, inner, stopped = found["done"], found["done/only_1"], found["deep/stopped"]
    assert (done.state, done.runs, done.over) == ("finished", 4, 4)
    assert dict(done.axes) == {"weight_decay": [0.0, 1.0], "seed": [0, 1]}
    assert (inner.state, inner.runs, inner.note) == ("finished", 1, "a part of its sweep, 1 of 4 runs")
    assert (stopped.state, stopped.over) == ("interrupted", 0)


def test_sizes_and_times_are_those_of_the_files(folder):
    found = by_name(folder)
    every = [path for path in (folder / "done").rglob("*") if path.is_file()]
    mine = [path for path in every if "only_1" not in path.parts]
    assert found["done"].n_bytes == sum(path.stat().st_size for path in mine)
    assert found["done"].n_bytes + found["done/only_1"].n_bytes == sum(path.stat().st_size for path in every)
    assert found["done"].written == max(path.stat().st_mtime for path in mine)
    assert 0 <= time.time() - found["deep/stopped"].written < 600


def test_a_sweep_that_somebody_trains(folder):
    lock = locks.take(folder / "deep" / "stopped")
    try:
        assert by_name(folder)["deep/stopped"].state == "training"
    finally:
        lock.close()


def test_one_that_has_no_runs_yet_and_one_that_is_damaged(folder, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_bytes((folder / "done" / "config.json").read_bytes())
    (tmp_path / "bad").mkdir()
    for name in ("config.json", "runs.parquet"):
        (tmp_path / "bad" / name).write_bytes((folder / "done" / name).read_bytes()[:100])
    found = by_name(tmp_path)
    assert (found["new"].state, found["new"].runs, found["new"].over) == ("waiting", 4, 0)
    assert found["bad"].state == listing.UNREADABLE
    assert "cannot be read as JSON" in found["bad"].note
    with pytest.raises(InputError, match="cannot be read as JSON"):
        listing.look(tmp_path / "bad")


def test_a_bucket(folder):
    """By fsspec's own in memory, which tells sizes and times as the others do; test_objects.py has those."""
    root = files.path("memory://bucket/sweeps")
    for path in (folder / "done").rglob("*"):
        if path.is_file() and "only_1" not in path.parts:
            (root / "a" / path.relative_to(folder / "done").as_posix()).write_bytes(path.read_bytes())
    (one,) = listing.find(root)
    assert (str(one.path), one.state, one.over) == ("memory://bucket/sweeps/a", "finished", 4)
    assert one.n_bytes == by_name(folder)["done"].n_bytes
    assert abs(time.time() - one.written) < 600
    root.drop()


def test_the_commands(folder, capsys, monkeypatch):
    status, out, err = call(capsys, main, "list", str(folder))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["sweep", "state", "ended", "grokked", "axes", "age", "size"]
    assert "interrupted" in lines[1]
    assert "2 weight_decay × 2 seed" in lines[2]
    assert "only_1: a part of its sweep, 1 of 4 runs" in " ".join(out.split())
    monkeypatch.chdir(folder)
    found = json.loads(call(capsys, main, "list", "--json")[1])
    assert [one["path"] for one in found] == ["deep/stopped", "done", "done/only_1"]
    assert found[1]["axes"]["seed"] == [0, 1]
    assert call(capsys, main, "list", "model") == (0, "no sweep under model\n", "")
    assert_refused(call(capsys, main, "list", "modle"), "modle does not exist: did you mean 'model'?")


def test_show(folder, capsys):
    done = str(folder / "done")
    status, out, err = call(capsys, main, "show", done)
    assert (status, err) == (0, "")
    assert out.startswith(f"{done}: finished; 4 of 4 runs have ended, ")
    assert "weight_decay 0.0, 1.0 × seed 0, 1" in out
    assert "eval_every" in out
    assert "beta1" not in out
    assert len(out[out.index("Last evaluations") :].splitlines()) == 6
    assert "beta1" in call(capsys, main, "show", done, "--fields")[1]
    found = json.loads(call(capsys, main, "show", done, "--json", "--runs=2")[1])
    assert (found["state"], found["config"]["p"], len(found["last"])) == ("finished", 7, 2)
    assert found["last"][0]["last_step"] == 200
    assert_refused(call(capsys, main, "show", str(folder / "model")), "config.json is no sweep's")
    assert_refused(call(capsys, main, "show", str(folder)), "holds no sweep")
    assert_refused(call(capsys, main, "show", str(folder / "dnoe")), "did you mean")


@pytest.mark.parametrize(("n", "text"), [(10, "7, 8, 9, 10, 11, 12, 13, 14, 15, 16"), (11, "7, 8, …, 17 (11 values)")])
def test_many_values_of_an_axis_are_abridged(n, text):
    assert show._listed(range(7, 7 + n)) == text


@pytest.mark.long
def test_while_it_trains_and_after_it_was_killed(tmp_path, capsys):
    process = launch(tmp_path / "live", "--config.steps=400000")
    live = tmp_path / "live"
    wait_for(lambda: (live / "runs.parquet").is_file() and read_progress(live)["last_step"].notna().any(), process)
    found = json.loads(call(capsys, main, "show", str(tmp_path / "live"), "--json")[1])
    assert found["state"] == "training"
    assert found["last"][0]["status"] == "training"
    assert json.loads(call(capsys, main, "list", str(tmp_path), "--json")[1])[0]["state"] == "training"
    os.kill(process.pid, signal.SIGKILL)
    ended(process)
    assert json.loads(call(capsys, main, "list", str(tmp_path), "--json")[1])[0]["state"] == "interrupted"


def test_ages_and_sizes_in_words():
    assert [list_command.age(x) for x in (0, 119, 120, 7_200, 172_800)] == ["0 s", "119 s", "2 min", "2 h", "2 days"]
    assert [list_command.size(x) for x in (0, 1023, 1024, 20_480, 3 << 30)] == [
        *("0 B", "1023 B", "1.0 KiB", "20 KiB", "3.0 GiB")
    ]
