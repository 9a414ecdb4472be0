"""The C++ against the same model in XLA, in float64 where that is what is right; and where there is no compiler."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cases import QUICK, random_case
from doubles import StopAfter
from hypothesis import given, settings
from hypothesis import strategies as st

from grokjax import config, sweeps
from grokjax.core import backends, model
from grokjax.core.backends import Backend
from grokjax.core.native import build, kernels
from grokjax.core.problem import Problem
from grokjax.store.records import _wrong_in
from grokjax.training.layouts import Layout

needs_compiler = pytest.mark.skipif(
    bool(kernels.unavailable()) and not os.environ.get("CI"), reason=kernels.unavailable()
)


def of_xla(case, pairs_B, x64=True):
    """The mean loss and its gradient."""
    with jax.enable_x64(x64):
        problem = Problem(case.cfg, len(pairs_B))
        params = {key: jnp.asarray(value, float) for key, value in case.params.items()}
        pairs = model.lookup(jnp.asarray(pairs_B), case.cfg.p), jnp.asarray(case.answers)[pairs_B]
        of = jax.jit(jax.value_and_grad(backends.loss, 1), static_argnums=0, compiler_options=QUICK)
        loss, grads = of(problem, params, *pairs)
        return float(loss), {key: np.asarray(x, np.float64) for key, x in grads.items()}


def of_native(case, pairs_B, n_parts=1):
    """The gradient of the mean loss."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def gradient(params):
        tokens = kernels.tokens(jnp.asarray(pairs_B), case.answers, case.cfg.p)
        return kernels.gradient(case.cfg, params, tokens, n_parts)

    return {key: np.asarray(x, np.float64) for key, x in gradient(case.params).items()}


def relative_errors(found, expected):
    def size(x):
        return max(float(np.linalg.norm(x)), 1e-30)

    return {key: np.linalg.norm(found[key] - expected[key]) / size(expected[key]) for key in expected}


SHAPES = [
    {"p": 7, "d_model": 8, "n_heads": 2, "d_mlp": 16},
    # No sum here is so near to 0 that float32 and float64 differ on which side of ReLU's corner it is.
    {"p": 113, "d_model": 128, "n_heads": 4, "d_mlp": 512, "fraction": 0.05, "seed": 1},
    {"p": 23, "d_model": 12, "n_heads": 3, "d_mlp": 33},  # heads in fours and twos, a neuron beyond a multiple of 32
    {"p": 16, "d_model": 4, "n_heads": 1, "d_mlp": 300},  # more neurons than a product takes at a time
    {"p": 41, "d_model": 10, "n_heads": 5, "d_mlp": 5, "task": "random"},
]


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"p{shape['p']}")
def test_the_gradient_is_that_of_the_loss(shape):
    case = random_case(**shape)
    _, expected = of_xla(case, case.train_pairs)
    for n_parts in (1, 3):
        for key, error in relative_errors(of_native(case, case.train_pairs, n_parts), expected).items():
            assert error < 5e-6, (key, n_parts)


@pytest.mark.long
@needs_compiler
@settings(max_examples=12)
@given(
    p=st.integers(2, 19),
    n_heads=st.integers(1, 3),
    d_mlp=st.integers(1, 70),
    n=st.integers(1, 300),
    n_parts=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_any_shape_and_any_number_of_pairs(p, n_heads, d_mlp, n, n_parts, seed):
    """Pairs may come twice here, which a train set's do not: every one of them counts."""
    case = random_case(p, d_model=4 * n_heads, n_heads=n_heads, d_mlp=d_mlp, seed=seed)
    pairs_B = np.random.default_rng(seed).integers(0, p * p, n).astype(np.int32)
    _, expected = of_xla(case, pairs_B)
    found = of_native(case, pairs_B, n_parts)
    size = max(np.abs(x).max() for x in expected.values())
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-5 * size, err_msg=key)


@needs_compiler
@pytest.mark.parametrize("step", [300, 2000])
def test_small_losses_have_their_gradient(training_run, step):
    """At a loss of 4e-8, where the usual float32 cross-entropy has no gradient left."""
    case = training_run[step]
    loss, expected = of_xla(case, case.train_pairs)
    assert loss < 1e-6 or step == 300
    # As near to it as XLA's float32 comes.
    in_float32 = relative_errors(of_xla(case, case.train_pairs, x64=False)[1], expected)
    for key, error in relative_errors(of_native(case, case.train_pairs), expected).items():
        assert error < max(5e-5, 5 * in_float32[key]), key


@needs_compiler
@pytest.mark.parametrize("scale", [30.0, 300.0])
def test_logits_may_be_far_apart(scale):
    """Losses from 0 to thousands of nats: nothing overflows, and a wrong answer's gradient is 1."""
    case = random_case(11, scale=scale)
    _, expected = of_xla(case, case.train_pairs)
    for key, error in relative_errors(of_native(case, case.train_pairs), expected).items():
        assert error < 1e-3, key


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES[:4], ids=lambda shape: f"p{shape['p']}")
def test_the_forward_pass_is_the_model_s(shape):
    case = random_case(**shape)
    logits, acts = jax.jit(functools.partial(kernels.forward, case.cfg), compiler_options=QUICK)(case.params)
    with jax.enable_x64(True):
        params = {key: jnp.asarray(value, float) for key, value in case.params.items()}
        expected = jax.jit(functools.partial(model.forward_grid, case.cfg), compiler_options=QUICK)(params)
    for found, right in zip((logits, acts), expected, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max())


@needs_compiler
def test_what_is_not_a_number_stays_so():
    case = random_case(5)
    for key in ("embed.W_E", "blocks.0.mlp.W_in", "unembed.W_U"):
        case.params[key][1, 2] = np.nan
        assert np.isnan(of_native(case, case.train_pairs)["embed.W_E"]).any(), key
        case.params[key][1, 2] = 0


@needs_compiler
def test_bits_depend_on_the_parts_and_not_on_the_threads():
    """The same program again and again on all cores: threads take the parts in another order each time."""
    case = random_case(**SHAPES[1])
    tokens = kernels.tokens(jnp.asarray(case.train_pairs), case.answers, 113)
    gradient = jax.jit(lambda params: kernels.gradient(case.cfg, params, tokens, 5), compiler_options=QUICK)
    first = jax.tree.map(np.asarray, gradient(case.params))
    for _ in range(20):
        jax.tree.map(np.testing.assert_array_equal, first, jax.tree.map(np.asarray, gradient(case.params)))


@needs_compiler
def test_runs_under_vmap_are_the_runs_one_by_one():
    cases = [random_case(7, seed=seed, fraction=0.5) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *[case.params for case in cases])
    pairs = np.stack([case.train_pairs for case in cases])

    def gradient(params, pairs_B):
        return kernels.gradient(cases[0].cfg, params, kernels.tokens(pairs_B, cases[0].answers, 7))

    together = jax.jit(jax.vmap(gradient))(stacked, pairs)
    for i, case in enumerate(cases):
        alone = of_native(case, case.train_pairs)
        for key in alone:
            np.testing.assert_allclose(together[key][i], alone[key], rtol=1e-4, atol=1e-6)


def test_which_models_it_is_for():
    mainline = sweeps.expand(config.default()).runs[0].problem()
    assert kernels.suits(mainline.model)
    for field, value in (("n_layers", 2), ("act", "gelu")):
        assert not kernels.suits(model.ModelConfig(**{field: value}))
    with jax.enable_x64(True):
        assert not kernels.suits(mainline.model)


def without_compiler(**environment):
    """What a new process says of the library."""
    code = "from grokjax.core.native import kernels; print(kernels.unavailable())"
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"GROKJAX_NATIVE": "false"}, "GROKJAX_NATIVE is false"),
        ({"CXX": "/no/such/compiler"}, "CXX is /no/such/compiler, which is not there"),
        ({"CXX": "false"}, "failed"),
        ({"PATH": "/nowhere"}, "no C++ compiler is installed"),
        ({"XDG_CACHE_HOME": "/dev/null"}, "cannot be written to the cache folder or loaded"),
    ],
    ids=["off", "missing", "broken", "none", "no cache"],
)
def test_without_a_library_it_says_why(environment, said):
    if "XDG_CACHE_HOME" in environment and kernels.unavailable():
        pytest.skip(kernels.unavailable())
    assert said in without_compiler(**environment)


@pytest.mark.long
@needs_compiler
def test_a_sweep_records_it_and_goes_on_without_it(tmp_path, monkeypatch):
    path = tmp_path / "sweep"
    status, said = tiny.train(tiny.get_config(), path, stop=StopAfter(4))
    assert status == 143
    assert f"in C++, by {build.identity()}" in " ".join(said.split())
    record = json.loads((path / "config.json").read_text())
    assert record["native"] == build.identity()
    assert record["groups"][0]["n_parts"] > 0
    monkeypatch.setattr(kernels, "unavailable", lambda: "the compiler went away")
    status, said = tiny.train(tiny.get_config(), path)
    said = " ".join(said.split())
    assert status == 0
    assert "note: native was" in said
    assert "by XLA, which is slower than the C++ of grokjax.core.native: the compiler went away" in said


def test_a_record_with_impossible_parts_is_not_believed():
    group = Layout(1, 1, 1, 1, Backend(n_parts=kernels.MOST_PARTS)).record()
    record = {"config": {}, "axes": {}, "runs": [], "groups": [group]}
    assert _wrong_in(record) == ""
    group["n_parts"] += 1
    assert "impossible layouts" in _wrong_in(record)
