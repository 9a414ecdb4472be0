"""The intermediates that measures share, each computed once and only if a measure asks for it.

Size letters: N all P² pairs, B training pairs, P residues (also sums s = a ± b), K = P//2 frequencies, M d_mlp, X
principal components, Y columns of W_E.
"""

from collections.abc import Callable
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from grokjax import tasks
from grokjax.core import fourier, losses, model, platforms
from grokjax.errors import unknown
from grokjax.measures import marginals
from grokjax.measures.vectors import ratio

Forward = tuple[Float[Array, "N P"], Float[Array, "N M"]]  # logits and activations

NEURON_FVE = 0.85  # from which on a neuron counts as one of its frequency (Nanda et al. 2023, §4.3)
BATCH_NUMBERS = 1 << 25  # logits of a run in one batch of excluded losses; 64 runs at a time still count in int32
LOGIT_SHARES = 3  # a frequency is key by "logits" with this many times the share it had if all shared alike


class Shared:
    """The intermediates of one model at one step, over the whole grid of pairs. Attributes are traced arrays.

    Every argument is an attribute too.

    Args:
      cfg: the model's shape.
      direction: +1 or -1 if the task's answer is a function of a + b or a - b, else None.
      params: the parameters, by TransformerLens key: "embed.W_E" [P + 1, d_model], "pos_embed.W_pos" [3, d_model];
        "blocks.0.attn.W_Q", "…W_K", "…W_V" [n_heads, d_model, d_head], "…W_O" [n_heads, d_head, d_model];
        "blocks.0.mlp.W_in" [d_model, d_mlp], "…b_in" [d_mlp], "…W_out" [d_mlp, d_model], "…b_out" [d_model];
        "unembed.W_U" [d_model, P]. Of an MLP those of core.mlp.
      train_pairs_B: each a * P + b.
      answers_N: the task's.
      key_freqs_K: the key frequencies to use; by default those of this very model.
      key_rule: a name in `KEY_RULES`, by which this model's key frequencies are found.
      key_threshold: for the rules W_L and W_E: what fraction of the largest norm a key frequency's must exceed.
      loss_fn: the training loss as a function of the parameters; by default the mean over the training pairs.
      update_fn: from gradients to the update that the next step adds to the parameters; None where the optimizer's
        state is not known.
      forward: from the model's shape and the parameters to logits and activations of all pairs, as
        `model.forward_grid` gives them; they need not be differentiable.
      nonzero_b: whether the task leaves out the pairs with b = 0.
    """

    def __init__(
        self,
        cfg: model.ModelConfig,
        direction: int | None,
        params: model.Params,
        train_pairs_B: Int[Array, " B"],
        answers_N: Int[Array, " N"],
        key_freqs_K: Bool[Array, " K"] | None = None,
        key_rule: str = "W_L",
        key_threshold: float = 0.25,
        loss_fn: Callable[[model.Params], Float[Array, ""]] | None = None,
        update_fn: Callable[[model.Params], model.Params] | None = None,
        forward: Callable[[model.ModelConfig, model.Params], Forward] = model.forward_grid,
        nonzero_b: bool = False,
    ):
        self.cfg, self.direction, self.params = cfg, direction, params
        self.train_pairs_B, self.answers_N = train_pairs_B, answers_N
        self.key_rule, self.key_threshold = key_rule, key_threshold
        self.loss_fn = loss_fn or self._mean_loss
        self.update_fn = update_fn
        self.forward, self.nonzero_b = forward, nonzero_b
        if key_freqs_K is not None:
            self.key_freqs_K = key_freqs_K

    in_blocks = False  # whether functions of a∘b in a group are read by its blocks, and not by frequencies

    @property
    def has_waves(self) -> bool:
        """Whether single functions of what models are read by are cosines and sines."""
        return True

    @property
    def has_sum(self) -> bool:
        """Whether the task's answer is a function of the sum."""
        return self.direction is not None

    @property
    def n_freqs(self) -> int:
        """K."""
        return fourier.n_freqs(self.cfg.p)

    @property
    def pairs_per_sum(self) -> int:
        """The number of pairs of each sum, which is that of sums, too."""
        return self.cfg.p

    @property
    def n_train_summed(self) -> int | Int[Array, ""]:
        """The number of training pairs that have a sum."""
        return self.train_pairs_B.shape[0]

    @property
    def has_update(self) -> bool:
        """Whether the next update can be computed."""
        return self.update_fn is not None

    # --- the grid -----------------------------------------------------------------------------------------------

    @cached_property
    def _forward(self) -> Forward:
        return self.forward(self.cfg, self.params)

    @property
    def logits_NxP(self) -> Float[Array, "N P"]:
        """Logits of every pair."""
        return self._forward[0]

    @property
    def acts_NxM(self) -> Float[Array, "N M"]:
        """The last layer's MLP activations (of a transformer above "=") for every pair."""
        return self._forward[1]

    @cached_property
    def loss_N(self) -> Float[Array, " N"]:
        """Cross-entropy of every pair, nats."""
        return losses.cross_entropy(self.logits_NxP, self.answers_N)

    @cached_property
    def correct_N(self) -> Bool[Array, " N"]:
        """Whether each pair is answered right."""
        return losses.correct(self.logits_NxP, self.answers_N)

    @cached_property
    def train_mask_N(self) -> Bool[Array, " N"]:
        """Whether each pair is a training pair."""
        return jnp.zeros(self.cfg.p**2, bool).at[self.train_pairs_B].set(True, unique_indices=True)

    @property
    def untested_N(self) -> Bool[Array, " N"]:
        """Whether each pair is a training pair, or left out."""
        return self.train_mask_N | self.left_out_N if self.nonzero_b else self.train_mask_N

    @property
    def test_mask_N(self) -> Bool[Array, " N"]:
        """Whether each pair is a test pair."""
        return ~self.untested_N

    @property
    def left_out_N(self) -> Bool[np.ndarray, " N"]:
        """Whether the task leaves each pair out."""
        return (np.arange(self.cfg.p**2) % self.cfg.p == 0) & self.nonzero_b

    @property
    def n_test(self) -> int:
        """The number of test pairs."""
        return tasks.n_pairs(self.cfg.p, self.nonzero_b) - self.train_pairs_B.shape[0]

    @cached_property
    def train_logits_BxP(self) -> Float[Array, "B P"]:
        """Logits of the training pairs."""
        return self.logits_NxP[self.train_pairs_B]

    @cached_property
    def train_answers_B(self) -> Int[Array, " B"]:
        """Answers of the training pairs."""
        return self.answers_N[self.train_pairs_B]

    @cached_property
    def right_logit_N(self) -> Float[Array, " N"]:
        """The answer's logit for every pair."""
        right_NxP = jnp.asarray(self.answers_N)[:, None] == jnp.arange(self.cfg.p)
        return jnp.sum(jnp.where(right_NxP, self.logits_NxP, 0), 1)

    @cached_property
    def mean_logit_N(self) -> Float[Array, " N"]:
        """The mean over the classes of every pair's logits."""
        return jnp.mean(self.logits_NxP, 1)

    @cached_property
    def centred_logit_sq(self) -> Float[Array, ""]:
        """Sum of squares of the centred logits, that is of all P³ logits less their one mean."""
        return jnp.sum((self.logits_NxP - jnp.mean(self.logits_NxP)) ** 2)

    @cached_property
    def class_logit_sq(self) -> Float[Array, ""]:
        """Sum of squares of the logits, each pair's less their mean over the classes."""
        return jnp.sum((self.logits_NxP - self.mean_logit_N[:, None]) ** 2)

    @property
    def sum_centred_sq(self) -> Float[Array, ""]:
        """`centred_logit_sq` of the pairs that have a sum, and of the classes that are one."""
        return self.centred_logit_sq

    @property
    def sum_class_sq(self) -> Float[Array, ""]:
        """`class_logit_sq` of the same."""
        return self.class_logit_sq

    @cached_property
    def float32_train_logits_BxP(self) -> Float[Array, "B P"]:
        """Logits of the training pairs as training computes them, in float32, whatever else is computed in."""
        if self.logits_NxP.dtype == jnp.float32:
            return self.train_logits_BxP
        params = {key: jnp.asarray(value, jnp.float32) for key, value in self.params.items()}
        return jnp.asarray(self.forward(self.cfg, params)[0], jnp.float32)[self.train_pairs_B]

    # --- single frequencies over the grid -----------------------------------------------------------------------

    @cached_property
    def logit_spectra(self) -> marginals.Spectra:
        """The logits' components of single frequencies in a, b, a + b and a - b."""
        return marginals.spectra(self.logits_NxP, self.cfg.p)

    @cached_property
    def neuron_fit(self) -> tuple[Int32[Array, " M"], Float[Array, " M"]]:
        """Each neuron's best frequency, from 1, and the share of its centred variance that the non-constant products
        of that frequency explain; both 0 for a neuron whose activation is the same for all pairs.
        """
        energy_KxM = marginals.energy(marginals.spectra(self.acts_NxM, self.cfg.p).apart)
        mean_M = jnp.mean(self.acts_NxM, 0)
        total_M = jnp.sum((self.acts_NxM - mean_M) ** 2, 0)
        # What rounding leaves of a constant is no variance.
        varies_M = total_M > self.cfg.p**2 * (16 * jnp.finfo(total_M.dtype).eps * mean_M) ** 2
        fve_M = jnp.where(varies_M, jnp.max(energy_KxM, 0) / jnp.where(varies_M, total_M, 1), 0)
        return jnp.where(varies_M, jnp.argmax(energy_KxM, 0) + 1, 0).astype(jnp.int32), fve_M

    @cached_property
    def neurons_per_freq_K(self) -> Int32[Array, " K"]:
        """The number of neurons that each frequency explains over 85 % of."""
        freq_M, fve_M = self.neuron_fit
        of_freq_KxM = freq_M == jnp.arange(1, self.n_freqs + 1)[:, None]
        return jnp.sum(of_freq_KxM & (fve_M > NEURON_FVE), 1, dtype=jnp.int32)

    # --- functions of the sum -----------------------------------------------------------------------------------

    @cached_property
    def sum_spectrum_PxP(self) -> Float[Array, "P P"]:
        """Fourier components over s of the logits averaged over pairs of equal sum: [component, logit].

        It determines the restricted and the excluded logits for any set of keys.
        """
        return self.logit_spectra.along(self.direction)

    @cached_property
    def trig_coef_K(self) -> Float[Array, " K"]:
        """Coefficient of the logits on cos(w_k(a ± b - c)) for each k.

        cos(w_k(s - c)) = cos cos + sin sin, whose coefficients are the diagonal of the logits' transform over s and c.
        """
        c_P = jnp.sum(self.sum_spectrum_PxP * jnp.asarray(fourier.basis(self.cfg.p), self.logits_NxP.dtype), 1)
        return fourier.per_freq(c_P) / self.cfg.p

    @cached_property
    def trig_sq_K(self) -> Float[Array, " K"]:
        """Sum of squares over the P³ logits of each α_k cos(w_k(a ± b - c)); different k are orthogonal."""
        squares_K = self.trig_coef_K**2 * self.cfg.p**3 / 2
        if self.cfg.p % 2 == 0:
            squares_K *= 2 / fourier.freq_sizes(self.cfg.p).astype(squares_K.dtype)  # the sign's square is 1, not ½
        return squares_K

    @cached_property
    def logit_share_K(self) -> Float[Array, " K"]:
        """The share of the centred logits' variance in the sum directions of each frequency."""
        return ratio(jnp.sum(marginals.energy((self.sum_spectrum_PxP,)), 1), self.centred_logit_sq)

    @cached_property
    def train_sums_B(self) -> Int[Array, " B"]:
        """s of the training pairs."""
        return jnp.asarray(fourier.sums(self.cfg.p, self.direction or 1))[self.train_pairs_B]

    @cached_property
    def train_per_sum_P(self) -> Int[Array, " P"]:
        """The number of training pairs of sum s."""
        return jnp.sum(self.train_mask_N[fourier.sum_index(self.cfg.p, self.direction or 1)], 1)

    @cached_property
    def answers_per_sum_P(self) -> Int[Array, " P"]:
        """The answer to the pairs of sum s."""
        return self.answers_N[fourier.sum_index(self.cfg.p, self.direction or 1)[:, 0]]

    @cached_property
    def key_part_PxP(self) -> Float[Array, "P P"]:
        """The logits' projection on the sum directions of the keys, without the constant: [s, logit]."""
        return fourier.inverse(self.key_components_P[:, None] * self.sum_spectrum_PxP)

    @cached_property
    def key_components_P(self) -> Float[Array, " P"]:
        """1 at every component of a key frequency, 0 elsewhere."""
        return fourier.per_component(self.key_freqs_K.astype(self.logits_NxP.dtype), self.cfg.p)

    @cached_property
    def restricted_logits_PxP(self) -> Float[Array, "P P"]:
        """The logits' projection on the constant and the sum directions of the keys: [s, logit]."""
        return self.key_part_PxP + self.sum_spectrum_PxP[0] * fourier.basis(self.cfg.p)[0, 0]

    @cached_property
    def restricted_loss_P(self) -> Float[Array, " P"]:
        """Cross-entropy of the restricted logits for each sum."""
        return losses.cross_entropy(self.restricted_logits_PxP, self.answers_per_sum_P)

    @cached_property
    def heldout_mask_N(self) -> Bool[Array, " N"]:
        """The test pairs that nothing trained on gives away: of a + b, those whose mirror image (b, a) is one too."""
        train_PxP = self.train_mask_N.reshape(self.cfg.p, self.cfg.p)
        return ~(train_PxP | train_PxP.T if self.direction == 1 else train_PxP).ravel()

    @cached_property
    def heldout_mean(self) -> tuple[Float[Array, "P P"], Int[Array, " P"]]:
        """The logits averaged over the held-out pairs of sum s, [s, logit], and the number of these pairs."""
        return marginals.mean_of_some(self.logits_NxP, self.heldout_mask_N, self.cfg.p, self.direction or 1)

    @cached_property
    def heldout_logits_PxP(self) -> Float[Array, "P P"]:
        """The restricted logits that the held-out pairs alone give, [s, logit]: of their averages over each sum, each
        sum counting alike, the projection on the constant and the keys. Means something where every sum has one.
        """
        keep_P = self.key_components_P.at[0].set(1)
        return fourier.inverse(keep_P[:, None] * fourier.transform(self.heldout_mean[0]))

    @cached_property
    def has_heldout_pairs(self) -> Bool[Array, ""]:
        """Whether every sum has a held-out pair."""
        return jnp.min(self.heldout_mean[1]) > 0

    @cached_property
    def excluded_loss_per_freq_K(self) -> Float[Array, " K"]:
        """Training loss after removing the sum directions of one frequency, for each.

        A CPU takes one at a time, so that its caches hold it; elsewhere they are a batch, or few batches, since each
        would be some kernels too small to fill a device.
        """
        basis_PxP = jnp.asarray(fourier.basis(self.cfg.p), self.sum_spectrum_PxP.dtype)
        spectrum_PxP = self.sum_spectrum_PxP
        if self.cfg.p % 2 == 0:
            basis_PxP, spectrum_PxP = map(fourier.with_zero_row, (basis_PxP, spectrum_PxP))
        return self.excluded_losses(basis_PxP, spectrum_PxP, jnp.asarray(fourier.harmonics(self.cfg.p).rows))

    def excluded_losses(
        self, basis_QxP: Float[Array, "Q P"], spectrum_QxP: Float[Array, "Q P"], rows_KxX: Int[Array, "K X"]
    ) -> Float[Array, " K"]:
        """Training loss after removing what some rows of a basis hold of the logits' spectrum, for each set of rows."""

        def without(k):
            rows = rows_KxX[k]
            part_PxP = basis_QxP[rows].T @ spectrum_QxP[rows]
            return self.excluded_loss(part_PxP)

        # Made here: what is first made inside the loop belongs to its trace and must not be kept.
        _ = self.train_others_BxP, self.train_right_B, self.train_sums_B
        all_K = jnp.arange(len(rows_KxX))
        n_batches = -(-all_K.size * self.train_others_BxP.size // BATCH_NUMBERS)
        size = -(-all_K.size // min(n_batches, all_K.size))
        return platforms.choose(
            lambda all_K: jax.lax.map(without, all_K),
            lambda all_K: jax.lax.map(without, all_K, batch_size=size),
            all_K,
        )

    @cached_property
    def train_others_BxP(self) -> Float[Array, "B P"]:
        """Logits of the training pairs with -∞ at the answer."""
        right_BxP = self.train_answers_B[:, None] == jnp.arange(self.cfg.p)
        return jnp.where(right_BxP, -jnp.inf, self.train_logits_BxP)

    @cached_property
    def train_right_B(self) -> Float[Array, " B"]:
        """The answer's logit of the training pairs."""
        return jnp.take_along_axis(self.train_logits_BxP, self.train_answers_B[:, None], 1)[:, 0]

    def excluded_loss(self, part_PxP: Float[Array, "P P"]) -> Float[Array, ""]:
        """Mean training loss after subtracting a function of the sum, [s, logit], from the logits."""
        others_BxP = self.train_others_BxP - part_PxP[self.train_sums_B]
        right_B = self.train_right_B - part_PxP[self.train_sums_B, self.train_answers_B]
        return jnp.mean(losses.cross_entropy_of(others_BxP, right_B))

    # --- weights ------------------------------------------------------------------------------------------------

    @cached_property
    def W_L_PxM(self) -> Float[Array, "P M"]:
        """The neuron-to-logit map."""
        return model.neuron_to_logit(self.cfg, self.params)

    @property
    def W_E_PxY(self) -> Float[Array, "P Y"]:
        """W_E, "=" left out; of an MLP whose embeddings are separate, those of a and of b side by side."""
        return model.token_embedding(self.cfg, self.params)

    @cached_property
    def norms_W_E(self) -> tuple[Float[Array, " P"], Float[Array, " K"]]:
        """Fourier norms of W_E along the token axis, "=" left out: per component and per frequency."""
        return fourier.norms(self.W_E_PxY)

    @cached_property
    def norms_W_L(self) -> tuple[Float[Array, " P"], Float[Array, " K"]]:
        """Fourier norms of W_L along the logit axis: per component and per frequency."""
        return fourier.norms(self.W_L_PxM)

    @cached_property
    def pca_W_E(self) -> tuple[Float[Array, "P X"], Float[Array, " X"]]:
        """Principal components of W_E, "=" left out, as unit functions of the token, and their sizes."""
        W_E_PxY = jnp.asarray(self.W_E_PxY)
        components_PxX, sizes_X, _ = jnp.linalg.svd(W_E_PxY - jnp.mean(W_E_PxY, 0), full_matrices=False)
        return components_PxX, sizes_X

    # --- key frequencies ----------------------------------------------------------------------------------------

    @cached_property
    def key_freqs_K(self) -> Bool[Array, " K"]:
        """The key frequencies in use."""
        return self.keys_by(self.key_rule)

    def keys_by(self, rule: str) -> Bool[Array, " K"]:
        """This model's key frequencies by a rule in `KEY_RULES`.

        Raises:
          InputError: there is no such rule.
        """
        if rule not in KEY_RULES:
            raise unknown("config.key_rule", rule, KEY_RULES)
        return KEY_RULES[rule](self)

    # --- derivatives --------------------------------------------------------------------------------------------

    def _mean_loss(self, params: model.Params) -> Float[Array, ""]:
        # Nothing cached is used: this may run inside a trace of its own.
        logits_BxP, _ = model.forward(self.cfg, params, model.lookup(self.train_pairs_B, self.cfg.p))
        return jnp.mean(losses.cross_entropy(logits_BxP, self.answers_N[self.train_pairs_B]))

    @cached_property
    def grads(self) -> model.Params:
        """Gradient of the training loss, by parameter."""
        return jax.grad(self.loss_fn)(self.params)

    @cached_property
    def updates(self) -> model.Params:
        """The update that the next step adds to the parameters."""
        assert self.update_fn, "measures with needs_update are left out where there is no optimizer state"
        return self.update_fn(self.grads)


def _outstanding(norms_K: Float[Array, " K"], threshold: float) -> Bool[Array, " K"]:
    return norms_K > threshold * jnp.max(norms_K)


def logit_share_threshold(n_freqs: int) -> float:
    """The share of the logits' variance above which a frequency is key: 3 / (P//2), at most a half."""
    return min(LOGIT_SHARES / n_freqs, 0.5)


# The sets of key frequencies of a model that one may choose from.
KEY_RULES: dict[str, Callable[[Shared], Bool[Array, " K"]]] = {
    "W_L": lambda s: _outstanding(s.norms_W_L[1], s.key_threshold),
    "W_E": lambda s: _outstanding(s.norms_W_E[1], s.key_threshold),
    "neurons": lambda s: s.neurons_per_freq_K > 0,
    "logits": lambda s: s.logit_share_K > logit_share_threshold(s.n_freqs),
}
