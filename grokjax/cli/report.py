"""Writes a sweep's report: a page to look at and the losses as one picture; also while the sweep runs.

    grokjax report results/small

They are results/small/report/index.html and losses.png beside it.
"""

from collections.abc import Sequence

from grokjax.cli import terminal


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.command("report", __doc__)
    terminal.add_workdir(parser)
    args = parser.parse_args(argv)

    from grokjax.report import write
    from grokjax.store import files

    with terminal.busy(f"writing the report of {args.workdir}"):
        page = write.write(files.path(args.workdir))
    terminal.written(page)
