"""Measures one trained model: every measure as a table and as JSON.

    grokjax measure model.npz --keys=6,23,37 --out=measures.json
    grokjax measure released.pth                             # the paper's files, TransformerLens's
    grokjax measure results/small:3:40000 --measures=paper   # a snapshot of run 3

Measures of the training or test pairs need the split: the file's own train_mask, the snapshot's own split, or --split.
With JAX_ENABLE_X64=1 everything is computed in float64.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from grokjax.cli import terminal
from grokjax.core import cache
from grokjax.errors import InputError, StorageError
from grokjax.experiment import import_experiment
from grokjax.interp import measure
from grokjax.interp.checkpoint import Checkpoint, load_checkpoint
from grokjax.interp.measure import to_json
from grokjax.interp.measure_table import table
from grokjax.store import files

# --- the command line -----------------------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = command("measure", __doc__)
    add_subject(parser)
    parser.add_argument(
        "--measures", type=terminal.names, default=(), help="groups, such as paper,clock; by default all"
    )
    parser.add_argument("--experiment", help="experiment file whose tasks and measures to use")
    parser.add_argument("--out", help="JSON file to write, with every value whole")
    return parser.parse_args(argv)


def command(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments that say which model, for this command and `grokjax.export`."""
    parser = terminal.Parser(
        prog=f"grokjax {name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="an .npz or PyTorch file, or a snapshot as workdir:run:step or workdir:run")
    parser.add_argument("--act", help="relu or gelu, which arrays do not tell; by default what the file says, or relu")
    parser.add_argument("--heads", type=int, help="the number of heads, where arrays do not tell")
    return parser


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Adds what a model is measured by (see `interp.subject.subject_of`), for this command and `grokjax.circuit`."""
    parser.add_argument("--keys", type=terminal.integers, default=(), help="key frequencies, such as 6,23,37")
    parser.add_argument("--rule", help="key_rule where no keys are given: W_L, W_E, neurons or logits")
    parser.add_argument("--threshold", type=float, help="key_threshold of rules W_L and W_E, in (0, 1)")
    parser.add_argument("--split", help="mask (the model's own), all, jax:SEED:FRACTION or python:SEED:FRACTION")
    parser.add_argument("--task", help="what the model computes; by default what it says itself, or else add")


def load_model(args: argparse.Namespace) -> Checkpoint:
    """The model that the arguments name."""
    if args.heads is not None and args.heads < 1:
        raise InputError(f"--heads is {args.heads}, but it must be 1 or more.")
    return load_checkpoint(args.model, args.act, args.heads)


def write(found: Mapping[str, Any], out: str) -> None:
    """Writes what `measure` returned to the file that --out names.

    Raises:
      InputError: it cannot be written.
    """
    try:
        files.put((to_json(found) + "\n").encode(), files.path(out))
    except StorageError as error:
        raise InputError(f"--out={error}: choose another place.") from None


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    args = parse(argv)
    cache.enable()
    checkpoint = load_model(args)
    import_experiment(args.experiment)
    found = measure.measure(checkpoint, args.keys, args.rule, args.threshold, args.split, args.task, args.measures)
    if args.out:
        write(found, args.out)
    terminal.say(table(found))
