"""How long the paper's measures of a run's checkpoints take, compilation and files included.

    python -m benchmarks.trajectory                     # 400 checkpoints of the mainline's shape, P = 113
    python -m benchmarks.trajectory --checkpoints=40

As `grokjax measure FOLDER --all` does it, on one device. The weights are drawn: what they are does not change the time.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks import command, mainline
from benchmarks.command import Record
from benchmarks.timing import Say
from grokjax.cli import terminal
from grokjax.core.problem import Problem
from grokjax.interp import files, trajectory, trajectory_table
from grokjax.sweeps import Run
from grokjax.training import one_run


def measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Seconds for a folder of checkpoints, and for the first of its batches, which compiles."""
    problem, runs = mainline.mainline(1)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), problem, runs[0], args.checkpoints)
        seconds = {}
        for n in (trajectory_table.WIDTH, args.checkpoints):
            some = trajectory.find(folder)
            some = some._replace(held=dict(list(some.held.items())[:n]))
            say(f"measuring {n} checkpoints")
            jax.clear_caches()
            start = time.perf_counter()
            trajectory_table.measure_all(some)
            seconds[n] = time.perf_counter() - start
    first, total = seconds.values()
    return {"p": problem.model.p, "n_checkpoints": args.checkpoints, "first_batch_s": first, "total_s": total}


def save(folder: Path, problem: Problem, run: Run, n: int) -> None:
    """Writes n checkpoints of one run as npz files; their weights differ in scale."""
    inputs = run.inputs()
    params = jax.device_get(one_run.init(problem, inputs).params)
    for step in range(n):
        scaled = {name: x * (1 + step / n) for name, x in params.items()}
        files.save_npz(scaled, problem.model, folder / f"step_{step}.npz", inputs.train_pairs)


def page(record: Record) -> str:
    """The figures as Markdown."""
    return (
        f"{record['n_checkpoints']} checkpoints at P = {record['p']}, the paper's measures: {record['total_s']:.0f} s; "
        f"the first {trajectory_table.WIDTH} alone, with compilation: {record['first_batch_s']:.0f} s.\n"
    )


def main(argv: list[str]) -> None:
    """Entry point."""
    parser = command.parser("benchmarks.trajectory", __doc__)
    parser.add_argument("--checkpoints", type=command.positive(int), default=400, help="how many (default: 400)")
    command.run(parser, measure, page, argv)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
