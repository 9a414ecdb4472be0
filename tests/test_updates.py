"""All between a gradient and the update of the weights: against plain optax and the published rules, in float64."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from cases import QUICK, random_case

import grokjax
from grokjax import config, sweeps
from grokjax.core import backends, model, optimizers
from grokjax.core.model import ModelConfig
from grokjax.core.optimizers import OPTIMIZERS, SCHEDULES, TRANSFORMATIONS
from grokjax.core.problem import Problem
from grokjax.errors import InputError
from grokjax.training import plan

N_STEPS = 12
SHAPES = {
    "blocks.0.attn.W_Q": (2, 4, 3),
    "blocks.0.attn.W_O": (2, 3, 4),
    "blocks.0.mlp.W_in": (4, 7),
    "blocks.0.mlp.W_out": (7, 4),
    "blocks.0.mlp.b_in": (7,),
    "embed.W_E": (5, 4),
}
H = {
    "learning_rate": 0.03,
    "weight_decay": 0.7,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-6,
    "warmup_steps": 3.0,
    "init_scale": 1.0,
    "muon_beta": 0.9,
    "muon_learning_rate": 0.05,
    "grokfast_alpha": 0.7,
    "grokfast_lamb": 1.5,
    "schedule_end": 0.2,
    "steps": 10.0,
    "l1": 0.02,
    "l2": 0.3,
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def case():
    """Weights and a gradient per step, in float64; one bias begins at zero."""
    rng = np.random.default_rng(0)
    weights = {key: rng.normal(size=shape) for key, shape in SHAPES.items()}
    weights["blocks.0.mlp.b_in"][:] = 0
    return weights, [{key: rng.normal(size=shape) + 0.3 for key, shape in SHAPES.items()} for _ in range(N_STEPS)]


def problem(**changed):
    return Problem(ModelConfig(p=5), n_train=1, **changed)


def run(update, weights, gradients):
    """The weights after each step of an optax chain made in the compiled program."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def all_(h, weights, gradients):
        chain = update(h)

        def step(carry, gradient):
            weights, state = carry
            updates, state = chain.update(gradient, state, weights)
            weights = optax.apply_updates(weights, updates)
            return (weights, state), weights

        return jax.lax.scan(step, (weights, chain.init(weights)), gradients)[1]

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *gradients)
    return all_({name: jnp.float64(value) for name, value in H.items()}, weights, stacked)


# --- the rules, in NumPy ----------------------------------------------------------------------------------------------


def rate_at(step, peak, schedule):
    up = peak * min(step / H["warmup_steps"], 1)
    gone = min(max((step - H["warmup_steps"]) / (H["steps"] - H["warmup_steps"]), 0), 1)
    left = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * gone)), "linear": 1 - gone}[schedule]
    end = 1.0 if schedule == "constant" else H["schedule_end"]
    return up * (end + (1 - end) * left)


def orthogonalised(matrix):
    """Five of Jordan's quintic iterations."""
    x = matrix / (np.linalg.norm(matrix) + H["eps"])
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def as_matrix(key, x):
    """The weight as a matrix from its inputs to its outputs, or None, and the way back."""
    name = key.rpartition(".")[2]
    if name == "W_Q":
        h, d, e = x.shape
        return x.transpose(1, 0, 2).reshape(d, h * e), lambda m: m.reshape(d, h, e).transpose(1, 0, 2)
    if name == "W_O":
        return x.reshape(-1, x.shape[2]), lambda m: m.reshape(x.shape)
    return (x, lambda m: m) if name in ("W_in", "W_out") else (None, None)


class Rule:
    """One weight under the rules, step by step."""

    def __init__(self, key, weight, p: Problem):
        self.key, self.w, self.start, self.p = key, weight.copy(), weight.copy(), p
        self.step, self.mean, self.square, self.slow = 0, 0 * weight, 0 * weight, None

    def take(self, g):
        w = self.w
        g = g + sum({"l1": H["l1"] * np.sign(w), "l2": H["l2"] * w}[name] for name in self.p.penalties)
        if self.p.gradient_transform == "grokfast":
            self.slow = g if self.slow is None else H["grokfast_alpha"] * self.slow + (1 - H["grokfast_alpha"]) * g
            g = g + H["grokfast_lamb"] * self.slow
        if self.p.gradient_transform == "orthograd":
            across = g - (np.sum(w * g) / (np.sum(w * w) + 1e-30)) * w
            g = across * np.linalg.norm(g) / (np.linalg.norm(across) + 1e-30)
        pull = H["weight_decay"] * (w - self.start if self.p.decay_to == "init" else w)
        rate = rate_at(self.step, H["learning_rate"], self.p.schedule)
        self.step += 1
        self.w = w + getattr(self, self.p.optimizer)(g, pull, rate)

    def adam_direction(self, g, nesterov=False):
        b1, b2, t = H["beta1"], H["beta2"], self.step
        self.mean, self.square = b1 * self.mean + (1 - b1) * g, b2 * self.square + (1 - b2) * g**2
        mean = self.mean / (1 - b1**t)
        if nesterov:
            mean = b1 * self.mean / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        return mean / (np.sqrt(self.square / (1 - b2**t)) + H["eps"])

    def adamw(self, g, pull, rate):
        return -rate * (self.adam_direction(g) + pull)

    def adam(self, g, pull, rate):
        return -rate * self.adam_direction(g + pull)

    def sgd(self, g, pull, rate):
        self.mean = H["beta1"] * self.mean + g + pull
        return -rate * self.mean

    def muon(self, g, pull, rate):
        if as_matrix(self.key, g)[0] is None:
            return -rate * (self.adam_direction(g, nesterov=True) + pull)
        beta, t = H["muon_beta"], self.step
        self.mean = beta * self.mean + (1 - beta) * g
        ahead = beta * self.mean / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        matrix, back = as_matrix(self.key, ahead)
        scale = math.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
        rate = rate_at(t - 1, H["muon_learning_rate"], self.p.schedule)
        return -rate * (scale * back(orthogonalised(matrix)) + pull)


COMBINATIONS = [
    *({"optimizer": o, "gradient_transform": g} for o, g in itertools.product(OPTIMIZERS, ("none", *TRANSFORMATIONS))),
    *({"schedule": s, "optimizer": o} for s, o in itertools.product(("cosine", "linear"), ("adamw", "muon"))),
    *({"decay_to": "init", "optimizer": o} for o in OPTIMIZERS),
    *({"penalties": p, "optimizer": o} for p in (("l1",), ("l2",), ("l1", "l2")) for o in ("adamw", "sgd")),
    {"optimizer": "muon", "gradient_transform": "orthograd", "schedule": "linear", "decay_to": "init"},
    {"optimizer": "adam", "gradient_transform": "grokfast", "schedule": "cosine", "penalties": ("l1", "l2")},
]


@pytest.mark.parametrize("changed", COMBINATIONS, ids=lambda c: "-".join(map(str, c.values())))
def test_steps_are_the_rule_s(case, changed):
    weights, gradients = case
    p = problem(**changed)
    got = run(functools.partial(optimizers.of, p), weights, gradients)
    for key, weight in weights.items():
        rule = Rule(key, weight, p)
        for i, gradient in enumerate(gradients):
            rule.take(gradient[key])
            assert got[key].dtype == np.float64
            np.testing.assert_allclose(got[key][i], rule.w, rtol=1e-9, atol=1e-11, err_msg=f"{key} {i}")
        assert np.max(np.abs(rule.w - weight)) > 1e-3


@pytest.mark.parametrize("changed", [*({"optimizer": o} for o in OPTIMIZERS), COMBINATIONS[-2], COMBINATIONS[-1]])
def test_the_norm_stays_that_of_the_initial_weights(case, changed):
    """Each rule's step, and then one factor on all weights together."""
    weights, gradients = case
    p = problem(**changed, norm_constraint="init")
    got = run(functools.partial(optimizers.of, p), weights, gradients)
    rules = {key: Rule(key, weight, p) for key, weight in weights.items()}
    norm = math.sqrt(sum(np.sum(weight**2) for weight in weights.values()))
    most = 1.0
    for i, gradient in enumerate(gradients):
        for key, rule in rules.items():
            rule.take(gradient[key])
        moved = math.sqrt(sum(np.sum(rule.w**2) for rule in rules.values()))
        most = max(most, moved / norm, norm / moved)
        for key, rule in rules.items():
            rule.w = rule.w * norm / moved
            np.testing.assert_allclose(got[key][i], rule.w, rtol=1e-9, atol=1e-11, err_msg=f"{key} {i}")
    assert most > 1.001


def test_every_one_has_a_rule_here():
    assert all(hasattr(Rule, name) for name in OPTIMIZERS)
    assert set(TRANSFORMATIONS) == {"grokfast", "orthograd"}
    for field, names in {"gradient_transform": ("none", *TRANSFORMATIONS), "schedule": tuple(SCHEDULES)}.items():
        assert config.FIELDS[field].right == f"one of {', '.join(names)}"


# --- against plain optax ----------------------------------------------------------------------------------------------

PLAIN = {
    "adamw": lambda h: optax.adamw(up(h), b1=h["beta1"], b2=h["beta2"], eps=h["eps"], weight_decay=h["weight_decay"]),
    "adam": lambda h: optax.chain(
        optax.add_decayed_weights(h["weight_decay"]),
        optax.scale_by_adam(h["beta1"], h["beta2"], h["eps"]),
        optax.scale_by_learning_rate(up(h)),
    ),
    "sgd": lambda h: optax.chain(
        optax.add_decayed_weights(h["weight_decay"]),
        optax.trace(h["beta1"]),
        optax.scale_by_learning_rate(up(h)),
    ),
    "muon": lambda h: optax.contrib.muon(
        up(h, "muon_learning_rate"),
        beta=h["muon_beta"],
        eps=h["eps"],
        weight_decay=h["weight_decay"],
        adam_b1=h["beta1"],
        adam_b2=h["beta2"],
        adam_weight_decay=h["weight_decay"],
        adam_learning_rate=up(h),
        muon_weight_dimension_numbers=numbers,
    ),
}


def up(h, name="learning_rate"):
    return lambda count: h[name] * jnp.minimum(count / h["warmup_steps"], 1)


def numbers(params):
    kinds = {"W_Q": optax.contrib.MuonDimensionNumbers(1, (0, 2)), "W_O": optax.contrib.MuonDimensionNumbers((0, 1), 2)}
    kinds["W_in"] = kinds["W_out"] = optax.contrib.MuonDimensionNumbers()
    return {key: kinds.get(key.rpartition(".")[2]) for key in params}


@pytest.mark.parametrize("name", list(PLAIN))
def test_optimizers_are_plain_optax(case, name):
    weights, gradients = case
    ours = run(functools.partial(optimizers.of, problem(optimizer=name)), weights, gradients)
    plain = run(PLAIN[name], weights, gradients)
    for key in weights:
        np.testing.assert_allclose(ours[key], plain[key], rtol=1e-13, atol=1e-15, err_msg=key)


def test_every_optimizer_is_compared_with_optax():
    assert set(PLAIN) == set(OPTIMIZERS)


def test_a_gradient_of_the_penalty_s_own():
    """l1 Σ|w| + ½ l2 Σw², differentiated by JAX."""
    w = {"w": jnp.array([0.5, -2.0, 3.0])}
    slope = jax.grad(lambda w: H["l1"] * jnp.sum(jnp.abs(w["w"])) + H["l2"] / 2 * jnp.sum(w["w"] ** 2))(w)
    steps = [optimizers.penalty(H[name], optimizers.PENALTIES[name]) for name in ("l1", "l2")]
    chain = optax.chain(*steps)
    got, _ = chain.update(jax.tree.map(jnp.zeros_like, w), chain.init(w), w)
    np.testing.assert_allclose(got["w"], slope["w"], rtol=1e-14)


@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_schedules_are_optax_s(warmup_steps):
    h = {name: jnp.float64(x) for name, x in (H | {"warmup_steps": warmup_steps, "steps": 40}).items()}
    peak, end = h["learning_rate"], h["learning_rate"] * h["schedule_end"]
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, 40 - warmup_steps, h["schedule_end"]),
        "linear": optax.linear_schedule(peak, end, 40 - warmup_steps),
    }
    for name, decay in after.items():
        whole = optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), decay], [warmup_steps])
        ours = optimizers.rate(h, name, peak)
        steps = (0, 1, 4, 5, 6, 20, 39, 40, 41, 1000)
        got, wanted = ([float(rate(jnp.float64(step))) for step in steps] for rate in (ours, whole))
        np.testing.assert_allclose(got, wanted, rtol=1e-12, err_msg=name)


# --- the parts --------------------------------------------------------------------------------------------------------


def test_orthograd_turns_and_keeps_the_length(case):
    weights, (gradient, *_) = case
    chain = optimizers.orthograd({})
    turned, _ = chain.update(gradient, chain.init(weights), weights)
    for key, weight in weights.items():
        assert abs(np.sum(turned[key] * weight)) < 1e-12
        np.testing.assert_allclose(np.linalg.norm(turned[key]), np.linalg.norm(gradient[key]))


def test_muon_takes_every_matrix_between_the_embeddings():
    """What is no matrix to it would fall to AdamW without a word."""
    params = random_case(5, n_layers=2).params
    hidden = {key for key in params if key.startswith("blocks.") and key.rpartition(".")[2].startswith("W_")}
    state = optimizers.build("muon", H).init(params)
    of_muon = state.inner_states["muon"].inner_state[0].mu
    assert {key for key, value in of_muon.items() if isinstance(value, jax.Array | np.ndarray)} == hidden
    assert {key.rpartition(".")[2] for key in hidden} == set(optimizers.MATRICES)
    assert model.shapes(ModelConfig()).keys() >= {"blocks.0.attn.W_Q", "unembed.W_U"}


def test_a_matrix_of_all_heads_is_orthogonal_after_muon(case):
    """Singular values near 1 of the joint matrix, which those of single heads would not give."""
    weights, gradients = case
    key = "blocks.0.attn.W_Q"
    h = H | {"weight_decay": 0.0, "warmup_steps": 0, "muon_learning_rate": 1.0}
    chain = optimizers.build("muon", {name: jnp.float64(x) for name, x in h.items()})
    step, _ = chain.update(gradients[0], chain.init(weights), weights)
    matrix = as_matrix(key, np.asarray(step[key]))[0]
    values = np.linalg.svd(matrix, compute_uv=False) / math.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
    assert np.all((values > 0.6) & (values < 1.3))


def test_the_mainline_s_chain_is_adamw_s_alone(case):
    weights, _ = case
    p = problem()
    bare = optax.adamw(lambda count: 0.1).init(weights)
    assert jax.tree.structure(optimizers.of(p, H).init(weights)) == jax.tree.structure(bare)
    assert optimizers.hyperparameters(p) == optimizers.HYPERPARAMETERS
    more = problem(optimizer="muon", gradient_transform="grokfast", schedule="linear", penalties=("l1",))
    assert set(optimizers.hyperparameters(more)) == set(H) - {"l2"}


# --- from config fields into a run ------------------------------------------------------------------------------------


def test_what_is_off_is_compiled_apart_and_numbers_are_not():
    c = tiny.get_config()
    c.sweep.seed = c.sweep.weight_decay = None
    c.sweep.l1 = (0.0, 1e-4, 1e-3)
    groups = sweeps.expand(c).groups()
    assert [[run.values["l1"] for run in runs] for runs in groups] == [[0.0], [1e-4, 1e-3]]
    assert [runs[0].problem().penalties for runs in groups] == [(), ("l1",)]
    assert "l1" not in groups[0][0].inputs().hyperparameters
    assert groups[1][1].inputs().hyperparameters["l1"] == np.float32(1e-3)
    c.sweep.l1 = None
    c.gradient_transform = "grokfast"
    c.sweep.grokfast_lamb = (0.0, 2.0)
    assert len(sweeps.expand(c).groups()) == 1
    c.sweep.optimizer = ("adamw", "adam", "muon")
    assert len(sweeps.expand(c).groups()) == 3


def test_the_plan_says_what_differs_from_the_mainline_and_c_plus_plus_serves_it():
    assert plan._update(problem()) == ""
    changed = {"gradient_transform": "grokfast", "decay_to": "init", "penalties": ("l1", "l2"), "label_noise": True}
    p = problem(optimizer="muon", schedule="linear", is_started=True, **changed)
    assert plan._update(p) == (
        "cross_entropy, muon, gradients through grokfast, l1 and l2 penalty, linear schedule, decay towards the "
        "initial weights, label noise, from given weights"
    )
    with jax.enable_x64(False):
        assert backends.unsuited(p) == ""
        assert backends.unsuited(problem(loss="mse")) == "loss cross_entropy"
    assert plan._update(problem(loss="mse")) == "mse, adamw"


def test_register(monkeypatch):
    monkeypatch.setattr(optimizers, "OPTIMIZERS", dict(OPTIMIZERS))

    @optimizers.register(name="lion", hyperparameters=("muon_beta",))
    def of_signs(rate, h):
        return optax.lion(rate(h["learning_rate"]), b1=h["beta1"], b2=h["muon_beta"])

    assert optimizers.hyperparameters(problem(optimizer="lion")) == (*optimizers.HYPERPARAMETERS, "muon_beta")
    optimizers.of(problem(optimizer="lion"), H)
    with pytest.raises(InputError, match="optimizer 'muon' is already defined in"):
        optimizers.register(of_signs, name="muon")
    c = tiny.get_config()
    c.optimizer = "lyon"
    with pytest.raises(InputError, match=r"config.optimizer 'lyon' is unknown: did you mean 'lion'\?"):
        sweeps.expand(c)


def test_a_redefined_one_is_compiled_anew(monkeypatch):
    monkeypatch.setattr(optimizers, "OPTIMIZERS", dict(OPTIMIZERS))
    c = tiny.get_config()
    c.optimizer, c.steps, c.sweep.seed, c.sweep.weight_decay = "mine", 20, None, None
    moved = []
    with jax.enable_x64(False):
        for factor in (1.0, 0.0):

            @optimizers.register
            def mine(rate, h, factor=factor):
                return optax.sgd(factor * h["learning_rate"])

            moved.append(float(jnp.sum(grokjax.train_one(c).params["blocks.0.mlp.b_in"] ** 2)))
    assert moved[0] > 0
    assert moved[1] == 0


def test_every_traced_field_of_an_optimizer_is_a_config_field():
    for one in (*OPTIMIZERS.values(), *TRANSFORMATIONS.values()):
        assert all(config.FIELDS[name].kind == config.TRACED for name in one.hyperparameters)
    assert all(config.FIELDS[name].on for name in optimizers.PENALTIES)
