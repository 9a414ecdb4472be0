"""Likeness of the attention heads (arXiv 2605.20441), from the last token's row alone, which is "=" where there is one.

The source flattens all rows; the earlier ones see so little that they push every similarity towards 1.

Size letters: N all P² pairs, H heads, T positions, D d_model.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from grokjax.core import model
from grokjax.measures.registry import measure
from grokjax.measures.shared import Shared

SOURCE = "arXiv 2605.20441 (there over all rows)"


def patterns(s: Shared) -> list[Float[Array, "N H T"]]:
    """Attention from the last token over all of them by layer, for every pair.

    Where an attention rate leaves less to softmax, weights add up to more than 1 and are divided by their sum.
    """
    pairs = model.grid(s.cfg.p)
    if s.cfg.is_factored:
        return [model.attend(s.cfg, model.tables(s.cfg, s.params), pairs)[0]]
    net = model.module(s.cfg, s.params)
    x_NxTxD = net.embedded(pairs.pairs_B)
    found = []
    for block in net.blocks:
        found.append(block.pattern(x_NxTxD)[:, :, -1])
        x_NxTxD = block(x_NxTxD)
    return [pattern / jnp.sum(pattern, 2, keepdims=True) for pattern in found] if s.cfg.has_rate else found


def _similarity(pattern_NxHxT):
    n_heads = pattern_NxHxT.shape[1]
    dots_HxH = jnp.einsum("nhk,ngk->hg", pattern_NxHxT, pattern_NxHxT)
    norms_H = jnp.sqrt(jnp.diag(dots_HxH))
    cosines_HxH = dots_HxH / (norms_H[:, None] * norms_H)
    return (jnp.sum(cosines_HxH) - jnp.trace(cosines_HxH)) / (n_heads * (n_heads - 1))


@measure(
    "attention",
    unit="1",
    range="[0, 1]",
    description="Cosine between two heads' attention from the last token over all pairs, mean over pairs of heads, then"
    " layers.",
    source=SOURCE,
    transformer_only=True,
    undefined="there is one head",
)
def head_similarity(s: Shared):
    if s.cfg.n_heads == 1:
        return jnp.full((), jnp.nan)
    return jnp.mean(jnp.stack([_similarity(pattern) for pattern in patterns(s)]))


def _entropies(s: Shared):
    """Entropy of attention from the last token, mean over all pairs: [layer, head]."""
    return jnp.stack([jnp.mean(jnp.sum(jax.scipy.special.entr(pattern), 2), 0) for pattern in patterns(s)])


@measure(
    "attention",
    unit="nats",
    range="[0, log 3]",
    description="Entropy of a head's attention from the last token, mean over all pairs, heads and layers.",
    source=SOURCE,
    transformer_only=True,
)
def head_entropy_mean(s: Shared):
    return jnp.mean(_entropies(s))


@measure(
    "attention",
    unit="nats",
    range="[0, log(3)/2]",
    description="Standard deviation over heads of their mean entropy of attention from the last token, mean over"
    " layers.",
    source=SOURCE,
    transformer_only=True,
)
def head_entropy_std(s: Shared):
    return jnp.mean(jnp.std(_entropies(s), 1))
