"""The experiments of papers: each expands to the settings it tells of, and trains some steps."""

import importlib

import pytest
import tiny

import grokjax
from grokjax import sweeps

NAMES = ("edge_of_stability", "grokfast", "muon")


def expanded(name, variant):
    module = importlib.import_module(f"experiments.{name}")
    c = module.get_config(variant)
    return c, getattr(module, "get_sweep", None)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_some_steps(name, tmp_path):
    c, get_sweep = expanded(name, "small")
    c.p, c.train_fraction, c.model.d_model, c.model.n_heads, c.model.d_mlp = 7, 0.6, 8, 2, 16
    c.steps = c.snapshot_every = c.slow_every = 20
    c.eval_every, c.sweep.seed, c.measures = 10, (0,), ()
    status, said = tiny.train(c, tmp_path, get_sweep=get_sweep)
    assert status == 0, said
    runs = grokjax.read_runs(tmp_path)
    assert runs.status.tolist() == ["finished"] * len(sweeps.expand(c, get_sweep).runs)
    assert grokjax.read_metrics(tmp_path).train_loss.notna().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_full_setting_is_the_paper_s(name):
    c, get_sweep = expanded(name, "")
    runs = [run.values for run in sweeps.expand(c, get_sweep).runs]
    told = {
        "edge_of_stability": {"p": {113}, "train_fraction": {0.4}, "learning_rate": {1e-3}, "steps": {5_000}},
        "grokfast": {"p": {97}, "grokfast_alpha": {0.98}, "grokfast_lamb": {2.0}, "train_fraction": {0.5}},
        "muon": {"p": {113}, "optimizer": {"adamw", "muon"}, "steps": {100_000}},
    }
    for field, values in told[name].items():
        assert {run[field] for run in runs} == values
    if name == "grokfast":  # tuned alike
        grids = [
            {(r["learning_rate"], r["weight_decay"]) for r in runs if r["gradient_transform"] == t}
            for t in c.sweep.gradient_transform
        ]
        assert grids[0] == grids[1]


def test_every_setting_of_the_edge_is_another():
    c, get_sweep = expanded("edge_of_stability", "")
    runs = [run.values for run in sweeps.expand(c, get_sweep).runs]
    assert {(r["loss"], r["gradient_transform"], r["weight_decay"]) for r in runs} == {
        ("cross_entropy_float16", "none", 0.0),
        ("cross_entropy_float32", "none", 0.0),
        ("cross_entropy", "none", 0.0),
        ("stablemax", "none", 0.0),
        ("cross_entropy", "orthograd", 0.0),
        ("cross_entropy", "none", 1.5),
    }
