"""Models beside the paper's, from a config to a sweep and back: grouped, trained, replayed, measured, exported."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle_architectures
import pytest
import tiny
from commands import assert_refused, call
from tiers import long_but

import grokjax
from grokjax import config, sweeps
from grokjax.cli import export
from grokjax.core import architecture, model
from grokjax.core.model import ModelConfig
from grokjax.core.native import kernels
from grokjax.errors import InputError
from grokjax.interp.checkpoint import load_checkpoint
from grokjax.store.metrics import read_metrics
from grokjax.store.snapshots import load_params
from grokjax.training import one_run

P = 7
TRANSFORMERS = {
    "two tokens": {"n_ctx": 2},
    "pizza": {"n_ctx": 2, "attention_rate": 0.3},
    "uniform": {"n_ctx": 2, "attention_rate": 0.0, "attention_dir": "bidirectional", "n_layers": 2},
    "quadratic": {"act": "quadratic"},
    "layer norm": {"normalization_type": "LN", "n_layers": 2},
    "d_head": {"d_head": 3},
    "tied": {"unembed": "tied", "act": "gelu"},
    "separate": {"embeddings": "separate"},
    "dropout": {"dropout": 0.2},
}
MLPS = {
    "quadratic": {"act": "quadratic"},
    "one-hot": {"inputs": "one_hot", "act": "quadratic"},
    "dropout": {"inputs": "one_hot", "n_layers": 2, "dropout": 0.5},
}
EXPORTED = ("pizza", "layer norm", "tied", "mlp, one-hot")
SHAPES = TRANSFORMERS | {f"mlp, {name}": {"architecture": "mlp"} | shape for name, shape in MLPS.items()}


def config_of(shape, **fields):
    """A config of two seeds at P = 7 with such a model."""
    c = tiny.get_config()
    c.sweep.weight_decay = None
    for name, value in shape.items():
        c.model[name] = value
    for name, value in fields.items():
        c[name] = value
    return c


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_what_is_unset_is_filled_in():
    assert ModelConfig(d_model=8, n_heads=2).d_head == 4
    assert ModelConfig(d_model=8, n_heads=2, d_head=4) == ModelConfig(d_model=8, n_heads=2)
    assert (ModelConfig().embeddings, ModelConfig(architecture="mlp").embeddings) == ("shared", "separate")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_neither_the_cpp_nor_the_factored_forward_serves_it(shape):
    cfg = ModelConfig(p=P, d_model=8, n_heads=2, d_mlp=16, **shape)
    assert (cfg.is_plain, cfg.is_factored, kernels.suits(cfg)) == (False, False, False)
    assert all(name in cfg.differs for name in shape if name not in ("n_layers", "act")) or cfg.is_mlp


def test_the_paper_s_model_is_served_whatever_its_sizes():
    for cfg in (ModelConfig(), ModelConfig(act="gelu"), ModelConfig(d_head=32), ModelConfig(attention_rate=1)):
        assert (cfg.is_plain, cfg.is_factored, cfg.differs, cfg.traced) == (True, True, "", ())
    two = ModelConfig(n_layers=2)
    assert (two.is_plain, two.is_factored) == (True, False)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_parameters_are_counted(shape):
    cfg = ModelConfig(p=P, d_model=8, n_heads=2, d_mlp=16, **shape)
    assert model.n_parameters(cfg) == sum(int(np.prod(s)) for s in model.shapes(cfg).values())


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"unembed": "tied", "embeddings": "separate"}, "config.model.unembed is 'tied', but model.embeddings"),
        (
            {"architecture": "mlp", "n_ctx": 2},
            "config.model.n_ctx is 2, but it is of a model.architecture 'transformer'",
        ),
        ({"inputs": "one_hot"}, "config.model.inputs is 'one_hot', but it is of a model.architecture 'mlp'"),
        ({"d_model": 9}, r"config.model.d_model is 9, but it must be divisible by model.n_heads, 2, unless"),
        ({"n_ctx": 4}, "config.model.n_ctx is 4, but it must be 3 or 2"),
        ({"attention_rate": 1.5}, r"config.model.attention_rate is 1.5, but it must be in \[0, 1\]"),
        ({"dropout": 1.0}, r"config.model.dropout is 1.0, but it must be in \[0, 1\)"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, match):
    with pytest.raises(InputError, match=match):
        sweeps.expand(config_of(fields))


# --- rates are traced -------------------------------------------------------------------------------------------------


def test_rates_share_a_compilation_but_for_the_default_s():
    c = config_of({"n_ctx": 2})
    c.sweep.model.attention_rate = (0.0, 0.3, 1.0)
    c.sweep.model.dropout = (0.0, 0.1, 0.2)
    problems = {runs[0].problem().model for runs in sweeps.expand(c).groups()}
    assert {(cfg.attention_rate, cfg.dropout) for cfg in problems} == {
        (None, None),
        (None, 0.0),
        (1.0, None),
        (1.0, 0.0),
    }
    assert {len({run.problem() for run in runs}) for runs in sweeps.expand(c).groups()} == {1}


def test_a_default_rate_leaves_the_program_as_it_is():
    run = sweeps.expand(config_of({})).runs[0]
    assert run.problem().model == ModelConfig(P, 1, 8, 2, 16)
    assert "model.attention_rate" not in run.inputs().hyperparameters


def test_an_unbound_rate_is_never_taken_for_one():
    cfg = ModelConfig(P, 1, 8, 2, 16, attention_rate=None)
    params = model.init(dataclasses.replace(cfg, attention_rate=0.5), jax.random.key(0))
    with pytest.raises(TypeError):
        model.forward(cfg, params, model.grid(P))
    assert architecture.bound(cfg, {"model.attention_rate": 0.25}).attention_rate == 0.25


# --- from a config to a table and back --------------------------------------------------------------------------------


def oracle_loss(cfg, params, pairs, answers):
    """Mean cross-entropy of a transformer, by the oracle."""
    shape = {name: getattr(cfg, name) for name in ("act", "n_ctx", "embeddings")}
    causal = cfg.attention_dir == "causal"
    z, _ = oracle_architectures.transformer(params, P, pairs, **shape, rate=cfg.attention_rate, causal=causal)
    z = z - z.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(pairs)), answers[pairs]]))


UNSURE = pytest.mark.filterwarnings("ignore:.*hardly better than a guess")  # of models that have hardly begun


@UNSURE
@pytest.mark.parametrize(
    "shape", long_but([], TRANSFORMERS, exhaustive=["two tokens", "quadratic", "d_head", "separate"])
)
def test_a_sweep_of_transformers_is_what_the_oracle_says(tmp_path, shape):
    path = tmp_path / "sweep"
    status, _ = tiny.train(config_of(shape, steps=40, snapshot_every=40, measures=("paper", "attention")), path)
    assert status == 0
    rows, checkpoint = read_metrics(path).set_index(["run", "step"]), load_checkpoint(f"{path}:1:40")
    params = load_params(path, 1, 40)
    expected = dataclasses.replace(sweeps.expand(config_of(shape)).runs[0].problem().model, dropout=0.0)
    rate = shape.get("attention_rate", 1.0)
    assert checkpoint.cfg == dataclasses.replace(expected, attention_rate=rate)
    loss = oracle_loss(
        checkpoint.cfg, params, checkpoint.train_pairs, np.add.outer(np.arange(P), np.arange(P)).ravel() % P
    )
    assert rows.loc[(1, 40), "train_loss"] == pytest.approx(loss, rel=2e-5)
    found = grokjax.measure(checkpoint, groups=["losses", "attention", "paper"])
    for name in ("train_loss", "test_loss", "head_entropy_mean", "gini_W_E", "sum_sq_weights"):
        assert found[name] == pytest.approx(float(rows.loc[(1, 40), name]), rel=1e-4)
    assert (found["sum_sq_W_U"] is None) == (shape.get("unembed") == "tied")
    assert found["sum_sq_weights"] == pytest.approx(sum(float(np.sum(x**2)) for x in params.values()), rel=1e-5)


@pytest.mark.parametrize("shape", long_but(["mlp, one-hot"], {name: SHAPES[name] for name in EXPORTED}))
@pytest.mark.parametrize("name", long_but(["model.safetensors"], ["model.npz", "model.safetensors"]))
def test_exports_read_back(tmp_path, capsys, monkeypatch, shape, name):
    monkeypatch.chdir(tmp_path)
    tiny.train(config_of(shape, steps=20, snapshot_every=20), tmp_path / "sweep")
    call(capsys, export.main, "sweep:0:20", name)
    there, here = load_checkpoint("sweep:0:20"), load_checkpoint(name)
    assert (here.cfg, here.task) == (there.cfg, there.task)
    jax.tree.map(np.testing.assert_array_equal, here.params, there.params)


def test_transformerlens_s_other_model_is_refused_in_words(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.train(config_of(SHAPES["pizza"], steps=20, snapshot_every=20), tmp_path / "sweep")
    called = call(capsys, export.main, "sweep:0:20", "model.pth", "--bridge")
    assert_refused(called, "attention rate of 0.3, which TransformerLens has not: leave out --bridge")


@pytest.mark.long
@pytest.mark.parametrize("name", ["pizza", "dropout", "mlp, dropout"])
def test_train_one_takes_rates_as_tracers(name):
    shape = SHAPES[name]
    field = f"model.{'attention_rate' if name == 'pizza' else 'dropout'}"
    c = config_of(shape)
    sweep = dataclasses.replace(sweeps.expand(c), axes={})
    final = jax.jit(lambda rate: grokjax.train_one(c, seed=1, steps=3, **{field: rate}).params)
    found = final(jnp.float32(shape[field.removeprefix("model.")]))
    run = sweep.runs[1]
    state = one_run.init(run.problem(), run.inputs())
    expected = jax.jit(functools.partial(one_run.train, run.problem()))(state, 3).params
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, expected)


@UNSURE
def test_train_one_s_state_is_measured():
    c = config_of({"n_ctx": 2, "attention_rate": 0.3, "unembed": "tied"})
    found = grokjax.measure(grokjax.train_one(c, steps=3), groups=["losses"])
    assert found["measured"]["attention_rate"] == pytest.approx(0.3)
    assert found["measured"]["unembed"] == "tied"


# --- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    "shape", [{"dropout": 0.3}, {"architecture": "mlp", "dropout": 0.3}], ids=["transformer", "mlp"]
)
@pytest.mark.parametrize("batch_size", [10, 0])
def test_dropout_s_bits_depend_on_run_and_step_alone(tmp_path, shape, batch_size):
    """However steps are dispatched, and in whatever slot."""
    c = config_of(shape, steps=60, batch_size=batch_size, snapshot_every=60)
    c.sweep.seed = (0, 1, 2)
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    tiny.train(c, whole)
    tiny.train(c, alone, only=(2,))
    jax.tree.map(np.testing.assert_array_equal, load_params(alone, 2, 60), load_params(whole, 2, 60))
    run = sweeps.expand(c).runs[2]
    train = jax.jit(functools.partial(one_run.train, run.problem()))
    state = one_run.init(run.problem(), run.inputs())
    parts = train(train(state, 7), 53)
    once = train(state, 60)
    jax.tree.map(np.testing.assert_array_equal, parts.params, once.params)
    assert int(once.step) == 60


@pytest.mark.long
def test_dropout_trains_otherwise_and_evaluates_without():
    run, plain = (sweeps.expand(config_of({"dropout": rate})).runs[0] for rate in (0.5, 0.0))
    states = [one_run.init(r.problem(), r.inputs()) for r in (run, plain)]
    jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)
    losses = [float(one_run.evaluate(r.problem(), s)["train_loss"]) for r, s in zip((run, plain), states, strict=True)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    trained = [one_run.train(r.problem(), s, 3).params for r, s in zip((run, plain), states, strict=True)]
    assert not np.allclose(trained[0]["embed.W_E"], trained[1]["embed.W_E"])


def test_default_config_has_the_paper_s_model():
    c = config.default()
    assert sweeps.expand(c).runs[0].problem().model == ModelConfig()
