"""Norms, cosines and quotients that are exact for tiny numbers and NaN on purpose where they are undefined.

Size letters: X any.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def ratio(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """x / y, and NaN where y is 0."""
    return jnp.where(y == 0, jnp.nan, x / jnp.where(y == 0, 1, y))


def norm(arrays: Iterable[Float[Array, "..."]]) -> Float[Array, ""]:
    """Euclidean norm of all entries of some arrays; does not underflow for entries of 1e-30."""
    arrays = list(arrays)
    top = _top(arrays)
    return top * jnp.sqrt(_dot(arrays, arrays, top, top))


def cosine(xs: Iterable[Float[Array, "..."]], ys: Iterable[Float[Array, "..."]]) -> Float[Array, ""]:
    """Cosine between two lists of arrays of equal shapes, each taken as one vector; NaN if either is zero."""
    xs, ys = list(xs), list(ys)
    top_x, top_y = _top(xs), _top(ys)
    norms = jnp.sqrt(_dot(xs, xs, top_x, top_x) * _dot(ys, ys, top_y, top_y))
    return ratio(_dot(xs, ys, top_x, top_y), norms)


def _top(arrays):
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in arrays]))


def _dot(xs, ys, scale_x, scale_y):
    """Σ (x / scale_x)(y / scale_y), and 0 if a scale is 0."""
    by_x, by_y = (1 / jnp.where(scale == 0, 1, scale) for scale in (scale_x, scale_y))
    return sum(jnp.sum((x * by_x) * (y * by_y)) for x, y in zip(xs, ys, strict=True))


def entropy_rank(weights_X: Float[Array, " X"]) -> Float[Array, ""]:
    """exp of the entropy of non-negative weights taken as shares: how many there are, counting small ones less."""
    return jnp.exp(jnp.sum(jax.scipy.special.entr(ratio(weights_X, jnp.sum(weights_X)))))


def participation(weights_X: Float[Array, " X"]) -> Float[Array, ""]:
    """Σ w² / (Σ w)² of non-negative weights: 1 if one has all, 1/n if all are equal."""
    shares_X = ratio(weights_X, jnp.sum(weights_X))
    return jnp.sum(shares_X**2)
