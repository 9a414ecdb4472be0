"""The definitions of the measures that came after the paper's own, written slowly: float64 NumPy, nothing folded.

Continues oracle.py, with the same conventions; it takes nothing from grokjax. What is drawn at random for a measure
(triples, points, directions) belongs to its definition and is passed in.
"""

import itertools
import math

import numpy as np
import oracle

# --- the transformer, from its embedded inputs ----------------------------------------------------------------------


def embedded(params, pairs):
    """What the first block sees at the positions of a, b and "=": a list of three [B, d_model]."""
    p = params["unembed.W_U"].shape[1]
    W_E, W_pos = (np.asarray(params[key], np.float64) for key in ("embed.W_E", "pos_embed.W_pos"))
    pairs = np.asarray(pairs)
    return [W_E[token] + W_pos[t] for t, token in enumerate((pairs // p, pairs % p, np.full(pairs.shape, p)))]


def run(params, x, act="relu"):
    """Logits, and by layer the attention from "=" [B, H, 3] and the pre-activations above "=" [B, M]."""
    weights = {key: np.asarray(value, np.float64) for key, value in params.items()}
    patterns, pre_activations = [], []
    for layer in range(oracle.n_layers(params)):
        attn = {name: weights[f"blocks.{layer}.attn.{name}"] for name in ("W_Q", "W_K", "W_V", "W_O")}
        mlp = {name: weights[f"blocks.{layer}.mlp.{name}"] for name in ("W_in", "b_in", "W_out", "b_out")}
        heads = range(attn["W_Q"].shape[0])
        patterns.append(np.stack([oracle.attention_pattern(attn, x, 2, head) for head in heads], 1))
        x = [x[t] + oracle.attend(attn, x, t) for t in range(3)]
        before = [x[t] @ mlp["W_in"] + mlp["b_in"] for t in range(3)]
        pre_activations.append(before[2])
        x = [x[t] + oracle.ACTIVATIONS[act](before[t]) @ mlp["W_out"] + mlp["b_out"] for t in range(3)]
    return x[2] @ weights["unembed.W_U"], patterns, pre_activations


# --- logits and neurons ---------------------------------------------------------------------------------------------


def cosine_of(p, k, direction=1):
    """cos(w_k(a ± b - c)) for all a, b, c, one vector of P³."""
    a, b, c = np.meshgrid(*[np.arange(p)] * 3, indexing="ij")
    return oracle.wave(math.cos, k, np.arange(p), p)[(a + direction * b - c) % p].ravel()


def centred(logits):
    """All logits less their one mean, one vector of P³."""
    logits = np.asarray(logits, np.float64)
    return (logits - np.mean(logits)).ravel()


def trig_coef_all(logits, direction=1):
    """The coefficient of the best multiple of each cosine on its own, [P//2]."""
    p, y = logits.shape[1], centred(logits)
    waves = (cosine_of(p, k, direction) for k in oracle.freqs(p))
    return np.array([np.sum(y * x) / np.sum(x * x) for x in waves])


def explained(y, columns):
    """Share of the squares of y that the best combination of the columns [n, m] explains."""
    rest = y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
    return 1 - np.sum(rest**2, 0) / np.sum(y**2, 0)


def fve_logits_trig(logits, keys, direction=1):
    """Share of the centred logits' variance that least squares on the cosines of all keys at once explains."""
    if not len(keys):
        return 0.0
    p = logits.shape[1]
    return float(explained(centred(logits), np.stack([cosine_of(p, k, direction) for k in keys], 1)))


def products(p, k, constants=True):
    """The non-constant products of {1, cos, sin} of a and of b as unit vectors [8, P²], or only the 4 without a 1.

    For the sign they are 3, or 1, of {1, cos}.
    """
    n = np.arange(p)
    of_one = [oracle.wave(f, k, n, p) for f in oracle.waves(p, k)]
    if constants:
        of_one.insert(0, np.ones(p))
    both = [oracle.unit(np.outer(x, y).ravel()) for x, y in itertools.product(of_one, of_one)]
    return np.array(both[1:] if constants else both)


def logit_block_norm(logits):
    """Norm of the logits' components on the four products of cos and sin, for each k."""
    p = logits.shape[1]
    return np.array([np.linalg.norm(products(p, k, constants=False) @ logits) for k in oracle.freqs(p)])


def products_logits(logits, keys):
    """The logits' projection on the constant and the 8 products of each key."""
    p = logits.shape[1]
    kept = oracle.project(logits, oracle.constant_direction(p))
    for k in keys:
        kept += oracle.project(logits, products(p, k))
    return kept


def neuron_shares(acts):
    """Share of each neuron's centred variance that each frequency's 8 products explain, [P//2, M], or 0."""
    p = math.isqrt(len(acts))
    y = acts - np.mean(acts, 0)
    total = np.sum(y**2, 0)
    energy = np.stack([np.sum((products(p, k) @ y) ** 2, 0) for k in oracle.freqs(p)])
    return np.where(total > 0, energy / np.where(total > 0, total, 1), 0)


def neuron_fit(shares):
    """Each neuron's best frequency and its share, from `neuron_shares`; both 0 for a constant neuron."""
    return np.where(np.max(shares, 0) > 0, np.argmax(shares, 0) + 1, 0), np.max(shares, 0)


# --- keys -----------------------------------------------------------------------------------------------------------


def key_sets(params, logits, shares, direction=1, threshold=0.25):
    """The set of key frequencies by each rule; the neurons' are given by `neuron_shares`."""
    p = logits.shape[1]
    sets = {"W_L": set(oracle.key_freqs(params, threshold))}
    norms = oracle.fourier_norms(params["embed.W_E"][:p])[1]
    sets["W_E"] = {k for k in oracle.freqs(p) if norms[k - 1] > threshold * max(norms)}
    freq, fve = neuron_fit(shares)
    sets["neurons"] = {int(k) for k, share in zip(freq, fve, strict=True) if share > 0.85}
    if direction is not None:
        a, b = np.divmod(np.arange(p * p), p)
        total, share = np.sum(centred(logits) ** 2), {}
        for k in oracle.freqs(p):
            waves = [oracle.wave(f, k, np.arange(p), p)[(a + direction * b) % p] for f in oracle.waves(p, k)]
            share[k] = sum(np.sum((oracle.unit(wave) @ logits) ** 2) for wave in waves) / total
        sets["logits"] = {k for k in share if share[k] > min(3 / len(share), 0.5)}
    return sets


def jaccard(x, y):
    """Size of the intersection over that of the union; 1 for two empty sets."""
    return len(x & y) / len(x | y) if x | y else 1.0


# --- clock or pizza -------------------------------------------------------------------------------------------------


def distance_irrelevance(logits, answers, direction=1):
    """Mean over d of the deviation of the right logit along a ∓ b = d, over its deviation in all."""
    p = logits.shape[1]
    right = logits[np.arange(p * p), answers]
    a, b = np.divmod(np.arange(p * p), p)
    return np.mean([np.std(right[(a - direction * b - d) % p == 0]) for d in range(p)]) / np.std(right)


def gradient_cosines(params, triples, act="relu", step=1e-6):
    """Each triple's cosine between the gradients of logit c by the two embedded inputs, by differences."""
    p = params["unembed.W_U"].shape[1]
    x = embedded(params, triples[:, 0] * p + triples[:, 1])
    c = triples[:, 2]

    def gradient(position):
        columns = []
        for i in range(x[0].shape[1]):
            ends = []
            for sign in (1, -1):
                moved = [v.copy() for v in x]
                moved[position][:, i] += sign * step
                ends.append(run(params, moved, act)[0][np.arange(len(c)), c])
            columns.append((ends[0] - ends[1]) / (2 * step))
        return np.stack(columns, 1)

    first, second = gradient(0), gradient(1)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.sum(first * second, 1) / norms


def circularity(W_E):
    """Mean over 4 principal components v of the largest (2/P)|Σ_n v_n exp(i w_k n)|², with 1/P for the sign."""
    p = len(W_E)
    W_E = np.asarray(W_E, np.float64)
    _, vectors = np.linalg.eigh((W_E - W_E.mean(0)) @ (W_E - W_E.mean(0)).T)
    shares = []
    for v in vectors[:, ::-1].T[: min(4, p - 1)]:
        waves = {k: np.sum(v * np.exp(2j * np.pi * k * np.arange(p) / p)) for k in oracle.freqs(p)}
        parts = [(1 if 2 * k == p else 2) / p * abs(wave) ** 2 for k, wave in waves.items()]
        shares.append(min(1.0, max(parts)))
    return np.mean(shares)


# --- stability ------------------------------------------------------------------------------------------------------


def total(row):
    """Σ exp(z - max z) of one pair's logits, added up in float32 from the largest term down."""
    terms = np.exp(np.sort(np.float32(row))[::-1] - np.max(np.float32(row)))
    found = np.float32(0)
    for term in terms:
        found = np.float32(found + term)
    return found


def collapsed(logits):
    """Whether that sum is 1, of each pair, bool [B]."""
    return np.array([total(row) == 1 for row in logits])


def lost(logits, labels):
    """Whether log Σ exp(z - max z) - (z_right - max z) is 0 in float32, of each pair, bool [B]."""
    rows = zip(np.float32(logits), labels, strict=True)
    return np.array([np.log(total(row)) - (row[label] - np.max(row)) == 0 for row, label in rows])


def cosine(xs, ys):
    """Between two lists of arrays, each as one vector."""
    x, y = (np.concatenate([np.ravel(v).astype(np.float64) for v in some]) for some in (xs, ys))
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


# --- efficiency, attention, spectra ---------------------------------------------------------------------------------


def trig_share(logits, direction=1):
    """Share of the squared logits, each pair's mean taken off, that least squares on all cosines explains."""
    p = logits.shape[1]
    y = (logits - np.mean(logits, 1, keepdims=True)).ravel()
    return float(explained(y, np.stack([cosine_of(p, k, direction) for k in oracle.freqs(p)], 1)))


def efficiency(params, logits, answers, train_pairs):
    """Every column of the group but trig_share."""
    logits = np.asarray(logits, np.float64)
    p = logits.shape[1]
    norm = math.sqrt(oracle.sum_sq(params))
    scale = np.mean([math.sqrt(np.sum(row**2)) for row in logits])
    right = np.array([row[answer] - np.mean(row) for row, answer in zip(logits, answers, strict=True)])
    return {
        "weight_norm": norm,
        "logit_scale": scale,
        "logit_scale_per_norm": scale / norm,
        "right_logit_per_norm_train": np.mean(right[train_pairs]) / norm,
        "right_logit_per_norm_test": np.mean(right[oracle.others(p * p, train_pairs)]) / norm,
    }


def entropy(shares):
    """-Σ q ln q, nats."""
    return -sum(q * math.log(q) for q in shares if q > 0)


def attention(patterns):
    """Every column of the group, from each layer's attention [N, H, 3]."""
    similarities, means, deviations = [], [], []
    for pattern in patterns:
        heads = [pattern[:, h].ravel() for h in range(pattern.shape[1])]
        pairs = itertools.combinations(heads, 2)
        similarities.append(np.mean([cosine([x], [y]) for x, y in pairs]) if len(heads) > 1 else np.nan)
        entropies = [np.mean([entropy(row) for row in pattern[:, h]]) for h in range(len(heads))]
        means.append(np.mean(entropies))
        deviations.append(np.std(entropies))
    return {
        "head_similarity": np.mean(similarities),
        "head_entropy_mean": np.mean(means),
        "head_entropy_std": np.mean(deviations),
    }


def perplexity(weights):
    """exp of the entropy of weights taken as shares."""
    return math.exp(entropy(np.asarray(weights) / np.sum(weights)))


def spectra(params):
    """Every column of the group."""
    p = params["unembed.W_U"].shape[1]
    W_E = np.asarray(params["embed.W_E"][:p], np.float64)
    result = {"effective_dimension_W_E": perplexity(np.maximum(np.linalg.eigvalsh(np.cov(W_E.T)), 0))}
    for name, matrix in (("W_E", W_E), ("W_L", oracle.neuron_to_logit(params))):
        powers = oracle.fourier_norms(matrix)[1] ** 2
        result[f"effective_rank_{name}"] = perplexity(np.linalg.svd(matrix)[1] ** 2)
        result[f"ipr_{name}"] = np.sum(powers**2) / np.sum(powers) ** 2
    return result


# --- derivatives ----------------------------------------------------------------------------------------------------


def train_loss(params, train_pairs, answers, act="relu"):
    """Mean cross-entropy of the training pairs."""
    logits, _ = oracle.forward(params, train_pairs, act)
    return oracle.mean_loss(logits, np.asarray(answers)[train_pairs])


def gradient(params, train_pairs, answers, act="relu", step=1e-5):
    """The training loss's gradient by differences, for each parameter."""
    weights = {key: np.array(value, np.float64) for key, value in params.items()}
    grads = {key: np.zeros_like(value) for key, value in weights.items()}
    for key, value in weights.items():
        for i in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                old = value[i]
                value[i] = old + sign * step
                ends.append(train_loss(weights, train_pairs, answers, act))
                value[i] = old
            grads[key][i] = (ends[0] - ends[1]) / (2 * step)
    return grads


def local_complexity(params, points, directions, radius, act="relu"):
    """Mean over points of how many neurons above "=" change sign among x ± radius |x| v, with v a row of directions."""
    counts = []
    for pair in points:
        x = np.concatenate([v[0] for v in embedded(params, [pair])])
        corners = [x + sign * radius * np.linalg.norm(x) * v for v in directions for sign in (1, -1)]
        pre = np.concatenate(run(params, np.split(np.array(corners), 3, axis=1), act)[2], 1)
        counts.append(sum(0 < np.sum(column > 0) < len(column) for column in pre.T))
    return np.mean(counts)
