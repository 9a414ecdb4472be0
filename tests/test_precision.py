"""Products in reduced precision: emulated on a CPU as accelerators compute them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cases import QUICK
from launches import ROOT

from grokjax import config, sweeps
from grokjax.core import backends, devices, precision
from grokjax.errors import InputError
from grokjax.experiment import load_experiment
from grokjax.store.metrics import read_metrics
from grokjax.training import one_run

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere products are the device's own")
BITS = {"float32": 24, "tensorfloat32": 11, "bfloat16_6x": 24, "bfloat16_3x": 16, "bfloat16": 8}


def round_to(x, bits):
    """To so many significant bits, to nearest even, by the definition."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.round(mantissa * 2**bits), exponent - bits)


def factors(n=64):
    return np.random.default_rng(0).normal(size=(2, n, n)).astype(np.float32)


def test_every_precision_of_the_config_is_known():
    assert set(config.PRECISIONS) == set(precision.JAX_NAMES) == set(BITS)
    for name in precision.JAX_NAMES.values():
        with jax.default_matmul_precision(name):
            jax.make_jaxpr(jnp.matmul)(*factors())


@pytest.mark.parametrize("name", config.PRECISIONS)
def test_a_cpu_is_asked_for_nothing_but_float32(name):
    text = jax.jit(precision.unemulated(jnp.matmul, name)).lower(*factors()).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in text
    assert "algorithm" not in text


def test_what_a_tpu_lacks_is_refused_in_a_sentence():
    for platform in ("cpu", "gpu", "tpu"):
        for name in set(config.PRECISIONS) - {"tensorfloat32"}:
            precision.require(name, platform)
    precision.require("tensorfloat32", "gpu")
    with pytest.raises(
        InputError, match=r"config\.precision is tensorfloat32, which a TPU does not have: it has float32, b"
    ):
        precision.require("tensorfloat32", "tpu")


def test_the_study_leaves_out_what_the_device_lacks(monkeypatch, capsys):
    file = ROOT / "experiments" / "precision.py"
    for platform, missing in (("tpu", {"tensorfloat32"}), ("", set()), ("cuda", set())):
        monkeypatch.setattr(devices, "awaited", lambda platform=platform: platform)
        _, found = load_experiment(str(file))
        assert set(config.PRECISIONS) - set(found.sweep.precision) == missing
        assert ("without tensorfloat32" in capsys.readouterr().err) == bool(missing)


@pytest.mark.parametrize("name", ["tensorfloat32", "bfloat16"])
def test_factors_are_rounded_and_sums_are_not(name):
    x, y = factors()
    exact = round_to(x, BITS[name]) @ round_to(y, BITS[name])
    found = jax.jit(precision.rounded(jnp.matmul, name))(x, y)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(np.asarray(x @ y) - exact)) > 1e-3


@pytest.mark.parametrize("name", config.PRECISIONS)
def test_errors_are_those_of_the_bits(name):
    x, y = factors()
    error = np.abs(jax.jit(precision.rounded(jnp.matmul, name))(x, y) - x.astype(float) @ y.astype(float))
    scale = 2.0 ** -BITS[name] * np.sqrt(64)
    assert 0.02 * scale < np.sqrt(np.mean(error**2)) < 4 * scale


@pytest.mark.long
@pytest.mark.parametrize("block", [0, 8])
def test_a_training_step_is_rounded_wherever_its_products_are(block):
    """Every gradient moves, and the more the fewer bits there are."""
    run = sweeps.expand(tiny.get_config()).runs[0]
    problem, inputs = run.problem(), run.inputs()
    quick = functools.partial(jax.jit, compiler_options=QUICK)
    pairs = backends.blocks(problem, inputs, block)
    params = quick(functools.partial(one_run.init, problem))(inputs).params
    gradient = functools.partial(backends.gradient, problem)
    exact = quick(gradient)(params, pairs)
    errors = {}
    for name in config.PRECISIONS:
        found = quick(precision.rounded(gradient, name))(params, pairs)
        assert found.keys() == exact.keys()
        errors[name] = max(float(jnp.max(jnp.abs(found[k] - exact[k])) / jnp.max(jnp.abs(exact[k]))) for k in exact)
    assert errors["float32"] < 1e-5
    assert errors["bfloat16_6x"] < 1e-5
    assert errors["bfloat16_6x"] < errors["bfloat16_3x"] < errors["tensorfloat32"] < errors["bfloat16"] < 0.2


def test_products_inside_loops_that_are_not_rewritten_are_refused():
    def looped(x):
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x)

    with pytest.raises(NotImplementedError, match="while"):
        precision.rounded(looped, "bfloat16")(jnp.ones((2, 2)))


def test_a_sweep_over_precisions(tmp_path):

    c = tiny.get_config()
    c.steps, c.sweep.seed, c.sweep.weight_decay = 20, (0,), (1.0,)
    c.sweep.precision = ("float32", "bfloat16_3x", "bfloat16")
    assert tiny.train(c, tmp_path / "a")[0] == 0
    losses = read_metrics(tmp_path / "a").groupby("precision")["train_loss"].last()
    assert losses["bfloat16_3x"] == pytest.approx(losses["float32"], rel=1e-3)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]
