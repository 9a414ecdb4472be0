"""A model taken apart: what its weights read and write, and what it answers with a part replaced.

Size letters as in `grokjax.measures.shared`, and D d_model, H heads, E d_head.
"""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from grokjax.core import fourier, losses, model
from grokjax.measures import marginals
from grokjax.measures.marginals import Spectra
from grokjax.measures.shared import NEURON_FVE, Shared
from grokjax.measures.vectors import ratio

LAST = 2  # the position of "="


class Anatomy(Shared):
    """Its parts over the whole grid of pairs; arguments as for `Shared`. Attributes are traced arrays.

    Attention and the skips are of one layer as the paper has it, the neurons and W_L the last layer's of any model.
    """

    def _param(self, name: str) -> jax.Array:
        return next(x for key, x in self.params.items() if key.endswith(f".{name}"))

    # --- attention ----------------------------------------------------------------------------------------------

    @cached_property
    def _inputs(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What attention reads at a, b [P, D] and "=" [D]: tokens and their positions."""
        W_E, W_pos = self._param("W_E"), self._param("W_pos")
        p = self.cfg.p
        return W_E[:p] + W_pos[0], W_E[:p] + W_pos[1], W_E[p] + W_pos[LAST]

    @property
    def last_D(self) -> jax.Array:
        """What the skip around attention carries above "=": the same for all pairs."""
        return self._inputs[LAST]

    @cached_property
    def pattern_NxHx3(self) -> jax.Array:
        """Attention from "=" to a, b and "="."""
        return model.attend(self.cfg, model.tables(self.cfg, self.params), model.grid(self.cfg.p))[0]

    @property
    def to_a_NxH(self) -> jax.Array:
        """Attention from "=" to a."""
        return self.pattern_NxHx3[:, :, 0]

    @cached_property
    def score_gap_NxH(self) -> jax.Array:
        """The score of a less that of b."""
        q_HxE = jnp.einsum("d,hde->he", self.last_D, self._param("W_Q")) / np.sqrt(self.cfg.d_head)
        W_KQ_DxH = jnp.einsum("he,hde->dh", q_HxE, self._param("W_K"))
        a_PxD, b_PxD, _ = self._inputs
        return ((a_PxD @ W_KQ_DxH)[:, None] - (b_PxD @ W_KQ_DxH)[None]).reshape(self.cfg.p**2, -1)

    def attend(self, pattern_NxHx3: jax.Array) -> jax.Array:
        """What attention adds above "=" with a given pattern, [N, D]."""
        p = self.cfg.p
        a_PxHxE, b_PxHxE, last_HxE = (jnp.einsum("...d,hde->...he", x, self._param("W_V")) for x in self._inputs)
        pattern = pattern_NxHx3.reshape(p, p, -1, 3, 1)
        z = pattern[:, :, :, 0] * a_PxHxE[:, None] + pattern[:, :, :, 1] * b_PxHxE[None]
        z_NxHxE = (z + pattern[:, :, :, LAST] * last_HxE).reshape(p * p, *last_HxE.shape)
        return jnp.einsum("nhe,hed->nd", z_NxHxE, self._param("W_O"))

    @cached_property
    def attn_out_NxD(self) -> jax.Array:
        """What attention adds above "="."""
        return self.attend(self.pattern_NxHx3)

    @property
    def sizes_K(self) -> np.ndarray:
        """The number of functions of each frequency."""
        return fourier.freq_sizes(self.cfg.p)

    @cached_property
    def attention_energy_KxH(self) -> jax.Array:
        """Squares of attention to a that multiples of cos w_k a - cos w_k b and sin w_k a - sin w_k b explain.

        Both functions have the squared norm P² over the grid (the sign's one has 2P², as it has twice the unit
        vector's share); the first two averages hold all their products with
        the attention.
        """
        of = marginals.spectra(self.to_a_NxH, self.cfg.p)
        return self.cfg.p * fourier.per_freq((of.first - of.second) ** 2) / 2

    # --- the MLP ------------------------------------------------------------------------------------------------

    def answer(self, resid_mid_NxD: jax.Array) -> jax.Array:
        """Logits from the residual stream above "=" after attention, [N, P]."""
        pre_NxM = resid_mid_NxD @ self._param("W_in") + self._param("b_in")
        return self.mlp_logits(model.ACTIVATIONS[self.cfg.act](pre_NxM)) + self.skip_logits(resid_mid_NxD)

    def mlp_logits(self, acts_NxM: jax.Array) -> jax.Array:
        """What the neurons add to the logits: activations times W_L."""
        return acts_NxM @ self.W_L_PxM.T

    def skip_logits(self, resid_mid_NxD: jax.Array) -> jax.Array:
        """What the skip around the MLP, and b_out, add to the logits."""
        return (resid_mid_NxD + self._param("b_out")) @ self._param("W_U")

    @cached_property
    def skip_NxP(self) -> jax.Array:
        """`skip_logits` of this model."""
        return self.skip_logits(self.attn_out_NxD + self.last_D)

    def with_acts(self, acts_NxM: jax.Array) -> jax.Array:
        """Logits with other activations of the last layer, all else being the same; of models without LayerNorm."""
        if not self.cfg.is_factored:
            return self.logits_NxP + self.mlp_logits(acts_NxM - self.acts_NxM)
        return self.mlp_logits(acts_NxM) + self.skip_NxP

    # --- W_L ----------------------------------------------------------------------------------------------------

    @cached_property
    def W_L_spectrum_PxM(self) -> jax.Array:
        """W_L's components along the logits: in rows 2k - 1 and 2k, √(P/2) times u_k and v_k."""
        return fourier.transform(self.W_L_PxM)

    @cached_property
    def key_directions_XxM(self) -> jax.Array:
        """Orthonormal rows that span u_k and v_k of the keys; the rest of them zero."""
        _, sizes_X, rows_XxM = jnp.linalg.svd(self.key_components_P[:, None] * self.W_L_spectrum_PxM, False)
        some_X = sizes_X > sizes_X[0] * max(self.W_L_PxM.shape) * jnp.finfo(sizes_X.dtype).eps
        return jnp.where(some_X[:, None], rows_XxM, 0)

    @cached_property
    def read_acts_NxM(self) -> jax.Array:
        """The activations' projection on what W_L reads at the keys."""
        return self.acts_NxM @ self.key_directions_XxM.T @ self.key_directions_XxM

    @cached_property
    def readout_fve_P(self) -> jax.Array:
        """Share of each u_k·MLP's and v_k·MLP's centred variance that a multiple of cos or sin(w_k(a ± b)) explains."""
        p = self.cfg.p
        readout_NxP = self.acts_NxM @ self.W_L_spectrum_PxM.T
        total_P = jnp.sum((readout_NxP - jnp.mean(readout_NxP, 0)) ** 2, 0)
        along_PxP = fourier.transform(fourier.sum_mean(readout_NxP, p, self.direction or 1))
        return jnp.nan_to_num(ratio(p * jnp.diag(along_PxP) ** 2, total_P))

    # --- neurons ------------------------------------------------------------------------------------------------

    @cached_property
    def own_KxM(self) -> jax.Array:
        """Whether k is the neuron's best frequency and explains over 85 % of it."""
        freq_M, fve_M = self.neuron_fit
        return (freq_M == jnp.arange(1, self.n_freqs + 1)[:, None]) & (fve_M > NEURON_FVE)

    @cached_property
    def polynomials_NxM(self) -> jax.Array:
        """The activations, with every neuron that its best frequency explains over 85 % of replaced by its polynomial.

        The polynomial is the projection on the constant and the frequency's 8 products, which are all monomials of
        degree 2 or less in cos and sin of w_k a and of w_k b that have one factor of each.
        """
        p = self.cfg.p
        keep_PxM = jax.vmap(lambda own_K: fourier.per_component(own_K, p), 1, 1)(self.own_KxM).at[0].set(True)
        parts = Spectra(*(jnp.where(keep_PxM, x, 0) for x in marginals.spectra(self.acts_NxM, p)))
        every_K = jnp.ones(fourier.n_freqs(p), bool)
        return jnp.where(jnp.any(self.own_KxM, 0), marginals.keep(parts, every_K), self.acts_NxM)

    @cached_property
    def W_L_share_KxM(self) -> jax.Array:
        """Share of the squares of each neuron's column of W_L that each frequency has along the logits."""
        squares_PxM = self.W_L_spectrum_PxM**2
        return jnp.nan_to_num(ratio(fourier.per_freq(squares_PxM), jnp.sum(squares_PxM, 0)))

    # --- logits -------------------------------------------------------------------------------------------------

    @cached_property
    def cosines_NxP(self) -> jax.Array:
        """Σ α_k cos(w_k(a + b - c)) over the keys."""
        p = self.cfg.p
        coef_P = fourier.per_component(jnp.where(self.key_freqs_K, self.trig_coef_K, 0), p)
        # Rows 2k - 1 of the basis are √(2/P) cos(w_k n), and 1/√P for the sign: every second component is needed.
        scale_P = np.sqrt(p / np.append(1, np.repeat(self.sizes_K, self.sizes_K)))
        cosines_P = fourier.inverse(coef_P.at[2::2].set(0) * jnp.asarray(scale_P, coef_P.dtype))
        index = (fourier.sums(p, self.direction or 1)[:, None] - jnp.arange(p)) % p
        return cosines_P[index]

    @property
    def restricted_NxP(self) -> jax.Array:
        """The restricted logits of every pair."""
        return self.restricted_logits_PxP[fourier.sums(self.cfg.p, self.direction or 1)]

    @cached_property
    def key_products_NxP(self) -> jax.Array:
        """The logits' projection on the constant and the keys' products, 8 for each."""
        return marginals.keep(self.logit_spectra, self.key_freqs_K)

    def neurons_of(self, only_K: jax.Array) -> jax.Array:
        """What the products of some frequencies that the neurons hold add to the logits."""
        parts = marginals.spectra(self.mlp_logits(self.acts_NxM), self.cfg.p)
        constant_P = parts.first[0] * fourier.basis(self.cfg.p)[0, 0]
        return marginals.keep(parts, only_K) - constant_P

    @cached_property
    def logit_norms_PxP(self) -> jax.Array:
        """Norm over the logits of each product of two basis functions, of a and of b; the constant's is set to 0."""
        p = self.cfg.p
        basis_PxP = jnp.asarray(fourier.basis(p), self.logits_NxP.dtype)
        both = jnp.einsum("xa,yb,abc->xyc", basis_PxP, basis_PxP, self.logits_NxP.reshape(p, p, p))
        return jnp.linalg.norm(both, axis=2).at[0, 0].set(0)

    @cached_property
    def same_freq_PxP(self) -> np.ndarray:
        """Whether a product is one of {cos, sin}(w_k a) × {cos, sin}(w_k b)."""
        freq_P = (np.arange(self.cfg.p) + 1) // 2
        return (freq_P[:, None] == freq_P) & (freq_P > 0)

    # --- losses -------------------------------------------------------------------------------------------------

    @property
    def split(self) -> tuple[jax.Array, jax.Array]:
        """Whether each pair is one of the training pairs, and of the test pairs, that losses are on."""
        return self.train_mask_N, self.test_mask_N

    def mean_losses(self, logits_NxP: jax.Array) -> jax.Array:
        """Mean cross-entropy of some logits on all pairs, the training pairs and the test pairs, [3]; NaN for none."""
        loss_N = losses.cross_entropy(logits_NxP, self.answers_N)
        train_N, test_N = self.split
        parts = [train_N | test_N, train_N, test_N]
        return jnp.stack([ratio(jnp.sum(jnp.where(part, loss_N, 0)), jnp.sum(part)) for part in parts])
