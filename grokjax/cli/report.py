"""Writes a sweep's report: a page to look at and the losses as one picture; also while the sweep runs.

    grokjax report results/small
    grokjax report metrics.parquet   # of any table that phases read, too
    grokjax report results/a results/b --out=both   # of several sweeps as one

They are results/small/report/index.html and losses.png beside it; of metrics.parquet, in metrics.report;
of several sweeps, in --out.
"""

from collections.abc import Sequence

from grokjax.cli import terminal
from grokjax.errors import InputError


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: bad arguments, or directories that hold no evaluations.
    """
    parser = terminal.command("report", __doc__)
    terminal.add_workdirs(parser, "; or a table of metrics")
    parser.add_argument("--out", metavar="FOLDER", help="to write to; by default in the sweep's own directory")
    args = parser.parse_args(argv)
    if len(args.workdirs) > 1 and not args.out:
        raise InputError("--out is missing: the report of several sweeps needs a folder, such as --out=both.")

    from grokjax.report import write
    from grokjax.report.results import read_all

    for workdir in args.workdirs:
        terminal.say_part(workdir)
    with terminal.busy(f"writing the report of {', '.join(args.workdirs)}"):
        page = write.write_into(read_all(args.workdirs), args.out) if args.out else write.write(args.workdirs[0])
    terminal.written(page)
