"""When each measure moves between memorising and grokking, and what it says at the moment of memorising."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

# Columns by the name in the record, the first that a run has, and whether the logarithm moves. With the keys of the
# moment: those of the final model are not known while it trains, and only snapshots are measured with them.
MEASURES: dict[str, tuple[tuple[str, ...], bool]] = {
    "test_loss": (("test_loss",), True),
    "excluded_loss": (("excluded_loss_online",), True),
    "excluded_loss_max": (("excluded_loss_max",), True),
    "heldout_restricted_loss": (("heldout_restricted_loss_online",), True),
    "gini_W_E": (("gini_W_E",), False),
    "gini_W_L": (("gini_W_L",), False),
    "weight_norm": (("sum_sq_weights",), True),
    "neurons_over_85": (("neurons_over_85",), False),
    "trig_share": (("trig_share", "fve_logits_trig_centred"), False),
}
SHARES = {"half": 0.5, "tenth": 0.1}


def of(of_run: pd.DataFrame, found: Mapping[Any, Any]) -> dict[str, float]:
    """The moves of one run.

    Args:
      of_run: its metrics, by step.
      found: its row of `phases.find_phases`.

    Returns:
      `between`: evaluations from memorising to grokking. Of each measure, `at_…`: its value at the evaluation at which
      the run has memorised; `half_…`, `tenth_…`: the step at which it has gone that share of the way from there to its
      value at the evaluation at which the run groks, for good and interpolated; `first_half_…`: for the first time.
      NaN where a run does not memorise or grok, or has not the measure.
    """
    begin, end = found["memorised_by"], found["grokked_by"]
    inside = of_run[(of_run["step"] >= begin) & (of_run["step"] <= end)]
    result: dict[str, float] = {"between": max(0, len(inside) - 1)}
    at = of_run[of_run["step"] == begin]
    for name, (columns, in_log) in MEASURES.items():
        column = next((column for column in columns if column in of_run), None)
        if column is None:
            continue
        result[f"at_{name}"] = _first(at[column])
        if len(inside) > 1:
            result |= _times(inside["step"].to_numpy(float), _values(inside[column], in_log), name)
    return result


def _first(values: pd.Series) -> float:
    return float(values.iloc[0]) if len(values) and pd.notna(values.iloc[0]) else np.nan


def _values(values: pd.Series, in_log: bool) -> np.ndarray:
    array = values.to_numpy(float)
    return np.log(np.maximum(array, 1e-30)) if in_log else array


def _times(step: np.ndarray, value: np.ndarray, name: str) -> dict[str, float]:
    held = np.isfinite(value)
    step, value = step[held], value[held]
    if step.size < 2 or value[0] == value[-1]:
        return {}
    way = (value - value[0]) / (value[-1] - value[0])
    found = {f"{prefix}_{name}": _crossing(step, way, share, last=True) for prefix, share in SHARES.items()}
    return found | {f"first_half_{name}": _crossing(step, way, 0.5, last=False)}


def _crossing(step: np.ndarray, way: np.ndarray, share: float, last: bool) -> float:
    """Where a path from 0 to 1 crosses a share of the way, upwards: for the last time or the first; interpolated."""
    up = np.flatnonzero((way[:-1] < share) & (way[1:] >= share))
    i = up[-1 if last else 0]
    return float(step[i] + (step[i + 1] - step[i]) * (share - way[i]) / (way[i + 1] - way[i]))
