"""A whole sweep from the command line to its last Parquet part and figure, wall to wall, compilation included.

    python -m benchmarks.sweep                                       # experiments/wd_sweep.py:small
    python -m benchmarks.sweep --config=experiments/wd_sweep.py      # the full study

Runs launch.py in a process of its own, into a directory that is thrown away; --config.FIELD=VALUE is passed on.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import apart, command, machine, timing
from benchmarks.command import Record
from grokjax.cli import terminal
from grokjax.cli.train import split_overrides
from grokjax.store.metrics import read_metrics, read_runs
from grokjax.training import progress as progress_lib

ROOT = Path(__file__).parent.parent
SMALL = "experiments/wd_sweep.py:small"


def once(config: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Trains a sweep and returns its wall time, runs, run-steps, rows and bytes on disk.

    Args:
      config: the experiment, as launch.py takes it.
      overrides: --config.FIELD=VALUE flags.

    Raises:
      SystemExit: the sweep failed, with its exit status.
    """
    with tempfile.TemporaryDirectory(prefix="grokjax_sweep_") as folder:
        path = Path(folder) / "sweep"
        launch = [sys.executable, str(ROOT / "launch.py"), f"--config={config}", f"--workdir={path}", *overrides]
        start = time.perf_counter()
        # What it prints is progress here, so it goes to stderr. Nothing that was compiled before is used.
        environment = os.environ | apart.COLD
        status = subprocess.run(launch, cwd=ROOT, stdout=2, env=environment, check=False).returncode
        wall_s = time.perf_counter() - start
        if status:
            sys.exit(status)  # it has said why
        runs = read_runs(path)
        return {
            "wall_s": wall_s,
            "n_runs": len(runs),
            "run_steps": int(runs["last_step"].sum()),
            "rows": len(read_metrics(path, ["run", "step"])),
            "parquet_bytes": sum(file.stat().st_size for file in path.rglob("*.parquet")),
            "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        }


def measure(config: str, overrides: Sequence[str], rounds: int, say: timing.Say) -> dict[str, Any]:
    """`once`, several times: the last one's figures with the spread of wall times."""
    walls, found = [], {}
    for i in range(rounds):
        say(f"sweep {config}, {i + 1} of {rounds}")
        found = once(config, overrides)
        walls.append(found.pop("wall_s"))
    return {"config": " ".join([config, *overrides]), "wall_s": timing.spread(walls), **found}


def line(found: dict[str, Any]) -> str:
    """A sweep's figures as a table row."""
    wall = found["wall_s"]
    several = f" ({wall['min']:.0f} – {wall['max']:.0f} s)" if len(wall["rounds"]) > 1 else ""
    cells = [
        f"`{found['config']}`",
        str(found["n_runs"]),
        f"{found['run_steps']:,}",
        f"{progress_lib.duration(wall['median'])}{several}",
        timing.number(found["run_steps"] / wall["median"]),
        f"{found['rows']:,}",
        f"{found['parquet_bytes'] / 1e6:.1f}",
        f"{found['bytes'] / 1e6:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| sweep | runs | run-steps | wall time | run-steps/s | rows | Parquet, MB | all files, MB |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --: |"
)


def page(record: Record) -> str:
    """The figures as Markdown."""
    return f"{HEADER}\n{line(record['sweep'])}\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = command.parser("sweep", __doc__, rounds=1)
    parser.add_argument("--config", default=SMALL, help=f"the experiment (default: {SMALL})")
    args, rest = parser.parse_known_args(argv)
    overrides, strangers = split_overrides(rest)
    if strangers:
        parser.error(f"unrecognized arguments: {' '.join(strangers)}")
    terminal.guarded(_measure, args, argv, [f"--config.{path}={text}" for path, text in overrides.items()])


def _measure(args, argv: Sequence[str], overrides: Sequence[str]) -> None:
    command.check(args)
    progress = command.Progress()
    progress.announce(f"{args.rounds} × {args.config}: its own estimate follows once it has compiled")
    others = machine.Others()
    found = measure(args.config, overrides, args.rounds, progress.announce)
    variant = "_" + re.sub(r"\W+", "_", Path(args.config).name).strip("_")
    record = command.record("sweep", argv, others, variant=variant, sweep=found)
    command.conclude(record, page(record), args)


if __name__ == "__main__":
    main()
