"""What the commands of benchmarks/ and faults/ share: flags, progress, records."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from benchmarks import machine
from benchmarks.timing import Say
from grokjax.cli import terminal
from grokjax.store import files

ROOT = Path(__file__).parent.parent
LINE_SECONDS = 10.0  # between lines of progress

Record = dict[str, Any]


def parser(name: str, doc: str | None) -> terminal.Parser:
    """Makes a command's parser, with the flag that all have.

    Args:
      name: of the module, with its package's.
      doc: of the module; its first paragraph describes the command.
    """
    result = terminal.Parser(prog=f"python -m {name}", description=(doc or "").split("\n\n")[0])
    result.add_argument("--write", action="store_true", help=f"file the figures in {name.split('.')[0]}/records")
    return result


def rounds(result: terminal.Parser, n: int) -> None:
    """Adds the flag for how many rounds to take medians over."""
    result.add_argument("--rounds", type=positive(int), default=n, help=f"to take medians over (default: {n})")


def positive(type_: Callable[[str], Any]):
    """A type of flag for numbers above 0."""

    def convert(text: str):
        value = type_(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is given, but it must be greater than 0 and finite")
        return value

    convert.__name__ = type_.__name__  # argparse names it where the text does not parse
    return convert


class Progress:
    """Says on stderr what is going on, at most every `LINE_SECONDS`."""

    def __init__(self):
        self._started = time.monotonic()
        self._printed = float("-inf")

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now - self._printed > LINE_SECONDS:
            self._printed = now
            print(f"{now - self._started:4.0f} s  {text}", file=sys.stderr, flush=True)


def run(
    parser: terminal.Parser,
    measure: Callable[[argparse.Namespace, Say], Mapping[str, Any]],
    page: Callable[[Record], str],
    argv: Sequence[str],
) -> Record:
    """Carries a command out: measures, prints, and files the record if it is asked to.

    Args:
      parser: of `parser`.
      measure: given the flags and what shows progress; returns the figures.
      page: the figures as Markdown.
      argv: the arguments.

    Returns:
      The figures with what they may depend on.
    """
    args, others = parser.parse_args(argv), machine.Others()
    figures = dict(measure(args, Progress()))
    package, name = parser.prog.split()[-1].split(".")
    found = {
        "benchmark": name,
        "command": " ".join([parser.prog, *argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.environment(figures.pop("torch_device", None)),
        "others_share_of_processor": others.share(),
        **figures,
    }
    show(found, page(found))
    if args.write:
        path = file_record(found, ROOT / package / "records")
        print(f"{path.relative_to(ROOT)} written; python -m tools.docs makes the pages in docs/ anew.")
    return found


def show(found: Record, text: str) -> None:
    """Prints what was found."""
    console = Console()
    console = Console(width=max(console.width, 110)) if not console.is_terminal else console
    console.print(Markdown(text))
    print(f"\nmachine: {machine.line(found['machine'])}\n{machine.others_line(found['others_share_of_processor'])}")


def file_record(found: Record, folder: Path) -> Path:
    """Writes a record where the pages in docs/ are made from; returns the path."""
    of_machine = f"{found['machine']['platform']}_" * (folder.parent.name == "benchmarks")
    path = folder / f"{of_machine}{found['benchmark']}{found.get('variant', '')}.json"
    folder.mkdir(parents=True, exist_ok=True)
    files.put((json.dumps(found, indent=1) + "\n").encode(), path)
    return path
