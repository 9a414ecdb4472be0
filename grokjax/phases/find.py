"""Finds when each run memorised, formed its circuit and cleaned up: a row per run, from a table of metrics.

Takes any table with the columns step, train_loss and test_loss, whoever wrote it; further columns make further rules
available. docs/phases.md explains the rules and checks them against published curves.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from grokjax.phases.curves import Curves, Settings, side
from grokjax.phases.rules import RULES, read
from grokjax.phases.tables import Table

CLASSES = ("comprehension", "grokking", "memorization", "confusion")  # Liu et al. 2022

# What `find_phases` adds to a run. Steps are optimizer steps; null where the thing was not seen.
DESCRIPTIONS = {
    "evaluations": "Evaluations up to last_step.",
    "eval_every": "Median number of steps between them: no boundary is known better than that.",
    "last_step": "Last evaluation with a finite train loss: the budget of a run, and where it is censored.",
    "diverged": "Whether the train loss is null (not finite) from some evaluation to the end.",
    "diverged_step": "First of those evaluations.",
    "memorised": "Whether the train accuracy reached its threshold.",
    "memorised_after": "Last evaluation before it did.",
    "memorised_by": "First evaluation that shows it.",
    "memorised_rule": 'What this was read from: "accuracy" or, without accuracies, "loss".',
    "grokked": "Whether the test accuracy reached its threshold.",
    "grokked_after": "Last evaluation before it did.",
    "grokked_by": "First evaluation that shows it.",
    "grokked_rule": 'What this was read from: "accuracy" or "loss".',
    "ungrokked": "Whether a run that grokked ends below the ungrok accuracy.",
    "ungrokked_after": "Last evaluation before it fell below for good.",
    "ungrokked_by": "First evaluation from which it stays below.",
    "delay": "grokked_by − memorised_by.",
    "delay_min": "grokked_after − memorised_by: the shortest delay that the evaluations allow.",
    "delay_max": "grokked_by − memorised_after: the longest.",
    "censored": "Not grokked by last_step: the time to grok is longer than that, or infinite.",
    "never_memorised": "Not memorised by last_step.",
    "run_class": "comprehension, grokking, memorization or confusion (Liu et al. 2022), as seen by last_step.",
} | {
    f"{boundary}_end{suffix}": text.format(boundary.replace("_", " "))
    for boundary in RULES
    for suffix, text in {
        "": "Evaluation at which the rule sees the end of {}.",
        "_after": "Last evaluation known to lie before the end of {}.",
        "_by": "First evaluation known to lie at or after the end of {}.",
        "_rule": "The rule for the end of {}; null if none had its columns. With a rule, null means: not seen.",
        "_earliest": "Earliest end of {} by any rule.",
        "_latest": "Latest end of {} by any rule.",
        "_seen": "How many rules see an end of {}.",
        "_rules": "How many rules had the columns to see an end of {}.",
    }.items()
}
DESCRIPTIONS["overlap"] = "Whether the ends are out of order, such as train loss still falling when test loss drops."


def find_phases(metrics: pd.DataFrame, settings: Settings | None = None) -> pd.DataFrame:
    """One row per run: thresholds reached, delay, class, and the end of each phase as an interval between evaluations.

    Args:
      metrics: rows per (run, step) in any order, with step, train_loss and test_loss; without `run` it is one run. Null
        and non-finite values count as missing. Other columns in `curves.QUANTITIES` make more rules available.
      settings: thresholds, and rules other than the defaults. If a run lacks what the default rule needs, the next
        available one is used; the row names the rule.

    Returns:
      `run`, the columns that hold one value in every run, and those of `DESCRIPTIONS`; sorted by run.

    Raises:
      InputError: a column is missing or holds what it cannot, or a rule that was asked for is unknown or lacks its
        column.

    Example:
      >>> metrics = pd.DataFrame({"step": [0, 100, 200], "train_loss": [4.7, 0.1, 0.001], "test_loss": [4.7, 9.0, 9.9]})
      >>> find_phases(metrics)[["memorised", "memorised_after", "memorised_by", "grokked", "run_class"]]
         memorised  memorised_after  memorised_by  grokked     run_class
      0       True            100.0         200.0    False  memorization
    """
    table = Table(metrics, settings or Settings(), frozenset(DESCRIPTIONS))
    rows = [_row(run.curves, run.diverged_step) for run in table.runs()]
    return pd.concat([table.fixed(), pd.DataFrame(rows, columns=list(DESCRIPTIONS))], axis=1)


def _row(c: Curves, diverged_step: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "evaluations": c.step.size,
        "eval_every": _every(c),
        "last_step": float(c.step[-1]) if c.step.size else 0.0,
        "diverged": diverged_step is not None,
        "diverged_step": np.nan if diverged_step is None else diverged_step,
        "memorised_rule": "accuracy" if c.column("train_acc") else "loss",
        "grokked_rule": "accuracy" if c.column("test_acc") else "loss",
    }
    for name in ("memorised", "grokked", "ungrokked"):
        event = getattr(c, name)
        row |= {name: event is not None, f"{name}_after": side(event, "after"), f"{name}_by": side(event, "by")}
    row |= {
        "delay": row["grokked_by"] - row["memorised_by"],
        "delay_min": row["grokked_after"] - row["memorised_by"],
        "delay_max": row["grokked_by"] - row["memorised_after"],
        "censored": not row["grokked"],
        "never_memorised": not row["memorised"],
        "run_class": _class(c),
    }
    for boundary in RULES:
        row |= _boundary(c, boundary)
    ends = [row[f"{boundary}_end"] for boundary in RULES if not np.isnan(row[f"{boundary}_end"])]
    return row | {"overlap": ends != sorted(ends)}


def _every(c: Curves) -> float:
    return float(np.median(np.diff(c.step))) if c.step.size > 1 else np.nan


def _boundary(c: Curves, boundary: str) -> dict[str, Any]:
    available = [name for name, rule in RULES[boundary].items() if not rule.lacks(c)]
    wanted = [name for name in available if c.settings.rules.get(boundary, name) == name]
    reading = read(c, boundary, wanted[0]) if wanted else None
    seen = [found.at for name in available if (found := read(c, boundary, name))]
    return {
        f"{boundary}_end": side(reading, "at"),
        f"{boundary}_end_after": side(reading, "after"),
        f"{boundary}_end_by": side(reading, "by"),
        f"{boundary}_end_rule": wanted[0] if wanted else None,
        f"{boundary}_end_earliest": min(seen, default=np.nan),
        f"{boundary}_end_latest": max(seen, default=np.nan),
        f"{boundary}_end_seen": len(seen),
        f"{boundary}_end_rules": len(available),
    }


def _class(c: Curves) -> str:
    """The class of Liu et al. 2022: comprehension, grokking, memorization or confusion."""
    budget = c.settings.class_budget
    train, test = (c.reached(split, c.settings.class_accuracy) for split in ("train", "test"))
    if not train or train.by > budget:
        return "confusion"
    if not test or test.by > budget:
        return "memorization"
    return "comprehension" if test.by - train.by < c.settings.class_gap else "grokking"


def shade(row: Mapping[str, Any] | pd.Series) -> list[tuple[str, float, float]]:
    """The phases of one run as (name, start, end) in steps, to be shaded behind its curves.

    A phase that is open at the last evaluation ends there, and what follows the last phase has no name. A phase ends no
    later than those that follow it: where they overlap, the earlier one is cut, or left out if nothing remains of it.
    A run that never memorised has no phases.

    Args:
      row: of `find_phases`.

    Example:
      >>> import grokjax
      >>> found = grokjax.open("results/small").phases()
      >>> shade(found.iloc[0])[0][:2]
      ('memorization', 0.0)
    """
    if not row["memorised"]:
        return []
    ends = [np.inf if pd.isna(row[f"{boundary}_end"]) else float(row[f"{boundary}_end"]) for boundary in RULES]
    phases, start = [], 0.0
    for i, boundary in enumerate(RULES):
        end = min(*ends[i:], float(row["last_step"]))
        if end > start:
            phases.append((boundary.replace("_", " "), start, end))
            start = end
    return phases
