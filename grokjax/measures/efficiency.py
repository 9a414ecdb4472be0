"""Efficiency: the logits per norm of the weights, and by circuit (Varma et al. 2023; arXiv 2606.18465).

Size letters as in `measures.shared`.
"""

import jax.numpy as jnp

from grokjax.columns import SIGN
from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import norm, ratio

VARMA = "Varma et al. 2023"
SCALE = "arXiv 2606.18465"
NO_WEIGHTS = "all parameters are zero"


@measure(
    "efficiency",
    unit="1",
    range="[0, ∞)",
    description="Norm of all parameters together, biases included.",
    source=f"{VARMA}, §3",
)
def weight_norm(s: Shared):
    return norm(s.params.values())


def _scale(s: Shared):
    norms_N = jnp.sqrt(jnp.sum(s.logits_NxP**2, 1))
    return jnp.mean(norms_N) if not s.nonzero_b else jnp.mean(norms_N, where=~s.left_out_N)


@measure(
    "efficiency",
    unit="nats",
    range="[0, ∞)",
    description="Norm of the logits over the classes, mean over all pairs.",
    source=SCALE,
)
def logit_scale(s: Shared):
    return _scale(s)


@measure(
    "efficiency",
    unit="nats",
    range="[0, ∞)",
    description="logit_scale divided by weight_norm.",
    source=f"{VARMA}, §3; {SCALE}",
    undefined=NO_WEIGHTS,
)
def logit_scale_per_norm(s: Shared):
    return ratio(_scale(s), weight_norm(s))


def _register_right_logit(which, pick):
    column = measure(
        "efficiency",
        name=f"right_logit_per_norm_{which}",
        unit="nats",
        description=f"Right logit less the mean over the classes, mean over the {which} pairs, divided by weight_norm.",
        source=f"{VARMA}, §3",
        undefined=NO_WEIGHTS,
    )

    def of(s: Shared):
        mask_N = pick(s)
        mean = jnp.sum(jnp.where(mask_N, s.right_logit_N - s.mean_logit_N, 0)) / jnp.sum(mask_N)
        return ratio(mean, weight_norm(s))

    column(of)


_register_right_logit("train", lambda s: s.train_mask_N)
_register_right_logit("test", lambda s: s.test_mask_N)


@measure(
    "efficiency",
    unit="fraction",
    range="[0, 1]",
    description="Share of the squared logits, each pair's less their mean over the classes, that"
    " Σ α_k cos(w_k(a + b - c)) over all k explains; the rest is what was"
    " memorised, and with it biases, functions of a or b alone, and waves of the sum that are no cosine of a + b - c.",
    source=VARMA,
    needs_sum=True,
    undefined="no pair tells its classes apart",
    **SIGN,
)
def trig_share(s: Shared):
    return ratio(jnp.sum(s.trig_sq_K), s.sum_class_sq)
