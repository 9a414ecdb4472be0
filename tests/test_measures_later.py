"""The measures beside the paper's own against their definitions, on random, trained and reference models."""

import dataclasses
import functools
import math
from types import SimpleNamespace

import jax
import numpy as np
import oracle
import oracle_later
import pytest
from cases import QUICK, REFERENCE_MODELS, needs_reference, random_case, reference_case
from tiers import long_but

from grokjax import config
from grokjax.core import model
from grokjax.core.model import ModelConfig
from grokjax.measures import attention, clock, noise, objective, paper, registry, stability
from grokjax.measures.registry import MEASURES
from grokjax.measures.shared import KEY_RULES, Shared

FAST = ("paper", "clock", "stability", "efficiency", "attention", "spectra", "gradients")
# tests/test_measures_paper.py has those of paper.py and the keys in use.
COLUMNS = {
    m.name: m
    for m in registry.in_step(FAST).values()
    if m.group in FAST and m.function.__module__ != paper.__name__ and m.name not in ("key_freqs", "n_key_freqs")
}


@pytest.fixture(autouse=True, scope="module")
def few_triples():
    """Their gradients by differences take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "N_TRIPLES", 100)
        yield


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def compute(cfg, direction, params, train_pairs, answers):
    shared = Shared(cfg, direction, params, train_pairs, answers)
    return registry.compute(COLUMNS, shared), shared.grads


def measured(case):
    """All later measures of a case by plain name, counts made shares as on disk; and the gradient."""
    values, grads = compute(case.cfg, case.direction, case.params, case.train_pairs, case.answers)
    return registry.counts_to_shares(COLUMNS, values, case.problem), grads


def expected(case, grads):
    """The same by oracle.py and oracle_later.py but for neuron_freq; and every frequency's share of every neuron."""
    p, direction, act = case.cfg.p, case.direction, case.cfg.act
    every_pair = np.arange(p * p)
    logits, acts = oracle.forward(case.params, every_pair, act)
    own_keys = oracle.key_freqs(case.params)
    shares = oracle_later.neuron_shares(acts)
    sets = oracle_later.key_sets(case.params, logits, shares, direction)
    freq, fve = oracle_later.neuron_fit(shares)
    over = np.array([np.sum((freq == k) & (fve > 0.85)) for k in oracle.freqs(p)])
    cosines = oracle_later.gradient_cosines(case.params, clock.triples(p), act)
    result = {
        "logit_block_norm": oracle_later.logit_block_norm(logits),
        "products_loss": oracle.mean_loss(oracle_later.products_logits(logits, own_keys), case.answers),
        "neuron_fve": fve,
        "neurons_over_85": np.sum(over),
        "neurons_per_freq": over,
        "key_rule_agreement": min(oracle_later.jaccard(x, y) for x in sets.values() for y in sets.values()),
        "gradient_symmetricity": np.mean(cosines),
        "gradient_symmetricity_error": np.std(cosines, ddof=1) * math.sqrt(1 / len(cosines) - 1 / p**3),
        "circularity": oracle_later.circularity(case.params["embed.W_E"][:p]),
        "class_mean_norm_W_U": np.linalg.norm(np.mean(case.params["unembed.W_U"], 1)),
        "grad_norm": math.sqrt(oracle.sum_sq(grads)),
    }
    for rule, chosen in sets.items():
        result[f"key_freqs_{rule}"] = np.array([k in chosen for k in oracle.freqs(p)])
        result[f"n_key_freqs_{rule}"] = len(chosen)
    for name in stability.MATRICES:
        descent = [-grads[key] for key in grads if key.endswith(name)]
        weights = [case.params[key] for key in grads if key.endswith(name)]
        result[f"gradient_weight_cosine_{name}"] = oracle_later.cosine(descent, weights)
    if direction is not None:
        result |= {
            "trig_coef_all": oracle_later.trig_coef_all(logits, direction),
            "fve_logits_trig": oracle_later.fve_logits_trig(logits, own_keys, direction),
            "fve_logits_trig_centred": oracle_later.fve_logits_trig(
                logits - np.mean(logits, 1, keepdims=True), own_keys, direction
            ),
            "distance_irrelevance": oracle_later.distance_irrelevance(logits, case.answers, direction),
        }
        if p < 50:  # a regression on P³ × (P-1)/2 numbers
            result["trig_share"] = oracle_later.trig_share(logits, direction)
    result |= oracle_later.efficiency(case.params, logits, case.answers, case.train_pairs)
    result |= oracle_later.attention(
        oracle_later.run(case.params, oracle_later.embedded(case.params, every_pair), act)[1]
    )
    return result | oracle_later.spectra(case.params), shares


# Checked apart.
ELSEWHERE = {"neuron_freq", "softmax_collapse", "zero_terms", "trig_share"}
# Of what is small because much cancels: how large the parts are, in which rounding counts.
SCALES = {"trig_coef_all": 0.1, "fve_logits_trig": 0.1, "fve_logits_trig_centred": 0.1, "trig_share": 0.1} | {
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
    """softmax_collapse and zero_terms, added up in their stated order; logits of float64 cross the bound elsewhere."""
    logits = oracle.forward(case.params, case.train_pairs, case.cfg.act)[0]
    labels = case.answers[case.train_pairs]
    nearly = 2 * np.max(np.abs(logits)) * 2.0**-20
    for name, of in (
        ("softmax_collapse", oracle_later.collapsed),
        ("zero_terms", lambda x: oracle_later.lost(x, labels)),
    ):
        top = np.arange(logits.shape[1]) == np.argmax(logits, 1)[:, None]
        least, most = (np.mean(of(logits + top * side)) for side in (-nearly, nearly))
        assert least <= got[name] <= most


# --- against the definitions ----------------------------------------------------------------------------------------


SHAPES = {
    "smallest": {"p": 5},
    "even, two layers": {"p": 8, "n_layers": 2, "act": "gelu", "task": "subtract"},
    "no sum": {"p": 23, "task": "multiply", "d_model": 12, "n_heads": 3},
}


@pytest.mark.parametrize("shape", long_but(["even, two layers"], SHAPES))
def test_random_weights(shape):
    for seed, scale in ((0, 1.0), (1, 2.0)):
        check(random_case(**shape, seed=seed, scale=scale))


@pytest.mark.long
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


@pytest.mark.long
def test_gradient_by_differences():
    case = random_case(5)
    _, grads = measured(case)
    by_differences = oracle_later.gradient(case.params, case.train_pairs, case.answers)
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


def test_attention_that_adds_up_to_more_than_one_is_divided_by_its_sum():
    """α softmax + (1 - α), of two tokens."""
    plain = ModelConfig(5, d_model=8, n_heads=2, d_mlp=16, n_ctx=2)
    params = model.init(plain, jax.random.key(0))
    [softmax_NxHxT] = attention.patterns(SimpleNamespace(cfg=plain, params=params))
    rated = dataclasses.replace(plain, attention_rate=0.3)
    [found_NxHxT] = attention.patterns(SimpleNamespace(cfg=rated, params=params))
    np.testing.assert_allclose(found_NxHxT, (0.3 * softmax_NxHxT + 0.7) / 1.7, rtol=1e-5)
    assert np.ptp(softmax_NxHxT) > 0.01


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
        assert x.shape == tuple(registry.DIMS[dim](case.problem) for dim in m.shape), name
        assert x.dtype == {"float": np.float32}.get(m.dtype, m.dtype), name


def test_groups_and_tiers():
    groups = {m.group for m in MEASURES.values() if not m.is_own}  # those of experiments apart, which other tests load
    assert {*FAST, "curvature", noise.GROUP, objective.GROUP} == groups - {registry.ALWAYS}
    assert config.default().measures == ("paper",)
    assert registry.in_step(["curvature"]).keys() == registry.in_step([]).keys()
    assert not registry.in_step(FAST, slow=True)
    assert registry.in_step(["paper", "curvature"], slow=True).keys() == registry.in_step(["curvature"], True).keys()
    hidden = {"hidden": dataclasses.replace(MEASURES["update_norm"], needs_sum=True, function=lambda s: 1)}
    of = [
        SimpleNamespace(has_sum=a, has_update=b, in_blocks=False, nonzero_b=False) for a, b in ((1, 1), (0, 1), (1, 0))
    ]
    assert [bool(registry.compute(hidden, s)) for s in of] == [True, False, False]
