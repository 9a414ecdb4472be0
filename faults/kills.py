"""A sweep killed again and again, each time resumed, and held against one that was never interrupted.

    python -m faults.kills --times=50
    python -m faults.kills --times=10 --signal=TERM    # as clusters and clouds stop it, which saves
    python -m faults.kills --times=20 --extend         # while a finished sweep is extended by seeds, an axis and steps

The signal falls at random moments and, so that these are not left to chance, inside writes: while half of a Parquet
file or of a checkpoint is on disk, between its last byte and its rename, and between the rename and what follows it. A
sweep that finishes is compared, bit for bit, and the next one begins. Exits with 1 if anything differs.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.command import ROOT, Record
from benchmarks.markdown import table
from benchmarks.timing import Say
from faults import comparison, crash
from faults.crash import Blow
from grokjax.cli import terminal
from grokjax.errors import InputError
from grokjax.store.metrics import read_metrics
from grokjax.training.progress import duration

LIMIT_SECONDS = 600.0  # for one start
PER_SWEEP = 8  # kills at most, after which a sweep is let finish
WRITES = (crash.PARQUET, crash.CHECKPOINT, crash.SNAPSHOT)
KINDS = (
    *(None, crash.PARQUET, crash.CHECKPOINT, crash.SNAPSHOT, None),
    *(crash.SETTLE, crash.CHECKPOINT, crash.PARQUET, crash.REPORT, crash.REPAIR),
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
      status: its exit status; negative for a signal.
      stages: it was in, if it was struck.
      seconds: it ran.
      log: what it printed.
    """

    status: int
    stages: list[str]
    seconds: float
    log: Path

    @property
    def struck(self) -> bool:
        """Whether a signal ended it."""
        return self.status in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)

    @property
    def where(self) -> str:
        """The stage it was in, in words."""
        inner = self.stages[-1]
        return f"{inner} while settling" if crash.SETTLE in self.stages[:-1] else inner

    def refuse(self) -> None:
        """Raises InputError if it neither finished nor was struck."""
        if self.status and not self.struck:
            last = "\n".join(self.log.read_text().splitlines()[-15:])
            raise InputError(f"a start ended with status {self.status}; {self.log} ends with:\n{last}")


SMALLER = ("--config.sweep.seed=0,", "--config.steps=1000")  # before it is extended


class Place:
    """A temporary folder for sweeps, with programs compiled by one start kept for the next.

    Args:
      extend: whether each sweep goes on from a smaller one that has ended, which is not struck.
    """

    def __init__(self, extend: bool = False):
        self.extend = extend
        self.folder = Path(tempfile.mkdtemp(prefix="grokjax-faults-"))
        self.environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "programs"), "TERM": "dumb"}
        self.environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}

    def start(self, name: str, blow: Blow, kill_after: float | None = None) -> Ended:
        """Starts a sweep, or goes on with it, until it ends.

        Args:
          name: of the sweep's folder.
          blow: that the process sends to itself.
          kill_after: seconds after which the blow's signal comes from outside.
        """
        state, log = self.folder / "state", self.folder / f"{name}.log"
        launch = [sys.executable, "-m", "faults.crash", json.dumps(dataclasses.asdict(blow)), str(state)]
        launch += ["--config=faults/experiment.py", f"--workdir={self.folder / name}"]
        launch += self._extending(name)
        state.write_text(json.dumps([crash.START]))
        began, before = time.monotonic(), None
        with log.open("a") as out:
            process = subprocess.Popen(launch, cwd=ROOT, env=self.environment, stdout=out, stderr=out)
            try:
                process.wait(LIMIT_SECONDS if kill_after is None else kill_after)
            except subprocess.TimeoutExpired:
                before = json.loads(state.read_bytes())  # a process that ends by itself leaves its stages
                process.send_signal(signal.SIGKILL if kill_after is None else blow.number)
                process.wait(LIMIT_SECONDS)
                if kill_after is None:
                    raise
        stages = before or json.loads(state.read_bytes())
        return Ended(process.returncode, stages, time.monotonic() - began, log)

    def _extending(self, name: str) -> list[str]:
        """The flags that extend a sweep, which is there then; those of the smaller one for that itself."""
        kept = "--config.keep_final_state=1"
        if not self.extend:
            return []
        if name == "smaller":
            return [kept, *SMALLER]
        if not (self.folder / name).exists():
            if not (self.folder / "smaller").exists():
                self.start("smaller", Blow()).refuse()
            shutil.copytree(self.folder / "smaller", self.folder / name)
        return [kept, "--config.sweep.beta2=0.98,0.99", "--extend"]

    def whole(self) -> float:
        """Trains an uninterrupted sweep, `whole`; returns the seconds it took once its programs were compiled.

        Raises:
          InputError: two such sweeps differ.
        """
        for name in ("first", "whole"):
            ended = self.start(name, Blow())
            ended.refuse()
        wrong = self.differences("first")
        if wrong:
            raise InputError(f"two uninterrupted sweeps differ here, so nothing can be compared: {wrong[0]}.")
        return ended.seconds

    def differences(self, name: str) -> list[str]:
        """What differs between a sweep and the whole one, in words."""
        return comparison.differences(self.folder / name, self.folder / "whole")

    def leave(self, wrong: Sequence[str]) -> None:
        """Removes the folder, unless something is wrong with what it holds."""
        if wrong:
            print(f"what was compared lies in {self.folder}")
        else:
            shutil.rmtree(self.folder)


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
    place, began = Place(args.extend), time.monotonic()
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
        "variant": ("" if args.signal == "KILL" else f"_{args.signal}") + "_extend" * args.extend,
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


def killed(place: Place, sweep: int, blows: Iterator, most: int) -> list[dict[str, Any]]:
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
        f"{found['times']} times {found.get('signal', 'SIGKILL')}, in {duration(found['seconds'])}; "
        f"{found['inside_writes']} of them inside a write (half of its bytes on "
        f"disk; all of them, not yet renamed; renamed, not yet said to be whole). Outcome: {outcome}.\n\n"
        f"{table(['struck in', 'kills'], list(found['by_place'].items()))}"
    )


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("faults.kills", __doc__)
    parser.add_argument("--times", type=command.positive(int), default=50, help="how often (default: 50)")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL", help="which signal (default: KILL)")
    parser.add_argument("--extend", action="store_true", help="strike sweeps that are being extended")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    found = command.run(parser, kill, page, argv)
    sys.exit(bool(found["differences"]))


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
