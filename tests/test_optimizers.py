"""The optimizers against their definitions in float64, against plain optax, and that every hyperparameter counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from cases import QUICK, hyperparameters, random_case

from grokjax.core import backends, optimizers
from grokjax.core.problem import HYPERPARAMETERS, Inputs, Problem, State
from grokjax.errors import InputError
from grokjax.training import one_run

N_STEPS = 25


def weights_and_gradients(seed=0):
    """Weights, and a gradient per step whose entries span from 1e-11, far below eps, to 1."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-11, 0, 40)
    gradients = scale * (rng.normal(size=(N_STEPS, 40)) + 0.5)
    return rng.normal(size=40).astype(np.float32), gradients.astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def run(build, h, weights, gradients):
    """The weights after every step of an optimizer made inside the compiled program from traced numbers."""
    optimizer = build(h)

    def step(carry, gradient):
        weights, state = carry
        updates, state = optimizer.update({"w": gradient}, state, weights)
        weights = optax.apply_updates(weights, updates)
        return (weights, state), weights["w"]

    weights = {"w": weights}
    return jax.lax.scan(step, (weights, optimizer.init(weights)), gradients)[1]


BUILD = {name: functools.partial(optimizers.build, name) for name in optimizers.OPTIMIZERS}
DEFINITION = {"adamw": oracle.adamw, "sgd": oracle.sgd}


def definition(name, h, weights, gradients):
    h = {key: float(value) for key, value in h.items() if key != "init_scale"}
    return np.array(DEFINITION[name](weights, gradients, **h))


def test_every_optimizer_has_a_definition_here():
    in_float64 = {"adam", "muon"}  # in tests/test_updates.py
    assert DEFINITION.keys() | in_float64 == optimizers.OPTIMIZERS.keys()


@pytest.mark.parametrize("name", DEFINITION)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"learning_rate": 0.1, "weight_decay": 3.0},
        {"weight_decay": 0.0, "warmup_steps": 0},
        {"beta1": 0.0, "beta2": 0.999, "eps": 1e-4, "warmup_steps": 3},
        {"beta1": 0.5, "warmup_steps": 100},
    ],
    ids=lambda changed: "-".join(changed) or "paper",
)
def test_steps_are_the_definition_s(name, changed):
    h = hyperparameters(**({"learning_rate": 0.01} | changed))
    weights, gradients = weights_and_gradients()
    got = run(BUILD[name], h, weights, gradients)
    expected = definition(name, h, weights, gradients)
    moved = np.max(np.abs(expected - weights), 1)
    assert moved[-1] > 0.005
    for step in (0, 1, 19, N_STEPS - 1):
        np.testing.assert_allclose(got[step], expected[step], rtol=1e-6, atol=1e-6 * (moved[step] + 1e-3))
    # Weight for weight the way gone is right to 1e-3 of itself or to the rounding of the weight.
    np.testing.assert_allclose(got[-1] - weights, expected[-1] - weights, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("name", DEFINITION)
def test_the_first_step_has_rate_zero_and_still_counts(name):
    weights, gradients = weights_and_gradients()
    h = hyperparameters(learning_rate=0.1)
    history = run(BUILD[name], h, weights, gradients)
    assert np.array_equal(history[0], weights)
    assert not np.any(history[1] == weights)
    other_start = np.concatenate([-gradients[:1], gradients[1:]])
    assert not np.allclose(history[1], run(BUILD[name], h, weights, other_start)[1], rtol=1e-6)
    without_warmup = run(BUILD[name], hyperparameters(learning_rate=0.1, warmup_steps=0), weights, gradients)
    assert not np.any(without_warmup[0] == weights)


@pytest.mark.parametrize(("warmup_steps", "factors"), [(10, [0, 0.1, 0.5, 1, 1]), (0, [1] * 5), (1, [0, 1, 1, 1, 1])])
def test_warmup(warmup_steps, factors):
    schedule = optimizers.warmup(hyperparameters(learning_rate=0.25, warmup_steps=warmup_steps))
    rates = [float(schedule(jnp.int32(step))) for step in (0, 1, 5, 10, 10_000)]
    assert rates == pytest.approx([0.25 * factor for factor in factors], rel=1e-7)


def test_bits_are_those_of_plain_optax():
    h = hyperparameters(learning_rate=0.003)
    weights, gradients = weights_and_gradients()

    def plain(h):
        def rate(count):
            return h["learning_rate"] * jnp.minimum(count / h["warmup_steps"], 1)

        return optax.adamw(rate, b1=h["beta1"], b2=h["beta2"], eps=h["eps"], weight_decay=h["weight_decay"])

    assert np.array_equal(run(BUILD["adamw"], h, weights, gradients), run(plain, h, weights, gradients))


def test_under_vmap_each_run_has_its_own_numbers():
    weights, gradients = weights_and_gradients()
    runs = [hyperparameters(learning_rate=0.01, weight_decay=decay, beta1=beta1) for decay, beta1 in ((0, 0.9), (2, 0))]
    together = jax.vmap(functools.partial(run, BUILD["adamw"]), (0, None, None))(
        jax.tree.map(lambda *x: np.stack(x), *runs), weights, gradients
    )
    for got, h in zip(together, runs, strict=True):
        expected = definition("adamw", h, weights, gradients)[-1]
        np.testing.assert_allclose(got[-1], expected, rtol=2e-6, atol=2e-6)


def test_decay_touches_every_parameter():
    params = {key: value.ravel()[:3] for key, value in random_case(5).params.items()}
    optimizer = optimizers.build("adamw", hyperparameters(warmup_steps=0, learning_rate=0.1))
    updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params), params)
    for key, update in updates.items():
        np.testing.assert_allclose(update, -0.1 * params[key], rtol=1e-6, err_msg=key)


@pytest.fixture(scope="module")
def trained():
    """(name of optimizer, changed hyperparameters) to the parameters before and after 5 steps of a small run."""
    case = random_case(5)

    @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
    def few_steps(name, h):
        problem = Problem(case.cfg, n_train=len(case.train_pairs), optimizer=name)
        start = one_run.init(problem, Inputs(np.uint32(0), h, case.train_pairs, case.answers))
        return start.params, one_run.train(problem, start, 5).params

    def train(name="adamw", **changed):
        return few_steps(name, hyperparameters(**changed))

    train.compilations = few_steps._cache_size
    return train


@pytest.mark.parametrize(
    ("hyperparameter", "value"),
    [
        ("learning_rate", 2e-3),
        ("weight_decay", 0.5),
        ("beta1", 0.8),
        ("beta2", 0.9),
        ("eps", 1e-3),
        ("warmup_steps", 3),
        ("init_scale", 1.1),
    ],
)
def test_every_hyperparameter_changes_the_result_without_recompiling(trained, hyperparameter, value):
    base = trained()[1]
    compilations = trained.compilations()
    changed = trained(**{hyperparameter: value})[1]
    assert trained.compilations() == compilations
    for key in base:
        assert np.max(np.abs(base[key] - changed[key])) > 1e-8, key


def test_every_hyperparameter_is_in_the_list_above():
    marks = test_every_hyperparameter_changes_the_result_without_recompiling.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(HYPERPARAMETERS)


def test_init_scale_multiplies_the_initial_weights(trained):
    for key, value in trained()[0].items():
        np.testing.assert_allclose(trained(init_scale=3.0)[0][key], 3 * value, rtol=1e-6, err_msg=key)


def test_train_step_is_the_definition_s_step(training_run):
    """20 steps of a real run: gradients by JAX on the way, the optimizer's arithmetic redone in float64."""
    case = training_run[300]
    problem = Problem(case.cfg, n_train=len(case.train_pairs))
    h = hyperparameters(learning_rate=5e-3)
    inputs = Inputs(np.uint32(0), h, case.train_pairs, case.answers)
    state = State(case.params, optimizers.build("adamw", h).init(case.params), inputs)
    pairs = backends.batch(problem, inputs)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def step(state):
        gradient = jax.grad(backends.loss, 1)(problem, state.params, *pairs)
        return one_run.train_step(problem, state, lambda params: gradient), gradient

    gradients = []
    for _ in range(20):
        state, gradient = step(state)
        gradients.append(gradient)
    for key, start in case.params.items():
        expected = definition("adamw", h, start, [g[key] for g in gradients])[-1]
        assert np.max(np.abs(expected - start)) > 1e-3, key
        np.testing.assert_allclose(state.params[key], expected, rtol=1e-5, atol=1e-6, err_msg=key)


def test_an_unknown_optimizer_is_answered_with_the_known():
    with pytest.raises(
        InputError, match=r"config.optimizer 'adamx' is unknown: did you mean 'adam'\?.*adamw, muon, sgd"
    ):
        optimizers.build("adamx", hyperparameters())
