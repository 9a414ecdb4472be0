"""Numerical stability: training pairs lost to floating point, and the drift of the weights (Prieto et al. 2025).

The loss that this project trains with stays exact where softmax collapses (see `core.losses`): these columns say how
many training pairs the usual cross-entropy would have lost, not how many this run has lost.

Size letters as in `measures.shared`.
"""

import jax.numpy as jnp

from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import cosine

PRIETO = "Prieto et al. 2025"
MATRICES = ("W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_U")


def _of_train_pairs(**column):
    return measure("stability", unit="fraction", range="[0, 1]", dtype="int32", count_of="train pairs", **column)


def _below_top(s: Shared):
    """Training logits less their largest, and the sum of their exponentials, in the logits' own dtype."""
    below_BxP = s.train_logits_BxP - jnp.max(s.train_logits_BxP, 1, keepdims=True)
    return below_BxP, jnp.sum(jnp.exp(below_BxP), 1)


@_of_train_pairs(
    description="Share of training pairs whose Σ exp(z - max z) is exactly 1 in the dtype of training: all but the"
    " largest logit are lost.",
    source=f"{PRIETO}, §3",
)
def softmax_collapse(s: Shared):
    return jnp.sum(_below_top(s)[1] == 1)


@_of_train_pairs(
    description="Share of training pairs whose loss would be exactly 0 in the dtype of training, were it computed as"
    " log Σ exp(z - max z) - (z_right - max z).",
    source=f"{PRIETO}, §3",
)
def zero_terms(s: Shared):
    below_BxP, total_B = _below_top(s)
    right_BxP = s.train_answers_B[:, None] == jnp.arange(s.cfg.p)
    right_B = jnp.sum(jnp.where(right_BxP, below_BxP, 0), 1)
    return jnp.sum(jnp.log(total_B) - right_B == 0)


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
    return jnp.linalg.norm(jnp.mean(s.params["unembed.W_U"], 1))
