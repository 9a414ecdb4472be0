"""The experiments of papers: each expands to the settings it tells of, and trains some steps."""

import importlib

import numpy as np
import pytest
import tiny

import grokjax
from grokjax import sweeps

NAMES = (
    "appendix_d",
    "clock_pizza",
    "edge_of_stability",
    "grokfast",
    "label_noise",
    "multiplication",
    "muon",
    "omnigrok",
)
LOGGED = {
    "clock_pizza": ("clock",),
    "multiplication": ("paper", "residue"),
    "omnigrok": ("efficiency",),
}  # what their claims are read from


def expanded(name, variant):
    module = importlib.import_module(f"experiments.{name}")
    c = module.get_config(variant)
    return c, getattr(module, "get_sweep", None)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_some_steps(name, tmp_path):
    c, get_sweep = expanded(name, "small")
    c.p, c.train_fraction, c.model.d_model, c.model.n_heads, c.model.d_mlp = 7, 0.6, 8, 2, 16
    c.steps = c.snapshot_every = c.slow_every = 20
    c.eval_every, c.sweep.seed, c.measures = 10, (0,), LOGGED.get(name, ())
    c.sweep.p = c.sweep.train_fraction = c.sweep.model.n_layers = None  # each value of which is compiled
    status, said = tiny.train(c, tmp_path, get_sweep=get_sweep)
    assert status == 0, said
    runs = grokjax.read_runs(tmp_path)
    assert runs.status.tolist() == ["finished"] * len(sweeps.expand(c, get_sweep).runs)
    table = grokjax.read_metrics(tmp_path)
    assert table.train_loss.notna().all()
    if name == "clock_pizza":
        assert set(table["model.attention_rate"]) == {0.0, 0.5, 0.8, 1.0}
        assert table[["gradient_symmetricity", "distance_irrelevance", "circularity"]].notna().all(axis=None)
    if name == "multiplication":
        W_E = grokjax.load_params(tmp_path, 0)["embed.W_E"][:7]
        norms = np.sort(np.linalg.norm(np.fft.rfft(W_E, axis=0)[1:], axis=1))
        expected = np.sum((2 * np.arange(1, 4) - 4) * norms) / (3 * norms.sum())
        assert table.gini_freq_W_E_residue.iloc[-1] == pytest.approx(expected, rel=1e-4)
    if name == "omnigrok":
        first = table.weight_norm[table.step == 0].reindex(table.index).ffill()
        moved = (table.weight_norm / first - 1).abs()
        is_held = table.norm_constraint == "init"
        assert moved[is_held].max() < 1e-6 < 1e-3 < moved[~is_held & (table.step == 20)].min()


@pytest.mark.parametrize("name", NAMES)
def test_the_full_setting_is_the_paper_s(name):
    c, get_sweep = expanded(name, "")
    runs = [run.values for run in sweeps.expand(c, get_sweep).runs]
    zhong = {"p": {59}, "model.n_ctx": {2}, "train_fraction": {0.8}, "weight_decay": {2.0}, "steps": {20_000}}
    told = {
        "clock_pizza": zhong | {"learning_rate": {1e-3}, "model.d_model": {128}},
        "edge_of_stability": {"p": {113}, "train_fraction": {0.4}, "learning_rate": {1e-3}, "steps": {5_000}},
        "grokfast": {"p": {97}, "grokfast_alpha": {0.98}, "grokfast_lamb": {2.0}, "train_fraction": {0.5}},
        "muon": {"p": {113}, "optimizer": {"adamw", "muon"}, "steps": {100_000}},
        "multiplication": {"task": {"multiply"}, "p": {113}, "weight_decay": {1}, "steps": {40_000}},
        "omnigrok": {"p": {113}, "train_fraction": {0.3}, "learning_rate": {1e-3}, "steps": {15_000}},
        "label_noise": {"p": {97}, "model.d_mlp": {500}, "model.act": {"quadratic"}, "model.inputs": {"one_hot"}}
        | {"loss": {"mse"}, "learning_rate": {1e-2}, "weight_decay": {0, 5, 15, 20}, "steps": {2_000}},
        "appendix_d": {"learning_rate": {1e-3}, "steps": {40_000}, "model.d_mlp": {512}},
    }
    for field, values in told[name].items():
        assert {run[field] for run in runs} == values
    if name == "grokfast":  # tuned alike
        grids = [
            {(r["learning_rate"], r["weight_decay"]) for r in runs if r["gradient_transform"] == t}
            for t in c.sweep.gradient_transform
        ]
        assert grids[0] == grids[1]


@pytest.mark.parametrize("variant", ["", "small"])
def test_the_norm_is_constrained_without_decay_at_every_scale(variant):
    c, get_sweep = expanded("omnigrok", variant)
    runs = [run.values for run in sweeps.expand(c, get_sweep).runs]
    settings = [(r["init_scale"], r["norm_constraint"], r["weight_decay"]) for r in runs if r["seed"] == 0]
    scales = set(c.sweep.init_scale)
    assert {0.8, 1.0} <= scales
    assert {s for s, *is_held in settings if is_held == ["init", 0.0]} == scales
    assert {(s, decay) for s, norm, decay in settings if norm == "none"} >= {(s, d) for s in scales for d in (0.0, 1.0)}


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


def test_label_noise_is_a_grid_of_17_by_17_with_the_columns_that_tell_its_phases():
    c, get_sweep = expanded("label_noise", "")
    sweep = sweeps.expand(c, get_sweep)
    grid = {(run.values["train_fraction"], run.values["label_noise"]) for run in sweep.runs}
    assert len(grid) == 17 * 17
    assert len(sweep.runs) == 4 * len(grid)
    assert (min(grid), max(grid)) == ((0.1, 0.0), (0.9, 0.8))
    assert "label_noise" in sweep.base["measures"]


@pytest.mark.parametrize("variant", ["", "small"])
def test_appendix_d_changes_one_thing_at_a_time(variant):
    c, get_sweep = expanded("appendix_d", variant)
    runs = [run.values for run in sweeps.expand(c, get_sweep).runs]
    changed = [{name: run[name] for name in run if run[name] != runs[0][name]} for run in runs if run["seed"] == 0]
    assert changed[0] == {}
    assert len(changed) * 3 == len(runs)
    with_it = {("p", 53): {"weight_decay": 5}, ("p", 401): {"train_fraction": 0.2}}
    for change in changed[1:]:
        (name, value), *others = sorted(change.items(), key=lambda item: item[0] in ("weight_decay", "train_fraction"))
        in_place = {"weight_decay": 0} if name in ("model.dropout", "l1") else {}
        assert dict(others) == with_it.get((name, value), in_place)
    told = {"p": {53, 109, 401}, "train_fraction": {0.1, 0.2, 0.4, 0.5, 0.6, 0.8}, "model.dropout": {0.2, 0.5}}
    for name, values in (told | {"model.n_layers": {2}}).items():
        if not variant:
            assert {change[name] for change in changed if name in change} == values
