"""Key frequencies by each rule (group "paper").

Size letters as in `measures.shared`.
"""

import itertools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grokjax.columns import SIGN
from grokjax.measures.paper import NANDA
from grokjax.measures.registry import measure
from grokjax.measures.shared import KEY_RULES, LOGIT_SHARES, Shared

_COUNT: dict[str, Any] = {"unit": "1", "range": "[0, P/2]", "dtype": "int32", **SIGN}
_MASK: dict[str, Any] = {"unit": "1", "range": "false, true", "dtype": "bool", "shape": ("freq",), **SIGN}

# By rule: what it takes for key, and where it comes from.
RULES = {
    "W_L": (
        "norm in W_L above key_threshold times the largest",
        f"{NANDA}, App. C.2 (the rule; the threshold is this project's)",
    ),
    "W_E": ("norm in W_E above key_threshold times the largest", "TransformerLens, Grokking demo (W_E, a quarter)"),
    "neurons": (
        "best frequency of at least one neuron that it explains over 85 % of",
        f"{NANDA}, released code (which leaves out k = (P-1)/2)",
    ),
    "logits": (
        f"its sum directions hold more than {LOGIT_SHARES}/⌊P/2⌋ of the centred logits' variance (more than a half"
        " for P under 14)",
        "this project; 3/56 at P = 113",
    ),
}


@measure(
    "paper",
    **_MASK,
    keyed=True,
    description="Which frequencies are key by config.key_rule.",
    source=f"{NANDA}, App. C.2",
)
def key_freqs(s: Shared):
    return s.key_freqs_K


@measure(
    "paper",
    **_COUNT,
    keyed=True,
    description="The number of key frequencies by config.key_rule.",
    source=f"{NANDA}, App. C.2",
)
def n_key_freqs(s: Shared):
    return jnp.sum(s.key_freqs_K)


def _register(rule, what, source):
    needs: dict[str, Any] = {"needs_sum": rule == "logits", "whole_grid": rule == "neurons"}
    mask = measure(
        "paper",
        name=f"key_freqs_{rule}",
        **_MASK,
        description=f"Which frequencies are key by the rule {rule}: {what}.",
        source=source,
        **needs,
    )
    mask(lambda s: s.keys_by(rule))
    count = measure(
        "paper",
        name=f"n_key_freqs_{rule}",
        **_COUNT,
        description=f"The number of key frequencies by the rule {rule}.",
        source=source,
        **needs,
    )
    count(lambda s: jnp.sum(s.keys_by(rule)))


for _rule in KEY_RULES:
    _register(_rule, *RULES[_rule])


def jaccard(x_K: Bool[Array, " K"], y_K: Bool[Array, " K"]) -> Float[Array, ""]:
    """Size of the intersection over size of the union; 1 for two empty sets."""
    union = jnp.sum(x_K | y_K)
    return jnp.where(union > 0, jnp.sum(x_K & y_K) / jnp.maximum(union, 1), 1.0)


@measure(
    "paper",
    unit="1",
    range="[0, 1]",
    description="Smallest Jaccard index between two of the rules' sets of key frequencies: 1 if all agree. Without the"
    " rule logits where the task is no function of a ± b, and without neurons where it leaves pairs out.",
    source="this project",
    **SIGN,
)
def key_rule_agreement(s: Shared):
    undefined = {"logits": not s.has_sum, "neurons": s.nonzero_b and not s.in_blocks}
    sets = [s.keys_by(rule) for rule in KEY_RULES if not undefined.get(rule)]
    return jnp.min(jnp.stack([jaccard(x, y) for x, y in itertools.combinations(sets, 2)]))
