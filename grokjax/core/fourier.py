"""The real Fourier basis over Z_P and the sum directions built on it.

Frequencies are k = 1 … (P-1)/2, stored at index k - 1. Basis rows are ordered: constant, cos 1, sin 1, cos 2, sin 2, …;
for even P a last row holds the alternating cosine of frequency P/2, which has no sine and is not counted as a
frequency. See Nanda et al. 2023, §3.1 and §4.

Size letters: P residues, K = (P-1)//2 frequencies, N = P² pairs, D and C any.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int32


def n_freqs(p: int) -> int:
    """The number of frequencies that have both a cosine and a sine: (P - 1) // 2."""
    return (p - 1) // 2


@functools.cache
def basis(p: int) -> Float64[np.ndarray, "P P"]:
    """The orthonormal basis, one function of Z_P per row."""
    n = np.arange(p)
    rows = [np.full(p, 1 / np.sqrt(p))]
    for k in range(1, n_freqs(p) + 1):
        # k * n is reduced modulo P first: the cosine of a large argument loses digits.
        angle = 2 * np.pi * (k * n % p) / p
        rows += [np.sqrt(2 / p) * np.cos(angle), np.sqrt(2 / p) * np.sin(angle)]
    if p % 2 == 0:
        rows.append(np.where(n % 2, -1.0, 1.0) / np.sqrt(p))
    result = np.stack(rows)
    result.setflags(write=False)
    return result


def transform(x_PxD: Float[Array, "P ..."]) -> Float[Array, "P ..."]:
    """Components along the first axis, rows ordered as in `basis`."""
    return jnp.tensordot(jnp.asarray(basis(x_PxD.shape[0]), x_PxD.dtype), x_PxD, 1)


def inverse(c_PxD: Float[Array, "P ..."]) -> Float[Array, "P ..."]:
    """The inverse of `transform`."""
    return jnp.tensordot(jnp.asarray(basis(c_PxD.shape[0]).T, c_PxD.dtype), c_PxD, 1)


def per_freq(c_P: Float[Array, "P ..."]) -> Float[Array, "K ..."]:
    """Sums a quantity given per component over the cosine and sine of each frequency."""
    n = n_freqs(c_P.shape[0])
    return c_P[1 : 2 * n + 1].reshape(n, 2, *c_P.shape[1:]).sum(1)


def per_component(f_K: Float[Array, " K"], p: int) -> Float[Array, " P"]:
    """Spreads a quantity per frequency over its cosine and sine; zero for the other components."""
    return jnp.pad(jnp.repeat(f_K, 2), (1, p - 1 - 2 * f_K.shape[0]))


def norms(x_PxD: Float[Array, "P D"]) -> tuple[Float[Array, " P"], Float[Array, " K"]]:
    """Norms of the Fourier components of the first axis.

    Returns:
      Per component, and per frequency (cosine and sine together).
    """
    squares_P = jnp.sum(transform(x_PxD) ** 2, 1)
    return jnp.sqrt(squares_P), jnp.sqrt(per_freq(squares_P))


@functools.cache
def sum_index(p: int, direction: int = 1) -> Int32[np.ndarray, "P P"]:
    """The pairs (a, b) with a + b ≡ s (or a - b ≡ s for direction -1), numbered a * P + b, in row s."""
    s, a = np.divmod(np.arange(p * p).reshape(p, p), p)
    b = (s - a) % p if direction == 1 else (a - s) % p
    return (a * p + b).astype(np.int32)


@functools.cache
def sums(p: int, direction: int = 1) -> Int32[np.ndarray, " N"]:
    """a + b mod P (or a - b for direction -1) of every pair."""
    a, b = np.divmod(np.arange(p * p), p)
    return ((a + direction * b) % p).astype(np.int32)


def sum_mean(grid_NxC: Float[Array, "N C"], p: int, direction: int = 1) -> Float[Array, "P C"]:
    """Averages a function of (a, b) over the pairs of equal sum.

    The cosines and sines of a + b, with the constant, span exactly the functions of a + b, so this average is the
    projection on all sum directions at once; `transform` of it gives every coefficient.

    Args:
      grid_NxC: pair (a, b) at a * P + b.
      p: the modulus.
      direction: +1 for a + b, -1 for a - b.

    Returns:
      The average over the pairs of sum s in row s.
    """
    return jnp.mean(grid_NxC[sum_index(p, direction)], 1)
