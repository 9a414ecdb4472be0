"""Numbers that the paper finds in weights, neurons, logits and attention of a trained model (§4, App. C.1)."""

import jax.numpy as jnp

from grokjax.core import fourier
from grokjax.interp.circuit import text
from grokjax.interp.circuit.anatomy import LAST, Anatomy
from grokjax.interp.circuit.blocks import BlockAnatomy
from grokjax.interp.circuit.registry import known, number
from grokjax.measures.paper import NANDA
from grokjax.measures.shared import NEURON_FVE
from grokjax.measures.vectors import ratio

RANK_SHARE = 0.25  # a singular value counts for the rank above this share of the largest, as a key's norm does
COMPONENT_SHARE = 0.1  # a component of the logits is significant with a norm above this share of the largest
NO_NEURON = f"no neuron has over {NEURON_FVE:.0%} of its variance from one frequency"
FLAT_HEAD = "a head's attention is the same for all pairs"


def _share(group: str, **column):
    """A number that is a share of something, shown in percent."""
    return number(group, unit="fraction", range="[0, 1]", show=text.percent, **column)


PER_HEAD = text.per_head(text.percent_text)


def _by_head(show=PER_HEAD, **column):
    """A number of every head."""
    return number("attention", shape=("head",), show=show, one_layer=True, **column)


# --- keys -----------------------------------------------------------------------------------------------------------

MAINLINE = "14, 35, 41, 42, 52"
known(
    "key_freqs",
    "keys",
    claim="key frequencies in use",
    in_group="key blocks in use",
    paper=MAINLINE,
    show=text.freqs,
    keyed=False,
)
known("key_freqs_W_L", "keys", claim="… by W_L's norms", paper=MAINLINE, show=text.freqs)
known("key_freqs_neurons", "keys", claim="… by the neurons", paper=MAINLINE, show=text.freqs)
known("key_freqs_logits", "keys", claim="… by the logits", show=text.freqs)
known("key_freqs_W_E", "keys", claim="… by W_E's norms", paper="these and one more", show=text.freqs)
known(
    "n_key_freqs_W_E",
    "keys",
    claim="frequencies with a non-negligible norm in W_E",
    in_group="blocks with a non-negligible norm in W_E",
    paper="6",
)
known("key_rule_agreement", "keys", claim="agreement of the rules (smallest Jaccard index)")

# --- the map from neurons to logits ---------------------------------------------------------------------------------


@number(
    "W_L",
    claim="rank of W_L",
    paper="about 10",
    unit="1",
    range="[0, P]",
    dtype="int32",
    description=f"Number of singular values of W_L above {RANK_SHARE:g} of the largest.",
    source=f"{NANDA}, §4.2 (the threshold is this project's)",
)
def W_L_rank(s: Anatomy):
    sizes_X = jnp.linalg.svd(s.W_L_PxM, compute_uv=False)
    return jnp.sum(sizes_X > RANK_SHARE * sizes_X[0])


@number(
    "W_L",
    claim="directions cos(w_k c) u_k, sin(w_k c) v_k",
    in_group="functions of the key blocks",
    paper="10",
    unit="1",
    range="[0, P - 1]",
    dtype="int32",
    keyed=True,
    description="Twice the number of keys (the sign of an even P counts once): the rank of W_L's approximation"
    " Σ cos(w_k c) u_k + sin(w_k c) v_k.",
    source=f"{NANDA}, §4.2",
)
def W_L_directions(s: Anatomy):
    return jnp.sum(jnp.where(s.key_freqs_K, s.sizes_K, 0))


@_share(
    "W_L",
    claim="residual of W_L ≈ Σ cos(w_k c) u_k + sin(w_k c) v_k",
    in_group="residual of W_L ≈ its part in the key blocks",
    paper="under 0.55 %",
    keyed=True,
    description="Frobenius norm of W_L without the key frequencies' components along the logits, over that of W_L.",
    source=f"{NANDA}, §4.2",
    undefined="W_L is zero",
)
def W_L_residual(s: Anatomy):
    return _residual(s, jnp.sum(s.W_L_spectrum_PxM**2, 1))


def _residual(s: Anatomy, squares_P):
    return jnp.sqrt(ratio(jnp.sum(jnp.where(s.key_components_P > 0, 0, squares_P)), jnp.sum(squares_P)))


@_share(
    "W_L",
    claim="… W_U's mean over the classes taken off",
    paper="under 0.55 %",
    keyed=True,
    description="W_L_residual of the model with W_U's mean over the classes, which moves no probability, taken off.",
    source=f"{NANDA}, §4.2, without taking it off",
    undefined="W_L is the same for all classes",
)
def W_L_residual_centred(s: Anatomy):
    return _residual(s, jnp.sum(s.W_L_spectrum_PxM**2, 1).at[0].set(0))  # of which W_U's mean is the constant


@_share(
    "W_L",
    claim="residual of the best approximation of that rank",
    keyed=True,
    description="Frobenius norm of W_L without its largest singular values, as many as W_L_directions, over that of"
    " W_L: the least residual that any approximation of that rank leaves.",
    source="this project",
    undefined="W_L is zero",
)
def W_L_residual_best(s: Anatomy):
    sizes_X = jnp.linalg.svd(s.W_L_PxM, compute_uv=False)
    rest_X = jnp.arange(sizes_X.shape[0]) >= W_L_directions(s)
    return jnp.sqrt(ratio(jnp.sum(jnp.where(rest_X, sizes_X**2, 0)), jnp.sum(sizes_X**2)))


def _readout(letter: str, wave: str, start: int) -> None:
    def fve(s: Anatomy):
        fve = s.readout_fve_P[start::2]
        return jnp.pad(fve, (0, fourier.n_freqs(s.cfg.p) - len(fve)))  # the sign of an even P has no sine

    fve.__name__ = f"readout_fve_{wave}"
    number(
        "W_L",
        claim=f"{letter}_k·MLP as a multiple of {wave} w_k(a+b), FVE",
        paper="93.2–98.2 %",
        unit="fraction",
        range="[0, 1]",
        shape=("freq",),
        needs_sum=True,
        cyclic_only=True,
        description=f"Share of the centred variance over all pairs of {letter}_k·MLP, the activations along W_L's "
        f"{'cosine' if wave == 'cos' else 'sine'} component of each k, that a multiple of {wave}(w_k(a + b)) explains"
        " (a - b if that is the task); 0 where it has none.",
        source=f"{NANDA}, §4.2, Table 1",
        show=text.at_keys(text.percent_text),
    )(fve)


_readout("u", "cos", 1)
_readout("v", "sin", 2)


@number(
    "W_L",
    in_group="f(c)·MLP, f of a block in W_L, as a multiple of f(a∘b), FVE",
    unit="fraction",
    range="[0, 1]",
    shape=("freq",),
    of_blocks=True,
    description="Share of the centred variance over all pairs of f(c)·MLP, the activations along W_L's part in each"
    " function f of a block, summed over these, that α f(a∘b) explains, with one α for the block; 0 where it has none.",
    source=f"this project; {NANDA}, §4.2, Table 1, has it for frequencies",
    show=text.at_keys(text.percent_text),
)
def readout_fve(s: BlockAnatomy):
    return s.readout_share_K


known(
    "freq_norm_W_L",
    "W_L",
    in_group="norm of W_L's part in the block",
    of_blocks=True,
    show=text.at_keys("{:.3g}".format),
)

# --- logits ---------------------------------------------------------------------------------------------------------

known(
    "fve_logits_trig",
    "logits",
    claim="logits as Σ α_k cos(w_k(a+b−c)), FVE",
    in_group="logits as Σ α_ρ χ_ρ(a∘b∘c⁻¹), FVE",
    paper="95 %",
    show=text.percent,
)
known(
    "fve_logits_trig_centred",
    "logits",
    claim="… each pair's mean over the classes taken off",
    paper="95 %",
    show=text.percent,
)


known(
    "trig_share",
    "logits",
    in_group="… over every block, not the keys alone",
    of_blocks=True,
    show=text.percent,
)


@number(
    "logits",
    in_group="logits' variance that each block's functions of a∘b hold",
    unit="fraction",
    range="[0, 1]",
    shape=("freq",),
    of_blocks=True,
    description="Share of the centred logits' variance in the functions of a∘b of each block; logits may also hold what"
    " is no function of a∘b.",
    source="this project",
    undefined="all logits are equal",
    show=text.at_keys(text.percent_text),
)
def logit_share(s: Anatomy):
    return s.logit_share_K


@number(
    "logits",
    claim="significant components of the logits' 2D spectrum",
    paper="20",
    unit="1",
    range="[0, P²)",
    dtype="int32",
    description="Number of products of two Fourier basis functions, one of a and one of b, the constant left out, whose"
    f" norm over the logits is above {COMPONENT_SHARE:g} of the largest.",
    source=f"{NANDA}, §4.1 (the threshold is this project's)",
    cyclic_only=True,
)
def logit_components(s: Anatomy):
    return jnp.sum(_significant(s))


@number(
    "logits",
    claim="… of them in 2×2 blocks of a key frequency",
    paper="20, five blocks",
    unit="1",
    range="[0, P²)",
    dtype="int32",
    keyed=True,
    description="Those of logit_components that are products of {cos, sin}(w_k a) and {cos, sin}(w_k b) of a key"
    " frequency.",
    source=f"{NANDA}, §4.1",
    cyclic_only=True,
)
def logit_components_in_blocks(s: Anatomy):
    return jnp.sum(_significant(s) & s.same_freq_PxP & (s.key_components_P > 0))


def _significant(s: Anatomy):
    return s.logit_norms_PxP > COMPONENT_SHARE * jnp.max(s.logit_norms_PxP)


# --- neurons --------------------------------------------------------------------------------------------------------

known(
    "neurons_over_85",
    "neurons",
    claim="neurons over 85 % a degree-2 polynomial of one k",
    in_group="neurons over 85 % in products of {1, one block}(a) and (b)",
    paper="433 of 512",
)


@_share(
    "neurons",
    claim="… as a share",
    paper="84.6 %",
    description=f"Share of neurons that a single frequency explains over {NEURON_FVE:.0%} of.",
    source=f"{NANDA}, §4.3",
)
def neuron_share_over_85(s: Anatomy):
    return jnp.mean(jnp.any(s.own_KxM, 0).astype(s.acts_NxM.dtype))


known(
    "neurons_per_freq",
    "neurons",
    claim="… by frequency",
    in_group="… by block",
    paper="14: 44, 35: 93, 41: 145, 42: 87, 52: 64",
    show=text.at_some(str),
)


@_share(
    "neurons",
    claim="their columns of W_L carry only that k: share of squares",
    in_group="their columns of W_L carry only that block: share of squares",
    paper="yes",
    description=f"Of the columns of W_L of the neurons that a frequency explains over {NEURON_FVE:.0%} of, the share of"
    " their squares that lies in each neuron's own frequency along the logits.",
    source=f"{NANDA}, §4.3",
    undefined=NO_NEURON,
)
def localisation(s: Anatomy):
    squares_M = jnp.sum(s.W_L_PxM**2, 0)
    own_M = jnp.sum(jnp.where(s.own_KxM, s.W_L_share_KxM, 0), 0) * squares_M
    return ratio(jnp.sum(own_M), jnp.sum(jnp.where(jnp.any(s.own_KxM, 0), squares_M, 0)))


@_share(
    "neurons",
    claim="… least of any such neuron",
    description="The smallest share of squares in its own frequency along the logits among those neurons' columns.",
    source=f"{NANDA}, §4.3",
    undefined=NO_NEURON,
)
def localisation_min(s: Anatomy):
    least = jnp.min(jnp.where(s.own_KxM, s.W_L_share_KxM, jnp.inf))
    return jnp.where(jnp.isfinite(least), least, jnp.nan)


@_share(
    "neurons",
    claim="… neurons whose column is largest at that k",
    in_group="… neurons whose column is largest in that block",
    description="Share of those neurons whose column of W_L has its largest frequency where their activation has.",
    source=f"{NANDA}, §4.3",
    undefined=NO_NEURON,
)
def localisation_match(s: Anatomy):
    best_KxM = s.W_L_share_KxM == jnp.max(s.W_L_share_KxM, 0)
    return ratio(jnp.sum(s.own_KxM & best_KxM), jnp.sum(s.own_KxM))


# --- attention ------------------------------------------------------------------------------------------------------


@_by_head(
    claim="attention from = to = by head",
    paper="0.1–0.4 %",
    unit="fraction",
    range="[0, 1]",
    description="Each head's attention from = to =, mean over all pairs.",
    source=f"{NANDA}, App. A.1",
)
def attention_to_equals(s: Anatomy):
    return jnp.mean(s.pattern_NxHx3[:, :, LAST], 0)


FIT = "0.5 + α(cos w_k a − cos w_k b) + β(sin w_k a − sin w_k b)"


@_by_head(
    claim="attention ≈ 0.5 + α(cos w_k a − cos w_k b) + β(sin …): k by head",
    in_group="attention ≈ 0.5 + f(a) − f(b), f of one block: by head",
    paper="35, 42, 52, 42",
    unit="1",
    range="[1, P/2]",
    dtype="int32",
    description=f"The k for which each head's attention from = to a is closest to {FIT}, α and β fitted.",
    source=f"{NANDA}, App. C.1.2, Table 2",
    show=text.freqs,
)
def attention_freq(s: Anatomy):
    return jnp.argmax(s.attention_energy_KxH, 0) + 1


@_by_head(
    claim="… FVE by head",
    paper="99.03 %, 98.49 %, 99.07 %, 97.91 %",
    unit="fraction",
    range="(-∞, 1]",
    description=f"Share of each head's variance over all pairs that {FIT} explains for its best k; below 0 where its"
    " mean lies far from 0.5.",
    source=f"{NANDA}, App. C.1.2, Table 2",
    undefined=FLAT_HEAD,
)
def attention_fve(s: Anatomy):
    return _attention_fve(s, jnp.max(s.attention_energy_KxH, 0))


@_by_head(
    claim="… FVE by head with every key at once",
    in_group="… FVE by head with every key block at once",
    unit="fraction",
    range="(-∞, 1]",
    keyed=True,
    description=f"Share of each head's variance over all pairs that {FIT} explains, summed over the keys.",
    source="this project",
    undefined=FLAT_HEAD,
)
def attention_fve_keys(s: Anatomy):
    return _attention_fve(s, jnp.sum(jnp.where(s.key_freqs_K[:, None], s.attention_energy_KxH, 0), 0))


def _attention_fve(s: Anatomy, explained_H):
    to_a_NxH = s.to_a_NxH
    varies_H = jnp.max(to_a_NxH, 0) > jnp.min(to_a_NxH, 0)
    total_H = jnp.where(varies_H, jnp.sum((to_a_NxH - jnp.mean(to_a_NxH, 0)) ** 2, 0), 0)
    rest_H = jnp.sum((to_a_NxH - 0.5) ** 2, 0) - explained_H
    return 1 - ratio(rest_H, total_H)
