"""The progress measures of Nanda et al. 2023 and the quantities they are read beside.

Size letters as in `measures.shared`, X any.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from grokjax.columns import SIGN
from grokjax.core import losses
from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import ratio

NANDA = "Nanda et al. 2023"
WEIGHTS = ("W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_in", "b_in", "W_out", "b_out", "W_U")


def gini(v_X: Float[Array, " X"]) -> Float[Array, ""]:
    """Gini coefficient of non-negative numbers (Hurley & Rickard 2009): 0 if all are equal, 1 - 1/n if one has all.

    Σ (2i - n - 1) v_(i) / (n Σ v), v_(i) sorted ascending, i from 1; NaN if all are 0.
    """
    n = v_X.shape[0]
    return ratio(jnp.sum((2 * jnp.arange(1, n + 1) - n - 1) * jnp.sort(v_X)), n * jnp.sum(v_X))


def _loss(**column):
    return measure("paper", unit="nats", range="[0, ∞)", **column)


@_loss(
    description="Loss on all pairs with the logits projected on the constant and the key frequencies' sum directions.",
    source=f"{NANDA}, §5.1",
    keyed=True,
    needs_sum=True,
    **SIGN,
)
def restricted_loss(s: Shared):
    return jnp.mean(s.restricted_loss_P)


@_loss(
    description="The restricted loss on the training pairs.",
    source=f"{NANDA}, §5.1",
    keyed=True,
    needs_sum=True,
    **SIGN,
)
def restricted_loss_train(s: Shared):
    return jnp.sum(s.train_per_sum_P * s.restricted_loss_P) / s.n_train_summed


@_loss(
    description="The restricted loss on the test pairs.",
    source=f"{NANDA}, §5.1",
    keyed=True,
    needs_sum=True,
    **SIGN,
)
def restricted_loss_test(s: Shared):
    n_test = s.pairs_per_sum**2 - s.n_train_summed
    return jnp.sum((s.pairs_per_sum - s.train_per_sum_P) * s.restricted_loss_P) / n_test


@measure(
    "paper",
    unit="fraction",
    range="[0, 1]",
    dtype="int32",
    count_of="sums",
    description="Accuracy on all pairs of the restricted logits.",
    source=f"{NANDA}, App. C.1.5",
    keyed=True,
    needs_sum=True,
    **SIGN,
)
def restricted_acc(s: Shared):
    return jnp.sum(jnp.argmax(s.restricted_logits_PxP, 1) == s.answers_per_sum_P)


HELD_OUT = "this project; Nanda et al. 2023, §5.1, has it over all pairs"
NO_HELD_OUT_PAIR = "some residue is the sum of no held-out pair"


@_loss(
    description="Loss on the held-out pairs (test pairs; of a + b those whose mirror image (b, a) is one too) with the"
    " logits projected on the constant and the key frequencies' sum directions, where the projection is of the logits'"
    " averages over the held-out pairs of each sum: no training pair enters.",
    source=HELD_OUT,
    keyed=True,
    needs_sum=True,
    undefined=NO_HELD_OUT_PAIR,
)
def heldout_restricted_loss(s: Shared):
    loss_P = losses.cross_entropy(s.heldout_logits_PxP, s.answers_per_sum_P)
    n_P = s.heldout_mean[1]
    return jnp.where(s.has_heldout_pairs, ratio(jnp.sum(n_P * loss_P), jnp.sum(n_P)), jnp.nan)


@measure(
    "paper",
    unit="fraction",
    range="[0, 1]",
    description="Accuracy on the held-out pairs of the logits that heldout_restricted_loss reads.",
    source=HELD_OUT,
    keyed=True,
    needs_sum=True,
    undefined=NO_HELD_OUT_PAIR,
)
def heldout_restricted_acc(s: Shared):
    n_P = s.heldout_mean[1]
    right_P = losses.correct(s.heldout_logits_PxP, s.answers_per_sum_P)
    share = ratio(jnp.sum(jnp.where(right_P, n_P, 0)), jnp.sum(n_P)).astype(s.logits_NxP.dtype)
    return jnp.where(s.has_heldout_pairs, share, jnp.nan)


@_loss(
    description="Training loss after removing the sum directions of all key frequencies from the logits.",
    source=f"{NANDA}, §5.1",
    keyed=True,
    needs_sum=True,
    **SIGN,
)
def excluded_loss(s: Shared):
    return s.excluded_loss(s.key_part_PxP)


@_loss(
    description="Training loss after removing the sum directions of one frequency from the logits, for each.",
    source=f"{NANDA}, §5.1",
    shape=("freq",),
    needs_sum=True,
    **SIGN,
)
def excluded_loss_per_freq(s: Shared):
    return s.excluded_loss_per_freq_K


@_loss(
    description="The largest excluded loss of a single frequency; needs no choice of keys.",
    source=f"{NANDA}, §5.1",
    needs_sum=True,
    **SIGN,
)
def excluded_loss_max(s: Shared):
    return jnp.max(s.excluded_loss_per_freq_K)


@measure(
    "paper",
    unit="1",
    range="[0, ∞)",
    shape=("freq",),
    description="Norm of each frequency's components (of P/2 the sign alone) of W_E along the tokens.",
    source=f"{NANDA}, §4.1",
    **SIGN,
)
def freq_norm_W_E(s: Shared):
    return s.norms_W_E[1]


@measure(
    "paper",
    unit="1",
    range="[0, ∞)",
    shape=("freq",),
    description="Norm of each frequency's components (of P/2 the sign alone) of W_L = W_U W_out along the logits.",
    source=f"{NANDA}, §4.1",
    **SIGN,
)
def freq_norm_W_L(s: Shared):
    return s.norms_W_L[1]


_CENTRED = "the single components, W_U's mean over the classes, which moves no probability, taken off"


def _gini(which, over, norms):
    column = measure(
        "paper",
        name=f"gini_{'freq_' if over == 'frequencies' else ''}{which}",
        unit="1",
        range="[0, 1)",
        description=f"Gini coefficient of the Fourier norms of {which[:3]} over {over}.",
        source=f"{NANDA}, §5.1; Hurley & Rickard 2009",
        undefined=f"{which[:3]} is zero" + ", or the same for all classes" * (over == _CENTRED),
        **(SIGN if over == "frequencies" else {"needs_waves": True}),
    )
    column(lambda s: gini(norms(s)))


_gini("W_E", "the single components, constant included", lambda s: s.norms_W_E[0])
_gini("W_L", "the single components, constant included", lambda s: s.norms_W_L[0])
_gini("W_L_centred", _CENTRED, lambda s: s.norms_W_L[0].at[0].set(0))
_gini("W_E", "frequencies", lambda s: s.norms_W_E[1])
_gini("W_L", "frequencies", lambda s: s.norms_W_L[1])


def _sum_sq(s: Shared, name: str = ""):
    return sum(jnp.sum(value**2) for key, value in s.params.items() if key.endswith(f".{name}" if name else ""))


def _register_sum_sq(column, what, parameter=""):
    register = measure(
        "paper",
        name=column,
        unit="1",
        range="[0, ∞)",
        description=f"Sum of the squares of {what}.",
        source=f"{NANDA}, §5.1",
        parameter=parameter,
    )
    register(lambda s: _sum_sq(s, parameter))


_register_sum_sq("sum_sq_weights", "all parameters, biases included")
for _name in WEIGHTS:
    _register_sum_sq(f"sum_sq_{_name}", f"{_name}, over all layers", _name)
