"""Summaries of groups of runs: shares, censored times, and the critical value of a swept field."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from grokjax.errors import unknown
from grokjax.phases import survival
from grokjax.phases.find import CLASSES, DESCRIPTIONS, VERDICTS
from grokjax.phases.rules import RULES
from grokjax.phases.text import shown_median

# Times of which `summarize` gives the median, and the columns they are in.
TIMES = {"memorised": "memorised_by", "grokked": "grokked_by", "delay": "delay"} | {
    f"{boundary}_end": f"{boundary}_end" for boundary in RULES
}
COUNTED = ("memorised", "grokked", "censored", "diverged", "lost_grokking", "ungrokked")


class Summary(NamedTuple):
    """Groups of runs, and what was fitted over them.

    Attributes:
      groups: a row per group: number of `runs`, of those of `COUNTED`, of each class and of each verdict on phases;
        `fraction_grokked` with `_low` and `_high`; for `memorised`, `grokked`, `delay` and the end of each phase the
        `_median` in steps with `_low` and `_high` (null for too few runs), infinite if beyond `_last`, the longest time
        observed; the number of `_runs` behind it and of those in which it was `_seen`; and a `warning`. Runs whose
        phases are not separate have no ends, so they are not behind the medians of those.
      fits: a row per fitted `quantity`: `estimate`, `low`, `high`, `unit`, `runs`, `warning`.
    """

    groups: pd.DataFrame
    fits: pd.DataFrame


def summarize(
    phases: pd.DataFrame,
    by: str | Sequence[str] | None = "weight_decay",
    seed: int = 0,
    resamples: int = survival.RESAMPLES,
    confidence: float = survival.CONFIDENCE,
) -> Summary:
    """Shares, times and the critical value of a swept field.

    A run in which something has not happened by its last evaluation counts as censored there, a diverged run at the
    evaluation that shows it; medians are Kaplan–Meier's. Times are those of the first evaluation that shows an event,
    up to `eval_every` late.

    Args:
      phases: of `find_phases`, or several such tables concatenated.
      by: columns that form groups; None for all runs together. Critical value and power law are fitted over
        `weight_decay` if it is among them and otherwise over the first, if that holds numbers; over another where
        that has fewer than two values above 0. The runs that the other columns tell apart are fitted separately.
      seed: of the bootstrap.
      resamples: of the bootstrap.
      confidence: of every interval.

    Raises:
      InputError: a column in `by` does not exist.

    Example:
      >>> import grokjax
      >>> found = grokjax.open("results/tiny").phases()
      >>> summarize(found, by="weight_decay").groups[["weight_decay", "runs", "memorised"]]
         weight_decay  runs  memorised
      0           0.0     2          2
      1           1.0     2          2
    """
    names = [by] if isinstance(by, str) else list(by or [])
    for name in ("grokked", "last_step", *names):
        if name not in phases:
            raise unknown("column", name, [column for column in phases.columns if column not in DESCRIPTIONS])
    options = {"seed": seed, "resamples": resamples, "confidence": confidence}
    groups = [_labels(names, key) | _group(group, names, options) for key, group in _grouped(phases, names)]
    axis = _fitted_over(phases, names)
    fits: list[dict[str, Any]] = []
    if axis is not None:
        others = [name for name in names if name != axis]
        for key, group in _grouped(phases, others):
            if others and group[axis].nunique() < 2:
                continue  # settings that differ in something else have nothing to fit over
            fits += [_labels(others, key) | fit for fit in _fits(group, axis, options)]
    empty = [*names, "quantity", "estimate", "low", "high", "unit", "runs", "warning"]
    return Summary(pd.DataFrame(groups), pd.DataFrame(fits) if fits else pd.DataFrame(columns=empty))


def _fitted_over(phases: pd.DataFrame, names: list[str]) -> str | None:
    """Which column's critical value to look for: decay, or the first; another where that has one value above 0."""
    first = "weight_decay" if "weight_decay" in names else next(iter(names), None)
    if first is None or not pd.api.types.is_numeric_dtype(phases[first]):
        return None
    numeric = [name for name in names if pd.api.types.is_numeric_dtype(phases[name])]
    levels = {name: phases[name][phases[name] > 0].nunique() for name in numeric}
    return next((name for name in (first, *numeric) if levels[name] > 1), first)


def _grouped(phases: pd.DataFrame, names: list[str]):
    return phases.groupby(names, sort=True, dropna=False) if names else [((), phases)]


def _labels(names: list[str], key: tuple) -> dict[str, Any]:
    return dict(zip(names, key, strict=True))


def _group(group: pd.DataFrame, names: list[str], options: dict[str, Any]) -> dict[str, Any]:
    n, grokked = len(group), int(group["grokked"].sum())
    low, high = survival.wilson(grokked, n, options["confidence"])
    row: dict[str, Any] = {"runs": n}
    row |= {name: int(group[name].sum()) for name in COUNTED}
    row |= {name: int((group["run_class"] == name).sum()) for name in CLASSES}
    row |= {f"phases_{name.replace(' ', '_')}": int((group["phases"] == name).sum()) for name in VERDICTS}
    row |= {"fraction_grokked": grokked / n if n else np.nan, "fraction_low": low, "fraction_high": high}
    for name in TIMES:
        row |= _median(name, *_times(group, name), **options)
    return row | {"warning": "; ".join(_doubts(group, names, options["confidence"]))}


def _median(name: str, times: np.ndarray, observed: np.ndarray, **options) -> dict[str, Any]:
    """The columns of a time's median."""
    median = survival.median_time(times, observed, **options)
    row = {f"{name}_median": median.value, f"{name}_low": median.low, f"{name}_high": median.high}
    return row | {
        f"{name}_last": times.max(initial=0.0),
        f"{name}_runs": times.size,
        f"{name}_seen": int(observed.sum()),
    }


def _times(group: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps to an event, or to where a run is censored, and whether it was seen; without runs that cannot tell."""
    if name.endswith("_end"):
        group = group[group[f"{name}_rule"].notna() & ~group["overlap"].astype(bool)]
    start = np.zeros(len(group))
    if name == "delay":
        group = group[group["memorised"].astype(bool)]
        start = group["memorised_by"].to_numpy(float)
    event = group[TIMES[name]].to_numpy(float)
    observed = ~np.isnan(event)
    last = group["diverged_step"].fillna(group["last_step"]).to_numpy(float)
    return np.where(observed, event, last - start), observed


def median_times(phases: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Median times of groups of runs, without intervals; columns as of `Summary.groups`.

    Args:
      phases: of `find_phases`.
      by: columns that form groups.
    """
    rows = []
    for key, group in _grouped(phases, list(by)):
        row = _labels(list(by), key)
        for name in TIMES:
            row |= _median(name, *_times(group, name), resamples=1)
        rows.append(row)
    return pd.DataFrame(rows)


def time_to_grok(
    runs: pd.DataFrame,
    by: str | Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = survival.RESAMPLES,
    confidence: float = survival.CONFIDENCE,
) -> pd.DataFrame:
    """The time to grok of groups of runs: the one estimate that terminal, page, figures and tables show.

    It is the Kaplan–Meier median, in steps, of the evaluation that shows it. A run that has not grokked is censored at
    its last evaluation, a diverged one at the evaluation that shows it. An interval is given for `survival.few_runs` or
    more.

    Args:
      runs: of `find_phases`, or runs.parquet; runs that have not begun are left out.
      by: columns that form groups; None for all runs together.
      seed, resamples, confidence: of the bootstrap.

    Returns:
      Rows per group: the columns `by`; `grokked` of `runs`; `median`, infinite if not reached by `last_step`, the
      latest step observed; its interval `low` and `high`, null for too few runs; and `text`: "950 [900, 1,100]", ">
      2,500".

    Raises:
      InputError: a column in `by` does not exist.
    """
    names = [by] if isinstance(by, str) else list(by or [])
    for name in names:
        if name not in runs:
            raise unknown("column", name, list(runs.columns))
    event = "grokked_by" if "grokked_by" in runs else "grokked_step"
    begun = runs[runs["last_step"].notna()]
    rows = []
    for key, group in _grouped(begun, names):
        steps, last = (group[name].to_numpy(float, na_value=np.nan) for name in (event, "last_step"))
        if "diverged_step" in group:
            last = np.fmax(last, group["diverged_step"].to_numpy(float, na_value=np.nan))
        observed = ~np.isnan(steps)
        median = _median(
            "grokked", np.where(observed, steps, last), observed, seed=seed, resamples=resamples, confidence=confidence
        )
        found = {to: median[f"grokked_{of}"] for to, of in _OF_TIME_TO_GROK.items()}
        rows.append(_labels(names, key) | found | {"text": shown_median(median, "grokked")})
    return pd.DataFrame(rows, columns=[*names, *_OF_TIME_TO_GROK, "text"])


_OF_TIME_TO_GROK = {
    "runs": "runs",
    "grokked": "seen",
    "median": "median",
    "low": "low",
    "high": "high",
    "last_step": "last",
}


def _doubts(group: pd.DataFrame, names: list[str], confidence: float) -> list[str]:
    said = []
    enough = survival.few_runs(confidence)
    if len(group) < enough:
        said.append(f"{survival.counted(len(group), 'run')}, where an interval for a median needs {enough}")
    if group["overlap"].any():
        said.append(f"no separate phases in {group['overlap'].sum()} of {survival.counted(len(group), 'run')}")
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
    fit = survival.threshold(values, grokked, group["grokked_by"].to_numpy(float), **options)
    units = {"critical": axis, "slope": "log-odds per decade", "exponent": "", "prefactor": "steps", "r_squared": ""}
    return [
        {"quantity": f"critical_{axis}" if name == "critical" else name, "estimate": e.value, "low": e.low}
        | {"high": e.high, "unit": units[name], "runs": e.runs, "warning": e.warning}
        for name, e in zip(fit._fields, fit, strict=True)
    ]
