"""Checks whether a sweep's working directory is whole: every file against its checksum, every run's rows counted.

    grokjax check results/small

Nothing is changed, so it may be asked while the sweep runs. Exits with 0 if all is whole, with 1 if something is
damaged or missing, and with 2 if this is no sweep.
"""

import argparse
import sys
from collections.abc import Sequence

from grokjax.cli import terminal


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.command("check", __doc__)
    terminal.add_workdir(parser)
    parser.add_argument("--experiment", help=argparse.SUPPRESS)  # which earlier versions asked for
    terminal.add_json(parser)
    args = parser.parse_args(argv)

    from grokjax.store import check

    with terminal.busy(f"checking {args.workdir}"):
        lines, whole = check.check(args.workdir)
    if args.json:
        terminal.say_json({"whole": whole, "findings": lines})
    else:
        terminal.say("\n".join(lines))
    if not whole:
        sys.exit(1)
