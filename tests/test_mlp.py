"""The MLP on embedded pairs against its definition, and measures, plans and sweeps of it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import oracle_mlp
import pytest
import tiny
from cases import QUICK

import grokjax
from grokjax import sweeps, tasks
from grokjax.columns import is_of_model
from grokjax.core import backends, losses, model
from grokjax.core.model import ModelConfig
from grokjax.core.native import kernels
from grokjax.core.problem import Problem
from grokjax.measures import MEASURES, registry
from grokjax.measures.shared import Shared
from grokjax.training import layouts

P = 7
SHAPES = {
    "concatenated, separate": {},
    "concatenated, shared": {"embeddings": "shared"},
    "summed, separate, gelu": {"inputs": "summed", "act": "gelu"},
    "summed, shared, two layers": {"inputs": "summed", "embeddings": "shared", "n_layers": 2},
    "concatenated, three layers, gelu": {"n_layers": 3, "act": "gelu"},
    "summed, quadratic": {"inputs": "summed", "act": "quadratic"},
    "one-hot, two layers, quadratic": {"inputs": "one_hot", "n_layers": 2, "act": "quadratic"},
}
compiled = functools.partial(jax.jit, compiler_options=QUICK)


def config_of(**shape):
    return ModelConfig(p=P, d_model=5, n_heads=3, d_mlp=6, architecture="mlp", **shape)


def drawn(cfg, seed=0):
    """Random parameters in float64, and every pair but some, in no order, some of them twice."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(0, 1, shape) for name, shape in model.shapes(cfg).items()}
    return params, rng.permutation(np.r_[: P * P - 9, :5]).astype(np.int32)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def cfg(request):
    return config_of(**request.param)


def test_forward_is_the_definition(cfg):
    params, pairs_B = drawn(cfg)
    with jax.enable_x64(True):
        for pairs, numbers in ((model.lookup(jnp.asarray(pairs_B), P), pairs_B), (model.grid(P), np.arange(P * P))):
            logits, acts = compiled(model.forward, static_argnums=0)(cfg, params, pairs)
            expected = [oracle_mlp.forward(params, *divmod(int(n), P), cfg.act, cfg.inputs) for n in numbers]
            np.testing.assert_allclose(logits, [one for one, _, _ in expected], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(acts, [entering[-1] for _, entering, _ in expected], rtol=1e-12, atol=1e-12)


def test_the_gradient_is_that_of_the_chain_rule(cfg):
    params, pairs_B = drawn(cfg, 1)
    answers = tasks.answers("quadratic", P)

    def loss(params, pairs):
        return jnp.mean(losses.cross_entropy(model.forward(cfg, params, pairs)[0], answers[pairs_B]))

    with jax.enable_x64(True):
        found = compiled(jax.grad(loss))(params, model.lookup(jnp.asarray(pairs_B), P))
    expected = oracle_mlp.gradient(params, pairs_B, answers[pairs_B], cfg.act, cfg.inputs)
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_gradient_of_look_ups_is_a_product_and_no_scatter():
    cfg = config_of()
    problem = Problem(cfg, 9, batch_size=4)
    pairs = model.lookup(jnp.arange(9), P)
    text = jax.jit(jax.grad(backends.loss, 1), static_argnums=0).lower(problem, drawn(cfg)[0], pairs, np.zeros(9, int))
    assert "scatter" not in text.as_text()


def test_parameters_have_these_keys_and_axes(cfg):
    first = ({"summed": 5, "concatenated": 10, "one_hot": 2 * P}[cfg.inputs], 6)
    expected = {} if cfg.inputs == "one_hot" else {"embed.W_E": (P, 5)}
    expected |= {"blocks.0.mlp.W_in": first, "unembed.W_U": (6, P)}
    expected |= {f"blocks.{layer}.mlp.W_in": (6, 6) for layer in range(1, cfg.n_layers)}
    if cfg.embeddings == "separate" and cfg.inputs != "one_hot":
        expected["embed_b.W_E"] = (P, 5)
    assert model.shapes(cfg) == expected
    assert model.n_parameters(cfg) == sum(rows * columns for rows, columns in expected.values())
    names = {name.rsplit(".", 1)[1] for name in expected}
    assert names == {name for name in ("W_E", "W_pos", "W_Q", "W_in", "W_out", "W_U") if cfg.has(name)}


@pytest.mark.parametrize("init_scale", [1.0, 2.5])
def test_initial_values_are_normal_with_the_released_code_s_deviations(init_scale):
    cfg = ModelConfig(p=96, d_model=64, d_mlp=144, architecture="mlp")
    params = compiled(model.init, static_argnums=0)(cfg, jax.random.key(3), init_scale)
    other = compiled(model.init, static_argnums=0)(cfg, jax.random.key(4), init_scale)
    fans = {"embed.W_E": 64, "embed_b.W_E": 64, "blocks.0.mlp.W_in": 128, "unembed.W_U": 144}
    for name, fan in fans.items():
        value, noise = np.asarray(params[name], np.float64), 4 / np.sqrt(params[name].size)
        assert np.std(value) == pytest.approx(init_scale / np.sqrt(fan), rel=noise), name
        assert abs(np.mean(value)) < noise / np.sqrt(fan) * init_scale, name
        assert not np.any(value == np.asarray(other[name])), name
    W_a, W_b = (np.ravel(params[name]) for name in ("embed.W_E", "embed_b.W_E"))
    assert abs(np.corrcoef(W_a, W_b)[0, 1]) < 5 / np.sqrt(len(W_a))


def shared_of(cfg, task="add"):
    params, pairs_B = drawn(cfg)
    return Shared(cfg, 1, params, np.unique(pairs_B), tasks.answers(task, P))


def test_measures_of_w_e_read_both_embeddings_side_by_side():
    with jax.enable_x64(True):
        s = shared_of(config_of())
        both = np.concatenate([s.params["embed.W_E"], s.params["embed_b.W_E"]], 1)
        norms_K = np.asarray(MEASURES["freq_norm_W_E"].function(s))
        np.testing.assert_allclose(norms_K, oracle.fourier_norms(both)[1], rtol=1e-12)
        centred = np.sum((both - np.mean(both, 0)) ** 2)
        assert np.sum(norms_K**2) == pytest.approx(centred, rel=1e-12)  # Parseval
        assert MEASURES["sum_sq_W_E"].function(s) == pytest.approx(np.sum(both**2), rel=1e-12)
        assert MEASURES["sum_sq_weights"].function(s) == pytest.approx(
            sum(np.sum(x**2) for x in s.params.values()), rel=1e-12
        )
        np.testing.assert_allclose(s.W_L_PxM, s.params["unembed.W_U"].T)


def test_measures_that_read_what_an_mlp_has_not_are_null():
    s = shared_of(config_of())
    null = {name for name, m in MEASURES.items() if is_of_model(m.undefined_for(s))}
    named = {"head_similarity", "head_entropy_mean", "head_entropy_std", "gradient_symmetricity", "sum_sq_W_pos"}
    named |= {"gradient_symmetricity_error", "local_complexity", "update_weight_cosine_W_Q", "sum_sq_b_out"}
    assert named <= null
    assert not null & {"sum_sq_W_E", "sum_sq_W_in", "sum_sq_W_U", "update_weight_cosine_W_in", "restricted_loss"}
    transformer = Shared(dataclasses.replace(s.cfg, architecture="transformer"), 1, {}, s.train_pairs_B, s.answers_N)
    assert not [m for m in MEASURES.values() if is_of_model(m.undefined_for(transformer))]


def mlp_config():
    c = tiny.get_config()
    c.task, c.group, c.p, c.train_fraction = "group", "S_3", 6, 0.8
    c.model.architecture = "mlp"
    c.measures = tuple(name for name in registry.groups() if name in BUILT_IN)
    c.sweep.weight_decay = None
    c.steps, c.snapshot_every, c.slow_every = 40, 40, 40
    return c


BUILT_IN = ("paper", "attention", "clock", "efficiency", "gradients", "keys", "logits", "neurons", "spectra")


@pytest.mark.long
def test_a_sweep_of_it_trains_and_is_measured(tmp_path):
    c = mlp_config()
    c.sweep.model.inputs = ("concatenated", "summed")
    status, said = tiny.train(c, tmp_path / "mlp")
    assert status == 0, said
    table = grokjax.read_metrics(tmp_path / "mlp")
    assert len(table) == 4 * 3
    assert set(table["model.inputs"]) == {"concatenated", "summed"}
    assert table["head_similarity"].isna().all()
    assert table["restricted_loss_online"].notna().all()
    last = table[(table["run"] == 2) & (table["step"] == 40)].iloc[0]
    found = grokjax.measure(f"{tmp_path / 'mlp'}:2:40")
    assert found["null"]["head_similarity"] == "the model is an MLP"
    assert found["measured"]["architecture"] == "mlp"
    for name in ("test_loss", "sum_sq_W_E", "freq_norm_W_E", "fve_logits_trig_centred", "gini_freq_W_L"):
        np.testing.assert_allclose(found[name], last[name], rtol=1e-4, err_msg=name)


def test_what_a_plan_says_of_it(tmp_path):
    c = mlp_config()
    c.batch_size = 10
    status, said = tiny.train(c, tmp_path / "plan", plan_only=True)
    assert status == 0
    assert "MLP on concatenated separate embeddings, 1 layer, d_model 8, d_mlp 16, relu" in said
    assert "28 of 36 pairs to train on in batches of 10" in said
    assert not (tmp_path / "plan").exists()


def test_the_c_plus_plus_is_for_transformers():
    problem = sweeps.expand(mlp_config()).runs[0].problem()
    assert "transformers" in kernels.unsuited(problem.model)
    assert not backends.on_cpu(problem, 1, 1).n_parts
    assert backends.block_of(dataclasses.replace(problem, n_train=10**6)) == 0


def test_memory_is_estimated_by_its_own_sizes():
    """Wider neurons need more, heads nothing; less than the transformer of these widths."""
    cfg = ModelConfig(p=120, d_model=256, n_heads=4, d_mlp=128, architecture="mlp")
    problem = Problem(cfg, 5760)

    def needed(problem):
        return layouts.needed_bytes(problem, layouts.together(problem, 64))

    wider = dataclasses.replace(problem, model=dataclasses.replace(cfg, d_mlp=256))
    assert needed(wider) > needed(problem)
    assert needed(dataclasses.replace(problem, model=dataclasses.replace(cfg, n_heads=64))) == needed(problem)
    activations = 64 * 4 * 5760 * (2 * 128 + 120)
    assert needed(problem) > activations


def test_heads_need_not_divide_an_mlp_s_width():
    c = mlp_config()
    c.model.n_heads = 3
    assert sweeps.expand(c).runs[0].problem().model.d_model == 8
