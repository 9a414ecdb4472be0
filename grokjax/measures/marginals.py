"""The four averages of a function of (a, b) that hold its single-frequency part, in place of a 2-D transform.

The 8 non-constant products of {1, cos w_k a, sin w_k a} and {1, cos w_k b, sin w_k b} span the same functions as the
cosine and sine of w_k a, w_k b, w_k(a + b) and w_k(a - b). So the averages over b, over a, along a + b and along a - b,
each a function of one residue, determine the projection on those products for every k at once: four passes over the
grid instead of P² × P products.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grokjax import fourier


class Spectra(NamedTuple):
    """Fourier components of the averages, each [P, C] with rows ordered as in `fourier.basis`."""

    first: jax.Array  # over a: averaged over b
    second: jax.Array  # over b: averaged over a
    sum: jax.Array  # over a + b
    difference: jax.Array  # over a - b

    def along(self, direction: int | None) -> jax.Array:
        """Over a + b for direction +1 or none, over a - b for -1."""
        return self.difference if direction == -1 else self.sum


def spectra(grid_NxC: jax.Array, p: int) -> Spectra:
    """The components of all four averages of a function on the grid, pair (a, b) in row a * P + b."""
    grid_PxPxC = grid_NxC.reshape(p, p, -1)
    averages = (
        jnp.mean(grid_PxPxC, 1),
        jnp.tensordot(jnp.full(p, 1 / p, grid_NxC.dtype), grid_PxPxC, 1),  # XLA's mean over axis 0 is slow on a CPU
        fourier.sum_mean(grid_NxC, p, 1),
        fourier.sum_mean(grid_NxC, p, -1),
    )
    return Spectra(*map(fourier.transform, averages))


def energy(some: tuple[jax.Array, ...]) -> jax.Array:
    """Squared norm over the grid of the parts that some of the averages give each frequency: [(P-1)//2, C].

    Every value of an average stands for P pairs, hence the factor.
    """
    p = some[0].shape[0]
    return p * fourier.per_freq(sum(x_PxC**2 for x_PxC in some))  # type: ignore[arg-type]


def keep(parts: Spectra, freqs_K: jax.Array) -> jax.Array:
    """The projection on the constant and the 8 products of each of some frequencies: [P², C]."""
    p, c = parts.first.shape
    keep_P = fourier.per_component(freqs_K.astype(parts.first.dtype), p)
    first, second, total, difference = (fourier.inverse(keep_P[:, None] * x_PxC) for x_PxC in parts)
    constant_C = parts.first[0] * fourier.basis(p)[0, 0]
    of_one = (first[:, None] + (second + constant_C)[None]).reshape(p * p, c)
    return of_one + total[fourier.sums(p, 1)] + difference[fourier.sums(p, -1)]
