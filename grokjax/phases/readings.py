"""Readings of every rule on each run, and how far the rules agree."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from grokjax.phases.curves import QUANTITIES, Reading, Settings, side
from grokjax.phases.rules import RULES, read
from grokjax.phases.tables import Table


def readings(metrics: pd.DataFrame, settings: Settings | None = None) -> pd.DataFrame:
    """Reads every rule, not only the default, on each run.

    Args:
      metrics, settings: as for `find_phases`.

    Returns:
      Rows per (run, phase, rule): whether it is the `default`, whether it is `available`, and if not, what it `lacks`;
      the `columns` it was read from; `after`, `at` and `by`, null if it saw no end, and the numbers of these
      evaluations, counted from 0: `after_index`, `at_index`, `by_index`.
    """
    table = Table(metrics, settings or Settings())
    names = table.fixed().get("run", pd.Series(0, range(len(table))))
    rows = []
    for run, (c, _) in zip(names, table.runs(), strict=True):
        for boundary, rules in RULES.items():
            for i, (key, rule) in enumerate(rules.items()):
                lacks, found = rule.lacks(c), read(c, boundary, key)
                columns = [c.column(need) for need in rule.needs if need in QUANTITIES]
                row = {"run": run, "phase": boundary, "rule": key, "default": i == 0, "available": not lacks}
                row |= {"lacks": needed(lacks), "columns": ", ".join(filter(None, columns))}
                indices = np.searchsorted(c.step, found) if found else [np.nan] * len(Reading._fields)
                row |= {name: side(found, name) for name in Reading._fields}
                rows.append(row | {f"{name}_index": i for name, i in zip(Reading._fields, indices, strict=True)})
    columns = ["run", "phase", "rule", "default", "available", "lacks", "columns"]
    columns += [*Reading._fields, *(f"{name}_index" for name in Reading._fields)]
    return pd.DataFrame(rows, columns=columns).astype({"default": bool, "available": bool})


def needed(needs: Sequence[str]) -> str:
    """Names the columns that a table needs for these quantities."""
    chance = "test_loss at step 0 or p or the setting chance_loss"
    return ", ".join(chance if need == "chance" else " or ".join(QUANTITIES[need]) for need in needs)


def describe_rules(readings: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rules: phase, name, whether it is the default, the sign it takes for the phase's end, and what it needs.

    Args:
      readings: of every rule on some table; adds in how many `runs` each is available and what it `lacks` in others.
    """
    frame = pd.DataFrame(
        {"phase": boundary, "rule": name, "default": i == 0, "sign": rule.sign, "needs": needed(rule.needs)}
        for boundary, rules in RULES.items()
        for i, (name, rule) in enumerate(rules.items())
    )
    if readings is None:
        return frame
    for i, boundary, name in frame[["phase", "rule"]].itertuples():
        mine = readings[(readings["phase"] == boundary) & (readings["rule"] == name)]
        frame.loc[i, "runs"] = mine["available"].sum()
        frame.loc[i, "lacks"] = "; ".join(sorted(set(mine["lacks"]) - {""}))
    return frame.astype({"runs": int})


def agreement(readings: pd.DataFrame) -> pd.DataFrame:
    """Compares each rule with its phase's default.

    Args:
      readings: of every rule on some table, as the function of that name returns them.

    Returns:
      Rows per (phase, rule) that is available: the number of `runs` it is available in, of those where it has `seen`
      the end, and of those where `both` it and the default have, or only one; over `both`, the median `difference` in
      steps (positive: later than the default) and the share `within_two`, whose intervals are at most two evaluations
      apart.
    """
    default = readings[readings["default"]].drop(columns=["rule", "default", "available", "lacks", "columns"])
    pairs = readings[readings["available"]].merge(default, on=["run", "phase"], suffixes=("", "_default"))
    seen, seen_default = pairs["at"].notna(), pairs["at_default"].notna()
    later = pairs["after_index"] - pairs["by_index_default"]
    apart = later.where(later > 0, pairs["after_index_default"] - pairs["by_index"])
    columns = {
        "seen": seen,
        "both": seen & seen_default,
        "only_rule": seen & ~seen_default,
        "only_default": ~seen & seen_default,
        "difference": pairs["at"] - pairs["at_default"],
        "within_two": (apart <= 2).astype(float).where(seen & seen_default),
    }
    groups = pairs.assign(**columns).groupby(["phase", "rule"], sort=False)
    result = groups.agg(runs=("run", "size"), **{name: (name, "sum") for name in list(columns)[:4]})
    return result.join(groups.agg(difference=("difference", "median"), within_two=("within_two", "mean"))).reset_index()
