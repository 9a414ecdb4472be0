"""Pairs of runs that differ in one thing, such as two sweeps' runs of the same seeds, and statistics over them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from grokjax.errors import InputError
from grokjax.phases import survival
from grokjax.phases.summary import TIMES

SIDES = ("first", "second")
# Of a run at its last evaluation: not times, so never censored.
VALUES = ("train_loss", "test_loss", "n_key_freqs")


def pair(first: pd.DataFrame, second: pd.DataFrame, on: Sequence[str]) -> pd.DataFrame:
    """Pairs the runs of two tables that agree in some columns.

    Args:
      first, second: rows per run: the columns of `find_phases`, and of `VALUES` those that there are.
      on: the columns, seeds among them.

    Returns:
      Rows per pair: `on`, `run_first`, `run_second`, and for each of `TIMES` and `VALUES` NAME_first and NAME_second;
      NAME_first_seen says of a time whether it was seen, and where it was not, the time is that up to which it did not
      happen. NaN where a run cannot tell.

    Raises:
      InputError: several runs of one table agree in these columns.
    """
    for side, runs in zip(SIDES, (first, second), strict=True):
        groups = runs.groupby(list(on), dropna=False)["run"].apply(list) if on else [list(runs["run"])]
        for numbers in groups:
            if len(numbers) > 1:
                listed = ", ".join(map(str, numbers[:3]))
                raise InputError(f"runs {listed} of the {side} sweep agree in {', '.join(on) or 'every field'}.")
    sides = [_outcomes(runs, on, side) for side, runs in zip(SIDES, (first, second), strict=True)]
    if on:
        return sides[0].merge(sides[1], on=list(on))
    return sides[0].merge(sides[1], how="cross")


def _outcomes(runs: pd.DataFrame, on: Sequence[str], side: str) -> pd.DataFrame:
    """What became of each run, in columns whose names end with the side."""
    last = runs["diverged_step"].fillna(runs["last_step"]).to_numpy(float)
    found: dict[str, Any] = {name: runs[name].to_numpy() for name in on} | {f"run_{side}": runs["run"].to_numpy()}
    for name, column in TIMES.items():
        event = runs[column].to_numpy(float)
        seen = ~np.isnan(event)
        until = last - runs["memorised_by"].to_numpy(float) if name == "delay" else last
        if name.endswith("_end"):  # unknown where phases overlap, or no rule could be read
            until = np.where(runs[f"{name}_rule"].notna() & ~runs["overlap"].astype(bool), until, np.nan)
        found |= {f"{name}_{side}": np.where(seen, event, until), f"{name}_{side}_seen": seen}
    found |= {f"{name}_{side}": runs[name].to_numpy(float) for name in VALUES if name in runs}
    return pd.DataFrame(found)


def statistics(pairs: pd.DataFrame, by: Sequence[str] = (), confidence: float = survival.CONFIDENCE) -> pd.DataFrame:
    """Compares the runs of each pair, quantity by quantity.

    Differences are second − first, and so are ratios second / first: their medians are over the pairs in which both
    are known, with an interval between two of the differences that covers the median with the confidence, whatever
    they are distributed by (from `survival.few_runs` pairs on). Which of a pair is lower is known also where the other
    one had not come to it by a later step; the sign test takes these in, and leaves out ties.

    Args:
      pairs: of `pair`.
      by: columns that form groups.
      confidence: of the intervals.

    Returns:
      Rows per group and quantity: `by`, `quantity`, `pairs`, `first_seen` and `second_seen`, in how many of them it is
      known, `both`; `first_lower`, `second_lower`, `equal`, the others being undecided; `difference` and `ratio` with
      _low and _high; `p` of the two-sided sign test.

    Example:
      >>> import grokjax
      >>> runs = grokjax.open("results/tiny").phases()
      >>> some = [runs[runs["weight_decay"] == value] for value in (0.0, 1.0)]
      >>> statistics(pair(*some, on=["seed"])).set_index("quantity").loc["memorised", ["pairs", "both"]].tolist()
      [2, 2]
    """
    names = [name for name in (*TIMES, *VALUES) if f"{name}_first" in pairs and f"{name}_second" in pairs]
    groups = pairs.groupby(list(by), dropna=False) if by else [((), pairs)]
    rows = []
    for values, group in groups:
        labels = dict(zip(by, values, strict=True))
        rows += [labels | {"quantity": name} | _of(group, name, confidence) for name in names]
    return pd.DataFrame(rows)


def _of(pairs: pd.DataFrame, name: str, confidence: float) -> dict[str, Any]:
    first, second = (pairs[f"{name}_{side}"].to_numpy(float) for side in SIDES)
    seen = [pairs.get(f"{name}_{s}_seen", pairs[f"{name}_{s}"].notna()).to_numpy(bool) for s in SIDES]
    both = seen[0] & seen[1]
    lower = [seen[0] & (first < second) | seen[0] & ~seen[1] & (first <= second)]
    lower.append(seen[1] & (second < first) | seen[1] & ~seen[0] & (second <= first))
    n = [int(some.sum()) for some in lower]
    a, b = first[both], second[both]
    row: dict[str, Any] = {"pairs": len(pairs), "first_seen": int(seen[0].sum()), "second_seen": int(seen[1].sum())}
    row |= {"both": int(both.sum()), "first_lower": n[0], "second_lower": n[1], "equal": int((a == b).sum())}
    row |= _median("difference", b - a, confidence)
    row |= _median("ratio", b / a if a.size and (a > 0).all() else np.empty(0), confidence)
    return row | {"p": sign_test(*n)}


def _median(name: str, values: np.ndarray, confidence: float) -> dict[str, float]:
    """A median with the interval between two order statistics that covers it."""
    values = np.sort(values)
    low = high = math.nan
    if values.size >= survival.few_runs(confidence):
        from scipy import stats  # type: ignore[import-untyped]

        # The most that can be left off at each end: P(fewer than k of n below the median) ≤ tail.
        k = int(stats.binom.ppf((1 - confidence) / 2, values.size, 0.5))
        k += stats.binom.cdf(k, values.size, 0.5) <= (1 - confidence) / 2
        low, high = float(values[k - 1]), float(values[-k])
    middle = float(np.median(values)) if values.size else math.nan
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def sign_test(first: int, second: int) -> float:
    """The two-sided p of so many pairs one way and so many the other, if either way were as likely; NaN for none."""
    if not first + second:
        return math.nan
    from scipy import stats

    return float(stats.binomtest(first, first + second).pvalue)
