"""How long a sweep takes to end after SIGTERM, at every moment of its life, as clusters and clouds send it.

    python -m faults.stops --times=3

Each time one sweep is stopped in each of its stages and resumed, and in the end held against one that was never
interrupted. Clouds give 25 to 30 s before they kill. Exits with 1 if anything differs or takes longer.
"""

import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def stop(place: drive.Place, times: int, seed: int) -> dict[str, Any]:
    """Stops sweeps in all of their stages; returns figures for the record."""
    began = time.monotonic()
    whole, _ = drive.whole(place)
    rng = random.Random(seed)
    stops: list[dict[str, Any]] = []
    wrong: list[str] = []
    for number in range(times):
        name = f"stopped{number}"
        for stage, n, most in MOMENTS:
            if stage == crash.REPORT:  # the sweep has ended by then, so that only a lost report is written
                shutil.rmtree(place.folder / name / "report")
            ended = place.start(name, Blow(stage, n, delay=rng.uniform(0, most), number=signal.SIGTERM))
            if ended.status not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):
                ended.refuse()
            if ended.since_blow is None:
                continue
            stops.append({"where": stage, "seconds": ended.since_blow, "status": ended.status})
            print(f"{stage:14} {ended.since_blow:5.1f} s to the end, exit status {ended.status}", flush=True)
        place.start(name, Blow()).refuse()
        found = drive.differences(place.folder / name, whole)
        print(f"sweep {number + 1} of {times}: {found[0] if found else 'equals the whole one'}", flush=True)
        wrong += found
    return {"seed": seed, "sweeps": times, "stops": stops, "differences": wrong, "seconds": time.monotonic() - began}


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = terminal.Parser(prog="python -m faults.stops", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--times", type=int, default=3, help="sweeps, each stopped in every stage (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--folder", type=Path, help="where the sweeps go and stay; by default a temporary one")
    parser.add_argument("--write", action="store_true", help="keep the figures and make docs/reliability.md anew")
    args = parser.parse_args(argv)
    folder = drive.working_folder(args.folder)
    found = stop(drive.Place(folder), args.times, args.seed)
    if args.write:
        from faults import report

        drive.keep(drive.record("stops", list(argv), found), drive.RECORDS / "stops.json")
        report.write()
    if found["differences"] or max(one["seconds"] for one in found["stops"]) > LIMIT:
        sys.exit(1)
    if args.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
