"""What is known of others' models: what lies beside their arrays, and which are refused, with their P."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from grokjax.errors import InputError

RATES = ("attention_rate", "attn_coeff", "attn_rate", "attention_coeff")


def refuse(source: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses arrays, by their full names, of a model that has two embeddings, or of an MLP of unknown names.

    Raises:
      InputError: it is such a model; says which.
    """
    embeddings = _embeddings(arrays)
    if len(embeddings) > 1 and not _equal(arrays, embeddings):
        raise InputError(
            f"{source} has separate vocabularies, an embedding for each of {', '.join(embeddings[:4])}{_p(arrays)}: "
            "stack them into one W_E, with the rows of b's after those of a's."
        )
    has_attention = any(re.search(r"attn|attention|W_?[QKVO]\b", name) for name in arrays)
    is_ours = "pos_embed.W_pos" in arrays or any(name.startswith("blocks.") and "W_" in name for name in arrays)
    if sum(x.ndim == 2 for x in arrays.values()) > 1 and not has_attention and not is_ours:
        raise InputError(f"{source} is an MLP alone, without attention{_p(arrays)}, and none of those known: {_KNOWN}.")


_KNOWN = "docs/checkpoints.md lists the names of MLPs that load"


def rate(said: Mapping[str, Any]) -> float | None:
    """The attention rate that a configuration beside the arrays tells, 1 being softmax attention; None for none."""
    return next((said[name] for name in RATES if isinstance(said.get(name), int | float)), None)


def beside(path: str) -> dict[str, Any]:
    """The configuration that is a file of its own: config_NAME.json beside model_NAME.pt, as Zhong et al. 2023 have it.

    Args:
      path: of the model's file.

    Returns:
      What it tells; empty where there is none that can be read.
    """
    name = re.fullmatch(r"model_(.+)\.pth?", os.path.basename(path))
    file = os.path.join(os.path.dirname(path), f"config_{name[1]}.json") if name else ""
    if not os.path.isfile(file):
        return {}
    try:
        said = json.loads(Path(file).read_text())
    except (OSError, ValueError):
        return {}
    return dict(said) if isinstance(said, dict) else {}


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
