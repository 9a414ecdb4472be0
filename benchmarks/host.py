"""What the host costs: writing, the transfer of evaluations, display and snapshots beside the bare compiled segments.

    python -m benchmarks.host                 # the share of wall time in which the device waits, at P = 113
    python -m benchmarks.host --trace=DIR     # instead, a jax.profiler trace of a few seconds of a sweep

A sweep of the mainline is trained as launch.py does, live display included, and the same segments are dispatched with
no host around them, in turn. The device waits while no dispatch is in flight. On a CPU the host also takes processor
time from the device: the main thread's is counted too. The trace is for Perfetto (https://ui.perfetto.dev, file
perfetto_trace.json.gz) or XProf.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks import command, mainline, timing
from benchmarks.command import Record, percent
from benchmarks.flight import Flight
from grokjax import config
from grokjax.core import devices
from grokjax.core.problem import Problem
from grokjax.store import checkpoints
from grokjax.sweeps import Run
from grokjax.training import layouts, population, sweep
from grokjax.training.population import Population

TARGET = 0.02  # of wall time, at most
CPU_RUNS, ACCELERATOR_RUNS = 2, 25
LEAST_SEGMENTS = 2
EVAL_EVERY = config.FIELDS["eval_every"].default
CHECKPOINT_MINUTES = config.FIELDS["checkpoint_every_minutes"].default


def train_sweep(n_runs: int, n_steps: int, fields: dict[str, Any]) -> Flight:
    """Trains the mainline with so many seeds as launch.py does; returns its dispatches."""
    c, flight = mainline.configured(n_runs, **fields, steps=n_steps), Flight()
    display = Console(file=io.StringIO(), force_terminal=True, width=120)
    with tempfile.TemporaryDirectory(prefix="grokjax_host_") as folder, flight.recording():
        sweep.run(c, None, Path(folder) / "sweep", console=display)
    return flight


class Bare:
    """The compiled segments of the same sweep with no host around them."""

    def __init__(self, n_runs: int, fields: dict[str, Any]):
        self.problem, runs = mainline.mainline(n_runs, **fields)
        shape = layouts.choose(self.problem, n_runs)
        self.runs: tuple[Run, ...] = runs[: shape.width]
        self.population = Population(self.problem, shape)
        self.population.start({i: run.inputs() for i, run in enumerate(self.runs)})
        self.seconds(1)

    def seconds(self, n_segments: int) -> float:
        """Wall time of segments that end in evaluations."""
        slots = range(len(self.runs))
        jax.block_until_ready(self.population.state)
        start = time.perf_counter()
        while n_segments:
            n = min(n_segments, population.MAX_SEGMENTS)
            row = self.population.advance(slots, n, self.problem.eval_every)
            n_segments -= n
        jax.block_until_ready(row)
        return time.perf_counter() - start

    def checkpoint_s(self) -> float:
        """Wall time of one checkpoint of every slot."""
        with tempfile.TemporaryDirectory(prefix="grokjax_host_") as folder:
            start = time.perf_counter()
            state = self.population.take(range(len(self.runs)))
            checkpoints.save(Path(folder) / "checkpoints", state, {})
            return time.perf_counter() - start


def measure(n_runs: int, seconds: float, rounds: int, say: timing.Say, **fields) -> dict[str, Any]:
    """A sweep and its bare segments in turn.

    Args:
      n_runs: side by side, as far as the device's slots go.
      seconds: that the training of a sweep should take.
      rounds: of both.
      say: shows what is going on.
      fields: of the config that differ from the mainline.
    """
    say("compiling")
    bare = Bare(n_runs, fields)
    n_runs = len(bare.runs)
    problem: Problem = bare.problem
    n_segments = max(LEAST_SEGMENTS, round(seconds / bare.seconds(1)))
    say("a first sweep, which compiles the rest")
    train_sweep(n_runs, LEAST_SEGMENTS * problem.eval_every, fields)
    walls, idles, hosts, overheads, saves = [], [], [], [], []
    for i in range(rounds):
        say(f"round {i + 1} of {rounds}: {n_runs} runs of {n_segments * problem.eval_every} steps, twice")
        flight = train_sweep(n_runs, n_segments * problem.eval_every, fields)
        bare_s = bare.seconds(n_segments)
        walls.append(flight.wall_s)
        idles.append(flight.idle_s / flight.wall_s)
        hosts.append(flight.host_share)
        overheads.append(flight.wall_s / bare_s - 1)
        saves.append(bare.checkpoint_s())
    return {
        "n_runs": n_runs,
        "p": problem.model.p,
        "n_steps": n_segments * problem.eval_every,
        "wall_s": timing.spread(walls),
        "idle_share": timing.spread(idles),
        "main_thread_share": timing.spread(hosts),
        "over_bare": timing.spread(overheads),
        "checkpoint_s": timing.spread(saves),
    }


def cost(record: Record) -> float:
    """The share of wall time that is judged: waiting, checkpoints at their cadence, and on a CPU the main thread's."""
    waiting = record["idle_share"]["median"] + record["checkpoint_s"]["median"] / (60 * CHECKPOINT_MINUTES)
    environment = record["machine"]
    if environment["platform"] != "cpu":
        return waiting
    return waiting + record["main_thread_share"]["median"] / environment["cpu_threads"]


def page(record: Record) -> str:
    """The figures as Markdown."""
    environment = record["machine"]
    rows = [
        ("wall time of training", f"{ranged_s(record['wall_s'])}"),
        ("of that, no dispatch in flight", shares(record["idle_share"])),
        ("processor time of the host's main thread, per wall time", shares(record["main_thread_share"])),
        ("wall time above that of the bare segments", shares(record["over_bare"])),
        (f"one checkpoint (every {CHECKPOINT_MINUTES:g} minutes)", ranged_s(record["checkpoint_s"])),
    ]
    table = "\n".join(["| | median (min – max) |", "| --- | --: |", *(f"| {name} | {text} |" for name, text in rows)])
    on_cpu = environment["platform"] == "cpu"
    counted = "waiting, checkpoints" + (", and the main thread's share of all processor time" if on_cpu else "")
    verdict = command.verdict(cost(record) < TARGET, record)
    return (
        f"{record['n_runs']} runs of {record['n_steps']:,} steps at P = {record['p']}, evaluated every "
        f"{EVAL_EVERY} steps, written and displayed as launch.py does:\n\n{table}\n\n"
        f"Target, under {percent(TARGET)} of wall time ({counted}): {verdict} ({percent(cost(record))}).\n"
    )


def shares(figure: dict[str, Any]) -> str:
    """A spread of shares as text."""
    return f"{percent(figure['median'])} ({percent(figure['min'])} – {percent(figure['max'])})"


def ranged_s(figure: dict[str, Any]) -> str:
    return timing.ranged(figure, unit=" s")


def trace(folder: Path, n_runs: int, **fields) -> None:
    """Writes a profiler trace of two segments of a sweep."""
    bare = Bare(n_runs, fields)  # so that the trace shows no compilation of segments
    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
        train_sweep(n_runs, LEAST_SEGMENTS * bare.problem.eval_every, fields)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = command.parser("host", __doc__, rounds=3)
    parser.add_argument(
        "--runs",
        type=command.positive(int),
        help=f"runs side by side (default: {CPU_RUNS} on a CPU, else {ACCELERATOR_RUNS})",
    )
    parser.add_argument(
        "--seconds", type=command.positive(float), default=25.0, help="that a sweep should train (default: 25)"
    )
    parser.add_argument("--trace", type=Path, metavar="DIR", help="write a jax.profiler trace there instead")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    command.enter(parse, _measure, argv)


def _measure(args: argparse.Namespace, argv: Sequence[str]) -> None:
    command.check(args)
    devices.spread(args.runs or CPU_RUNS)
    n_runs = args.runs or (CPU_RUNS if jax.default_backend() == "cpu" else ACCELERATOR_RUNS)
    if args.trace:
        with command.Progress() as progress:
            progress.say("tracing")
            trace(args.trace, n_runs)
            progress.announce(f"trace in {args.trace}: open its perfetto_trace.json.gz at https://ui.perfetto.dev")
        return
    minutes = f"about {(2 * args.rounds * args.seconds + 100) / 60:.0f} minutes"
    minutes += f", longer where a segment takes longer than {args.seconds:g} s"
    record = command.measured("host", argv, minutes, lambda say: measure(n_runs, args.seconds, args.rounds, say))
    command.conclude(record, page(record), args)


if __name__ == "__main__":
    main()
