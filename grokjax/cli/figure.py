"""Draws a figure of a sweep for a paper; also while the sweep runs.

    grokjax figure results/small --kind=time-to-grok --out=time.pdf
    grokjax figure results/small --kind=column --column=gini_W_L
    grokjax figure results/a results/b --by=sweep   # several sweeps as one

kinds:
  losses         over training, a panel per setting; two fields make a grid
  time-to-grok   over a field, every run a point; a second field by colour
  phase-diagram  median time to grok over two fields, k of n runs in each cell
  frequencies    key frequencies of every run's final model
  column         any measure over training, as --column names it, your own too

The suffix of --out says what is written: .pdf, .svg or .png.
"""

from collections.abc import Sequence

from grokjax.cli import terminal
from grokjax.errors import InputError, StorageError, file_name


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: bad arguments, or a sweep that lacks what the figure shows.
    """
    parser = terminal.command("figure", __doc__)
    terminal.add_workdirs(parser)
    parser.add_argument("--kind", help="of the figure, see above; losses by default")
    parser.add_argument("--column", metavar="NAME", help="a column of the metrics, for --kind=column")
    parser.add_argument("--out", metavar="FILE", help="to write; <kind>.pdf or <column>.pdf by default")
    parser.add_argument(
        "--by", metavar="FIELDS", type=terminal.names, default=(), help="swept fields to tell apart (a,b)"
    )
    args = parser.parse_args(argv)

    from grokjax.report import figures
    from grokjax.report.results import read_all
    from grokjax.store import files

    kind = args.kind or ("losses" if args.column is None else "column")
    out = files.path(args.out or f"{file_name(args.column or kind)}.pdf")
    format = out.suffix.lower().removeprefix(".")
    if format not in figures.FORMATS:
        known = ", ".join(f".{name}" for name in figures.FORMATS)
        raise InputError(f"--out={out}: a figure is written as {known}; end the name with one of these.")
    with terminal.busy(f"drawing {kind} of {', '.join(args.workdirs)}"):
        more = [args.column] if args.column else []
        drawn = figures.figure(read_all(args.workdirs, more), kind, args.by, args.column)
        picture = figures.picture(drawn, format)
    try:
        files.put(picture, out)
    except StorageError as error:
        raise InputError(f"--out={error}: choose another file.") from None
    for workdir in args.workdirs:
        terminal.say_part(workdir)
    terminal.written(out)
