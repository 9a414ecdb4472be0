"""Minibatches: training pairs in an order that every epoch draws anew from the run's own key.

A step's batch follows from the run's seed and the number of the step alone, so that bits depend neither on how steps
are dispatched nor on where a run goes on. The last batch of an epoch is what is left, as in the code released with
Power et al. 2022: smaller where the batch size does not divide the number of training pairs.

Size letters: B pairs of a batch, P residues.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from grokjax.core import model
from grokjax.core.problem import Inputs, Problem

FOLD = 2  # of the seed's key: 0 draws the weights, and 1 of the split's seed the split


class Batch(NamedTuple):
    """Some training pairs, ready for the forward pass: what `backends.loss` takes."""

    pairs: model.Pairs
    labels_B: Int[Array, " B"]
    weights_B: Float[Array, " B"]  # 1 for a pair and 0 for what fills the last batch of an epoch


def per_epoch(problem: Problem) -> int:
    """The number of steps that see each training pair once."""
    return -(-problem.n_train // problem.batch_size)


def epoch(problem: Problem, inputs: Inputs, number: Int[Array, ""] | int) -> Int[Array, "batches B"]:
    """The training pairs of an epoch's batches; the last one is filled with pairs of the first ones."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(inputs.seed), FOLD), number)
    order = jax.random.permutation(key, inputs.train_pairs)
    return jnp.resize(order, (per_epoch(problem), problem.batch_size))


def upcoming(problem: Problem, inputs: Inputs, step: Int[Array, ""]) -> Int[Array, "batches B"]:
    """The batches of the epoch that a step is of, and of the next one."""
    first = step // per_epoch(problem)
    both = jax.vmap(lambda number: epoch(problem, inputs, number))(first + jnp.arange(2))
    return both.reshape(-1, problem.batch_size)


def prepared(
    problem: Problem, inputs: Inputs, pairs_B: Int[Array, " B"], place: Int[Array, ""], pairs_last: bool = False
) -> Batch:
    """A batch, ready for the forward pass.

    Args:
      problem: of the run.
      inputs: of the run.
      pairs_B: its pairs.
      place: of the batch in its epoch, from 0.
      pairs_last: as in `Backend` of core.backends.
    """
    size = problem.batch_size
    weights_B = (place * size + jnp.arange(size) < problem.n_train).astype(float)
    labels_B = jnp.asarray(inputs.answers)[pairs_B]
    return Batch(model.lookup(pairs_B, problem.model.p, pairs_last), labels_B, weights_B)
