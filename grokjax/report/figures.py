"""Figures of a sweep for a paper, by Matplotlib: `KINDS` names them.

Each says in its title what was trained and when a run counts as having grokked, and beside each setting how many of its
runs did. Times are those of `phases.time_to_grok`: runs that have not grokked are censored at their last evaluation.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from grokjax import config, phases
from grokjax.errors import InputError, unknown
from grokjax.milestones import THRESHOLD
from grokjax.phases import survival
from grokjax.phases.text import beyond, shown_steps
from grokjax.report.panels import COLORS
from grokjax.report.results import Results, shown_value, wants_log

STYLE: Any = {
    **{"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False},
    # Text stays text in a PDF and an SVG, and the same results give the same bytes.
    **{"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "grokjax"},
}
# The curves of losses in the order in which they are explained: label, colour, style.
CURVES = {
    "train_loss": ("train", "#0072B2", "-"),
    "test_loss": ("test", "#D55E00", "-"),
    "restricted_loss_online": ("restricted (online keys)", "#009E73", "--"),
    "excluded_loss_online": ("excluded (online keys)", "#CC79A7", "--"),
}
LOG_SPAN = 8  # axes whose values above 0 are further apart than this factor are logarithmic
MAX_KEYED_RUNS = 200  # rows in the figure of frequencies
MOST_NAMED = 16  # blocks that it names
BORDER = "#D55E00"  # of a phase diagram


def figure(results: Results, kind: str, by: Sequence[str] = (), column: str | None = None) -> Figure:
    """Draws a figure of a sweep.

    Args:
      results: of the sweep.
      kind: one of `KINDS`.
      by: the swept fields to tell settings apart by; runs that differ in others are pooled. By default all but seeds.
      column: of the metrics, which kind "column" shows; `results` must hold it.

    Raises:
      InputError: there is no such kind, field or column, or the sweep lacks what the figure shows.
    """
    if kind not in KINDS:
        raise unknown("figure", kind, KINDS)
    for name in by:
        if name not in results.axes:
            raise unknown("swept field", name, results.axes)
    if (kind == "column") != (column is not None):
        wrong = f"is of kind {kind}" if column else "needs a column"
        raise InputError(f"the figure {wrong}, but kind column and the name of a column go together.")
    with matplotlib.rc_context(STYLE):
        by = list(by or results.settings)
        return one_column(results, by, column) if column is not None else KINDS[kind](results, by)


# Formats, with metadata without times: the same sweep gives the same bytes.
FORMATS: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def picture(drawn: Figure, format: str) -> bytes:
    """A figure as the bytes of a file in one of `FORMATS`."""
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        drawn.savefig(file, format=format, dpi=200, metadata=FORMATS[format])
    return file.getvalue()


def title(results: Results, by: Sequence[str]) -> str:
    """What was trained, when a run has grokked, and what is pooled."""
    runs, fixed = results.runs, {}
    of = {"group": "{}"} if "group" in runs and runs["group"].notna().all() else {"p": "mod {}"}
    for name, text in {"task": "{}", **of, "train_fraction": "{} of all pairs to train on"}.items():
        if name in runs and name not in results.axes:
            fixed[name] = text.format(shown_value(runs[name].iloc[0]))
    if "group" in results.axes and "group" in of:
        fixed["task"] = "composition in groups"
    if fixed.get("task", "").startswith("group "):  # of one run's checkpoints, whose task names the group
        fixed.pop("p", None)
    share = fixed.pop("train_fraction", "")
    what = ", ".join(filter(None, [" ".join(fixed.values()), share]))
    pooled = [name for name in results.settings if name not in by]
    lines = [what, f"grokked: test accuracy ≥ {THRESHOLD}, kept by the next evaluation"]
    return "\n".join(filter(None, [*lines, f"pooled over {', '.join(pooled)}" if pooled else ""]))


# --- losses ---------------------------------------------------------------------------------------------------------


def losses(results: Results, by: Sequence[str]) -> Figure:
    """Losses over training: a panel per setting, a line per run and curve. Two fields make a grid."""
    return _over_training(results, by, CURVES, "loss (nats)", log=True)


def one_column(results: Results, by: Sequence[str], column: str = "") -> Figure:
    """Any column of numbers over training: a panel per setting, a line per run."""
    drawable = [name for name in results.columns if name not in ("run", "step", *config.FIELDS)]
    if column not in drawable:
        raise unknown("column", column, drawable)
    about = results.columns[column]
    if about.get("shape"):
        raise InputError(f"column '{column}' holds a list in each row, {about['shape']}: a figure is of numbers.")
    values = results.metrics[column].to_numpy(float, na_value=np.nan)
    if np.isnan(values).all():
        raise InputError(f"column '{column}' is null in every row: {about.get('null') or 'it was never computed'}.")
    unit = about.get("unit", "1")
    text = column if unit == "1" else f"{column} ({unit})"
    curve = {column: (about.get("description", column), COLORS[0], "-")}
    return _over_training(results, by, curve, text, log=wants_log(values))


def _over_training(results: Results, by: Sequence[str], curves: Mapping[str, Any], unit: str, log: bool) -> Figure:
    runs = results.runs
    panels, n_rows, n_columns = _grid(runs, by)
    drawn = Figure((max(4.2, 2.4 * n_columns + 0.9), 2.1 * n_rows + 1.2), layout="constrained")
    axes = drawn.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for (row, column), (text, group) in panels.items():
        ax = axes[row, column]
        ax.set_axis_on()
        _curves_of(ax, results.metrics[results.metrics["run"].isin(group["run"])], curves, log)
        grokked = int(group["grokked"].eq(True).sum())
        ax.set_title("\n".join(filter(None, [text, f"{grokked} of {len(group)} grokked"])), fontsize=8)
    lowest = {column: max(row for row, other in panels if other == column) for _, column in panels}
    for column, row in lowest.items():
        axes[row, column].set_xlabel("step")
        axes[row, column].tick_params(labelbottom=True)
    drawn.supylabel(unit, fontsize=9)
    drawn.suptitle(title(results, by), fontsize=9)
    held = [axes[place].get_legend_handles_labels() for place in panels]
    by_label = {label: handle for handles, labels in held for label, handle in zip(labels, handles, strict=True)}
    n_columns = min(len(by_label), 2 * n_columns + 1)
    wrapped = [textwrap.fill(label, round(13 * drawn.get_figwidth())) for label in by_label]
    drawn.legend(by_label.values(), wrapped, loc="outside lower center", ncols=n_columns)
    return drawn


def _grid(runs: pd.DataFrame, by: Sequence[str]) -> tuple[dict[tuple[int, int], tuple[str, pd.DataFrame]], int, int]:
    """Panels by row and column, each a text and its runs: a grid for two fields, else row after row."""
    if not by:
        return {(0, 0): ("", runs)}, 1, 1
    groups = list(runs.groupby(list(by), sort=True, dropna=False))
    texts = [_named(by, values) for values, _ in groups]
    if len(by) == 2:
        rows, columns = (list(dict.fromkeys(sorted(runs[name], key=_order))) for name in by)
        places = [(rows.index(values[0]), columns.index(values[1])) for values, _ in groups]
        return _placed(places, texts, groups), len(rows), len(columns)
    n_columns = min(4, len(groups))
    places = [divmod(i, n_columns) for i in range(len(groups))]
    return _placed(places, texts, groups), math.ceil(len(groups) / n_columns), n_columns


def _placed(places, texts, groups):
    return {place: (text, group) for place, text, (_, group) in zip(places, texts, groups, strict=True)}


def _named(by: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{name} = {shown_value(value)}" for name, value in zip(by, values, strict=True))


def _order(value: Any) -> tuple[bool, Any]:
    """Sorts the values of a field; unset ones come last."""
    return (True, 0) if pd.isna(value) else (False, value)


def _curves_of(ax, metrics: pd.DataFrame, curves: Mapping[str, Any], log: bool) -> None:
    for column, (label, color, style) in curves.items():
        if column not in metrics or metrics[column].isna().all():
            continue
        for i, (_, rows) in enumerate(metrics.dropna(subset=[column]).groupby("run")):
            marker = "." if len(rows) < 0.5 * (metrics["run"] == rows["run"].iloc[0]).sum() else None
            ax.plot(
                *(rows["step"], rows[column].astype(float), style),
                **{"color": color, "lw": 1, "alpha": 0.75, "marker": marker, "label": None if i else label},
            )
    if log:
        ax.set_yscale("log")


# --- time to grok ---------------------------------------------------------------------------------------------------


def time_to_grok(results: Results, by: Sequence[str]) -> Figure:
    """Time to grok over a field: every run a point, medians with their intervals; a second field by colour."""
    runs = _begun(results)
    across, within = (*by, None, None)[:2]
    values = sorted(runs[across].unique(), key=_order) if across else [None]
    place = _places(values)
    drawn = Figure((max(4.8, 0.7 * len(values) + 2.2), 3.9), layout="constrained")
    ax = drawn.subplots()
    sets = list(runs.groupby(within, sort=True, dropna=False)) if within else [(None, runs)]
    width = 0.7 * _gap(place) / len(sets)
    for i, (value, members) in enumerate(sets):
        shift = (i - (len(sets) - 1) / 2) * width
        label = f"{within} = {shown_value(value)}" if within else "grokked"
        _times_of(ax, members, across, {v: p + shift for v, p in zip(values, place, strict=True)}, width, i, label)
    ax.set_yscale("log")
    name_steps(ax.yaxis)
    ax.set_xticks(place, [shown_value(value) if across else "" for value in values])
    ax.set_xlabel(across or "")
    ax.set_ylabel("step")
    _signs(ax, runs)
    handles, labels = ax.get_legend_handles_labels()
    held = dict(zip(labels, handles, strict=True))
    drawn.legend(held.values(), held.keys(), loc="outside lower center", ncols=2, fontsize=8)
    drawn.suptitle(title(results, by[:2]), fontsize=9)
    return drawn


def name_steps(axis) -> None:
    """Names steps as whole numbers on a logarithmic axis, more of them where it spans little."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)))
    axis.set_major_formatter(lambda step, _: shown_steps(step))
    axis.set_minor_formatter(NullFormatter())


def _begun(results: Results) -> pd.DataFrame:
    """Runs that have an evaluation."""
    return results.runs[results.runs["last_step"].notna()]


def _places(values: Sequence[Any]) -> np.ndarray:
    """Places of a field's values: on a logarithmic scale where they span one, 0 set apart; else side by side."""
    try:
        numbers = np.array(values, float)
    except (TypeError, ValueError):
        return np.arange(len(values), dtype=float)
    above = numbers[numbers > 0]
    if above.size < 3 or not (numbers >= 0).all() or above.max() / above.min() <= LOG_SPAN:
        return np.arange(len(values), dtype=float)
    logs = np.log10(np.where(numbers > 0, numbers, above.min()))
    apart = max(0.3, np.ptp(logs) / (above.size - 1))
    return np.where(numbers > 0, logs, logs.min() - apart)


def _gap(place: np.ndarray) -> float:
    """The distance between the two closest places."""
    return float(np.diff(np.sort(place)).min()) if place.size > 1 else 1.0


def _times_of(ax, runs: pd.DataFrame, across: str | None, place: Mapping[Any, float], width: float, i: int, label: str):
    """One colour's points, its medians and how many of its runs grokked."""
    color = COLORS[i % len(COLORS)]
    found = phases.time_to_grok(runs, across).to_dict("records")
    groups = dict(list(runs.groupby(across, dropna=False))) if across else {None: runs}
    for row in found:
        value = row[across] if across else None
        at = next(p for v, p in place.items() if v == value or (pd.isna(v) and pd.isna(value)))
        members = next(g for v, g in groups.items() if v == value or (pd.isna(v) and pd.isna(value)))
        x = at + width * 0.7 * ((np.arange(len(members)) + 0.5) / len(members) - 0.5)
        grokked = members["grokked"].eq(True).to_numpy()
        ax.plot(x[grokked], members["grokked_by"][grokked], "o", color=color, ms=4, alpha=0.8, mew=0, label=label)
        for diverged, sign in ((False, "^"), (True, "x")):
            some = ~grokked & (members["diverged_step"].notna().to_numpy() == diverged)
            ax.plot(x[some], members["last_step"][some], sign, color=color, ms=5, mfc="none")
        if np.isfinite(row["median"]):
            ax.hlines(row["median"], at - 0.4 * width, at + 0.4 * width, color=color, lw=2)
            if np.isfinite(row["low"]):
                ends = np.array([[row["low"]], [min(row["high"], row["last_step"])]])
                ax.errorbar(at, row["median"], np.abs(ends - row["median"]), color=color, capsize=3, lw=1)
        share = f"{row['grokked']}/{row['runs']}"
        _write(ax, share, (at, 1), ("data", "axes fraction"), (0, 3 + 9 * i), color=color, ha="center")


def _write(ax, text: str, at, coordinates, offset, **style) -> None:
    """Puts small text beside a place, in the margins too."""
    ax.annotate(text, at, offset, coordinates, textcoords="offset points", fontsize=7, annotation_clip=False, **style)


def _signs(ax, runs: pd.DataFrame) -> None:
    """Legend entries of the signs that are there."""
    black = {"color": "k", "ls": "", "mfc": "none"}
    if runs["censored"].eq(True).any():
        ax.plot([], [], marker="^", label="not grokked by its last evaluation", **black)
    if runs["diverged_step"].notna().any():
        ax.plot([], [], marker="x", label="diverged", **black)
    median = "median (Kaplan–Meier)" + ", 95 % interval" * bool(ax.containers)  # of error bars, where runs are enough
    ax.plot([], [], marker="_", ms=10, mew=2, label=median, color="k", ls="")


# --- two fields -----------------------------------------------------------------------------------------------------


def phase_diagram(results: Results, by: Sequence[str]) -> Figure:
    """Median times to grok over two fields: `diagram` of a sweep."""
    if len(by) < 2:
        named = f" ({', '.join(results.settings)})" if results.settings else ""
        has = f"this sweep has {len(results.settings)}{named}" if len(results.settings) < 2 else f"{len(by)} is named"
        raise InputError(f"a phase diagram needs two swept fields besides seeds, and {has}: time-to-grok shows one.")
    across, up = by[:2]
    return diagram(_begun(results), across, up, title(results, [across, up]))


def diagram(runs: pd.DataFrame, across: str, up: str, about: str) -> Figure:
    """The median time to grok over two fields, how many runs grokked in each cell, and the border at which half do.

    The border is the critical value of the second field at each value of the first: `survival.threshold` of its runs on
    the rising side.

    Args:
      runs: rows with the two fields, `grokked_by` and `last_step`.
      across, up: the fields.
      about: what was trained, for the title.
    """
    xs, ys = (sorted(runs[name].unique(), key=_order) for name in (across, up))
    rows = {(row[across], row[up]): row for row in phases.time_to_grok(runs, [across, up]).to_dict("records")}
    median = np.array([[rows[x, y]["median"] if (x, y) in rows else np.nan for x in xs] for y in ys])
    drawn = Figure((1.5 + 0.62 * max(4, len(xs)), 1.5 + 0.45 * max(3, len(ys))), layout="constrained")
    ax = drawn.subplots()
    ax.set_facecolor("white")
    ax.imshow(np.where(np.isinf(median), 1.0, np.nan), cmap="Greys", vmin=0, vmax=5, origin="lower", aspect="auto")
    image = ax.imshow(
        np.where(np.isfinite(median), median, np.nan), cmap="cividis_r", norm="log", origin="lower", aspect="auto"
    )
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            _cell(ax, rows.get((x, y)), j, i, image)
    ax.set_xticks(range(len(xs)), map(shown_value, xs))
    ax.set_yticks(range(len(ys)), map(shown_value, ys))
    ax.set(xlabel=across, ylabel=up)
    if np.isfinite(median).any():
        bar = drawn.colorbar(image, ax=ax, label="median time to grok (steps)")
        name_steps(bar.ax.yaxis)
    lines = [about, "grey: the median is not reached"]
    if _border(ax, runs, across, up, xs, ys):
        lines.append(f"lines: half of the runs grok by their last evaluation, with the interval of that {up}")
    drawn.suptitle("\n".join(lines), fontsize=9)
    return drawn


def _border(ax, runs: pd.DataFrame, across: str, up: str, xs: Sequence[Any], ys: Sequence[Any]) -> bool:
    """Draws the critical value of the field that goes up, at each value of the other; whether there is any."""
    levels = [(math.log10(y), i) for i, y in enumerate(ys) if isinstance(y, int | float | np.number) and y > 0]
    if len(levels) < 2 or len(levels) < len(ys) - 1:
        return False
    logs, places = np.array(levels).T
    n_drawn = 0
    for j, x in enumerate(xs):
        some = runs[(runs[across] == x) & (runs[up] > 0)]
        grokked = some["grokked_by"].notna().to_numpy()
        some, grokked = (part[survival.rising(some[up].to_numpy(float), grokked)] for part in (some, grokked))
        found = survival.threshold(some[up].to_numpy(float), grokked, some["grokked_by"].to_numpy(float)).critical
        if not 10 ** logs[0] <= found.value <= 10 ** logs[-1]:
            continue  # NaN, or beyond what was tried
        at, low, high = np.interp(np.log10(np.maximum(found[:3], 1e-300)), logs, places)
        ax.plot([j - 0.5, j + 0.5], [at, at], color=BORDER, lw=1.5)
        if not math.isnan(found.low):
            ax.plot([j + 0.42, j + 0.42], [low, high], color=BORDER, lw=1.5)
        n_drawn += 1
    return bool(n_drawn)


def _cell(ax, row: Mapping[Any, Any] | None, j: int, i: int, image) -> None:
    if row is None:
        return
    is_dark = np.isfinite(row["median"]) and image.norm(row["median"]) > 0.6
    time = shown_steps(row["median"]) if np.isfinite(row["median"]) else beyond(row["last_step"])
    text = f"{time}\n{row['grokked']}/{row['runs']}"
    ax.text(j, i, text, ha="center", va="center", fontsize=7, color="w" if is_dark else "k")


# --- key frequencies ------------------------------------------------------------------------------------------------


def frequencies(results: Results, by: Sequence[str]) -> Figure:
    """The key frequencies of every run's final model: a row per run, settings by colour."""
    runs = results.runs[results.runs["n_key_freqs"].notna()].sort_values(list(by) or ["run"], kind="stable")
    if runs.empty:
        if results.running:
            raise InputError(
                "no run has final key frequencies yet: they are found when a run ends, if config.measures has a group "
                "with keys, such as paper."
            )
        raise InputError(
            "no run has final key frequencies: they are found when a run ends that has not diverged, if "
            "config.measures has a group with keys, such as paper."
        )
    if len(runs) > MAX_KEYED_RUNS:
        raise InputError(f"{len(runs)} runs are too many rows to tell apart; at most {MAX_KEYED_RUNS} are drawn.")
    groups = list(runs.groupby(list(by), sort=True, dropna=False)) if by else [((), runs)]
    drawn = Figure((5.6, 1.6 + 0.14 * len(runs)), layout="constrained")
    ax = drawn.subplots()
    at = 0
    for i, (values, members) in enumerate(groups):
        rows = [(key, at + n) for n, keys in enumerate(members["key_freqs"]) for key in keys]
        color = COLORS[i % len(COLORS)]
        ax.plot([x for x, _ in rows], [y for _, y in rows], "s", ms=4, color=color, mew=0)
        text = f"{_named(by, values)}\n" if by else ""
        middle = at + (len(members) - 1) / 2
        text += survival.counted(len(members), "run")
        _write(ax, text, (1, middle), ("axes fraction", "data"), (6, 0), color=color, va="center")
        at += len(members)
    words = results.words
    ax.set(xlabel=words("key frequency"), ylabel="run", ylim=(at - 0.5, -0.5))
    _name_frequencies(ax, results)
    ax.set_yticks(range(len(runs)), runs["run"], fontsize=6)
    rule = ", ".join(map(str, results.runs["key_rule"].unique())) if "key_rule" in results.runs else "unknown"
    drawn.suptitle(f"{title(results, by)}\n{words('key frequencies')} of the final models by rule {rule}", fontsize=9)
    return drawn


def _name_frequencies(ax, results: Results) -> None:
    """The axis of frequencies, as wide as they go; of a few blocks with their names where all runs have the same."""
    runs, names = results.runs, [results.words.names(row) for row in results.runs.to_dict("records")]
    if any(names):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if names[0] and all(other == names[0] for other in names) and len(names[0]) <= MOST_NAMED:
        ax.set_xticks(range(1, len(names[0]) + 1), [f"{k}\n{name}" for k, name in enumerate(names[0], 1)])
    if "p" in runs:
        widths = [len(own) if own else (int(p) - 1) // 2 for own, p in zip(names, runs["p"], strict=True)]
        ax.set_xlim(0.5, max(1, *widths) + 0.5)


KINDS: dict[str, Callable[[Results, Sequence[str]], Figure]] = {
    "losses": losses,
    "time-to-grok": time_to_grok,
    "phase-diagram": phase_diagram,
    "frequencies": frequencies,
    "column": one_column,
}
