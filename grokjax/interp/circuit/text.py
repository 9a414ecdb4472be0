"""Numbers in few words, as the table shows them."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Show = Callable[[str, Mapping[str, Any]], str]  # a number's name and all numbers, to what is printed


def loss_text(x: float) -> str:
    """Three digits: 5.13e-8, 0.0241, 5.27."""
    return "0" if x == 0 else re.sub(r"e([-+])0", r"e\1", f"{x:#.3g}".rstrip(".") if abs(x) >= 1e-2 else f"{x:.2e}")


def percent_text(x: float) -> str:
    """Four digits: 97.48 %."""
    return f"{100 * x:.4g} %"


def scalar(name: str, found: Mapping[str, Any]) -> str:
    """A single number, an integer whole."""
    return f"{found[name]:.4g}" if isinstance(found[name], float) else str(found[name])


def percent(name: str, found: Mapping[str, Any]) -> str:
    """A share."""
    return percent_text(found[name])


def blocks_of(found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The blocks that lists over frequencies run over, as `described` gives them; empty where they are frequencies."""
    measured = found.get("measured") or {}  # text in a row of circuit.parquet
    measured = json.loads(measured) if isinstance(measured, str) else measured
    return measured.get("blocks") or {}


def label(k: int, found: Mapping[str, Any]) -> str:
    """A frequency as it is, a block by its number and name."""
    blocks = blocks_of(found)
    return f"{k} ({blocks['names'][k - 1]})" if blocks else str(k)


def freqs(name: str, found: Mapping[str, Any]) -> str:
    """A set of frequencies."""
    return ", ".join(label(k, found) for k in found[name]) or "none"


def per_head(text: Callable[[Any], str]) -> Show:
    """One value per head."""
    return lambda name, found: ", ".join(map(text, found[name]))


def at_keys(text: Callable[[Any], str]) -> Show:
    """The values of the key frequencies."""
    return lambda name, found: (
        ", ".join(f"{label(k, found)}: {text(found[name][k - 1])}" for k in found["key_freqs"]) or "none"
    )


def at_some(text: Callable[[Any], str]) -> Show:
    """The values of frequencies that are not 0."""
    return lambda name, found: (
        ", ".join(f"{label(k, found)}: {text(x)}" for k, x in enumerate(found[name], 1) if x) or "none"
    )


def losses(name: str, found: Mapping[str, Any]) -> str:
    """The loss on all pairs, with those on the training and test pairs where the split is known."""
    known = [
        f"{pairs} {loss_text(found[f'{name}_{pairs}'])}"
        for pairs in ("train", "test")
        if not absent(found[f"{name}_{pairs}"])
    ]
    return loss_text(found[name]) + (f" ({', '.join(known)})" if known else "")


def absent(value: Any) -> bool:
    """Whether a value is None, or the NaN that a table of numbers holds instead."""
    return value is None or (isinstance(value, float) and math.isnan(value))
