"""Measures of the next update and of the loss's curvature, and what a config says of measures."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import oracle_later
import pytest
from cases import QUICK, hyperparameters, random_case, value

from grokjax import config, sweeps, tasks
from grokjax.core.model import ModelConfig
from grokjax.core.problem import Inputs, Problem
from grokjax.errors import InputError
from grokjax.measures import curvature, registry, stability
from grokjax.measures.registry import MEASURES
from grokjax.measures.shared import KEY_RULES
from grokjax.training import one_run

CASE = random_case(23)
SLOW = [m.function for m in registry.in_step(["curvature"], slow=True).values()]


# --- the next update ------------------------------------------------------------------------------------------------


def small_problem(**more):
    cfg = ModelConfig(p=7, d_model=8, n_heads=2, d_mlp=16)
    return Problem(cfg, n_train=29, measures=("stability", "gradients"), **more)


def small_inputs():
    return Inputs(
        np.uint32(0),
        hyperparameters(learning_rate=1e-2),
        tasks.train_pairs(7, 0.6, 0),
        tasks.answers("add", 7),
    )


def test_next_update():
    problem, inputs = small_problem(), small_inputs()

    @functools.partial(jax.jit, compiler_options=QUICK)
    def look(n):
        state = one_run.train(problem, one_run.init(problem, inputs), n)
        return state.params, one_run.train(problem, state, 1).params, one_run.evaluate(problem, state)

    first, same, at_start = look(0)
    assert all(np.array_equal(first[key], same[key]) for key in first)
    assert at_start["update_norm"] == 0
    assert np.isnan(at_start["update_weight_cosine_W_E"])
    before, after, got = look(20)
    moved = {key: np.float64(after[key]) - before[key] for key in before}
    assert float(got["update_norm"]) == pytest.approx(math.sqrt(oracle.sum_sq(moved)), rel=1e-4)
    for name in stability.MATRICES:
        update, weights = ([tree[key] for key in tree if key.endswith(name)] for tree in (moved, before))
        assert float(got[f"update_weight_cosine_{name}"]) == pytest.approx(
            oracle_later.cosine(update, weights), abs=1e-4
        )


def test_without_an_optimizer_there_is_no_update():
    problem, inputs = small_problem(), small_inputs()
    columns = registry.in_step(problem.measures)
    params = jax.eval_shape(functools.partial(one_run.init, problem), inputs).params
    got = jax.eval_shape(lambda params: registry.compute(columns, one_run.shared(problem, inputs, params)), params)
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


@pytest.mark.long
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


@pytest.mark.parametrize("shape", [{"p": 5}, {"p": 7, "n_layers": 2, "act": "gelu"}])
def test_local_complexity(shape):
    case = random_case(**shape)
    directions = curvature.frame(3 * case.cfg.d_model)
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-12)
    assert len(directions) == min(25, 24)
    points = curvature.points(case.cfg.p)
    exact = oracle_later.local_complexity(case.params, points, directions, curvature.RADIUS, case.cfg.act)
    assert exact > 0.3
    got = jax.jit(lambda: curvature.local_complexity(case.shared()), compiler_options=QUICK)()
    assert float(got) == pytest.approx(exact, rel=1e-6)


# --- what a config says ---------------------------------------------------------------------------------------------


def test_slow_measures_are_evaluated_apart():
    problem = dataclasses.replace(small_problem(), measures=("paper", "curvature"))
    state = jax.eval_shape(functools.partial(one_run.init, problem), small_inputs())
    slow_row = jax.eval_shape(functools.partial(one_run.evaluate, problem, slow=True), state)
    assert slow_row.keys() == {"hessian_top", "hessian_trace", "local_complexity"}
    assert not slow_row.keys() & jax.eval_shape(functools.partial(one_run.evaluate, problem), state).keys()


def test_key_rule_setting():
    field = config.FIELDS["key_rule"]
    assert field.default == "W_L"
    assert all(field.test(rule) for rule in KEY_RULES)
    assert not field.test("W_U")
    values = {**config.flat(config.default()), "key_rule": "logits", "task": "quadratic"}
    with pytest.raises(InputError, match=r"config\.key_rule is 'logits', but task 'quadratic'"):
        sweeps.check(values)
    sweeps.check(values | {"task": "subtract"})
    for rule in KEY_RULES:
        problem = small_problem(key_rule=rule, key_threshold=0.5)
        shared = one_run.shared(problem, small_inputs(), random_case(7).params)
        assert (shared.key_rule, shared.key_threshold) == (rule, 0.5)


def test_the_documented_example_works():
    example = registry.__doc__.split("ten lines:\n\n")[1].split("\n\n`s` is")[0]
    names = {}
    try:
        exec("\n".join(line[4:] for line in example.splitlines()), names)
        assert names["get_config"]().measures == ("paper", "mine")
        shared = CASE.shared()
        largest = max(oracle.cross_entropy(oracle.all_logits(CASE.params), CASE.answers)[CASE.train_pairs])
        assert float(names["train_loss_max"](shared)) == pytest.approx(float(largest), rel=1e-5)
        assert registry.of_groups(["mine"])[-1] == MEASURES["train_loss_max"]
    finally:
        MEASURES.pop("train_loss_max", None)
