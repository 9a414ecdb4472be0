"""Clock or pizza: which of two algorithms adds (Zhong et al. 2023).

Size letters: B triples, N all P² pairs, P residues, K frequencies, T positions, D d_model, X principal components.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from grokjax.columns import SIGN
from grokjax.core import fourier, model
from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import cosine, ratio

ZHONG = "Zhong et al. 2023"
N_TRIPLES = 2_000  # standard error of gradient_symmetricity at most 0.01 where cosines spread by 0.45
N_COMPONENTS = 4
NO_GRADIENT = "one of the gradients is zero"


@measure(
    "clock",
    unit="1",
    range="[0, ∞)",
    description="Mean over d of the standard deviation of the right logit at fixed a - b = d (a + b for subtraction),"
    " divided by its standard deviation over all pairs; small if the logit depends on the distance of a and b.",
    source=f"{ZHONG} (distance irrelevance)",
    needs_sum=True,
    undefined="the right logit is the same for all pairs",
    cyclic_only=True,
)
def distance_irrelevance(s: Shared):
    by_distance_PxP = s.right_logit_N[fourier.sum_index(s.cfg.p, -(s.direction or 1))]
    varies = jnp.max(by_distance_PxP) > jnp.min(by_distance_PxP)
    return jnp.where(varies, ratio(jnp.mean(jnp.std(by_distance_PxP, 1)), jnp.std(by_distance_PxP)), jnp.nan)


def triples(p: int) -> Int[np.ndarray, "B 3"]:
    """The fixed triples (a, b, c), all different; fewer if there are fewer."""
    drawn = np.random.default_rng(0).choice(p**3, min(N_TRIPLES, p**3), replace=False)
    return np.stack([drawn // p**2, drawn // p % p, drawn % p], 1)


def _cosines(s: Shared) -> Float[Array, " B"]:
    """Of each triple, cached on the model."""
    if "triple_cosines_B" not in s.__dict__:
        s.__dict__["triple_cosines_B"] = _triple_cosines(s)
    return s.__dict__["triple_cosines_B"]


@measure(
    "clock",
    unit="1",
    range="[-1, 1]",
    description=f"Mean over {N_TRIPLES:,} fixed triples of the cosine between the gradients of logit c by the"
    " embeddings of a and of b, each taken at its own position; near 1 for pizza.",
    source=f"{ZHONG} (gradient symmetricity)",
    undefined=NO_GRADIENT,
    transformer_only=True,
    version=2,
)
def gradient_symmetricity(s: Shared):
    return jnp.mean(_cosines(s))


@measure(
    "clock",
    unit="1",
    range="[0, 1]",
    description="Standard error of gradient_symmetricity as an estimate of the mean over all P³ triples; 0 where these"
    " are all taken.",
    source="this project",
    undefined=NO_GRADIENT,
    transformer_only=True,
)
def gradient_symmetricity_error(s: Shared):
    cosines_B = _cosines(s)
    n, of = cosines_B.shape[0], s.cfg.p**3
    return jnp.std(cosines_B, ddof=1) * np.sqrt((1 - n / of) / n).astype(np.float32)


def _triple_cosines(s: Shared):
    abc_Bx3 = triples(s.cfg.p)
    net = model.module(s.cfg, s.params)

    def picked(x_BxTxD):
        for block in net.blocks:
            x_BxTxD = block(x_BxTxD)
        return jnp.sum(net.read(x_BxTxD[:, -1]) * jax.nn.one_hot(abc_Bx3[:, 2], s.cfg.p))

    pairs_B = jnp.asarray(abc_Bx3[:, 0] * s.cfg.p + abc_Bx3[:, 1])
    grads_BxTxD = jax.grad(picked)(net.embedded(pairs_B))
    return jax.vmap(lambda g: cosine([g[0]], [g[1]]))(grads_BxTxD)


@measure(
    "clock",
    unit="fraction",
    range="[0, 1]",
    description="Mean over the first 4 principal components of W_E (= left out) of the largest share that one frequency"
    " has of the component, seen as a function of the token; 1 if tokens lie on circles.",
    source=f"{ZHONG} (circularity)",
    undefined="W_E less its mean has rank under 4 (under P - 1 for P < 5)",
    **SIGN,
    cyclic_only=True,
)
def circularity(s: Shared):
    n = min(N_COMPONENTS, s.cfg.p - 1, s.cfg.d_model)
    components_PxX, sizes_X = s.pca_W_E
    shares_KxX = fourier.per_freq(fourier.transform(components_PxX[:, :n]) ** 2)
    rank_is_enough = sizes_X[n - 1] > s.cfg.p * jnp.finfo(sizes_X.dtype).eps * sizes_X[0]
    return jnp.where(rank_is_enough, jnp.mean(jnp.clip(jnp.max(shares_KxX, 0), 0, 1)), jnp.nan)
