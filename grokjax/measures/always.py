"""The losses and accuracies that every sweep logs, whatever else it is asked for.

Size letters as in `measures.shared`.
"""

import jax.numpy as jnp

from grokjax.measures.registry import ALWAYS, measure
from grokjax.measures.shared import Shared

SOURCE = "Nanda et al. 2023, §3"


def _loss(**column):
    return measure(ALWAYS, unit="nats", range="[0, ∞)", **column)


def _accuracy(count_of, **column):
    return measure(ALWAYS, unit="fraction", range="[0, 1]", dtype="int32", count_of=count_of, **column)


@_loss(description="Mean cross-entropy over the training pairs.", source=SOURCE)
def train_loss(s: Shared):
    return jnp.sum(jnp.where(s.train_mask_N, s.trained_loss_N, 0)) / s.train_pairs_B.shape[0]


@_loss(description="Mean cross-entropy over the test pairs, which are all pairs not trained on.", source=SOURCE)
def test_loss(s: Shared):
    return jnp.sum(jnp.where(s.untested_N, 0, s.loss_N)) / s.n_test


@_accuracy("train pairs", description="Share of training pairs whose largest logit is the answer.", source=SOURCE)
def train_acc(s: Shared):
    return jnp.sum(s.trained_correct_N & s.train_mask_N)


@_accuracy("test pairs", description="Share of test pairs whose largest logit is the answer.", source=SOURCE)
def test_acc(s: Shared):
    return jnp.sum(s.correct_N & s.test_mask_N)
