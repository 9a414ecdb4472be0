"""What becomes of training answers that label noise has drawn anew: learnt by heart, or answered right all the same.

Size letters as in `measures.shared`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import ratio

GROUP = "label_noise"  # logged of itself by a sweep with label noise
SOURCE = "Doshi et al. 2023, §3"


def _share(of, **column):
    undefined = f"no training pair has {of} answer"
    return measure(GROUP, unit="fraction", range="[0, 1]", source=SOURCE, undefined=undefined, **column)


def _of(pairs_N: Bool[Array, " N"], hit_N: Bool[Array, " N"]):
    return ratio(jnp.sum(hit_N & pairs_N) * 1.0, jnp.sum(pairs_N) * 1.0)


def _corrupted(s: Shared) -> Bool[Array, " N"]:
    return s.train_mask_N & (s.trained_answers_N != s.answers_N)


@_share("a wrong", description="Share of the training pairs with a wrong answer that are given that answer: memorised.")
def corrupted_acc(s: Shared):
    return _of(_corrupted(s), s.trained_correct_N)


@_share("a wrong", description="Share of the training pairs with a wrong answer that are given the task's: corrected.")
def corrupted_true_acc(s: Shared):
    return _of(_corrupted(s), s.correct_N)


@_share("the task's", description="Share of the training pairs with the task's answer that are given it.")
def uncorrupted_acc(s: Shared):
    return _of(s.train_mask_N & ~_corrupted(s), s.correct_N)
