"""Entry point of `python -m benchmarks.card`."""

import sys

from benchmarks.card import command
from grokjax.cli import terminal

if __name__ == "__main__":
    terminal.guarded(command.main, sys.argv[1:])
