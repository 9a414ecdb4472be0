"""The harmonics of Z_P in blocks, and the sum directions built on them.

A block holds the functions that a shift of the argument mixes among themselves: the constant alone, the cosine and sine
of each frequency k < P/2, and for even P the sign (-1)^n, alone, which is frequency P/2. Basis rows are ordered:
constant, cos 1, sin 1, cos 2, sin 2, … and the sign; frequencies are k = 1 … ⌊P/2⌋, stored at index k - 1. See Nanda et
al. 2023, §3.1 and §4, where P is odd.

Size letters: P residues, K = P//2 frequencies, N = P² pairs, D and C any.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int32


@dataclasses.dataclass(frozen=True, eq=False)
class Harmonics:
    """An orthonormal basis of the functions on a finite group, in blocks that no shift mixes, the constant first.

    Attributes:
      basis: one function per row, blocks one after another.
      sizes: rows of each block; of the constant, 1.
    """

    basis: Float64[np.ndarray, "P P"]
    sizes: tuple[int, ...]

    @functools.cached_property
    def block_of_row(self) -> Int32[np.ndarray, " P"]:
        """The block of each row, 0 the constant's."""
        return np.repeat(np.arange(len(self.sizes), dtype=np.int32), self.sizes)

    @functools.cached_property
    def rows(self) -> Int32[np.ndarray, "K X"]:
        """The rows of each block but the constant's, P in place of those that a smaller block lacks.

        With a row of zeros added to what it indexes, blocks of all sizes are alike.
        """
        table = np.full((len(self.sizes) - 1, max(self.sizes[1:], default=0)), len(self.basis), np.int32)
        for block, row in enumerate(table, 1):
            row[: self.sizes[block]] = np.flatnonzero(self.block_of_row == block)
        return table

    def per_block(self, c_P: Float[Array, "P ..."]) -> Float[Array, "K ..."]:
        """Sums a quantity given per row over the rows of each block but the constant's."""
        if len(set(self.sizes[1:])) == 1:
            return c_P[1:].reshape(*self.rows.shape, *c_P.shape[1:]).sum(1)
        return with_zero_row(c_P)[self.rows].sum(1)

    def per_row(self, f_K: Float[Array, " K"]) -> Float[Array, " P"]:
        """Spreads a quantity per block over its rows; zero for the constant."""
        return jnp.pad(f_K[self.block_of_row[1:] - 1], (1, 0))


def with_zero_row(c_P: Float[Array, "P ..."]) -> Float[Array, "Q ..."]:
    """Adds the row of zeros that `Harmonics.rows` points to in place of missing ones."""
    c_P = jnp.asarray(c_P)
    return jnp.pad(c_P, [(0, 1), *[(0, 0)] * (c_P.ndim - 1)])


def n_freqs(p: int) -> int:
    """The number of frequencies, the sign of an even P among them: P // 2."""
    return p // 2


@functools.cache
def harmonics(p: int) -> Harmonics:
    """The blocks of Z_P: block k is frequency k."""
    n = np.arange(p)
    rows = [np.full(p, 1 / np.sqrt(p))]
    for k in range(1, (p - 1) // 2 + 1):
        # k * n is reduced modulo P first: the cosine of a large argument loses digits.
        angle = 2 * np.pi * (k * n % p) / p
        rows += [np.sqrt(2 / p) * np.cos(angle), np.sqrt(2 / p) * np.sin(angle)]
    if p % 2 == 0:
        rows.append(np.where(n % 2, -1.0, 1.0) / np.sqrt(p))
    basis = np.stack(rows)
    basis.setflags(write=False)
    return Harmonics(basis, (1, *[2] * ((p - 1) // 2), *[1] * (p % 2 == 0)))


def basis(p: int) -> Float64[np.ndarray, "P P"]:
    """The orthonormal basis, one function of Z_P per row."""
    return harmonics(p).basis


def freq_sizes(p: int) -> Int32[np.ndarray, " K"]:
    """The number of basis functions of each frequency: 2, but 1 for the sign."""
    return np.array(harmonics(p).sizes[1:], np.int32)


def transform(x_PxD: Float[Array, "P ..."]) -> Float[Array, "P ..."]:
    """Components along the first axis, rows ordered as in `basis`."""
    return jnp.tensordot(jnp.asarray(basis(x_PxD.shape[0]), x_PxD.dtype), x_PxD, 1)


def inverse(c_PxD: Float[Array, "P ..."]) -> Float[Array, "P ..."]:
    """The inverse of `transform`."""
    return jnp.tensordot(jnp.asarray(basis(c_PxD.shape[0]).T, c_PxD.dtype), c_PxD, 1)


def per_freq(c_P: Float[Array, "P ..."]) -> Float[Array, "K ..."]:
    """Sums a quantity given per component over the components of each frequency."""
    return harmonics(c_P.shape[0]).per_block(c_P)


def per_component(f_K: Float[Array, " K"], p: int) -> Float[Array, " P"]:
    """Spreads a quantity per frequency over its components; zero for the constant."""
    return harmonics(p).per_row(f_K)


def norms(x_PxD: Float[Array, "P D"]) -> tuple[Float[Array, " P"], Float[Array, " K"]]:
    """Norms of the Fourier components of the first axis.

    Returns:
      Per component, and per frequency (its components together).
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

    The harmonics of a + b span exactly the functions of a + b, so this average is the
    projection on all sum directions at once; `transform` of it gives every coefficient.

    Args:
      grid_NxC: pair (a, b) at a * P + b.
      p: the modulus.
      direction: +1 for a + b, -1 for a - b.

    Returns:
      The average over the pairs of sum s in row s.
    """
    return jnp.mean(grid_NxC[sum_index(p, direction)], 1)
