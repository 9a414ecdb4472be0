"""Writes a sweep's report: a page to look at and the losses as one picture; also while the sweep runs.

grokjax report results/small
"""

from collections.abc import Sequence

from grokjax.cli import terminal
from grokjax.report import write
from grokjax.store import files


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="grokjax report", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workdir", help="of a sweep, finished or not")
    terminal.say(f"written: {write.write(files.path(parser.parse_args(argv).workdir))}")
