"""The four averages of a function of (a, b) that hold its single-frequency part, in place of a 2-D transform.

The 8 non-constant products of {1, cos w_k a, sin w_k a} and {1, cos w_k b, sin w_k b} span the same functions as the
cosine and sine of w_k a, w_k b, w_k(a + b) and w_k(a - b). The sign of an even P has 3 products, as (-1)^(a + b) is
(-1)^(a - b): it counts among the functions of the sum. So the averages over b, over a, along a + b and along a - b,
each a function of one residue, determine the projection on those products for every k at once: sums over the grid
instead of P² × P products.

Size letters: N all P² pairs, P residues, K frequencies, C any columns, such as logits or neurons.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grokjax.core import fourier, platforms


class Spectra(NamedTuple):
    """Fourier components of the averages, rows ordered as in `fourier.basis`."""

    first: Float[Array, "P C"]  # over a: averaged over b
    second: Float[Array, "P C"]  # over b: averaged over a
    sum: Float[Array, "P C"]  # over a + b
    difference: Float[Array, "P C"]  # over a - b

    @property
    def apart(self) -> "Spectra":
        """The same, each function of (a, b) once: the sign of a - b, which is that of a + b, left out."""
        if self.difference.shape[0] % 2:
            return self
        return self._replace(difference=jnp.asarray(self.difference).at[-1].set(0))

    def along(self, direction: int | None) -> Float[Array, "P C"]:
        """The components over a + b for direction +1 or none, over a - b for -1."""
        return self.difference if direction == -1 else self.sum


def spectra(grid_NxC: Float[Array, "N C"], p: int) -> Spectra:
    """The components of all four averages of a function on the grid, pair (a, b) in row a * P + b."""
    averages = platforms.choose(partial(_averages_by_rows, p=p), partial(_averages, p=p), jnp.asarray(grid_NxC))
    return Spectra(*map(fourier.transform, averages))


def _averages(grid_NxC: jax.Array, p: int) -> tuple[jax.Array, ...]:
    grid_PxPxC = grid_NxC.reshape(p, p, -1)
    sums = fourier.sum_mean(grid_NxC, p, 1), fourier.sum_mean(grid_NxC, p, -1)
    return jnp.mean(grid_PxPxC, 1), jnp.mean(grid_PxPxC, 0), *sums


def _averages_by_rows(grid_NxC: jax.Array, p: int) -> tuple[jax.Array, ...]:
    """Computes `_averages` in one pass over a: the pairs of a lie together, and turned by a places, in order of sum.

    On a CPU this is faster, since a core's cache holds the sums.
    """
    grid_PxPxC = jnp.asarray(grid_NxC).reshape(p, p, -1)

    def add(a, sums):
        first_PxC, second_PxC, total_PxC, minus_PxC = sums
        row_PxC = grid_PxPxC[a]
        twice = jnp.concatenate([row_PxC, row_PxC])
        by_sum_PxC = jax.lax.dynamic_slice_in_dim(twice, p - a, p)
        by_minus_PxC = jax.lax.dynamic_slice_in_dim(twice, a, p)  # b - a
        first_PxC = first_PxC.at[a].set(jnp.sum(row_PxC, 0))
        return first_PxC, second_PxC + row_PxC, total_PxC + by_sum_PxC, minus_PxC + by_minus_PxC

    first_PxC, second_PxC, total_PxC, minus_PxC = jax.lax.fori_loop(0, p, add, (jnp.zeros_like(grid_PxPxC[0]),) * 4)
    difference_PxC = jnp.roll(minus_PxC[::-1], 1, 0)
    return tuple(x / p for x in (first_PxC, second_PxC, total_PxC, difference_PxC))


def mean_of_some(grid_NxC: Float[Array, "N C"], chosen_N: Bool[Array, " N"], p: int, direction: int = 1):
    """Averages a function of (a, b) over those pairs of equal a + b (a - b for direction -1) that are chosen.

    Returns:
      The average over the chosen pairs of sum s in row s, [P, C], 0 where there are none; and their number, [P].
    """
    grid_NxC = jnp.asarray(grid_NxC)
    kept_NxC = jnp.where(chosen_N[:, None], grid_NxC, 0)
    n_P = jnp.sum(chosen_N[fourier.sum_index(p, direction)], 1)
    by_rows, at_once = (partial(function, p=p, direction=direction) for function in (_sums_by_rows, _sums))
    sums_PxC = platforms.choose(by_rows, at_once, kept_NxC)
    return sums_PxC / jnp.maximum(n_P, 1)[:, None].astype(grid_NxC.dtype), n_P


def _sums(grid_NxC: jax.Array, p: int, direction: int) -> jax.Array:
    return jnp.sum(grid_NxC[fourier.sum_index(p, direction)], 1)


def _sums_by_rows(grid_NxC: jax.Array, p: int, direction: int) -> jax.Array:
    """Computes `_sums` row by row, as `_averages_by_rows` does, and for its reason."""
    grid_PxPxC = grid_NxC.reshape(p, p, -1)

    def add(a, total_PxC):
        row_PxC = grid_PxPxC[a]
        start = p - a if direction == 1 else a  # for -1 row s holds b - a = s
        return total_PxC + jax.lax.dynamic_slice_in_dim(jnp.concatenate([row_PxC, row_PxC]), start, p)

    total_PxC = jax.lax.fori_loop(0, p, add, jnp.zeros_like(grid_PxPxC[0]))
    return total_PxC if direction == 1 else jnp.roll(total_PxC[::-1], 1, 0)


def energy(some: tuple[Float[Array, "P C"], ...]) -> Float[Array, "K C"]:
    """Squared norm over the grid of the parts that some of the averages give each frequency.

    Of several averages take those that are `apart`. Every value of an average stands for P pairs, hence the factor.
    """
    p = some[0].shape[0]
    return p * fourier.per_freq(sum(x_PxC**2 for x_PxC in some))  # type: ignore[arg-type]


def keep(parts: Spectra, freqs_K: Bool[Array, " K"]) -> Float[Array, "N C"]:
    """The projection on the constant and the non-constant products of each of some frequencies."""
    p, c = parts.first.shape
    keep_P = fourier.per_component(freqs_K.astype(parts.first.dtype), p)
    first, second, total, difference = (fourier.inverse(keep_P[:, None] * x_PxC) for x_PxC in parts.apart)
    constant_C = parts.first[0] * fourier.basis(p)[0, 0]
    of_one = (first[:, None] + (second + constant_C)[None]).reshape(p * p, c)
    return of_one + total[fourier.sums(p, 1)] + difference[fourier.sums(p, -1)]
