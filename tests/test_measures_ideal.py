"""The measures beside the paper's own on ideal models, whose answers are known."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import oracle_later
import pytest
from cases import random_case, value
from tiers import long_but

from grokjax.errors import InputError
from grokjax.measures import clock, marginals, paper, vectors
from grokjax.measures import keys as keys_lib
from grokjax.measures.shared import KEY_RULES, Shared, logit_share_threshold

P = 23
CASE = random_case(P)


class Ideal(Shared):
    """A model seen only through logits and activations that are given."""

    def __init__(self, logits=None, acts=None, case=CASE, **more):
        super().__init__(case.cfg, case.direction, case.params, case.train_pairs, case.answers, **more)
        p = case.cfg.p
        logits = np.zeros((p * p, p)) if logits is None else logits
        self._forward = np.float32(logits), np.float32(np.zeros((p * p, 1)) if acts is None else acts)


def cosines(coefficients, direction=1, p=P):
    """Σ α_k cos(w_k(a ± b - c)), [P², P]."""
    return sum(alpha * oracle_later.cosine_of(p, k, direction) for k, alpha in coefficients.items()).reshape(p * p, p)


def mask(*keys, p=P):
    return np.isin(np.arange(1, p // 2 + 1), keys)


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
    for k in oracle.freqs(7):
        energy = np.sum((oracle_later.products(7, k) @ grid) ** 2, 0)
        np.testing.assert_allclose(marginals.energy(spectra)[k - 1], energy, rtol=1e-5)
        kept = marginals.keep(spectra, mask(k, p=7))
        np.testing.assert_allclose(kept, oracle_later.products_logits(grid, [k]), atol=1e-5)


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
            assert float(keys_lib.jaccard(mask(*x), mask(*y))) == pytest.approx(oracle_later.jaccard(x, y))


def test_share_of_the_logits_that_makes_a_key():
    assert logit_share_threshold(56) == 3 / 56
    assert logit_share_threshold(2) == 0.5


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


@pytest.mark.long
def test_gradients_are_symmetric_where_positions_are():
    params = CASE.params | {"pos_embed.W_pos": np.zeros_like(CASE.params["pos_embed.W_pos"])}
    params |= {"blocks.0.attn.W_Q": np.zeros_like(CASE.params["blocks.0.attn.W_Q"])}
    shared = dataclasses.replace(CASE, params=params).shared()
    assert value("gradient_symmetricity", shared) == pytest.approx(1, abs=1e-5)
    triples = clock.triples(P)
    assert len({tuple(abc) for abc in triples.tolist()}) == clock.N_TRIPLES
    assert len(clock.triples(3)) == 27
    assert value("gradient_symmetricity_error", random_case(3).shared()) == 0  # all triples are taken


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_classes_is_nothing_to_the_softmax(seed):
    rng = np.random.default_rng(seed)
    case = random_case(23)
    logits = np.float32(rng.normal(size=(529, 23)) * 8)
    turned = np.take_along_axis(logits, rng.permuted(np.tile(np.arange(23), (529, 1)), axis=1), 1)
    collapsed = [int(value("softmax_collapse", Ideal(x, case=case))) for x in (logits, turned)]
    exact = np.sum(oracle_later.collapsed(logits[case.train_pairs]))
    assert collapsed == [exact, exact]
    assert 0 < exact < len(case.train_pairs)
    lost = np.sum(oracle_later.lost(logits[case.train_pairs], case.answers[case.train_pairs]))
    assert value("zero_terms", Ideal(logits, case=case)) == lost


def test_what_softmax_loses_is_the_same_in_float64():
    case = random_case(23, scale=6.0)
    in_float32 = [int(value(name, case.shared())) for name in ("softmax_collapse", "zero_terms")]
    with jax.enable_x64(True):
        wide = dataclasses.replace(case, params={key: np.float64(x) for key, x in case.params.items()}).shared()
        assert wide.logits_NxP.dtype == np.float64
        assert [int(value(name, wide)) for name in ("softmax_collapse", "zero_terms")] == in_float32
    assert in_float32[0] > 0


def lookup_table(p, trained):
    """A model that looks up its training pairs, in both orders, and answers every other one with the next class."""
    answers = np.add.outer(np.arange(p), np.arange(p)).ravel() % p
    known = np.isin(np.arange(p * p), trained).reshape(p, p)
    told = np.where((known | known.T).ravel(), answers, (answers + 1) % p)
    return 20.0 * np.eye(p)[told]


@pytest.mark.parametrize("p", long_but([53], [52, 53]))
def test_a_lookup_table_is_restricted_well_and_held_out_worse_than_a_guess(p):
    case = random_case(p, fraction=0.5)
    shared = Ideal(lookup_table(p, case.train_pairs), case=case, key_freqs_K=np.ones(p // 2, bool))
    assert not np.any(shared.correct_N & shared.heldout_mask_N)
    assert 0.4 < np.mean(shared.correct_N[~shared.train_mask_N]) < 0.6  # by commuting alone
    assert float(value("restricted_loss", shared)) < 0.1
    assert value("restricted_acc", shared) >= 0.9 * p
    assert float(value("heldout_restricted_loss", shared)) > math.log(p)
    assert value("heldout_restricted_acc", shared) == 0


@pytest.mark.parametrize("task", ["add", "subtract"])
@pytest.mark.parametrize("p", [22, 23])
def test_held_out_is_the_plain_one_where_logits_are_of_the_sum(p, task):
    """Of the distance of an answer from the sum, so that each sum has the same loss, whichever pairs are held out."""
    case = random_case(p, fraction=0.2, task=task)
    of_distance = np.random.default_rng(0).normal(size=p) * 3
    of_sum = np.array([np.roll(of_distance, s) for s in range(p)])
    a, b = np.divmod(np.arange(p * p), p)
    shared = Ideal(of_sum[(a + case.direction * b) % p], case=case, key_freqs_K=np.arange(p // 2) % 2 == 0)
    plain, heldout = (float(value(name, shared)) for name in ("restricted_loss_test", "heldout_restricted_loss"))
    assert heldout == pytest.approx(plain, rel=1e-5)


def test_held_out_is_null_where_a_residue_has_no_held_out_pair():
    p = 7
    sums = np.add.outer(np.arange(p), np.arange(p)).ravel() % p
    case = dataclasses.replace(random_case(p), train_pairs=np.flatnonzero(sums == 3).astype(np.int32))
    shared = Ideal(np.random.default_rng(0).normal(size=(49, 7)), case=case)
    for name in ("heldout_restricted_loss", "heldout_restricted_acc"):
        assert np.isnan(value(name, shared))
        assert np.isfinite(value(name, Ideal(shared.logits_NxP, case=random_case(p, fraction=0.1))))


def test_the_sign_of_an_even_modulus_is_kept_and_removed():
    p = 12
    a, b = np.divmod(np.arange(p * p), p)
    case = random_case(p)
    waves = cosines({2: 9.0, 5: 7.0}, p=p) + 5 * (-1.0) ** (a + b)[:, None] * (-1.0) ** np.arange(p)
    with_sign = Ideal(waves, case=case, key_freqs_K=mask(2, 5, 6, p=p))
    whole = float(np.mean(with_sign.loss_N))
    assert float(paper.restricted_loss(with_sign)) == pytest.approx(whole, rel=1e-4)
    assert float(paper.restricted_loss(Ideal(waves, case=case, key_freqs_K=mask(2, 5, p=p)))) > 10 * whole
    np.testing.assert_allclose(value("trig_coef_all", with_sign), [0, 9, 0, 0, 7, 5], atol=1e-4)
    assert value("fve_logits_trig", with_sign) == pytest.approx(1, abs=1e-6)
    assert float(value("products_loss", with_sign)) == pytest.approx(whole, rel=1e-4)
    without = cosines({2: 9.0, 5: 7.0}, p=p)
    assert float(value("excluded_loss_per_freq", with_sign)[-1]) == pytest.approx(
        oracle.mean_loss(without, case.answers, case.train_pairs), rel=1e-4
    )


def test_centred_figures_do_not_feel_what_no_probability_does():
    shift = np.random.default_rng(0).normal(size=P * P)[:, None] * 5
    level = CASE.params["unembed.W_U"] + np.random.default_rng(1).normal(size=8)[:, None].astype(np.float32) * 3
    moved = dataclasses.replace(CASE, params=CASE.params | {"unembed.W_U": level})
    one, other = (
        Ideal(cosines({2: 3.0, 5: 2.0}), key_freqs_K=mask(2)),
        Ideal(cosines({2: 3.0, 5: 2.0}) + shift, case=moved, key_freqs_K=mask(2)),
    )
    for name in ("fve_logits_trig", "gini_W_L"):
        assert value(f"{name}_centred", other) == pytest.approx(float(value(f"{name}_centred", one)), rel=1e-4)
        assert abs(value(name, other) - value(name, one)) > 1e-2


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
    assert of(np.pad(oracle.basis(P).T, ((0, 1), (0, 0))))[2] == pytest.approx(2 / (P - 1), rel=1e-5)


def test_tiny_numbers_have_norms_and_cosines():
    x = [np.float32([3e-30, 0]), np.float32([[-4e-30]])]
    y = [np.float32([3, 0]), np.float32([[4]])]
    assert float(vectors.norm(x)) == pytest.approx(5e-30, rel=1e-6)
    assert float(vectors.cosine(x, y)) == pytest.approx(-7 / 25, rel=1e-6)
    zero = [np.zeros(2, np.float32), np.zeros((1, 1), np.float32)]
    assert float(vectors.norm(zero)) == 0
    assert np.isnan(vectors.cosine(x, zero))
