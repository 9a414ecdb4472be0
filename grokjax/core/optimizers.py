"""Optax chains built from traced hyperparameters.

Each is made anew inside the traced step from the run's own numbers, so that sweeping any of them never recompiles and
the arithmetic stays that of the plain optax optimizer (`optax.inject_hyperparams` drifts from it: optax issues 583 and
1532). Weight decay applies to every parameter, biases and embeddings included, as in Nanda et al. 2023.

A run's gradient passes through penalties, then a gradient transformation, then the optimizer. What a run does without
is not in its program, and its numbers are not in its state.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from optax import GradientTransformation
from optax.contrib import MuonDimensionNumbers

from grokjax.core.problem import HYPERPARAMETERS, Problem
from grokjax.errors import refuse_clash, unknown

Hyperparameters = Mapping[str, Float[Array, ""]]
Rate = Callable[[Float[Array, ""]], optax.Schedule]  # from a step size to its schedule


# --- learning rates ---------------------------------------------------------------------------------------------------

# By config.schedule: the share of the way down that is left, from the share of the time after warm-up that is gone.
SCHEDULES: dict[str, Callable] = {
    "constant": jnp.ones_like,
    "cosine": lambda gone: (1 + jnp.cos(jnp.pi * gone)) / 2,
    "linear": lambda gone: 1 - gone,
}


def warmup(h: Hyperparameters, peak: Float[Array, ""] | None = None) -> optax.Schedule:
    """peak * min(step / warmup_steps, 1), from step 0, whose rate is thus 0; constant if warmup_steps is 0.

    Args:
      h: of the run.
      peak: by default learning_rate.
    """
    peak, steps = h["learning_rate"] if peak is None else peak, h["warmup_steps"]
    return lambda count: peak * jnp.where(steps > 0, jnp.minimum(count / jnp.maximum(steps, 1), 1), 1)


def rate(h: Hyperparameters, schedule: str, peak: Float[Array, ""]) -> optax.Schedule:
    """The learning rate by step: `warmup`, and then down to schedule_end of it, which it has from the last step on."""
    up = warmup(h, peak)
    if schedule == "constant":
        return up

    def scheduled(count):
        length = jnp.maximum(h["steps"] - h["warmup_steps"], 1)
        left = SCHEDULES[schedule](jnp.clip((count - h["warmup_steps"]) / length, 0, 1))
        return up(count) * (h["schedule_end"] + (1 - h["schedule_end"]) * left)

    return scheduled


# --- optimizers -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer that config.optimizer can name.

    Attributes:
      function: of `rate` and the run's hyperparameters, to an optax gradient transformation; `rate` makes a step size
        an optax schedule, with the run's warm-up and decay.
      hyperparameters: the config fields that it reads beside those in `HYPERPARAMETERS`.
    """

    function: Callable[[Rate, Hyperparameters], GradientTransformation]
    hyperparameters: tuple[str, ...] = ()


OPTIMIZERS: dict[str, Optimizer] = {}


def register(function=None, *, name: str | None = None, hyperparameters: tuple[str, ...] = ()):
    """Adds an optimizer under its function's name, or under `name`; usable as a plain decorator or with arguments.

    Args:
      function: of `rate`, which makes a step size an optax schedule with the run's warm-up and decay, and a mapping
        `h` from config fields to the run's numbers, which are traced: learning_rate, weight_decay, beta1, beta2, eps,
        warmup_steps and init_scale. Returns an optax gradient transformation. With decay_to "init" that is given
        θ - θ₀ for θ.
      name: the name for `config.optimizer`; the function's own by default.
      hyperparameters: more config fields that the function reads, such as "muon_beta".

    Returns:
      The function, unchanged.

    Raises:
      InputError: the name is taken by another function.

    Example:
      >>> @register
      ... def lion(rate, h):
      ...     return optax.lion(rate(h["learning_rate"]), b1=h["beta1"], b2=h["beta2"], weight_decay=h["weight_decay"])
      >>> "lion" in OPTIMIZERS
      True
    """
    if function is None:
        return functools.partial(register, name=name, hyperparameters=hyperparameters)
    name = name or function.__name__
    if name in OPTIMIZERS:
        refuse_clash(f"optimizer '{name}'", OPTIMIZERS[name].function, function)
    OPTIMIZERS[name] = Optimizer(function, tuple(hyperparameters))
    return function


def get(name: str) -> Optimizer:
    """The optimizer of that name.

    Raises:
      InputError: there is none; names the known ones.
    """
    if name not in OPTIMIZERS:
        raise unknown("config.optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


@register
def adamw(rate: Rate, h: Hyperparameters) -> GradientTransformation:
    """AdamW; the decay is multiplied by the learning rate, as in PyTorch and the paper's code."""
    decay = h["weight_decay"]
    return optax.adamw(rate(h["learning_rate"]), b1=h["beta1"], b2=h["beta2"], eps=h["eps"], weight_decay=decay)


@register
def adam(rate: Rate, h: Hyperparameters) -> GradientTransformation:
    """Adam with decay added to the gradient, before both means, as in PyTorch's Adam (L2 regularization)."""
    inner = optax.adam(rate(h["learning_rate"]), b1=h["beta1"], b2=h["beta2"], eps=h["eps"])
    return optax.chain(optax.add_decayed_weights(h["weight_decay"]), inner)


@register
def sgd(rate: Rate, h: Hyperparameters) -> GradientTransformation:
    """SGD with momentum beta1 and decay added to the gradient, as in PyTorch; beta2 and eps are not used."""
    inner = optax.sgd(rate(h["learning_rate"]), momentum=h["beta1"])
    return optax.chain(optax.add_decayed_weights(h["weight_decay"]), inner)


# How the weights of hidden layers are matrices, by the last part of their key: attention's are those of all heads side
# by side, as a Linear layer of PyTorch holds them.
MATRICES = {
    **dict.fromkeys(("W_Q", "W_K", "W_V"), MuonDimensionNumbers(1, (0, 2))),
    "W_O": MuonDimensionNumbers((0, 1), 2),
    "W_in": MuonDimensionNumbers(0, 1),
    "W_out": MuonDimensionNumbers(0, 1),
}


@register(hyperparameters=("muon_beta", "muon_learning_rate"))
def muon(rate: Rate, h: Hyperparameters) -> GradientTransformation:
    """Muon for the matrices of hidden layers, and AdamW for embeddings, unembedding and biases (Jordan et al. 2024).

    optax.contrib.muon, in float32 on every device: momentum muon_beta, Nesterov's (AdamW's too), and
    muon_learning_rate, with warm-up and schedule; decay is decoupled and multiplied by each one's rate.
    """
    inner = optax.contrib.muon(
        rate(h["muon_learning_rate"]),
        beta=h["muon_beta"],
        eps=h["eps"],
        weight_decay=h["weight_decay"],
        adam_b1=h["beta1"],
        adam_b2=h["beta2"],
        adam_weight_decay=h["weight_decay"],
        adam_learning_rate=rate(h["learning_rate"]),
        muon_weight_dimension_numbers=lambda params: {key: MATRICES.get(key.rpartition(".")[2]) for key in params},
    )

    def update(grads, state, params=None):
        with jax.default_matmul_precision("float32"):
            return inner.update(grads, state, params)

    return GradientTransformation(inner.init, update)


# --- before the optimizer ---------------------------------------------------------------------------------------------


class MeanGradient(NamedTuple):
    """The state of `grokfast`: the exponential mean of the gradients, and how many there were."""

    n: Array
    mean: optax.Updates


def grokfast(h: Hyperparameters) -> GradientTransformation:
    """g + lamb · m, with m the exponential mean of the gradients, which begins at the first (Lee et al. 2024)."""
    alpha, lamb = h["grokfast_alpha"], h["grokfast_lamb"]

    def init(params):
        return MeanGradient(jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params=None):
        del params
        first = state.n == 0
        mean = jax.tree.map(lambda m, g: jnp.where(first, g, alpha * m + (1 - alpha) * g), state.mean, grads)
        return jax.tree.map(lambda g, m: g + lamb * m, grads, mean), MeanGradient(state.n + 1, mean)

    return GradientTransformation(init, update)


def orthograd(h: Hyperparameters) -> GradientTransformation:
    """⊥Grad (Prieto et al. 2025): each array's gradient less its part along the weights, with its norm of before."""
    del h

    def across(g, w):
        left = g - jnp.sum(w * g) / (jnp.sum(w * w) + TINY) * w
        return left * (jnp.sqrt(jnp.sum(g * g)) / (jnp.sqrt(jnp.sum(left * left)) + TINY))

    return optax.stateless(lambda grads, params: jax.tree.map(across, grads, params))


TINY = 1e-30
NONE = "none"


@dataclasses.dataclass(frozen=True)
class Transformation:
    """A gradient transformation that config.gradient_transform can name; attributes as of `Optimizer`."""

    function: Callable[[Hyperparameters], GradientTransformation]
    hyperparameters: tuple[str, ...] = ()


TRANSFORMATIONS = {
    "grokfast": Transformation(grokfast, ("grokfast_alpha", "grokfast_lamb")),
    "orthograd": Transformation(orthograd),
}
# By the field that is its strength: a penalty's gradient by a weight.
PENALTIES: dict[str, Callable] = {"l1": jnp.sign, "l2": lambda w: w}


def penalty(strength: Float[Array, ""], slope: Callable) -> GradientTransformation:
    """Adds to the gradient that of a penalty on every weight."""
    return optax.stateless(lambda grads, params: jax.tree.map(lambda g, w: g + strength * slope(w), grads, params))


class FromInit(NamedTuple):
    """The state of `decayed_to_init`: the weights that a run began with, and the optimizer's own state."""

    init: optax.Params
    inner: optax.OptState


def decayed_to_init(inner: GradientTransformation) -> GradientTransformation:
    """An optimizer whose decay is towards the initial weights: θ - θ₀ stands for θ, which decay alone looks at."""

    def init(params):
        return FromInit(params, inner.init(params))

    def update(grads, state, params):
        updates, after = inner.update(grads, state.inner, jax.tree.map(jnp.subtract, params, state.init))
        return updates, FromInit(state.init, after)

    return GradientTransformation(init, update)


class WithNorm(NamedTuple):
    """The state of `norm_constrained`: the norm of all weights that a run began with, and the optimizer's own state."""

    norm: Array
    inner: optax.OptState


def norm_constrained(inner: GradientTransformation) -> GradientTransformation:
    """An optimizer after each of whose steps all weights are scaled to the norm that they began with (Liu et al. 2023).

    One norm of all parameters together, biases and embeddings included.
    """

    def init(params):
        return WithNorm(optax.tree.norm(params), inner.init(params))

    def update(grads, state, params):
        updates, after = inner.update(grads, state.inner, params)
        held = optax.projections.projection_l2_sphere(optax.apply_updates(params, updates), state.norm)
        return jax.tree.map(jnp.subtract, held, params), WithNorm(state.norm, after)

    return GradientTransformation(init, update)


# --- all together -----------------------------------------------------------------------------------------------------


def build(name: str, h: Hyperparameters, schedule: str = "constant") -> GradientTransformation:
    """The optimizer of that name for one run's hyperparameters (scalars, traced or not)."""
    return get(name).function(functools.partial(rate, h, schedule), h)


def of(problem: Problem, h: Hyperparameters) -> GradientTransformation:
    """All that lies between a run's gradient and the update of its weights."""
    steps = [penalty(h[name], PENALTIES[name]) for name in problem.penalties]
    if problem.gradient_transform != NONE:
        steps.append(TRANSFORMATIONS[problem.gradient_transform].function(h))
    optimizer = build(problem.optimizer, h, problem.schedule)
    optimizer = decayed_to_init(optimizer) if problem.decay_to == "init" else optimizer
    chain = optax.chain(*steps, optimizer) if steps else optimizer
    return norm_constrained(chain) if problem.norm_constraint == "init" else chain


def hyperparameters(problem: Problem) -> tuple[str, ...]:
    """The config fields whose numbers such runs hold in their state."""
    more = get(problem.optimizer).hyperparameters
    if problem.gradient_transform != NONE:
        more += TRANSFORMATIONS[problem.gradient_transform].hyperparameters
    if problem.schedule != "constant":
        more += ("steps", "schedule_end")
    return tuple(dict.fromkeys((*HYPERPARAMETERS, *more, *problem.penalties, *problem.model.traced)))
