"""A run as pure functions: init, train_step, evaluate. Nothing here knows that there are other runs.

What shapes arrays or chooses code is in `Problem` (static, hashable); what enters arithmetic is in the state (traced).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from grokjax.core import backends, batches, model, optimizers, precision
from grokjax.core.backends import XLA, Backend
from grokjax.core.problem import Inputs, Problem, State, bound
from grokjax.measures import registry
from grokjax.measures.blocks import shared_of
from grokjax.measures.shared import Shared

DROPOUT = 4  # fold of the seed's key: 0 draws the weights, 2 batches; of the split's seed 1 draws the split, 3 noise


def init(problem: Problem, inputs: Inputs) -> State:
    """The run before its first step."""
    # The split draws from fold 1 of its own seed, so equal seeds do not give related numbers.
    key = jax.random.fold_in(jax.random.key(inputs.seed), 0)
    scale = inputs.hyperparameters["init_scale"]
    if problem.is_started:
        params = jax.tree.map(lambda x: x * scale, inputs.start)
    else:
        params = model.init(problem.model, key, scale)
    step = jnp.int32(0) if problem.counts_steps else None
    return State(params, _optimizer(problem, inputs).init(params), inputs, step=step)


def _optimizer(problem: Problem, inputs: Inputs) -> optax.GradientTransformation:
    return optimizers.of(problem, inputs.hyperparameters)


def train_step(problem: Problem, state: State, gradient_at: Callable[..., model.Params]) -> State:
    """Takes one step; `gradient_at` gives the gradient of the mean loss at some parameters, of all pairs or a batch,
    and of a model with dropout takes the step's key, too.
    """
    keys = (_dropout_key(state),) if problem.model.has_dropout else ()
    grads = precision.rounded(gradient_at, problem.precision)(state.params, *keys)
    updates, opt_state = _optimizer(problem, state.inputs).update(grads, state.opt_state, state.params)
    state = state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)
    return state._replace(step=jnp.asarray(state.step) + 1) if problem.counts_steps else state


def _dropout_key(state: State) -> Key[Array, ""]:
    """What dropout draws from at a step: it follows from the run's seed and the number of the step alone."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(state.inputs.seed), DROPOUT), jnp.asarray(state.step))


def train(problem: Problem, state: State, n_steps: Int[Array, ""] | int, backend: Backend = XLA) -> State:
    """Trains a run.

    Args:
      problem: of the run.
      state: of the run.
      n_steps: may be traced, so that one compilation serves any number.
      backend: takes the gradient.
    """
    problem = bound(problem, state.inputs)
    if problem.batch_size:
        return _train_in_batches(problem, state, n_steps, backend)
    gradient_at = backend.gradient(problem, state.inputs)
    return jax.lax.fori_loop(0, n_steps, lambda _, s: train_step(problem, s, gradient_at), state)


def _train_in_batches(problem: Problem, state: State, n_steps: Int[Array, ""] | int, backend: Backend) -> State:
    """Trains a run as `train` does, one batch a step.

    Orders are drawn every so many steps as an epoch has, wherever in it they begin: were that seen from the step, runs
    under one vmap, which may be in different epochs, would draw theirs at every step.
    """
    n = batches.per_epoch(problem)

    def some(i, state: State) -> State:
        begun = jnp.asarray(state.step)
        upcoming = batches.upcoming(problem, state.inputs, begun)

        def one(j, state: State) -> State:
            place = begun % n + j
            batch = batches.prepared(problem, state.inputs, upcoming[place], place % n, backend.pairs_last)
            return train_step(problem, state, lambda p, *key: jax.grad(backends.loss, 1)(problem, p, *batch, *key))

        return jax.lax.fori_loop(0, jnp.minimum(n, n_steps - i * n), one, state)

    return jax.lax.fori_loop(0, -(-n_steps // n), some, state)


def shared(
    problem: Problem,
    inputs: Inputs,
    params: model.Params,
    opt_state: optax.OptState | None = None,
    backend: Backend = XLA,
) -> Shared:
    """The intermediates from which measures of these parameters are computed.

    Args:
      problem: of the run.
      inputs: of the run.
      params: at some step.
      opt_state: at that step, if it is known; without it there is no next update to measure.
      backend: computes logits and activations.
    """
    problem = bound(problem, inputs)
    pairs, labels_B = backends.batch(problem, inputs, backend.pairs_last)

    def updates(grads):
        return _optimizer(problem, inputs).update(grads, opt_state, params)[0]

    return shared_of(
        problem,
        params,
        inputs.train_pairs,
        inputs.answers if inputs.task_answers is None else inputs.task_answers,
        trained_answers_N=None if inputs.task_answers is None else inputs.answers,
        key_rule=problem.key_rule,
        key_threshold=problem.key_threshold,
        loss_fn=lambda params: backends.loss(problem, params, pairs, labels_B),
        update_fn=None if opt_state is None else updates,
        forward=backend.forward,
    )


def evaluate(
    problem: Problem, state: State, slow: bool = False, backend: Backend = XLA
) -> dict[str, Shaped[Array, "..."]]:
    """The in-step measures of the problem's groups, by column name; shapes are declared in `measures`.

    Args:
      problem: of the run.
      state: of the run.
      slow: the slow measures instead of the others.
      backend: computes logits and activations.
    """

    def measured(state: State):
        seen = shared(problem, state.inputs, state.params, state.opt_state, backend)
        return registry.compute(registry.in_step(problem.measures, slow), seen)

    return precision.unemulated(measured, problem.precision)(state)


def counted(state: State, test_loss: Float[Array, ""]) -> State:
    """The state after an evaluation has found this test loss (nats), as `stopped` needs it."""
    is_below = test_loss < state.inputs.stop_loss
    return state._replace(below=jnp.where(is_below, state.below + 1, 0))


def stopped(state: State) -> Bool[Array, ""]:
    """Whether the run has reached its stop rule: test loss below stop_loss for stop_evals evaluations."""
    return state.below >= state.inputs.stop_evals
