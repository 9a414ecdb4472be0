"""A long sweep of small runs with refilled slots: does memory, the number of files or the time per step grow?

    python -m faults.endurance --minutes 30
    python -m faults.endurance --minutes 30 --write     # and files them, for docs/reliability.md

The sweep is stopped when the time is over; what it did is read from samples taken every two seconds. Speed is counted
per second of this process's own processor time, so that other programs disturb it little.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.command import Record
from benchmarks.timing import Say
from faults.experiment import small
from grokjax.api import requests
from grokjax.cli import terminal
from grokjax.store import metrics
from grokjax.store.metrics import read_part, read_runs
from grokjax.training.request import Request, StopRequest

SAMPLE_SECONDS = 2.0
WARM_UP = 0.2  # of the time, in which caches fill and which does not count for the slope
MOST_RUNS = 50_000


class Limit(StopRequest):
    """Stops the sweep when its time is over, and takes samples until then."""

    def __init__(self, minutes: float, folder: Path):
        super().__init__()
        self.began, self.seconds, self.folder = time.monotonic(), 60 * minutes, folder
        self.samples: list[tuple[float, ...]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __call__(self) -> bool:
        return time.monotonic() - self.began > self.seconds

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.samples.append(sample(self.began, self.folder))

    def close(self) -> None:
        """Ends the samples."""
        self._done.set()
        self._thread.join()


def sample(began: float, folder: Path) -> tuple[float, ...]:
    """Seconds, processor seconds, resident bytes, open files, part files, bytes of parts, steps in runs that ended."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    parts = metrics.parts(folder / "metrics")
    return (
        time.monotonic() - began,
        time.process_time(),
        pages * resource.getpagesize(),
        len(os.listdir("/proc/self/fd")),
        len(parts),
        sum(part.stat().st_size for part in parts),
        _steps(folder / "runs.parquet"),
    )


def _steps(path: Path) -> float:
    """Run-steps done, as the table of runs tells it; it is rewritten every 20 seconds."""
    return float(read_part(path, ["last_step"]).to_pandas()["last_step"].sum()) if path.exists() else 0.0


def small_runs() -> tuple[Any, Any]:
    """Many small runs of different lengths, with the paper's measures and final keys."""
    c = small()
    c.slots = 4
    c.eval_every = c.slow_every = 100
    c.snapshot_every = 100_000
    c.checkpoint_every_minutes = 1.0

    def get_sweep(_):
        lengths = (1_000, 2_000, 3_000)
        return [{"seed": i, "steps": lengths[i % 3], "weight_decay": float(i % 2)} for i in range(MOST_RUNS)]

    return c, get_sweep


def figures(samples: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """What the samples say."""
    seconds, cpu, memory, files, parts, size, steps = np.array(samples).T
    late = seconds > seconds[0] + WARM_UP * (seconds[-1] - seconds[0])
    hours, mib = seconds[late] / 3600, memory[late] / 2**20
    (slope, _), covariance = np.polyfit(hours, mib, 1, cov=True)
    changes = np.flatnonzero(np.diff(steps) > 0) + 1  # samples at which the table of runs was new
    rates = np.diff(steps[changes]) / np.diff(cpu[changes])
    tenth = max(1, len(rates) // 10)
    return {
        "minutes": float(seconds[-1] / 60),
        "run_steps": float(steps[-1]),
        "memory_mib": [float(mib[0]), float(np.median(mib)), float(mib[-1])],
        "slope_mib_per_hour": [float(slope), float(2 * np.sqrt(covariance[0, 0]))],
        "open_files": [int(files[late].min()), int(files.max())],
        "parts": int(parts[-1]),
        "part_mb": float(size[-1] / 1e6),
        "rate_first_tenth": float(np.median(rates[:tenth])),
        "rate_last_tenth": float(np.median(rates[-tenth:])),
    }


def page(found: Record) -> str:
    """The figures as Markdown."""
    slope, error = found["slope_mib_per_hour"]
    ratio = found["rate_last_tenth"] / found["rate_first_tenth"]
    return (
        f"{found['minutes']:.0f} minutes, {found['run_steps']:,.0f} run-steps in {found['runs']:,} runs that ended.\n\n"
        f"* memory: {found['memory_mib'][1]:.0f} MiB resident in the median; its slope after the first "
        f"{WARM_UP:.0%} of the time is {slope:+.1f} ± {error:.1f} MiB per hour, "
        f"{slope * found['minutes'] / 60 * 1024 / found['runs']:.0f} KiB per run that ended\n"
        f"* files: {found['open_files'][0]} to {found['open_files'][1]} open; {found['parts']} parts of metrics with "
        f"{found['part_mb']:.1f} MB\n"
        f"* speed: the last tenth did {ratio:.3f} times the run-steps per processor second of the first"
    )


def measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Runs the sweep for so long."""
    c, get_sweep = small_runs()
    with tempfile.TemporaryDirectory() as folder:
        limit = Limit(args.minutes, Path(folder) / "sweep")
        try:
            status = requests.train(Request(c, Path(folder) / "sweep", get_sweep, stop=limit))
        finally:
            limit.close()
        runs = read_runs(Path(folder) / "sweep")
    return figures(limit.samples) | {"status": status, "runs": int((runs["status"] == "finished").sum())}


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("faults.endurance", __doc__)
    parser.add_argument("--minutes", type=command.positive(float), default=30.0, help="how long (default: 30)")
    command.run(parser, measure, page, argv)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
