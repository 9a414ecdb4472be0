"""Transformers beside the paper's, and MLPs, written slowly: float64 NumPy, to hold grokjax against.

Nothing here imports grokjax or JAX, and nothing is shared with the definitions there: every pair is read by itself,
position by position, head by head.
"""

import math

import numpy as np
from oracle import ACTIVATIONS


def layer_norm(x, w, b):
    """LayerNorm of one vector."""
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return np.array([(value - mean) / math.sqrt(variance + 1e-5) for value in x]) * w + b


def transformer(params, p, pairs, *, act="relu", n_ctx=3, embeddings="shared", rate=1.0, causal=True, keep=None):
    """Logits [B, P] above the last token and the last layer's neurons there [B, d_mlp].

    Args:
      params: by TransformerLens's names; LayerNorm and a W_U of its own are there or not.
      p: P.
      pairs: a * P + b each.
      act, n_ctx, embeddings, rate, causal: as the config's fields have them.
      keep: of dropout, by layer [B, positions, D] (of the last layer [B, D]): what each number is multiplied by.
    """
    found = [
        _pair(params, p, int(pair), i, act, n_ctx, embeddings == "separate", rate, causal, keep)
        for i, pair in enumerate(pairs)
    ]
    return np.stack([logits for logits, _ in found]), np.stack([acts for _, acts in found])


def _pair(params, p, pair, number, act, n_ctx, separate, rate, causal, keep):
    w = {name: np.asarray(x, np.float64) for name, x in params.items()}
    n_layers = sum(name.endswith("W_Q") for name in w)
    tokens = [pair // p, pair % p + (p if separate else 0), 2 * p if separate else p][:n_ctx]
    stream = [w["embed.W_E"][token] + w["pos_embed.W_pos"][t] for t, token in enumerate(tokens)]
    for layer in range(n_layers):
        of = {name.removeprefix(f"blocks.{layer}."): x for name, x in w.items() if name.startswith(f"blocks.{layer}.")}
        read = [_normed(of, "ln1.", x) for x in stream]
        stream = [x + _attention(of, read, t, rate, causal) for t, x in enumerate(stream)]
        neurons = [ACTIVATIONS[act](_normed(of, "ln2.", x) @ of["mlp.W_in"] + of["mlp.b_in"]) for x in stream]
        added = [acts @ of["mlp.W_out"] + of["mlp.b_out"] for acts in neurons]
        if keep is not None and layer < n_layers - 1:
            added = [x * keep[layer][number][t] for t, x in enumerate(added)]
        elif keep is not None:
            added[-1] = added[-1] * keep[layer][number]
        stream = [x + more for x, more in zip(stream, added, strict=True)]
    last = _normed(w, "ln_final.", stream[-1])
    return last @ (w["unembed.W_U"] if "unembed.W_U" in w else w["embed.W_E"][:p].T), neurons[-1]


def _normed(weights, prefix, x):
    return layer_norm(x, weights[prefix + "w"], weights[prefix + "b"]) if prefix + "w" in weights else x


def _attention(of, read, query, rate, causal):
    keys = range(query + 1) if causal else range(len(read))
    out = np.zeros(of["attn.W_O"].shape[2])
    for head in range(of["attn.W_Q"].shape[0]):
        q = read[query] @ of["attn.W_Q"][head]
        scores = [float(q @ (read[key] @ of["attn.W_K"][head])) / math.sqrt(len(q)) for key in keys]
        total = sum(math.exp(score) for score in scores)
        for key, score in zip(keys, scores, strict=True):
            weight = rate * math.exp(score) / total + (1 - rate)
            out = out + weight * (read[key] @ of["attn.W_V"][head]) @ of["attn.W_O"][head]
    return out
