"""Damaged files, by the thousand: each reader of grokjax must say what is wrong in a sentence, or read it rightly.

    python -m faults.fuzz --files 1000             # a table of what was tried and what happened
    python -m faults.fuzz --files 1000 --write     # and keeps it, for docs/reliability.md
    python -m faults.fuzz --only 417               # one file again, with what its readers said

Whole files are made first: models (npz, PyTorch's two formats), tables, a finished sweep and a stopped one. Each case
then damages one file of a copy: bits turned, cut, spliced, headers that announce the impossible, a link to itself in
its place, pickled code, and more; half of the time checksums are made right again, as if that had been written. Readers
run in processes whose memory is limited and which are killed when they take too long.
"""

import collections
import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults import drive
from faults.cases import KINDS, make_whole
from faults.readers import GOOD
from grokjax import docs
from grokjax.cli import terminal

BY = ("kind", "damage", "reader")
SECONDS = 60.0  # for one reader of one file, before it counts as hanging


class Worker:
    """A process that reads cases, started anew after one that crashed or was killed."""

    def __init__(self, whole: Path):
        self.whole = whole
        self._start()

    def _start(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faults.readers", str(self.whole)],
            cwd=drive.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            bufsize=1,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.listener = threading.Thread(target=self._listen, args=(self.process.stdout, self.lines), daemon=True)
        self.listener.start()
        assert self._line(600) == "ready"

    def _line(self, seconds: float) -> str | None:
        """The next line; None where none comes in time, "" where the process has ended."""
        try:
            return self.lines.get(timeout=seconds)
        except queue.Empty:
            return None

    @staticmethod
    def _listen(stream: Any, lines: "queue.Queue[str]") -> None:
        for line in stream:
            lines.put(line.strip())
        lines.put("")
        stream.close()

    def read(self, number: int) -> dict[str, Any]:
        """A case and its answers."""
        assert self.process.stdin
        print(number, file=self.process.stdin, flush=True)
        case: dict[str, Any] = {"number": number, "kind": KINDS[number % len(KINDS)], "damage": "?", "readers": []}
        answers: list[dict[str, Any]] = []
        while (line := self._line(SECONDS)) != "done":
            if line:
                found = json.loads(line)
                if "reader" in found:
                    answers.append(found)
                else:
                    case = found
                continue
            self.process.kill()
            status = self.process.wait()
            self.errors.seek(0)
            said = self.errors.read()[-1500:].decode(errors="replace")
            reader = case["readers"][len(answers)] if len(answers) < len(case["readers"]) else "?"
            outcome = "hang" if line is None else f"crash ({status})"
            answers.append({"reader": reader, "outcome": outcome, "said": said, "seconds": SECONDS})
            self.close()
            self._start()
            break
        return {**case, "answers": answers}

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(60)
        self.listener.join(60)
        self.errors.close()


def run(numbers: Sequence[int], workers: int = 2, say: Callable[[str], object] = print) -> list[dict[str, Any]]:
    """Makes the cases and lets them be read; tells of each answer that must not be."""
    waiting: queue.Queue[int] = queue.Queue()
    for number in numbers:
        waiting.put(number)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fuzz_whole") as root:
        make_whole(Path(root))

        def serve() -> None:
            worker = Worker(Path(root))
            while True:
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    worker.close()
                    return
                case = worker.read(number)
                found.append(case)
                for one in case["answers"]:
                    if one["outcome"] not in GOOD:
                        say(f"case {number}, {case['kind']}, {case['damage']}, {one['reader']}: {one['outcome']}")
                        say("  " + one["said"].replace("\n", "\n  "))

        threads = [threading.Thread(target=serve) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sorted(found, key=lambda case: case["number"])


def counted(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record: outcomes by kind, by damage and by reader, and how long the slowest reader took."""
    record: dict[str, Any] = {"files": len(cases), "readings": sum(len(case["answers"]) for case in cases)}
    for by in BY:
        table: dict[str, collections.Counter[str]] = {}
        for case in cases:
            for one in case["answers"]:
                table.setdefault(one["reader"] if by == "reader" else case[by], collections.Counter())[
                    one["outcome"]
                ] += 1
        record[by] = {name: dict(sorted(counts.items())) for name, counts in sorted(table.items())}
    record["seconds_at_most"] = round(max((one["seconds"] for case in cases for one in case["answers"]), default=0), 1)
    record["bad"] = [
        {"number": case["number"], "reader": one["reader"], "outcome": one["outcome"]}
        for case in cases
        for one in case["answers"]
        if one["outcome"] not in GOOD
    ]
    return record


def table(record: dict[str, Any], by: str) -> str:
    """How often files of each kind, with each damage or for each reader (one of `BY`) had each outcome."""
    outcomes = sorted({name for counts in record[by].values() for name in counts}, key=lambda n: (n not in GOOD, n))
    rows = [[name, *(f"{counts.get(one, 0):,}" for one in outcomes)] for name, counts in record[by].items()]
    return docs.table([by, *outcomes], rows)


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="python -m faults.fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--files", type=int, default=100, help="how many to damage (default: 100)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    parser.add_argument("--only", type=int, help="one case by its number, with what was said of it")
    parser.add_argument("--workers", type=int, default=2, help="processes that read (default: 2)")
    parser.add_argument("--write", action="store_true", help="keep the figures and make docs/reliability.md anew")
    args = parser.parse_args(argv)
    numbers = range(args.first, args.first + args.files) if args.only is None else [args.only]
    began = time.monotonic()
    cases = run(numbers, min(args.workers, len(numbers)))
    if args.only is not None:
        print(json.dumps(cases, indent=1, ensure_ascii=False))
    found = {**counted(cases), "seconds": time.monotonic() - began}
    print("\n\n".join(table(found, by) for by in BY))
    if args.write:
        from faults import report

        drive.keep(drive.record("fuzz", list(argv), found), drive.RECORDS / "fuzz.json")
        report.write()
    sys.exit(bool(found["bad"]))


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
