"""The MLP on embedded pairs, pair by pair in float64 NumPy, with its gradient by hand; nothing of grokjax or JAX."""

import numpy as np
from oracle import ACTIVATIONS, gelu

SLOPES = {
    "relu": lambda x: (x > 0).astype(float),
    "quadratic": lambda x: 2 * x,
    "gelu": lambda x: gelu(x) / np.where(x == 0, 1, x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) + 0.5 * (x == 0),
}


def _layers(params):
    return sorted(name for name in params if name.endswith(".mlp.W_in"))


def forward(params, a, b, act="relu", inputs="concatenated"):
    """One pair.

    Returns:
      Its logits [P], what enters each layer, and each layer's neurons before their nonlinearity.
    """
    if inputs == "one_hot":
        tokens = np.eye(params["unembed.W_U"].shape[1])
        entering = [np.concatenate([tokens[a], tokens[b]])]
    else:
        e_a = params["embed.W_E"][a]
        e_b = (params["embed_b.W_E"] if "embed_b.W_E" in params else params["embed.W_E"])[b]
        entering = [np.concatenate([e_a, e_b]) if inputs == "concatenated" else e_a + e_b]
    before = []
    for name in _layers(params):
        before.append(entering[-1] @ params[name])
        entering.append(ACTIVATIONS[act](before[-1]))
    return entering[-1] @ params["unembed.W_U"], entering, before


def gradient(params, pairs, labels, act="relu", inputs="concatenated"):
    """The gradient of the mean cross-entropy, by the chain rule, pair by pair."""
    found = {name: np.zeros_like(x) for name, x in params.items()}
    p = params["unembed.W_U"].shape[1]
    for pair, label in zip(pairs, labels, strict=True):
        a, b = divmod(int(pair), p)
        logits, entering, before = forward(params, a, b, act, inputs)
        wrong = np.exp(logits - np.max(logits))
        wrong /= np.sum(wrong)
        wrong[label] -= 1
        wrong /= len(pairs)
        found["unembed.W_U"] += np.outer(entering[-1], wrong)
        back = params["unembed.W_U"] @ wrong
        for layer, name in reversed(list(enumerate(_layers(params)))):
            back = back * SLOPES[act](before[layer])
            found[name] += np.outer(entering[layer], back)
            back = params[name] @ back
        if inputs == "one_hot":
            continue
        d = params["embed.W_E"].shape[1]
        back_a, back_b = (back[:d], back[d:]) if inputs == "concatenated" else (back, back)
        found["embed.W_E"][a] += back_a
        found["embed_b.W_E" if "embed_b.W_E" in params else "embed.W_E"][b] += back_b
    return found
