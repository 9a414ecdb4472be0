"""Runs of the token-by-token JAX model under vmap, with grokjax's loss and optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from grokjax.core import losses as losses_lib
from grokjax.core import model, optimizers
from grokjax.core.precision import products
from grokjax.core.problem import Inputs, Problem, State


class TokenByToken:
    """Runs in training.

    Args:
      problem: the static part that all runs share.
      state: the runs, stacked; it is used up.
    """

    def __init__(self, problem: Problem, state: State):
        self.state = state
        self._train = jax.jit(jax.vmap(functools.partial(_steps, problem), (0, None)), donate_argnums=0)
        self._losses = jax.jit(jax.vmap(functools.partial(_loss, problem)))

    def train(self, n_steps: int) -> None:
        """Steps of all runs."""
        self.state = jax.block_until_ready(self._train(self.state, n_steps))

    def losses(self) -> np.ndarray:
        """Each run's training loss in nats, [runs]."""
        return np.asarray(self._losses(self.state.params, self.state.inputs))


def _loss(problem: Problem, params: model.Params, inputs: Inputs) -> jax.Array:
    with products(problem.precision):
        logits_BxP, _ = model.token_by_token(problem.model, params, model.Pairs(inputs.train_pairs))
    return jnp.mean(losses_lib.cross_entropy(logits_BxP, inputs.answers[inputs.train_pairs]))


def _steps(problem: Problem, state: State, n_steps) -> State:
    def step(_, state):
        with products(problem.precision):
            grads = jax.grad(_loss, 1)(problem, state.params, state.inputs)
        optimizer = optimizers.build(problem.optimizer, state.inputs.hyperparameters)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)

    return jax.lax.fori_loop(0, n_steps, step, state)
