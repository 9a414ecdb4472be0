"""A whole sweep from the command line to its last Parquet part and figure, wall to wall, compilation included.

    python -m benchmarks.sweep                                       # experiments/wd_sweep.py:small
    python -m benchmarks.sweep --config=experiments/wd_sweep.py      # the full study

Runs launch.py in a process of its own, into a directory that is thrown away.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import apart, command, timing
from benchmarks.command import ROOT, Record
from benchmarks.markdown import number, table
from benchmarks.timing import Say
from grokjax.cli import terminal
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.training import progress

SMALL = "experiments/wd_sweep.py:small"


def measure(config: str, say: Say) -> dict[str, Any]:
    """Trains a sweep; returns its wall time, runs, run-steps, rows and bytes on disk.

    Args:
      config: the experiment, as launch.py takes it.
      say: shows what is going on.

    Raises:
      SystemExit: the sweep failed, with its exit status.
    """
    say(f"sweep {config}: its own estimate follows once it has compiled")
    with tempfile.TemporaryDirectory(prefix="grokjax_sweep_") as folder:
        path = Path(folder) / "sweep"
        launch = [sys.executable, str(ROOT / "launch.py"), f"--config={config}", f"--workdir={path}"]
        start = time.perf_counter()
        # What it prints is progress here, so it goes to stderr. Nothing that was compiled before is used.
        status = subprocess.run(launch, cwd=ROOT, stdout=2, env=os.environ | apart.COLD, check=False).returncode
        wall_s = time.perf_counter() - start
        if status:
            sys.exit(status)  # it has said why
        runs = read_runs(path)
        return {
            "config": config,
            "wall_s": timing.spread([wall_s]),
            "n_runs": len(runs),
            "run_steps": int(runs["last_step"].sum()),
            "rows": len(read_metrics(path, ["run", "step"])),
            "parquet_bytes": sum(file.stat().st_size for file in path.rglob("*.parquet")),
            "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        }


HEADER = ["sweep", "runs", "run-steps", "wall time", "run-steps/s", "rows", "Parquet, MB", "all files, MB"]


def page(record: Record) -> str:
    """The figures as Markdown."""
    found, wall_s = record["sweep"], record["sweep"]["wall_s"]["median"]
    cells = [
        f"`{found['config']}`",
        found["n_runs"],
        f"{found['run_steps']:,}",
        progress.duration(wall_s),
        number(found["run_steps"] / wall_s),
        f"{found['rows']:,}",
        f"{found['parquet_bytes'] / 1e6:.1f}",
        f"{found['bytes'] / 1e6:.1f}",
    ]
    return table(HEADER, [cells], numbers=7) + "\n"


def _measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    variant = "_" + re.sub(r"\W+", "_", Path(args.config).name).strip("_")
    return {"variant": variant, "sweep": measure(args.config, say)}


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("benchmarks.sweep", __doc__)
    parser.add_argument("--config", default=SMALL, help=f"the experiment (default: {SMALL})")
    command.run(parser, _measure, page, argv)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
