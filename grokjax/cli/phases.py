"""Finds the phases of every run in a table of metrics, and prints what was found.

grokjax phases results/small --csv phases.csv
"""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from grokjax import phases
from grokjax.cli import terminal
from grokjax.errors import InputError, plain
from grokjax.phases import text
from grokjax.store import files
from grokjax.store import metrics as metrics_lib
from grokjax.store.metrics import read_metrics, read_schema

MAX_ROWS = 60  # runs printed; --csv has them all
WIDTH = 150  # characters per line where the output is no terminal


def main(argv: Sequence[str]) -> None:
    """Entry point: prints the phases of a table.

    Raises:
      InputError: bad arguments, or a table that cannot be read.
    """
    parser = terminal.Parser(prog="grokjax phases", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("source", metavar="DIR", help="a sweep's working directory, or a table: .csv or .parquet")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the table of phases, one row per run")
    parser.add_argument("--by", metavar="COLUMNS", help="form groups by these (a,b); default weight_decay")
    parser.add_argument("--chance-loss", metavar="NATS", type=float, help="loss of an uninformed guess, such as ln P")
    args = parser.parse_args(argv)
    settings = phases.Settings(chance_loss=args.chance_loss)
    metrics = read(args.source)
    found, readings = phases.find_phases(metrics, settings), phases.readings(metrics, settings)
    if found.empty:
        raise InputError(f"{args.source} holds no evaluations yet.")
    by = args.by.split(",") if args.by else [name for name in ["weight_decay"] if name in found]
    summary = phases.summarize(found, by)
    if args.csv:
        _write_csv(found, args.csv)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)
    console.print(runs_table(found, by), "", rules_table(readings), sep="\n")
    if len(found) > 1:
        console.print("", groups_table(summary, by), *text.notes(summary.groups, by), sep="\n")
    if len(summary.groups) > 1 and len(summary.fits):
        console.print("", fits_table(summary, by), *text.notes(summary.fits, ["quantity"]), sep="\n")


def read(source: str | Path) -> pd.DataFrame:
    """A metrics table: of a sweep's working directory, or a CSV or Parquet file.

    Raises:
      InputError: there is none.
    """
    path = files.path(source)
    if path.is_dir():
        from pyarrow import types

        parts = metrics_lib.parts(path / "metrics")
        if not parts:
            raise InputError(f"{path} holds no metrics/*.parquet: name the working directory of a sweep, or a table.")
        schema = read_schema(parts[0])
        return read_metrics(path, [field.name for field in schema if not types.is_nested(field.type)])
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the working directory of a sweep, or a table.")
    readers: dict[str, Callable[[Any], pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise InputError(f"{path} is no table that can be read: those end in {' or '.join(readers)}.")
    try:
        return readers[path.suffix](io.BytesIO(path.read_bytes()))
    except Exception as error:  # pandas and pyarrow may raise anything
        raise InputError(f"{path} cannot be read as {path.suffix[1:]} ({type(error).__name__}: {error}).") from None


def _write_csv(found: pd.DataFrame, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        found.to_csv(temporary, index=False)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"--csv={path} cannot be written ({error.strerror or error}): choose another file.") from None


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
