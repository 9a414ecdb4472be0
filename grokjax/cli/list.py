"""Lists the sweeps under a folder or in a bucket: state, runs, axes, age, size; also while they are trained.

    grokjax list                     # under the folder results, or here where there is none
    grokjax list results --json
    grokjax list gs://bucket/sweeps

training: a process holds it; interrupted: none does any more, and its command goes on; waiting: no run is begun.
Age is that of the file written last.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grokjax.cli import terminal


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: the folder does not exist.
    """
    parser = terminal.command("list", __doc__)
    help = "folder to look under, or gs:// or s3://; by default results, or the current one"
    parser.add_argument("root", metavar="ROOT", nargs="?", help=help)
    terminal.add_json(parser)
    args = parser.parse_args(argv)

    from grokjax.store import listing

    root = args.root or ("results" if Path("results").is_dir() else ".")
    with terminal.busy(f"looking for sweeps under {root}"):
        found = list(listing.find(root))
    now = time.time()
    if args.json:
        return terminal.say_json([dataclasses.asdict(one) | {"age_seconds": now - one.written} for one in found])
    if not found:
        return terminal.say(f"no sweep under {root}")
    _say(found, now)


def _say(found, now: float) -> None:
    """Prints a table, and under it what else is to be said of a sweep."""
    from rich.table import Table

    from grokjax.cli import tables
    from grokjax.errors import plain

    table = Table(box=None, pad_edge=False)
    for name in ("sweep", "state", "ended", "grokked", "axes", "age", "size"):
        justify: Any = "right" if name in ("ended", "grokked", "age", "size") else "left"
        table.add_column(name, justify=justify)
    for one in found:
        axes = " × ".join(f"{len(values)} {name}" for name, values in one.axes.items())
        cells = [plain(str(one.path)), one.state, f"{one.over} of {one.runs}", str(one.grokked), plain(axes)]
        table.add_row(*cells, age(now - one.written), size(one.n_bytes))
    console = tables.wide_console()
    tables.print_table(console, table, wrap=False)
    tables.print_lines(console, [plain(f"note: {one.path}: {one.note}") for one in found if one.note])


def age(seconds: float) -> str:
    """A time that has passed, in the largest unit of which there are two."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(n_bytes: float) -> str:
    """A size in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 10 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:,.1f} TiB"
