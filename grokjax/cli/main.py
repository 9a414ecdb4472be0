"""The command `grokjax`: finds the subcommand and lets it run; only that one's modules are imported."""

import importlib
import sys
from collections.abc import Sequence

import grokjax
from grokjax.cli import terminal
from grokjax.errors import unknown

COMMANDS = {
    "train": "train the runs of a sweep side by side, or go on with it",
    "measure": "every measure of one trained model",
    "export": "write a trained model for TransformerLens, or as plain arrays",
    "circuit": "repeat the paper's reverse engineering for a model or a sweep",
    "replay": "measure a sweep's snapshots again, with final or other keys",
    "phases": "when each run memorised, formed its circuit and cleaned up",
    "report": "write a sweep's page and picture",
    "check": "whether a sweep's directory is whole",
}
HELP = f"""grokjax {grokjax.__version__}: sweeps of grokking transformers, trained side by side, with progress measures

    grokjax train --config=experiments/wd_sweep.py:small --workdir=results/small
    grokjax phases results/small

commands (grokjax COMMAND --help explains each):
""" + "\n".join(f"  {name:<8} {what}" for name, what in COMMANDS.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: runs the subcommand; exits with 0, 2 for bad input, or what the subcommand says."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv), "--help"]
    if name in ("--help", "-h", "help"):
        terminal.guarded(print, HELP)
    elif name == "--version":
        print(grokjax.__version__)
    elif name in COMMANDS:
        arguments = rest[:-1]
        terminal.guarded(importlib.import_module(f"grokjax.cli.{name}").main, arguments)
    else:
        terminal.fail(str(unknown("command", name, COMMANDS)))
