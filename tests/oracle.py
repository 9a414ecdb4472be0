"""The definitions, written slowly: float64 NumPy with nothing shared and nothing folded, to hold grokjax against.

Nothing here imports grokjax or JAX. Parameters come as the flat dict of TransformerLens keys that grokjax uses, logits
as [P², P] with pair (a, b) in row a * P + b, frequencies as k = 1 … P//2; the last one of an even P is
the sign (-1)^n, whose sine is zero and no function of its own.
"""

import math

import numpy as np

# --- the transformer (Nanda et al. 2023, §3.1) ----------------------------------------------------------------------


def relu(x):
    return np.where(x > 0, x, 0.0)


def gelu(x):
    """x Φ(x) with the exact normal distribution."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


ACTIVATIONS = {"relu": relu, "gelu": gelu, "quadratic": np.square}


def forward(params, pairs, act="relu"):
    """Reads a, b, "=" position by position, head by head, key by key.

    Args:
      params: any number of layers.
      pairs: int [B], each a * P + b.
      act: "relu", "gelu" or "quadratic".

    Returns:
      Logits above "=" [B, P] and the last layer's MLP activations above "=" [B, d_mlp].
    """
    weights = {key: np.asarray(value, np.float64) for key, value in params.items()}
    nonlinearity = ACTIVATIONS[act]
    p = weights["unembed.W_U"].shape[1]
    pairs = np.asarray(pairs)
    tokens = [pairs // p, pairs % p, np.full(pairs.shape, p)]
    x = [weights["embed.W_E"][tokens[t]] + weights["pos_embed.W_pos"][t] for t in range(3)]
    acts = None
    for layer in range(n_layers(params)):
        attn = {name: weights[f"blocks.{layer}.attn.{name}"] for name in ("W_Q", "W_K", "W_V", "W_O")}
        mlp = {name: weights[f"blocks.{layer}.mlp.{name}"] for name in ("W_in", "b_in", "W_out", "b_out")}
        x = [x[t] + attend(attn, x, t) for t in range(3)]
        acts = [nonlinearity(x[t] @ mlp["W_in"] + mlp["b_in"]) for t in range(3)]
        x = [x[t] + acts[t] @ mlp["W_out"] + mlp["b_out"] for t in range(3)]
    return x[2] @ weights["unembed.W_U"], acts[2]


def attend(attn, x, query):
    """What one position's attention adds to its residual stream; it sees itself and the positions before it."""
    out = np.zeros_like(x[query])
    for head in range(attn["W_Q"].shape[0]):
        pattern = attention_pattern(attn, x, query, head)
        for key in range(query + 1):
            out += pattern[:, key, None] * (x[key] @ attn["W_V"][head] @ attn["W_O"][head])
    return out


def attention_pattern(attn, x, query, head):
    """Attention weights of one head from one position to itself and those before it, [B, query + 1]."""
    q = x[query] @ attn["W_Q"][head]
    scores = [np.sum(q * (x[key] @ attn["W_K"][head]), 1) / math.sqrt(q.shape[1]) for key in range(query + 1)]
    exp = np.exp(np.stack(scores, 1) - np.max(scores, 0)[:, None])
    return exp / np.sum(exp, 1, keepdims=True)


def n_layers(params):
    """The number of blocks that the parameters have."""
    return sum(key.endswith("attn.W_Q") for key in params)


def all_logits(params, act="relu"):
    """Logits of every pair, [P², P]."""
    return forward(params, np.arange(params["unembed.W_U"].shape[1] ** 2), act)[0]


def neuron_to_logit(params):
    """W_L = W_U W_out of the last layer, [P, d_mlp]."""
    W_out = np.asarray(params[f"blocks.{n_layers(params) - 1}.mlp.W_out"], np.float64)
    return np.asarray(params["unembed.W_U"], np.float64).T @ W_out.T


# --- losses ---------------------------------------------------------------------------------------------------------


def cross_entropy(logits, labels):
    """-log softmax(logits)[label] per row, as log(1 + Σ exp(other - right)): exact however small. Long double [B]."""
    logits = np.asarray(logits, np.longdouble)
    result = []
    for row, label in zip(logits, labels, strict=True):
        differences = np.delete(row, label) - row[label]
        top = np.max(differences)
        result.append(np.logaddexp(np.longdouble(0), top + np.log(np.sum(np.exp(differences - top)))))
    return np.array(result, np.longdouble)


def cross_entropy_gradient(logits, labels):
    """The gradient of each row's cross-entropy by its logits: softmax - one-hot, the right entry without cancelling."""
    logits = np.asarray(logits, np.longdouble)
    exp = np.exp(logits - np.max(logits, 1, keepdims=True))
    result = exp / np.sum(exp, 1, keepdims=True)
    for i, label in enumerate(labels):
        result[i, label] = -np.sum(np.delete(result[i], label))
    return result


def mean_loss(logits, labels, pairs=None):
    """Mean cross-entropy over some pairs (all by default), float."""
    pairs = np.arange(len(labels)) if pairs is None else np.asarray(pairs)
    return float(np.mean(cross_entropy(logits[pairs], np.asarray(labels)[pairs])))


def accuracy(logits, labels, pairs=None):
    """Share of some pairs (all by default) whose largest logit is the right one, float."""
    pairs = range(len(labels)) if pairs is None else pairs
    return sum(int(np.argmax(logits[i])) == int(labels[i]) for i in pairs) / len(pairs)


def others(n, pairs):
    """The numbers below n that are not among `pairs`, ascending: the test pairs."""
    return np.array(sorted(set(range(n)) - set(np.asarray(pairs).tolist())))


# --- Fourier --------------------------------------------------------------------------------------------------------


def freqs(p):
    """The frequencies, 1 … P//2: those with both a cosine and a sine, and the sign of an even P."""
    return range(1, p // 2 + 1)


def waves(p, k):
    """The functions of frequency k: cosine and sine, but the cosine alone for the sign."""
    return [math.cos] if 2 * k == p else [math.cos, math.sin]


def wave(function, k, s, p):
    """function(w_k s) for integers s, with w_k = 2πk/P."""
    return np.array([function(2 * math.pi * k * int(n) / p) for n in np.ravel(s)]).reshape(np.shape(s))


def unit(v):
    """The vector divided by its norm."""
    return v / math.sqrt(float(np.sum(v * v)))


def basis(p):
    """The constant, cos 1, sin 1, cos 2, …, and for even P the sign: orthonormal rows [P, P]."""
    n = np.arange(p)
    rows = [unit(np.ones(p))]
    for k in freqs(p):
        rows += [unit(wave(f, k, n, p)) for f in waves(p, k)]
    return np.array(rows)


def fourier_norms(x):
    """Norms of the Fourier components along the first axis.

    Returns:
      Per component [P], ordered as `basis`, and per frequency [P//2], cosine and sine together.
    """
    x = np.asarray(x, np.float64)
    components = [np.sqrt(np.sum((row @ x) ** 2)) for row in basis(len(x))]
    per_freq = [math.hypot(*components[2 * k - 1 : 2 * k + 1]) for k in freqs(len(x))]
    return np.array(components), np.array(per_freq)


def sum_directions(p, k, direction=1):
    """The unit vectors along cos(w_k(a ± b)) and sin(w_k(a ± b)) over the P² grid, [2, P²]; for the sign [1, P²]."""
    s = np.array([a + direction * b for a in range(p) for b in range(p)])
    return np.array([unit(wave(f, k, s, p)) for f in waves(p, k)])


def constant_direction(p):
    """The unit vector along 1 over the P² grid, [1, P²]."""
    return unit(np.ones((1, p * p)))


def project(grid, directions):
    """The projection of each column of [P², C] on the span of orthonormal directions [D, P²]."""
    return directions.T @ (directions @ np.asarray(grid, np.float64))


def key_part(logits, keys, direction=1):
    """The logits' projection on the sum directions of the frequencies `keys`, [P², P]."""
    logits = np.asarray(logits, np.float64)
    part = np.zeros_like(logits)
    for k in keys:
        part += project(logits, sum_directions(logits.shape[1], k, direction))
    return part


# --- the paper's measures (§5.1, App. C) ----------------------------------------------------------------------------


def restricted_logits(logits, keys, direction=1):
    """The logits' projection on the constant and the sum directions of all keys."""
    return project(logits, constant_direction(logits.shape[1])) + key_part(logits, keys, direction)


def excluded_logits(logits, keys, direction=1):
    """The logits without their projection on the sum directions of all keys; the constant stays."""
    return logits - key_part(logits, keys, direction)


def restricted_loss(logits, answers, keys, pairs=None, direction=1):
    """The loss of the restricted logits, on all pairs or on those given."""
    return mean_loss(restricted_logits(logits, keys, direction), answers, pairs)


def restricted_acc(logits, answers, keys, direction=1):
    """The accuracy of the restricted logits on all pairs."""
    return accuracy(restricted_logits(logits, keys, direction), answers)


def heldout_pairs(train_pairs, p, direction=1):
    """The pairs that were not trained on, and whose sum in the other order was not either."""
    trained = {divmod(int(i), p) for i in train_pairs}
    if direction == 1:
        trained |= {(b, a) for a, b in trained}
    return [a * p + b for a in range(p) for b in range(p) if (a, b) not in trained]


def heldout_logits(logits, keys, heldout, direction=1):
    """The restricted logits of a model that answers every pair of one sum with the mean over its held-out pairs.

    None if a sum has none.
    """
    p = logits.shape[1]
    s = [(i // p + direction * (i % p)) % p for i in range(p * p)]
    of_sum = [[i for i in heldout if s[i] == r] for r in range(p)]
    if not all(of_sum):
        return None
    means = [sum(np.asarray(logits[i], np.float64) for i in some) / len(some) for some in of_sum]
    return restricted_logits(np.array([means[r] for r in s]), keys, direction)


def excluded_loss(logits, answers, keys, train_pairs, direction=1):
    """The training loss without the keys' sum directions."""
    return mean_loss(excluded_logits(logits, keys, direction), answers, train_pairs)


def excluded_loss_per_freq(logits, answers, train_pairs, direction=1):
    """The training loss without the sum directions of one frequency, for each, [P//2]."""
    p = logits.shape[1]
    return np.array([excluded_loss(logits, answers, [k], train_pairs, direction) for k in freqs(p)])


def gini(v):
    """Half the mean absolute difference of all ordered pairs, divided by the mean."""
    v = np.asarray(v, np.float64)
    mean_difference = sum(abs(x - y) for x in v for y in v) / len(v) ** 2
    return float(mean_difference / (2 * np.mean(v)))


def sum_sq(params, name=None):
    """Sum of squares over all parameters, or over those of one name, such as "W_E", in all layers."""
    chosen = [value for key, value in params.items() if name is None or key.split(".")[-1] == name]
    return float(sum(np.sum(np.asarray(value, np.float64) ** 2) for value in chosen))


def key_freqs(params, threshold=0.25):
    """The frequencies whose norm in W_L is above `threshold` times the largest, a list of k."""
    norms = fourier_norms(neuron_to_logit(params))[1]
    return [k for k in freqs(params["unembed.W_U"].shape[1]) if norms[k - 1] > threshold * max(norms)]


def paper_measures(params, train_pairs, answers, direction=1, act="relu", threshold=0.25, logits=None, keys=None):
    """Every measure of the group "paper" by its column's plain name; those that need a direction only with one.

    Args:
      params: the model.
      train_pairs: int [n_train].
      answers: int [P²].
      direction: +1, -1 or None.
      act: the nonlinearity.
      threshold: of the key frequencies.
      logits: [P², P] to use instead of the model's own.
      keys: a list of k to use instead of the model's own.
    """
    p = params["unembed.W_U"].shape[1]
    logits = all_logits(params, act) if logits is None else np.asarray(logits, np.float64)
    keys = key_freqs(params, threshold) if keys is None else keys
    test_pairs = others(p * p, train_pairs)
    result = {
        "train_loss": mean_loss(logits, answers, train_pairs),
        "test_loss": mean_loss(logits, answers, test_pairs),
        "train_acc": accuracy(logits, answers, train_pairs),
        "test_acc": accuracy(logits, answers, test_pairs),
        "key_freqs": np.array([k in keys for k in freqs(p)]),
        "n_key_freqs": len(keys),
        "sum_sq_weights": sum_sq(params),
    }
    for name in sorted({key.split(".")[-1] for key in params}):
        result[f"sum_sq_{name}"] = sum_sq(params, name)
    for name, matrix in (("W_E", params["embed.W_E"][:p]), ("W_L", neuron_to_logit(params))):
        components, per_freq = fourier_norms(matrix)
        result[f"freq_norm_{name}"] = per_freq
        result[f"gini_{name}"], result[f"gini_freq_{name}"] = gini(components), gini(per_freq)
    without_mean = np.asarray(params["unembed.W_U"], np.float64)
    without_mean = without_mean - np.mean(without_mean, 1, keepdims=True)
    result["gini_W_L_centred"] = gini(fourier_norms(neuron_to_logit({**params, "unembed.W_U": without_mean}))[0])
    if direction is not None:
        per_freq = excluded_loss_per_freq(logits, answers, train_pairs, direction)
        held = heldout_pairs(train_pairs, p, direction)
        heldout = heldout_logits(logits, keys, held, direction)
        result |= {
            "heldout_restricted_loss": math.nan if heldout is None else mean_loss(heldout, answers, held),
            "heldout_restricted_acc": math.nan if heldout is None else accuracy(heldout, answers, held),
            "restricted_loss": restricted_loss(logits, answers, keys, None, direction),
            "restricted_loss_train": restricted_loss(logits, answers, keys, train_pairs, direction),
            "restricted_loss_test": restricted_loss(logits, answers, keys, test_pairs, direction),
            "restricted_acc": restricted_acc(logits, answers, keys, direction),
            "excluded_loss": excluded_loss(logits, answers, keys, train_pairs, direction),
            "excluded_loss_per_freq": per_freq,
            "excluded_loss_max": max(per_freq),
        }
    return result


# --- optimizers -----------------------------------------------------------------------------------------------------


def warmup(step, learning_rate, warmup_steps):
    """The learning rate of a step, the first being step 0."""
    return learning_rate * min(step / warmup_steps, 1) if warmup_steps else learning_rate


def adamw(weights, gradients, *, learning_rate, weight_decay, beta1, beta2, eps, warmup_steps):
    """AdamW (Loshchilov & Hutter 2019, Algorithm 2) with the decay times the learning rate, as in PyTorch.

    Args:
      weights: one array.
      gradients: one array per step.

    Returns:
      The weights after every step, a list.
    """
    w = np.array(weights, np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    history = []
    for step, gradient in enumerate(gradients):
        g = np.asarray(gradient, np.float64)
        rate = warmup(step, learning_rate, warmup_steps)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1 ** (step + 1))
        v_hat = v / (1 - beta2 ** (step + 1))
        w = w - rate * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * w)
        history.append(w)
    return history


def sgd(weights, gradients, *, learning_rate, weight_decay, beta1, warmup_steps, **unused):
    """SGD as PyTorch's documentation defines it: decay joins the gradient, momentum beta1 without dampening."""
    w = np.array(weights, np.float64)
    buffer = None
    history = []
    for step, gradient in enumerate(gradients):
        g = np.asarray(gradient, np.float64) + weight_decay * w
        buffer = g if buffer is None else beta1 * buffer + g
        w = w - warmup(step, learning_rate, warmup_steps) * buffer
        history.append(w)
    return history
