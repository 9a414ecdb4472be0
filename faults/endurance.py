"""Whether memory stays flat while a process trains one run after another: its resident memory, by the hour.

    python -m faults.endurance --minutes=30

One process trains many short runs, all of which save snapshots and have their final keys found, with frequent
checkpoints, until the time is up and SIGTERM stops it. Its memory is sampled from outside. What it takes to begin with
(programs, pools of memory) is left out: the first third of the time. What it holds for a moment (a part of the metrics
until that is full, runs whose keys are found) is passed over, since of each block of samples one of the least counts.
Exits with 1 if the memory grows by more than the samples can tell from nothing.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from benchmarks import command
from benchmarks.command import ROOT, Record
from benchmarks.timing import Say
from grokjax.cli import terminal
from grokjax.errors import InputError
from grokjax.store.metrics import read_progress
from grokjax.training.progress import duration

EVERY_SECONDS = 2.0  # between samples
BLOCKS = 10  # of the samples
LEAST = 0.1  # the quantile of each block that counts
WARM = 1 / 3  # of the time, left out
MOST_RUNS = 600  # that a machine ends in a minute


def resident(pid: int) -> float:
    """A process's resident memory in MiB; 0 once it has ended."""
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return int(told or 0) / 1024


def sampled(process: subprocess.Popen, seconds: float, say: Say) -> list[tuple[float, float]]:
    """Seconds since now and MiB, until the time is up."""
    began, samples = time.monotonic(), list[tuple[float, float]]()
    while (now := time.monotonic() - began) < seconds and process.poll() is None:
        samples.append((now, resident(process.pid)))
        say(f"{samples[-1][1]:.1f} MiB, {duration(seconds - now)} left")
        time.sleep(EVERY_SECONDS)
    return samples


def floor(samples: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean time and a low quantile of each block of samples (seconds, MiB), in order, without the warm part."""
    times, mib = np.array(samples).T
    warm = times >= WARM * times[-1]
    blocks = zip(np.array_split(times[warm], BLOCKS), np.array_split(mib[warm], BLOCKS), strict=True)
    return [(float(np.mean(seconds)), float(np.quantile(some, LEAST))) for seconds, some in blocks]


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The slope of (seconds, MiB) in MiB per hour by Theil and Sen, and its 95 % interval."""
    seconds, mib = np.array(points).T
    found = stats.theilslopes(mib, seconds / 3600, 0.95)
    return float(found.slope), float(found.low_slope), float(found.high_slope)


def endure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Trains for some minutes; returns figures for the record."""
    folder = Path(tempfile.mkdtemp(prefix="grokjax-faults-"))
    n_runs = int(MOST_RUNS * (args.minutes + 1))
    launch = [sys.executable, "-m", "grokjax", "train", "--config=faults/endurance_experiment.py"]
    launch += [f"--workdir={folder / 'sweep'}", f"--config.sweep.seed=range({n_runs})"]
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(launch, cwd=ROOT, env=os.environ | {"TERM": "dumb"}, stdout=out, stderr=out)
        try:
            samples = sampled(process, 60 * args.minutes, say)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(600)
    if status != 128 + signal.SIGTERM:
        last = "\n".join(log.read_text().splitlines()[-15:])
        raise InputError(f"the sweep ended with status {status}; {log} ends with:\n{last}")
    ended = int((read_progress(folder / "sweep")["status"] == "finished").sum())
    shutil.rmtree(folder)
    blocks = floor(samples)
    per_hour, low, high = slope(blocks)
    return {
        "minutes": args.minutes,
        "runs_ended": ended,
        "runs_per_minute": ended / args.minutes,
        "mib": samples[-1][1],
        "mib_per_hour": per_hour,
        "interval": [low, high],
        "floor": [[round(t), round(mib, 2)] for t, mib in blocks],
    }


def page(found: Record) -> str:
    """The outcome as Markdown."""
    low, high = found["interval"]
    return (
        f"{found['runs_ended']:,} runs ended in {found['minutes']:g} min, {found['runs_per_minute']:.0f} a minute; "
        f"resident memory at the end {found['mib']:.0f} MiB. It grew by {found['mib_per_hour']:.1f} MiB an hour (95 % "
        f"interval {low:.1f} to {high:.1f}; the slope by Theil and Sen over the last two thirds of the time, of the "
        f"{LEAST:.0%} quantiles of {BLOCKS} blocks)."
    )


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("faults.endurance", __doc__)
    parser.add_argument("--minutes", type=command.positive(float), default=30.0, help="how long (default: 30)")
    found = command.run(parser, endure, page, argv)
    sys.exit(found["interval"][0] > 0)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
