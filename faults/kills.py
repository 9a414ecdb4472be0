"""A sweep killed again and again, each time resumed, and held against one that was never interrupted.

    python -m faults.kills --times=50

SIGKILL falls at random moments and, so that these are not left to chance, inside writes: while half of a Parquet file
or of a checkpoint is on disk, between its last byte and its rename, and between the rename and what follows it. A sweep
that finishes is compared, bit for bit, and the next one begins. Exits with 1 if anything differs.
"""

import collections
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from faults import crash, drive
from faults.crash import Blow
from grokjax.cli import terminal
from grokjax.store.metrics import read_metrics
from grokjax.training.progress import duration

PER_SWEEP = 8  # kills at most, after which a sweep is let finish


def plan(rng: random.Random, seconds: float) -> Iterator[tuple[Blow, float | None]]:
    """Blows, or seconds after which to kill from outside, without end.

    Args:
      rng: decides.
      seconds: that an uninterrupted sweep takes.
    """
    kinds = (None, crash.PARQUET, crash.CHECKPOINT, crash.SNAPSHOT, None, crash.SETTLE, crash.CHECKPOINT, crash.PARQUET)
    for kind in _without_end([*kinds, crash.REPORT, crash.REPAIR]):
        if kind is None:
            yield Blow(), rng.uniform(0, seconds)
        elif kind in (crash.PARQUET, crash.CHECKPOINT, crash.SNAPSHOT):
            yield Blow(kind, rng.randint(1, 6), rng.choice(["half", "written", "renamed"])), None
        else:
            n = rng.randint(1, 2) if kind == crash.SETTLE else 1
            yield Blow(kind, n, delay=rng.uniform(0, 0.05 if kind == crash.REPAIR else 1.0)), None


def _without_end(kinds: Sequence) -> Iterator:
    while True:
        yield from kinds


def kill(place: drive.Place, times: int, seed: int) -> dict[str, Any]:
    """Kills sweeps so many times.

    Returns:
      Figures for the record.
    """
    began = time.monotonic()
    print(f"training the sweep twice without a fault, then killing it: about {duration(40 + 12 * times)}", flush=True)
    whole, seconds = drive.whole(place)
    rng = random.Random(seed)
    blows = plan(rng, seconds)
    kills: list[dict[str, Any]] = []
    wrong: list[str] = []
    sweep, here, finished, taken = 0, 0, 0, []
    while len(kills) < times or here:
        resting = here >= PER_SWEEP or len(kills) >= times
        blow, after = (Blow(), None) if resting else next(blows)
        ended = place.start(f"sweep{sweep}", blow, after)
        ended.refuse()
        if ended.killed:
            here += 1
            taken.append(ended.seconds)
            kills.append({"sweep": sweep, "where": ended.where, "moment": _moment(blow), "seconds": ended.seconds})
            left = (times - len(kills)) * (time.monotonic() - began) / len(kills)
            said = f"{len(kills):3}/{times}  after {ended.seconds:4.1f} s in {ended.where} ({_moment(blow)})"
            print(f"{said}; sweep {sweep + 1}, about {duration(left)} left", flush=True)
            continue
        if here:  # a sweep that no blow struck tells nothing
            finished += 1
            found = drive.differences(place.folder / f"sweep{sweep}", whole)
            wrong += [f"sweep {sweep + 1}, killed {here} times: {text}" for text in found]
            print(f"         sweep {sweep + 1}, killed {here} times, {found[0] if found else 'equals the whole one'}")
            if not found:
                shutil.rmtree(place.folder / f"sweep{sweep}")
        sweep, here = sweep + 1, 0
    metrics = read_metrics(whole)
    return {
        "seed": seed,
        "times": len(kills),
        "sweeps": finished,
        "rows": len(metrics),
        "by_place": dict(collections.Counter(one["where"] for one in kills).most_common()),
        "inside_writes": sum(one["moment"] in ("half", "written", "renamed") for one in kills),
        "differences": wrong,
        "seconds": time.monotonic() - began,
        "seconds_whole": seconds,
        "kills": kills,
    }


def _moment(blow: Blow) -> str:
    return {"": "random moment", "entered": "random moment"}.get(blow.at and blow.when, blow.when)


def said(found: dict[str, Any]) -> str:
    """The outcome in lines."""
    places = ", ".join(f"{n} in {name}" for name, n in found["by_place"].items())
    typical = statistics.median(one["seconds"] for one in found["kills"])
    outcome = "; ".join(found["differences"]) or (
        f"all {found['sweeps']} sweeps have the {found['rows']:,} rows and all parameters of an uninterrupted one, "
        "bit for bit, no row twice, none missing"
    )
    return (
        f"{found['times']} kills, {found['inside_writes']} of them inside writes: {places}.\n"
        f"{outcome}.\nmedian start killed after {typical:.1f} s; {duration(found['seconds'])} in all"
    )


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="python -m faults.kills", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--times", type=int, default=50, help="kills (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--folder", type=Path, help="where the sweeps go and stay; by default a temporary one")
    parser.add_argument("--write", action="store_true", help="keep the figures and make docs/reliability.md anew")
    args = parser.parse_args(argv)
    folder = drive.working_folder(args.folder)
    found = kill(drive.Place(folder), args.times, args.seed)
    print(said(found))
    if args.write:
        from faults import report

        drive.keep(drive.record("kills", list(argv), found), drive.RECORDS / "kills.json")
        report.write()
    if found["differences"]:
        print(f"what was compared lies in {folder}")
        sys.exit(1)
    if args.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
