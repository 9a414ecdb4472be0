"""The frequency that each neuron computes with (group "paper")."""

import jax.numpy as jnp

from grokjax.columns import SIGN
from grokjax.measures.paper import NANDA
from grokjax.measures.registry import measure
from grokjax.measures.shared import NEURON_FVE, Shared

SOURCE = f"{NANDA}, §4.3"


@measure(
    "paper",
    unit="1",
    range="[0, P/2]",
    shape=("neuron",),
    dtype="int32",
    description="The frequency that explains most of each neuron's activation over all pairs (last layer, above =);"
    " 0 for a neuron whose activation is the same for all pairs.",
    source=SOURCE,
    **SIGN,
    whole_grid=True,
)
def neuron_freq(s: Shared):
    return s.neuron_fit[0]


@measure(
    "paper",
    unit="fraction",
    range="[0, 1]",
    shape=("neuron",),
    description="Share of each neuron's centred variance that the non-constant products of {1, cos, sin}(w_k a) and"
    " {1, cos, sin}(w_k b) explain for its best k; 0 for a neuron whose activation is the same for all pairs.",
    source=SOURCE,
    **SIGN,
    whole_grid=True,
)
def neuron_fve(s: Shared):
    return s.neuron_fit[1]


@measure(
    "paper",
    unit="neurons",
    range="[0, d_mlp]",
    dtype="int32",
    description=f"How many neurons a single frequency explains over {NEURON_FVE:.0%} of.",
    source=SOURCE,
    **SIGN,
    whole_grid=True,
)
def neurons_over_85(s: Shared):
    return jnp.sum(s.neurons_per_freq_K)


@measure(
    "paper",
    unit="neurons",
    range="[0, d_mlp]",
    shape=("freq",),
    dtype="int32",
    description=f"How many neurons each frequency explains over {NEURON_FVE:.0%} of.",
    source=SOURCE,
    **SIGN,
    whole_grid=True,
)
def neurons_per_freq(s: Shared):
    return s.neurons_per_freq_K
