"""Published folders: they hold what the sweep does and nothing of the machine, are read back, and load on the hub."""

import getpass
import json
import platform
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tiny
from commands import assert_refused, call
from doubles import StopAfter

import grokjax
from grokjax import config, sweeps
from grokjax.cli import circuit
from grokjax.cli.main import main
from grokjax.errors import InputError
from grokjax.experiment import load_experiment
from grokjax.sharing import anonymous
from grokjax.sharing import experiment as experiment_lib
from grokjax.store.metrics import metrics_table, read_part
from grokjax.store.sweep import described

SECRET = "jane_of_the_lab"  # in the path of everything


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep by an experiment file, in a folder that tells a name."""
    folder = tmp_path_factory.mktemp(SECRET)
    (folder / "mine.py").write_text((Path(__file__).parent / "tiny.py").read_text())
    c = tiny.get_config("paper")
    assert tiny.train(c, folder / "results" / "small", experiment=f"{folder}/mine.py:paper")[0] == 0
    return folder / "results" / "small"


@pytest.fixture(scope="module")
def published(sweep):
    return grokjax.publish(sweep, sweep.parent / "published", license="cc-by-4.0")


def test_what_is_in_it(published):
    names = sorted(path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file())
    weights = [f"weights/run_{run:05d}.safetensors" for run in range(4)]
    assert [name for name in names if not name.startswith(".")] == [
        *("README.md", "config.json", "experiment.py", "metrics/part-000000.parquet"),
        *("report/index.html", "report/losses.png", "runs.parquet", *weights),
    ]
    assert [name for name in names if name.startswith(".") or "/." in name] == [".manifest.json"]


def test_it_is_read_back(sweep, published):
    first, again = grokjax.open(sweep), grokjax.open(published)
    pd.testing.assert_frame_equal(first.metrics, again.metrics)
    pd.testing.assert_frame_equal(first.runs, again.runs)
    pd.testing.assert_frame_equal(first.phases(), again.phases())
    assert metrics_table(published).schema.equals(metrics_table(sweep).schema, check_metadata=False)
    assert metrics_table(published).schema.field("train_loss").metadata
    for run in range(4):
        mine, theirs = first.params(run), again.params(run)
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(value, theirs[name])
    assert again.measure(1, groups=["losses"])["test_loss"] == pytest.approx(
        first.measure(1, groups=["losses"])["test_loss"]
    )
    assert again.figure("losses")
    with pytest.raises(InputError, match="no snapshot of run 1"):
        again.params(1, step=100)
    assert "is no sweep" not in repr(again)


def test_its_weights_are_read_as_snapshots_are(sweep, published, tmp_path):
    last = grokjax.open(sweep).steps(2)[-1]
    for step in (None, last):
        mine, theirs = grokjax.load_params(published, 2, step), grokjax.load_params(sweep, 2, step)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    text = f"no snapshot of run 2 at step 100: it has that of step {last} alone"
    with pytest.raises(InputError, match=text):
        grokjax.load_params(published, 2, 100)
    mine, theirs = (grokjax.load_checkpoint(f"{path}:2") for path in (published, sweep))
    assert mine.source == f"{published}:2:{last}"
    assert (mine.cfg, mine.task, mine.split, mine.settings) == (theirs.cfg, theirs.task, theirs.split, theirs.settings)
    np.testing.assert_array_equal(mine.train_pairs, theirs.train_pairs)
    mine, theirs = (grokjax.circuit(f"{path}:2") for path in (published, sweep))
    assert mine["key_freqs"] == theirs["key_freqs"]
    copy = shutil.copytree(published, tmp_path / "copy")
    circuit.main([str(copy), "--all"])
    assert read_part(copy / "circuit.parquet")["step"].to_pylist() == [last] * 4


def test_nothing_of_the_machine_is_in_it(sweep, published):
    """In any file, and in what Parquet files hold beside their columns; binary ones are searched for paths alone."""
    words = {SECRET, str(Path.home()), platform.node(), getpass.getuser(), str(sweep)}
    for path in published.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert SECRET.encode() not in data, path
            assert str(Path.home()).encode() + b"/" not in data, path
            if path.suffix in (".json", ".md", ".py"):
                found = [word for word in words if re.search(rf"\b{re.escape(word)}\b", data.decode())]
                assert found == [], path
    schema = pq.read_schema(published / "metrics" / "part-000000.parquet")
    assert schema.metadata.keys() == metrics_table(sweep).schema.metadata.keys()
    assert json.loads((published / "config.json").read_text())["experiment"] == "mine.py:paper"
    page = (published / "report" / "index.html").read_text()
    assert "grokjax report small" not in page
    assert "<dd>small</dd>" in page


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("experiment", "/home/jane doe/my exp.py:small", "my exp.py:small"),
        ("experiment", "experiments/laws.py", "laws.py"),
        ("group", "tables/mine.npy@0123", "mine.npy@0123"),
        ("group", "S_3 x Z_7", "S_3 x Z_7"),
        ("xla_flags", "--xla_dump_to=/home/jane/dump --other", "--xla_dump_to=dump --other"),
        ("task", "a/b + a*b/2", "a/b + a*b/2"),
        ("note", "see s3://bucket/jane/file.txt, twice", "see file.txt, twice"),
        ("note", "2 m/s", "2 m/s"),
    ],
)
def test_places_lose_their_folders(name, given, expected):
    assert anonymous.cleaned({name: given}) == {name: expected}
    assert anonymous.cleaned([{name: [given]}]) == [{name: [expected]}]


def test_the_experiment_trains_the_same_runs(sweep, published):
    module, written = load_experiment(str(published / "experiment.py"))
    assert not hasattr(module, "get_sweep")
    record = json.loads((sweep / "config.json").read_text())
    assert described(sweeps.expand(written)) == record["runs"]


def test_runs_that_are_no_product_are_listed(tmp_path):
    c = config.default()
    c.p, c.measures = 7, ()
    made = sweeps.expand(c, lambda config: [{"seed": 3, "weight_decay": 0.5}, {"seed": 4}, {"seed": 4, "steps": 100}])
    axes = {name: list(values) for name, values in made.axes.items()}
    record = {"config": dict(made.base), "axes": axes, "runs": described(made)}
    (tmp_path / "experiment.py").write_text(experiment_lib.text(record, "x"))
    module, written = load_experiment(str(tmp_path / "experiment.py"))
    assert described(sweeps.expand(written, module.get_sweep)) == record["runs"]


def test_the_card(published):
    text = (published / "README.md").read_text()
    head = text.split("---\n")[1]
    assert "license: cc-by-4.0\n" in head
    assert "data_files: metrics/*.parquet" in head
    assert "grokjax train --config=experiment.py --workdir=results/small" in text
    assert "* weight_decay = 1: " in text
    assert "| 1 | 2 |" in text
    record = json.loads((published / "config.json").read_text())
    assert f"jax {record['versions']['jax']}" in text


@pytest.mark.filterwarnings("ignore")
def test_the_hubs_library_loads_it_as_the_card_says(published, tmp_path):
    datasets = pytest.importorskip("datasets")
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load((published / "README.md").read_text().split("---\n")[1])
    assert [one["config_name"] for one in head["configs"]] == ["metrics", "runs"]
    for name, n_rows in (("metrics", 44), ("runs", 4)):
        found = datasets.load_dataset(str(published), name, split="train", cache_dir=str(tmp_path))
        assert found.num_rows == n_rows
    assert "freq_norm_W_E" in datasets.load_dataset(str(published), split="train", cache_dir=str(tmp_path)).features


def test_the_command_and_what_it_refuses(sweep, published, tmp_path, capsys):
    given = [str(sweep), f"--out={tmp_path / 'out'}", "--license=mit", "--no-weights", "--name=other"]
    assert call(capsys, main, "publish", *given) == (0, f"written: {tmp_path / 'out'}\n", "")
    assert not (tmp_path / "out" / "weights").exists()
    assert "# other: 4 runs of add mod 7" in (tmp_path / "out" / "README.md").read_text()
    assert_refused(call(capsys, main, "publish", *given), "out is there already: choose another folder")
    assert_refused(call(capsys, main, "publish", str(sweep), "--out=x"), "required: --license")
    assert_refused(call(capsys, main, "publish", str(sweep), "--out=x", "--license=My own"), "--license=My own is no")
    assert_refused(call(capsys, main, "publish", str(tmp_path), "--out=x", "--license=mit"), "holds no sweep")


def test_a_sweep_that_is_not_over_is_refused(tmp_path, capsys):
    assert tiny.train(tiny.get_config("long"), tmp_path / "a", stop=StopAfter(3))[0] != 0
    assert_refused(
        call(capsys, main, "publish", str(tmp_path / "a"), f"--out={tmp_path / 'b'}", "--license=mit"),
        "runs that have not ended: train it to its end first",
    )
    assert not (tmp_path / "b").exists()


def test_runs_without_snapshots_have_no_weights(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "snapshots")
    said = []
    folder = grokjax.publish(tmp_path / "a", tmp_path / "b", license="mit", tell=said.append)
    assert said == ["runs 0-3 have no snapshot, so no weights"]
    assert not (folder / "weights").exists()
