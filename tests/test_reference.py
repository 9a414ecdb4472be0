"""The reference models: every listed value, in float32 as the project computes it and in float64 as it was listed."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from cases import REFERENCE, REFERENCE_MODELS, needs_reference, reference_case

from grokjax.measures import registry
from grokjax.measures.registry import MEASURES
from grokjax.measures.shared import Shared

pytestmark = needs_reference

# Listed values that are no measures: what the model is, and trig_coef, which is trig_coef_all at the keys.
NOT_MEASURED = {"step", "recorded_train_loss", "recorded_test_loss", "trig_coef"}


def measure(names) -> dict[str, dict[str, np.ndarray]]:
    """Measures of all reference models in the widest float that JAX is set to, by model and name."""
    columns = {name: MEASURES[name] for name in names}

    @jax.jit
    def compute(params, train_pairs, answers, key_freqs):
        return registry.compute(columns, Shared(case.cfg, 1, params, train_pairs, answers, key_freqs))

    found = {}
    for name in REFERENCE_MODELS:
        case, listed = reference_case(name)
        params = {key: value.astype(jax.dtypes.canonicalize_dtype(float)) for key, value in case.params.items()}
        values = compute(params, case.train_pairs, case.answers, key_mask(listed))
        found[name] = registry.counts_to_shares(columns, values, case.problem)
    return found


def key_mask(listed):
    return np.isin(np.arange(1, 57), listed["key_freqs"])


def listed_values(name):
    """The listed values that are measures, in the form of the measures."""
    listed = reference_case(name)[1]
    return {key: value for key, value in listed.items() if key not in NOT_MEASURED} | {"key_freqs": key_mask(listed)}


@pytest.fixture(scope="session")
def float32():
    return measure(listed_values(REFERENCE_MODELS[0]))


@pytest.fixture(scope="session")
def float64(tmp_path_factory):
    """In a process of its own: JAX takes its widest float when it starts."""
    path = tmp_path_factory.mktemp("reference") / "float64.npz"
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", "import sys, test_reference; test_reference.save(sys.argv[1])", str(path)],
        env=os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"},
        check=True,
    )
    found = {name: {} for name in REFERENCE_MODELS}
    for key, value in np.load(path).items():
        name, column = key.split("/")
        found[name][column] = value
    return found


def save(path):
    """Writes what `measure` finds, as model/name."""
    found = measure(listed_values(REFERENCE_MODELS[0]))
    np.savez(path, **{f"{name}/{column}": x for name, values in found.items() for column, x in values.items()})


def compare(got, name, tolerance):
    listed = listed_values(name)
    assert got.keys() == listed.keys()
    for column, value in got.items():
        expected = np.asarray(listed[column])
        if MEASURES[column].dtype != "float":
            np.testing.assert_array_equal(value, expected, err_msg=column)
            continue
        # Coefficients near 0 are sums of large numbers that cancel: they are right relative to the largest.
        atol = tolerance * np.max(np.abs(expected)) if column == "trig_coef_all" else 0
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=atol, err_msg=column)


@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_every_listed_value_in_float32(name, float32):
    """All of them, losses of 2e-9 included, to 1e-5."""
    assert {value.dtype for value in float32[name].values()} <= {np.dtype(t) for t in ("f4", "f8", "i4", "?")}
    compare(float32[name], name, 1e-5)


@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_every_listed_value_in_float64(name, float64):
    """Noise of float32 shrinks by many orders; a wrong definition would not."""
    assert float64[name]["restricted_loss"].dtype == np.float64
    compare(float64[name], name, 1e-11)


@pytest.mark.parametrize("name", REFERENCE_MODELS)
def test_least_squares_at_the_keys_are_the_projections(name, float64):
    listed = reference_case(name)[1]
    at_keys = float64[name]["trig_coef_all"][key_mask(listed)]
    np.testing.assert_allclose(at_keys, listed["trig_coef"], rtol=1e-10)


@pytest.mark.parametrize("name", ["mod113_step10000", "released_wd0.1"])
def test_the_rule_finds_the_listed_keys_of_finished_models(name):
    case, listed = reference_case(name)
    assert (np.flatnonzero(case.shared().key_freqs_K) + 1).tolist() == listed["key_freqs"]


def test_losses_are_those_that_the_authors_recorded(float32):
    """To the digits in which their recorded losses and their saved weights, one epoch apart, agree."""
    listed = reference_case("released_wd0.1")[1]
    assert float32["released_wd0.1"]["train_loss"] == pytest.approx(listed["recorded_train_loss"], rel=1e-4)
    assert float32["released_wd0.1"]["test_loss"] == pytest.approx(listed["recorded_test_loss"], rel=1e-3)


def test_every_reference_model_is_looked_at():
    assert {path.stem for path in REFERENCE.glob("*.npz")} == set(REFERENCE_MODELS)
