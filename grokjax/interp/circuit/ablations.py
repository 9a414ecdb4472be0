"""Answers of the model with a part of it replaced (§4.4, App. A.1, App. C.1). Each function returns logits, [P², P].

The skip around the MLP stays as it is wherever neurons are changed.
"""

import jax
import jax.numpy as jnp

from grokjax.interp.circuit.anatomy import LAST, Anatomy
from grokjax.interp.circuit.blocks import BlockAnatomy
from grokjax.interp.circuit.registry import ablation
from grokjax.measures.paper import NANDA
from grokjax.measures.shared import NEURON_FVE

ABLATIONS = f"{NANDA}, §4.4"
PARTS = f"{NANDA}, App. A.1"


@ablation(claim="loss of the model", paper="2.41e-7", description="the model as it is", source=ABLATIONS)
def loss(s: Anatomy):
    return s.logits_NxP


@ablation(
    claim="logits replaced by Σ α_k cos(w_k(a+b−c))",
    in_group="logits replaced by Σ α_ρ χ_ρ(a∘b∘c⁻¹)",
    paper="4.7e-8",
    description="the logits replaced by Σ α_k cos(w_k(a + b - c)) over the keys, α_k by least squares (a - b if that is"
    " the task)",
    source=f"{NANDA}, §4.2",
    keyed=True,
    needs_sum=True,
)
def loss_logits_as_cosines(s: Anatomy):
    return s.cosines_NxP


@ablation(
    claim="neurons over 85 % replaced by their polynomials",
    in_group="neurons over 85 % replaced by their products of one block",
    paper="2.48e-7",
    description=f"every neuron that a frequency explains over {NEURON_FVE:.0%} of replaced by its projection on the"
    " constant and that frequency's 8 products",
    source=ABLATIONS,
    unnormed=True,
)
def loss_neurons_as_polynomials(s: Anatomy):
    return s.with_acts(s.polynomials_NxM)


@ablation(
    claim="only the constant and the keys' sum directions kept (restricted)",
    in_group="only the constant and the keys' functions of a∘b kept (restricted)",
    paper="5.54e-8",
    description="the logits projected on the constant and the keys' sum directions: the restricted loss",
    source=f"{ABLATIONS}; §5.1",
    keyed=True,
    needs_sum=True,
)
def loss_sum_directions(s: Anatomy):
    return s.restricted_NxP


@ablation(
    claim="only the constant and the keys' components kept, 8 per key",
    in_group="only the constant and products of {1, one key}(a) and (b) kept",
    paper="7.24e-8",
    description="the logits projected on the constant and, for each key, the other 8 products of {1, cos, sin}(w_k a)"
    " and {1, cos, sin}(w_k b)",
    source=ABLATIONS,
    keyed=True,
)
def loss_key_components(s: Anatomy):
    return s.key_products_NxP


@ablation(
    claim="activations projected on W_L's key directions",
    paper="1.19e-7",
    description="the MLP's activations projected on the span of the keys' u_k and v_k",
    source=ABLATIONS,
    keyed=True,
    unnormed=True,
)
def loss_key_directions(s: Anatomy):
    return s.with_acts(s.read_acts_NxM)


@ablation(
    claim="activations projected on the null space of these",
    paper="5.27",
    description="the MLP's activations projected on what is orthogonal to the keys' u_k and v_k",
    source=ABLATIONS,
    keyed=True,
    unnormed=True,
)
def loss_null_space(s: Anatomy):
    return s.with_acts(s.acts_NxM - s.read_acts_NxM)


WITHOUT = "14: 2.0e-4, 35: 4.6e-4, 41: 1.9e-3, 42: 5.2e-3, 52: 2.4e-2"


@ablation(
    per_freq=True,
    claim="one key frequency removed at the neurons",
    in_group="one key block removed at the neurons",
    paper=WITHOUT,
    description="every neuron without its projection on the 8 products of one frequency, for each frequency",
    source=f"{ABLATIONS} (the figures are the released notebook's)",
    unnormed=True,
)
def loss_without_freq(s: Anatomy, k):
    return s.logits_NxP - s.neurons_of(jnp.arange(s.n_freqs) == k)


@ablation(
    per_freq=True,
    claim="the neurons of one key frequency set to their means",
    in_group="the neurons of one key block set to their means",
    paper="",
    description=f"the neurons that one frequency explains over {NEURON_FVE:.0%} of set to their means over all pairs,"
    " for each frequency",
    source="this project",
    unnormed=True,
)
def loss_without_neurons(s: Anatomy, k):
    logits_NxP, acts_NxM, own_KxM = s.logits_NxP, s.acts_NxM, s.own_KxM

    def removed():
        gone_NxM = jnp.where(own_KxM[k], acts_NxM - jnp.mean(acts_NxM, 0), 0)
        return logits_NxP - s.mlp_logits(gone_NxM)

    # Most frequencies have no neuron: nothing is to be computed for them.
    return jax.lax.cond(jnp.any(own_KxM[k]), removed, lambda: logits_NxP)


@ablation(
    per_freq=True,
    claim="",
    in_group="one key block's functions of a∘b removed from the logits (excluded)",
    of_blocks=True,
    description="the logits without the functions of a∘b of one block, for each block",
    source=f"this project; {NANDA}, §5.1, has it on the training pairs",
)
def loss_without_block(s: BlockAnatomy, k):
    return s.without_block(jnp.arange(s.n_freqs) == k)


@ablation(
    claim="skip around the MLP zeroed",
    paper="9.1e-7",
    description="the residual stream around the MLP set to 0 (b_out stays)",
    source=PARTS,
    one_layer=True,
)
def loss_mlp_skip_zeroed(s: Anatomy):
    return s.mlp_logits(s.acts_NxM) + s.skip_logits(jnp.zeros_like(s.attn_out_NxD))


@ablation(
    claim="skip around the MLP mean-ablated",
    paper="7.3e-7",
    description="the residual stream around the MLP set to its mean over all pairs",
    source=PARTS,
    one_layer=True,
)
def loss_mlp_skip_mean(s: Anatomy):
    return s.mlp_logits(s.acts_NxM) + jnp.mean(s.skip_NxP, 0)


@ablation(
    claim="attention zeroed",
    paper="24.3",
    description="what attention adds set to 0",
    source=PARTS,
    one_layer=True,
)
def loss_attention_zeroed(s: Anatomy):
    return s.answer(jnp.broadcast_to(s.last_D, s.attn_out_NxD.shape))


@ablation(
    claim="skip around attention zeroed",
    paper="19.1",
    description="the residual stream around attention, = and its position, set to 0",
    source=PARTS,
    one_layer=True,
)
def loss_attention_skip_zeroed(s: Anatomy):
    return s.answer(s.attn_out_NxD)


@ablation(
    claim="attention from = to = set to 0",
    paper="no effect",
    description="attention from = to = set to 0, the rest as it is",
    source=PARTS,
    one_layer=True,
)
def loss_equals_unattended(s: Anatomy):
    return s.answer(s.last_D + s.attend(s.pattern_NxHx3.at[:, :, LAST].set(0)))


@ablation(
    claim="softmax replaced by its linear part",
    paper="2.12e-7",
    description="attention to a and b set to 1/2 ± (score of a - score of b) / 4, and to = to 0: softmax over two, to"
    " first order about equal scores",
    source=f"{NANDA}, App. C.1.3",
    one_layer=True,
)
def loss_softmax_linear(s: Anatomy):
    to_a_NxH = 0.5 + s.score_gap_NxH / 4
    return s.answer(s.last_D + s.attend(jnp.stack([to_a_NxH, 1 - to_a_NxH, jnp.zeros_like(to_a_NxH)], 2)))
