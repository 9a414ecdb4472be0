"""What the commands share: flags, progress, records."""

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
from grokjax.errors import InputError
from grokjax.store import files

RECORDS = Path(__file__).parent / "records"  # from which docs/performance.md is made
LINE_SECONDS = 10.0  # between lines of progress where the output is no terminal

Record = dict[str, Any]


def parser(name: str, doc: str | None, rounds: int) -> terminal.Parser:
    """A command's parser with the flags that all have.

    Args:
      name: of the module.
      doc: of the module; its first paragraph describes the command.
      rounds: to take medians over by default.
    """
    result = terminal.Parser(prog=f"python -m benchmarks.{name}", description=(doc or "").split("\n\n")[0])
    result.add_argument(
        "--rounds", type=positive(int), default=rounds, help=f"rounds to take medians over (default: {rounds})"
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, with every round's")
    result.add_argument("--write", action="store_true", help="keep the figures and make docs/performance.md anew")
    return result


def positive(type_: Callable[[str], Any]):
    """A type of flag for numbers above 0."""

    def convert(text: str):
        value = type_(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is given, but it must be greater than 0 and finite")
        return value

    convert.__name__ = type_.__name__  # argparse names it where the text does not parse
    return convert


def ascending(text: str) -> tuple[int, ...]:
    """A type of flag for comma-separated whole numbers above 0; they come sorted, each once."""
    values = terminal.integers(text)
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text} is given, but each number must be at least 1")
    return tuple(sorted(set(values)))


def check(args: argparse.Namespace) -> None:
    """Refuses what would only fail at the end.

    Raises:
      InputError: --json names no place for a file.
    """
    if args.json and (args.json.is_dir() or not args.json.parent.is_dir()):
        raise InputError(f"--json={args.json} cannot be written: it must be a file in a directory that exists.")


class Progress:
    """One live line on stderr in a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self._status = self.console.status("") if self.console.is_terminal else None
        self._started = time.monotonic()
        self._printed = float("-inf")

    def __enter__(self):
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_):
        if self._status:
            self._status.stop()

    def say(self, text: str) -> None:
        """What is going on."""
        now = time.monotonic()
        text = f"{now - self._started:4.0f} s  {text}"
        if self._status:
            self._status.update(text)
        elif now - self._printed > LINE_SECONDS:
            self._printed = now
            self.console.print(text, highlight=False, soft_wrap=True)

    def announce(self, text: str) -> None:
        """Something that is to stay."""
        self.console.print(text, highlight=False, soft_wrap=True)


def enter(parse: Callable[[Sequence[str]], argparse.Namespace], run: Callable, argv: Sequence[str] | None) -> None:
    """Runs a command; bad input is a sentence and exit status 2.

    Args:
      parse: the command line.
      run: given what it holds, and the arguments it was made from.
      argv: the arguments; None for this process's.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    terminal.guarded(run, parse(argv), argv)


def measured(benchmark: str, argv: Sequence[str], minutes: str, measure: Callable[[Say], Mapping[str, Any]]) -> Record:
    """Measures something, with a line of progress.

    Args:
      benchmark, argv: as for `record`.
      minutes: how long it will take, in words.
      measure: given what shows what is going on; returns the figures.
    """
    with Progress() as progress:
        progress.announce(minutes)
        others = machine.Others()
        found = measure(progress.say)
    return record(benchmark, argv, others, **found)


def record(benchmark: str, argv, others: machine.Others, torch_device: str | None = None, **figures) -> Record:
    """Figures with what they may depend on.

    Args:
      benchmark: the module's name.
      argv: the command's arguments.
      others: counting since the measurement began.
      torch_device: PyTorch's name of its device, if it was measured.
      figures: what was measured.
    """
    return {
        "benchmark": benchmark,
        "command": " ".join(["python -m benchmarks." + benchmark, *argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.environment(torch_device),
        "others_share_of_processor": others.share(),
        **figures,
    }


def conclude(found: Record, text: str, args: argparse.Namespace) -> None:
    """Prints what was found and keeps it as the flags say."""
    console = Console()
    console = Console(width=max(console.width, 110)) if not console.is_terminal else console
    console.print(Markdown(text))
    console.print(f"\nmachine: {machine.line(found['machine'])}", highlight=False, soft_wrap=True)
    console.print(machine.others_line(found["others_share_of_processor"]), highlight=False, soft_wrap=True)
    if args.json:
        save(found, args.json)
    if args.write:
        from benchmarks import report  # which imports every command

        keep(found)
        report.write()


def save(found: Mapping[str, Any], path: Path) -> None:
    """Writes a record."""
    files.put((json.dumps(found, indent=1) + "\n").encode(), path)


def keep(found: Record) -> None:
    """Files a record where docs/performance.md is made from."""
    RECORDS.mkdir(exist_ok=True)
    save(found, RECORDS / f"{place(found)}_{found['benchmark']}{found.get('variant', '')}.json")


def place(found: Record) -> str:
    """What kind of machine a record is of: cpu, cpu_one_core, gpu or tpu."""
    return found["machine"]["platform"] + "_one_core" * bool(found.get("one_core"))


def load(path: Path) -> Record:
    """Reads a record.

    Raises:
      InputError: the file holds none.
    """
    try:
        found = json.loads(path.read_text())
        return {"benchmark": found["benchmark"], "machine": found["machine"], **found}
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(f"{path} holds no figures: give a file that a benchmark wrote with --json.") from None


def percent(share: float) -> str:
    """A share as text, with two digits."""
    value = 100 * share
    return f"{value:.{0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2}f} %"


def verdict(met: bool, found: Record) -> str:
    """Whether a target is met, if the machine was left alone."""
    if not machine.is_quiet(found):
        return "not judged, since other programs were busy"
    return "met" if met else "missed"
