"""Steps, intervals and medians as tables and the page show them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grokjax.errors import plain
from grokjax.phases.rules import RULES

ENDS = {f"{boundary}_end": f"{boundary.replace('_', ' ')} ends" for boundary in RULES}  # heads of columns


CLASSES = {  # what each word says of a run, by the default rule
    "grokking": "grokked, with a delay longer than it took to memorise",
    "comprehension": "grokked, with a delay no longer than that, or without having memorised",
    "memorization": "memorised, not grokked",
    "confusion": "not even memorised",
}


def legend() -> str:
    """What the medians' table leaves open: how the end of a phase differs from a milestone."""
    first = next(iter(RULES["memorization"].values()))
    return (
        "> N: not by step N. A run has memorised at an accuracy; the phase memorization lasts longer, until "
        f"{first.sign}."
    )


def class_legend(found: Collection[str]) -> str:
    """What the classes in a list of runs mean."""
    said = "; ".join(f"{name}: {text}" for name, text in CLASSES.items() if name in found)
    return f"The word of a run is its class, by the default class_rule. {said} (docs/phases.md, Run classes)."


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
    return "–" if np.isnan(row["low"]) else f"[{shown(row['low'])}, {shown(row['high'])}]"


def shown_interval(row: Mapping[Any, Any], name: str, event: str) -> str:
    """The time of an event in a row of `find_phases`: "after–by", or "> last step" if it may still come."""
    if not np.isnan(row[event]):
        return f"{shown_steps(row[f'{name}_after'])}–{shown_steps(row[f'{name}_by'])}"
    overlap = name in ENDS and row["overlap"]
    return "–" if overlap or pd.isna(row[f"{name}_rule"]) else beyond(row["last_step"])


def beyond(step: float) -> str:
    """A time that lies beyond a step."""
    return f"> {step:,.0f}"


def shown_median(row: Mapping[Any, Any], name: str) -> str:
    """A median of a row of `summarize` with its interval: "950 [900, > 2,500]"; "> 2,500" if it was not reached."""
    if not row[f"{name}_runs"]:
        return "–"

    def shown_time(value: float) -> str:
        return beyond(row[f"{name}_last"]) if np.isinf(value) else shown_steps(value)

    median, low, high = (row[f"{name}_{part}"] for part in ("median", "low", "high"))
    if not np.isfinite(low):
        return shown_time(median)
    return f"{shown_time(median)} [{shown_time(low)}, {shown_time(high)}]"


def group_sentence(row: Mapping[Any, Any], names: Sequence[str]) -> str:
    """What a row of `summarize` says of a setting: how many runs grok, when, how sure that is, and their phases."""
    k, n = row["grokked"], row["runs"]
    setting = ", ".join(f"{plain(str(name))} = {shown(row[name])}" for name in names) or "all runs"
    median = shown_median(row, "grokked")
    said = f"{setting}: {k} of {n} grok" + (f", median step {median}" if k else f" by step {row['grokked_last']:,.0f}")
    said += f" (95 % interval of the share: {row['fraction_low']:.2f}–{row['fraction_high']:.2f})"
    phases = {"separate": "three phases", "unfinished": "phases not all over", "not separate": "no separate phases"}
    counts = {text: row[f"phases_{verdict.replace(' ', '_')}"] for verdict, text in phases.items()}
    seen = [f"{text} in {count}" for text, count in counts.items() if count]
    if row["lost_grokking"]:
        seen.append(lost_clause(row["lost_grokking"], row["ungrokked"]))
    return f"{said}; {', '.join(seen)}." if seen else f"{said}."


def lost_clause(lost: int, ungrokked: int) -> str:
    """What became of runs that grokked: "2 lose it again (1 for good)"."""
    return f"{lost} lose{'s' if lost == 1 else ''} it again" + (f" ({ungrokked} for good)" if ungrokked else "")


def run_sentences(row: Mapping[Any, Any], names: Sequence[str]) -> list[str]:
    """What a row of `find_phases` says of a run: its milestones, its phases, and between which evaluations they end."""
    label = ", ".join(f"{plain(str(name))} {shown(row[name])}" for name in names) or "the run"
    times = {name: row[f"{name}_by"] for name in ("memorised", "grokked")}
    said = [f"{name} by {at:,.0f}" if at == at else f"not {name}" for name, at in times.items()]
    if row["grokked"] and row["memorised"]:
        said.append(f"delay {row['delay']:,.0f} ({row['delay_min']:,.0f}–{row['delay_max']:,.0f})")
    if row["lost_grokking"]:
        said.append(f"lost it again by {row['lost_grokking_by']:,.0f}" + (", for good" if row["ungrokked"] else ""))
    said += [f"diverged at {row['diverged_step']:,.0f}"] * row["diverged"]
    between = [
        f"{name.removesuffix('_end').replace('_', ' ')} {shown_interval(row, name, name)} by {row[f'{name}_rule']}"
        for name in ENDS
        if not np.isnan(row[name])
    ]
    return [f"{label}: {row['run_class']}; {', '.join(said)}", row["phases_sentence"], *between]
