"""Steps, intervals and medians as tables and the page show them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grokjax.errors import plain
from grokjax.phases.rules import RULES

ENDS = {f"{boundary}_end": f"{boundary.replace('_', ' ')} ends" for boundary in RULES}  # heads of columns


def notes(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The warnings of a table, each once, with the rows it is about unless those are all."""
    rows: dict[str, list[str]] = {}
    for row in frame.to_dict("records"):
        for sentence in filter(None, row["warning"].split("; ")):
            rows.setdefault(sentence, []).append(" ".join(shown(row[name]) for name in names))
    return [
        f"mind: {plain(sentence)}" + (f" ({', '.join(dict.fromkeys(about))})" if len(about) < len(frame) else "")
        for sentence, about in rows.items()
    ]


def shown(value: Any) -> str:
    """A value of a swept field, or an estimate."""
    if isinstance(value, float):
        return "–" if np.isnan(value) else f"{value:.4g}"
    return plain(str(value))


def shown_steps(value: float) -> str:
    """A number of steps; infinite is beyond the budget."""
    if np.isnan(value):
        return "–"
    return "∞" if np.isinf(value) else f"{value:,.0f}"


def shown_bounds(row: Mapping[Any, Any]) -> str:
    """The interval of an estimate, a row of `Summary.fits`."""
    return "–" if np.isnan(row["estimate"]) else f"[{shown(row['low'])}, {shown(row['high'])}]"


def shown_interval(row: Mapping[Any, Any], name: str, event: str) -> str:
    """The time of an event in a row of `find_phases`: "after–by", or "> budget" if it was not seen."""
    if not np.isnan(row[event]):
        return f"{shown_steps(row[f'{name}_after'])}–{shown_steps(row[f'{name}_by'])}"
    return "–" if pd.isna(row[f"{name}_rule"]) else f"> {shown_steps(row['last_step'])}"


def shown_median(row: Mapping[Any, Any], name: str) -> str:
    """A median of a row of `summarize` with its interval."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if not row[f"{name}_runs"]:
        return "–"
    middle = shown_steps(row[f"{name}_median"])
    return f"{middle} [{shown_steps(low)}, {shown_steps(high)}]" if np.isfinite(low) else "∞"
