"""What a task computes as composition in a group: which pairs have the same product, and logits read by its blocks.

Addition and subtraction modulo P are composition in Z_P, of a and b or of a and -b, in a finite group it is the task
itself, and multiplication and division modulo a prime are composition in the cyclic group of order P - 1, by discrete
logarithms; pairs with a zero are left out of it, and the class 0 too.

The logits' mean over the pairs of each product s, m[s, c], is their projection on the functions of s. Everything else
is computed from its transform over s, which is one row per function of a block: [row, c].

Size letters: G elements of the group, K its blocks but the constant's, P tokens and classes, N = P² pairs.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from grokjax.core import harmonics
from grokjax.core.harmonics import Blocks
from grokjax.finite_groups import Group, named
from grokjax.tasks import UNITS, Task


@dataclasses.dataclass(frozen=True, eq=False)
class Composition:
    """Composition in a group, over the grid of a task's pairs.

    Attributes:
      blocks: of the group.
      elements: the token, and class, that stands for each element.
      pairs: those of product s in row s, numbered a * P + b.
      products: the product of every pair; -1 where there is none.
    """

    blocks: Blocks
    elements: Int32[np.ndarray, " G"]
    pairs: Int32[np.ndarray, "G G"]
    products: Int32[np.ndarray, " N"]

    @property
    def order(self) -> int:
        """The number of elements."""
        return len(self.elements)

    def mean(self, grid_NxP: Float[Array, "N P"]) -> Float[Array, "G G"]:
        """The mean of logits over the pairs of product s: [s, c], classes in order of elements."""
        return jnp.mean(self._of_elements(grid_NxP)[self.pairs], 1)

    def mean_of_some(
        self, grid_NxP: Float[Array, "N P"], chosen_N: Bool[Array, " N"]
    ) -> tuple[Float[Array, "G G"], Int32[Array, " G"]]:
        """The mean over those pairs of product s that are chosen, 0 where there are none; and their number."""
        n_G = jnp.sum(jnp.asarray(chosen_N)[self.pairs], 1, dtype=jnp.int32)
        kept_NxG = jnp.where(jnp.asarray(chosen_N)[:, None], self._of_elements(grid_NxP), 0)
        return jnp.sum(kept_NxG[self.pairs], 1) / jnp.maximum(n_G, 1)[:, None].astype(kept_NxG.dtype), n_G

    @property
    def is_whole(self) -> bool:
        """Whether every token is an element, in order."""
        return self.order**2 == len(self.products)

    def square(self, x_NxX: Float[Array, "N ..."]) -> Float[Array, "G G ..."]:
        """Values at the pairs of elements, [a, b], in order of elements."""
        x_NxX, p = jnp.asarray(x_NxX), math.isqrt(len(self.products))
        square = x_NxX.reshape(p, p, *x_NxX.shape[1:])
        return square if self.is_whole else square[np.ix_(self.elements, self.elements)]

    def with_square(self, x_NxX: Float[Array, "N ..."], square: Float[Array, "G G ..."]) -> Float[Array, "N ..."]:
        """The inverse of `square`: x with other values at the pairs of elements."""
        if self.is_whole:
            return square.reshape(x_NxX.shape)
        pairs_GxG = self.elements[:, None] * math.isqrt(len(self.products)) + self.elements
        return jnp.asarray(x_NxX).at[pairs_GxG].set(square)

    def whole(self, x_GxG: Float[Array, "G G"], elsewhere: float = 0) -> Float[Array, "Q P"]:
        """A function of product and class, [s, c], at every class, and for no product in a last row: some number."""
        rows = jnp.full((self.order + 1, math.isqrt(len(self.products))), elsewhere, x_GxG.dtype)
        return rows.at[:-1, self.elements].set(x_GxG)

    def of_pairs(self, x_GxG: Float[Array, "G G"], elsewhere: float = 0) -> Float[Array, "N P"]:
        """A function of product and class, [s, c], at every pair and class; some number where either is no element."""
        return (x_GxG if self.is_whole else self.whole(x_GxG, elsewhere))[self.products]

    def _of_elements(self, grid_NxP: Float[Array, "N P"]) -> Float[Array, "N G"]:
        grid_NxP = jnp.asarray(grid_NxP)
        return grid_NxP if self.is_whole else grid_NxP[:, self.elements]

    def transform(self, x_GxC: Float[Array, "G ..."]) -> Float[Array, "G ..."]:
        """Components of functions of an element, along the first axis, in rows as in `blocks.basis`."""
        return jnp.tensordot(jnp.asarray(self.blocks.basis, x_GxC.dtype), x_GxC, 1)

    def part(self, spectrum_GxC: Float[Array, "G C"], keep_K: Bool[Array, " K"]) -> Float[Array, "G C"]:
        """The function of s that some blocks hold, the constant not among them."""
        kept_GxC = self.blocks.per_row(keep_K.astype(spectrum_GxC.dtype))[:, None] * spectrum_GxC
        return jnp.tensordot(jnp.asarray(self.blocks.basis.T, kept_GxC.dtype), kept_GxC, 1)

    def restricted(self, spectrum_GxC: Float[Array, "G C"], keep_K: Bool[Array, " K"]) -> Float[Array, "G C"]:
        """The function of s that the constant and some blocks hold."""
        return self.part(spectrum_GxC, keep_K) + spectrum_GxC[0] * self.blocks.basis[0, 0]

    def excluded(
        self, grid_NxP: Float[Array, "N P"], spectrum_GxC: Float[Array, "G C"], keep_K: Bool[Array, " K"]
    ) -> Float[Array, "N P"]:
        """Logits less the part of some blocks; as they are where pair or class is no element."""
        return jnp.asarray(grid_NxP) - self.of_pairs(self.part(spectrum_GxC, keep_K))

    def squares(self, spectrum_GxC: Float[Array, "G C"]) -> Float[Array, " K"]:
        """Sum of squares over pairs and classes of each block's part; every value of a mean stands for G pairs."""
        return self.order * jnp.sum(self.blocks.per_block(spectrum_GxC**2), 1)

    def traces(self, spectrum_GxC: Float[Array, "G G"]) -> Float[Array, " K"]:
        """⟨m, P_B⟩ for the projection P_B of each block, as a function of s and c."""
        return self.blocks.per_block(jnp.sum(spectrum_GxC * jnp.asarray(self.blocks.basis, spectrum_GxC.dtype), 1))

    def coefficients(self, spectrum_GxC: Float[Array, "G G"]) -> Float[Array, " K"]:
        """α_ρ, the coefficient of the logits on χ_ρ(s∘c⁻¹), χ_ρ being the block's character."""
        degrees_K = self.blocks.characters[1:, self.identity]
        return self.traces(spectrum_GxC) / jnp.asarray(degrees_K * self.order, spectrum_GxC.dtype)

    def of_characters(self, coefficients_K: Float[Array, " K"]) -> Float[Array, "G G"]:
        """Σ α_ρ χ_ρ(s∘c⁻¹) at [s, c], of coefficients α_ρ."""
        # χ_ρ(s∘c⁻¹) is the block's projection times this.
        scale_K = self.blocks.characters[1:, self.identity] * self.order / np.array(self.blocks.sizes[1:])
        basis_GxG = jnp.asarray(self.blocks.basis, coefficients_K.dtype)
        per_row_G = self.blocks.per_row(coefficients_K * jnp.asarray(scale_K, coefficients_K.dtype))
        return basis_GxG.T @ (per_row_G[:, None] * basis_GxG)

    def character_squares(self, spectrum_GxC: Float[Array, "G G"]) -> Float[Array, " K"]:
        """Sum of squares over pairs and classes of each α_ρ χ_ρ(a∘b∘c⁻¹); those of different blocks are orthogonal."""
        sizes_K = jnp.asarray(self.blocks.sizes[1:], spectrum_GxC.dtype)
        return self.order * self.traces(spectrum_GxC) ** 2 / sizes_K

    @functools.cached_property
    def identity(self) -> int:
        """The number of the identity, where characters are largest."""
        return int(np.argmax(self.blocks.characters.sum(0)))


@functools.lru_cache(64)
def of_task(task: Task, p: int) -> Composition | None:
    """The composition that a task is; None where it is none that is known."""
    if task.group:
        return in_group(task.group)
    if task.name in UNITS:
        return of_units(p, UNITS[task.name])
    direction = task.direction_at(p)
    return in_group(named(f"Z_{p}"), direction) if direction else None


def in_group(group: Group, direction: int = 1) -> Composition:
    """Composition a∘b in a group, or for direction -1 a∘b⁻¹, which is a - b in Z_P."""
    elements = np.arange(group.order, dtype=np.int32)
    return _composition(group, elements, group.order, direction)


def of_units(p: int, direction: int = 1) -> Composition:
    """Multiplication of the non-zero residues modulo a prime, or for direction -1 division."""
    return _composition(named(f"Z_{p - 1}"), powers(p), p, direction)


def _composition(group: Group, elements: Int32[np.ndarray, " G"], p: int, direction: int) -> Composition:
    n = group.order
    products_GxG = group.table if direction == 1 else group.table[:, group.inverses]
    rows = np.argsort(products_GxG, 1)  # [a, s]: the b with which a has the product s
    pairs = elements[None] * p + elements[rows].T
    products_N = np.full(p * p, -1, np.int32)
    products_N[pairs] = np.arange(n)[:, None]
    return Composition(harmonics.of_group(group), elements, pairs.astype(np.int32), products_N)


@functools.cache
def powers(p: int) -> Int32[np.ndarray, " G"]:
    """The powers g⁰, g¹, … modulo a prime, g being its smallest primitive root; i is the discrete logarithm of gⁱ."""
    for g in range(1, p):
        found = [1]
        while (following := found[-1] * g % p) != 1:
            found.append(following)
        if len(found) == p - 1:
            return np.array(found, np.int32)
    raise AssertionError(f"{p} is no prime")
