"""Cross-entropy that stays exact however small it gets.

Size letters: B examples, C classes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@jax.custom_vjp
def cross_entropy(logits_BxC: Float[Array, "B C"], labels_B: Int[Array, " B"]) -> Float[Array, " B"]:
    """Cross-entropy per example, in nats, with a relative error near machine precision even at 1e-30.

    The usual logsumexp(all) - right cancels: in float32 nothing under 6e-8 survives, and with it the gradient that
    drives late training. Here loss = softplus(logsumexp(others) - right), whose gradient sigmoid(·) times the softmax
    over the others involves no cancellation either. (Nanda et al. 2023 take float64 instead; Prieto et al. 2025
    describe what the rounding does to training.)

    Args:
      logits_BxC: by class.
      labels_B: in [0, C).

    Returns:
      In [0, ∞).
    """
    return _forward(logits_BxC, labels_B)[0]


def _forward(logits_BxC, labels_B):
    right_BxC = labels_B[:, None] == jnp.arange(logits_BxC.shape[1])
    others_BxC = jnp.where(right_BxC, -jnp.inf, logits_BxC)
    exp_BxC, total_B, margin_B = _margin(others_BxC, jnp.sum(jnp.where(right_BxC, logits_BxC, 0), 1))
    return jax.nn.softplus(margin_B), (exp_BxC, total_B, margin_B, right_BxC)


def _margin(others_BxC, right_B):
    """logsumexp(others) - right, with the exponentials it is made of."""
    top_B = jnp.max(others_BxC, 1)
    exp_BxC = jnp.exp(others_BxC - top_B[:, None])
    total_B = jnp.sum(exp_BxC, 1)
    # The difference first: logits share a level that must not cost the sum its digits.
    return exp_BxC, total_B, jnp.log(total_B) + (top_B - right_B)


def cross_entropy_of(others_BxC: Float[Array, "B C"], right_B: Float[Array, " B"]) -> Float[Array, " B"]:
    """Cross-entropy where right logits and the others lie apart; cheaper when many are taken of the same labels.

    Args:
      others_BxC: the logits, -∞ at the right class.
      right_B: the right logits.

    Returns:
      In [0, ∞), in nats.
    """
    return jax.nn.softplus(_margin(others_BxC, right_B)[2])


def _backward(residuals, ct_B):
    exp_BxC, total_B, margin_B, right_BxC = residuals
    weight_B = ct_B * jax.nn.sigmoid(margin_B)
    return jnp.where(right_BxC, -weight_B[:, None], exp_BxC * (weight_B / total_B)[:, None]), None


cross_entropy.defvjp(_forward, _backward)


def correct(logits_BxC: Float[Array, "B C"], labels_B: Int[Array, " B"]) -> Bool[Array, " B"]:
    """Whether the largest logit is the right one."""
    return jnp.argmax(logits_BxC, 1) == labels_B
