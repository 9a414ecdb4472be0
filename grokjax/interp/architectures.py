"""Models of other architectures, told by their arrays: named for what they are, with their P."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from grokjax.errors import InputError

_RATES = ("attn_coeff", "attn_rate", "attention_rate", "attention_coeff")
_OURS = "this project's model reads a, b, = with one embedding, softmax attention and an MLP"


def refuse(source: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses arrays, by their full names, of a model that has two positions, two vocabularies or no attention.

    Raises:
      InputError: it is such a model; says which.
    """
    embeddings = _embeddings(arrays)
    W_pos = next((arrays[name] for name in ("pos_embed.W_pos", "pos_embed.weight") if name in arrays), None)
    if len(embeddings) > 1 and not _equal(arrays, embeddings):
        raise InputError(
            f"{source} has separate vocabularies, an embedding for each of {', '.join(embeddings[:4])}{_p(arrays)}; "
            f"{_OURS}."
        )
    if W_pos is not None and W_pos.ndim == 2 and W_pos.shape[0] == 2:
        raise InputError(f"{source} has two positions and no '='{_p(arrays)}; {_OURS}.")
    has_attention = any(re.search(r"attn|attention|W_?[QKVO]\b", name) for name in arrays)
    is_ours = W_pos is not None or any(name.startswith("blocks.") and "W_" in name for name in arrays)
    if sum(x.ndim == 2 for x in arrays.values()) > 1 and not has_attention and not is_ours:
        raise InputError(f"{source} is an MLP alone, without attention{_p(arrays)}; {_OURS}.")


def refuse_rate(source: str, said: Mapping[str, Any]) -> None:
    """Refuses a model whose configuration has an attention rate other than 1, which is softmax attention.

    Raises:
      InputError: it has.
    """
    for name in _RATES:
        rate = said.get(name)
        if isinstance(rate, int | float) and rate != 1:
            p = next((said[key] for key in ("C", "p", "P") if type(said.get(key)) is int), None)
            where = f" (P is {p})" if p else ""
            raise InputError(f"{source} has an attention rate, {name} = {rate}{where}; {_OURS}, whose rate is 1.")


def _embeddings(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the embeddings of tokens."""
    return [
        name
        for name, x in arrays.items()
        if x.ndim == 2 and re.search(r"emb|W_E", name) and not re.search(r"pos|unemb", name)
    ]


def _equal(arrays: Mapping[str, np.ndarray], names: list[str]) -> bool:
    """Whether they are one embedding under several names."""
    return all(np.array_equal(arrays[names[0]], arrays[name]) for name in names)


def _p(arrays: Mapping[str, np.ndarray]) -> str:
    """P in words: the number of logits that is also a number of tokens, or of theirs and "="."""
    matrices = [x for x in arrays.values() if x.ndim == 2]
    U = next((arrays[name] for name in ("unembed.W_U", "unembed.weight") if name in arrays), None)
    if U is not None and U.ndim == 2:
        return f" (P is {U.shape[1 if 'unembed.W_U' in arrays else 0]})"
    first = {n + less for n in matrices[0].shape for less in (0, -1)} | {n // 2 for n in matrices[0].shape}
    return next((f" (P is {n})" for n in matrices[-1].shape if n in first), "")
