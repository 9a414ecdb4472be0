"""Writes a sweep's report: a page to look at and the losses as one picture; also while the sweep runs.

    grokjax report results/small
    grokjax report metrics.parquet   # of any table that phases read, too

They are results/small/report/index.html and losses.png beside it; of metrics.parquet, in metrics.report.
"""

from collections.abc import Sequence

from grokjax.cli import terminal


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.command("report", __doc__)
    parser.add_argument("workdir", help="of a sweep, finished or not; gs:// and s3:// too; or a table of metrics")
    args = parser.parse_args(argv)

    from grokjax.report import write
    from grokjax.store import files

    terminal.say_part(args.workdir)
    with terminal.busy(f"writing the report of {args.workdir}"):
        page = write.write(files.path(args.workdir))
    terminal.written(page)
