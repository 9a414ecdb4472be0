"""Parts that commands share: flags, sentences for what is wrong, exit status, output that may end before they do."""

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NoReturn, TypeVar

from grokjax import waiting
from grokjax.errors import HostLost, InputError, StorageError, one_line, plain


def fail(sentence: str) -> NoReturn:
    """Prints what is wrong and exits with status 2."""
    print(f"error: {one_line(sentence)}", file=sys.stderr)
    sys.exit(2)


def say(text: str) -> None:
    """Prints what a command found; names in it, whatever they are, cannot steer the terminal."""
    print(plain(text))


def written(file: Any, beside: bool = False) -> None:
    """Says which file was written; on stderr where stdout is for something `beside` it."""
    print(plain(f"written: {file}"), file=sys.stderr if beside else sys.stdout)


def say_json(value: Any) -> None:
    """Prints what a command found as JSON: what is missing or no finite number is null."""
    print(json.dumps(_jsonable(value), ensure_ascii=False, allow_nan=False, indent=1))


def _jsonable(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {str(name): _jsonable(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(one) for one in value]
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if str(value) in ("<NA>", "NaT") else str(value)


def busy(text: str, left: Callable[[], str] = lambda: "") -> AbstractContextManager[None]:
    """Says on stderr what a command is doing, as `waiting.busy` does."""
    return waiting.busy(text, lambda line: print(plain(line), file=sys.stderr, flush=True), left)


Item = TypeVar("Item")


def track(items: Iterable[Item], text: str) -> Iterator[Item]:
    """Goes through items, and says on stderr how many are done and how long the others will take, as `busy` does."""
    items, n, started = list(items), 0, time.monotonic()

    def left() -> str:
        if not n:
            return ""
        seconds = (time.monotonic() - started) / n * (len(items) - n)
        return f"{n} of {len(items)}, about {seconds:.0f} s left"

    with busy(text, left):
        for item in items:
            yield item
            n += 1


def say_part(workdir: str) -> None:
    """Says in a line on stderr that a directory holds some runs of a sweep alone, if it does."""
    from grokjax.store.records import part, read_record

    with contextlib.suppress(InputError):  # which whoever needs config.json tells
        if some := part(read_record(workdir)):
            print(f"note: {plain(workdir)} is {some}.", file=sys.stderr)


@contextlib.contextmanager
def reader_may_leave():
    """Where output goes into a pipe whose reader has seen enough (head, less), the rest is dropped without a word."""
    try:
        try:
            yield
        finally:
            if sys.stdout:  # none where it was closed (`>&-`)
                sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at exit, which must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Lasting:
    """A text stream that outlives its other end: once that is gone or full, the rest is dropped without a word.

    Args:
      stream: that it writes to.
    """

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, function, *args) -> None:
        try:
            function(*args)
        except OSError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)
            function(*args)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_output():
    """Hours of training must not end because nobody reads what is printed: a closed pipe, a terminal that is gone."""
    out, err = (Lasting(stream) if stream else None for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            for stream in filter(None, (out, err)):
                stream.flush()


def open_standard_streams() -> None:
    """Where stdout or stderr was closed (`>&-`), a file of results would get its number, and then what is printed."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


class Parser(argparse.ArgumentParser):
    """An argument parser that prints its description as it is, and whose errors are one sentence on stderr."""

    def __init__(self, **settings):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message):
        fail(f"{message}. See --help.")


def command(name: str, doc: str | None) -> Parser:
    """The parser of a subcommand, which its module's docstring describes."""
    return Parser(prog=f"grokjax {name}", description=doc)


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """Adds the working directory that a command is about."""
    parser.add_argument("workdir", help="of a sweep, finished or not; gs:// and s3:// too")


def add_workdirs(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Adds the working directories that a command is about, which it looks at as one sweep."""
    help = f"of a sweep, finished or not; several are looked at as one; gs:// and s3:// too{more}"
    parser.add_argument("workdirs", metavar="DIR", nargs="+", help=help)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that prints JSON in place of a table."""
    parser.add_argument("--json", action="store_true", help="JSON on stdout, and everything else on stderr")


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Adds the files whose own tasks and measures a command needs."""
    help = "file whose own tasks and measures to use, such as an experiment; may be given several times"
    parser.add_argument("--experiment", action="append", default=[], metavar="FILE", help=help)


def add_measures(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Adds the groups of measures to compute."""
    help = f"groups of measures, such as paper,clock; {otherwise}"
    parser.add_argument("--measures", type=names, default=(), metavar="GROUPS", help=help)


def add_keys(parser: argparse.ArgumentParser, keys: str, rule: str) -> None:
    """Adds key frequencies and the rule that finds them.

    Args:
      parser: to add to.
      keys, rule: help on --keys and --rule.
    """
    parser.add_argument("--keys", type=integers, default=(), metavar="N,N", help=keys)
    parser.add_argument("--rule", help=f"{rule}: W_L, W_E, neurons or logits")
    parser.add_argument("--threshold", type=float, metavar="T", help="key_threshold of rules W_L and W_E, in (0, 1)")


def guarded(function, *args) -> None:
    """Runs a command; bad input is a sentence and exit status 2, a disk or process that fails it one and status 1."""
    try:
        with reader_may_leave():
            function(*args)
    except InputError as error:
        fail(str(error))
    except (RuntimeError, AssertionError):
        _refuse_missing_device()
        raise
    except (HostLost, StorageError) as error:
        print(f"error: {one_line(str(error))}.", file=sys.stderr, flush=True)
        if isinstance(error, HostLost):
            os._exit(1)  # an orderly end would wait for the lost process
        sys.exit(1)


def _refuse_missing_device() -> None:
    """Fails with a sentence where JAX cannot start on the device that JAX_PLATFORMS asks for."""
    if "jax" in sys.modules:
        from grokjax.core import devices

        try:
            devices.require()
        except InputError as error:
            fail(str(error))


def integers(text: str) -> tuple[int, ...]:
    """Comma-separated whole numbers, for argparse."""
    return tuple(int(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Comma-separated names, for argparse."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
