"""The transformer token by token, in every shape that the config gives it, against its definition written slowly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import oracle_architectures
import pytest
from cases import QUICK

from grokjax.core import losses, model, transformer
from grokjax.core.model import ModelConfig
from grokjax.measures import MEASURES
from grokjax.measures.shared import Shared

P = 5
SHAPES = {
    "two tokens": {"n_ctx": 2},
    "two tokens, two layers": {"n_ctx": 2, "n_layers": 2},
    "uniform": {"n_ctx": 2, "attention_rate": 0.0},
    "half": {"attention_rate": 0.5, "n_layers": 2},
    "both ways": {"n_ctx": 2, "attention_rate": 0.3, "attention_dir": "bidirectional", "n_layers": 2},
    "quadratic": {"act": "quadratic"},
    "layer norm": {"normalization_type": "LN", "n_layers": 2, "act": "gelu"},
    "d_head": {"d_head": 3, "n_heads": 3},
    "tied": {"unembed": "tied"},
    "tied, normed": {"unembed": "tied", "normalization_type": "LN", "n_ctx": 2},
    "separate": {"embeddings": "separate", "act": "gelu"},
    "separate, two tokens": {"embeddings": "separate", "n_ctx": 2},
}
compiled = functools.partial(jax.jit, compiler_options=QUICK)


def drawn(cfg, seed=0):
    """Random parameters in float64, and some pairs, one of them twice."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(0, 0.6, shape) for name, shape in model.shapes(cfg).items()}
    return params, np.r_[rng.permutation(P * P)[:11], 3].astype(np.int32)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def cfg(request):
    return ModelConfig(**{"p": P, "d_model": 6, "n_heads": 2, "d_mlp": 7} | request.param)


def slowly(cfg, params, pairs, keep=None):
    """Logits and neurons by the oracle."""
    shape = {name: getattr(cfg, name) for name in ("act", "n_ctx", "embeddings")}
    causal = cfg.attention_dir == "causal"
    return oracle_architectures.transformer(
        params, P, pairs, **shape, rate=cfg.attention_rate, causal=causal, keep=keep
    )


def traced(cfg, function):
    """A function of a shape, parameters and more, compiled, its rate a tracer where it has one."""

    def with_rate(rate, *args):
        return function(dataclasses.replace(cfg, attention_rate=rate) if cfg.has_rate else cfg, *args)

    return functools.partial(compiled(with_rate), cfg.attention_rate)


def test_forward_is_the_definition(cfg):
    params, pairs_B = drawn(cfg)
    with jax.enable_x64(True):
        logits, acts = traced(cfg, model.forward)(params, model.lookup(jnp.asarray(pairs_B), P))
        grid, _ = traced(cfg, model.forward)(params, model.grid(P))
        by_module = model.module(cfg, {k: jnp.asarray(x) for k, x in params.items()})
        tokens = model.tokens(jnp.asarray(pairs_B), P, cfg.n_ctx, P if cfg.embeddings == "separate" else 0)
        np.testing.assert_allclose(by_module(tokens), logits, rtol=1e-12, atol=1e-12)
    expected, neurons = slowly(cfg, params, pairs_B)
    np.testing.assert_allclose(logits, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(acts, neurons, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(grid[pairs_B], expected, rtol=1e-11, atol=1e-12)


def test_the_gradient_is_the_definition_s(cfg):
    """Along a random direction of each parameter, by central differences in float64."""
    params, pairs_B = drawn(cfg, 1)
    answers_B = pairs_B // P * (pairs_B % P) % P

    def loss(cfg, params, pairs):
        return jnp.mean(losses.cross_entropy(model.forward(cfg, params, pairs)[0], answers_B))

    def expected(params):
        z, _ = slowly(cfg, params, pairs_B)
        return oracle.mean_loss(z, answers_B)

    with jax.enable_x64(True):
        found = traced(cfg, jax.grad(loss, 1))(params, model.lookup(jnp.asarray(pairs_B), P))
    rng = np.random.default_rng(2)
    for name, value in params.items():
        way = rng.normal(size=value.shape) * 1e-6
        slope = (expected(params | {name: value + way}) - expected(params | {name: value - way})) / 2
        assert np.sum(np.asarray(found[name]) * way) == pytest.approx(slope, rel=1e-5, abs=1e-13), name


@pytest.mark.parametrize("n_layers", [1, 2])
def test_dropout_leaves_out_what_a_block_s_mlp_adds(n_layers):
    cfg = ModelConfig(P, n_layers, 6, 2, 7, dropout=0.25)
    params, pairs_B = drawn(cfg)
    key, n = jax.random.key(7), len(pairs_B)
    with jax.enable_x64(True):
        pairs = model.lookup(jnp.asarray(pairs_B), P)
        found = compiled(model.forward, static_argnums=0)(cfg, params, pairs, key)[0]
        assert not np.allclose(found, model.forward(cfg, params, pairs)[0])
        shapes = [(n, 3, 6)] * (n_layers - 1) + [(n, 6)]
        keys = [jax.random.fold_in(key, layer) for layer in range(n_layers)]
        keep = [np.asarray(jax.random.bernoulli(k, 0.75, shape)) / 0.75 for k, shape in zip(keys, shapes, strict=True)]
    np.testing.assert_allclose(found, slowly(cfg, params, pairs_B, keep)[0], rtol=1e-11, atol=1e-12)


def test_dropout_keeps_the_mean():
    drop = transformer.dropping(0.3, jax.random.key(0))
    x = drop(jnp.ones((400, 500)))
    np.testing.assert_allclose(np.unique(x), [0, 1 / 0.7], rtol=1e-6)
    assert float(jnp.mean(x)) == pytest.approx(1, abs=5 * np.sqrt(0.3 / 0.7 / x.size))


def test_initial_values_have_the_paper_s_deviations_and_layer_norm_begins_as_none():
    cfg = ModelConfig(64, 1, 96, 4, 128, d_head=48, normalization_type="LN", n_ctx=2)
    params = compiled(model.init, static_argnums=0)(cfg, jax.random.key(3), 2.0)
    for name, x in params.items():
        short = name.rsplit(".", 1)[1]
        if short in ("w", "b", "b_in", "b_out"):
            assert np.all(np.asarray(x) == (short == "w")), name
        else:
            fan = cfg.d_vocab if short == "W_U" else 128 if short == "W_out" else 96
            assert np.std(x) * np.sqrt(96 if short == "W_out" else fan) == pytest.approx(2, rel=5 / np.sqrt(x.size))


# --- what measures read -----------------------------------------------------------------------------------------------


def shared_of(cfg):
    params, pairs_B = drawn(cfg)
    answers_N = np.add.outer(np.arange(P), np.arange(P)).ravel() % P
    return Shared(cfg, 1, params, np.unique(pairs_B), answers_N)


def test_w_l_moves_the_logits_as_it_says(cfg):
    """Up to one factor per pair where LayerNorm divides, and the skip."""
    s = shared_of(cfg)
    if cfg.normalization_type:
        W_out = s.params[f"blocks.{cfg.n_layers - 1}.mlp.W_out"]
        inner = (W_out - W_out.mean(1, keepdims=True)) * s.params["ln_final.w"]
    else:
        inner = s.params[f"blocks.{cfg.n_layers - 1}.mlp.W_out"]
    W_U = s.params["unembed.W_U"] if cfg.unembed == "own" else s.params["embed.W_E"][:P].T
    with jax.enable_x64(True):
        np.testing.assert_allclose(s.W_L_PxM, (inner @ W_U).T, rtol=1e-12)


def test_separate_embeddings_are_read_side_by_side():
    cfg = ModelConfig(P, 1, 6, 2, 7, embeddings="separate")
    s = shared_of(cfg)
    W_E = s.params["embed.W_E"]
    assert W_E.shape == (2 * P + 1, 6)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(s.W_E_PxY, np.concatenate([W_E[:P], W_E[P : 2 * P]], 1))


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_attention_is_measured_as_shares_of_its_sum(rate):
    cfg = ModelConfig(P, 1, 6, 2, 7, n_ctx=2, attention_rate=rate)
    s = shared_of(cfg)
    params = {name: np.asarray(x) for name, x in s.params.items()}
    entropies = []
    for head in range(2):
        total = 0.0
        for pair in range(P * P):
            x = [params["embed.W_E"][t] + params["pos_embed.W_pos"][i] for i, t in enumerate(divmod(pair, P))]
            q = x[1] @ params["blocks.0.attn.W_Q"][head]
            scores = np.array([q @ (y @ params["blocks.0.attn.W_K"][head]) for y in x]) / np.sqrt(3)
            weights = rate * np.exp(scores) / np.exp(scores).sum() + (1 - rate)
            share = weights / weights.sum()
            total -= np.sum(share * np.log(share))
        entropies.append(total / P**2)
    with jax.enable_x64(True):
        assert float(MEASURES["head_entropy_mean"].function(s)) == pytest.approx(np.mean(entropies), rel=1e-10)


def test_gradients_are_symmetric_where_attention_is_uniform():
    """Of one layer that adds up a and b as pizza does: no position, and nothing of b's own skip."""
    cfg = ModelConfig(P, 1, 6, 2, 7, n_ctx=2, attention_rate=0.0)
    s = shared_of(cfg)
    params = {name: np.asarray(x) for name, x in s.params.items()}
    symmetric = float(MEASURES["gradient_symmetricity"].function(s))
    clock = Shared(dataclasses.replace(cfg, attention_rate=1.0), 1, params, s.train_pairs_B, s.answers_N)
    assert float(MEASURES["gradient_symmetricity"].function(clock)) < symmetric


def test_columns_of_parameters_that_a_model_has_not_are_null():
    tied = shared_of(ModelConfig(P, 1, 6, 2, 7, unembed="tied"))
    assert MEASURES["sum_sq_W_U"].undefined_for(tied) == "has no W_U"
    assert MEASURES["gradient_weight_cosine_W_U"].undefined_for(tied) == "has no W_U"
    assert not MEASURES["class_mean_norm_W_U"].undefined_for(tied)
    one_hot = ModelConfig(P, d_model=6, n_heads=2, d_mlp=7, architecture="mlp", inputs="one_hot")
    assert MEASURES["sum_sq_W_E"].undefined_for(shared_of(one_hot)) == "has no W_E"
    assert "the model has no W_pos" in MEASURES["sum_sq_W_pos"].when_null
