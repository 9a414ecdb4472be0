"""The transformer token by token: the definition, and the way of every model that the factored forward does not serve.

Size letters as in `core.model`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from grokjax.core.architecture import N_CTX, ModelConfig
from grokjax.core.pairs import Pairs
from grokjax.core.products import ACTIVATIONS

EPS = 1e-5  # of LayerNorm, as in TransformerLens


class _Normal:
    """Draws parameters in a fixed order: normal with a standard deviation of init_scale / √(fan).

    One draw is made for all of them and then cut, since each draw of its own costs a good part of a second to compile.
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs, scale):
        self.left, self.scale = jax.random.normal(rngs.params(), (_n_drawn(cfg),)), scale

    def __call__(self, fan: int, *shape: int) -> nnx.Param:
        n = int(np.prod(shape))
        drawn, self.left = self.left[:n], self.left[n:]
        return nnx.Param(drawn.reshape(shape) * (self.scale / np.sqrt(fan)))


def _n_drawn(cfg: ModelConfig) -> int:
    """The number of weights that are drawn: all but biases and LayerNorm's."""
    per_block = cfg.d_model * (4 * cfg.n_heads * cfg.d_head + 2 * cfg.d_mlp)
    out = cfg.d_vocab_out if cfg.unembed == "own" else 0
    return cfg.d_model * (cfg.d_vocab + cfg.n_ctx + out) + cfg.n_layers * per_block


def n_parameters(cfg: ModelConfig) -> int:
    """The number of weights, those that are not drawn included."""
    norms = 2 * cfg.d_model * (2 * cfg.n_layers + 1) if cfg.normalization_type else 0
    return _n_drawn(cfg) + cfg.n_layers * (cfg.d_mlp + cfg.d_model) + norms


class Embed(nnx.Module):
    """Token embedding. A product with one-hot rows, whose transpose is again a product: no scatter in the gradient."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        self.W_E = normal(cfg.d_model, cfg.d_vocab, cfg.d_model)

    def __call__(self, tokens_BxT: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return jax.nn.one_hot(tokens_BxT, self.W_E.shape[0]) @ self.W_E[...]


class PosEmbed(nnx.Module):
    """Learned positions."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        self.W_pos = normal(cfg.d_model, cfg.n_ctx, cfg.d_model)


class LayerNorm(nnx.Module):
    """Each position's vector less its mean and divided by its standard deviation, then w times it plus b."""

    def __init__(self, cfg: ModelConfig):
        self.w, self.b = nnx.Param(jnp.ones(cfg.d_model)), nnx.Param(jnp.zeros(cfg.d_model))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        x = x - jnp.mean(x, -1, keepdims=True)
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + EPS) * self.w[...] + self.b[...]


def _norm(cfg: ModelConfig) -> LayerNorm | None:
    return LayerNorm(cfg) if cfg.normalization_type else None


def _normed(norm: LayerNorm | None, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    return x if norm is None else norm(x)


class Attention(nnx.Module):
    """Attention without biases; scores are divided by √d_head."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        to_head = (cfg.n_heads, cfg.d_model, cfg.d_head)
        self.W_Q = normal(cfg.d_model, *to_head)
        self.W_K = normal(cfg.d_model, *to_head)
        self.W_V = normal(cfg.d_model, *to_head)
        self.W_O = normal(cfg.d_model, cfg.n_heads, cfg.d_head, cfg.d_model)
        self.is_causal = cfg.attention_dir == "causal"
        self.has_rate = cfg.has_rate
        self.rate: Any = nnx.data(None)  # of softmax, where it is not all: a number, which `module` sets

    def pattern(self, x_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B H T T"]:
        """Attention weights by query and key; they add up to 1 where attention is softmax alone."""
        q = jnp.einsum("btd,hde->bhte", x_BxTxD, self.W_Q[...])
        k = jnp.einsum("btd,hde->bhte", x_BxTxD, self.W_K[...])
        scores = jnp.einsum("bhqe,bhke->bhqk", q, k) / np.sqrt(q.shape[-1])
        seen = np.ones((x_BxTxD.shape[1],) * 2, bool)
        if self.is_causal:
            seen = np.tril(seen)
            scores = jnp.where(seen, scores, -jnp.inf)
        softmax = jax.nn.softmax(scores, -1)
        return self.rate * softmax + (1 - self.rate) * jnp.asarray(seen, q.dtype) if self.has_rate else softmax

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

    def pre(self, x: Float[Array, "... D"]) -> Float[Array, "... M"]:
        """The neurons before their nonlinearity."""
        return x @ self.W_in[...] + self.b_in[...]

    def out(self, acts: Float[Array, "... M"]) -> Float[Array, "... D"]:
        """What the neurons add to the residual stream."""
        return acts @ self.W_out[...] + self.b_out[...]


Drop = Callable[[jax.Array], jax.Array]


class Block(nnx.Module):
    """Attention, then the MLP, each added to the residual stream, and each reading it through LayerNorm if there is."""

    def __init__(self, cfg: ModelConfig, normal: _Normal):
        self.ln1 = _norm(cfg)
        self.attn = Attention(cfg, normal)
        self.ln2 = _norm(cfg)
        self.mlp = MLP(cfg, normal)

    def pattern(self, x_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B H T T"]:
        """Attention weights by query and key."""
        return self.attn.pattern(_normed(self.ln1, x_BxTxD))

    def mid(self, x_BxTxD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """The residual stream after attention."""
        return x_BxTxD + self.attn(_normed(self.ln1, x_BxTxD))

    def pre(self, mid: Float[Array, "... D"]) -> Float[Array, "... M"]:
        """The neurons before their nonlinearity."""
        return self.mlp.pre(_normed(self.ln2, mid))

    def after(self, mid: Float[Array, "... D"], drop: Drop | None = None) -> Float[Array, "... D"]:
        """The residual stream after the MLP."""
        out = self.mlp.out(self.mlp.act(self.pre(mid)))
        return mid + (out if drop is None else drop(out))

    def __call__(self, x_BxTxD: Float[Array, "B T D"], drop: Drop | None = None) -> Float[Array, "B T D"]:
        return self.after(self.mid(x_BxTxD), drop)


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
        self.p, self.n_ctx, self.first_b = cfg.p, cfg.n_ctx, cfg.p if cfg.embeddings == "separate" else 0
        self.embed = Embed(cfg, normal)
        self.pos_embed = PosEmbed(cfg, normal)
        self.blocks = nnx.List([Block(cfg, normal) for _ in range(cfg.n_layers)])
        self.ln_final = _norm(cfg)
        self.unembed = Unembed(cfg, normal) if cfg.unembed == "own" else None

    def embedded(self, pairs_B: Int[Array, " B"]) -> Float[Array, "B T D"]:
        """The residual stream before the first block, of pairs numbered a * P + b."""
        return self.embed(tokens(pairs_B, self.p, self.n_ctx, self.first_b)) + self.pos_embed.W_pos[...]

    def read(self, x: Float[Array, "... D"]) -> Float[Array, "... P"]:
        """Logits from the residual stream after the last block."""
        x = _normed(self.ln_final, x)
        return x @ self.embed.W_E[...][: self.p].T if self.unembed is None else self.unembed(x)

    def __call__(self, tokens_BxT: Int[Array, "B T"]) -> Float[Array, "B P"]:
        """Logits above the last of the tokens a, b, "=", or a, b."""
        x_BxTxD = self.embed(tokens_BxT) + self.pos_embed.W_pos[...]
        for block in self.blocks:
            x_BxTxD = block(x_BxTxD)
        return self.read(x_BxTxD[:, -1])


def flatten(module: Transformer) -> dict[str, jax.Array]:
    """A module's parameters under their TransformerLens keys."""
    return {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param))}


def module(cfg: ModelConfig, params: Mapping[str, jax.Array]) -> Transformer:
    """The nnx module that holds these parameters."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(cfg, rngs=nnx.Rngs(0))))
    flat = [(path, leaf.replace(params[".".join(map(str, path))])) for path, leaf in nnx.to_flat_state(state)]
    net = nnx.merge(graph, nnx.from_flat_state(flat))
    if cfg.has_rate:
        for block in net.blocks:
            block.attn.rate = nnx.data(cfg.attention_rate)
    return net


def tokens(pairs_B: Int[Array, " B"], p: int, n_ctx: int = N_CTX, first_b: int = 0) -> Int[Array, "B n_ctx"]:
    """Input tokens a, b, "=", or a, b, of pairs numbered a * P + b.

    Args:
      pairs_B: to be read.
      p: P.
      n_ctx: 3, or 2.
      first_b: the first of b's tokens: P where they are not a's.
    """
    found = [pairs_B // p, pairs_B % p + first_b if first_b else pairs_B % p, jnp.full_like(pairs_B, p + first_b)]
    return jnp.stack(found[:n_ctx], 1)


def dropping(rate: Any, key: Key[Array, ""]) -> Drop:
    """Leaves out a share of an array's numbers, drawn from a key, and makes up for them with the others."""

    def drop(x: jax.Array) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)

    return drop


def token_by_token(
    cfg: ModelConfig, params: Mapping[str, jax.Array], pairs: Pairs, key: Key[Array, ""] | None = None
) -> tuple[Float[Array, "B P"], Float[Array, "B M"]]:
    """Runs `Transformer` on these pairs, for any number of layers.

    Args:
      cfg: the model's shape.
      params: its parameters.
      pairs: to be read.
      key: of a training step, from which dropout draws; None for none.

    Returns:
      Logits, and the last layer's MLP activations above the last token.
    """
    net = module(cfg, params)
    drops: list[Drop | None] = [None] * cfg.n_layers
    if key is not None and cfg.has_dropout:
        drops = [dropping(cfg.dropout, jax.random.fold_in(key, layer)) for layer in range(cfg.n_layers)]
    x_BxTxD = net.embedded(pairs.pairs_B)
    for block, drop in zip(net.blocks[:-1], drops[:-1], strict=True):
        x_BxTxD = block(x_BxTxD, drop)
    last, drop = net.blocks[-1], drops[-1]
    x_BxD = last.mid(x_BxTxD)[:, -1]
    acts_BxM = last.mlp.act(last.pre(x_BxD))
    # In the order in which earlier versions added these up, so that their runs keep their bits.
    x_BxD = (
        x_BxD + acts_BxM @ last.mlp.W_out[...] + last.mlp.b_out[...]
        if drop is None
        else x_BxD + drop(last.mlp.out(acts_BxM))
    )
    return net.read(x_BxD), acts_BxM


def unembedding(cfg: ModelConfig, params: Mapping[str, jax.Array]) -> Float[Array, "D P"]:
    """W_U, which is W_E transposed where it is tied."""
    return params["unembed.W_U"] if cfg.unembed == "own" else params["embed.W_E"][: cfg.p].T


def neuron_to_logit(cfg: ModelConfig, params: Mapping[str, jax.Array]) -> Float[Array, "P M"]:
    """The last layer's W_out and then W_U (Nanda et al. 2023, §3.1), tied or not.

    With LayerNorm what is between them is folded in, but for the division, by one number for each pair: what W_out
    writes less its mean over the residual stream, times ln_final.w.
    """
    W_out_MxD = params[f"blocks.{cfg.n_layers - 1}.mlp.W_out"]
    if cfg.normalization_type:
        W_out_MxD = (W_out_MxD - jnp.mean(W_out_MxD, 1, keepdims=True)) * params["ln_final.w"]
    return (W_out_MxD @ unembedding(cfg, params)).T


def token_embedding(cfg: ModelConfig, params: Mapping[str, jax.Array]) -> Float[Array, "P X"]:
    """W_E without "="; where a and b have tokens of their own, those of a with those of b beside them."""
    W_E = params["embed.W_E"]
    if cfg.embeddings == "shared":
        return W_E[: cfg.p]
    return jnp.concatenate([W_E[: cfg.p], W_E[cfg.p : 2 * cfg.p]], 1)
