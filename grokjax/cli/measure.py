"""Measures one trained model: every measure as a table and as JSON.

    grokjax measure model.npz --keys=6,23,37 --out=measures.json
    grokjax measure released.pth                             # the paper's files, TransformerLens's
    grokjax measure results/small:3:40000 --measures=paper   # a snapshot of run 3
    grokjax measure demo.pth --all --out=metrics.parquet     # every checkpoint in a file or folder

Measures of the training or test pairs need the split: the file's own train_mask, the snapshot's own split, or --split.
With JAX_ENABLE_X64=1 everything is computed in float64.
"""

import argparse
import sys
from collections.abc import Sequence

from grokjax.cli import model, terminal
from grokjax.errors import InputError, StorageError
from grokjax.experiment import import_experiment


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.command("measure", __doc__)
    model.add_model(parser)
    model.add_subject(parser)
    terminal.add_measures(parser, "by default all")
    terminal.add_experiment(parser)
    terminal.add_json(parser)
    parser.add_argument("--all", action="store_true", help="every checkpoint of a run, into the Parquet file --out")
    args = parser.parse_args(argv)
    if args.all and not (args.out or "").endswith(".parquet"):
        raise InputError("--all writes a table: give --out=FILE.parquet.")

    from grokjax.core import cache
    from grokjax.interp.measure import measure
    from grokjax.interp.measure_table import table

    cache.enable()
    if args.all:
        return _all(args)
    checkpoint = model.load(args)
    import_experiment(args.experiment)
    with terminal.busy(f"measuring {args.model}"):
        found = measure(checkpoint, args.keys, args.rule, args.threshold, args.split, args.task, args.measures)
    model.write(found, args.out)
    if args.json:
        terminal.say_json(found)
    else:
        terminal.say(table(found))


def _all(args: argparse.Namespace) -> None:
    from grokjax.interp.trajectory import measure_all
    from grokjax.store import files
    from grokjax.store.metrics import how_to_read

    def track(done: int, total: int) -> None:
        print(f"{done}/{total} checkpoints", file=sys.stderr, flush=True)

    import_experiment(args.experiment)
    how = (args.keys, args.rule, args.threshold, args.split, args.task, args.measures, args.act, args.heads)
    table, out = measure_all(args.model, *how, track=track), files.path(args.out)
    try:
        files.write_parquet(table, out)
    except StorageError as error:
        raise InputError(f"--out={error}: choose another place.") from None
    terminal.say(f"written: {how_to_read(out)}")
