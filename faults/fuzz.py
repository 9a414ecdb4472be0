"""Damaged files, by the thousand: each reader of grokjax must say what is wrong in a sentence, or read it rightly.

    python -m faults.fuzz --files 1000             # a table of what was tried and what happened
    python -m faults.fuzz --files 1000 --write     # and files it, for docs/reliability.md
    python -m faults.fuzz --only 417               # one file again, with what its readers said

Whole files are made first: models (npz, PyTorch's two formats), tables, a finished sweep and a stopped one. Each case
then damages one file of a copy: bits turned, cut, spliced, headers that announce the impossible, a link to itself in
its place, pickled code, and more; half of the time checksums are made right again, as if that had been written. Readers
run in processes whose memory is limited and which are killed when they take too long.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from benchmarks import command, markdown
from benchmarks.command import Record
from benchmarks.timing import Say
from faults import cases, readers
from faults.readers import GOOD
from grokjax.cli import terminal
from grokjax.training.progress import duration

BY = ("kind", "damage", "reader")
WORKERS = 2  # processes that read
SECONDS = 60.0  # for one reader of one file, before it counts as hanging
START_SECONDS = 600.0  # for a worker
SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """A process that reads cases, started anew after one that crashed or was killed."""

    def __init__(self, whole: Path):
        self.whole = whole
        self._start()

    def _start(self) -> None:
        self.errors = tempfile.NamedTemporaryFile()  # noqa: SIM115 (closed with the process)
        ready = (self.whole, self.errors.name)
        self.pool = concurrent.futures.ProcessPoolExecutor(1, SPAWN, readers.make_ready, ready)
        self.process_id = self.pool.submit(os.getpid).result(START_SECONDS)

    def read(self, number: int) -> dict[str, Any]:
        """A case and its answers."""
        answers = []
        with tempfile.TemporaryDirectory(prefix="fuzz") as root:
            folder = Path(root) / "case"
            case = self.pool.submit(cases.make, number, self.whole, folder).result(SECONDS)
            for reader in case.readers:
                try:
                    found = self.pool.submit(readers.answer, case, reader, folder).result(SECONDS)
                except (TimeoutError, BrokenProcessPool) as error:
                    found = self._post_mortem(hangs=isinstance(error, TimeoutError))
                answers.append({"reader": reader, **found})
        return {**dataclasses.asdict(case), "answers": answers}

    def _post_mortem(self, hangs: bool) -> dict[str, Any]:
        """How the process failed, and what it said last; another one is started."""
        if hangs:
            os.kill(self.process_id, signal.SIGKILL)
        said = Path(self.errors.name).read_text(errors="replace")[-1500:]
        self.close()
        self._start()
        return {"outcome": "hang" if hangs else "crash", "said": said, "seconds": SECONDS}

    def close(self) -> None:
        """Ends the process."""
        self.pool.shutdown()
        self.errors.close()


def run(numbers: Sequence[int], say: Callable[[str], object] = print) -> list[dict[str, Any]]:
    """Makes the cases and lets them be read; tells of each answer that must not be."""
    left, found = iter(numbers), []
    with tempfile.TemporaryDirectory(prefix="fuzz_whole") as root:
        cases.make_whole(Path(root))

        def serve(_: int) -> None:
            worker = Worker(Path(root))
            for number in left:
                case = worker.read(number)
                found.append(case)
                for one in case["answers"]:
                    if one["outcome"] not in GOOD:
                        said = one["said"].replace("\n", "\n  ")
                        what = f"case {number}, {case['kind']}, {case['damage']}, {one['reader']}: {one['outcome']}"
                        say(f"{what}\n  {said}")
            worker.close()

        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(serve, range(WORKERS)))
    return sorted(found, key=lambda case: case["number"])


def counted(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record: outcomes by kind, by damage and by reader, and how long the slowest reader took."""
    told = [{**case, **one} for case in found for one in case["answers"]]
    record: dict[str, Any] = {"files": len(found), "readings": len(told)}
    for by in BY:
        outcomes = collections.Counter((one[by], one["outcome"]) for one in told)
        record[by] = {}
        for (name, outcome), n in sorted(outcomes.items()):
            record[by].setdefault(name, {})[outcome] = n
    record["seconds_at_most"] = round(max((one["seconds"] for one in told), default=0), 1)
    bad = [one for one in told if one["outcome"] not in GOOD]
    record["bad"] = [{name: one[name] for name in ("number", "reader", "outcome")} for one in bad]
    return record


def table(record: Record, by: str) -> str:
    """How often files of each kind, with each damage or for each reader (one of `BY`) had each outcome."""
    outcomes = sorted({name for counts in record[by].values() for name in counts}, key=lambda n: (n not in GOOD, n))
    rows = [[name, *(f"{counts.get(one, 0):,}" for one in outcomes)] for name, counts in record[by].items()]
    return markdown.table([by, *outcomes], rows)


def page(found: Record) -> str:
    """The outcome as Markdown."""
    return (
        f"{found['files']:,} damaged files, read {found['readings']:,} times in {duration(found['seconds'])}. Answered "
        "with anything but one sentence, or what the file holds (a traceback, a crash, more than "
        f"{SECONDS:.0f} s, an escape sequence, a file written elsewhere, code that was run): "
        f"{len(found['bad']) or 'none'}. The slowest reading took {found['seconds_at_most']} s.\n\n"
        + "\n\n".join(table(found, by) for by in BY)
    )


def fuzz(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Damages so many files and lets them be read; returns figures for the record."""
    numbers = range(args.files) if args.only is None else [args.only]
    began = time.monotonic()
    found = run(numbers)
    if args.only is not None:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    return counted(found) | {"seconds": time.monotonic() - began}


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("faults.fuzz", __doc__)
    parser.add_argument("--files", type=command.positive(int), default=100, help="how many to damage (default: 100)")
    parser.add_argument("--only", type=int, help="one case by its number, with what was said of it")
    found = command.run(parser, fuzz, page, argv)
    sys.exit(bool(found["bad"]))


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
