"""How long a sweep takes to end after SIGTERM, at every moment of its life, as clusters and clouds send it.

    python -m faults.stops --times=3

Each time one sweep is stopped in each of its stages and resumed, and in the end held against one that was never
interrupted. Clouds give 25 to 30 s before they kill. Exits with 1 if anything differs or takes longer.
"""

import argparse
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import command
from benchmarks.command import Record
from benchmarks.markdown import table
from benchmarks.timing import Say
from faults import crash, drive
from faults.crash import Blow
from grokjax.cli import terminal

LIMIT = 30.0  # seconds from SIGTERM to the end
MOMENTS = (
    # stage, how often it has been entered, and the most seconds after that
    (crash.START, 1, 2.0),
    (crash.COMPILE, 1, 0.5),
    (crash.TRAIN, 1, 3.0),
    (crash.CHECKPOINT, 2, 0.05),
    (crash.SNAPSHOT, 2, 0.02),
    (crash.PARQUET, 3, 0.0),
    (crash.TRAIN, 1, 4.0),
    (crash.SETTLE, 1, 0.5),
    (crash.REPORT, 1, 1.0),
)


def stop(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Stops sweeps in all of their stages; returns figures for the record."""
    place, began, rng = drive.Place(args.folder), time.monotonic(), random.Random(args.seed)
    say("training the sweep twice without a fault, then stopping it")
    place.whole()
    stops: list[dict[str, Any]] = []
    wrong: list[str] = []
    for number in range(args.times):
        name = f"stopped{number}"
        for stage, n, most in MOMENTS:
            if stage == crash.REPORT:  # the sweep has ended by then, so that only a lost report is written
                shutil.rmtree(place.folder / name / "report")
            ended = place.start(name, Blow(stage, n, delay=rng.uniform(0, most), number=signal.SIGTERM))
            if ended.status not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
                ended.refuse()
            if ended.since_blow is not None:
                stops.append({"where": stage, "seconds": ended.since_blow, "status": ended.status})
                print(f"{stage:14} {ended.since_blow:5.1f} s to the end, exit status {ended.status}", flush=True)
        place.start(name, Blow()).refuse()
        wrong += place.differences(name)
    place.leave(wrong)
    seconds = time.monotonic() - began
    return {"seed": args.seed, "sweeps": args.times, "stops": stops, "differences": wrong, "seconds": seconds}


def page(found: Record) -> str:
    """The outcome as Markdown."""
    rows = []
    for where in dict.fromkeys(one["where"] for one in found["stops"]):
        some = [one for one in found["stops"] if one["where"] == where]
        seconds = [one["seconds"] for one in some]
        statuses = ", ".join(sorted({str(one["status"]) for one in some}))
        rows.append([where, len(some), f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}", statuses])
    outcome = "; ".join(found["differences"]) or "Each resumed sweep equals an uninterrupted one, bit for bit"
    header = ["SIGTERM in", "times", "median seconds to the end", "longest", "exit status"]
    return f"{outcome}.\n\n{table(header, rows)}"


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    found = command.run(drive.parser("faults.stops", __doc__, times=3), stop, page, argv)
    sys.exit(bool(found["differences"]) or max(one["seconds"] for one in found["stops"]) > LIMIT)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
