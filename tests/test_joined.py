"""Several sweeps as one: numbers, names, duplicates, columns that one lacks or defines otherwise, and the commands."""

import html
import json
import time

import made_up
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tiny
from commands import assert_refused, call

import grokjax
from grokjax.cli.main import main
from grokjax.errors import InputError
from grokjax.report.document import document
from grokjax.report.results import read_all
from grokjax.store import files, joined
from grokjax.store.metrics import metrics_table, read_metrics, read_runs


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """Two sweeps with two runs in common, those of weight decay 1; the second one has no measures but losses."""
    folder = tmp_path_factory.mktemp("joined")
    c = tiny.get_config("paper")
    assert tiny.train(c, folder / "a")[0] == 0
    c = tiny.get_config()
    c.sweep.weight_decay = (1.0, 2.0)
    c.learning_rate = 1e-2
    assert tiny.train(c, folder / "b")[0] == 0
    c = tiny.get_config()
    c.learning_rate, c.steps = 3e-3, 100
    assert tiny.train(c, folder / "c")[0] == 0
    return folder


def test_runs_are_numbered_anew_and_each_is_there_once(sweeps):
    results = grokjax.open([sweeps / "a", sweeps / "b"])
    runs = results.runs
    assert runs["run"].tolist() == list(range(6))
    assert list(zip(runs["sweep"], runs["sweep_run"], strict=True)) == [
        *(("a", n) for n in range(4)),
        ("b", 2),
        ("b", 3),
    ]
    assert results.notes == ["b has 2 runs that a has, too (0, 1): left out"]
    assert (results.path, len(results.record)) == (sweeps / "a", 2)
    assert "4 of a, 2 of b" in repr(results)


def test_rows_are_those_of_each_sweep(sweeps):
    results = grokjax.open([sweeps / "a", sweeps / "b"])
    metrics = results.metrics
    assert list(metrics)[:5] == ["run", "sweep", "step", "seed", "weight_decay"]
    of_b = metrics[metrics["sweep"] == "b"].reset_index(drop=True)
    own = read_metrics(sweeps / "b")
    own = own[own["run"] >= 2].reset_index(drop=True)
    assert of_b["run"].tolist() == (own["run"] + 2).tolist()
    for name in ("step", "weight_decay", "seed", "train_loss", "test_acc"):
        pd.testing.assert_series_equal(of_b[name], own[name], check_dtype=False)
    assert of_b["restricted_loss"].isna().all()
    assert metrics[metrics["sweep"] == "a"]["excluded_loss_max"].notna().all()
    assert any(note.startswith("b lacks ") and note.endswith("null there") for note in metrics.attrs["notes"])


def test_fields_that_differ_are_columns_and_cadences_are_not(sweeps):
    found = joined.join([sweeps / "a", sweeps / "c"])
    assert found.differing == ["seed", "learning_rate", "weight_decay", "steps"]
    metrics = found.metrics(["test_loss"])
    assert list(metrics) == ["run", "sweep", "step", *found.differing, "test_loss"]
    assert metrics.groupby("sweep")["learning_rate"].unique().map(list).to_dict() == {"a": [1e-2], "c": [3e-3]}


def test_of_two_that_have_a_run_that_counts_which_came_furthest(sweeps, tmp_path):
    c = tiny.get_config()
    c.steps = 100
    assert tiny.train(c, tmp_path / "short")[0] == 0
    found = joined.join([tmp_path / "short", sweeps / "a"])
    assert found.runs["sweep"].unique().tolist() == ["a"]
    assert found.notes == ["short has 4 runs that a has, too (0, 1, 2, 3): left out"]
    assert len(found.metrics()) == len(read_metrics(sweeps / "a"))


def test_a_column_of_an_earlier_definition_is_left_out_there(sweeps, tmp_path):
    old = copied(sweeps / "a", tmp_path / "old")
    table = metrics_table(old)
    at = table.schema.get_field_index("gini_W_E")
    field = table.schema.field(at)
    field = field.with_metadata({**field.metadata, b"version": b"0"})
    files.write_parquet(table.set_column(at, field, table[at]), old / "metrics" / "part-000000.parquet")
    runs = pa.Table.from_pandas(read_runs(old).assign(learning_rate=5e-2, identity=list("wxyz")), preserve_index=False)
    files.write_parquet(runs, old / "runs.parquet")
    metrics = grokjax.open([old, sweeps / "a"]).metrics
    assert metrics.groupby("sweep")["gini_W_E"].apply(lambda x: x.isna().all()).to_dict() == {"a": False, "old": True}
    assert "old has an earlier definition of gini_W_E, null there" in metrics.attrs["notes"]


def copied(path, out):
    """The tables and the record of a sweep once more."""
    (out / "metrics").mkdir(parents=True)
    for name in ("config.json", "runs.parquet", "metrics/part-000000.parquet"):
        (out / name).write_bytes((path / name).read_bytes())
    return out


def test_a_field_that_is_younger_than_a_sweep_has_its_default(sweeps, tmp_path):
    old = copied(sweeps / "c", tmp_path / "old")
    runs = read_runs(old).drop(columns=["group", "stop_loss"])
    files.write_parquet(pa.Table.from_pandas(runs, preserve_index=False), old / "runs.parquet")
    found = joined.join([sweeps / "a", old])
    assert found.differing == ["seed", "learning_rate", "weight_decay", "steps"]
    assert (found.runs["stop_loss"] == 0).all()


def test_names_tell_directories_apart(sweeps, tmp_path):
    copied(sweeps / "c", tmp_path / "x" / "small")
    copied(sweeps / "a", tmp_path / "y" / "small")
    found = joined.join([tmp_path / "x" / "small", tmp_path / "y" / "small"])
    assert list(found.paths) == ["x/small", "y/small"]


def test_one_of_them_in_a_bucket(sweeps):
    """By fsspec's own in memory."""
    there = files.path("memory://bucket/c")
    for path in (sweeps / "c").rglob("*"):
        if path.is_file():
            (there / path.relative_to(sweeps / "c").as_posix()).write_bytes(path.read_bytes())
    results = grokjax.open([sweeps / "a", "memory://bucket/c"])
    assert results.runs["sweep"].value_counts(sort=False).to_dict() == {"a": 4, "c": 4}
    mine = results.metrics[results.metrics["sweep"] == "c"]["test_loss"].to_numpy()
    np.testing.assert_array_equal(mine, read_metrics(sweeps / "c")["test_loss"].to_numpy())
    there.drop()


def test_models_of_joined_runs(sweeps):
    results = grokjax.open([sweeps / "b", sweeps / "a"])
    row = results.runs[(results.runs["sweep"] == "a")].iloc[0]
    steps = results.steps(run=row["run"])
    assert steps == grokjax.open(sweeps / "a").steps(row["sweep_run"])
    mine = results.params(run=row["run"])
    for name, value in grokjax.load_params(sweeps / "a", row["sweep_run"]).items():
        np.testing.assert_array_equal(mine[name], value)
    with pytest.raises(InputError, match="run 9 is none of the joined runs, which are 0 to 5"):
        results.params(9)


def test_the_report_of_several(sweeps, tmp_path):
    read = read_all([sweeps / "a", sweeps / "b"])
    assert read.axes == ["weight_decay", "seed", "sweep"]
    page = grokjax.open([sweeps / "a", sweeps / "b"]).report(tmp_path / "both")
    text = page.read_text()
    assert "6 runs of add mod 7" in text
    assert "b has 2 runs that a has, too (0, 1): left out." in text
    assert f"grokjax.open({[str(sweeps / name) for name in 'ab']})" in html.unescape(text)
    assert (tmp_path / "both" / "losses.png").is_file()
    with pytest.raises(InputError, match="out is missing"):
        grokjax.open([sweeps / "a", sweeps / "b"]).report()


def test_the_report_has_the_circuits_of_each(sweeps, tmp_path):
    """Under the new numbers; of a sweep that has none yet the page says how to make them."""
    copies = [copied(sweeps / name, tmp_path / name) for name in "ab"]
    page = grokjax.open(copies).report(tmp_path / "both").read_text()
    assert f"grokjax circuit {copies[0]} --all; grokjax circuit {copies[1]} --all" in html.unescape(page)
    for path in copies:
        rows = [{"run": n, "step": 100 + n, "key_freqs": [1], "null": "{}", "measured": "{}"} for n in (1, 3)]
        pd.DataFrame(rows).to_parquet(path / "circuit.parquet")
    read = read_all(copies)
    assert read.circuit[["run", "step"]].to_numpy().tolist() == [[1, 101], [3, 103], [5, 103]]
    assert [row and row["step"] for row in document(read)["circuit"]] == [None, 101, None, 103, None, 103]


@pytest.mark.long
def test_the_report_knows_the_blocks_of_every_sweep(sweeps, tmp_path):
    c = tiny.get_config("paper")
    c.task, c.group, c.p = "group", "S_3", 6
    c.steps, c.eval_every, c.snapshot_every, c.sweep.seed = 20, 20, 20, (0,)
    assert tiny.train(c, tmp_path / "s_3")[0] == 0
    for paths in ([sweeps / "a", tmp_path / "s_3"], [tmp_path / "s_3", sweeps / "a"]):
        read = read_all(paths)
        assert list(read.words.blocks) == ["S_3"]
        rows = read.runs.to_dict("records")
        names = {row["sweep"]: read.words.names(row) for row in rows}
        assert names["a"] is None
        assert len(names["s_3"]) == 2  # but the constant's


def test_the_commands(sweeps, tmp_path, capsys):
    a, b = str(sweeps / "a"), str(sweeps / "b")
    status, out, err = call(capsys, main, "phases", a, b, "--json", "--by=sweep")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert [row["sweep"] for row in found["groups"]] == ["a", "b"]
    assert len(found["runs"]) == 6
    assert "b has 2 runs that a has, too (0, 1): left out" in found["notes"]
    assert call(capsys, main, "figure", a, b, "--by=sweep", f"--out={tmp_path / 'f.pdf'}")[0] == 0
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    assert call(capsys, main, "report", a, b, f"--out={tmp_path / 'r'}")[0] == 0
    assert (tmp_path / "r" / "index.html").is_file()


def test_mistakes(sweeps, tmp_path, capsys):
    a = str(sweeps / "a")
    (tmp_path / "empty").mkdir()
    assert_refused(call(capsys, main, "phases", a, a), f"{a} is given twice: name each directory once.")
    assert_refused(call(capsys, main, "phases", a, str(tmp_path / "empty")), "empty holds no sweep")
    assert_refused(call(capsys, main, "phases", a, str(tmp_path / "no")), "no does not exist")
    assert_refused(call(capsys, main, "report", a, str(sweeps / "b")), "--out is missing")
    with pytest.raises(InputError, match="no directory is given"):
        grokjax.open([])


def test_sweeps_that_have_no_rows_yet(sweeps, tmp_path, capsys):
    begun = copied(sweeps / "a", tmp_path / "begun")
    (begun / "runs.parquet").unlink()
    (begun / "metrics" / "part-000000.parquet").unlink()
    found = joined.join([sweeps / "c", begun])
    assert found.notes == ["begun has no runs yet"]
    assert len(found.metrics()) == len(read_metrics(sweeps / "c"))
    other = copied(sweeps / "a", tmp_path / "other")
    (other / "metrics" / "part-000000.parquet").unlink()
    assert_refused(call(capsys, main, "phases", str(other), str(begun)), "hold no metrics yet")
    assert_refused(call(capsys, main, "report", str(other), str(begun), "--out=x"), "hold no metrics yet")
    (other / "runs.parquet").unlink()
    assert_refused(call(capsys, main, "phases", str(other), str(begun)), "none of these has runs yet")


@pytest.mark.long
def test_a_thousand_runs_in_twenty_directories(tmp_path):
    """All is there; with -s, in how many seconds: `python -m pytest -n 0 -s -m long tests/test_joined.py`."""
    places = [made_up.make_sweep(tmp_path / f"p{p}", 50, 100, p) for p in range(40, 60)]
    started = time.perf_counter()
    results = grokjax.open(places)
    runs, metrics = results.runs, results.metrics
    seconds = time.perf_counter() - started
    size = f"{len(runs):,} runs in {len(places)} directories, {len(metrics):,} rows of {metrics.shape[1]} columns"
    print(f"\n{size}: joined in {seconds:.1f} s")
    assert (len(runs), len(metrics)) == (1_000, 100_000)
    assert results.notes == []
    assert metrics["run"].nunique() == 1_000
    assert metrics.groupby("run")["p"].first().tolist() == [p for p in range(40, 60) for _ in range(50)]
