"""Tables on a terminal: what `grokjax phases` prints."""

from collections.abc import Sequence

import pandas as pd
from rich.table import Table

from grokjax import phases
from grokjax.errors import plain
from grokjax.phases import text

MAX_ROWS = 60  # runs printed; --csv has them all


def runs_table(found: pd.DataFrame, by: Sequence[str]) -> Table:
    """Every run's thresholds and phases."""
    table = Table(title="Runs; a–b: after step a, by step b; > c: not seen by step c", title_justify="left")
    given = [str(name) for name in found if name not in phases.DESCRIPTIONS]
    labels = [name for name in given if name in ("run", *by) or found[name].nunique(dropna=False) > 1]
    for name in [*labels, "class", "memorised", "grokked", "delay", *text.ENDS.values(), "mind"]:
        table.add_column(plain(name), justify="left" if name in ("class", "mind") else "right")
    for row in found.head(MAX_ROWS).to_dict("records"):
        cells = [text.shown(row[name]) for name in labels] + [row["run_class"]]
        cells += [text.shown_interval(row, name, f"{name}_by") for name in ("memorised", "grokked")]
        cells.append(text.shown_steps(row["delay"]))
        cells += [text.shown_interval(row, name, name) for name in text.ENDS]
        table.add_row(*cells, ", ".join(name for name in ("diverged", "ungrokked", "overlap") if row[name]))
    if len(found) > MAX_ROWS:
        table.caption = f"{len(found) - MAX_ROWS:,} more; --csv FILE writes them all"
    return table


def rules_table(readings: pd.DataFrame) -> Table:
    """The rules, and how far each agrees with its phase's default."""
    table = Table(title="Rules for the end of each phase, the default first, and how others agree with it")
    table.title_justify = "left"
    for name in ("phase", "rule", "sign", "seen in", "median − default", "within two evaluations"):
        table.add_column(plain(name), justify="left" if name in ("phase", "rule", "sign") else "right")
    agreed = phases.agreement(readings).set_index(["phase", "rule"])
    for row in phases.describe_rules(readings).to_dict("records"):
        cells = [row["phase"].replace("_", " ") if row["default"] else "", row["rule"], row["sign"]]
        if not row["runs"]:
            table.add_row(*cells[:2], f"unavailable: lacks {row['lacks']}", "–", "–", "–")
            continue
        agrees = agreed.loc[(row["phase"], row["rule"])].to_dict()
        seen, both, difference, close = (agrees[key] for key in ("seen", "both", "difference", "within_two"))
        cells.append(f"{seen:.0f} of {row['runs']}")
        compared = both and not row["default"]
        cells += [f"{difference:+,.0f}", f"{close * both:.0f} of {both:.0f}"] if compared else ["–", "–"]
        table.add_row(*cells)
    return table


def groups_table(summary: phases.Summary, by: Sequence[str]) -> Table:
    """Every group's shares and median times."""
    title = (
        "Groups: share with Wilson's interval, Kaplan–Meier medians in steps with bootstrap intervals, all of 95 %; "
        "∞: beyond the budget"
    )
    table = Table(title=title, title_justify="left")
    for name in [*by, "runs", "share grokked", "memorised", "grokked", "delay", *text.ENDS.values()]:
        table.add_column(plain(name), justify="right")
    for row in summary.groups.to_dict("records"):
        cells = [text.shown(row[name]) for name in by] + [str(row["runs"])]
        cells.append(f"{row['fraction_grokked']:.2f} [{row['fraction_low']:.2f}, {row['fraction_high']:.2f}]")
        table.add_row(*cells, *(text.shown_median(row, name) for name in phases.TIMES))
    return table


def fits_table(summary: phases.Summary, by: Sequence[str]) -> Table:
    """The critical value and the power law."""
    title = "Logistic regression, and time to grok = prefactor · (value − critical)^−exponent; intervals of 95 %"
    table = Table(title=title, title_justify="left")
    names = [name for name in by if name in summary.fits]
    for name in [*names, "quantity", "estimate", "interval", "unit", "runs"]:
        table.add_column(plain(name), justify="right" if name in ("estimate", "interval", "runs") else "left")
    for row in summary.fits.to_dict("records"):
        cells = [text.shown(row[name]) for name in names] + [text.shown(row["quantity"]), text.shown(row["estimate"])]
        table.add_row(*cells, text.shown_bounds(row), text.shown(row["unit"]), str(row["runs"]))
    return table
