"""Compares two sweeps: which settings differ, and what that did to runs of the same seeds.

    grokjax compare results/a results/b
    grokjax compare results/a results/b --by=weight_decay --out=pairs.pdf

Runs are paired that agree in every field that varies inside a sweep, seeds among them. Differences are the second
sweep's less the first's; medians are over pairs in which both are known, brackets 95 % intervals. p is that of the
sign test, which takes in pairs of which one run had not come to it when the other one had.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from grokjax.cli import terminal
from grokjax.errors import InputError, StorageError, plain


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: bad arguments, or directories that cannot be compared.
    """
    parser = terminal.command("compare", __doc__)
    parser.add_argument("first", metavar="A", help="a sweep's directory, finished or not; gs:// and s3:// too")
    parser.add_argument("second", metavar="B", help="another one")
    parser.add_argument(
        "--by", metavar="FIELDS", type=terminal.names, default=(), help="give statistics by these (a,b)"
    )
    parser.add_argument("--out", metavar="FILE", help="draw every pair, as .pdf, .svg or .png")
    terminal.add_json(parser)
    args = parser.parse_args(argv)

    from grokjax.report import comparison

    out = _out(args.out)
    with terminal.busy(f"comparing {args.first} and {args.second}"):
        found = comparison.compare(args.first, args.second, args.by)
    if out:
        _draw(found, *out)
    if args.json:
        tables = {"differences": found.differences, "statistics": found.statistics, "pairs": found.pairs}
        rows = {name: table.to_dict("records") for name, table in tables.items()}
        return terminal.say_json({"names": found.names, "on": found.on, **rows, "notes": found.notes})
    _say(found, args.by)


def _out(name: str | None):
    """The place and the format of the figure."""
    if not name:
        return None
    from grokjax.report import figures
    from grokjax.store import files

    out = files.path(name)
    if out.suffix.lower().removeprefix(".") not in figures.FORMATS:
        known = ", ".join(f".{known}" for known in figures.FORMATS)
        raise InputError(f"--out={out}: a figure is written as {known}; end the name with one of these.")
    return out, out.suffix.lower().removeprefix(".")


def _draw(found, out, format: str) -> None:
    from grokjax.report import figures
    from grokjax.store import files

    try:
        files.put(figures.picture(found.figure(), format), out)
    except StorageError as error:
        raise InputError(f"--out={error}: choose another file.") from None
    terminal.written(out, beside=True)


def _say(found, by: Sequence[str]) -> None:
    """Prints what was found: settings, then statistics."""
    from rich.table import Table

    from grokjax.cli import tables

    console = tables.wide_console()
    first, second = map(plain, found.names)
    if len(found.differences):
        table = Table(title="Settings that differ", title_justify="left")
        for name in ("setting", first, second):
            table.add_column(name)
        for row in found.differences.to_dict("records"):
            table.add_row(*(plain(row[name]) for name in ("setting", "first", "second")))
        tables.print_table(console, table)
    else:
        tables.print_lines(console, ["No setting differs."])
    if len(found.pairs):
        console.print()
        n = f"{len(found.pairs)} pair{'s' * (len(found.pairs) > 1)} of runs that agree in {', '.join(found.on)}"
        table = Table(title=f"{n}: {second} less {first}", title_justify="left")
        for name in (*by, "quantity", "both", f"{first} lower", f"{second} lower", "difference", "ratio", "p"):
            table.add_column(plain(name), justify="left" if name == "quantity" else "right")
        for row in found.statistics.to_dict("records"):
            table.add_row(*_cells(row, by))
        tables.print_table(console, table)
    tables.print_lines(console, [f"note: {plain(note)}" for note in found.notes])


def _cells(row: Mapping[str, Any], by: Sequence[str]) -> list[str]:
    from grokjax.phases.text import shown

    def bounded(name: str) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return shown(row[name]) + (f" [{shown(low)}, {shown(high)}]" if low == low else "")

    counts = [f"{row['both']} of {row['pairs']}", str(row["first_lower"]), str(row["second_lower"])]
    p = "–" if row["p"] != row["p"] else f"{row['p']:.2g}"
    labels = [shown(row[name]) for name in by]
    return [*labels, row["quantity"].replace("_", " "), *counts, bounded("difference"), bounded("ratio"), p]
