"""When each run memorised, formed its circuit and cleaned up: one row per run, from a table of metrics.

    python -m grokjax.phases results/small --csv phases.csv

Takes any table with the columns step, train_loss and test_loss, whoever wrote it; further columns make further rules
available. docs/phases.md explains the rules and checks them against published curves.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from grokjax import statistics
from grokjax.errors import unknown
from grokjax.phase_rules import QUANTITIES, RULES, Curves, Reading, Settings
from grokjax.phase_table import Table

__all__ = ["Settings", "agreement", "describe_rules", "find_phases", "readings", "shade", "summarize"]

CLASSES = ("comprehension", "grokking", "memorization", "confusion")  # Liu et al. 2022
# Times of which `summarize` gives the median, and the columns they are in.
TIMES = {"memorised": "memorised_by", "grokked": "grokked_by", "delay": "delay"} | {
    f"{boundary}_end": f"{boundary}_end" for boundary in RULES
}

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
        and non-finite values count as missing. Other columns in `phase_rules.QUANTITIES` make more rules available.
      settings: thresholds, and rules other than the defaults. If a run lacks what the default rule needs, the next
        available one is used; the row names the rule.

    Returns:
      `run`, the columns that hold one value in every run, and those of `DESCRIPTIONS`; sorted by run.

    Raises:
      InputError: a column is missing or holds what it cannot, or a rule that was asked for lacks its column.

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
        event: Reading | None = getattr(c, name)
        row |= {name: event is not None, f"{name}_after": _side(event, "after"), f"{name}_by": _side(event, "by")}
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


def _side(reading: Reading | None, side: str) -> float:
    return getattr(reading, side) if reading else np.nan


def _boundary(c: Curves, boundary: str) -> dict[str, Any]:
    available = [name for name, rule in RULES[boundary].items() if not rule.lacks(c)]
    wanted = [name for name in available if c.settings.rules.get(boundary, name) == name]
    reading = c.read(boundary, wanted[0]) if wanted else None
    seen = [found.at for name in available if (found := c.read(boundary, name))]
    return {
        f"{boundary}_end": _side(reading, "at"),
        f"{boundary}_end_after": _side(reading, "after"),
        f"{boundary}_end_by": _side(reading, "by"),
        f"{boundary}_end_rule": wanted[0] if wanted else None,
        f"{boundary}_end_earliest": min(seen, default=np.nan),
        f"{boundary}_end_latest": max(seen, default=np.nan),
        f"{boundary}_end_seen": len(seen),
        f"{boundary}_end_rules": len(available),
    }


def _class(c: Curves) -> str:
    """Of Liu et al. 2022: comprehension, grokking, memorization or confusion."""
    budget = c.settings.class_budget
    train, test = (c.reached(split, c.settings.class_accuracy) for split in ("train", "test"))
    if not train or train.by > budget:
        return "confusion"
    if not test or test.by > budget:
        return "memorization"
    return "comprehension" if test.by - train.by < c.settings.class_gap else "grokking"


def readings(metrics: pd.DataFrame, settings: Settings | None = None) -> pd.DataFrame:
    """What every rule, not only the default, reads on each run.

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
    for name, (c, _) in zip(names, table.runs(), strict=True):
        for boundary, rules in RULES.items():
            for i, (key, rule) in enumerate(rules.items()):
                lacks, found = rule.lacks(c), c.read(boundary, key)
                columns = [c.column(need) for need in rule.needs if need in QUANTITIES]
                row = {"run": name, "phase": boundary, "rule": key, "default": i == 0, "available": not lacks}
                row |= {"lacks": _needed(lacks), "columns": ", ".join(filter(None, columns))}
                indices = np.searchsorted(c.step, found) if found else [np.nan] * len(Reading._fields)
                row |= {side: _side(found, side) for side in Reading._fields}
                rows.append(row | {f"{side}_index": i for side, i in zip(Reading._fields, indices, strict=True)})
    columns = ["run", "phase", "rule", "default", "available", "lacks", "columns"]
    columns += [*Reading._fields, *(f"{side}_index" for side in Reading._fields)]
    return pd.DataFrame(rows, columns=columns).astype({"default": bool, "available": bool})


def _needed(needs: Sequence[str]) -> str:
    """What a table must hold to have these quantities."""
    chance = "test_loss at step 0 or p or the setting chance_loss"
    return ", ".join(chance if need == "chance" else " or ".join(QUANTITIES[need]) for need in needs)


def describe_rules(readings: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rules: phase, name, whether it is the default, the sign it takes for the phase's end, and what it needs.

    Args:
      readings: of every rule on some table; adds in how many `runs` each is available and what it `lacks` in others.
    """
    frame = pd.DataFrame(
        {"phase": boundary, "rule": name, "default": i == 0, "sign": rule.sign, "needs": _needed(rule.needs)}
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
    """How far each rule agrees with its phase's default.

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


def shade(row: Mapping[str, Any] | pd.Series) -> list[tuple[str, float, float]]:
    """The phases of one run as (name, start, end) in steps, to be shaded behind its curves.

    A phase that is open at the last evaluation ends there, and what follows the last phase has no name. A phase ends no
    later than those that follow it: where they overlap, the earlier one is cut, or left out if nothing remains of it.
    A run that never memorised has no phases.

    Args:
      row: of `find_phases`.
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


class Summary(NamedTuple):
    """What runs have in common.

    Attributes:
      groups: a row per group: number of `runs`, of those `memorised`, `grokked`, `censored`, `diverged`, `ungrokked`
        and of each class; `fraction_grokked` with `_low` and `_high`; for `memorised`, `grokked`, `delay` and the end
        of each phase the `_median` in steps with `_low` and `_high`, infinite if beyond the budget, the number of
        `_runs` behind it and of those in which it was `_seen`; and a `warning`.
      fits: a row per fitted `quantity`: `estimate`, `low`, `high`, `unit`, `runs`, `warning`.
    """

    groups: pd.DataFrame
    fits: pd.DataFrame


def summarize(
    phases: pd.DataFrame,
    by: str | Sequence[str] | None = "weight_decay",
    seed: int = 0,
    resamples: int = statistics.RESAMPLES,
    confidence: float = statistics.CONFIDENCE,
) -> Summary:
    """Shares, times and the critical value of a swept field.

    A run in which something has not happened by its last evaluation counts as censored there, so does a diverged run;
    medians are Kaplan–Meier's. Times are those of the first evaluation that shows an event, up to `eval_every` late.

    Args:
      phases: of `find_phases`, or several such tables concatenated.
      by: columns that form groups; None for all runs together. Critical value and power law are fitted over
        `weight_decay` if it is among them and otherwise over the first, if that holds numbers; the runs that the
        other columns tell apart are fitted separately.
      seed: of the bootstrap.
      resamples: of the bootstrap.
      confidence: of every interval.

    Raises:
      InputError: a column in `by` does not exist.
    """
    names = [by] if isinstance(by, str) else list(by or [])
    for name in ("grokked", "last_step", *names):
        if name not in phases:
            raise unknown("column", name, [column for column in phases.columns if column not in DESCRIPTIONS])
    options = {"seed": seed, "resamples": resamples, "confidence": confidence}
    groups = [_labels(names, key) | _group(group, names, options) for key, group in _grouped(phases, names)]
    axis = "weight_decay" if "weight_decay" in names else next(iter(names), None)
    fits: list[dict[str, Any]] = []
    if axis is not None and pd.api.types.is_numeric_dtype(phases[axis]):
        others = [name for name in names if name != axis]
        for key, group in _grouped(phases, others):
            fits += [_labels(others, key) | fit for fit in _fits(group, axis, options)]
    empty = [*names, "quantity", "estimate", "low", "high", "unit", "runs", "warning"]
    return Summary(pd.DataFrame(groups), pd.DataFrame(fits) if fits else pd.DataFrame(columns=empty))


def _grouped(phases: pd.DataFrame, names: list[str]):
    return phases.groupby(names, sort=True, dropna=False) if names else [((), phases)]


def _labels(names: list[str], key: tuple) -> dict[str, Any]:
    return dict(zip(names, key, strict=True))


def _group(group: pd.DataFrame, names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    n, grokked = len(group), int(group["grokked"].sum())
    low, high = statistics.wilson(grokked, n, options["confidence"])
    row: dict[str, Any] = {"runs": n}
    row |= {name: int(group[name].sum()) for name in ("memorised", "grokked", "censored", "diverged", "ungrokked")}
    row |= {name: int((group["run_class"] == name).sum()) for name in CLASSES}
    row |= {"fraction_grokked": grokked / n if n else np.nan, "fraction_low": low, "fraction_high": high}
    for name in TIMES:
        times, observed = _times(group, name)
        median = statistics.median_time(times, observed, **options)
        row |= {f"{name}_median": median.value, f"{name}_low": median.low, f"{name}_high": median.high}
        row |= {f"{name}_runs": times.size, f"{name}_seen": int(observed.sum())}
    return row | {"warning": "; ".join(_doubts(group, names, options["confidence"]))}


def _times(group: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps to an event, or to where a run is censored, and whether it was seen; without runs that cannot tell."""
    if name.endswith("_end"):
        group = group[group[f"{name}_rule"].notna()]
    start = np.zeros(len(group))
    if name == "delay":
        group = group[group["memorised"].astype(bool)]
        start = group["memorised_by"].to_numpy(float)
    event = group[TIMES[name]].to_numpy(float)
    observed = ~np.isnan(event)
    return np.where(observed, event, group["last_step"].to_numpy(float) - start), observed


def _doubts(group: pd.DataFrame, names: list[str], confidence: float) -> list[str]:
    said = []
    enough = statistics.few_runs(confidence)
    if len(group) < enough:
        said.append(f"{statistics.counted(len(group), 'run')}, where an interval for a median needs {enough}")
    if group["diverged"].any():
        said.append(f"{group['diverged'].sum()} diverged, counted as censored")
    for boundary in RULES:
        rules = sorted(group[f"{boundary}_end_rule"].dropna().unique())
        if len(rules) > 1:
            said.append(f"ends of {boundary.replace('_', ' ')} by different rules: {', '.join(rules)}")
    others = [name for name in group if name not in (*DESCRIPTIONS, *names, "run") and not str(name).endswith("seed")]
    mixed = [str(name) for name in others if group[name].nunique(dropna=False) > 1]
    if mixed:
        said.append(f"runs also differ in {', '.join(mixed)}")
    return said


def _fits(group: pd.DataFrame, axis: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    values, grokked = group[axis].to_numpy(float, na_value=np.nan), group["grokked"].to_numpy(bool)
    fit = statistics.threshold(values, grokked, group["grokked_by"].to_numpy(float), **options)
    units = {"critical": axis, "slope": "log-odds per decade", "exponent": "", "prefactor": "steps", "r_squared": ""}
    return [
        {"quantity": f"critical_{axis}" if name == "critical" else name, "estimate": e.value, "low": e.low}
        | {"high": e.high, "unit": units[name], "runs": e.runs, "warning": e.warning}
        for name, e in zip(fit._fields, fit, strict=True)
    ]


if __name__ == "__main__":
    import sys

    from grokjax import phase_display

    sys.exit(phase_display.main(sys.argv[1:]))
