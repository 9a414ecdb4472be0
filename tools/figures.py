"""Draws docs/figures: every measure over training, how the time of a run-step grows, and a study's phase diagram."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks import scaling
from benchmarks.command import Record
from grokjax.measures import registry
from grokjax.measures.registry import Measure
from grokjax.milestones import THRESHOLD
from grokjax.report import figures
from grokjax.store.metrics import read_metrics, read_runs
from tools.blocks import ROOT

FOLDER = ROOT / "docs" / "figures"


def draw_measures(workdir: str | Path) -> None:
    """Draws each group's columns over training, for the run of a sweep that grokked first."""
    runs, metrics = read_runs(workdir), read_metrics(workdir)
    chosen = runs.sort_values("grokked_step", na_position="last").iloc[0]
    rows = metrics[metrics["run"] == chosen["run"]]
    for group in registry.groups():
        figure = draw_group(rows, [m for m in registry.MEASURES.values() if m.group == group])
        figure.savefig(FOLDER / f"measures_{group}.png", dpi=80, metadata={"Software": None})


def draw_group(rows: pd.DataFrame, measures: Sequence[Measure]) -> Figure:
    """One small panel per column: a line for a number, an image (index by step) for a list."""
    n_columns = min(5, len(measures))
    n_rows = math.ceil(len(measures) / n_columns)
    with matplotlib.rc_context({"font.size": 7}):
        figure = Figure((2.2 * n_columns, 1.5 * n_rows), layout="constrained")
        panels = figure.subplots(n_rows, n_columns, squeeze=False).flat
        for m, panel in zip(measures, panels, strict=False):
            name = m.name + "_online" * m.keyed
            seen = rows[rows[name].notna()]
            if m.shape and len(seen):
                values = np.stack(list(seen[name])).T.astype(float)
                last = int(seen["step"].iloc[-1])
                panel.imshow(values, aspect="auto", origin="lower", extent=(0, last, 1, len(values) + 1))
            else:
                panel.plot(seen["step"], seen[name].astype(float), lw=1)
                if m.unit == "nats":
                    panel.set_yscale("log")
            panel.set_title(name, fontsize=6.5)
        for panel in list(panels):
            panel.set_axis_off()
    return figure


def draw_scaling(records: Mapping[str, Record], path: Path = FOLDER / "scaling.png") -> None:
    """Draws the four axes of `benchmarks.scaling`, one line per kind of machine."""
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure((10, 2.6), layout="constrained")
        panels = figure.subplots(1, len(scaling.AXES), squeeze=False).flat
        for (axis, label), panel in zip(scaling.AXES.items(), panels, strict=True):
            points = {place: record["axes"][axis] for place, record in records.items()}
            ticks = sorted({point["value"] for found in points.values() for point in found})
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xticks(ticks, map(str, ticks), minor=False)
            panel.xaxis.minorticks_off()
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter("{x:g}" if _is_narrow(points.values()) else "")
            for place, found in points.items():
                _draw_line(panel, found, place)
            panel.set_xlabel(label)
            panel.grid(alpha=0.3)
        figure.axes[0].set_ylabel("ms per run-step")
        figure.axes[0].legend()
        figure.savefig(path, dpi=110, metadata={"Software": None})


def draw_phase_diagram(record: pd.DataFrame, path: Path = FOLDER / "phase_diagram.png") -> None:
    """Draws the study of that name from its record, as `grokjax figure` draws it from the sweep."""
    what = f"add mod {record['p'].iloc[0]}\ngrokked: test accuracy ≥ {THRESHOLD}, kept by the next evaluation"
    with matplotlib.rc_context(figures.STYLE):
        drawn = figures.diagram(record, "train_fraction", "weight_decay", what)
        drawn.savefig(path, dpi=110, metadata={"Software": None})


def _is_narrow(lines: Iterable[Sequence[Mapping]]) -> bool:
    """Whether a logarithmic axis would hardly have a power of ten to label."""
    seconds = [point["run_step_s"] for line in lines for point in line]
    return max(one["max"] for one in seconds) < 3 * min(one["min"] for one in seconds)


def _draw_line(panel, found: Sequence[Mapping], label: str) -> None:
    values = [point["value"] for point in found]
    middle, low, high = ([1e3 * point["run_step_s"][name] for point in found] for name in ("median", "min", "max"))
    panel.plot(values, middle, "o-", ms=3, lw=1, label=label)
    panel.fill_between(values, low, high, alpha=0.2)
