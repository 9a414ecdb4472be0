"""What training minimises, where that is another loss than the exact cross-entropy that every other column is made of.

Size letters as in `measures.shared`.
"""

import jax.numpy as jnp

from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared

GROUP = "objective"  # logged of itself by a sweep that trains on another loss


def _mean(**column):
    return measure(GROUP, unit="1", range="[0, ∞)", source="this project", **column)


@_mean(description="Mean of config.loss, which is trained on, over the training pairs; penalties left out.")
def train_objective(s: Shared):
    return jnp.sum(jnp.where(s.train_mask_N, s.objective_N, 0)) / s.train_pairs_B.shape[0]


@_mean(description="Mean of config.loss over the test pairs.")
def test_objective(s: Shared):
    return jnp.sum(jnp.where(s.untested_N, 0, s.objective_N)) / s.n_test
