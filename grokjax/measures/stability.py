"""Numerical stability: training pairs lost to floating point, and the drift of the weights (Prieto et al. 2025).

The loss that this project trains with stays exact where softmax collapses (see `core.losses`): these columns say how
many training pairs the usual cross-entropy would have lost, not how many this run has lost.

Size letters as in `measures.shared`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from grokjax.core import model
from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import cosine

PRIETO = "Prieto et al. 2025"
MATRICES = ("W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_U")


def _of_train_pairs(**column):
    return measure("stability", unit="fraction", range="[0, 1]", dtype="int32", count_of="train pairs", **column)


# 1 + x is 1 in float32 for x up to 2^-24, half of the distance to the next number (ties go to even).
LOST = np.float32(-24 * np.log(2))


def _collapsed(logits_BxP: Float[Array, "B P"]) -> tuple[Bool[Array, " B"], Int[Array, " B"]]:
    """Whether Σ exp(z - max z), added up in float32 from the largest term down, is 1; and the largest one's class.

    Added in this order the sum stays 1 where the second term is lost, since all others are smaller: no exponential
    needs to be computed, whose last bit would differ between libraries, and no numbering of the classes enters.
    """
    logits_BxP = jnp.asarray(logits_BxP, jnp.float32)
    top_B = jnp.argmax(logits_BxP, 1)
    is_top_BxP = top_B[:, None] == jnp.arange(logits_BxP.shape[1])
    second_B = jnp.max(jnp.where(is_top_BxP, -jnp.inf, logits_BxP), 1)
    return second_B - jnp.max(logits_BxP, 1) <= LOST, top_B


@_of_train_pairs(
    description="Share of training pairs whose Σ exp(z - max z), added up in float32 from the largest term down, is"
    " exactly 1: all but the largest logit are lost.",
    source=f"{PRIETO}, §3 (the order of summation is this project's)",
    version=2,
)
def softmax_collapse(s: Shared):
    return jnp.sum(_collapsed(s.float32_train_logits_BxP)[0])


@_of_train_pairs(
    description="Share of training pairs whose loss would be exactly 0 in float32, were it computed as"
    " log Σ exp(z - max z) - (z_right - max z), the sum added up from the largest term down.",
    source=f"{PRIETO}, §3 (the order of summation is this project's)",
    version=2,
)
def zero_terms(s: Shared):
    # The logarithm is 0 of a sum of 1 alone, and no less; so the loss is 0 where the answer is that largest term.
    collapsed_B, top_B = _collapsed(s.float32_train_logits_BxP)
    return jnp.sum(collapsed_B & (top_B == s.train_answers_B))


def named(params, name):
    """Picks the parameters of that name in all layers."""
    return [value for key, value in params.items() if key.rsplit(".", 1)[1] == name]


def _register_cosines(name):
    of_update = measure(
        "stability",
        name=f"update_weight_cosine_{name}",
        unit="1",
        range="[-1, 1]",
        description=f"Cosine between the next update of {name} and {name}, over all layers; ±1 if it is only scaled.",
        source=f"{PRIETO}, §4 (naive loss minimization)",
        needs_update=True,
        parameter=name,
        undefined=f"the update or {name} is zero (the first step of a warm-up)",
    )
    of_update(lambda s: cosine(named(s.updates, name), named(s.params, name)))
    of_gradient = measure(
        "stability",
        name=f"gradient_weight_cosine_{name}",
        unit="1",
        range="[-1, 1]",
        description=f"Cosine between the negative gradient of the training loss by {name} and {name}, over all layers.",
        source=f"{PRIETO}, §4 (naive loss minimization)",
        undefined=f"the gradient or {name} is zero",
        parameter=name,
    )
    of_gradient(lambda s: -cosine(named(s.grads, name), named(s.params, name)))


for _name in MATRICES:
    _register_cosines(_name)


@measure(
    "stability",
    unit="1",
    range="[0, ∞)",
    description="Norm of the mean over the classes of W_U, which moves no probability but grows when rounding biases"
    " the gradient.",
    source="arXiv 2605.06152",
)
def class_mean_norm_W_U(s: Shared):
    return jnp.linalg.norm(jnp.mean(model.unembedding(s.cfg, s.params), 1))
