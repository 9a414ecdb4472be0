"""Checks whether a sweep's working directory is whole: every file against its checksum, every run's rows counted.

    grokjax check results/small

Nothing is changed, so it may be asked while the sweep runs. Exits with 0 if all is whole, with 1 if something is
damaged or missing, and with 2 if this is no sweep.
"""

import sys
from collections.abc import Sequence

from grokjax.cli import terminal
from grokjax.experiment import import_experiment
from grokjax.store import check


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="grokjax check", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workdir", help="of a sweep, finished or not")
    parser.add_argument("--experiment", help="experiment file whose measures and tasks to use")
    args = parser.parse_args(argv)
    import_experiment(args.experiment)
    lines, whole = check.check(args.workdir)
    terminal.say("\n".join(lines))
    if not whole:
        sys.exit(1)
