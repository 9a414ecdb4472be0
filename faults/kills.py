"""A sweep killed again and again, each time resumed, and held against one that was never interrupted.

    python -m faults.kills --times=50
    python -m faults.kills --times=10 --signal=TERM    # as clusters and clouds stop it, which saves

The signal falls at random moments and, so that these are not left to chance, inside writes: while half of a Parquet file
or of a checkpoint is on disk, between its last byte and its rename, and between the rename and what follows it. A sweep
that finishes is compared, bit for bit, and the next one begins. Exits with 1 if anything differs.
"""

import argparse
import collections
import itertools
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.command import Record
from benchmarks.markdown import table
from benchmarks.timing import Say
from faults import crash, drive
from faults.crash import Blow
from grokjax.cli import terminal
from grokjax.store.metrics import read_metrics
from grokjax.training.progress import duration

PER_SWEEP = 8  # kills at most, after which a sweep is let finish
WRITES = (crash.PARQUET, crash.CHECKPOINT, crash.SNAPSHOT)
KINDS = (
    *(None, crash.PARQUET, crash.CHECKPOINT, crash.SNAPSHOT, None),
    *(crash.SETTLE, crash.CHECKPOINT, crash.PARQUET, crash.REPORT, crash.REPAIR),
)


def plan(rng: random.Random, seconds: float, number: int) -> Iterator[tuple[Blow, float | None]]:
    """Blows, or seconds after which to kill from outside, without end.

    Args:
      rng: decides.
      seconds: that an uninterrupted sweep takes.
      number: of the signal.
    """
    for kind in itertools.cycle(KINDS):
        if kind is None:
            yield Blow(number=number), rng.uniform(0, seconds)
        elif kind in WRITES:
            yield Blow(kind, rng.randint(1, 6), rng.choice(["half", "written", "renamed"]), number=number), None
        else:
            n = rng.randint(1, 2) if kind == crash.SETTLE else 1
            delay = rng.uniform(0, 0.05 if kind == crash.REPAIR else 1.0)
            yield Blow(kind, n, delay=delay, number=number), None


def kill(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Kills sweeps so many times; returns figures for the record."""
    place, began = drive.Place(args.folder), time.monotonic()
    say(f"training the sweep twice without a fault, then killing it: about {duration(40 + 12 * args.times)}")
    seconds = place.whole()
    rows = len(read_metrics(place.folder / "whole"))
    blows = plan(random.Random(args.seed), seconds, signal.Signals[f"SIG{args.signal}"])
    kills: list[dict[str, Any]] = []
    wrong: list[str] = []
    finished = 0
    for sweep in itertools.count():
        here = killed(place, sweep, blows, args.times - len(kills))
        kills += here
        if here:  # a sweep that no blow struck tells nothing
            finished += 1
            found = place.differences(f"sweep{sweep}")
            wrong += [f"sweep {sweep + 1}, killed {len(here)} times: {text}" for text in found]
            left = duration((args.times - len(kills)) * (time.monotonic() - began) / len(kills))
            outcome = found[0] if found else "equals the whole one"
            print(f"sweep {sweep + 1}: {outcome}; {len(kills)} of {args.times} kills, about {left} left", flush=True)
            if not found:
                shutil.rmtree(place.folder / f"sweep{sweep}")
        if len(kills) >= args.times:
            break
    place.leave(wrong)
    return {
        "variant": "" if args.signal == "KILL" else f"_{args.signal}",
        "signal": f"SIG{args.signal}",
        "seed": args.seed,
        "times": len(kills),
        "sweeps": finished,
        "rows": rows,
        "by_place": dict(collections.Counter(one["where"] for one in kills).most_common()),
        "inside_writes": sum(one["moment"] != "random moment" for one in kills),
        "differences": wrong,
        "seconds": time.monotonic() - began,
        "seconds_whole": seconds,
        "kills": kills,
    }


def killed(place: drive.Place, sweep: int, blows: Iterator, most: int) -> list[dict[str, Any]]:
    """Trains a sweep to its end; returns the kills that it went through, `most` at most."""
    kills: list[dict[str, Any]] = []
    while True:
        blow, after = next(blows) if len(kills) < min(PER_SWEEP, most) else (Blow(), None)
        ended = place.start(f"sweep{sweep}", blow, after)
        ended.refuse()
        if not ended.struck:
            return kills
        moment = "random moment" if blow.when == "entered" else blow.when
        kills.append({"sweep": sweep, "where": ended.where, "moment": moment, "seconds": ended.seconds})
        print(f"after {ended.seconds:4.1f} s in {ended.where} ({moment})", flush=True)


def page(found: Record) -> str:
    """The outcome as Markdown."""
    outcome = "; ".join(found["differences"]) or (
        f"all {found['sweeps']} sweeps ended with the {found['rows']:,} rows and all parameters of an uninterrupted "
        "one, bit for bit; no row twice, none missing"
    )
    return (
        f"{found['times']} times {found.get('signal', 'SIGKILL')}, in {duration(found['seconds'])}; {found['inside_writes']} of them inside a "
        "write (half of its bytes on disk; all of them, not yet renamed; renamed, not yet said to be whole). Outcome: "
        f"{outcome}.\n\n{table(['struck in', 'kills'], list(found['by_place'].items()))}"
    )


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("faults.kills", __doc__)
    parser.add_argument("--times", type=command.positive(int), default=50, help="how often (default: 50)")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL", help="which signal (default: KILL)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--folder", type=Path, help="where the sweeps go and stay; by default a temporary one")
    found = command.run(parser, kill, page, argv)
    sys.exit(bool(found["differences"]))


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
