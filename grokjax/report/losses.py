"""The figure of a sweep's losses."""

import math

import matplotlib
import pandas as pd

from grokjax.report.results import varied

# Curves in the order they are explained; colours from Okabe & Ito, told apart by colour-blind readers too.
CURVES = {
    "train_loss": ("train", "#0072B2", "-"),
    "test_loss": ("test", "#D55E00", "-"),
    "restricted_loss_online": ("restricted (online keys)", "#009E73", "--"),
    "excluded_loss_online": ("excluded (online keys)", "#CC79A7", "--"),
}


def figure(metrics: pd.DataFrame, runs: pd.DataFrame):
    """Draws the losses over training with Matplotlib: a panel per setting, a line per run and curve.

    Args:
      metrics: rows per (run, step), as `store.metrics.read_metrics` gives them.
      runs: rows per run, as `store.metrics.read_runs` gives them.
    """
    from matplotlib.figure import Figure

    by = varied(runs)
    groups = list(runs.groupby(by, sort=True, dropna=False)) if by else [((), runs)]
    n_columns = min(4, len(groups))
    n_rows = math.ceil(len(groups) / n_columns)
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        drawn = Figure((3.0 * n_columns + 0.6, 2.6 * n_rows + 0.7), layout="constrained")
        panels = drawn.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for panel, (setting, group) in zip(panels.flat, groups, strict=False):
            _panel(panel, metrics[metrics["run"].isin(group["run"])])
            grokked = int(group["grokked_step"].notna().sum())
            title = ", ".join(f"{name} = {value}" for name, value in zip(by, setting, strict=True))
            panel.set_title(f"{title}\n{grokked} of {len(group)} runs grokked".strip(), fontsize=9)
        for panel in panels.flat[len(groups) :]:
            panel.set_axis_off()
        drawn.supxlabel("step", fontsize=9)
        drawn.supylabel("loss (nats)", fontsize=9)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return drawn


def _panel(panel, metrics: pd.DataFrame) -> None:
    for column, (label, color, style) in CURVES.items():
        if column not in metrics or metrics[column].isna().all():
            continue
        for i, (_, rows) in enumerate(metrics.groupby("run")):
            panel.plot(rows["step"], rows[column], style, color=color, lw=1, alpha=0.75, label=None if i else label)
    panel.set_yscale("log")
