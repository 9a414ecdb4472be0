"""Groups by hand and what is read of them, in float64 and by definition: loops and matrices."""

import numpy as np
from scipy.special import logsumexp

GOLDEN = (1 + 5**0.5) / 2


def projections(blocks, group):
    """P_B of every block by its character: P[g, h] = D χ(g h⁻¹) / (n χ(1))."""
    n, e = group.order, group.identity
    quotient = group.table[:, group.inverses]  # g h⁻¹ at [g, h]
    return [size * chi[quotient] / (n * chi[e]) for size, chi in zip(blocks.sizes, blocks.characters, strict=True)]


def mean_over_pairs(table, logits):
    """m[s, c], the mean of logits [a, b, c] over the pairs with table[a, b] = s."""
    n = len(table)
    return np.array([[np.mean(logits[:, :, c][table == s]) for c in range(logits.shape[2])] for s in range(n)])


def restricted_loss(table, logits, projection):
    """Mean over s of the cross-entropy of the projection of m, s being the answer."""
    kept = projection @ mean_over_pairs(table, logits)
    return np.mean(logsumexp(kept, 1) - np.diag(kept))


def excluded_loss(table, logits, projection, train):
    """Mean over the training pairs (a, b) of the cross-entropy of their logits less the projection of m at a∘b."""
    gone = projection @ mean_over_pairs(table, logits)
    losses = []
    for a, b in train:
        left = logits[a, b] - gone[table[a, b]]
        losses.append(logsumexp(left) - left[table[a, b]])
    return np.mean(losses)


def planted(group, blocks, coefficients):
    """Σ α_ρ χ_ρ(a∘b∘c⁻¹) at [a, b, c]."""
    argument = group.table[group.table[:, :, None], group.inverses]
    return sum(alpha * chi[argument] for alpha, chi in zip(coefficients, blocks.characters[1:], strict=True))
