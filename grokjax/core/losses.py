"""Losses: cross-entropy that stays exact however small it gets, and what else one can train on, by name.

Size letters: B examples, C classes.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grokjax.errors import refuse_clash, unknown


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


# --- the losses that one can train on ---------------------------------------------------------------------------------

Loss = Callable[[Float[Array, "B C"], Int[Array, " B"]], Float[Array, " B"]]  # of logits and labels, per example
LOSSES: dict[str, Loss] = {}
EXACT = "cross_entropy"  # the name of the default


def register(function=None, *, name: str | None = None):
    """Adds a loss under its function's name, or under `name`; usable as a plain decorator or with arguments.

    Args:
      function: of logits [B, C] and labels [B] (int32, in [0, C)), to the loss of each example, [B]; JAX code that
        `jax.grad` can differentiate. Training minimises its mean over the training pairs.
      name: the name for `config.loss`; the function's own by default.

    Returns:
      The function, unchanged.

    Raises:
      InputError: the name is taken by another function.

    Example:
      >>> import jax.numpy as jnp
      >>> @register
      ... def hinge(logits_BxC, labels_B):
      ...     right_B = jnp.take_along_axis(logits_BxC, labels_B[:, None], 1)[:, 0]
      ...     return jnp.sum(jnp.maximum(0, 1 + logits_BxC - right_B[:, None]), 1) - 1
      >>> hinge(jnp.array([[0.0, 2.0, 0.5]]), jnp.array([0])).tolist()
      [4.5]
    """
    if function is None:
        return functools.partial(register, name=name)
    name = name or function.__name__
    if name in LOSSES:
        refuse_clash(f"loss '{name}'", LOSSES[name], function)
    LOSSES[name] = function
    return function


def get(name: str) -> Loss:
    """The loss of that name.

    Raises:
      InputError: there is none; names the known ones.
    """
    if name not in LOSSES:
        raise unknown("config.loss", name, LOSSES)
    return LOSSES[name]


register(cross_entropy, name=EXACT)


def _to_float32(x):
    return x


def _to_bfloat16(x):
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def _to_float16(x):
    # reduce_precision flushes what is below the smallest normal number, where float16 has multiples of 2⁻²⁴.
    small = jnp.abs(x) < 2**-14
    return jnp.where(small, jnp.round(x * 2**24) / 2**24, jax.lax.reduce_precision(x, 5, 10))


def _naive(rounded: Callable[[jax.Array], jax.Array]) -> Loss:
    """Cross-entropy as log-softmax gives it, each result rounded to a format and sums taken in float32."""

    def forward(logits_BxC, labels_B):
        z_BxC = rounded(logits_BxC.astype(jnp.float32))
        z_BxC = rounded(z_BxC - jnp.max(z_BxC, 1, keepdims=True))
        total_B = rounded(jnp.sum(rounded(jnp.exp(z_BxC)), 1))
        log_BxC = rounded(z_BxC - rounded(jnp.log(total_B))[:, None])
        right_BxC = labels_B[:, None] == jnp.arange(logits_BxC.shape[1])
        loss_B = jnp.sum(jnp.where(right_BxC, -log_BxC, 0), 1)
        gradient_BxC = rounded(rounded(jnp.exp(log_BxC)) - right_BxC)
        return loss_B.astype(logits_BxC.dtype), gradient_BxC.astype(logits_BxC.dtype)

    loss = jax.custom_vjp(lambda logits_BxC, labels_B: forward(logits_BxC, labels_B)[0])
    loss.defvjp(forward, lambda gradient_BxC, ct_B: (ct_B[:, None] * gradient_BxC, None))
    return loss


# By the usual formula, for the rounding that Prieto et al. 2025 study: where the other classes' exponentials are lost
# in the sum, the right class's gradient is exactly 0 (softmax collapse).
for _format, _rounded in {"float32": _to_float32, "bfloat16": _to_bfloat16, "float16": _to_float16}.items():
    register(_naive(_rounded), name=f"{EXACT}_{_format}")


@register
def stablemax(logits_BxC: Float[Array, "B C"], labels_B: Int[Array, " B"]) -> Float[Array, " B"]:
    """Cross-entropy of StableMax (Prieto et al. 2025, §4): s(x) = x + 1 for x ≥ 0, else 1 / (1 - x), in place of exp.

    As log(1 + Σ s(others) / s(right)), which loses no digits however small it gets.
    """
    s_BxC = jnp.where(logits_BxC < 0, 1 / (1 - jnp.minimum(logits_BxC, 0)), jnp.maximum(logits_BxC, 0) + 1)
    right_BxC = labels_B[:, None] == jnp.arange(logits_BxC.shape[1])
    others_B = jnp.sum(jnp.where(right_BxC, 0, s_BxC), 1)
    return jnp.log1p(others_B / jnp.sum(jnp.where(right_BxC, s_BxC, 0), 1))


@register
def mse(logits_BxC: Float[Array, "B C"], labels_B: Int[Array, " B"]) -> Float[Array, " B"]:
    """Mean over the classes of the squared difference from the one-hot answer, as PyTorch's MSELoss has it."""
    return jnp.mean((logits_BxC - (labels_B[:, None] == jnp.arange(logits_BxC.shape[1]))) ** 2, 1)
