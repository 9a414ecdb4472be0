"""Pairs of tokens prepared for a forward pass, which looks up a row of a table for each of their tokens.

Size letters: B pairs, N all P² pairs, P residues, X columns of a table.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """Some pairs, ready for the factored forward to look up their tokens' tables; made by `lookup` or `grid`.

    Attributes:
      pairs_B: each a * P + b.
      one_hot_a_PxB: the first tokens, and
      one_hot_b_PxB: the second tokens as one-hot columns; both None for the whole grid in order.
      pairs_last: whether attention is computed with the pairs as the last axis, as a TPU wants it; static.
    """

    pairs_B: Int[Array, " B"]
    one_hot_a_PxB: Float[Array, "P B"] | None = None
    one_hot_b_PxB: Float[Array, "P B"] | None = None
    pairs_last: bool = dataclasses.field(default=False, metadata={"static": True})


def lookup(pairs_B: Int[Array, " B"], p: int, pairs_last: bool = False) -> Pairs:
    """Prepares any pairs; call it once, outside a loop. One-hot columns make the look-up's transpose a product."""
    one_hot_a_PxB, one_hot_b_PxB = (jax.nn.one_hot(tokens_B, p, axis=0) for tokens_B in (pairs_B // p, pairs_B % p))
    return Pairs(pairs_B, one_hot_a_PxB, one_hot_b_PxB, pairs_last)


def grid(p: int, pairs_last: bool = False) -> Pairs:
    """Prepares all P² pairs in order: tables are broadcast, nothing is looked up."""
    return Pairs(jnp.arange(p * p), pairs_last=pairs_last)


@jax.custom_vjp
def _rows(table_PxX, index_B, one_hot_PxB):
    """table[index]; the gradient is a product with the one-hot columns, since a scatter-add is not deterministic."""
    return table_PxX[index_B]


_rows.defvjp(
    lambda table_PxX, index_B, one_hot_PxB: (table_PxX[index_B], one_hot_PxB),
    lambda one_hot_PxB, ct_BxX: (one_hot_PxB @ ct_BxX, None, None),
)


def spread(pairs: Pairs, a_PxX: jax.Array, b_PxX: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tables over the first and second token, as rows per pair: two [B, X]."""
    p, x = a_PxX.shape
    if pairs.one_hot_a_PxB is None or pairs.one_hot_b_PxB is None:
        shape = (p, p, x)
        a = jnp.broadcast_to(a_PxX[:, None], shape).reshape(p * p, x)
        return a, jnp.broadcast_to(b_PxX[None], shape).reshape(p * p, x)
    if pairs.pairs_last:  # a gather is slow on a TPU
        return pairs.one_hot_a_PxB.T @ a_PxX, pairs.one_hot_b_PxB.T @ b_PxX
    return (
        _rows(a_PxX, pairs.pairs_B // p, pairs.one_hot_a_PxB),
        _rows(b_PxX, pairs.pairs_B % p, pairs.one_hot_b_PxB),
    )
