"""The waves that the logits are made of (group "paper").

Size letters as in `measures.shared`.
"""

import jax.numpy as jnp

from grokjax.columns import SIGN
from grokjax.core import losses
from grokjax.measures import marginals
from grokjax.measures.paper import NANDA
from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import ratio

FLAT = "all logits are equal"


@measure(
    "paper",
    unit="nats",
    shape=("freq",),
    description="Coefficient α_k of the centred logits on cos(w_k(a + b - c)), for each k (a - b if that is the task).",
    source=f"{NANDA}, §4",
    needs_sum=True,
    **SIGN,
)
def trig_coef_all(s: Shared):
    return s.trig_coef_K


@measure(
    "paper",
    unit="fraction",
    range="[0, 1]",
    description="Share of the centred logits' variance that Σ α_k cos(w_k(a + b - c)) over the keys explains.",
    source=f"{NANDA}, §4",
    keyed=True,
    needs_sum=True,
    undefined=FLAT,
    **SIGN,
)
def fve_logits_trig(s: Shared):
    return ratio(jnp.sum(jnp.where(s.key_freqs_K, s.trig_sq_K, 0)), s.sum_centred_sq)


@measure(
    "paper",
    unit="fraction",
    range="[0, 1]",
    description="fve_logits_trig of the logits with each pair's mean over the classes, which moves no probability,"
    " taken off.",
    source=f"this project; {NANDA}, §4, without taking it off",
    keyed=True,
    needs_sum=True,
    undefined="no pair tells its classes apart",
)
def fve_logits_trig_centred(s: Shared):
    return ratio(jnp.sum(jnp.where(s.key_freqs_K, s.trig_sq_K, 0)), s.sum_class_sq)


@measure(
    "paper",
    unit="nats",
    range="[0, ∞)",
    shape=("freq",),
    description="Norm of the logits' components on {cos, sin}(w_k a) × {cos, sin}(w_k b), for each k; for k = P/2 on"
    " (-1)^(a + b).",
    source=f"{NANDA}, §4.1 (the 2×2 blocks of the logits' 2D spectrum)",
    **SIGN,
    cyclic_only=True,
    whole_grid=True,
)
def logit_block_norm(s: Shared):
    of = s.logit_spectra.apart
    both = (of.sum, of.difference)
    return jnp.sqrt(jnp.sum(marginals.energy(both), 1))


@measure(
    "paper",
    unit="nats",
    range="[0, ∞)",
    description="Loss on all pairs with the logits projected on the constant and, for each key frequency, the other"
    " products of {1, cos, sin}(w_k a) and {1, cos, sin}(w_k b); keeps more than the restricted loss.",
    source=f"{NANDA}, §4.4",
    keyed=True,
    **SIGN,
    cyclic_only=True,
    whole_grid=True,
)
def products_loss(s: Shared):
    kept_NxP = marginals.keep(s.logit_spectra, s.key_freqs_K)
    return jnp.mean(losses.cross_entropy(kept_NxP, s.answers_N))
