"""Rows of tables, looked up by token. The transpose is a product: a scatter-add has no fixed order of addition."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

GROUP = 8  # pairs whose cotangents are added up ahead of the product


class Lookup(NamedTuple):
    """One token of each pair, ready to be looked up; takes a while to make, so do it once, outside a loop.

    Attributes:
      token_B: of each pair.
      groups_GxK: numbers of pairs that share a token, B where a group has fewer; None where each pair is its own.
      one_hot_PxG: the groups' tokens; a column of zeros for a group without pairs.
    """

    token_B: jax.Array
    groups_GxK: jax.Array | None
    one_hot_PxG: jax.Array


def singly(token_B: jax.Array, p: int) -> Lookup:
    """Each pair on its own."""
    return Lookup(token_B, None, jax.nn.one_hot(token_B, p, axis=0))


def grouped(token_B: jax.Array, p: int) -> Lookup:
    """Pairs in groups of up to `GROUP`, as many as any tokens could need: less to multiply, where adding is quick."""
    n = len(token_B)
    order_B = jnp.argsort(token_B)
    start_P, end_P = (jnp.searchsorted(token_B[order_B], jnp.arange(p), side) for side in ("left", "right"))
    n_groups_P = -(-(end_P - start_P) // GROUP)
    groups_end_P = jnp.cumsum(n_groups_P)
    group_G = jnp.arange(min(n, n // GROUP + p))
    token_G = jnp.searchsorted(groups_end_P, group_G, "right")
    start_G = start_P[token_G] + (group_G - (groups_end_P - n_groups_P)[token_G]) * GROUP
    place_GxK = start_G[:, None] + jnp.arange(GROUP)
    pair_GxK = jnp.where(place_GxK < end_P[token_G, None], order_B[jnp.minimum(place_GxK, n - 1)], n)
    return Lookup(token_B, pair_GxK.astype(token_B.dtype), jax.nn.one_hot(token_G, p, axis=0))


def at(x: jax.Array, index_B: jax.Array) -> jax.Array:
    """x[index] without a check of the index's bounds."""
    return jnp.asarray(x).at[index_B].get(mode="promise_in_bounds")


@jax.custom_vjp
def rows(table_PxX: jax.Array, tokens: Lookup) -> jax.Array:
    """The tokens' rows of a table, [B, X]."""
    return at(table_PxX, tokens.token_B)


def _backward(tokens: Lookup, ct_BxX: jax.Array):
    sums_GxX = ct_BxX
    if tokens.groups_GxK is not None:
        one_each = (ct_BxX.at[pair_G].get(mode="fill", fill_value=0) for pair_G in tokens.groups_GxK.T)
        sums_GxX = functools.reduce(jnp.add, one_each)
    return tokens.one_hot_PxG @ sums_GxX, None


rows.defvjp(lambda table_PxX, tokens: (at(table_PxX, tokens.token_B), tokens), _backward)
