"""The model: a transformer token by token (`core.transformer`), factored for one layer, which is faster, or an MLP.

Parameters travel as a flat dict from TransformerLens's state-dict keys ("embed.W_E", "blocks.0.attn.W_Q", …) to arrays
in TransformerLens's axes:

    W_E [d_vocab, d_model]   W_pos [n_ctx, d_model]   W_Q, W_K, W_V [n_heads, d_model, d_head]   W_O [n_heads, d_head,
    d_model]   W_in [d_model, d_mlp]   b_in [d_mlp]   W_out [d_mlp, d_model]   b_out [d_model]   W_U [d_model, P]

The input is a, b, "=" with "=" as token P; the answer is read above "=". No LayerNorm, no biases but b_in and b_out,
untied embeddings (Nanda et al. 2023, §3.1): what `ModelConfig` changes of that goes token by token. An MLP (`core.mlp`)
may take its place, or a family of one's own (`register`): `init`, `forward` and what follows serve all. Size letters: B
batch, T position (3, or 2), V vocabulary, D d_model, H heads, E d_head, M d_mlp, P residues, N = P² pairs, X = H + D
columns of a table.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from grokjax.core import families, mlp, transformer
from grokjax.core.architecture import N_CTX as N_CTX
from grokjax.core.architecture import ModelConfig as ModelConfig
from grokjax.core.families import register as register
from grokjax.core.families import shapes as shapes
from grokjax.core.pairs import Pairs
from grokjax.core.pairs import grid as grid
from grokjax.core.pairs import lookup as lookup
from grokjax.core.pairs import spread as spread
from grokjax.core.products import ACTIVATIONS as ACTIVATIONS
from grokjax.core.products import FACTORED_ACTIVATIONS, dense, dense_transposed
from grokjax.core.transformer import Transformer as Transformer
from grokjax.core.transformer import flatten as flatten
from grokjax.core.transformer import module as module
from grokjax.core.transformer import token_by_token as token_by_token
from grokjax.core.transformer import tokens as tokens
from grokjax.core.transformer import unembedding as unembedding

Params = dict[str, jax.Array]


def init(cfg: ModelConfig, key: Key[Array, ""], init_scale: Float[Array, ""] | float = 1.0) -> Params:
    """Initial parameters (PAPER set-up: normal, 1/√d_model, W_U 1/√d_vocab, biases 0), all times `init_scale`.

    LayerNorm begins with w = 1 and b = 0, whatever `init_scale`.
    """
    return families.get(cfg.architecture).init(cfg, key, init_scale)


def n_parameters(cfg: ModelConfig) -> int:
    """Counts the numbers that `shapes` has; quick, however large the model."""
    return _of(cfg).n_parameters(cfg)


def _of(cfg: ModelConfig):
    """The module of the shape's family, that of `families` for one's own."""
    return mlp if cfg.is_mlp else transformer if cfg.is_transformer else families


# --- factored ---------------------------------------------------------------------------------------------------------


class Tables(NamedTuple):
    """Products of one layer's parameters, as far as they need no pair; the factored forward is a function of these.

    Attributes:
      a_PxX: first token's scores (one per head) and then values, X = H + D.
      b_PxX: the second token's.
      last_X: those of "=".
      in_DxM: from the heads' weighted values into the neurons, W_O W_in.
      in_M: bias there.
      out_PxM: from the neurons to the logits, W_L.
      skip_PxD: from the weighted values to the logits past the MLP.
      skip_P: bias there.
    """

    a_PxX: Float[Array, "P X"]
    b_PxX: Float[Array, "P X"]
    last_X: Float[Array, " X"]
    in_DxM: Float[Array, "D M"]
    in_M: Float[Array, " M"]
    out_PxM: Float[Array, "P M"]
    skip_PxD: Float[Array, "P D"]
    skip_P: Float[Array, " P"]


def tables(cfg: ModelConfig, params: Params) -> Tables:
    """The one-layer model's tables.

    Keys and values depend on (token, position) alone and the query is one vector, so scores and values are tables
    over tokens. The attention output enters the MLP and the logits linearly, so W_O is folded into both, and W_out
    into W_U likewise. Exact algebra, no approximation.
    """
    p, h, e = cfg.p, cfg.n_heads, cfg.d_head
    W_E, W_pos = params["embed.W_E"], params["pos_embed.W_pos"]
    W_Q, W_K, W_V = (params[f"blocks.0.attn.{name}"] for name in ("W_Q", "W_K", "W_V"))
    W_U, W_in, b_in = params["unembed.W_U"], params["blocks.0.mlp.W_in"], params["blocks.0.mlp.b_in"]
    W_O = params["blocks.0.attn.W_O"].reshape(cfg.d_model, cfg.d_model)
    last_D = W_E[p] + W_pos[2]
    q_HxE = jnp.einsum("d,hde->he", last_D, W_Q) / np.sqrt(e)
    W_KQ_DxH = jnp.einsum("he,hde->dh", q_HxE, W_K)
    both_DxX = jnp.concatenate([W_KQ_DxH, W_V.transpose(1, 0, 2).reshape(cfg.d_model, h * e)], 1)
    return Tables(
        a_PxX=(W_E[:p] + W_pos[0]) @ both_DxX,
        b_PxX=(W_E[:p] + W_pos[1]) @ both_DxX,
        last_X=last_D @ both_DxX,
        in_DxM=W_O @ W_in,
        in_M=last_D @ W_in + b_in,
        out_PxM=neuron_to_logit(cfg, params),
        skip_PxD=(W_O @ W_U).T,
        skip_P=(last_D + params["blocks.0.mlp.b_out"]) @ W_U,
    )


def factored_tables(cfg: ModelConfig, t: Tables, pairs: Pairs) -> tuple[Float[Array, "B P"], Float[Array, "B M"]]:
    """Computes `factored` from the model's tables."""
    _, z_BxHxE = attend(cfg, t, pairs)
    z_BxX = z_BxHxE.reshape(-1, cfg.d_model)
    acts_BxM = FACTORED_ACTIVATIONS[cfg.act](dense(z_BxX, t.in_DxM, t.in_M))
    return dense_transposed(acts_BxM, t.out_PxM) + (dense_transposed(z_BxX, t.skip_PxD) + t.skip_P), acts_BxM


def attend(cfg: ModelConfig, t: Tables, pairs: Pairs) -> tuple[Float[Array, "B H 3"], Float[Array, "B H E"]]:
    """The pattern from "=" over a, b, "=" and the weighted values z: a softmax over three positions per pair."""
    if pairs.pairs_last:
        return _attend_pairs_last(cfg, t, pairs)
    h, e = cfg.n_heads, cfg.d_head
    a_BxX, b_BxX = spread(pairs, t.a_PxX, t.b_PxX)
    n = a_BxX.shape[0]
    scores = jnp.stack([a_BxX[:, :h], b_BxX[:, :h], jnp.broadcast_to(t.last_X[:h], (n, h))], 2)
    pattern_BxHx3 = jax.nn.softmax(scores, 2)
    v_a, v_b = a_BxX[:, h:].reshape(n, h, e), b_BxX[:, h:].reshape(n, h, e)
    w_a, w_b, w_last = (pattern_BxHx3[:, :, i, None] for i in range(3))
    return pattern_BxHx3, w_a * v_a + w_b * v_b + w_last * t.last_X[h:].reshape(h, e)


def _attend_pairs_last(cfg: ModelConfig, t: Tables, pairs: Pairs) -> tuple[jax.Array, jax.Array]:
    """Computes `attend` for a TPU, whose memory comes in tiles of 8 × 128: as a last axis, heads are padded to 128.

    Scores stand apart from values, with pairs last; a product with a constant spreads the weights over their heads'
    columns. The three weights of a pair add up to 1, so that values may be counted from those of "=", which saves one.
    """
    h, e = cfg.n_heads, cfg.d_head
    last_H, last_D = t.last_X[:h], t.last_X[h:]
    a_BxH, b_BxH = spread(pairs, t.a_PxX[:, :h], t.b_PxX[:, :h])
    scores = jnp.stack([a_BxH.T, b_BxH.T, jnp.broadcast_to(last_H[:, None], a_BxH.T.shape)])
    pattern_3xHxB = jax.nn.softmax(scores, 0)
    a_BxD, b_BxD = spread(pairs, t.a_PxX[:, h:] - last_D, t.b_PxX[:, h:] - last_D)
    columns_HxD = jnp.repeat(jnp.eye(h, dtype=scores.dtype), e, 1)
    w_a, w_b = (pattern_3xHxB[i].T @ columns_HxD for i in range(2))
    return pattern_3xHxB.transpose(2, 1, 0), (w_a * a_BxD + w_b * b_BxD + last_D).reshape(-1, h, e)


def factored(cfg: ModelConfig, params: Params, pairs: Pairs) -> tuple[Float[Array, "B P"], Float[Array, "B M"]]:
    """Runs the one-layer model, with nothing computed that the answer does not depend on; see `tables`.

    Returns:
      Logits, and MLP activations after the nonlinearity.
    """
    return factored_tables(cfg, tables(cfg, params), pairs)


def forward(
    cfg: ModelConfig, params: Params, pairs: Pairs, key: Key[Array, ""] | None = None
) -> tuple[Float[Array, "B P"], Float[Array, "B M"]]:
    """Logits and last-layer activations: factored for the paper's layer, token by token, an MLP's, or one's own.

    Args:
      cfg: the model's shape.
      params: its parameters.
      pairs: to be read.
      key: of a training step, from which dropout draws; None for none.
    """
    return families.get(cfg.architecture).forward(cfg, params, pairs, key)


def _init_transformer(cfg: ModelConfig, key, init_scale) -> Params:
    return flatten(Transformer(cfg, rngs=nnx.Rngs(params=key), init_scale=init_scale))


def _transformer(cfg: ModelConfig, params: Params, pairs: Pairs, key):
    return factored(cfg, params, pairs) if cfg.is_factored else token_by_token(cfg, params, pairs, key)


register(_transformer, init=_init_transformer, name="transformer")
register(mlp.forward, init=mlp.init, name="mlp")


def forward_grid(
    cfg: ModelConfig, params: Params, pairs_last: bool = False
) -> tuple[Float[Array, "N P"], Float[Array, "N M"]]:
    """Runs `forward` on all P² pairs."""
    return forward(cfg, params, grid(cfg.p, pairs_last))


def neuron_to_logit(cfg: ModelConfig, params: Params) -> Float[Array, "P M"]:
    """W_L: the last layer's W_out and then W_U (Nanda et al. 2023, §3.1); of others W_U."""
    return transformer.neuron_to_logit(cfg, params) if cfg.is_transformer else mlp.neuron_to_logit(params)


def token_embedding(cfg: ModelConfig, params: Params) -> Float[Array, "P X"]:
    """W_E without "="; where a and b have embeddings of their own, both side by side."""
    return _of(cfg).token_embedding(cfg, params)
