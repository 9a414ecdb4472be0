"""The intermediates of models of a finite group: what `Shared` reads by frequencies is read by the group's blocks.

Where `Shared` speaks of sums, these are the products a∘b, and of frequencies, the blocks but the constant's, in order.

Multiplication and division modulo a prime are read in the group of the non-zero residues: pairs and classes with a zero
have no part in what is a function of the product, or in neurons' shares, and keep their logits where others' change.

Size letters as in `measures.shared`, but P the group's elements, K its blocks but the constant's, D the functions of a
block.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from grokjax import tasks
from grokjax.core import composition, fourier, losses
from grokjax.core.composition import Composition
from grokjax.core.problem import Problem
from grokjax.finite_groups import named
from grokjax.measures.shared import Shared
from grokjax.measures.vectors import ratio


def composition_of(problem: Problem) -> Composition | None:
    """The composition by whose blocks a problem's models are read; None where it is by frequencies of Z_P."""
    p = problem.model.p
    if problem.group == tasks.units(p):
        return composition.of_units(p, problem.direction or 1)
    return composition.in_group(named(problem.group)) if problem.group else None


def n_sums(problem: Problem) -> int:
    """The number of sums, or of products in the group that a problem is read by."""
    if problem.group == tasks.units(problem.model.p):  # whose table is large where P is, and not needed here
        return problem.model.p - 1
    read_by = composition_of(problem)
    return read_by.order if read_by else problem.model.p


def n_blocks(problem: Problem) -> int:
    """The length of a column over blocks: their number but the constant's, or the number of frequencies."""
    if problem.group == tasks.units(problem.model.p):
        return fourier.n_freqs(problem.model.p - 1)
    read_by = composition_of(problem)
    return len(read_by.blocks.sizes) - 1 if read_by else fourier.n_freqs(problem.model.p)


def described(problems: Iterable[Problem]) -> dict[str, dict[str, Any]]:
    """The blocks that lists over frequencies run over, by group, ready for JSON; empty where all are frequencies.

    Returns:
      By group: names, dimensions of the irreducible representations, types, and numbers of functions of the blocks.
    """
    return {str(problem.group): blocks_of(problem) for problem in problems if problem.group}


def blocks_of(problem: Problem) -> dict[str, Any]:
    """The blocks of one problem, as `described` gives them; of a problem that is read by some."""
    read_by = composition_of(problem)
    assert read_by
    return {name: list(getattr(read_by.blocks, name)[1:]) for name in ("names", "dims", "kinds", "sizes")}


def shared_of(problem: Problem, *args, **kwargs) -> Shared:
    """Makes the intermediates of a model of a problem; arguments as for `Shared`, without the first two."""
    read_by = composition_of(problem)
    kwargs |= {"nonzero_b": problem.nonzero_b, "objective": losses.get(problem.loss)}
    if read_by is None:
        return Shared(problem.model, problem.direction, *args, **kwargs)
    return BlockShared(read_by, problem.model, None, *args, **kwargs)


class BlockShared(Shared):
    """The intermediates of a model of a group.

    Args:
      composition: of the group.
      *args, **kwargs: as for `Shared`; the direction is None.
    """

    in_blocks = True

    def __init__(self, composition: Composition, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.composition, self.blocks = composition, composition.blocks

    @property
    def has_sum(self) -> bool:
        return True

    @property
    def n_freqs(self) -> int:
        return len(self.blocks.sizes) - 1

    # --- functions of the product -------------------------------------------------------------------------------

    @cached_property
    def sum_spectrum_PxP(self) -> Float[Array, "P P"]:
        return self.composition.transform(self.composition.mean(self.logits_NxP))

    @cached_property
    def trig_coef_K(self) -> Float[Array, " K"]:
        """Coefficient of the logits on χ_ρ(a∘b∘c⁻¹) for each block."""
        return self.composition.coefficients(self.sum_spectrum_PxP)

    @cached_property
    def trig_sq_K(self) -> Float[Array, " K"]:
        return self.composition.character_squares(self.sum_spectrum_PxP)

    @cached_property
    def logit_share_K(self) -> Float[Array, " K"]:
        return ratio(self.composition.squares(self.sum_spectrum_PxP), self.sum_centred_sq)

    @cached_property
    def train_sums_B(self) -> Int[Array, " B"]:
        return jnp.asarray(self.composition.products)[self.train_pairs_B]

    @property
    def pairs_per_sum(self) -> int:
        return self.composition.order

    @property
    def has_waves(self) -> bool:
        return self.blocks.names[-1].startswith("k=")

    @cached_property
    def n_train_summed(self) -> int | Int[Array, ""]:
        return self.train_pairs_B.shape[0] if self.composition.is_whole else jnp.sum(self.train_per_sum_P)

    @cached_property
    def _summed_logits_PxPxP(self) -> Float[Array, "P P P"]:
        return self.composition.square(self.logits_NxP)[..., self.composition.elements]

    @cached_property
    def sum_centred_sq(self) -> Float[Array, ""]:
        if self.composition.is_whole:
            return self.centred_logit_sq
        return jnp.sum((self._summed_logits_PxPxP - jnp.mean(self._summed_logits_PxPxP)) ** 2)

    @cached_property
    def sum_class_sq(self) -> Float[Array, ""]:
        if self.composition.is_whole:
            return self.class_logit_sq
        return jnp.sum((self._summed_logits_PxPxP - jnp.mean(self._summed_logits_PxPxP, 2, keepdims=True)) ** 2)

    def excluded_loss(self, part_PxP: Float[Array, "P P"]) -> Float[Array, ""]:
        return super().excluded_loss(part_PxP if self.composition.is_whole else self.composition.whole(part_PxP))

    @cached_property
    def train_per_sum_P(self) -> Int[Array, " P"]:
        return jnp.sum(self.train_mask_N[self.composition.pairs], 1)

    @cached_property
    def answers_per_sum_P(self) -> Int[Array, " P"]:
        if self.composition.is_whole:
            return self.answers_N[self.composition.pairs[:, 0]]
        return jnp.arange(self.composition.order)

    @cached_property
    def key_components_P(self) -> Float[Array, " P"]:
        return self.blocks.per_row(self.key_freqs_K.astype(self.logits_NxP.dtype))

    @cached_property
    def key_part_PxP(self) -> Float[Array, "P P"]:
        return self.composition.part(self.sum_spectrum_PxP, self.key_freqs_K)

    @cached_property
    def restricted_logits_PxP(self) -> Float[Array, "P P"]:
        return self.composition.restricted(self.sum_spectrum_PxP, self.key_freqs_K)

    @cached_property
    def heldout_mask_N(self) -> Bool[Array, " N"]:
        """The test pairs that nothing trained on gives away: mirror images with one answer are both test pairs."""
        train_PxP = self.train_mask_N.reshape(self.cfg.p, self.cfg.p)
        products_PxP = self.composition.products.reshape(self.cfg.p, self.cfg.p)
        return ~(train_PxP | train_PxP.T & (products_PxP == products_PxP.T)).ravel()

    @cached_property
    def heldout_mean(self) -> tuple[Float[Array, "P P"], Int[Array, " P"]]:
        return self.composition.mean_of_some(self.logits_NxP, self.heldout_mask_N)

    @cached_property
    def heldout_logits_PxP(self) -> Float[Array, "P P"]:
        return self.composition.restricted(self.composition.transform(self.heldout_mean[0]), self.key_freqs_K)

    @cached_property
    def excluded_loss_per_freq_K(self) -> Float[Array, " K"]:
        """Training loss after removing one block, for each."""
        basis_QxP, spectrum_QxP = map(
            fourier.with_zero_row, (jnp.asarray(self.blocks.basis, self.logits_NxP.dtype), self.sum_spectrum_PxP)
        )
        return self.excluded_losses(basis_QxP, spectrum_QxP, jnp.asarray(self.blocks.rows))

    # --- single blocks over the grid and in the weights ---------------------------------------------------------

    @cached_property
    def neuron_energies(self) -> tuple[Float[Array, "K M"], Float[Array, " M"]]:
        """Squared norms of each neuron's parts in span{1, B}(a) ⊗ span{1, B}(b), and of all of it, less its mean."""
        basis_PxP, blocks = jnp.asarray(self.blocks.basis, self.acts_NxM.dtype), self.blocks
        acts_PxPxM = self.composition.square(self.acts_NxM)
        centred_PxPxM = acts_PxPxM - jnp.mean(acts_PxPxM, (0, 1))
        by_a_PxPxM = jnp.einsum("xa,abm->xbm", basis_PxP, centred_PxPxM)
        of_one_PxM = (basis_PxP @ by_a_PxPxM[0]) ** 2 + jnp.einsum("b,xbm->xm", basis_PxP[0], by_a_PxPxM) ** 2
        energies_KxM = blocks.per_block(of_one_PxM)
        sizes_K = np.array(blocks.sizes[1:])
        for size in sorted(set(blocks.sizes[1:])):  # those of one size are a batch
            alike = np.flatnonzero(sizes_K == size)
            rows_KxD = blocks.rows[alike, :size]
            both_KxDxDxM = jnp.einsum("kyb,kxbm->kxym", basis_PxP[rows_KxD], by_a_PxPxM[rows_KxD])
            energies_KxM = energies_KxM.at[alike].add(jnp.sum(both_KxDxDxM**2, (1, 2)))
        return energies_KxM, jnp.sum(centred_PxPxM**2, (0, 1))

    @cached_property
    def neuron_fit(self) -> tuple[Int32[Array, " M"], Float[Array, " M"]]:
        energies_KxM, total_M = self.neuron_energies
        mean_M = jnp.mean(self.composition.square(self.acts_NxM), (0, 1))
        # What rounding leaves of a constant is no variance.
        varies_M = total_M > self.composition.order**2 * (16 * jnp.finfo(total_M.dtype).eps * mean_M) ** 2
        fve_M = jnp.where(varies_M, jnp.max(energies_KxM, 0) / jnp.where(varies_M, total_M, 1), 0)
        return jnp.where(varies_M, jnp.argmax(energies_KxM, 0) + 1, 0).astype(jnp.int32), fve_M

    @cached_property
    def norms_W_E(self) -> tuple[Float[Array, " P"], Float[Array, " K"]]:
        return self._norms(self.W_E_PxY[self.tokens])

    @cached_property
    def norms_W_L(self) -> tuple[Float[Array, " P"], Float[Array, " K"]]:
        return self._norms(self.W_L_PxM[self.tokens])

    @property
    def tokens(self) -> slice | Int32[np.ndarray, " P"]:
        """Those that stand for elements, in order of elements."""
        return slice(self.cfg.p) if self.composition.is_whole else self.composition.elements

    def _norms(self, x_PxX) -> tuple[Float[Array, " P"], Float[Array, " K"]]:
        squares_P = jnp.sum(self.composition.transform(jnp.asarray(x_PxX)) ** 2, 1)
        return jnp.sqrt(squares_P), jnp.sqrt(self.blocks.per_block(squares_P))
