"""What `grokjax phases` prints: sentences and tables that fit 80 columns."""

import sys
import textwrap
from collections.abc import Sequence

import pandas as pd
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from grokjax import phases
from grokjax.errors import plain
from grokjax.phases import text

WIDE = 100  # characters per line where the output is no terminal, of tables that are not to be wrapped
MAX_ROWS = 60  # runs printed; --csv has them all


def wide_console() -> Console:
    """A console for plain text, as wide as the terminal."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False)


def print_lines(console: Console, lines: Sequence[str]) -> None:
    """Prints lines, each wrapped under its own indent."""
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        console.print(textwrap.fill(line, console.width, subsequent_indent=indent, break_on_hyphens=False))


def print_table(console: Console, table: Table, wrap: bool = True) -> None:
    """Prints a table as wide as the console; wider where a number would otherwise be cut, or nothing is to wrap."""
    needs = Measurement.get(console, console.options.update(max_width=10_000), table)
    least = needs.minimum if wrap else needs.maximum
    console.print(table, width=max(console.width, least), crop=False, no_wrap=False)


def runs_text(found: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Every run's milestones and phases, a few lines each."""
    given = [str(name) for name in found if name not in phases.DESCRIPTIONS]
    labels = [name for name in given if name in ("run", *by) or found[name].nunique(dropna=False) > 1]
    lines = []
    for row in found.head(MAX_ROWS).to_dict("records"):
        first, *others = text.run_sentences(row, labels)
        lines += [first, *(f"  {line}" for line in others)]
    if len(found) > MAX_ROWS:
        lines.append(f"{len(found) - MAX_ROWS:,} more; --csv FILE writes them all")
    return [*lines, text.class_legend(set(found["run_class"]))]


def rules_table(readings: pd.DataFrame) -> Table:
    """The rules, and how far each agrees with its phase's default."""
    title = (
        "Rules for the end of each phase, the default first: in how many runs each is seen, its median delay after\n"
    )
    title += "the default, and in how many it agrees with that within two evaluations"
    table = Table(title=title, title_justify="left")
    for name in ("rule", "sign", "seen", "after", "agrees"):
        table.add_column(plain(name), justify="left" if name in ("rule", "sign") else "right")
    agreed = phases.agreement(readings).set_index(["phase", "rule"])
    for row in phases.describe_rules(readings).to_dict("records"):
        if row["default"]:
            table.add_section()
        cells = [row["rule"], f"{row['phase'].replace('_', ' ')}: {row['sign']}" if row["default"] else row["sign"]]
        if not row["runs"]:
            table.add_row(cells[0], f"unavailable: lacks {row['lacks']}", "–", "–", "–")
            continue
        agrees = agreed.loc[(row["phase"], row["rule"])].to_dict()
        seen, both, difference, close = (agrees[key] for key in ("seen", "both", "difference", "within_two"))
        cells.append(f"{seen:.0f} of {row['runs']}")
        compared = both and not row["default"]
        cells += [f"{difference:+,.0f}", f"{close * both:.0f} of {both:.0f}"] if compared else ["–", "–"]
        table.add_row(*cells)
    return table


def groups_table(summary: phases.Summary, by: Sequence[str]) -> Table:
    """Every group's median times of milestones."""
    table = Table(title="Median steps (Kaplan–Meier)", title_justify="left")
    for name in [*by, "grokked", "memorised", "step to grok", "delay"]:
        table.add_column(plain(name), justify="right")
    for row in summary.groups.to_dict("records"):
        cells = [text.shown(row[name]) for name in by] + [f"{row['grokked']} of {row['runs']}"]
        table.add_row(*cells, *(text.shown_median(row, name) for name in ("memorised", "grokked", "delay")))
    return table


def ends_table(summary: phases.Summary, by: Sequence[str]) -> Table:
    """Every group's median ends of phases, over the runs whose phases do not overlap."""
    table = Table(title="Median ends of phases, over runs without overlap", title_justify="left")
    for name in [*by, "no overlap", *(name.removesuffix(" ends") for name in text.ENDS.values())]:
        table.add_column(plain(name), justify="right")
    for row in summary.groups.to_dict("records"):
        apart = row["runs"] - row["phases_not_separate"] - row["phases_not_memorised"]
        cells = [text.shown(row[name]) for name in by] + [f"{apart} of {row['runs']}"]
        table.add_row(*cells, *(text.shown_median(row, name) for name in text.ENDS))
    return table


def fits_table(summary: phases.Summary, by: Sequence[str]) -> Table | None:
    """The critical value and the power law, as far as they exist; None if neither does."""
    found = summary.fits[summary.fits["estimate"].notna()]
    if found.empty:
        return None
    table = Table(title="Step to grok = prefactor · (value − critical)^−exponent", title_justify="left")
    names = [name for name in by if name in found]
    for name in [*names, "quantity", "estimate", "interval", "unit", "runs"]:
        table.add_column(plain(name), justify="right" if name in ("estimate", "interval", "runs") else "left")
    for row in found.to_dict("records"):
        cells = [text.shown(row[name]) for name in names] + [text.shown(row["quantity"]), text.shown(row["estimate"])]
        table.add_row(*cells, text.shown_bounds(row), text.shown(row["unit"]), str(row["runs"]))
    return table
