"""The measures beside the paper's own against their definitions, on random, trained, ideal and reference models."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import slow
import slow_later
from cases import QUICK, REFERENCE_MODELS, hyperparameters, needs_reference, random_case, reference_case

from grokjax import config, results, tasks, training
from grokjax.errors import InputError
from grokjax.measures import MEASURES, clock, curvature, keys, marginals, paper, registry, stability, vectors
from grokjax.measures.shared import KEY_RULES, Shared, logit_share_threshold
from grokjax.model import ModelConfig

FAST = ("paper", "clock", "stability", "efficiency", "attention", "spectra", "gradients")
# tests/test_measures_paper.py has those of paper.py and the keys in use.
COLUMNS = {
    m.name: m
    for m in registry.in_step(FAST).values()
    if m.group in FAST and m.function.__module__ != paper.__name__ and m.name not in ("key_freqs", "n_key_freqs")
}


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def compute(cfg, direction, params, train_pairs, answers):
    shared = Shared(cfg, direction, params, train_pairs, answers)
    return registry.compute(COLUMNS, shared), shared.grads


def measured(case):
    """All later measures of a case by plain name, counts made shares as on disk; and the gradient."""
    values, grads = compute(case.cfg, case.direction, case.params, case.train_pairs, case.answers)
    return results.finish(COLUMNS, values, case.cfg, len(case.train_pairs)), grads


def expected(case, grads):
    """The same by slow.py and slow_later.py but for neuron_freq; and every frequency's share of every neuron."""
    p, direction, act = case.cfg.p, case.direction, case.cfg.act
    every_pair = np.arange(p * p)
    logits, acts = slow.forward(case.params, every_pair, act)
    own_keys = slow.key_freqs(case.params)
    shares = slow_later.neuron_shares(acts)
    sets = slow_later.key_sets(case.params, logits, shares, direction)
    freq, fve = slow_later.neuron_fit(shares)
    over = np.array([np.sum((freq == k) & (fve > 0.85)) for k in slow.freqs(p)])
    result = {
        "logit_block_norm": slow_later.logit_block_norm(logits),
        "products_loss": slow.mean_loss(slow_later.products_logits(logits, own_keys), case.answers),
        "neuron_fve": fve,
        "neurons_over_85": np.sum(over),
        "neurons_per_freq": over,
        "key_rule_agreement": min(slow_later.jaccard(x, y) for x in sets.values() for y in sets.values()),
        "gradient_symmetricity": slow_later.gradient_symmetricity(case.params, clock.triples(p), act),
        "circularity": slow_later.circularity(case.params["embed.W_E"][:p]),
        "class_mean_norm_W_U": np.linalg.norm(np.mean(case.params["unembed.W_U"], 1)),
        "grad_norm": math.sqrt(slow.sum_sq(grads)),
    }
    for rule, chosen in sets.items():
        result[f"key_freqs_{rule}"] = np.array([k in chosen for k in slow.freqs(p)])
        result[f"n_key_freqs_{rule}"] = len(chosen)
    for name in stability.MATRICES:
        descent = [-grads[key] for key in grads if key.endswith(name)]
        weights = [case.params[key] for key in grads if key.endswith(name)]
        result[f"gradient_weight_cosine_{name}"] = slow_later.cosine(descent, weights)
    if direction is not None:
        result |= {
            "trig_coef_all": slow_later.trig_coef_all(logits, direction),
            "fve_logits_trig": slow_later.fve_logits_trig(logits, own_keys, direction),
            "distance_irrelevance": slow_later.distance_irrelevance(logits, case.answers, direction),
        }
        if p < 50:  # a regression on P³ × (P-1)/2 numbers
            result["trig_share"] = slow_later.trig_share(logits, direction)
    result |= slow_later.efficiency(case.params, logits, case.answers, case.train_pairs)
    result |= slow_later.attention(slow_later.run(case.params, slow_later.embedded(case.params, every_pair), act)[1])
    return result | slow_later.spectra(case.params), shares


# Checked apart.
ELSEWHERE = {"neuron_freq", "softmax_collapse", "zero_terms", "trig_share"}
# Of what is small because much cancels: how large the parts are, in which rounding counts.
SCALES = {"trig_coef_all": 0.1, "fve_logits_trig": 0.1, "trig_share": 0.1} | {
    f"gradient_weight_cosine_{name}": 1.0 for name in stability.MATRICES
}


def check(case, rtol=1e-4):
    got, grads = measured(case)
    exact, shares = expected(case, grads)
    assert got.keys() - exact.keys() <= ELSEWHERE
    for name, value in exact.items():
        tolerance = 0 if MEASURES[name].dtype != "float" else rtol
        scale = SCALES.get(name, np.max(np.abs(value), initial=0) if np.shape(value) else 0)
        np.testing.assert_allclose(got[name], value, tolerance, 0.1 * tolerance * scale, err_msg=name)
    check_what_float32_loses(case, got)
    first, second = np.sort(shares, 0)[[-1, -2]]
    clear = first > second + 1e-4
    np.testing.assert_array_equal(got["neuron_freq"][clear], np.argmax(shares, 0)[clear] + 1)
    return got


def check_what_float32_loses(case, got):
    """Sums round differently in different orders: softmax_collapse and zero_terms lie between two bounds."""
    logits = slow.forward(case.params, case.train_pairs, case.cfg.act)[0]
    least, most = slow_later.collapsed(logits)
    assert np.mean(least) <= got["softmax_collapse"] <= np.mean(most)
    least, most = slow_later.lost(logits, case.answers[case.train_pairs])
    assert np.mean(least) <= got["zero_terms"] <= np.mean(most)


# --- against the definitions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        {"p": 5},
        {"p": 8, "n_layers": 2, "act": "gelu", "task": "subtract"},
        {"p": 23, "task": "multiply", "d_model": 12, "n_heads": 3},
    ],
    ids=lambda shape: "-".join(map(str, shape.values())),
)
def test_random_weights(shape):
    for seed, scale in ((0, 1.0), (1, 2.0)):
        check(random_case(**shape, seed=seed, scale=scale))


def test_random_weights_at_full_size():
    case = random_case(113, d_mlp=8, fraction=0.3)
    waves = np.sin(2 * np.pi * np.outer([5, 30, 56], np.arange(113)) / 113)  # few keys: regressions stay small
    W_U = case.params["unembed.W_U"] + np.float32(np.eye(8, 3) @ waves)
    got = check(dataclasses.replace(case, params=case.params | {"unembed.W_U": W_U}))
    assert 0 < got["n_key_freqs_W_L"] < 6


@pytest.mark.parametrize("step", [0, 300, 2000])
def test_along_a_training_run(training_run, step):
    got = check(training_run[step], rtol=5e-4)
    if step == 2000:  # something to agree on
        assert got["fve_logits_trig"] > 0.3
        assert got["neurons_over_85"] > 0


def test_all_of_them_are_checked():
    case = random_case(5)
    exact, _ = expected(case, case.params)
    assert "trig_share" in exact
    unchecked = {m.name for m in MEASURES.values() if m.group in FAST} - exact.keys() - ELSEWHERE
    here = {f"update_weight_cosine_{name}" for name in stability.MATRICES} | {"update_norm"}
    elsewhere = {m.name for m in MEASURES.values() if m.function.__module__ == paper.__name__}
    assert unchecked == here | elsewhere | {"key_freqs", "n_key_freqs"}
    assert {m.name for m in MEASURES.values() if m.slow} == {"hessian_top", "hessian_trace", "local_complexity"}


def test_gradient_by_differences():
    case = random_case(5)
    _, grads = measured(case)
    by_differences = slow_later.gradient(case.params, case.train_pairs, case.answers)
    for key, value in grads.items():
        np.testing.assert_allclose(value, by_differences[key], atol=1e-6, err_msg=key)


# --- reference models -----------------------------------------------------------------------------------------------

REFERENCE_COLUMNS = ("trig_coef_all", "fve_logits_trig", "neuron_freq", "neuron_fve", "neurons_over_85", "trig_share")


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def compute_reference(cfg, params, train_pairs, answers, key_freqs):
    shared = Shared(cfg, 1, params, train_pairs, answers, key_freqs)
    own = Shared(cfg, 1, params, train_pairs, answers)
    some = registry.compute({name: MEASURES[name] for name in REFERENCE_COLUMNS}, shared)
    return some | {rule: own.keys_by(rule) for rule in KEY_RULES}


@needs_reference
@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_reference_models(name):
    case, listed = reference_case(name)
    listed_K = np.isin(np.arange(1, 57), listed["key_freqs"])
    got = compute_reference(case.cfg, case.params, case.train_pairs, case.answers, listed_K)
    alpha = np.array(listed["trig_coef_all"])
    np.testing.assert_allclose(got["trig_coef_all"], alpha, atol=1e-4 * np.max(np.abs(alpha)))
    assert float(got["fve_logits_trig"]) == pytest.approx(listed["fve_logits_trig"], rel=1e-4)
    np.testing.assert_allclose(got["neuron_fve"], listed["neuron_fve"], atol=1e-4)
    np.testing.assert_array_equal(got["neuron_freq"], listed["neuron_freq"])
    assert int(got["neurons_over_85"]) == listed["neurons_over_85"]
    all_of_them = listed["fve_logits_trig"] * np.sum(alpha**2) / np.sum(alpha[listed_K] ** 2)
    assert float(got["trig_share"]) == pytest.approx(all_of_them, rel=2e-3)  # their centring differs
    if name == "mod113_step10000":
        for rule in KEY_RULES:
            assert np.array_equal(got[rule], listed_K), rule


# --- ideal models, whose answers are known --------------------------------------------------------------------------

P = 23
CASE = random_case(P)


class Ideal(Shared):
    """A model seen only through logits and activations that are given."""

    def __init__(self, logits=None, acts=None, case=CASE, **more):
        super().__init__(case.cfg, case.direction, case.params, case.train_pairs, case.answers, **more)
        p = case.cfg.p
        logits = np.zeros((p * p, p)) if logits is None else logits
        self._forward = np.float32(logits), np.float32(np.zeros((p * p, 1)) if acts is None else acts)


def value(name, shared):
    return np.asarray(MEASURES[name].function(shared))


def cosines(coefficients, direction=1, p=P):
    """Σ α_k cos(w_k(a ± b - c)), [P², P]."""
    return sum(alpha * slow_later.cosine_of(p, k, direction) for k, alpha in coefficients.items()).reshape(p * p, p)


def mask(*keys, p=P):
    return np.isin(np.arange(1, (p - 1) // 2 + 1), keys)


@pytest.mark.parametrize("task", ["add", "subtract"])
def test_ideal_logits(task):
    case = random_case(P, task=task)
    alpha = {2: 3.0, 5: 2.0}
    shared = Ideal(7 + cosines(alpha, case.direction), case=case, key_freqs_K=mask(2, 5))
    expected = np.where(mask(2), 3.0, np.where(mask(5), 2.0, 0.0))
    np.testing.assert_allclose(value("trig_coef_all", shared), expected, atol=1e-5)
    np.testing.assert_allclose(value("logit_block_norm", shared), expected * math.sqrt(P**3 / 2), atol=1e-2)
    for name in ("fve_logits_trig", "trig_share"):
        assert value(name, shared) == pytest.approx(1, abs=1e-6)
    shares = np.where(mask(2), 9 / 13, np.where(mask(5), 4 / 13, 0))
    np.testing.assert_allclose(shared.logit_share_K, shares, atol=1e-6)
    assert np.array_equal(shared.keys_by("logits"), mask(2, 5))
    loss = float(value("products_loss", shared))
    assert loss == pytest.approx(float(np.mean(shared.loss_N)), rel=1e-5)
    assert loss == pytest.approx(float(paper.restricted_loss(shared)), rel=1e-5)
    one_key = Ideal(cosines(alpha, case.direction), case=case, key_freqs_K=mask(2))
    assert value("fve_logits_trig", one_key) == pytest.approx(9 / 13, rel=1e-5)
    no_key = Ideal(cosines(alpha, case.direction), case=case, key_freqs_K=mask())
    assert value("fve_logits_trig", no_key) == 0
    assert value("products_loss", no_key) == pytest.approx(math.log(P), rel=1e-6)


def test_products_keep_more_than_sum_directions():
    a, b = np.divmod(np.arange(P * P), P)
    c = np.arange(P)
    n = 2 * np.pi * 3 / P
    extra = 2 * np.outer(np.cos(n * a) * np.cos(n * b), np.cos(n * c)) + np.outer(np.sin(n * b), c / P)
    shared = Ideal(cosines({3: 5.0}) + extra, key_freqs_K=mask(3))
    whole = float(np.mean(shared.loss_N))
    assert value("products_loss", shared) == pytest.approx(whole, rel=1e-5)
    assert abs(float(paper.restricted_loss(shared)) - whole) > 1e-3


def test_products_are_the_four_averages():
    grid = np.random.default_rng(0).normal(size=(49, 7))
    spectra = marginals.spectra(jnp.asarray(grid, jnp.float32), 7)
    for k in slow.freqs(7):
        energy = np.sum((slow_later.products(7, k) @ grid) ** 2, 0)
        np.testing.assert_allclose(marginals.energy(spectra)[k - 1], energy, rtol=1e-5)
        kept = marginals.keep(spectra, mask(k, p=7))
        np.testing.assert_allclose(kept, slow_later.products_logits(grid, [k]), atol=1e-5)


def test_ideal_neurons():
    a, b = np.divmod(np.arange(P * P), P)
    w = 2 * np.pi / P
    acts = np.stack(
        [
            1 + np.cos(4 * w * a) + 0.5 * np.sin(4 * w * b),
            np.cos(9 * w * a) * np.sin(9 * w * b),
            np.cos(2 * w * a) + np.cos(3 * w * a),  # half and half: under 85 %
            np.full(P * P, 0.7),
            np.zeros(P * P),
        ],
        1,
    )
    shared = Ideal(acts=acts)
    np.testing.assert_array_equal(value("neuron_freq", shared)[[0, 1, 3, 4]], [4, 9, 0, 0])
    np.testing.assert_allclose(value("neuron_fve", shared), [1, 1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(value("neurons_per_freq", shared), mask(4, 9))
    assert value("neurons_over_85", shared) == 2
    assert np.array_equal(shared.keys_by("neurons"), mask(4, 9))


def circles(radii, p=P, d_model=8):
    """An embedding whose tokens lie on circles: one per frequency, each in a plane of its own."""
    columns = [r * f(2 * np.pi * k * np.arange(p) / p) for k, r in radii.items() for f in (np.cos, np.sin)]
    return np.pad(np.stack(columns, 1), ((0, 1), (0, d_model - len(columns)))).astype(np.float32)


def test_key_rules_agree_on_an_ideal_model():
    a, _ = np.divmod(np.arange(P * P), P)
    waves = {2: 3.0, 5: 2.0}
    params = dict(CASE.params)
    params["embed.W_E"] = circles(waves)
    params["unembed.W_U"] = circles(waves)[:P].T
    params["blocks.0.mlp.W_out"] = np.eye(16, 8, dtype=np.float32)
    case = dataclasses.replace(CASE, params=params)
    acts = np.stack([np.cos(2 * np.pi * k * a / P) for k in waves], 1)
    shared = Ideal(cosines(waves), acts, case)
    for rule in KEY_RULES:
        assert np.array_equal(shared.keys_by(rule), mask(2, 5)), rule
        assert value(f"n_key_freqs_{rule}", shared) == 2
        assert np.array_equal(Ideal(cosines(waves), acts, case, key_rule=rule).key_freqs_K, mask(2, 5))
    assert value("key_rule_agreement", shared) == 1
    assert value("key_rule_agreement", Ideal(cosines({2: 3.0}), acts, case)) == 0.5
    assert value("key_rule_agreement", Ideal(cosines({7: 3.0}), acts, case)) == 0
    assert np.array_equal(Ideal(case=case).keys_by("logits"), mask())
    with pytest.raises(InputError, match="key_rule 'w_l' is unknown: known are W_E, W_L, logits, neurons"):
        shared.keys_by("w_l")


def test_agreement_of_sets():
    sets = [set(), {2}, {2, 5}, {5, 7, 11}]
    for x in sets:
        for y in sets:
            assert float(keys.jaccard(mask(*x), mask(*y))) == pytest.approx(slow_later.jaccard(x, y))


def test_share_of_the_logits_that_makes_a_key():
    assert logit_share_threshold(113) == 3 / 56
    assert logit_share_threshold(5) == 0.5


@pytest.mark.parametrize("task", ["add", "subtract"])
def test_distance_irrelevance(task):
    case = random_case(P, task=task)
    a, b = np.divmod(np.arange(P * P), P)
    of_sum, of_distance = np.cos(2 * np.pi * (a + b) / P), np.abs(np.cos(np.pi * (a - b) / P))
    if task == "subtract":
        of_sum, of_distance = of_distance, of_sum
    right = np.eye(P)[case.answers]
    assert value("distance_irrelevance", Ideal(of_sum[:, None] * right, case=case)) == pytest.approx(1, rel=1e-5)
    assert value("distance_irrelevance", Ideal(of_distance[:, None] * right, case=case)) == pytest.approx(0, abs=1e-6)
    assert np.isnan(value("distance_irrelevance", Ideal(right, case=case)))


def test_gradients_are_symmetric_where_positions_are():
    params = CASE.params | {"pos_embed.W_pos": np.zeros_like(CASE.params["pos_embed.W_pos"])}
    params |= {"blocks.0.attn.W_Q": np.zeros_like(CASE.params["blocks.0.attn.W_Q"])}
    shared = dataclasses.replace(CASE, params=params).shared()
    assert value("gradient_symmetricity", shared) == pytest.approx(1, abs=1e-5)
    triples = clock.triples(P)
    assert len({tuple(abc) for abc in triples.tolist()}) == 100
    assert len(clock.triples(3)) == 27


def test_circularity():
    def of(W_E):
        params = CASE.params | {"embed.W_E": np.float32(W_E)}
        return value("circularity", dataclasses.replace(CASE, params=params).shared())

    assert of(circles({2: 3.0, 5: 2.0}) + 7) == pytest.approx(1, abs=1e-5)
    assert of(circles({2: 3.0, 5: 2.0, 7: 1.0})) == pytest.approx(1, abs=1e-5)
    assert of(np.random.default_rng(0).normal(size=(P + 1, 8))) < 0.6
    assert np.isnan(of(circles({2: 3.0})))


def test_what_softmax_loses():
    case = random_case(5)
    gap = np.array([0.0, 10.0, 16.0, 18.0, 30.0])[np.arange(25) % 5]
    logits = gap[:, None] * np.eye(5)[case.answers] + 50
    wrong = np.arange(25) >= 15  # another class is on top: softmax collapses, the loss does not vanish
    logits[wrong] = np.roll(logits[wrong], 1, 1)
    shared = Ideal(logits, case=case)
    train = np.isin(np.arange(25), case.train_pairs)
    assert value("softmax_collapse", shared) == np.sum(train & (gap > 17))
    assert value("zero_terms", shared) == np.sum(train & (gap > 17) & ~wrong)
    assert np.all(np.asarray(shared.loss_N) > 0)


def test_heads():
    one = CASE.params["blocks.0.attn.W_K"][:1]
    params = CASE.params | {"blocks.0.attn.W_K": np.repeat(one, 2, 0)}
    params |= {"blocks.0.attn.W_Q": np.repeat(CASE.params["blocks.0.attn.W_Q"][:1], 2, 0)}
    same = dataclasses.replace(CASE, params=params).shared()
    assert value("head_similarity", same) == pytest.approx(1, abs=1e-6)
    assert value("head_entropy_std", same) == pytest.approx(0, abs=1e-6)
    blind = {"blocks.0.attn.W_Q": np.zeros_like(CASE.params["blocks.0.attn.W_Q"])}
    uniform = dataclasses.replace(CASE, params=CASE.params | blind).shared()
    assert value("head_entropy_mean", uniform) == pytest.approx(math.log(3), rel=1e-6)
    assert np.isnan(value("head_similarity", random_case(5, n_heads=1).shared()))


def test_spectra():
    def of(W_E):
        params = CASE.params | {"embed.W_E": np.float32(W_E)}
        shared = dataclasses.replace(CASE, params=params).shared()
        return [float(value(name, shared)) for name in ("effective_rank_W_E", "effective_dimension_W_E", "ipr_W_E")]

    assert of(circles({2: 1.0, 5: 1.0})) == pytest.approx([4, 4, 1 / 2], rel=1e-5)
    assert of(circles({2: 1.0}) + 1e-9) == pytest.approx([2, 2, 1], rel=1e-4)
    flat = np.linalg.qr(np.random.default_rng(0).normal(size=(P, P)))[0]
    assert of(np.pad(flat, ((0, 1), (0, 0))))[0] == pytest.approx(P, rel=1e-5)
    assert of(np.pad(slow.basis(P).T, ((0, 1), (0, 0))))[2] == pytest.approx(2 / (P - 1), rel=1e-5)


def test_tiny_numbers_have_norms_and_cosines():
    x = [np.float32([3e-30, 0]), np.float32([[-4e-30]])]
    y = [np.float32([3, 0]), np.float32([[4]])]
    assert float(vectors.norm(x)) == pytest.approx(5e-30, rel=1e-6)
    assert float(vectors.cosine(x, y)) == pytest.approx(-7 / 25, rel=1e-6)
    zero = [np.zeros(2, np.float32), np.zeros((1, 1), np.float32)]
    assert float(vectors.norm(zero)) == 0
    assert np.isnan(vectors.cosine(x, zero))


# --- the next update ------------------------------------------------------------------------------------------------


def small_problem(**more):
    cfg = ModelConfig(p=7, d_model=8, n_heads=2, d_mlp=16)
    return training.Problem(cfg, n_train=29, measures=("stability", "gradients"), **more)


def small_inputs():
    return training.Inputs(
        np.uint32(0),
        hyperparameters(learning_rate=1e-2),
        tasks.train_pairs(7, 0.6, 0),
        tasks.answers("add", 7),
    )


def test_next_update():
    problem, inputs = small_problem(), small_inputs()

    @functools.partial(jax.jit, compiler_options=QUICK)
    def look(n):
        state = training.train(problem, training.init(problem, inputs), n)
        return state.params, training.train(problem, state, 1).params, training.evaluate(problem, state)

    first, same, at_start = look(0)
    assert all(np.array_equal(first[key], same[key]) for key in first)
    assert at_start["update_norm"] == 0
    assert np.isnan(at_start["update_weight_cosine_W_E"])
    before, after, got = look(20)
    moved = {key: np.float64(after[key]) - before[key] for key in before}
    assert float(got["update_norm"]) == pytest.approx(math.sqrt(slow.sum_sq(moved)), rel=1e-4)
    for name in stability.MATRICES:
        update, weights = ([tree[key] for key in tree if key.endswith(name)] for tree in (moved, before))
        assert float(got[f"update_weight_cosine_{name}"]) == pytest.approx(slow_later.cosine(update, weights), abs=1e-4)


def test_without_an_optimizer_there_is_no_update():
    problem, inputs = small_problem(), small_inputs()
    columns = registry.in_step(problem.measures)
    params = jax.eval_shape(functools.partial(training.init, problem), inputs).params
    got = jax.eval_shape(lambda params: registry.compute(columns, training.shared(problem, inputs, params)), params)
    assert columns.keys() - got.keys() == {name for name, m in columns.items() if m.needs_update}
    assert "the optimizer's state" in MEASURES["update_norm"].when_null


# --- curvature ------------------------------------------------------------------------------------------------------


def with_loss(loss_fn):
    return CASE.shared(loss_fn=loss_fn)


def quadratic(curvatures):
    """½ Σ c θ² with curvatures c dealt out in turn over the parameters."""

    def loss(params):
        flat = jnp.concatenate([jnp.ravel(x) for x in params.values()])
        return jnp.sum(jnp.resize(jnp.asarray(curvatures), flat.shape) * flat**2) / 2

    return loss, np.resize(curvatures, sum(x.size for x in CASE.params.values()))


@pytest.mark.parametrize("curvatures", [[3.0, 0.5, -7.0], [-1.0, -2.0], [0.0], [1e-9, 2e-9]])
def test_curvature_of_a_quadratic(curvatures):
    loss, diagonal = quadratic(np.float32(curvatures))
    assert value("hessian_top", with_loss(loss)) == pytest.approx(max(curvatures), rel=1e-4, abs=1e-20)
    # v·Hv is Σ c for any signs v, so the estimate is exact here.
    assert value("hessian_trace", with_loss(loss)) == pytest.approx(np.sum(diagonal), rel=1e-4, abs=1e-20)


def test_ritz_values_of_a_full_space_are_the_eigenvalues():
    drawn = np.random.default_rng(0).normal(size=(15, 15)).astype(np.float32)
    matrix = drawn + drawn.T
    values = curvature.krylov(lambda v: matrix @ v, jnp.ones(15), 15)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(np.float64(matrix)), atol=1e-4)


def test_curvature_of_a_small_model():
    case = random_case(5, d_model=4, n_heads=1, d_mlp=6)
    flat, unravel = jax.flatten_util.ravel_pytree(case.params)
    hessian = np.asarray(jax.jit(jax.hessian(lambda v: case.shared().loss_fn(unravel(v))))(flat), np.float64)
    top, trace = jax.jit(lambda params: [m(dataclasses.replace(case, params=params).shared()) for m in SLOW[:2]])(
        case.params
    )
    assert float(top) == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)
    probes = np.asarray(jax.random.rademacher(jax.random.key(1), (curvature.N_PROBES, flat.size), np.float32))
    assert float(trace) == pytest.approx(np.mean([v @ hessian @ v for v in probes]), rel=1e-4)


SLOW = [m.function for m in registry.in_step(["curvature"], slow=True).values()]


@pytest.mark.parametrize("shape", [{"p": 5}, {"p": 7, "n_layers": 2, "act": "gelu"}])
def test_local_complexity(shape):
    case = random_case(**shape)
    directions = curvature.frame(3 * case.cfg.d_model)
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-12)
    assert len(directions) == min(25, 24)
    points = curvature.points(case.cfg.p)
    exact = slow_later.local_complexity(case.params, points, directions, curvature.RADIUS, case.cfg.act)
    assert exact > 0.3
    got = jax.jit(lambda: curvature.local_complexity(case.shared()), compiler_options=QUICK)()
    assert float(got) == pytest.approx(exact, rel=1e-6)


# --- the registry ---------------------------------------------------------------------------------------------------


def test_what_is_undefined_is_null_on_purpose():
    case = random_case(5)
    zeros = {key: np.zeros_like(x) for key, x in case.params.items()}
    got, _ = measured(dataclasses.replace(case, params=zeros))
    for name, x in got.items():
        undefined = bool(MEASURES[name].undefined) and name != "head_similarity"
        assert np.all(np.isnan(np.float64(x))) == undefined, name
    for m in MEASURES.values():
        assert m.undefined in m.when_null
        assert m.when_null.endswith("the run diverged")


def test_shapes_and_dtypes_are_as_declared():
    case = random_case(5)
    for name, x in compute(case.cfg, case.direction, case.params, case.train_pairs, case.answers)[0].items():
        m = MEASURES[name]
        assert x.shape == tuple(registry.DIMS[dim](case.cfg) for dim in m.shape), name
        assert x.dtype == {"float": np.float32}.get(m.dtype, m.dtype), name


def test_groups_and_tiers():
    assert {*FAST, "curvature"} == set(registry.groups()) - {registry.ALWAYS}
    assert config.default().measures == ("paper",)
    assert registry.in_step(["curvature"]).keys() == registry.in_step([]).keys()
    assert not registry.in_step(FAST, slow=True)
    assert registry.in_step(["paper", "curvature"], slow=True).keys() == registry.in_step(["curvature"], True).keys()
    hidden = dataclasses.replace(MEASURES["update_norm"], needs_sum=True)
    assert [hidden.defined(1), hidden.defined(None), hidden.defined(1, False)] == [True, False, False]


def test_slow_measures_are_evaluated_apart():
    problem = dataclasses.replace(small_problem(), measures=("paper", "curvature"))
    state = jax.eval_shape(functools.partial(training.init, problem), small_inputs())
    slow_row = jax.eval_shape(functools.partial(training.evaluate, problem, slow=True), state)
    assert slow_row.keys() == {"hessian_top", "hessian_trace", "local_complexity"}
    assert not slow_row.keys() & jax.eval_shape(functools.partial(training.evaluate, problem), state).keys()


def test_key_rule_setting():
    field = config.FIELDS["key_rule"]
    assert field.default == "W_L"
    assert all(field.test(rule) for rule in KEY_RULES)
    assert not field.test("W_U")
    values = {**config.flat(config.default()), "key_rule": "logits", "task": "multiply"}
    with pytest.raises(InputError, match=r"config\.key_rule is 'logits', but task 'multiply'"):
        config.check(values)
    config.check(values | {"task": "subtract"})
    for rule in KEY_RULES:
        problem = small_problem(key_rule=rule, key_threshold=0.5)
        shared = training.shared(problem, small_inputs(), random_case(7).params)
        assert (shared.key_rule, shared.key_threshold) == (rule, 0.5)


def test_the_documented_example_works():
    example = registry.__doc__.split("ten lines:\n\n")[1].split("\n\n`s` is")[0]
    names = {}
    try:
        exec("\n".join(line[4:] for line in example.splitlines()), names)
        assert names["get_config"]().measures == ("paper", "mine")
        shared = CASE.shared()
        largest = max(slow.cross_entropy(slow.all_logits(CASE.params), CASE.answers)[CASE.train_pairs])
        assert float(names["train_loss_max"](shared)) == pytest.approx(float(largest), rel=1e-5)
        assert registry.of_groups(["mine"])[-1] == MEASURES["train_loss_max"]
    finally:
        MEASURES.pop("train_loss_max", None)
