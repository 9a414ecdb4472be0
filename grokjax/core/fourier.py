"""The real Fourier basis over Z_P and the sum directions built on it.

Frequencies are k = 1 … (P-1)/2, stored at index k - 1. Basis rows are ordered: constant, cos 1, sin 1, cos 2, sin 2, …;
for even P a last row holds the alternating cosine of frequency P/2, which has no sine and is not counted as a
frequency. See Nanda et al. 2023, §3.1 and §4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def n_freqs(p: int) -> int:
    """The number of frequencies that have both a cosine and a sine: (P - 1) // 2."""
    return (p - 1) // 2


@functools.cache
def basis(p: int) -> np.ndarray:
    """The orthonormal basis, float64 [P, P], one function of Z_P per row."""
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


def transform(x_PxD: jax.Array) -> jax.Array:
    """Components along the first axis: [P, ...] to [P, ...], rows ordered as in `basis`."""
    return jnp.tensordot(jnp.asarray(basis(x_PxD.shape[0]), x_PxD.dtype), x_PxD, 1)


def inverse(c_PxD: jax.Array) -> jax.Array:
    """The inverse of `transform`."""
    return jnp.tensordot(jnp.asarray(basis(c_PxD.shape[0]).T, c_PxD.dtype), c_PxD, 1)


def per_freq(c_P: jax.Array) -> jax.Array:
    """Sums a quantity given per component over the cosine and sine of each frequency: [P, ...] to [(P-1)//2, ...]."""
    n = n_freqs(c_P.shape[0])
    return c_P[1 : 2 * n + 1].reshape(n, 2, *c_P.shape[1:]).sum(1)


def per_component(f_K: jax.Array, p: int) -> jax.Array:
    """Spreads a quantity per frequency over its cosine and sine: [(P-1)//2] to [P], zero for the other components."""
    return jnp.pad(jnp.repeat(f_K, 2), (1, p - 1 - 2 * f_K.shape[0]))


def norms(x_PxD: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Norms of the Fourier components of the first axis.

    Returns:
      Per component, [P], and per frequency (cosine and sine together), [(P-1)//2].
    """
    squares_P = jnp.sum(transform(x_PxD) ** 2, 1)
    return jnp.sqrt(squares_P), jnp.sqrt(per_freq(squares_P))


@functools.cache
def sum_index(p: int, direction: int = 1) -> np.ndarray:
    """int32 [P, P]: the pairs (a, b) with a + b ≡ s (or a - b ≡ s for direction -1), numbered a * P + b, in row s."""
    s, a = np.divmod(np.arange(p * p).reshape(p, p), p)
    b = (s - a) % p if direction == 1 else (a - s) % p
    return (a * p + b).astype(np.int32)


@functools.cache
def sums(p: int, direction: int = 1) -> np.ndarray:
    """int32 [P²]: a + b mod P (or a - b) of every pair."""
    a, b = np.divmod(np.arange(p * p), p)
    return ((a + direction * b) % p).astype(np.int32)


def sum_mean(grid_NxC: jax.Array, p: int, direction: int = 1) -> jax.Array:
    """Averages a function of (a, b) over the pairs of equal sum.

    The cosines and sines of a + b, with the constant, span exactly the functions of a + b, so this average is the
    projection on all sum directions at once; `transform` of it gives every coefficient.

    Args:
      grid_NxC: [P², C], pair (a, b) at a * P + b.
      p: the modulus.
      direction: +1 for a + b, -1 for a - b.

    Returns:
      [P, C], row s.
    """
    return jnp.mean(grid_NxC[sum_index(p, direction)], 1)
