"""The tables of a page: groups of runs, fits, runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grokjax import phases
from grokjax.phases.text import (
    ENDS,
    class_legend,
    legend,
    notes,
    shown,
    shown_bounds,
    shown_interval,
    shown_median,
    shown_steps,
)
from grokjax.report.markup import Html, element, joined
from grokjax.report.panels import PHASE_COLORS
from grokjax.report.results import Results, shade, shown_value

STRIP = 140  # width of a run's strip of phases, in its own units


def table(name: str, caption: Any, head: Sequence[Html], rows: Sequence[Html]) -> Html:
    """A table whose columns sort, in a box that scrolls."""
    top = element("thead", element("tr", *head))
    body = element("table", element("caption", element("span", caption)), top, element("tbody", *rows), id=name)
    return element("div", body, class_="scroll", tabindex="0", role="region", aria_label=f"Table: {name}")


def heading(text: str, title: str = "", numeric: bool = True) -> Html:
    """A column's head: a button that sorts by it."""
    button = element("button", text, type="button", title=title or None)
    return element("th", button, scope="col", class_="number" if numeric else None)


def cell(content: Any, value: Any = None, numeric: bool = True, title: str | None = None) -> Html:
    """A cell, with the value that it is sorted by if that is not its text; what is missing sorts last."""
    missing = value is not None and (pd.isna(value) or value == "")
    by = None if value is None else "" if missing else f"{value:.17g}" if isinstance(value, float) else value
    return element("td", content, data_value=by, class_="number" if numeric else None, title=title)


def groups(results: Results) -> Html:
    """Shares and median times per setting, and warnings about them."""
    head = [heading(name) for name in results.by] + [heading("runs"), heading("memorised"), heading("grokked")]
    head.append(heading("share that grokked", "with Wilson's 95 % interval", False))
    times = {"grokked": "time to grok", "delay": "delay"} | ENDS
    head += [heading(text, "Kaplan–Meier median in steps; ∞: beyond the last evaluation") for text in times.values()]
    rows = []
    for row in results.summary.groups.to_dict("records"):
        cells = [cell(shown_value(row[name]), row[name]) for name in results.by]
        cells += [cell(row[name]) for name in ("runs", "memorised", "grokked")]
        at, low, high = (f"{100 * row[f'fraction_{name}']:.0f}" for name in ("grokked", "low", "high"))
        cells.append(cell(f"{at} % [{low}, {high}]", float(row["fraction_grokked"]), numeric=False))
        cells += [_median(row, name) for name in times]
        rows.append(element("tr", *cells))
    caption = f"Each setting, its seeds together. Medians with bootstrap intervals. {legend()}"
    warnings = doubts(notes(results.summary.groups, list(results.by)))
    return joined(table("settings", caption, head, rows), warnings)


def _median(row: Mapping[Any, Any], name: str) -> Html:
    """A median with its interval below it."""
    middle, bracket, interval = shown_median(row, name).partition(" [")
    small = element("small", f"[{interval}") if bracket else None
    return cell(joined(middle, small), float(row[f"{name}_median"]))


def fits(results: Results) -> Html | None:
    """The critical value and the power law; None if there is nothing to fit over."""
    found = results.summary.fits
    if len(results.summary.groups) < 2 or found.empty:
        return None
    labels = [name for name in results.by if name in found]
    every, found = found, found[found["estimate"].notna()]
    if found.empty:
        why = [
            sentence.removeprefix("mind: ")
            for sentence in notes(every[every["quantity"].str.startswith("critical")], labels)
        ]
        return element("p", f"No critical value is fitted: {'; '.join(why)}.", class_="axes")
    head = [heading(name) for name in labels] + [heading("quantity", numeric=False), heading("estimate")]
    head += [heading("95 % interval"), heading("unit", numeric=False), heading("runs")]
    rows = []
    for row in found.to_dict("records"):
        cells = [cell(shown_value(row[name])) for name in labels] + [cell(row["quantity"], numeric=False)]
        cells += [cell(shown(row["estimate"]), float(row["estimate"])), cell(shown_bounds(row))]
        rows.append(element("tr", *cells, cell(row["unit"], numeric=False), cell(row["runs"])))
    caption = "Logistic regression in log10, and time to grok = prefactor · (value − critical)^−exponent."
    content = joined(table("fits", caption, head, rows), doubts(notes(found, ["quantity"])))
    return element("details", element("summary", "Critical values and power laws"), content)


def doubts(sentences: Sequence[str]) -> Html | None:
    """Warnings as a list."""
    items = [element("li", sentence.removeprefix("mind: ")) for sentence in sentences]
    return element("ul", *items, class_="doubts") if items else None


def runs(results: Results) -> Html:
    """Every run: its settings, when it memorised and grokked, its phases, how it ended."""
    longest = float(results.runs["last_step"].max())
    status = [heading("status", numeric=False)] if (results.runs["status"] != "finished").any() else []
    head = [heading("run"), *(heading(name) for name in results.axes), *status]
    head.append(heading("phases", "over training, up to the last evaluation", False))
    head += [heading(name, f"{phases.DESCRIPTIONS[name]} After which and by which step.") for name in EVENTS]
    head.append(heading("delay", phases.DESCRIPTIONS["delay"]))
    head += [heading(text, phases.DESCRIPTIONS[name]) for name, text in ENDS.items()]
    head += [heading(text, unit) for text, unit in LAST.items()]
    head.append(heading("class", phases.DESCRIPTIONS["run_class"], False))
    records = results.runs.to_dict("records")
    rows = [element("tr", *_run(results, i, row, bool(status), longest)) for i, row in enumerate(records)]
    caption = "Each run. a–b: after step a, by step b; > c: not seen by step c. Choose a number to see its curves. "
    caption += class_legend(set(results.runs["run_class"].dropna()))
    return joined(key(), table("runs", caption, head, rows))


def key(of_strips: bool = True) -> Html:
    """The key to the colours of phases and the other signs of a strip."""
    colors = PHASE_COLORS | ({"after": "var(--after)"} if of_strips else {})
    items = [element("li", element("i", style=f"background:{color}"), name) for name, color in colors.items()]
    mark = element("li", element("i", class_="mark"), "grokked") if of_strips else None
    return element("ul", *items, mark, class_="key" if of_strips else "key pale")


EVENTS = ("memorised", "grokked")
LAST = {"train loss": "nats, at the last evaluation", "test loss": "nats, at the last evaluation", "keys": "final keys"}


def _run(results: Results, index: int, row: Mapping[Any, Any], with_status: bool, longest: float) -> list[Html]:
    choose = element("button", row["run"], type="button", data_run=index, title="Show this run's curves")
    cells = [element("th", choose, scope="row", class_="number", data_value=row["run"])]
    cells += [cell(shown_value(row[name]), row[name]) for name in results.axes]
    if with_status:
        at = "" if pd.isna(row["diverged_step"]) else f" at {shown_steps(row['diverged_step'])}"
        cells.append(cell(row["status"] + at, numeric=False))
    if pd.isna(row["memorised"]):
        return cells + [cell("–", "")] * (len(EVENTS) + len(ENDS) + len(LAST) + 3)
    first = min([end for _, _, end in shade(row)], default="")
    cells.append(cell(strip(row, longest), first, numeric=False))
    cells += [cell(shown_interval(row, name, f"{name}_by"), row[f"{name}_by"]) for name in EVENTS]
    cells.append(cell(shown_steps(row["delay"]), row["delay"]))
    cells += [cell(shown_interval(row, name, name), row[name]) for name in ENDS]
    cells += [_loss(row.get(name)) for name in ("train_loss", "test_loss")]
    n_keys = row["n_key_freqs"]
    keys = None if np.isnan(n_keys) else results.words(f"frequencies {', '.join(results.words.keys(row))}")
    cells.append(cell("–" if np.isnan(n_keys) else f"{n_keys:.0f}", n_keys, title=keys))
    marks = [f"lost it by {shown_steps(row['lost_grokking_by'])}"] * bool(row["lost_grokking"])
    marks += [name for name in ("ungrokked", "overlap") if row[name]]
    cells.append(cell(", ".join([row["run_class"], *marks]), numeric=False))
    return cells


def _loss(value: Any) -> Html:
    loss = np.nan if value is None else float(value)
    return cell("–" if np.isnan(loss) else f"{loss:.2e}", loss)


def strip(row: Mapping[Any, Any], longest: float) -> Html:
    """The phases of a run as a strip, on the scale of the longest run."""
    scale = STRIP / max(longest, 1.0)
    spans = shade(row)
    parts = [element("rect", x=0, y=4, width=f"{scale * row['last_step']:.1f}", height=10, class_="track")]
    for name, begin, end in spans:
        box = {"x": f"{scale * begin:.1f}", "width": f"{scale * (end - begin):.1f}", "fill": PHASE_COLORS[name]}
        parts.append(element("rect", element("title", f"{name}: {begin:,.0f}–{end:,.0f}"), y=4, height=10, **box))
    if not np.isnan(row["grokked_by"]):
        at = scale * row["grokked_by"]
        title = element("title", f"grokked by {row['grokked_by']:,.0f}")
        parts.append(element("path", title, d=f"M{at:.1f} 0V18", class_="grokked"))
    text = "; ".join(f"{name} {begin:,.0f} to {end:,.0f}" for name, begin, end in spans) or "no phases"
    return element("svg", *parts, viewBox=f"-1 0 {STRIP + 2} 18", class_="strip", role="img", aria_label=text)
