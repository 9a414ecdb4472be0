"""The transformer, twice: token by token, which is the definition, and factored for one layer, which is faster.

Parameters travel as a flat dict from TransformerLens's state-dict keys ("embed.W_E", "blocks.0.attn.W_Q", …) to arrays
in TransformerLens's axes:

    W_E [d_vocab, d_model]   W_pos [n_ctx, d_model]   W_Q, W_K, W_V [n_heads, d_model, d_head]   W_O [n_heads, d_head,
    d_model]   W_in [d_model, d_mlp]   b_in [d_mlp]   W_out [d_mlp, d_model]   b_out [d_model]   W_U [d_model, P]

The input is a, b, "=" with "=" as token P; the answer is read above "=". No LayerNorm, no biases but b_in and b_out,
untied embeddings (Nanda et al. 2023, §3.1). An MLP (`core.mlp`) may take its place: `init`, `forward` and what follows
serve both. Size letters: B batch, T position (3), V vocabulary, D d_model, H heads, E d_head, M d_mlp, P residues, N =
P² pairs, X = H + D columns of a table.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from grokjax.core import mlp
from grokjax.core.pairs import Pairs, spread
from grokjax.core.pairs import grid as grid
from grokjax.core.pairs import lookup as lookup
from grokjax.core.products import ACTIVATIONS, FACTORED_ACTIVATIONS, dense, dense_transposed

Params = dict[str, jax.Array]

N_CTX = 3


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model's shape; names as in TransformerLens's HookedTransformerConfig."""

    p: int = 113
    n_layers: int = 1
    d_model: int = 128
    n_heads: int = 4
    d_mlp: int = 512
    act: str = "relu"
    architecture: str = "transformer"  # or "mlp", with
    inputs: str = "concatenated"  # or "summed" embeddings of a and b, which are
    embeddings: str = "separate"  # or "shared"

    @property
    def is_mlp(self) -> bool:
        """Whether it is an MLP, without attention, "=" and biases."""
        return self.architecture == "mlp"

    @property
    def is_factored(self) -> bool:
        """Whether it is a transformer whose forward pass is a function of its `tables`."""
        return self.n_layers == 1 and not self.is_mlp

    @property
    def d_head(self) -> int:
        """d_model over n_heads."""
        return self.d_model // self.n_heads

    @property
    def d_vocab(self) -> int:
        """The P residues, and of a transformer "="."""
        return self.p + (not self.is_mlp)

    @property
    def d_vocab_out(self) -> int:
        """The P residues."""
        return self.p


class _Normal:
    """Draws parameters in a fixed order: normal with a standard deviation of init_scale / √(fan).

    One draw is made for all of them and then cut, since each draw of its own costs a good part of a second to compile.
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs, scale):
        per_block = cfg.d_model * (4 * cfg.d_model + 2 * cfg.d_mlp)
        n = cfg.d_model * (cfg.d_vocab + N_CTX + cfg.d_vocab_out) + cfg.n_layers * per_block
        self.left, self.scale = jax.random.normal(rngs.params(), (n,)), scale

    def __call__(self, fan: int, *shape: int) -> nnx.Param:
        n = int(np.prod(shape))
        drawn, self.left = self.left[:n], self.left[n:]
        return nnx.Param(drawn.reshape(shape) * (self.scale / np.sqrt(fan)))


class Embed(nnx.Module):
    """Token embedding. A product with one-hot rows, whose transpose is again a product: no scatter in the gradient."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        self.W_E = normal(cfg.d_model, cfg.d_vocab, cfg.d_model)

    def __call__(self, tokens_BxT: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return jax.nn.one_hot(tokens_BxT, self.W_E.shape[0]) @ self.W_E[...]


class PosEmbed(nnx.Module):
    """Learned positions."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        self.W_pos = normal(cfg.d_model, N_CTX, cfg.d_model)


class Attention(nnx.Module):
    """Causal attention without biases; scores are divided by √d_head."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        to_head = (cfg.n_heads, cfg.d_model, cfg.d_head)
        self.W_Q = normal(cfg.d_model, *to_head)
        self.W_K = normal(cfg.d_model, *to_head)
        self.W_V = normal(cfg.d_model, *to_head)
        self.W_O = normal(cfg.d_model, cfg.n_heads, cfg.d_head, cfg.d_model)

    def pattern(self, x_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B H T T"]:
        """Attention weights by query and key."""
        q = jnp.einsum("btd,hde->bhte", x_BxTxD, self.W_Q[...])
        k = jnp.einsum("btd,hde->bhte", x_BxTxD, self.W_K[...])
        scores = jnp.einsum("bhqe,bhke->bhqk", q, k) / np.sqrt(q.shape[-1])
        causal = np.tril(np.ones((x_BxTxD.shape[1],) * 2, bool))
        return jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), -1)

    def __call__(self, x_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        v = jnp.einsum("btd,hde->bhte", x_BxTxD, self.W_V[...])
        z = jnp.einsum("bhqk,bhke->bhqe", self.pattern(x_BxTxD), v)
        return jnp.einsum("bhte,hed->btd", z, self.W_O[...])


class MLP(nnx.Module):
    """A hidden layer with biases."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        self.act = ACTIVATIONS[cfg.act]
        self.W_in = normal(cfg.d_model, cfg.d_model, cfg.d_mlp)
        self.b_in = nnx.Param(jnp.zeros(cfg.d_mlp))
        self.W_out = normal(cfg.d_model, cfg.d_mlp, cfg.d_model)
        self.b_out = nnx.Param(jnp.zeros(cfg.d_model))

    def __call__(self, x_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.act(x_BxTxD @ self.W_in[...] + self.b_in[...]) @ self.W_out[...] + self.b_out[...]


class Block(nnx.Module):
    """Attention, then the MLP, each added to the residual stream."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        self.attn = Attention(cfg, normal)
        self.mlp = MLP(cfg, normal)

    def __call__(self, x_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        x_BxTxD = x_BxTxD + self.attn(x_BxTxD)
        return x_BxTxD + self.mlp(x_BxTxD)


class Unembed(nnx.Module):
    """Logits over the P residues. The standard deviation is 1/√d_vocab, which counts "=", as in the paper's code."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        self.W_U = normal(cfg.d_vocab, cfg.d_model, cfg.d_vocab_out)

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... P"]:
        return x @ self.W_U[...]


class Transformer(nnx.Module):
    """The readable definition, token by token; any number of layers, heads and widths."""

    def __init__(self, cfg: ModelConfig, *, rngs: nnx.Rngs, init_scale: Float[Array, ""] | float = 1.0):
        normal = _Normal(cfg, rngs, init_scale)
        self.embed = Embed(cfg, normal)
        self.pos_embed = PosEmbed(cfg, normal)
        self.blocks = nnx.List([Block(cfg, normal) for _ in range(cfg.n_layers)])
        self.unembed = Unembed(cfg, normal)

    def __call__(self, tokens_BxT: Int[Array, "B T"]) -> Float[Array, "B P"]:
        """Logits above "=" of the tokens a, b, "="."""
        x_BxTxD = self.embed(tokens_BxT) + self.pos_embed.W_pos[...]
        for block in self.blocks:
            x_BxTxD = block(x_BxTxD)
        return self.unembed(x_BxTxD[:, -1])


def init(cfg: ModelConfig, key: Key[Array, ""], init_scale: Float[Array, ""] | float = 1.0) -> Params:
    """Initial parameters (PAPER set-up: normal, 1/√d_model, W_U 1/√d_vocab, biases 0), all times `init_scale`."""
    if cfg.is_mlp:
        return mlp.init(cfg, key, init_scale)
    return flatten(Transformer(cfg, rngs=nnx.Rngs(params=key), init_scale=init_scale))


def flatten(module: Transformer) -> Params:
    """A module's parameters under their TransformerLens keys."""
    return {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param))}


def shapes(cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter, by key; nothing is allocated."""
    return {key: leaf.shape for key, leaf in jax.eval_shape(lambda: init(cfg, jax.random.key(0))).items()}


def n_parameters(cfg: ModelConfig) -> int:
    """Counts the numbers that `shapes` has; quick, however large the model."""
    if cfg.is_mlp:
        return sum(rows * columns for rows, columns in mlp.shapes(cfg).values())
    per_layer = 4 * cfg.d_model**2 + 2 * cfg.d_model * cfg.d_mlp + cfg.d_mlp + cfg.d_model
    return (2 * cfg.p + 4) * cfg.d_model + cfg.n_layers * per_layer


def module(cfg: ModelConfig, params: Mapping[str, jax.Array]) -> Transformer:
    """The nnx module that holds these parameters."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(cfg, rngs=nnx.Rngs(0))))
    flat = [(path, leaf.replace(params[".".join(map(str, path))])) for path, leaf in nnx.to_flat_state(state)]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def tokens(pairs_B: Int[Array, " B"], p: int) -> Int[Array, "B 3"]:
    """Input tokens a, b, "=" of pairs numbered a * P + b."""
    return jnp.stack([pairs_B // p, pairs_B % p, jnp.full_like(pairs_B, p)], 1)


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


def token_by_token(cfg: ModelConfig, params: Params, pairs: Pairs) -> tuple[Float[Array, "B P"], Float[Array, "B M"]]:
    """Runs `Transformer` on these pairs, for any number of layers.

    Returns:
      Logits, and the last layer's MLP activations above "=".
    """
    net = module(cfg, params)
    x_BxTxD = net.embed(tokens(pairs.pairs_B, cfg.p)) + net.pos_embed.W_pos[...]
    for block in net.blocks[:-1]:
        x_BxTxD = block(x_BxTxD)
    mlp = net.blocks[-1].mlp
    x_BxD = (x_BxTxD + net.blocks[-1].attn(x_BxTxD))[:, -1]
    acts_BxM = mlp.act(x_BxD @ mlp.W_in[...] + mlp.b_in[...])
    return net.unembed(x_BxD + acts_BxM @ mlp.W_out[...] + mlp.b_out[...]), acts_BxM


def forward(cfg: ModelConfig, params: Params, pairs: Pairs) -> tuple[Float[Array, "B P"], Float[Array, "B M"]]:
    """Logits and last-layer MLP activations: factored for one layer, token by token otherwise, or an MLP's."""
    if cfg.is_mlp:
        return mlp.forward(cfg, params, pairs)
    return (factored if cfg.is_factored else token_by_token)(cfg, params, pairs)


def forward_grid(
    cfg: ModelConfig, params: Params, pairs_last: bool = False
) -> tuple[Float[Array, "N P"], Float[Array, "N M"]]:
    """Runs `forward` on all P² pairs."""
    return forward(cfg, params, grid(cfg.p, pairs_last))


def neuron_to_logit(cfg: ModelConfig, params: Params) -> Float[Array, "P M"]:
    """W_L: the last layer's W_out and then W_U (Nanda et al. 2023, §3.1); of an MLP W_U."""
    if cfg.is_mlp:
        return mlp.neuron_to_logit(params)
    return (params[f"blocks.{cfg.n_layers - 1}.mlp.W_out"] @ params["unembed.W_U"]).T


def token_embedding(cfg: ModelConfig, params: Params) -> Float[Array, "P X"]:
    """W_E without "="; of an MLP whose embeddings are separate, both side by side."""
    return mlp.token_embedding(params) if cfg.is_mlp else params["embed.W_E"][: cfg.p]
