"""Finds the phases of every run in a table of metrics, and prints what was found.

    grokjax phases results/small --csv=phases.csv
    grokjax phases curves.csv                        # any table with step, train_loss, test_loss

docs/phases.md says what the phases and the rules for their ends are.
"""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grokjax.cli import terminal
from grokjax.errors import InputError, StorageError

WIDTH = 150  # characters per line where the output is no terminal


def main(argv: Sequence[str]) -> None:
    """Entry point: prints the phases of a table.

    Raises:
      InputError: bad arguments, or a table that cannot be read.
    """
    parser = terminal.command("phases", __doc__)
    parser.add_argument("source", metavar="DIR", help="a sweep's working directory, or a table: .csv or .parquet")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the table of phases, one row per run")
    parser.add_argument("--by", metavar="COLUMNS", help="form groups by these (a,b); by default weight_decay")
    parser.add_argument("--chance-loss", metavar="NATS", type=float, help="loss of an uninformed guess, such as ln P")
    args = parser.parse_args(argv)

    from rich.console import Console

    from grokjax import phases
    from grokjax.cli import tables
    from grokjax.phases import text
    from grokjax.store import files

    settings = phases.Settings(chance_loss=args.chance_loss)
    metrics = read(args.source)
    found, readings = phases.find_phases(metrics, settings), phases.readings(metrics, settings)
    if found.empty:
        raise InputError(f"{args.source} holds no evaluations yet.")
    by = args.by.split(",") if args.by else [name for name in ["weight_decay"] if name in found]
    summary = phases.summarize(found, by)
    if args.csv:
        try:
            files.put(found.to_csv(index=False).encode(), args.csv)
        except StorageError as error:
            raise InputError(f"--csv={error}: choose another file.") from None
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)
    console.print(tables.runs_table(found, by), "", tables.rules_table(readings), sep="\n")
    if len(found) > 1:
        console.print("", tables.groups_table(summary, by), *text.notes(summary.groups, by), sep="\n")
    if len(summary.groups) > 1 and len(summary.fits):
        console.print("", tables.fits_table(summary, by), *text.notes(summary.fits, ["quantity"]), sep="\n")


def read(source: str):
    """A metrics table, as a data frame: of a sweep's working directory, or a CSV or Parquet file.

    Raises:
      InputError: there is none.
    """
    import pandas as pd
    from pyarrow import types

    from grokjax.store import files
    from grokjax.store.metrics import parts, read_metrics, read_part

    path = files.path(source)
    if path.is_dir():
        found = parts(path / "metrics")
        if not found:
            raise InputError(f"{path} holds no metrics/*.parquet: name the working directory of a sweep, or a table.")
        schema = read_part(found[0]).schema
        return read_metrics(path, [field.name for field in schema if not types.is_nested(field.type)])
    if not path.is_file():
        raise InputError(f"{path} does not exist: name the working directory of a sweep, or a table.")
    readers: dict[str, Callable[[Any], Any]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise InputError(f"{path} is no table that can be read: those end in {' or '.join(readers)}.")
    try:
        return readers[path.suffix](io.BytesIO(path.read_bytes()))
    except Exception as error:  # pandas and pyarrow may raise anything
        raise InputError(f"{path} cannot be read as {path.suffix[1:]} ({type(error).__name__}: {error}).") from None
