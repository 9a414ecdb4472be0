"""Finds when each run memorised, formed its circuit and cleaned up: a row per run, from a table of metrics.

Takes any table with the columns step, train_loss and test_loss, whoever wrote it; further columns make further rules
available. docs/phases.md explains the rules and checks them against published curves.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from grokjax.phases.curves import QUANTITIES, Curves, Reading, Settings, side
from grokjax.phases.rules import RULES, read
from grokjax.phases.tables import Table

CLASSES = ("comprehension", "grokking", "memorization", "confusion")  # Liu et al. 2022
# What a run's phases can be: all three ended, one after the other; in that order as far as they have ended; two of them
# at once; no circuit; not even memorised.
VERDICTS = ("separate", "unfinished", "not separate", "not grokked", "not memorised")

# What `find_phases` adds to a run. Steps are optimizer steps; null where the thing was not seen.
DESCRIPTIONS = {
    "evaluations": "Evaluations up to last_step.",
    "eval_every": "Median number of steps between them: no boundary is known better than that.",
    "last_step": "Last evaluation with a finite train loss: the budget of a run, and where it is censored.",
    "diverged": "Whether the train loss is null (not finite) from some evaluation to the end.",
    "diverged_step": "First of those evaluations.",
    "memorised": "Whether the train accuracy reached its threshold, and kept it at the next evaluation.",
    "memorised_after": "Last evaluation before it did.",
    "memorised_by": "First evaluation that shows it.",
    "memorised_rule": 'What this was read from: "accuracy" or, without accuracies, "loss".',
    "grokked": "Whether the test accuracy reached its threshold, and kept it at the next evaluation.",
    "grokked_after": "Last evaluation before it did.",
    "grokked_by": "First evaluation that shows it.",
    "grokked_rule": 'What this was read from: "accuracy" or "loss".',
    "lost_grokking": "Whether a run that grokked falls below the ungrok accuracy at two evaluations or the last.",
    "lost_grokking_after": "Last evaluation before it first did.",
    "lost_grokking_by": "First evaluation that shows it.",
    "ungrokked": "Whether a run that grokked ends below the ungrok accuracy.",
    "ungrokked_after": "Last evaluation before it fell below for good.",
    "ungrokked_by": "First evaluation from which it stays below.",
    "delay": "grokked_by − memorised_by.",
    "delay_min": "grokked_after − memorised_by: the shortest delay that the evaluations allow.",
    "delay_max": "grokked_by − memorised_after: the longest.",
    "censored": "Not grokked by last_step: the time to grok is longer than that, or infinite.",
    "never_memorised": "Not memorised by last_step.",
    "run_class": "comprehension, grokking, memorization or confusion (Liu et al. 2022), as seen by last_step.",
    "phases": "separate, unfinished (in order, not all ended), not separate, not grokked, or not memorised.",
    "phases_sentence": "The same in words, with steps.",
    "overlap": "Whether two phases overlap, so that none has an end below.",
    "overlap_phases": "Which two.",
    "overlap_steps": "By how many steps; at least, where the earlier one has not ended by last_step.",
} | {
    f"{boundary}_end{suffix}": text.format(boundary.replace("_", " "))
    for boundary in RULES
    for suffix, text in {
        "": "Evaluation at which the rule sees the end of {}; null where phases overlap.",
        "_after": "Last evaluation known to lie before the end of {}.",
        "_by": "First evaluation known to lie at or after the end of {}.",
        "_rule": "The rule for the end of {}; null if none had its columns. With a rule, null means: not seen.",
        "_earliest": "Earliest end of {} by any rule.",
        "_latest": "Latest end of {} by any rule.",
        "_seen": "How many rules see an end of {}.",
        "_rules": "How many rules had the columns to see an end of {}.",
    }.items()
}

# Said of a table with test_objective, the loss that was trained on.
OTHER_LOSS = (
    "ends of phases are read from cross-entropy, though another loss was trained on: with mse it stays near a guess's, "
    "and shows no end of circuit formation (docs/phases.md)"
)


def find_phases(metrics: pd.DataFrame, settings: Settings | None = None) -> pd.DataFrame:
    """One row per run: thresholds reached, delay, class, and the end of each phase as an interval between evaluations.

    Args:
      metrics: rows per (run, step) in any order, with step, train_loss and test_loss, or under the names of
        `names.ALIASES`; without `run` it is one run. Null and non-finite values count as missing. Other columns in
        `curves.QUANTITIES` make more rules available.
      settings: thresholds, and rules other than the defaults. If a run lacks what the default rule needs, the next
        available one is used; the row names the rule.

    Returns:
      `run`, the columns that hold one value in every run, and those of `DESCRIPTIONS`; sorted by run. `attrs["notes"]`
      are sentences: which columns were read under another name, what stands in for what, and what was not used.

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
    rows, read_from = [], set()
    for curves, diverged_step in table.runs():
        rows.append(_row(curves, diverged_step))
        read_from |= {(quantity, curves.column(quantity)) for quantity in QUANTITIES}
    found = pd.concat([table.fixed(), pd.DataFrame(rows, columns=list(DESCRIPTIONS))], axis=1)
    found.attrs["notes"] = _notes(table, found, read_from)
    return found


def _notes(table: Table, found: pd.DataFrame, read_from: set[tuple[str, str | None]]) -> list[str]:
    """What stands in for what in a table, and what was not used, in sentences."""
    said = [f"column '{old}' is read as {new}" for new, old in table.read_as.items()]
    accuracies = (table.settings.train_accuracy, table.settings.test_accuracy)
    for event, split, accuracy in zip(("memorised", "grokked"), ("train", "test"), accuracies, strict=True):
        if n := int((found[f"{event}_rule"] == "loss").sum()):
            where = "" if n == len(found) else f", in {n} of {len(found)} runs"
            loss = f"a {split} loss of {-math.log(accuracy):.2g}, −ln {accuracy:g}, stands in for a {split} accuracy"
            said.append(f"no {split}_acc: {loss} of {accuracy:g}{where}")
    for quantity, column in sorted(read_from, key=str):
        if column not in (None, QUANTITIES[quantity][0]):
            said.append(f"{column} stands in for {QUANTITIES[quantity][0]}")
    for boundary, rules in RULES.items():
        default = table.settings.rules.get(boundary, next(iter(rules)))
        others = found[f"{boundary}_end_rule"].dropna()
        for rule, n in others[others != default].value_counts().items():
            said.append(f"rule {rule} stands in for {default} in {n} of {len(found)} runs, for want of its columns")
    if "test_objective" in table.frame:
        said.append(OTHER_LOSS)
    used = {"run", "step", *table.constant, *(column for _, column in read_from)}
    unused = [str(table.read_as.get(str(name), name)) for name in table.frame if name not in used]
    return said + ([f"not used, since no rule for a phase reads it: {', '.join(unused)}"] if unused else [])


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
    for name in ("memorised", "grokked", "lost_grokking", "ungrokked"):
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
    ends = {boundary: _end(c, boundary) for boundary in RULES}
    row |= _verdict(c, {boundary: side(reading, "at") for boundary, (rule, reading) in ends.items() if rule})
    for boundary, (rule, reading) in ends.items():
        row |= _boundary(c, boundary, rule, None if row["overlap"] else reading)
    return row


def _every(c: Curves) -> float:
    return float(np.median(np.diff(c.step))) if c.step.size > 1 else np.nan


def _end(c: Curves, boundary: str) -> tuple[str | None, Reading | None]:
    """The rule for the end of a phase, None if its columns are not there, and what it reads."""
    available = [name for name, rule in RULES[boundary].items() if not rule.lacks(c)]
    rule = next((name for name in available if c.settings.rules.get(boundary, name) == name), None)
    return rule, read(c, boundary, rule) if rule else None


def _boundary(c: Curves, boundary: str, rule: str | None, reading: Reading | None) -> dict[str, Any]:
    available = [name for name, entry in RULES[boundary].items() if not entry.lacks(c)]
    seen = [found.at for name in available if (found := read(c, boundary, name))]
    return {
        f"{boundary}_end": side(reading, "at"),
        f"{boundary}_end_after": side(reading, "after"),
        f"{boundary}_end_by": side(reading, "by"),
        f"{boundary}_end_rule": rule,
        f"{boundary}_end_earliest": min(seen, default=np.nan),
        f"{boundary}_end_latest": max(seen, default=np.nan),
        f"{boundary}_end_seen": len(seen),
        f"{boundary}_end_rules": len(available),
    }


def _verdict(c: Curves, at: Mapping[str, float]) -> dict[str, Any]:
    """What a run's phases are, in a word and in words, and which two of them overlap; `at` is NaN for ends not seen."""
    last = float(c.step[-1]) if c.step.size else 0.0
    names = {boundary: boundary.replace("_", " ") for boundary in at}
    row: dict[str, Any] = {"overlap": False, "overlap_phases": np.nan, "overlap_steps": np.nan}
    if not c.memorised:
        grokked = f", but grokked by {c.grokked.by:,.0f}" if c.grokked else ""
        return row | {"phases": "not memorised", "phases_sentence": f"not memorised by {last:,.0f}{grokked}"}
    for first, second in itertools.combinations(at, 2):
        if not np.isnan(at[second]) and not at[first] < at[second]:
            steps = (last if np.isnan(at[first]) else at[first]) - at[second]
            when = (
                f"not by {last:,.0f}" if np.isnan(at[first]) else f"{steps:,.0f} steps later" if steps else "there, too"
            )
            said = f"no separate phases: {names[second]} ends at {at[second]:,.0f}, {names[first]} {when}"
            row |= {"phases": "not separate", "overlap": True, "overlap_phases": f"{names[first]}, {names[second]}"}
            return row | {"overlap_steps": steps, "phases_sentence": said}
    said = ", ".join(f"{names[b]} " + (f"not by {last:,.0f}" if np.isnan(x) else f"{x:,.0f}") for b, x in at.items())
    if c.grokked:
        ended = len(at) == len(RULES) and not np.isnan([*at.values()]).any()
        return row | {"phases": "separate" if ended else "unfinished", "phases_sentence": f"ends: {said}"}
    seen = [f"{names[b]} ends at {x:,.0f}" for b, x in at.items() if not np.isnan(x)]
    if c.circuit:
        seen.append(f"the held-out restricted loss shows a circuit from {c.circuit.by:,.0f}")
    said = "; ".join([f"not grokked by {last:,.0f}", *seen])
    return row | {"phases": "not grokked", "phases_sentence": said}


def _class(c: Curves) -> str:
    """The class of Liu et al. 2022, comprehension, grokking, memorization or confusion, by `Settings.class_rule`."""
    absolute = c.settings.class_rule == "absolute"
    budget = c.settings.class_budget if absolute else np.inf
    train, test = c.memorised, c.grokked
    if absolute:
        train, test = (c.reached(split, c.settings.class_accuracy) for split in ("train", "test"))
    train, test = (event if event and event.by <= budget else None for event in (train, test))
    if not train:
        return "comprehension" if test else "confusion"
    if not test:
        return "memorization"
    delay = test.by - train.by
    early = delay < c.settings.class_gap if absolute else delay <= c.settings.class_ratio * train.by
    return "comprehension" if early else "grokking"


def shade(row: Mapping[str, Any] | pd.Series) -> list[tuple[str, float, float]]:
    """The phases of one run as (name, start, end) in steps, to be shaded behind its curves.

    A phase that is open at the last evaluation ends there, and what follows the last phase has no name. A run without
    separate phases has none to shade, nor has one that never memorised; one that has not grokked has no circuit
    formation unless its end is seen.

    Args:
      row: of `find_phases`.

    Example:
      >>> import grokjax
      >>> found = grokjax.open("results/tiny").phases()
      >>> shade(found.iloc[0])[0][:2]
      ('memorization', 0.0)
    """
    if row["phases"] in ("not memorised", "not separate"):
        return []
    phases, start, last = [], 0.0, float(row["last_step"])
    for i, boundary in enumerate(RULES):
        end = row[f"{boundary}_end"]
        if pd.isna(end) and i and row["phases"] == "not grokked":
            break
        end = last if pd.isna(end) else float(end)
        if end > start:
            phases.append((boundary.replace("_", " "), start, end))
            start = end
    return phases
