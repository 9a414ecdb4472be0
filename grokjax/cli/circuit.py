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

from grokjax.cli import model, terminal
from grokjax.errors import InputError
from grokjax.experiment import import_experiments

# Flags that --all leaves no room for.
ONE_MODEL = ("run", "step", "split", "task", "group", "act", "heads", "attention_rate", "out")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line.

    Raises:
      InputError: flags that do not go together.
    """
    parser = terminal.command("circuit", __doc__)
    model.add_model(parser)
    parser.add_argument("--run", type=int, metavar="N", help="the run, where the model is a sweep's directory")
    parser.add_argument("--step", type=int, metavar="N", help="the snapshot's step; by default the run's last")
    parser.add_argument("--all", action="store_true", help="every finished run of a sweep, into its circuit.parquet")
    model.add_subject(parser)
    terminal.add_experiment(parser)
    terminal.add_json(parser)
    args = parser.parse_args(argv)
    given = [f"--{name.replace('_', '-')}" for name in ONE_MODEL if getattr(args, name) is not None]
    if args.all and given:
        raise InputError(f"--all takes every run as it is: leave out {given[0]}.")
    if args.step is not None and args.run is None:
        raise InputError("--step needs --run, which says whose step it is.")
    if (args.run or 0) < 0 or (args.step or 0) < 0:
        raise InputError("--run and --step are numbers from 0.")
    return args


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    args = parse(argv)

    from grokjax.core import cache
    from grokjax.interp import trajectory
    from grokjax.interp.circuit.analysis import analyse
    from grokjax.interp.circuit.table import table
    from grokjax.store import files

    cache.enable()
    if args.all:
        return _all(args)
    if args.run is not None:
        args.model += f":{args.run}" + (f":{args.step}" if args.step is not None else "")
    elif files.path(args.model).is_dir() and not trajectory.is_folder(args.model):
        raise InputError(f"{args.model} is a directory: name a run of the sweep with --run, or all of them with --all.")
    import_experiments(args.experiment)
    checkpoint = model.load(args)
    with terminal.busy(f"analysing {args.model}"):
        found = analyse(checkpoint, args.keys, args.rule, args.threshold, args.split, model.task(args))
    model.write(found, args.out, args.json)
    if args.json:
        terminal.say_json(found)
    else:
        terminal.say(table(found))


def _all(args: argparse.Namespace) -> None:
    from grokjax.interp.circuit.runs import circuits_of, listed
    from grokjax.store.metrics import how_to_read, read_part

    import_experiments(args.experiment)
    path, missed = circuits_of(args.model, args.keys, args.rule, args.threshold, terminal.track)
    terminal.say_part(args.model)
    if args.json:
        rows = read_part(path).to_pylist()
        return terminal.say_json({"file": str(path), "left_out": missed, "rows": rows})
    if missed:
        terminal.say(f"left out: {listed(missed)}")
    terminal.say(f"written: {how_to_read(path)}\nTo have it on the sweep's page, too: grokjax report {args.model}")
