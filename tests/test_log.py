"""Sweeps logged to a tool: every number once, whatever interrupts it; the tools themselves are in test_trackers.py."""

import json
import os
import signal

import pandas as pd
import pytest
import tiny
from commands import assert_refused, call
from doubles import StopAfter
from launches import ended, launch, wait_for

import grokjax
from grokjax.cli.main import main
from grokjax.errors import InputError, StorageError
from grokjax.sharing import log as log_module
from grokjax.sharing import tracker
from grokjax.store.metrics import read_metrics, read_runs


class Memory:
    """A tool that keeps what it is told; it may fail at the n-th evaluation."""

    def __init__(self, fails_at=None):
        self.runs, self.began, self.reports, self.left = {}, [], [], fails_at

    def begin(self, run):
        self.began.append((run.number, run.logged))
        return Kept(self, self.runs.setdefault(run.name, {"config": run.config, "rows": [], "outcome": None}))

    def report(self, sweep, files):
        self.reports.append((sweep, [file.name for file in files]))


class Kept:
    def __init__(self, tool, run):
        self.tool, self.run, self.unsaved = tool, run, []

    def log(self, step, values):
        if self.tool.left is not None:
            self.tool.left -= 1
            if self.tool.left < 0:
                raise OSError("the tool is gone")
        self.unsaved.append((step, dict(values)))

    def flush(self):
        self.run["rows"] += self.unsaved
        self.unsaved = []

    def end(self, outcome):
        self.run["outcome"] = outcome

    def close(self):
        self.run["closed"] = True


def merged(run):
    """The columns of a run by step; nothing is there twice."""
    found = {}
    for step, values in run["rows"]:
        row = found.setdefault(step, {})
        assert not row.keys() & values.keys()
        row |= values
    return found


def assert_all_is_there(tool, path):
    metrics, runs = read_metrics(path), read_runs(path)
    for row in runs.to_dict("records"):
        rows = metrics[metrics["run"] == row["run"]].set_index("step")
        names = [name for name in rows if name not in ("run", "seed", "weight_decay") and rows[name].dtype != object]
        names = [name for name in names if pd.api.types.is_numeric_dtype(rows[name])]
        expected = {
            step: {name: float(value) for name, value in values.items() if not pd.isna(value)}
            for step, values in rows[names].to_dict("index").items()
        }
        run = tool.runs[f"run_{row['run']:05d}"]
        assert merged(run) == expected
        assert run["outcome"]["status"] == row["status"]
        assert run["config"]["weight_decay"] == row["weight_decay"]


def test_every_number_is_logged_once(finished, tmp_path):
    path = finished[0]
    tool, said = Memory(), []
    assert grokjax.log(path, tool, out=tmp_path, tell=said.append) == 44
    assert said == ["44 evaluations logged to Memory"]
    assert_all_is_there(tool, path)
    assert "restricted_loss" in merged(tool.runs["run_00001"])[100]
    assert tool.runs["run_00001"]["rows"][-1][1].keys() >= {"restricted_loss", "excluded_loss"}  # once it has ended
    found = grokjax.open(path).phases().set_index("run").loc[1]
    outcome = tool.runs["run_00001"]["outcome"]
    assert outcome["memorised_by"] == found["memorised_by"]
    assert outcome["phases_sentence"] == found["phases_sentence"]
    assert outcome["n_key_freqs"] == len(read_runs(path)["key_freqs"][1])
    assert "freq_norm_W_E" not in tool.runs["run_00001"]["rows"][0][1]
    assert tool.reports == [("tiny", ["index.html", "losses.png"])]
    assert grokjax.log(path, tool, out=tmp_path) == 0
    assert (len(tool.began), len(tool.reports)) == (4, 1)


def test_a_hyperparameter_is_a_number_or_a_text(finished, tmp_path):
    tool = Memory()
    grokjax.log(finished[0], tool, out=tmp_path)
    config = tool.runs["run_00003"]["config"]
    assert (config["seed"], config["weight_decay"], config["measures"], config["model.act"]) == (
        1,
        1.0,
        "paper",
        "relu",
    )
    assert {type(value) for value in config.values()} == {int, float, str}
    assert "split_seed" not in config


@pytest.mark.parametrize("fails_at", [0, 5, 11, 12, 30, 50])
def test_where_the_tool_fails_the_next_call_goes_on(finished, tmp_path, fails_at):
    tool = Memory(fails_at)
    with pytest.raises(StorageError, match=r"Memory failed \(OSError: the tool is gone\); what was logged before is"):
        grokjax.log(finished[0], tool, out=tmp_path)
    tool.left = None
    before = {name: len(run["rows"]) for name, run in tool.runs.items()}
    grokjax.log(finished[0], tool, out=tmp_path)
    assert_all_is_there(tool, finished[0])
    assert all(len(tool.runs[name]["rows"]) >= n for name, n in before.items())


@pytest.mark.long
def test_a_sweep_that_is_stopped_and_gone_on_with(tmp_path):
    c, tool = tiny.get_config("paper"), Memory()
    c.steps, c.checkpoint_every_steps = 1_000, 200
    assert tiny.train(c, tmp_path / "a", stop=StopAfter(4))[0] != 0
    first = grokjax.log(tmp_path / "a", tool, out=tmp_path / "logs")
    assert first > 0
    assert all(run["outcome"] is None for run in tool.runs.values())
    assert tool.reports == []
    assert tiny.train(c, tmp_path / "a")[0] == 0
    assert first + grokjax.log(tmp_path / "a", tool, out=tmp_path / "logs") == len(read_metrics(tmp_path / "a"))
    assert_all_is_there(tool, tmp_path / "a")


def test_two_sweeps_and_two_tools_keep_notes_apart(finished, tmp_path):
    for name in ("x", "y"):
        assert grokjax.log(finished[0], Memory(), out=tmp_path, name=name) == 44

    class Other(Memory):
        pass

    assert grokjax.log(finished[0], Other(), out=tmp_path, name="x") == 44


MINE = """
class Lines:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def begin(self, run):
        self.name = run.name
        return self

    def log(self, step, values):
        with open(self.folder / f"{self.name}.txt", "a") as file:
            print(step, len(values), file=file)

    def flush(self): pass
    def end(self, outcome): pass
    def close(self): pass
    def report(self, sweep, files): pass

get_tracker = Lines
"""


def test_the_command_with_a_tool_of_ones_own(finished, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    given = [str(finished[0]), f"--to={tmp_path / 'mine.py'}", f"--out={tmp_path / 'logs'}"]
    assert call(capsys, main, "log", *given) == (0, "44 new evaluations logged\n", "")
    assert len((tmp_path / "logs" / "run_00002.txt").read_text().splitlines()) == 14  # 11, and 3 of final keys
    assert call(capsys, main, "log", *given) == (0, "nothing new to log\n", "")


def test_mistakes(finished, tmp_path, capsys, monkeypatch):
    path = str(finished[0])
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_text("1 / 0")
    assert_refused(call(capsys, main, "log", path), "the following arguments are required: --to")
    assert_refused(
        call(capsys, main, "log", path, "--to=tensorbord"), "'tensorbord' is unknown: did you mean 'tensorboard'?"
    )
    assert_refused(call(capsys, main, "log", path, f"--to={tmp_path / 'no.py'}"), "no.py names no file")
    assert_refused(call(capsys, main, "log", path, f"--to={tmp_path / 'empty.py'}"), "has no get_tracker(folder)")
    assert_refused(
        call(capsys, main, "log", path, f"--to={tmp_path / 'broken.py'}"), "broken.py, line 1, failed with Zero"
    )
    assert_refused(call(capsys, main, "log", str(tmp_path), "--to=wandb"), "holds no sweep")
    assert_refused(call(capsys, main, "log", path, "--to=wandb", "--every=0"), "--every=0 must be")
    assert_refused(call(capsys, main, "log", path, "--to=wandb", "--out=s3://b/c"), "--out=s3://b/c")
    monkeypatch.setitem(tracker.TOOLS, "tensorboard", "no_such_package")
    assert_refused(
        call(capsys, main, "log", path, "--to=tensorboard"), "needs no_such_package: pip install -e '.[tensorboard]'"
    )


def test_notes_that_are_damaged_or_in_use(finished, tmp_path):
    class Nested(Memory):
        def begin(self, run):
            with pytest.raises(InputError, match="is in use by process"):
                grokjax.log(finished[0], Nested(), out=tmp_path)
            return super().begin(run)

    grokjax.log(finished[0], Nested(), out=tmp_path)
    notes = next(tmp_path.rglob("logged.json"))
    notes.write_text("[")
    with pytest.raises(InputError, match=r"logged\.json is not what was written: remove it to log all again"):
        grokjax.log(finished[0], Nested(), out=tmp_path)


@pytest.mark.parametrize("vanished", [FileNotFoundError("live holds no metrics"), None])
def test_parts_that_a_sweep_takes_away_meanwhile_are_waited_for(finished, tmp_path, monkeypatch, vanished):
    """Where a sweep goes on from a checkpoint, what was written after it is no longer there."""
    tool, read = Memory(), log_module.metrics_table

    def vanishing(*args):
        if vanished:
            raise vanished
        return read(*args)

    monkeypatch.setattr(log_module, "metrics_table", vanishing)
    n = grokjax.log(finished[0], tool, out=tmp_path)
    assert (n == 0) == bool(vanished)


@pytest.mark.long
def test_following_a_sweep_that_trains(tmp_path):
    """From before there is anything to the end of its last run; killed once, and gone on with."""
    process = launch(tmp_path / "live", "--config.measures=('paper',)", "--config.snapshot_every=1000")
    wait_for(lambda: (tmp_path / "live" / "config.json").is_file(), process)
    tool, looks, again = Memory(), [], []

    def tell(text):
        looks.append(text)
        if len(looks) == 1:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            again.append(launch(tmp_path / "live", "--config.measures=('paper',)", "--config.snapshot_every=1000"))

    grokjax.log(tmp_path / "live", tool, out=tmp_path / "logs", follow=True, every=0.2, tell=tell)
    assert ended(again[0])[0] == 0
    assert_all_is_there(tool, tmp_path / "live")
    assert json.loads(next((tmp_path / "logs").rglob("logged.json")).read_text())["runs"].keys() == set("0123")
