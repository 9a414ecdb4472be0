"""The intermediates that measures share, each computed once and only if a measure asks for it.

Size letters: N all P² pairs, B training pairs, P residues (also sums s = a ± b), K frequencies, M d_mlp.
"""

from functools import cached_property

import jax
import jax.numpy as jnp

from grokjax import fourier, losses, model


class Shared:
    """One model at one step, seen over the whole grid of pairs. Attributes are traced arrays.

    Args:
      cfg: the model's shape.
      direction: +1 or -1 if the task's answer is a function of a + b or a - b, else None.
      params: the parameters, by TransformerLens key.
      train_pairs_B: int32 [n_train], a * P + b.
      answers_N: int32 [P²].
      key_freqs_K: bool [(P-1)//2], the key frequencies to use; by default those of this very model.
      key_threshold: a frequency is key if its norm in W_L is above this fraction of the largest.
    """

    def __init__(
        self,
        cfg: model.ModelConfig,
        direction: int | None,
        params: model.Params,
        train_pairs_B: jax.Array,
        answers_N: jax.Array,
        key_freqs_K: jax.Array | None = None,
        key_threshold: float = 0.25,
    ):
        self.cfg, self.direction, self.params = cfg, direction, params
        self.train_pairs_B, self.answers_N = train_pairs_B, answers_N
        self.key_threshold = key_threshold
        if key_freqs_K is not None:
            self.key_freqs_K = key_freqs_K

    # --- the grid -----------------------------------------------------------------------------------------------

    @cached_property
    def _forward(self) -> tuple[jax.Array, jax.Array]:
        return model.forward(self.cfg, self.params, model.grid(self.cfg.p))

    @property
    def logits_NxP(self) -> jax.Array:
        """Logits of every pair."""
        return self._forward[0]

    @property
    def acts_NxM(self) -> jax.Array:
        """The last layer's MLP activations above "=" for every pair."""
        return self._forward[1]

    @cached_property
    def loss_N(self) -> jax.Array:
        """Cross-entropy of every pair, nats."""
        return losses.cross_entropy(self.logits_NxP, self.answers_N)

    @cached_property
    def correct_N(self) -> jax.Array:
        """Whether each pair is answered right."""
        return losses.correct(self.logits_NxP, self.answers_N)

    @cached_property
    def train_mask_N(self) -> jax.Array:
        """Whether each pair is a training pair."""
        return jnp.zeros(self.cfg.p**2, bool).at[self.train_pairs_B].set(True, unique_indices=True)

    @cached_property
    def train_logits_BxP(self) -> jax.Array:
        """Logits of the training pairs."""
        return self.logits_NxP[self.train_pairs_B]

    @cached_property
    def train_answers_B(self) -> jax.Array:
        """Answers of the training pairs."""
        return self.answers_N[self.train_pairs_B]

    # --- functions of the sum -----------------------------------------------------------------------------------

    @cached_property
    def sum_spectrum_PxP(self) -> jax.Array:
        """Fourier components over s of the logits averaged over pairs of equal sum: [component, logit].

        It determines the restricted and the excluded logits for any set of keys.
        """
        return fourier.transform(fourier.sum_mean(self.logits_NxP, self.cfg.p, self.direction or 1))

    @cached_property
    def train_sums_B(self) -> jax.Array:
        """s of the training pairs."""
        return jnp.asarray(fourier.sums(self.cfg.p, self.direction or 1))[self.train_pairs_B]

    @cached_property
    def train_per_sum_P(self) -> jax.Array:
        """How many training pairs have sum s, int."""
        return jnp.sum(self.train_mask_N[fourier.sum_index(self.cfg.p, self.direction or 1)], 1)

    @cached_property
    def answers_per_sum_P(self) -> jax.Array:
        """The answer to the pairs of sum s."""
        return self.answers_N[fourier.sum_index(self.cfg.p, self.direction or 1)[:, 0]]

    @cached_property
    def key_part_PxP(self) -> jax.Array:
        """The logits' projection on the sum directions of the keys, without the constant: [s, logit]."""
        keep_P = fourier.per_component(self.key_freqs_K.astype(self.sum_spectrum_PxP.dtype), self.cfg.p)
        return fourier.inverse(keep_P[:, None] * self.sum_spectrum_PxP)

    @cached_property
    def restricted_logits_PxP(self) -> jax.Array:
        """The logits' projection on the constant and the sum directions of the keys: [s, logit]."""
        return self.key_part_PxP + self.sum_spectrum_PxP[0] * fourier.basis(self.cfg.p)[0, 0]

    @cached_property
    def restricted_loss_P(self) -> jax.Array:
        """Cross-entropy of the restricted logits for each sum."""
        return losses.cross_entropy(self.restricted_logits_PxP, self.answers_per_sum_P)

    @cached_property
    def excluded_loss_per_freq_K(self) -> jax.Array:
        """Training loss after removing the sum directions of one frequency, for each; one at a time to save memory."""
        basis_PxP = jnp.asarray(fourier.basis(self.cfg.p), self.sum_spectrum_PxP.dtype)

        def without(k):
            rows = 2 * k + 1 + jnp.arange(2)
            part_PxP = basis_PxP[rows].T @ self.sum_spectrum_PxP[rows]
            return self.excluded_loss(part_PxP)

        return jax.lax.map(without, jnp.arange(fourier.n_freqs(self.cfg.p)))

    def excluded_loss(self, part_PxP: jax.Array) -> jax.Array:
        """Mean training loss after subtracting a function of the sum, [s, logit], from the logits."""
        logits_BxP = self.train_logits_BxP - part_PxP[self.train_sums_B]
        return jnp.mean(losses.cross_entropy(logits_BxP, self.train_answers_B))

    # --- weights ------------------------------------------------------------------------------------------------

    @cached_property
    def W_L_PxM(self) -> jax.Array:
        """The neuron-to-logit map."""
        return model.neuron_to_logit(self.cfg, self.params)

    @cached_property
    def norms_W_E(self) -> tuple[jax.Array, jax.Array]:
        """Fourier norms of W_E along the token axis, "=" left out: per component [P] and per frequency [K]."""
        return fourier.norms(self.params["embed.W_E"][: self.cfg.p])

    @cached_property
    def norms_W_L(self) -> tuple[jax.Array, jax.Array]:
        """Fourier norms of W_L along the logit axis: per component [P] and per frequency [K]."""
        return fourier.norms(self.W_L_PxM)

    @cached_property
    def key_freqs_K(self) -> jax.Array:
        """The key frequencies in use, bool."""
        norms_K = self.norms_W_L[1]
        return norms_K > self.key_threshold * jnp.max(norms_K)
