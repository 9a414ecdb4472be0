"""One run as a pure function: init, train_step, evaluate. Nothing here knows that there are other runs.

What shapes arrays or chooses code is in `Problem` (static, hashable); what enters arithmetic is in the state (traced).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from grokjax.core import losses, model, optimizers, precision
from grokjax.core.native import kernels
from grokjax.core.problem import Array, Inputs, Problem, State
from grokjax.measures import registry
from grokjax.measures.shared import Shared


def init(problem: Problem, inputs: Inputs) -> State:
    """The run before its first step."""
    # The split draws from fold 1 of its own seed, so equal seeds do not give related numbers.
    key = jax.random.fold_in(jax.random.key(inputs.seed), 0)
    params = model.init(problem.model, key, inputs.hyperparameters["init_scale"])
    return State(params, _optimizer(problem, inputs).init(params), inputs)


def _optimizer(problem: Problem, inputs: Inputs) -> optax.GradientTransformation:
    return optimizers.build(problem.optimizer, inputs.hyperparameters)


class Blocks(NamedTuple):
    """The training pairs ready for the forward pass, in equal blocks; the same at every step of a run."""

    pairs: model.Pairs  # [blocks, B] each
    labels: Array  # int32 [blocks, B]
    weights: Array  # float [blocks, B], 1 for a pair and 0 for what fills the last block


def batch(problem: Problem, inputs: Inputs) -> tuple[model.Pairs, jax.Array]:
    """All training pairs ready for the forward pass, and their answers."""
    return model.lookup(inputs.train_pairs, problem.model.p), inputs.answers[inputs.train_pairs]


def blocks(problem: Problem, inputs: Inputs, size: int = 0) -> Blocks:
    """The training pairs in blocks.

    Args:
      problem: of the run.
      inputs: of the run.
      size: pairs per block at most, of a model with one layer; 0 for one block.
    """
    n, p = problem.n_train, problem.model.p
    n_blocks = -(-n // (size or n)) if problem.model.n_layers == 1 else 1
    length = -(-n // n_blocks)
    filled = jnp.resize(inputs.train_pairs, (n_blocks, length))
    weights = (jnp.arange(n_blocks * length) < n).astype(float).reshape(n_blocks, length)
    return Blocks(
        jax.vmap(lambda pairs_B: model.lookup(pairs_B, p))(filled), jnp.asarray(inputs.answers)[filled], weights
    )


def loss(problem: Problem, params: model.Params, pairs: model.Pairs, labels_B: jax.Array) -> jax.Array:
    """Mean cross-entropy over the pairs, in nats."""
    logits_BxP, _ = model.forward(problem.model, params, pairs)
    return jnp.mean(losses.cross_entropy(logits_BxP, labels_B))


def gradient(problem: Problem, params: model.Params, pairs: Blocks) -> model.Params:
    """The gradient of `loss` over all blocks.

    Several blocks are taken one after another, so that a CPU's caches hold what a block needs; what does not depend on
    the pairs (`model.tables`) is computed, and differentiated, once.
    """
    if pairs.labels.shape[0] == 1:
        whole = jax.tree.map(lambda x: x[0], pairs)
        return jax.grad(loss, 1)(problem, params, whole.pairs, whole.labels)

    def block_loss(tables, block: Blocks):
        logits_BxP, _ = model.factored_tables(problem.model, tables, block.pairs)
        return jnp.sum(losses.cross_entropy(logits_BxP, block.labels) * block.weights)

    def add(sums, block: Blocks):
        return jax.tree.map(jnp.add, sums, jax.grad(block_loss)(tables, block)), None

    tables, pull_back = jax.vjp(functools.partial(model.tables, problem.model), params)
    sums, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, tables), pairs)
    return pull_back(jax.tree.map(lambda x: x / problem.n_train, sums))[0]


def train_step(problem: Problem, state: State, gradient_at: Callable[[model.Params], model.Params]) -> State:
    """One full-batch step; `gradient_at` gives the gradient of the run's mean loss at some parameters."""
    grads = precision.rounded(gradient_at, problem.precision)(state.params)
    updates, opt_state = _optimizer(problem, state.inputs).update(grads, state.opt_state, state.params)
    return state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)


def train(problem: Problem, state: State, n_steps: jax.Array | int, block: int = 0, n_parts: int = 0) -> State:
    """Trains a run.

    Args:
      problem: of the run.
      state: of the run.
      n_steps: may be traced, so that one compilation serves any number.
      block: training pairs whose gradients are taken at a time; 0 for all.
      n_parts: 0 for XLA's programs, else `native.gradient`'s, which needs no blocks.
    """
    gradient_at = _native_gradient(problem, state, n_parts) if n_parts else _gradient(problem, state, block)
    return jax.lax.fori_loop(0, n_steps, lambda _, s: train_step(problem, s, gradient_at), state)


def _gradient(problem: Problem, state: State, block: int):
    pairs = blocks(problem, state.inputs, block)
    return lambda params: gradient(problem, params, pairs)


def _native_gradient(problem: Problem, state: State, n_parts: int):
    pairs = kernels.tokens(state.inputs.train_pairs, state.inputs.answers, problem.model.p)
    return lambda params: kernels.gradient(problem.model, params, pairs, n_parts)


def shared(
    problem: Problem,
    inputs: Inputs,
    params: model.Params,
    opt_state: optax.OptState | None = None,
    in_native: bool = False,
) -> Shared:
    """What measures of these parameters are computed from.

    Args:
      problem: of the run.
      inputs: of the run.
      params: at some step.
      opt_state: at that step, if it is known; without it there is no next update to measure.
      in_native: whether logits and activations come from `native.forward`.
    """
    pairs, labels_B = batch(problem, inputs)

    def updates(grads):
        return _optimizer(problem, inputs).update(grads, opt_state, params)[0]

    return Shared(
        problem.model,
        problem.direction,
        params,
        inputs.train_pairs,
        inputs.answers,
        key_rule=problem.key_rule,
        key_threshold=problem.key_threshold,
        loss_fn=lambda params: loss(problem, params, pairs, labels_B),
        update_fn=None if opt_state is None else updates,
        forward=kernels.forward if in_native else model.forward_grid,
    )


def evaluate(problem: Problem, state: State, slow: bool = False, in_native: bool = False) -> dict[str, jax.Array]:
    """The in-step measures of the problem's groups, by column name; shapes are declared in `grokjax.measures`.

    Args:
      problem: of the run.
      state: of the run.
      slow: the slow measures instead of the others.
      in_native: whether logits and activations come from `native.forward`.
    """
    with precision.products(problem.precision):
        seen = shared(problem, state.inputs, state.params, state.opt_state, in_native)
        return registry.compute(registry.in_step(problem.measures, slow), seen)


def counted(state: State, test_loss: jax.Array) -> State:
    """The state after an evaluation has found this test loss (float32 [], nats), as `stopped` needs it."""
    is_below = test_loss < state.inputs.stop_loss
    return state._replace(below=jnp.where(is_below, state.below + 1, 0))


def stopped(state: State) -> jax.Array:
    """Whether the run has reached its stop rule (bool []): test loss below stop_loss for stop_evals evaluations."""
    return state.below >= state.inputs.stop_evals
