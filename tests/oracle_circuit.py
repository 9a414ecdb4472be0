"""The numbers of the paper's reverse engineering, written slowly: float64 NumPy, one layer, nothing shared or folded.

Continues oracle.py and oracle_later.py, with the same conventions; it takes nothing from grokjax. Every ablation is a
forward pass with one part replaced, and a mean of its cross-entropy.
"""

import math

import numpy as np
import oracle
import oracle_later

# --- the forward pass, with parts replaced --------------------------------------------------------------------------


def weights(params):
    """Parameters by their short names, float64."""
    return {key.split(".")[-1]: np.asarray(value, np.float64) for key, value in params.items()}


def patterns(params):
    """Attention from "=" for every pair, [P², H, 3]."""
    w = weights(params)
    x = oracle_later.embedded(params, np.arange(w["W_U"].shape[1] ** 2))
    return np.stack([oracle.attention_pattern(w, x, 2, head) for head in range(len(w["W_Q"]))], 1)


def attend(params, pattern):
    """What attention adds above "=" with a given pattern, [P², D]."""
    w = weights(params)
    x = oracle_later.embedded(params, np.arange(len(pattern)))
    out = np.zeros_like(x[2])
    for head in range(len(w["W_Q"])):
        for key in range(3):
            out += pattern[:, head, key, None] * (x[key] @ w["W_V"][head] @ w["W_O"][head])
    return out


def neurons(params, resid_mid, act="relu"):
    """Activations above "=" from the residual stream after attention."""
    w = weights(params)
    return oracle.ACTIVATIONS[act](resid_mid @ w["W_in"] + w["b_in"])


def unembed(params, resid_mid, acts):
    """Logits from what goes around the MLP and the activations."""
    w = weights(params)
    return (resid_mid + acts @ w["W_out"] + w["b_out"]) @ w["W_U"]


def model(params, act="relu"):
    """Attention's pattern and output above "=", what the skip around it carries, activations and logits, by name."""
    w = weights(params)
    p = w["W_U"].shape[1]
    pattern, last = patterns(params), w["W_E"][p] + w["W_pos"][2]
    attn = attend(params, pattern)
    acts = neurons(params, attn + last, act)
    logits = unembed(params, attn + last, acts)
    return {"pattern": pattern, "attn": attn, "last": last, "acts": acts, "logits": logits, "own": own_freqs(acts)}


def linear_pattern(params):
    """1/2 ± a quarter of the difference of the scores of a and b, and nothing for "="."""
    w = weights(params)
    x = oracle_later.embedded(params, np.arange(w["W_U"].shape[1] ** 2))
    result = np.zeros((len(x[0]), len(w["W_Q"]), 3))
    for head in range(len(w["W_Q"])):
        q = x[2] @ w["W_Q"][head]
        scores = [np.sum(q * (x[key] @ w["W_K"][head]), 1) / math.sqrt(q.shape[1]) for key in range(2)]
        result[:, head, 0] = 0.5 + (scores[0] - scores[1]) / 4
        result[:, head, 1] = 0.5 - (scores[0] - scores[1]) / 4
    return result


# --- pieces ---------------------------------------------------------------------------------------------------------


def directions(params, keys):
    """Orthonormal rows that span what W_L reads at the keys: its rows' cosine and sine sums over the logits."""
    W_L = oracle.neuron_to_logit(params)
    n = np.arange(len(W_L))
    rows = [oracle.wave(f, k, n, len(W_L)) @ W_L for k in keys for f in oracle.waves(len(W_L), k)]
    kept = []
    for row in rows:  # Gram-Schmidt, twice for accuracy
        size = np.linalg.norm(row)
        for _ in range(2):
            row = row - sum(((row @ other) * other for other in kept), np.zeros_like(row))
        if np.linalg.norm(row) > 1e-9 * size:
            kept.append(oracle.unit(row))
    return np.array(kept)


def polynomial(acts, k):
    """Each column's projection on the constant and the 8 products of k."""
    p = math.isqrt(len(acts))
    return np.mean(acts, 0) + oracle.project(acts, oracle_later.products(p, k))


def own_freqs(acts):
    """Each neuron's best frequency where it explains over 85 %, else 0, [M]."""
    freq, share = oracle_later.neuron_fit(oracle_later.neuron_shares(acts))
    return np.where(share > 0.85, freq, 0)


def polynomials(acts, own):
    """The activations with every neuron over 85 % replaced by its polynomial."""
    result = np.array(acts)
    for k in set(own.tolist()) - {0}:
        result[:, own == k] = polynomial(acts[:, own == k], k)
    return result


def cosine_logits(logits, keys, direction=1):
    """The best combination of the keys' cos(w_k(a ± b - c)), by least squares on the centred logits."""
    p = logits.shape[1]
    columns = np.stack([oracle_later.cosine_of(p, k, direction) for k in keys], 1)
    return (columns @ np.linalg.lstsq(columns, oracle_later.centred(logits), rcond=None)[0]).reshape(p * p, p)


def mean_losses(logits, answers, train_pairs):
    """Mean cross-entropy on all pairs, the training pairs and the test pairs; exact for small losses, and for many."""
    rows = np.arange(len(answers))
    differences = np.asarray(logits, np.float64) - logits[rows, answers][:, None]
    differences[rows, answers] = -np.inf
    top = np.max(differences, 1)
    loss = np.logaddexp(0, top + np.log(np.sum(np.exp(differences - top[:, None]), 1)))
    test_pairs = oracle.others(len(answers), train_pairs)
    return [float(np.mean(loss[pairs])) for pairs in (rows, train_pairs, test_pairs)]


# --- the numbers ----------------------------------------------------------------------------------------------------


def ablations(params, whole, keys, direction=1, act="relu"):
    """The logits of every ablation by its number's name; those of one frequency as a function of k.

    Args:
      params: the model.
      whole: what `model` finds in it.
      keys: a list of k.
      direction: +1, -1 or None.
      act: the nonlinearity.
    """
    attn, last, acts, logits, own = (whole[name] for name in ("attn", "last", "acts", "logits", "own"))
    mid, p = attn + last, logits.shape[1]
    no_equals = np.array(whole["pattern"])
    no_equals[:, :, 2] = 0
    read = acts @ directions(params, keys).T @ directions(params, keys)
    around = mid @ weights(params)["W_U"]

    def through(resid_mid):
        return unembed(params, resid_mid, neurons(params, resid_mid, act))

    def without_freq(k):
        return unembed(params, mid, acts - oracle.project(acts, oracle_later.products(p, k)))

    def without_neurons(k):
        return unembed(params, mid, np.where(own == k, np.mean(acts, 0), acts))

    found = {
        "loss": logits,
        "loss_neurons_as_polynomials": unembed(params, mid, polynomials(acts, own)),
        "loss_key_components": oracle_later.products_logits(logits, keys),
        "loss_key_directions": unembed(params, mid, read),
        "loss_null_space": unembed(params, mid, acts - read),
        "loss_without_freq": without_freq,
        "loss_without_neurons": without_neurons,
        "loss_mlp_skip_zeroed": unembed(params, 0 * mid, acts),
        "loss_mlp_skip_mean": logits - around + np.mean(around, 0),
        "loss_attention_zeroed": through(0 * attn + last),
        "loss_attention_skip_zeroed": through(attn),
        "loss_equals_unattended": through(last + attend(params, no_equals)),
        "loss_softmax_linear": through(last + attend(params, linear_pattern(params))),
    }
    if direction is not None:
        found["loss_logits_as_cosines"] = cosine_logits(logits, keys, direction)
        found["loss_sum_directions"] = oracle.restricted_logits(logits, keys, direction)
    return found


def losses(logits_of, train_pairs, answers, freqs=None):
    """Every ablation's loss by name, on all, training and test pairs; where it is per k, for `freqs` or all."""
    found = {}
    for name, logits in logits_of.items():
        if callable(logits):
            some = freqs or oracle.freqs(math.isqrt(len(answers)))
            each = [mean_losses(logits(k), answers, train_pairs) for k in some]
            values = np.array(each).T
        else:
            values = mean_losses(logits, answers, train_pairs)
        found |= {name + suffix: value for suffix, value in zip(("", "_train", "_test"), values, strict=True)}
    return found


def explained(y, x):
    """Share of the centred variance of y that the best multiple of x explains."""
    y = y - np.mean(y)
    return float(np.sum(y * x) ** 2 / np.sum(x * x) / np.sum(y * y))


def readout_fve(params, acts, direction=1):
    """FVE of u_k·MLP by cos(w_k(a ± b)) and of v_k·MLP by sin(w_k(a ± b)), two [P//2]; 0 where there is no sine."""
    W_L = oracle.neuron_to_logit(params)
    p = len(W_L)
    a, b = np.divmod(np.arange(p * p), p)
    found = []
    for f in (math.cos, math.sin):
        waves = [oracle.wave(f, k, np.arange(p), p) if f in oracle.waves(p, k) else None for k in oracle.freqs(p)]
        found.append([0 if x is None else explained(acts @ (x @ W_L), x[(a + direction * b) % p]) for x in waves])
    return found


def attention_fits(pattern, keys):
    """Each head's best k, and the share of its variance that 0.5 + α(cos a - cos b) + β(sin a - sin b) explains for it;
    and for all keys at once.
    """
    p = math.isqrt(len(pattern))
    a, b = np.divmod(np.arange(p * p), p)

    def fve(y, freqs):
        waves = [oracle.wave(f, k, np.arange(p), p) for k in freqs for f in oracle.waves(p, k)]
        columns = np.stack([x[a] - x[b] for x in waves], 1)
        rest = y - 0.5 - columns @ np.linalg.lstsq(columns, y - 0.5, rcond=None)[0]
        return 1 - np.sum(rest**2) / np.sum((y - np.mean(y)) ** 2)

    heads = pattern[:, :, 0].T
    shares = np.array([[fve(y, [k]) for k in oracle.freqs(p)] for y in heads])
    return np.argmax(shares, 1) + 1, np.max(shares, 1), [fve(y, keys) for y in heads]


def significant(logits, keys, share=0.1):
    """How many products of basis functions have a norm above a share of the largest, in all and in the keys' blocks."""
    p = logits.shape[1]
    basis = oracle.basis(p)
    grid = np.tensordot(basis, logits.reshape(p, p, p), 1)  # over a
    norms = np.linalg.norm(np.tensordot(grid, basis.T, (1, 0)), axis=1)  # over b; [x, y] with the logits between
    norms[0, 0] = 0
    large = norms > share * np.max(norms)
    blocks = [large[2 * k - 1 : 2 * k + 1, 2 * k - 1 : 2 * k + 1] for k in keys]
    return int(np.sum(large)), int(sum(np.sum(block) for block in blocks))


def localisation(params, own):
    """Of the columns of W_L of neurons over 85 %: squares at their own k over all, the least share, and agreement."""
    W_L = oracle.neuron_to_logit(params)
    components = oracle.basis(len(W_L)) @ W_L
    inside, total, shares, agree = 0.0, 0.0, [], []
    for m in np.flatnonzero(own):
        per_freq = [np.sum(components[2 * k - 1 : 2 * k + 1, m] ** 2) for k in oracle.freqs(len(W_L))]
        inside, total = inside + per_freq[own[m] - 1], total + np.sum(W_L[:, m] ** 2)
        shares.append(per_freq[own[m] - 1] / np.sum(W_L[:, m] ** 2))
        agree.append(int(np.argmax(per_freq)) + 1 == own[m])
    return inside / total, min(shares), np.mean(agree)


def centred_residual(W_L, keys):
    """Norm of W_L, its mean over the classes taken off, without the keys' waves, over the norm with them."""
    off = W_L - np.mean(W_L, 0)
    n, p = np.arange(len(off)), len(off)
    waves = np.array([oracle.unit(oracle.wave(f, k, n, p)) for k in keys for f in oracle.waves(p, k)])
    return np.linalg.norm(off - waves.T @ (waves @ off)) / np.linalg.norm(off)


def structure(params, whole, keys, direction=1):
    """Every number but the losses and those of the keys, by name; arguments as for `ablations`."""
    pattern, acts, logits, own = (whole[name] for name in ("pattern", "acts", "logits", "own"))
    p, W_L = logits.shape[1], oracle.neuron_to_logit(params)
    n = np.arange(p)
    approximation = np.zeros_like(W_L)
    for k in keys:
        for f in oracle.waves(p, k):
            x = oracle.unit(oracle.wave(f, k, n, p))
            approximation += np.outer(x, x @ W_L)
    U, sizes, V = np.linalg.svd(W_L, full_matrices=False)
    some = sum(len(oracle.waves(p, k)) for k in keys)
    best = (U[:, :some] * sizes[:some]) @ V[:some]
    found = {
        "W_L_rank": int(np.sum(sizes > 0.25 * sizes[0])),
        "W_L_directions": some,
        "W_L_residual": np.linalg.norm(W_L - approximation) / np.linalg.norm(W_L),
        "W_L_residual_centred": centred_residual(W_L, keys),
        "W_L_residual_best": np.linalg.norm(W_L - best) / np.linalg.norm(W_L),
        "neurons_over_85": int(np.sum(own > 0)),
        "neuron_share_over_85": np.mean(own > 0),
        "neurons_per_freq": [int(np.sum(own == k)) for k in oracle.freqs(p)],
        "attention_to_equals": np.mean(pattern[:, :, 2], 0),
    }
    names = ("attention_freq", "attention_fve", "attention_fve_keys")
    found |= dict(zip(names, attention_fits(pattern, keys), strict=True))
    found["logit_components"], found["logit_components_in_blocks"] = significant(logits, keys)
    if np.any(own):
        names = ("localisation", "localisation_min", "localisation_match")
        found |= dict(zip(names, localisation(params, own), strict=True))
    if direction is not None:
        found["readout_fve_cos"], found["readout_fve_sin"] = readout_fve(params, acts, direction)
        found["fve_logits_trig"] = oracle_later.fve_logits_trig(logits, keys, direction)
        off = logits - np.mean(logits, 1, keepdims=True)
        found["fve_logits_trig_centred"] = oracle_later.fve_logits_trig(off, keys, direction)
    return found


def numbers(params, keys, train_pairs, answers, direction=1, act="relu", freqs=None):
    """Every number but those of the keys, by name; arguments as for `ablations` and `losses`."""
    whole = model(params, act)
    logits_of = ablations(params, whole, keys, direction, act)
    return structure(params, whole, keys, direction) | losses(logits_of, train_pairs, answers, freqs)
