"""The paper's measures against their definitions, on random, trained and ideal models."""

import dataclasses
import functools
import math

import jax
import numpy as np
import oracle
import pytest
from cases import QUICK, random_case
from hypothesis import given
from hypothesis import strategies as st

from grokjax.core.model import ModelConfig
from grokjax.measures import paper, registry
from grokjax.measures.shared import Shared

SUM_MEASURES = {
    "heldout_restricted_loss",
    "heldout_restricted_acc",
    "restricted_loss",
    "restricted_loss_train",
    "restricted_loss_test",
    "restricted_acc",
    "excluded_loss",
    "excluded_loss_per_freq",
    "excluded_loss_max",
}
ON_LOGITS = {"train_loss", "test_loss", "train_acc", "test_acc"}
_ANY = random_case(5)
# What oracle.py defines, by column name.
COLUMNS = {
    name + "_online" * registry.MEASURES[name].keyed: registry.MEASURES[name]
    for name in oracle.paper_measures(_ANY.params, _ANY.train_pairs, _ANY.answers)
}


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def compute(cfg, direction, params, train_pairs, answers, key_freqs=None):
    return registry.compute(COLUMNS, Shared(cfg, direction, params, train_pairs, answers, key_freqs))


def measured(case, key_freqs=None):
    """All measures of a case by plain name, counts made shares as on disk."""
    values = compute(case.cfg, case.direction, case.params, case.train_pairs, case.answers, key_freqs)
    finished = registry.counts_to_shares(COLUMNS, values, case.problem)
    return {COLUMNS[column].name: value for column, value in finished.items()}


def value(name, shared) -> float:
    """One measure of the intermediates given."""
    return float(registry.MEASURES[name].function(shared))


def check(case, key_freqs=None):
    """Every measure that the task has, against oracle.py."""
    got = measured(case, key_freqs)
    keys = None if key_freqs is None else [k for k in oracle.freqs(case.cfg.p) if key_freqs[k - 1]]
    expected = oracle.paper_measures(
        case.params, case.train_pairs, case.answers, case.direction, case.cfg.act, keys=keys
    )
    assert got.keys() == expected.keys()
    for name, value in got.items():
        exact = COLUMNS.get(name, COLUMNS.get(f"{name}_online")).dtype != "float"
        # Losses of 1e-8 are differences of logits near 20, which float32 holds to 1e-6.
        rtol = 0 if exact else 5e-5 if "loss" in name else 1e-5
        np.testing.assert_allclose(value, expected[name], rtol=rtol, err_msg=name)
    return got


def test_all_of_them_are_checked():
    assert {m.name for m in COLUMNS.values() if m.needs_sum} == SUM_MEASURES
    in_paper_py = {m.name for m in registry.MEASURES.values() if m.function.__module__ == paper.__name__}
    assert in_paper_py <= {m.name for m in COLUMNS.values()}


@pytest.mark.parametrize(("p", "task"), [(12, "add"), (13, "add"), (13, "subtract")])
def test_held_out_pairs(p, task):
    """In a split that leaves every sum some, fewer of a + b than of a - b."""
    case = random_case(p, task=task, fraction=0.15, scale=2.0)
    got = check(case)
    assert np.isfinite([got["heldout_restricted_loss"], got["heldout_restricted_acc"]]).all()
    held = len(oracle.heldout_pairs(case.train_pairs, p, case.direction))
    assert (held < p * p - len(case.train_pairs)) == (task == "add")


@pytest.mark.parametrize(
    "shape",
    [
        {"p": 5},
        {"p": 7, "task": "subtract", "act": "gelu"},
        {"p": 12, "n_layers": 2},
        {"p": 13, "task": "multiply", "n_heads": 1},
    ],
    ids=lambda shape: "-".join(map(str, shape.values())),
)
def test_random_weights(shape):
    for seed, scale in ((0, 1.0), (1, 2.0)):
        got = check(random_case(**shape, seed=seed, scale=scale))
        assert SUM_MEASURES.issubset(got) == (shape.get("task") != "multiply")


@pytest.mark.parametrize("step", [0, 300, 2000])
def test_along_a_training_run(training_run, step):
    got = check(training_run[step])
    if step == 2000:  # far into what float32 losses usually cannot show
        assert got["train_loss"] < 1e-5
        assert got["train_acc"] == 1
        assert got["excluded_loss"] > 1 > 100 * got["restricted_loss"]


def test_final_keys_on_an_earlier_checkpoint(training_run):
    final = measured(training_run[2000])["key_freqs"]
    assert 0 < final.sum() < len(final)
    own, with_final = measured(training_run[300]), check(training_run[300], final)
    assert np.array_equal(with_final["key_freqs"], final)
    assert not np.array_equal(own["key_freqs"], final)
    assert with_final["restricted_loss"] != own["restricted_loss"]
    for name in ("train_loss", "excluded_loss_per_freq", "gini_W_L"):
        np.testing.assert_array_equal(with_final[name], own[name])


def test_key_threshold_is_a_fraction_of_the_largest_norm():
    case = random_case(23)
    norms = oracle.fourier_norms(oracle.neuron_to_logit(case.params))[1]
    for i, share in enumerate(norms / max(norms)):
        below, above = (case.shared(key_threshold=share * (1 + side)).key_freqs_K for side in (-1e-4, 1e-4))
        assert below[i]
        assert not above[i]
    largest = case.shared(key_threshold=0.999).key_freqs_K
    assert np.flatnonzero(largest).tolist() == [np.argmax(norms)]


def test_counts_become_exact_shares():
    case = random_case(7)
    counts = {"train_acc": np.int32(len(case.train_pairs)), "restricted_acc_online": np.int32(3)}
    shares = registry.counts_to_shares(COLUMNS, counts, case.problem)
    assert shares == {"train_acc": 1.0, "restricted_acc_online": 3 / 7}
    fewer = dataclasses.replace(case.problem, n_train=19)
    assert registry.counts_to_shares(COLUMNS, {"test_acc": np.int32(1)}, fewer) == {"test_acc": 1 / 30}


# --- identities -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["add", "subtract"])
def random_sum_case(request):
    return random_case(11, task=request.param)


def test_key_parts_of_single_frequencies_add_up(random_sum_case):
    case = random_sum_case
    keys = np.array([True, False, True, True, False])
    parts = [case.shared(key_freqs_K=np.arange(5) == i).key_part_PxP for i in np.flatnonzero(keys)]
    np.testing.assert_allclose(case.shared(key_freqs_K=keys).key_part_PxP, np.sum(parts, 0), atol=1e-5)


def test_restricted_and_excluded_parts_add_up_to_the_logits(random_sum_case):
    case, keys = random_sum_case, np.array([True, False, True, False, False])
    shared = case.shared(key_freqs_K=keys)
    logits = np.asarray(shared.logits_NxP, np.float64)
    constant = oracle.project(logits, oracle.constant_direction(11))
    excluded = oracle.excluded_logits(logits, [1, 3], case.direction)
    a, b = np.divmod(np.arange(121), 11)
    restricted = np.asarray(shared.restricted_logits_PxP)[(a + case.direction * b) % 11]
    np.testing.assert_allclose(restricted + excluded - constant, logits, atol=1e-5)


def test_with_every_key_only_functions_of_the_sum_remain(random_sum_case):
    shared = random_sum_case.shared(key_freqs_K=np.ones(5, bool))
    a, b = np.divmod(np.arange(121), 11)
    s = (a + random_sum_case.direction * b) % 11
    means = np.array([np.mean(np.asarray(shared.logits_NxP)[s == i], 0) for i in range(11)])
    np.testing.assert_allclose(shared.restricted_logits_PxP, means, atol=1e-5)


def test_without_keys_nothing_is_excluded_and_only_the_constant_remains(random_sum_case):
    case = random_sum_case
    shared = case.shared(key_freqs_K=np.zeros(5, bool))
    assert value("excluded_loss", shared) == pytest.approx(value("train_loss", shared), rel=1e-6)
    mean = np.mean(np.asarray(shared.logits_NxP, np.float64), 0)
    exact = oracle.mean_loss(np.tile(mean, (121, 1)), case.answers)
    assert value("restricted_loss", shared) == pytest.approx(exact, rel=1e-5)


def test_excluded_loss_of_one_key_is_that_frequency_s(random_sum_case):
    per_freq = paper.excluded_loss_per_freq(random_sum_case.shared())
    for i in range(5):
        alone = paper.excluded_loss(random_sum_case.shared(key_freqs_K=np.arange(5) == i))
        assert float(alone) == pytest.approx(float(per_freq[i]), rel=1e-5)
    assert value("excluded_loss_max", random_sum_case.shared()) == float(np.max(per_freq))


def test_restricted_loss_on_all_pairs_is_that_on_train_and_test_together(random_sum_case):
    shared, n = random_sum_case.shared(), len(random_sum_case.train_pairs)
    train, test = value("restricted_loss_train", shared), value("restricted_loss_test", shared)
    assert train != pytest.approx(test, rel=1e-4)
    whole = (n * train + (121 - n) * test) / 121
    assert value("restricted_loss", shared) == pytest.approx(whole, rel=1e-5)


# --- ideal logits, whose answers are known --------------------------------------------------------------------------


class Ideal(Shared):
    """A model seen only through logits that are given."""

    def __init__(self, logits_NxP, *args):
        super().__init__(*args)
        self._forward = logits_NxP, jax.numpy.zeros((len(logits_NxP), 1))


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def compute_on_logits(cfg, direction, logits, train_pairs, answers, key_freqs):
    shared = Ideal(logits, cfg, direction, None, train_pairs, answers, key_freqs)
    return {m.name: m.function(shared) for m in COLUMNS.values() if m.name in SUM_MEASURES | ON_LOGITS}


def on_logits(case, logits, *keys):
    """The measures that look at logits alone, with these keys, as numbers by name; counts stay counts."""
    got = compute_on_logits(case.cfg, case.direction, np.float32(logits), case.train_pairs, case.answers, mask(*keys))
    return {name: np.asarray(value).tolist() for name, value in got.items()}


P, ALPHA = 23, {2: 3.0, 5: 2.0}


def cosines(coefficients, direction=1):
    """Σ α_k cos(w_k(a ± b - c)), [P², P]."""
    a, b = np.divmod(np.arange(P * P), P)
    s_minus_c = (a + direction * b)[:, None] - np.arange(P)
    return sum(alpha * np.cos(2 * np.pi * k * s_minus_c / P) for k, alpha in coefficients.items())


def cosine_loss(coefficients):
    """The loss of such logits, the same for every pair."""
    wrong = [sum(x * math.cos(2 * math.pi * k * c / P) for k, x in coefficients.items()) for c in range(1, P)]
    return math.log1p(sum(math.exp(x - sum(coefficients.values())) for x in wrong))


def mask(*keys):
    return np.isin(np.arange(1, (P + 1) // 2), keys)


@pytest.mark.parametrize("task", ["add", "subtract"])
def test_ideal_logits(task):
    case = random_case(P, task=task)
    logits = cosines(ALPHA, case.direction)
    got = on_logits(case, logits, 2, 5)
    whole = cosine_loss(ALPHA)
    assert 0.01 < whole < 1
    for loss in ("train_loss", "test_loss", "restricted_loss", "restricted_loss_train", "restricted_loss_test"):
        assert got[loss] == pytest.approx(whole, rel=1e-5), loss
    assert got["restricted_acc"] == P
    assert got["train_acc"] == len(case.train_pairs)
    assert got["test_acc"] == P * P - len(case.train_pairs)
    assert got["excluded_loss"] == pytest.approx(math.log(P), rel=1e-6)
    expected = [cosine_loss({j: x for j, x in ALPHA.items() if j != k}) for k in oracle.freqs(P)]
    np.testing.assert_allclose(got["excluded_loss_per_freq"], expected, rtol=1e-5)
    assert got["excluded_loss_max"] == pytest.approx(cosine_loss({5: 2.0}), rel=1e-5)
    one_key = on_logits(case, logits, 2)
    assert one_key["restricted_loss"] == pytest.approx(cosine_loss({2: 3.0}), rel=1e-5)
    assert one_key["excluded_loss"] == pytest.approx(cosine_loss({5: 2.0}), rel=1e-5)


def test_a_tiny_ideal_loss_is_measured():
    coefficients = {2: 30.0, 5: 20.0, 7: 25.0}
    exact = cosine_loss(coefficients)
    assert 1e-12 < exact < 1e-8
    got = on_logits(random_case(P), cosines(coefficients), *coefficients)
    for loss in ("train_loss", "restricted_loss", "restricted_loss_test"):
        assert got[loss] == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("task", ["add", "subtract"])
def test_restricted_loss_is_blind_to_what_is_no_function_of_the_sum(task):
    case = random_case(P, task=task)
    a = np.arange(P * P) // P
    across = cosines({2: 4.0, 6: 2.0}, -case.direction)  # the other diagonal
    of_a = np.cos(2 * np.pi * 2 * a / P)[:, None] * np.linspace(-1, 1, P)
    got = on_logits(case, cosines(ALPHA, case.direction) + across + of_a, *ALPHA)
    assert got["restricted_loss"] == pytest.approx(cosine_loss(ALPHA), rel=1e-5)
    exact = oracle.mean_loss(across + of_a, case.answers, case.train_pairs)
    assert got["excluded_loss"] == pytest.approx(exact, rel=1e-5)


def test_both_keep_the_constant():
    case, constant = random_case(P), np.linspace(-2, 3, P)
    got = on_logits(case, cosines(ALPHA) + constant, *ALPHA)
    exact = oracle.mean_loss(cosines(ALPHA) + constant, case.answers)
    assert got["restricted_loss"] == pytest.approx(exact, rel=1e-5)
    exact = oracle.mean_loss(np.tile(constant, (P * P, 1)), case.answers, case.train_pairs)
    assert got["excluded_loss"] == pytest.approx(exact, rel=1e-5)


def test_the_projection_uses_the_whole_grid_and_the_loss_only_train():
    case = random_case(P)
    logits = cosines(ALPHA)
    logits[oracle.others(P * P, case.train_pairs)] = 0  # a model that knows the training pairs alone
    exact = oracle.excluded_loss(logits, case.answers, [2, 5], case.train_pairs)
    # A projection on the training pairs would have removed all that there is, one on the grid removes a part.
    assert 2 * cosine_loss(ALPHA) < exact < 0.9 * math.log(P)
    assert on_logits(case, logits, 2, 5)["excluded_loss"] == pytest.approx(exact, rel=1e-5)


def test_ideal_weights():
    cfg = ModelConfig(p=P, d_model=2, n_heads=1, d_mlp=2)
    case = random_case(P, d_model=2, n_heads=1, d_mlp=2)
    n = np.arange(P)
    W_E = np.zeros((P + 1, 2), np.float32)
    W_E[:P, 0] = 3 * np.cos(2 * np.pi * 4 * n / P)
    W_E[:P, 1] = 4 * np.sin(2 * np.pi * 4 * n / P)
    W_E[P] = 1e3  # "=" is left out
    one, seven, nine = np.cos(2 * np.pi * n / P), np.sin(2 * np.pi * 7 * n / P), np.cos(2 * np.pi * 9 * n / P)
    W_U = np.stack([one, 0.26 * seven + 0.24 * nine])
    params = case.params | {
        "embed.W_E": W_E,
        "unembed.W_U": np.float32(W_U),
        "blocks.0.mlp.W_out": np.eye(2, dtype=np.float32),
    }
    shared = Shared(cfg, 1, params, case.train_pairs, case.answers)
    unit = math.sqrt(P / 2)
    norms = np.zeros((2, P // 2))
    norms[0, 3] = 5 * unit
    norms[1, [0, 6, 8]] = unit, 0.26 * unit, 0.24 * unit
    np.testing.assert_allclose(paper.freq_norm_W_E(shared), norms[0], atol=1e-4)
    np.testing.assert_allclose(paper.freq_norm_W_L(shared), norms[1], atol=1e-5)
    assert np.flatnonzero(shared.key_freqs_K).tolist() == [0, 6]
    assert int(registry.MEASURES["n_key_freqs"].function(shared)) == 2
    ginis = {name: float(registry.MEASURES[f"gini_{name}"].function(shared)) for name in ("W_E", "freq_W_E")}
    assert ginis["freq_W_E"] == pytest.approx(1 - 1 / 11, abs=1e-4)
    assert ginis["W_E"] == pytest.approx(oracle.gini([3, 4, *[0] * (P - 2)]), abs=1e-4)


# --- single formulas ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100, width=32), min_size=9, max_size=9).filter(lambda v: sum(v) > 1e-3))
def test_gini_is_the_mean_absolute_difference(v):
    assert float(paper.gini(np.array(v, np.float32))) == pytest.approx(oracle.gini(v), abs=1e-6)


def test_gini_at_its_ends():
    assert float(paper.gini(np.full(7, 3.0, np.float32))) == pytest.approx(0, abs=1e-7)
    assert float(paper.gini(np.eye(7, dtype=np.float32)[4])) == pytest.approx(1 - 1 / 7)


def test_sums_of_squares_cover_every_parameter_once(training_run):
    got = measured(training_run[0])
    parts = [value for name, value in got.items() if name.startswith("sum_sq_") and name != "sum_sq_weights"]
    assert len(parts) == len(training_run[0].params)
    assert sum(parts) == pytest.approx(float(got["sum_sq_weights"]), rel=1e-6)
