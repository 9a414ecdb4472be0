"""A one-layer model of a finite group taken apart: what `Anatomy` reads by frequencies is read by the group's blocks.

Size letters as in `measures.blocks` and `circuit.anatomy`.
"""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from grokjax.core.problem import Problem
from grokjax.interp.circuit.anatomy import Anatomy
from grokjax.measures import blocks
from grokjax.measures.blocks import BlockShared
from grokjax.measures.vectors import ratio


def anatomy_of(problem: Problem, params, answers) -> Anatomy:
    """The parts of a model of a problem, without its training pairs."""
    rule, no_pairs = (problem.key_rule, problem.key_threshold), jnp.zeros(0, jnp.int32)
    args = (params, no_pairs, answers, None, *rule)
    if read_by := blocks.composition_of(problem):
        return BlockAnatomy(read_by, problem.model, None, *args, nonzero_b=problem.nonzero_b)
    return Anatomy(problem.model, problem.direction, *args, nonzero_b=problem.nonzero_b)


class BlockAnatomy(BlockShared, Anatomy):
    """One layer's parts; arguments as for `BlockShared`.

    What is replaced is replaced at pairs of elements, and losses are on these: of multiplication and division modulo a
    prime the pairs without a zero.
    """

    # --- attention and W_L --------------------------------------------------------------------------------------

    @property
    def sizes_K(self) -> np.ndarray:
        return np.array(self.blocks.sizes[1:], np.int32)

    @property
    def to_a_NxH(self) -> jax.Array:
        return self.composition.square(super().to_a_NxH).reshape(-1, self.cfg.n_heads)

    @cached_property
    def attention_energy_KxH(self) -> jax.Array:
        """Squares of attention to a that f(a) - f(b) explain, f being a function of a block."""
        to_a_PxPxH = self.composition.square(super().to_a_NxH)
        first, second = (self.composition.transform(jnp.mean(to_a_PxPxH, axis)) for axis in (1, 0))
        return self.composition.order * self.blocks.per_block((first - second) ** 2) / 2

    @cached_property
    def W_L_spectrum_PxM(self) -> jax.Array:
        return self.composition.transform(self.W_L_PxM[self.tokens])

    @cached_property
    def readout_share_K(self) -> Float[Array, " K"]:
        """Share of the centred variance of what W_L reads in each block, f(c)·MLP for its functions f, in α f(a∘b)."""
        readout_NxP = self.acts_NxM @ self.W_L_spectrum_PxM.T
        square = self.composition.square(readout_NxP)
        total_P = jnp.sum((square - jnp.mean(square, (0, 1))) ** 2, (0, 1))
        along_PxP = self.composition.transform(jnp.mean(readout_NxP[self.composition.pairs], 1))
        explained_K = self.composition.order * self.blocks.per_block(jnp.diag(along_PxP)) ** 2 / self.sizes_K
        return jnp.nan_to_num(ratio(explained_K, self.blocks.per_block(total_P)))

    @cached_property
    def W_L_share_KxM(self) -> jax.Array:
        squares_PxM = self.W_L_spectrum_PxM**2
        return jnp.nan_to_num(ratio(self.blocks.per_block(squares_PxM), jnp.sum(squares_PxM, 0)))

    # --- products of functions of a and of b --------------------------------------------------------------------

    def _products(self, x_NxX: Float[Array, "N X"]) -> Float[Array, "P P X"]:
        """Components on the products of two functions, of a and of b."""
        basis_PxP = jnp.asarray(self.blocks.basis, x_NxX.dtype)
        return jnp.einsum("xa,yb,abc->xyc", basis_PxP, basis_PxP, self.composition.square(x_NxX))

    def _kept(self, products: Float[Array, "P P X"], keep_K: Bool[Array, " K"]) -> Float[Array, "P P X"]:
        """Those in span{1, B}(a) ⊗ span{1, B}(b) of some blocks B, the constant not among them."""
        keep_P = self.blocks.per_row(keep_K.astype(products.dtype))
        same_PxP = self.blocks.block_of_row[:, None] == self.blocks.block_of_row
        mask_PxP = jnp.asarray(same_PxP, products.dtype) * keep_P
        return mask_PxP.at[0].set(keep_P).at[:, 0].set(keep_P)[..., None] * products

    def _whole(self, products: Float[Array, "P P X"]) -> Float[Array, "P P X"]:
        """The inverse of `_products`, at pairs of elements."""
        basis_PxP = jnp.asarray(self.blocks.basis, products.dtype)
        return jnp.einsum("xa,yb,xyc->abc", basis_PxP, basis_PxP, products)

    @cached_property
    def polynomials_NxM(self) -> jax.Array:
        """The activations, with every neuron that its best block explains over 85 % of replaced by its products."""
        products = self._products(self.acts_NxM)
        kept = jax.vmap(lambda x, own_K: self._kept(x[..., None], own_K)[..., 0], (2, 1), 2)(products, self.own_KxM)
        kept = kept.at[0, 0].set(products[0, 0])
        replaced = self.composition.with_square(self.acts_NxM, self._whole(kept))
        return jnp.where(jnp.any(self.own_KxM, 0), replaced, self.acts_NxM)

    # --- logits -------------------------------------------------------------------------------------------------

    @cached_property
    def cosines_NxP(self) -> jax.Array:
        """Σ α_ρ χ_ρ(a∘b∘c⁻¹) over the keys."""
        waves_PxP = self.composition.of_characters(jnp.where(self.key_freqs_K, self.trig_coef_K, 0))
        return self.composition.of_pairs(waves_PxP, -jnp.inf)

    @property
    def restricted_NxP(self) -> jax.Array:
        return self.composition.of_pairs(self.restricted_logits_PxP, -jnp.inf)

    @cached_property
    def key_products_NxP(self) -> jax.Array:
        products = self._products(self.logits_NxP)
        kept = self._kept(products, self.key_freqs_K).at[0, 0].set(products[0, 0])
        return self.composition.with_square(self.logits_NxP, self._whole(kept))

    @cached_property
    def _neuron_products(self) -> Float[Array, "P P P"]:
        return self._products(self.mlp_logits(self.acts_NxM))

    def neurons_of(self, only_K: jax.Array) -> jax.Array:
        part = self._whole(self._kept(self._neuron_products, only_K))
        return self.composition.with_square(jnp.zeros_like(self.logits_NxP), part)

    def without_block(self, only_K: Bool[Array, " K"]) -> Float[Array, "N P"]:
        """Logits less the functions of a∘b in some blocks."""
        return self.composition.excluded(self.logits_NxP, self.sum_spectrum_PxP, only_K)

    # --- losses -------------------------------------------------------------------------------------------------

    @property
    def split(self) -> tuple[Bool[Array, " N"], Bool[Array, " N"]]:
        has_product_N = self.composition.products >= 0
        return self.train_mask_N & has_product_N, self.test_mask_N & has_product_N
