"""Sweeps logged to the real tools, and read back: TensorBoard's event files, W&B offline, a tracker of one's own.

Each library is an extra, so these are skipped where it is not installed; .ci/run has them in an environment of its own.
"""

import importlib
import json
import os
import re
import shutil
import sqlite3

import pytest
import tiny
from doubles import StopAfter
from launches import ROOT

import grokjax
from grokjax.sharing import tensorboard
from grokjax.store.metrics import read_metrics, read_runs

# What these libraries warn of when they are imported or used is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A sweep that was stopped."""
    path = tmp_path_factory.mktemp("tracked") / "tiny"
    assert train(path, stop=StopAfter(4)) != 0
    return path


@pytest.fixture
def stopped(begun, tmp_path):
    """The same for each test to go on with."""
    return shutil.copytree(begun, tmp_path / "sweeps" / "tiny")


def train(path, **how):
    c = tiny.get_config("paper")
    c.steps, c.checkpoint_every_steps = 400, 100
    return tiny.train(c, path, **how)[0]


def library(name):
    """A library, without which a test is skipped, but not where all are there to be tested."""
    return importlib.import_module(name) if os.environ.get("TRACKERS") else pytest.importorskip(name)


def expected(path, run):
    """Every number of a run by column and step."""
    metrics = read_metrics(path)
    rows = metrics[metrics["run"] == run].set_index("step").drop(columns=["run", "seed", "weight_decay"])
    rows = rows[[name for name in rows if rows[name].dtype != object]]
    return {name: rows[name].dropna().astype(float).to_dict() for name in rows if rows[name].notna().any()}


def test_a_report_is_written_over(tmp_path):
    for text in ("first", "second"):
        (tmp_path / "page.html").write_text(text)
        tensorboard.get_tracker(tmp_path / "events").report("tiny", [tmp_path / "page.html"])
    assert (tmp_path / "events" / "tiny" / "report" / "page.html").read_text() == "second"


def test_tensorboard(stopped, tmp_path):
    """In two parts, with what a process that was killed leaves in between: rows that were not noted."""
    library("tensorboardX")
    loader = library("tensorboard.backend.event_processing.event_accumulator")
    path = stopped
    assert grokjax.log(path, "tensorboard", out=tmp_path) > 0
    notes = tmp_path / ".grokjax" / "tensorboard.tiny" / "logged.json"
    held = json.loads(notes.read_text())
    assert all(run["step"] > 0 for run in held["runs"].values())
    held["runs"]["0"]["step"] -= 20  # its last row is there, and was not noted
    held["runs"].pop("1")  # nothing was, though all is there
    notes.write_text(json.dumps(held))
    assert train(path) == 0
    assert grokjax.log(path, "tensorboard", out=tmp_path) > 0
    assert grokjax.log(path, "tensorboard", out=tmp_path) == 0
    phases = grokjax.open(path).phases()
    for run in range(4):
        found = loader.EventAccumulator(
            str(tmp_path / "tiny" / f"run_{run:05d}"), {"scalars": 0, "tensors": 0}
        ).Reload()
        names = [name for name in found.Tags()["scalars"] if not name.startswith("outcome/")]
        there = {name: [(event.step, event.value) for event in found.Scalars(name)] for name in names}
        wanted = expected(path, run)
        assert there.keys() == wanted.keys()
        for name, values in wanted.items():
            assert sorted(there[name]) == [(step, pytest.approx(value, rel=1e-6)) for step, value in values.items()]
        assert found.Scalars("outcome/memorised_by")[0].value == phases["memorised_by"][run]
        assert "outcome/phases_sentence/text_summary" in found.Tags()["tensors"]
        assert found.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"
    assert (tmp_path / "tiny" / "report" / "index.html").read_bytes() == (path / "report" / "index.html").read_bytes()


def records(file):
    """The records in a run's file of W&B: LevelDB's log, in blocks of 32 KiB, after seven bytes of its own."""
    from wandb.proto import wandb_internal_pb2 as proto

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole = (whole if kind in (3, 4) else b"") + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = proto.Record()
            record.ParseFromString(whole)
            yield record


def test_wandb_offline(stopped, tmp_path, monkeypatch):
    library("wandb")
    path = stopped
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "grokking")
    assert grokjax.log(path, "wandb", out=tmp_path, name="mine") > 0
    assert train(path) == 0
    assert grokjax.log(path, "wandb", out=tmp_path, name="mine") > 0
    assert grokjax.log(path, "wandb", out=tmp_path, name="mine") == 0
    rows, configs, summaries, artifacts = {}, {}, {}, []
    for file in sorted(tmp_path.rglob("*.wandb")):
        name = None
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.run_id
                assert (record.run.project, record.run.run_group) == ("grokking", "mine")
                configs[name] = {x.key: json.loads(x.value_json) for x in record.run.config.update}
            elif kind == "history":
                items = {(x.key or x.nested_key[0]): json.loads(x.value_json) for x in record.history.item}
                step = items.pop("step")
                for key, value in items.items():
                    if not key.startswith("_"):
                        assert step not in rows.setdefault(name, {}).setdefault(key, {})
                        rows[name][key][step] = value
            elif kind == "summary":
                summaries.setdefault(name, {}).update(
                    {(x.key or x.nested_key[0]): json.loads(x.value_json) for x in record.summary.update}
                )
            elif kind == "artifact":
                artifacts.append((record.artifact.name, sorted(x.path for x in record.artifact.manifest.contents)))
    assert rows.keys() == {f"mine-run_{run:05d}" for run in range(4)}
    phases = grokjax.open(path).phases()
    for run in range(4):
        found, wanted = rows[f"mine-run_{run:05d}"], expected(path, run)
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            assert found[name] == pytest.approx(values, rel=1e-6)
        assert configs[f"mine-run_{run:05d}"]["weight_decay"] == read_runs(path)["weight_decay"][run]
        assert summaries[f"mine-run_{run:05d}"]["memorised_by"] == phases["memorised_by"][run]
    assert artifacts == [("mine-report", ["index.html", "losses.png"])]


def test_the_tracker_of_the_docs(stopped, tmp_path, monkeypatch):
    """Trackio by the file that docs/howto/trackers.md shows, read back from its data base."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    library("trackio")
    path = stopped
    text = (ROOT / "docs" / "howto" / "trackers.md").read_text()
    file = re.search(r"```python\n(# trackio_tracker\.py\n.*?)```", text, re.DOTALL)[1]
    assert len(file.splitlines()[1:]) <= 30
    (tmp_path / "trackio_tracker.py").write_text(file)
    given = {"to": str(tmp_path / "trackio_tracker.py"), "out": tmp_path / "logs"}
    assert grokjax.log(path, **given) > 0
    assert train(path) == 0
    assert grokjax.log(path, **given) > 0
    assert grokjax.log(path, **given) == 0
    (base,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(base) as connection:
        found = connection.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    for run in range(4):
        there = {}
        for name, step, values in found:
            if name == f"tiny/run_{run:05d}":
                for key, value in json.loads(values).items():
                    there.setdefault(key, {})[step] = value
        there = {key: values for key, values in there.items() if not key.startswith("outcome/")}
        wanted = expected(path, run)
        assert there.keys() == wanted.keys()
        for key, values in wanted.items():
            assert there[key] == pytest.approx(values, rel=1e-6)
