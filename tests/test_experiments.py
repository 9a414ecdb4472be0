"""The experiments that come with the project: each expands, and those of groups and batches train for some steps."""

import pytest
import tiny
from launches import ROOT
from tiers import long_but

import grokjax
from grokjax import sweeps
from grokjax.experiment import load_experiment
from grokjax.store.sweep import load_sweep

FILES = sorted((ROOT / "experiments").glob("*.py"))


def loaded(name, arg=""):
    """The config of an experiment, and its get_sweep or None."""
    module, c = load_experiment(f"{ROOT / 'experiments' / name}.py{arg}")
    return c, getattr(module, "get_sweep", None)


@pytest.mark.parametrize("arg", ["", ":small"])
@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_each_expands_and_says_how_to_run_it(name, arg):
    sweep = sweeps.expand(*loaded(name, arg))
    assert len(sweep.runs) > 1
    said = (ROOT / "experiments" / f"{name}.py").read_text().split('"""')[1]
    assert f"python launch.py --config=experiments/{name}.py" in said


def test_groups_are_trained_as_released():
    runs = sweeps.expand(*loaded("groups")).runs
    found = {}
    for run in runs:
        v = run.values
        assert (v["learning_rate"], v["weight_decay"], v["batch_size"]) == (1e-3, 1, 0)
        assert (v["beta1"], v["beta2"]) == (0.9, 0.98)
        sizes = v["model.d_model"], v["model.d_mlp"]
        assert sizes == ((256, 128) if v["model.architecture"] == "mlp" else (128, 512))
        assert v["model.inputs"] == "concatenated"
        assert (v["model.architecture"] != "mlp") or run.problem().model.embeddings == "separate"
        found.setdefault((v["group"], v["model.architecture"]), []).append((v["train_fraction"], v["steps"]))
    assert found == {
        ("S_5", "mlp"): [(0.4, 250_000)] * 4,
        ("S_5", "transformer"): [(0.6, 50_000)] * 4,
        ("A_5", "mlp"): [(0.5, 250_000)] * 4,
        ("A_5", "transformer"): [(0.6, 250_000)] * 4,
        ("D_59", "mlp"): [(0.3, 250_000)] * 4,
        ("D_59", "transformer"): [(0.3, 100_000)] * 4,
    }


def test_power_divides_in_two_layers_and_batches():
    runs = sweeps.expand(*loaded("power")).runs
    for run in runs:
        problem = run.problem()
        assert (problem.model.p, problem.model.n_layers, problem.batch_size) == (97, 2, 512)
        assert problem.nonzero_b
        assert problem.n_train == 97 * 96 // 2
    assert {run.values["weight_decay"] for run in runs} == {0, 1}


@pytest.mark.parametrize("name", long_but(["groups"], ["groups", "power"]))
def test_small_ones_train_for_some_steps(name, tmp_path):
    """On a smaller group or modulus, whose program is quick to compile."""
    c, get_sweep = loaded(name, ":small")
    path, values = {"groups": ("group", ("S_3",)), "power": ("p", (5,))}[name]
    c.sweep[path] = values
    c.sweep.seed, c.steps, c.measures, c.snapshot_every = (0,), 2 * c.eval_every, (), 2 * c.eval_every
    if c.batch_size:
        c.batch_size, c.train_fraction, c.sweep.weight_decay = 8, 0.7, (1.0,)
    status, said = tiny.train(c, tmp_path / name, get_sweep=get_sweep)
    assert status == 0, said
    (run,) = load_sweep(tmp_path / name).runs
    table = grokjax.read_metrics(tmp_path / name)
    assert table["step"].tolist() == [0, c.eval_every, 2 * c.eval_every]
    assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[0]
    assert (run.problem().model.is_mlp, run.problem().batch_size) == (name == "groups", c.batch_size)
