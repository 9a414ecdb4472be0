"""Repeats the paper's reverse engineering for a trained model: each claim, the paper's number and this model's.

    grokjax circuit results/small --run=7                   # a run's last snapshot; --step for another
    grokjax circuit model.npz --keys=6,23,37 --out=circuit.json
    grokjax circuit released.pth --split=python:1:0.3       # the paper's files, TransformerLens's
    grokjax circuit results/small --all                     # every finished run, into circuit.parquet

Losses are on all pairs, with those on the training and test pairs in brackets where the split is known. With
JAX_ENABLE_X64=1 everything is computed in float64. docs/circuit.md says how each number is computed.
"""

import argparse
from collections.abc import Sequence

from grokjax.cli import measure, terminal
from grokjax.core import cache
from grokjax.errors import InputError
from grokjax.experiment import import_experiment
from grokjax.interp.circuit import table
from grokjax.interp.circuit.analysis import analyse
from grokjax.interp.circuit.runs import FILE, circuits_of, listed
from grokjax.store import files
from grokjax.store.metrics import how_to_read

# --- the command line -----------------------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = measure.command("circuit", __doc__)
    parser.add_argument("--run", type=int, help="the run, where the model is a sweep's directory")
    parser.add_argument("--step", type=int, help="the snapshot's step; by default the run's last")
    parser.add_argument("--all", action="store_true", help=f"every finished run of a sweep, into its {FILE}")
    measure.add_subject(parser)
    parser.add_argument("--experiment", help="experiment file whose tasks to use")
    parser.add_argument("--out", help="JSON file to write, with every value whole")
    args = parser.parse_args(argv)
    given = [
        f"--{name}"
        for name in ("run", "step", "split", "task", "act", "heads", "out")
        if getattr(args, name) is not None
    ]
    if args.all and given:
        raise InputError(f"--all takes every run as it is: leave out {given[0]}.")
    if args.step is not None and args.run is None:
        raise InputError("--step needs --run, which says whose step it is.")
    return args


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    args = parse(argv)
    cache.enable()
    if args.all:
        return _all(args)
    if args.run is not None:
        if args.run < 0 or (args.step or 0) < 0:
            raise InputError("--run and --step are numbers from 0.")
        args.model += f":{args.run}" + (f":{args.step}" if args.step is not None else "")
    elif files.path(args.model).is_dir():
        raise InputError(f"{args.model} is a directory: name a run of the sweep with --run, or all of them with --all.")
    checkpoint = measure.load_model(args)
    import_experiment(args.experiment)
    found = analyse(checkpoint, args.keys, args.rule, args.threshold, args.split, args.task)
    if args.out:
        measure.write(found, args.out)
    terminal.say(table.table(found))


def _all(args: argparse.Namespace) -> None:
    from rich.progress import track

    import_experiment(args.experiment)
    path, missed = circuits_of(args.model, args.keys, args.rule, args.threshold, lambda runs, text: track(runs, text))
    if missed:
        terminal.say(f"left out: {listed(missed)}")
    terminal.say(f"written: {how_to_read(path)}")
