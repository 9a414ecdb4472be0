"""The numbers of directions and of frequencies that the weights use."""

import jax.numpy as jnp

from grokjax.columns import SIGN
from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import entropy_rank, participation

ZERO = "{} is zero"


def _register(which, matrix, norms):
    rank = measure(
        "spectra",
        name=f"effective_rank_{which}",
        unit="1",
        range="[1, P]",
        description=f"exp(-Σ q ln q) with q = σ²/Σσ² over the singular values σ of {which}.",
        source="arXiv 2607.06639; Roy & Vetterli 2007 (there with σ in place of σ²)",
        undefined=ZERO.format(which),
    )
    # Singular values directly: a Gram matrix would lose half the digits, and its eigenvalues are no cheaper on a CPU.
    rank(lambda s: entropy_rank(jnp.linalg.svd(matrix(s), compute_uv=False) ** 2))
    ipr = measure(
        "spectra",
        name=f"ipr_{which}",
        unit="1",
        range="[2/P, 1]",
        description=f"Inverse participation ratio Σ n⁴ / (Σ n²)² over the frequencies' norms n in {which}: 1 if there"
        " is one frequency.",
        source="Doshi et al. 2023 (there per neuron)",
        undefined=f"{which} holds no frequency",
        **SIGN,
    )
    ipr(lambda s: participation(norms(s) ** 2))


_register("W_E", lambda s: s.W_E_PxY, lambda s: s.norms_W_E[1])
_register("W_L", lambda s: s.W_L_PxM, lambda s: s.norms_W_L[1])


@measure(
    "spectra",
    unit="1",
    range="[1, P-1]",
    description="exp(-Σ v ln v) over the shares v of variance of the principal components of W_E (= left out).",
    source="Liu et al. 2022, §3",
    undefined="all tokens have the same embedding",
)
def effective_dimension_W_E(s: Shared):
    return entropy_rank(s.pca_W_E[1] ** 2)
