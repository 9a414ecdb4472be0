"""The figure of a comparison: each pair of runs a point."""

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from grokjax.errors import InputError
from grokjax.report.figures import STYLE, name_steps
from grokjax.report.panels import COLORS
from grokjax.report.results import shown_value

if TYPE_CHECKING:
    from grokjax.report.comparison import Comparison

SEEDS = ("seed", "split_seed")
SHOWN = {"memorised": "step to memorise", "grokked": "step to grok"}
# A run that had not come to it by its last evaluation is drawn there, and an arrow says which way the point may lie.
MARKERS = {(True, True): "o", (True, False): "^", (False, True): ">", (False, False): "s"}
TOLD = {
    (True, False): "not by then in {1}",
    (False, True): "not by then in {0}",
    (False, False): "not by then in either",
}


def pairs(comparison: "Comparison") -> Figure:
    """Draws the steps of the first sweep's runs against those of the second's; settings by colour.

    Raises:
      InputError: there are no pairs.
    """
    found, names = comparison.pairs, comparison.names
    if found.empty:
        raise InputError(f"{names[0]} and {names[1]} have no pair of runs to draw: {'; '.join(comparison.notes)}.")
    settings = [name for name in comparison.on if name not in SEEDS]
    with matplotlib.rc_context(STYLE):
        drawn = Figure((7.2, 4.2), layout="constrained")
        for ax, (name, text) in zip(drawn.subplots(1, len(SHOWN)), SHOWN.items(), strict=True):
            _points(ax, found, name, settings, names)
            ax.set(xlabel=f"{text}, {names[0]}", ylabel=f"{text}, {names[1]}")
        handles: dict[str, Any] = {}
        for ax in drawn.axes:
            handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        drawn.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8)
        drawn.suptitle(_title(comparison), fontsize=9)
    return drawn


def _points(ax, found: pd.DataFrame, name: str, settings: list[str], names: tuple[str, str]) -> None:
    x, y = found[f"{name}_first"].to_numpy(float), found[f"{name}_second"].to_numpy(float)
    seen = [found[f"{name}_{side}_seen"].to_numpy(bool) for side in ("first", "second")]
    groups = found.groupby(settings, dropna=False).indices if settings else {(): np.arange(len(found))}
    for i, (values, members) in enumerate(groups.items()):
        values = values if isinstance(values, tuple) else (values,)
        what = ", ".join(f"{n} = {shown_value(v)}" for n, v in zip(settings, values, strict=True)) or "a pair of runs"
        for key, marker in MARKERS.items():
            some = members[(seen[0][members] == key[0]) & (seen[1][members] == key[1])]
            if len(some):
                style = {"color": COLORS[i % len(COLORS)], "ms": 5, "ls": "", "mfc": None if all(key) else "none"}
                ax.plot(x[some], y[some], marker, label=what if all(key) else None, **style)
    for key, text in TOLD.items():
        if ((seen[0] == key[0]) & (seen[1] == key[1])).any():
            ax.plot([], [], MARKERS[key], color="k", mfc="none", ls="", label=text.format(*names))
    both = np.concatenate([x, y])
    both = both[both > 0]
    if both.size:
        ax.set_xscale("log")
        ax.set_yscale("log")
        ends = [both.min() / 1.2, both.max() * 1.2]
        ax.plot(ends, ends, color="0.7", lw=1, zorder=0)
        ax.set(xlim=ends, ylim=ends)
        name_steps(ax.xaxis)
        name_steps(ax.yaxis)
    ax.set_aspect("equal")


def _title(comparison: "Comparison") -> str:
    fields = [f"{r['setting']} {r['first']} → {r['second']}" for r in comparison.differences.head(3).to_dict("records")]
    more = len(comparison.differences) - len(fields)
    return "; ".join([*fields, *([f"{more} more"] if more else [])]) or "the same settings"
