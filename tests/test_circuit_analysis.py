"""Every number of the reverse engineering against its slow float64 definition, and what must hold for any model."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import oracle_circuit
import pytest
from cases import QUICK, Case, needs_reference, random_case, reference_case
from hypothesis import strategies as st
from tiers import long_but

from grokjax.interp.checkpoint import from_arrays
from grokjax.interp.circuit.analysis import analyse
from grokjax.interp.circuit.anatomy import Anatomy
from grokjax.interp.circuit.registry import NUMBERS, PAIRS

KEYS = {name for name, f in NUMBERS.items() if f.group == "keys"}
OF_BLOCKS = {name for name, f in NUMBERS.items() if f.of_blocks}


def numbers(case: Case, keys):
    """Every number that the case has, as arrays."""
    arrays = case.params | {"train_indices": case.train_pairs}
    checkpoint = from_arrays(arrays, act=case.cfg.act, n_heads=case.cfg.n_heads)
    found = analyse(checkpoint, keys, task=case.task)
    return {name: np.asarray(found[name]) for name in NUMBERS if found.get(name) is not None}


def check(found, exact, tolerance, freqs=None):
    """Whether the numbers are the exact ones; lists over frequencies at `freqs` where given."""
    assert exact
    for name, value in exact.items():
        got = found[name]
        if NUMBERS[name].shape == ("freq",) and freqs and len(value) == len(freqs):
            got = np.asarray(got)[np.array(freqs) - 1]
        np.testing.assert_allclose(got, value, rtol=tolerance, atol=tolerance * 1e-3, err_msg=name)


# --- small models ---------------------------------------------------------------------------------------------------

SMALL = {
    "sum": ({"p": 7}, [1, 3]),
    "difference": ({"p": 6, "task": "subtract", "act": "gelu", "n_heads": 1, "d_mlp": 6}, [2]),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_models_have_the_definitions_numbers(name):
    shape, keys = SMALL[name]
    case = random_case(**shape)
    args = (case.params, keys, case.train_pairs, case.answers, case.direction, case.cfg.act)
    exact = oracle_circuit.numbers(*args)
    found = numbers(case, keys)
    check(found, exact, 1e-4)
    assert set(exact) == set(found) - KEYS


# --- models beside the paper's --------------------------------------------------------------------------------------

OF_ONE_LAYER = {
    "attention_to_equals",
    "attention_fve",
    "loss_attention_zeroed",
    "loss_mlp_skip_mean",
    "loss_softmax_linear",
}
OF_NEURONS = {"loss_null_space", "loss_key_directions", "loss_without_freq", "loss_without_neurons"}
OTHERS = {
    "two layers": {"n_layers": 2},
    "LayerNorm": {"normalization_type": "LN"},
    "two tokens": {"n_ctx": 2, "n_layers": 2},
    "mlp": {"architecture": "mlp"},
}


@pytest.mark.parametrize("name", long_but(["mlp"], [*OTHERS]))
def test_numbers_that_a_model_has_not_are_null_and_say_why(name):
    case = random_case(7, **OTHERS[name])
    found = analyse(from_arrays(case.params | {"train_indices": case.train_pairs}, act="relu"), [1, 3], task="add")
    assert all("one layer as the paper has it" in found["null"][number] for number in OF_ONE_LAYER)
    assert all((found[number] is None) == (name == "LayerNorm") for number in OF_NEURONS)
    assert found["loss"] == pytest.approx(float(np.mean(case.shared().loss_N)), rel=1e-5)
    assert found["loss_sum_directions"] is not None
    assert found["W_L_rank"] is not None


def test_neurons_of_the_last_of_several_layers_are_replaced_as_if_by_its_weights():
    case = random_case(5, n_layers=2, act="gelu")
    s = Anatomy(case.cfg, 1, case.params, case.train_pairs, case.answers)
    without = case.params | {"blocks.1.mlp.W_out": np.zeros_like(case.params["blocks.1.mlp.W_out"])}
    expected = oracle.all_logits(without, "gelu")
    np.testing.assert_allclose(s.with_acts(jnp.zeros_like(s.acts_NxM)), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def grokked(training_run):
    """A model that has learned addition modulo 23, its keys and its numbers."""
    case = training_run[2000]
    keys = oracle.key_freqs(case.params)
    return case, keys, numbers(case, keys)


def test_a_grokked_model_has_the_definitions_numbers(grokked):
    case, keys, found = grokked
    exact = oracle_circuit.numbers(case.params, keys, case.train_pairs, case.answers)
    assert set(exact) == set(NUMBERS) - KEYS - OF_BLOCKS
    check(found, exact, 1e-4)


def test_a_grokked_model_bears_the_claims_out(grokked):
    """Not numbers but signs: what helps, what hurts."""
    _, keys, found = grokked
    assert found["loss_logits_as_cosines"] < found["loss_sum_directions"] < found["loss_key_components"] < found["loss"]
    assert found["loss_null_space"] > 5 * found["loss_key_directions"]
    assert found["loss_attention_zeroed"] > 100 * found["loss"]
    for k in keys:
        assert found["loss_without_freq"][k - 1] > 10 * found["loss"]
        assert found["loss_without_neurons"][k - 1] > 2 * found["loss"]


# --- what holds for any model ---------------------------------------------------------------------------------------

models = st.builds(random_case, st.just(7), seed=st.integers(0, 2**16), scale=st.floats(0.3, 3))
some_keys = st.sets(st.integers(1, 3), min_size=1)


@hypothesis.given(models)
@hypothesis.settings(max_examples=10)
def test_keeping_every_frequency_of_the_sum_loses_what_is_no_function_of_it(case):
    """With all keys the restricted logits are the averages over a + b, and W_L is kept but for its constant."""
    found = numbers(case, [1, 2, 3])
    by_sum = oracle.restricted_logits(oracle.all_logits(case.params), [1, 2, 3])
    exact = oracle_circuit.mean_losses(by_sum, case.answers, case.train_pairs)
    np.testing.assert_allclose(found["loss_sum_directions"], exact[0], rtol=1e-4)
    W_L = oracle.neuron_to_logit(case.params)
    np.testing.assert_allclose(
        found["W_L_residual"], np.linalg.norm(np.mean(W_L, 0)) * np.sqrt(7) / np.linalg.norm(W_L), rtol=1e-4
    )


@hypothesis.given(models, some_keys)
@hypothesis.settings(max_examples=10)
def test_parts_add_up(case, keys):
    """Loss on all pairs is the weighted mean of the other two; shares are shares; no approximation beats the best."""
    found = numbers(case, sorted(keys))
    n, n_train = case.cfg.p**2, len(case.train_pairs)
    for name in (name for name, f in NUMBERS.items() if f.group == "ablations" and f.claim):
        both = n_train * found[name + "_train"] + (n - n_train) * found[name + "_test"]
        np.testing.assert_allclose(found[name], both / n, rtol=1e-5, err_msg=name)
    assert found["W_L_residual_best"] <= found["W_L_residual"] * (1 + 1e-5)
    assert found["logit_components_in_blocks"] <= found["logit_components"]
    for name in ("readout_fve_cos", "readout_fve_sin", "attention_to_equals", "fve_logits_trig", "W_L_residual"):
        assert np.all((found[name] >= 0) & (found[name] <= 1 + 1e-5)), name


def test_a_model_of_one_wave_is_explained_whole():
    """Neurons that are polynomials of one frequency stay as they are, and only that frequency matters."""
    case = random_case(11, d_mlp=2, n_heads=1)
    a, b = np.divmod(np.arange(121), 11)
    acts = np.stack([1 + np.cos(2 * np.pi * 3 * (a + b) / 11), np.sin(2 * np.pi * 3 * a / 11)], 1).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def look(acts):
        s = Anatomy(case.cfg, 1, case.params, case.train_pairs, case.answers)
        s._forward = (s.with_acts(acts), acts)
        names = ("loss", "loss_without_freq", "loss_without_neurons", "neurons_per_freq")
        found = {name: NUMBERS[name].function(s) for name in names}
        return found | {"polynomials": s.polynomials_NxM, "constant": s.with_acts(0 * acts + jnp.mean(acts, 0))}

    found = jax.device_get(look(acts))
    np.testing.assert_allclose(found["polynomials"], acts, atol=1e-5)
    assert found["neurons_per_freq"].tolist() == [0, 0, 2, 0, 0]
    gone = oracle_circuit.mean_losses(found["constant"], case.answers, case.train_pairs)[0]
    for name in ("loss_without_freq", "loss_without_neurons"):
        np.testing.assert_allclose(found[name][2], gone, rtol=1e-5)
        np.testing.assert_allclose(np.delete(found[name], 2), found["loss"], rtol=1e-5)


# --- the reference models -------------------------------------------------------------------------------------------


@pytest.mark.long
@needs_reference
@pytest.mark.parametrize("name", ["mod113_step10000", "released_wd0.1"])
def test_reference_models_have_the_definitions_numbers(name):
    case, listed = reference_case(name)
    keys = listed["key_freqs"]
    found = numbers(case, keys)
    exact = oracle_circuit.numbers(case.params, keys, case.train_pairs, case.answers, freqs=keys)
    assert set(exact) == set(NUMBERS) - KEYS - OF_BLOCKS
    check(found, exact, 2e-4, keys)
    for here, of in {"loss": "loss", "loss_sum_directions": "restricted_loss"}.items():
        for suffix in list(PAIRS)[1:]:
            listed_name = f"{of}{suffix}" if of != "loss" else f"{suffix[1:]}_loss"
            np.testing.assert_allclose(found[here + suffix], listed[listed_name], rtol=1e-4)
