"""The answer of a sweep in words: in each setting, how many runs grok and when, and how sure that is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from grokjax import phases
from grokjax.phases import survival
from grokjax.phases.text import lost_clause, shown_steps
from grokjax.report.results import shown_value

MOST = 12  # settings that are named one by one


def sentences(runs: pd.DataFrame, by: Sequence[str], most: int = MOST) -> list[str]:
    """A sentence per setting, such as "weight_decay = 1: 3 of 3 grok, median 950 steps."

    Of more settings than `most`, how many grok in all runs, in some and in none, and the quickest.

    Args:
      runs: of `Results`.
      by: the fields that settings differ in; without any, all runs are one setting.
      most: settings to name one by one.
    """
    found = phases.time_to_grok(runs, list(by))
    if found.empty:
        return ["No run has begun."]
    lost = [_lost(runs)] if "lost_grokking" in runs and runs["lost_grokking"].eq(True).any() else []
    if len(found) <= most:
        return [_named(row, by) + _outcome(row) for row in found.to_dict("records")] + lost
    every, none = found["grokked"] == found["runs"], found["grokked"] == 0
    counts = {"every run groks": every, "some do": ~every & ~none, "none does": none}
    text = ", ".join(f"in {int(where.sum())} {what}" for what, where in counts.items())
    said = [f"Of {len(found)} settings, {text}."]
    if np.isfinite(found["median"]).any():
        row = found.sort_values("median").to_dict("records")[0]
        said.append(f"The quickest: {_named(row, by)}{_outcome(row)}")
    return said + lost


def _lost(runs: pd.DataFrame) -> str:
    """Of the runs that grok, how many lose it again and in which it is seen."""
    grokked, lost, ungrokked = (runs[name].eq(True) for name in ("grokked", "lost_grokking", "ungrokked"))
    n = int(lost.sum())
    which = "run" + "s" * (n > 1) + " " + ", ".join(map(str, runs.loc[lost, "run"]))
    return f"Of {int(grokked.sum())} that grok, {lost_clause(n, int(ungrokked.sum()))}: {which}."


def _named(row, by: Sequence[str]) -> str:
    return ", ".join(f"{name} = {shown_value(row[name])}" for name in by) + ": " * bool(by)


def _outcome(row) -> str:
    share = f"{row['grokked']} of {row['runs']} grok"
    if not row["grokked"]:
        return f"{share} within {shown_steps(row['last_step'])} steps."
    if row["runs"] == 1:
        return f"{share}, at step {row['text']}."
    return f"{share}, median {row['text']} steps."


def surety(runs: pd.DataFrame, by: Sequence[str]) -> str:
    """How sure the sentences are: what medians and shares of so few runs can bear."""
    found = phases.time_to_grok(runs, list(by))
    if found.empty:
        return ""
    n, enough = int(found["runs"].min()), survival.few_runs()
    said = ["Medians are Kaplan–Meier's: runs that have not grokked count as censored at their last evaluation."]
    if n < enough:
        low, high = survival.wilson(n, n)[0], survival.wilson(0, n)[1]
        said.append(
            f"{survival.counted(n, 'run')} in a setting bound no median, for which a 95 % interval needs {enough}; "
            f"{n} of {n} leaves a share that groks from {low:.0%} up, 0 of {n} one up to {high:.0%} (Wilson, 95 %)."
        )
    if (found["runs"] >= enough).any():
        said.append("Brackets are 95 % intervals, by bootstrap over runs.")
    return " ".join(said)


def differing(runs: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    """Those of some fields in which runs differ."""
    return [name for name in fields if runs[name].nunique(dropna=False) > 1]
