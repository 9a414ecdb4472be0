"""Measures one trained model: every measure as a table and as JSON; or all checkpoints of a run, as a table of metrics.

    grokjax measure model.npz --keys=6,23,37 --out=measures.json
    grokjax measure released.pth                             # the paper's files, TransformerLens's
    grokjax measure released.pth --group=S_5                 # of a finite group
    grokjax measure results/small:3:40000 --measures=paper   # a snapshot of run 3
    grokjax measure run.pth:400                              # the checkpoint of step 400, of many in a file or folder
    grokjax measure run.pth --all --out=metrics.parquet      # every one of them, for phases and report

Measures of the training or test pairs need the split: the file's own train_mask, the snapshot's own split, or --split.
With JAX_ENABLE_X64=1 everything is computed in float64.
"""

import argparse
from collections.abc import Sequence

from grokjax.cli import model, terminal
from grokjax.errors import InputError, StorageError
from grokjax.experiment import import_experiments


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line.

    Raises:
      InputError: flags that do not go together, or a file that --all would replace.
    """
    parser = terminal.command("measure", __doc__)
    model.add_model(parser)
    model.add_subject(parser)
    terminal.add_measures(parser, "by default all; with --all, paper")
    terminal.add_experiment(parser)
    terminal.add_json(parser)
    parser.add_argument(
        "--all", action="store_true", help="every checkpoint in a file or folder, into --out=FILE.parquet"
    )
    parser.add_argument("--overwrite", action="store_true", help="with --all, replace a table that is there")
    args = parser.parse_args(argv)
    if args.overwrite and not args.all:
        raise InputError("--overwrite goes with --all.")
    if args.all and not (args.out or "").endswith(".parquet"):
        raise InputError("--all makes a table: give --out=FILE.parquet.")
    return args


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    args = parse(argv)

    from grokjax.core import cache
    from grokjax.interp.measure import measure
    from grokjax.interp.measure_table import table

    cache.enable()
    if args.all:
        return _all(args)
    import_experiments(args.experiment)
    checkpoint = model.load(args)
    with terminal.busy(f"measuring {args.model}"):
        how = (args.keys, args.rule, args.threshold, args.split, model.task(args), args.measures)
        found = measure(checkpoint, *how)
    model.write(found, args.out, args.json)
    if args.json:
        terminal.say_json(found)
    else:
        terminal.say(table(found))


def _all(args: argparse.Namespace) -> None:
    from grokjax.interp import trajectory, trajectory_table
    from grokjax.store import files

    out = files.path(args.out)
    if out.exists() and (out.is_dir() or not args.overwrite):
        raise InputError(f"--out={out} exists: choose another name{'' if out.is_dir() else ', or --overwrite'}.")
    if files.is_local(out) and not out.parent.is_dir():
        raise InputError(f"--out={out}: {out.parent} is no directory.")
    model.check(args)
    import_experiments(args.experiment)
    found = trajectory.find(args.model)
    how = (args.keys, args.rule, args.threshold, args.split, model.task(args), args.measures)
    known = (args.act, args.heads, args.attention_rate)
    table = trajectory_table.measure_all(found, *how, *known, track=terminal.track)
    try:
        files.put(files.parquet_bytes(table), out)
    except StorageError as error:
        raise InputError(f"--out={error}: choose another place.") from None
    about = trajectory_table.about(table)
    if args.json:
        return terminal.say_json({"file": str(out), "steps": table["step"].to_pylist(), **about})
    terminal.say(trajectory_table.text(table, str(out)))
