"""The command `grokjax`: finds the subcommand and lets it run; only that one's modules are imported."""

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from grokjax.cli import terminal
from grokjax.errors import InputError, unknown
from grokjax.version import __version__

COMMANDS = {
    "train": "train the runs of a sweep side by side, or go on with it",
    "list": "list the sweeps under a folder or in a bucket",
    "show": "show a sweep: config, progress, last evaluations",
    "measure": "every measure of one trained model",
    "export": "write a trained model for TransformerLens, or as plain arrays",
    "circuit": "repeat the paper's reverse engineering for a model or a sweep",
    "replay": "measure a sweep's snapshots again, with final or other keys",
    "phases": "when each run memorised, formed its circuit and cleaned up",
    "report": "write a sweep's page and picture",
    "figure": "draw one figure of a sweep for a paper",
    "compare": "compare two sweeps: settings, and runs of the same seeds",
    "merge": "put parts of a sweep that were trained apart together",
    "log": "log a sweep to TensorBoard or Weights & Biases",
    "publish": "write a sweep as a folder to publish",
    "check": "whether a sweep's directory is whole",
    "example": "print an experiment to start from",
}
HELP = f"""grokjax {__version__}: sweeps of grokking transformers, trained side by side, with progress measures

    grokjax example wd_sweep > my.py
    grokjax train --config=my.py:small --workdir=results/small
    grokjax phases results/small

commands (grokjax COMMAND --help explains each; grokjax --version):
""" + "\n".join(f"  {name:<8} {what}" for name, what in COMMANDS.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: runs the subcommand; exits with 0, 2 for bad input, or what the subcommand says.

    Args:
      argv: the arguments; None for this process's. Without any, the help goes to stderr and the status is 2.
    """
    terminal.guarded(_run, sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> None:
    name, *rest = argv or [""]
    if name in COMMANDS:
        importlib.import_module(f"grokjax.cli.{name}").main(rest)
    elif name in ("--help", "-h", "help"):
        print(HELP)
    elif name == "--version":
        print(__version__)
    elif not name:
        print(HELP, file=sys.stderr)
        sys.exit(2)
    elif name.startswith("-"):
        raise InputError(f"flag '{name}' is unknown: a command comes first, such as grokjax train. See grokjax --help.")
    else:
        raise unknown("command", name, COMMANDS)


def refuse_module(name: str) -> NoReturn:
    """Ends `python -m grokjax.NAME`, which would define functions and run none, with the command that may be meant."""
    command = name.rpartition(".")[2]
    command = command if command in COMMANDS else "COMMAND"
    terminal.fail(f"grokjax.{name} is no command: give grokjax {command}, or python -m grokjax {command}. See --help.")
