"""Puts parts of one sweep that were trained apart, as --shard makes them, together into one directory.

    grokjax merge results/sweep/shard-0-of-2 results/sweep/shard-1-of-2 --out=results/whole

Nothing is trained, and the parts stay as they are. What is made is what one process would have left: the sweep's own
command finds it finished, and extends it.
"""

from collections.abc import Sequence

from grokjax.cli import terminal


def main(argv: Sequence[str]) -> None:
    """Entry point.

    Raises:
      InputError: no parts of one sweep, or a run is missing; nothing is written.
      StorageError: the directory cannot be written.
    """
    parser = terminal.command("merge", __doc__)
    parser.add_argument("parts", nargs="+", metavar="DIR", help="a directory with a share of the runs")
    parser.add_argument("--out", required=True, metavar="DIR", help="to make, which must not be there yet")
    terminal.add_experiment(parser)
    args = parser.parse_args(argv)

    from grokjax.experiment import import_experiments
    from grokjax.report import write
    from grokjax.store import merging

    import_experiments(args.experiment)
    with terminal.busy(f"writing {args.out}"):
        made = merging.merge(args.parts, args.out)
        write.write(made)
    terminal.written(made)
