"""What runs say of a claim: shares, times and measures of two settings side by side, with intervals and censoring.

Each function makes a comparison, which takes a record's rows, one per run, and says what they show.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from grokjax import phases
from grokjax.phases import paired
from grokjax.phases.survival import few_runs, median_time
from studies import text


class Found(NamedTuple):
    """What runs show.

    Attributes:
      ours: the figure, with its interval and how many runs it is of.
      shows: whether the effect is there; None without runs on both sides.
      p: how likely so clear a difference were, if the two settings were alike (two-sided); NaN where none is compared.
    """

    ours: str
    shows: bool | None = None
    p: float = math.nan


class Arm(NamedTuple):
    """A setting that is compared.

    Attributes:
      name: in words.
      query: which runs have it, as `pandas.DataFrame.query` reads it; "" for all.
    """

    name: str
    query: str = ""

    def of(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The runs in this setting."""
        return runs.query(self.query, engine="python") if self.query else runs


Comparison = Callable[[pd.DataFrame], Found]
NOTHING = Found("no run")
EVENTS = {"grokked_by": "grok", "lost_grokking_by": "lose it again", "memorised_by": "memorise"}


def all_grok(arm: Arm) -> Comparison:
    """Whether every run groks, and after how many steps."""

    def compare(runs: pd.DataFrame) -> Found:
        some = arm.of(runs)
        n = int(some["grokked_by"].notna().sum())
        return Found(_times(arm, some), n == len(some)) if len(some) else NOTHING

    return compare


def groks_at(arm: Arm, low: float, high: float) -> Comparison:
    """Whether the median time to grok, or its interval where there is one, meets a published range of steps."""

    def compare(runs: pd.DataFrame) -> Found:
        some = arm.of(runs)
        if not len(some):
            return NOTHING
        row = phases.time_to_grok(some).iloc[0]
        ours = (row["median"], row["median"]) if math.isnan(row["low"]) else (row["low"], row["high"])
        return Found(_times(arm, some), bool(ours[0] <= high and low <= ours[1]))

    return compare


def happens_more(event: str, more: Arm, less: Arm, among: str | None = None) -> Comparison:
    """Whether an event, one of `EVENTS`, befalls a larger share of runs in one setting; Fisher's exact test.

    Args:
      event: the column of its step.
      more, less: the two settings.
      among: an event that a run must have come to, to be counted at all.
    """

    def compare(runs: pd.DataFrame) -> Found:
        some = runs[runs[among].notna()] if among else runs
        sides = [arm.of(some) for arm in (more, less)]
        if not all(map(len, sides)):
            return NOTHING
        n = [int(side[event].notna().sum()) for side in sides]
        said = (f"{arm.name} {text.share(k, len(side))}" for arm, k, side in zip((more, less), n, sides, strict=True))
        from scipy import stats  # type: ignore[import-untyped]

        p = stats.fisher_exact([[k, len(side) - k] for k, side in zip(n, sides, strict=True)]).pvalue
        return Found(f"{EVENTS[event]}: {'; '.join(said)}", n[0] / len(sides[0]) > n[1] / len(sides[1]), float(p))

    return compare


def sooner(quick: Arm, slow: Arm, on: Sequence[str] = ("seed",), best_by: Sequence[str] = ()) -> Comparison:
    """Whether runs of one setting grok sooner than their pairs of the other; a sign test, by `phases.paired`.

    Args:
      quick, slow: the two settings.
      on: columns that a pair agrees in.
      best_by: columns of which each side has the values at which it groks soonest, as if tuned.
    """

    def compare(runs: pd.DataFrame) -> Found:
        sides = [_best(arm.of(runs), best_by) for arm in (quick, slow)]
        if not all(map(len, sides)):
            return NOTHING
        pairs = paired.pair(sides[0], sides[1], list(on))
        if not len(pairs):
            return NOTHING
        of = paired.statistics(pairs).set_index("quantity").to_dict("index")["grokked"]
        said = [_times(arm, side) for arm, side in zip((quick, slow), sides, strict=True)]
        said.append(f"sooner in {of['first_lower']:.0f} of {of['pairs']:.0f} pairs, later in {of['second_lower']:.0f}")
        if of["both"]:
            said.append(
                f"× {_interval(of['ratio'], of['ratio_low'], of['ratio_high'])} in {of['both']:.0f} where both grok"
            )
        return Found("; ".join(said), bool(of["first_lower"] > of["second_lower"]), float(of["p"]))

    return compare


def higher(column: str, more: Arm, less: Arm) -> Comparison:
    """Whether a measure is larger at the end of runs of one setting, by their medians; the Mann–Whitney test."""

    def compare(runs: pd.DataFrame) -> Found:
        sides = [arm.of(runs)[column].dropna().to_numpy(float) for arm in (more, less)]
        if not all(map(len, sides)):
            return NOTHING
        said = (f"{arm.name} {_median(side)}" for arm, side in zip((more, less), sides, strict=True))
        from scipy import stats

        p = float(stats.mannwhitneyu(*sides).pvalue)
        return Found(f"`{column}`: {'; '.join(said)}", bool(np.median(sides[0]) > np.median(sides[1])), p)

    return compare


def meets(column: str, arm: Arm, low: float, high: float) -> Comparison:
    """Whether a measure at the end of runs, the interval of its median or the range of few, meets a published range."""

    def compare(runs: pd.DataFrame) -> Found:
        some = arm.of(runs)[column].dropna().to_numpy(float)
        if not len(some):
            return NOTHING
        found = median_time(some, np.ones(len(some), bool))
        ours = (found.low, found.high) if len(some) >= few_runs() else (some.min(), some.max())
        return Found(f"`{column}`: {arm.name} {_median(some)}", bool(ours[0] <= high and low <= ours[1]))

    return compare


def holds(arm: Arm, what: str, query: str) -> Comparison:
    """Whether something holds of more than half of the runs of a setting.

    Args:
      arm: the setting.
      what: that it holds, in words.
      query: of which runs, as that of an `Arm`.
    """

    def compare(runs: pd.DataFrame) -> Found:
        some = arm.of(runs)
        n = len(some.query(query, engine="python"))
        return Found(f"{arm.name}, {what}: {text.share(n, len(some))}", 2 * n > len(some)) if len(some) else NOTHING

    return compare


def differ(column: str, by: Sequence[str]) -> Comparison:
    """Whether runs that agree in some columns, seeds apart, differ in a text."""

    def compare(runs: pd.DataFrame) -> Found:
        some = runs[runs[column].notna()]
        if not len(some):
            return NOTHING
        counts = [(group[column].nunique(), len(group), key) for key, group in some.groupby(list(by))]
        said = (f"{' '.join(map(str, key))} {n} in {of} runs" for n, of, key in counts)
        return Found(f"different `{column}`: {'; '.join(said)}", all(n > 1 for n, _, _ in counts))

    return compare


def _best(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The runs at the values of some columns at which they grok soonest, or most often where that is all there is."""
    if not by or not len(runs):
        return runs
    found = phases.time_to_grok(runs, list(by)).sort_values(["median", "grokked"], ascending=[True, False])
    return runs.merge(found.iloc[:1][list(by)], on=list(by))


def _times(arm: Arm, runs: pd.DataFrame) -> str:
    row = phases.time_to_grok(runs).iloc[0]
    return f"{arm.name} at step {row['text']}, {row['grokked']} of {row['runs']}"


def _median(values: np.ndarray) -> str:
    """A median with its interval, or, of too few runs for one, with their range."""
    middle = float(np.median(values))  # Kaplan and Meier's is the lower of two in the middle
    if len(values) >= few_runs():
        found = median_time(values, np.ones(len(values), bool))
        return f"{text.interval(middle, found.low, found.high)} of {len(values)}"
    ends = f"{text.number(values.min())} to {text.number(values.max())}"
    return f"{text.number(middle)} ({ends}) of {len(values)}"


def _interval(middle: float, low: float, high: float) -> str:
    return text.number(middle) if math.isnan(low) else text.interval(middle, low, high)
