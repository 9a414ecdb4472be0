"""The MLP, beside the transformer: on embedded pairs, as Chughtai et al. 2023 train on groups, or on one-hot tokens.

    a, b → W_E of a and of b, side by side or summed → W_in → ReLU, GELU or squares → W_U → logits

On one-hot tokens (Gromov 2023, Prieto et al. 2025) W_in reads these, and there is no W_E. There are no biases, but
others' models may have b_in and b_U. Parameters have TransformerLens's keys and axes where it has them:

    embed.W_E [P, d_model], of a, and of b too unless b has its own: embed_b.W_E [P, d_model]
    blocks.0.mlp.W_in [2 d_model, d_model or 2 P, d_mlp], of further hidden layers blocks.1.mlp.W_in, … [d_mlp, d_mlp]
    unembed.W_U [d_mlp, P]

Size letters: B pairs, P tokens, M d_mlp, I what enters a layer.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from grokjax.core.architecture import ModelConfig
from grokjax.core.families import SECOND as SECOND  # the key of b's embedding, where it has its own
from grokjax.core.pairs import Pairs, spread
from grokjax.core.products import FACTORED_ACTIVATIONS, dense_transposed
from grokjax.core.transformer import dropping

ONE_HOT = "one_hot"


def shapes(cfg: ModelConfig) -> dict[str, tuple[int, int]]:
    """The shape of every parameter, by key, in the order in which they are drawn."""
    found = {} if cfg.inputs == ONE_HOT else {"embed.W_E": (cfg.p, cfg.d_model)}
    if found and cfg.embeddings == "separate":
        found[SECOND] = (cfg.p, cfg.d_model)
    n_inputs = {"concatenated": 2 * cfg.d_model, "summed": cfg.d_model, ONE_HOT: 2 * cfg.p}[cfg.inputs]
    for layer in range(cfg.n_layers):
        found[f"blocks.{layer}.mlp.W_in"] = (cfg.d_mlp if layer else n_inputs, cfg.d_mlp)
    return found | {"unembed.W_U": (cfg.d_mlp, cfg.p)}


def n_parameters(cfg: ModelConfig) -> int:
    """The number of weights."""
    return sum(rows * columns for rows, columns in shapes(cfg).values())


def init(cfg: ModelConfig, key: Key[Array, ""], init_scale: Float[Array, ""] | float = 1.0) -> dict[str, jax.Array]:
    """Initial parameters as released with Chughtai et al. 2023, all times `init_scale`.

    They are normal with a standard deviation of 1/√d_model for embeddings and 1/√inputs for W_in and W_U.
    """
    wanted = shapes(cfg)
    ends = np.cumsum([math.prod(shape) for shape in wanted.values()])
    drawn = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
    fans = [shape[1] if name.endswith(".W_E") else shape[0] for name, shape in wanted.items()]
    return {
        name: x.reshape(wanted[name]) * (init_scale / np.sqrt(fan))
        for name, x, fan in zip(wanted, drawn, fans, strict=True)
    }


def forward(
    cfg: ModelConfig, params: Mapping[str, jax.Array], pairs: Pairs, key: Key[Array, ""] | None = None
) -> tuple[Float[Array, "B P"], Float[Array, "B M"]]:
    """Logits, and activations of the last hidden layer, before any of them is left out.

    W_in's part for a token is folded into a table over tokens, which a pair looks up twice. Exact algebra, no
    approximation.

    Args:
      cfg: the model's shape.
      params: its parameters.
      pairs: to be read.
      key: of a training step, from which dropout draws which neurons to leave out; None for none.
    """
    act = FACTORED_ACTIVATIONS[cfg.act]
    a_BxM, b_BxM = spread(pairs, *_tables(cfg, params))
    kept_BxM: jax.Array
    acts_BxM = kept_BxM = a_BxM + b_BxM
    for layer in range(cfg.n_layers):
        if layer:
            acts_BxM = dense_transposed(kept_BxM, params[f"blocks.{layer}.mlp.W_in"].T)
        b_in = params.get(f"blocks.{layer}.mlp.b_in")
        acts_BxM = kept_BxM = act(acts_BxM if b_in is None else acts_BxM + b_in)
        if key is not None and cfg.has_dropout:
            kept_BxM = dropping(cfg.dropout, jax.random.fold_in(key, layer))(acts_BxM)
    logits_BxP = dense_transposed(kept_BxM, neuron_to_logit(params))
    b_U = params.get("unembed.b_U")
    return logits_BxP if b_U is None else logits_BxP + b_U, acts_BxM


def _tables(cfg: ModelConfig, params: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """What each first and each second token adds to the first hidden layer: two [P, M]."""
    W_in_IxM = params["blocks.0.mlp.W_in"]
    if cfg.inputs == ONE_HOT:
        return W_in_IxM[: cfg.p], W_in_IxM[cfg.p :]
    E_a, E_b = params["embed.W_E"], params.get(SECOND, params["embed.W_E"])
    if cfg.inputs == "summed":
        return E_a @ W_in_IxM, E_b @ W_in_IxM
    return E_a @ W_in_IxM[: cfg.d_model], E_b @ W_in_IxM[cfg.d_model :]


def neuron_to_logit(params: Mapping[str, jax.Array]) -> Float[Array, "P M"]:
    """W_L: with no W_out between the neurons and the logits, W_U."""
    return params["unembed.W_U"].T


def token_embedding(cfg: ModelConfig, params: Mapping[str, jax.Array]) -> Float[Array, "P X"]:
    """What measures of W_E read: the embedding, with that of b beside it where b has its own, d_model columns each; on
    one-hot tokens what W_in does with either, d_mlp columns each.
    """
    if cfg.inputs == ONE_HOT:
        return jnp.concatenate(_tables(cfg, params), 1)
    W_E = jnp.asarray(params["embed.W_E"])
    return jnp.concatenate([W_E, jnp.asarray(params[SECOND])], 1) if SECOND in params else W_E
