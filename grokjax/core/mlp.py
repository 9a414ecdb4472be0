"""The MLP on embedded pairs, beside the transformer: what Chughtai et al. 2023 train on groups.

    a, b → W_E of a and of b, side by side or summed → W_in → ReLU or GELU → W_U → logits

There are no biases. Parameters have TransformerLens's keys and axes where it has them:

    embed.W_E [P, d_model], of a, and of b too unless b has its own: embed_b.W_E [P, d_model]
    blocks.0.mlp.W_in [2 d_model or d_model, d_mlp], of further hidden layers blocks.1.mlp.W_in, … [d_mlp, d_mlp]
    unembed.W_U [d_mlp, P]

Size letters: B pairs, P tokens, M d_mlp, I what enters a layer.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from grokjax.core.pairs import Pairs, spread
from grokjax.core.products import FACTORED_ACTIVATIONS, dense_transposed

if TYPE_CHECKING:
    from grokjax.core.model import ModelConfig

SECOND = "embed_b.W_E"  # the embedding of b, where it has its own
NAMES = ("W_E", "W_in", "W_U")  # of its parameters; a transformer has them too


def shapes(cfg: "ModelConfig") -> dict[str, tuple[int, int]]:
    """The shape of every parameter, by key, in the order in which they are drawn."""
    found = {"embed.W_E": (cfg.p, cfg.d_model)}
    if cfg.embeddings == "separate":
        found[SECOND] = (cfg.p, cfg.d_model)
    n_inputs = cfg.d_model * (2 if cfg.inputs == "concatenated" else 1)
    for layer in range(cfg.n_layers):
        found[f"blocks.{layer}.mlp.W_in"] = (cfg.d_mlp if layer else n_inputs, cfg.d_mlp)
    return found | {"unembed.W_U": (cfg.d_mlp, cfg.p)}


def init(cfg: "ModelConfig", key: Key[Array, ""], init_scale: Float[Array, ""] | float = 1.0) -> dict[str, jax.Array]:
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
    cfg: "ModelConfig", params: Mapping[str, jax.Array], pairs: Pairs
) -> tuple[Float[Array, "B P"], Float[Array, "B M"]]:
    """Logits, and activations of the last hidden layer.

    W_in's part for a token is folded into a table over tokens, which a pair looks up twice. Exact algebra, no
    approximation.
    """
    W_a, W_b = _halves(cfg, params["blocks.0.mlp.W_in"])
    E_a, E_b = params["embed.W_E"], params.get(SECOND, params["embed.W_E"])
    a_BxM, b_BxM = spread(pairs, E_a @ W_a, E_b @ W_b)
    act = FACTORED_ACTIVATIONS[cfg.act]
    acts_BxM = act(a_BxM + b_BxM)
    for layer in range(1, cfg.n_layers):
        acts_BxM = act(dense_transposed(acts_BxM, params[f"blocks.{layer}.mlp.W_in"].T))
    return dense_transposed(acts_BxM, neuron_to_logit(params)), acts_BxM


def _halves(cfg: "ModelConfig", W_in_IxM: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What of W_in reads the embedding of a, and of b."""
    if cfg.inputs == "summed":
        return W_in_IxM, W_in_IxM
    return W_in_IxM[: cfg.d_model], W_in_IxM[cfg.d_model :]


def neuron_to_logit(params: Mapping[str, jax.Array]) -> Float[Array, "P M"]:
    """W_L: with no W_out between the neurons and the logits, W_U."""
    return params["unembed.W_U"].T


def token_embedding(params: Mapping[str, jax.Array]) -> Float[Array, "P X"]:
    """What measures of W_E read: the embedding, with that of b beside it where b has its own, d_model columns each."""
    W_E = jnp.asarray(params["embed.W_E"])
    return jnp.concatenate([W_E, jnp.asarray(params[SECOND])], 1) if SECOND in params else W_E
