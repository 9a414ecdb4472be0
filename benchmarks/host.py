"""What the host costs: writing, the transfer of evaluations, display and snapshots beside the bare compiled segments.

    python -m benchmarks.host                 # the share of wall time in which the device waits, at P = 113
    python -m benchmarks.host --trace=DIR     # instead, a jax.profiler trace of a few seconds of a sweep

A sweep of the mainline is trained as launch.py does, live display included, and the same segments are dispatched with
no host around them, in turn. The device waits while no dispatch is in flight. On a CPU the host also takes processor
time from the device: the main thread's is counted too. The trace is for Perfetto (https://ui.perfetto.dev, file
perfetto_trace.json.gz) or XProf.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from rich.console import Console

from benchmarks import command, mainline, timing
from benchmarks.command import Record
from benchmarks.markdown import percent, ranged, table
from benchmarks.timing import Say
from grokjax import config
from grokjax.api import requests
from grokjax.cli import terminal
from grokjax.core import devices
from grokjax.store import checkpoints
from grokjax.training import layouts, population
from grokjax.training.population import Population
from grokjax.training.request import Request

CPU_RUNS, ACCELERATOR_RUNS = 2, 25
LEAST_SEGMENTS = 2
SECONDS = 25.0  # that a sweep should train
EVAL_EVERY = config.FIELDS["eval_every"].default
CHECKPOINT_MINUTES = config.FIELDS["checkpoint_every_minutes"].default


@dataclasses.dataclass
class Dispatch:
    """Work for the device.

    Attributes:
      sent: when it was in flight, by time.perf_counter.
      host_s: processor seconds of the host's main thread until it was sent.
      done: when its results were there.
    """

    sent: float
    host_s: float
    done: float = 0.0

    def watch(self, outputs) -> None:
        """Waits for the results."""
        jax.block_until_ready(outputs)
        self.done = time.perf_counter()


class Flight:
    """The dispatches of whatever trains while `recording` is entered."""

    def __init__(self):
        self.dispatches: list[Dispatch] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Every population's dispatches are recorded until this is left; they are done by then."""
        advance = Population.advance

        def recorded(population, *args, **options):
            outputs = advance(population, *args, **options)
            self.dispatches.append(Dispatch(time.perf_counter(), time.thread_time()))
            watcher.submit(self.dispatches[-1].watch, outputs)
            return outputs

        # One thread is enough, since dispatches end in the order they were sent.
        with concurrent.futures.ThreadPoolExecutor(1) as watcher, mock.patch.object(Population, "advance", recorded):
            yield

    @property
    def wall_s(self) -> float:
        """From the end of the first dispatch, which compiles and evaluates untrained runs, to the end of the last."""
        return self.dispatches[-1].done - self.dispatches[0].done

    @property
    def idle_s(self) -> float:
        """Of that, seconds with no dispatch in flight."""
        return idle([(dispatch.sent, dispatch.done) for dispatch in self.dispatches])

    @property
    def host_share(self) -> float:
        """Processor time of the host's main thread per wall time, between the second and the last dispatch."""
        first, last = self.dispatches[1], self.dispatches[-1]
        return (last.host_s - first.host_s) / max(last.sent - first.sent, 1e-9)


def idle(intervals: Sequence[tuple[float, float]]) -> float:
    """Seconds between the end of the first interval and the end of the last that no interval covers."""
    reached, total = intervals[0][1], 0.0
    for sent, done in intervals[1:]:
        total += max(0.0, sent - reached)
        reached = max(reached, done)
    return total


def train_sweep(n_runs: int, n_segments: int) -> Flight:
    """Trains the mainline with so many seeds as launch.py does; returns its dispatches."""
    c, flight = mainline.configured(n_runs, steps=n_segments * EVAL_EVERY), Flight()
    display = Console(file=io.StringIO(), force_terminal=True, width=120)
    with tempfile.TemporaryDirectory(prefix="grokjax_host_") as folder, flight.recording():
        requests.train(Request(c, Path(folder) / "sweep", console=display))
    return flight


class Bare:
    """The compiled segments of the same sweep with no host around them."""

    def __init__(self, n_runs: int):
        problem, runs = mainline.mainline(n_runs)
        layout = layouts.choose(problem, n_runs)
        self.slots = range(min(layout.width, n_runs))
        self.population = Population(problem, layout)
        self.population.start({i: runs[i].inputs() for i in self.slots})
        self.seconds(1)

    def seconds(self, n_segments: int) -> float:
        """Wall time of segments that end in evaluations."""
        jax.block_until_ready(self.population.state)
        start = time.perf_counter()
        while n_segments:
            n = min(n_segments, population.MAX_SEGMENTS)
            row = self.population.advance(self.slots, n, EVAL_EVERY)
            n_segments -= n
        jax.block_until_ready(row)
        return time.perf_counter() - start

    def checkpoint_s(self) -> float:
        """Wall time of one checkpoint of every slot."""
        with tempfile.TemporaryDirectory(prefix="grokjax_host_") as folder:
            start = time.perf_counter()
            checkpoints.save(Path(folder) / "checkpoints", self.population.take(self.slots), {})
            return time.perf_counter() - start


def measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """A sweep and its bare segments in turn, after a first time that compiles; or a trace of a sweep."""
    devices.spread(CPU_RUNS)
    n_runs = CPU_RUNS if jax.default_backend() == "cpu" else ACCELERATOR_RUNS
    say(f"about {(2 * args.rounds * SECONDS + 100) / 60:.0f} minutes, more where a segment takes over {SECONDS:g} s")
    bare = Bare(n_runs)
    n_runs = len(bare.slots)
    if args.trace:
        with jax.profiler.trace(str(args.trace), create_perfetto_trace=True):
            train_sweep(n_runs, LEAST_SEGMENTS)
        print(f"trace in {args.trace}: open its perfetto_trace.json.gz at https://ui.perfetto.dev")
        sys.exit()
    n_segments = max(LEAST_SEGMENTS, round(SECONDS / bare.seconds(1)))
    train_sweep(n_runs, LEAST_SEGMENTS)
    rows = []
    for i in range(args.rounds):
        say(f"round {i + 1} of {args.rounds}: {n_runs} runs of {n_segments * EVAL_EVERY} steps, twice")
        flight, bare_s = train_sweep(n_runs, n_segments), bare.seconds(n_segments)
        wall_s = flight.wall_s
        rows.append((wall_s, flight.idle_s / wall_s, flight.host_share, wall_s / bare_s - 1, bare.checkpoint_s()))
    names = ("wall_s", "idle_share", "main_thread_share", "over_bare", "checkpoint_s")
    spreads = {name: timing.spread(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    problem = bare.population.problem
    return {"n_runs": n_runs, "p": problem.model.p, "n_steps": n_segments * EVAL_EVERY, **spreads}


def page(record: Record) -> str:
    """The figures as Markdown."""
    rows = [
        ("wall time of training", ranged(record["wall_s"], unit=" s")),
        ("of that, no dispatch in flight", shares(record["idle_share"])),
        ("processor time of the host's main thread, per wall time", shares(record["main_thread_share"])),
        ("wall time above that of the bare segments", shares(record["over_bare"])),
        (f"one checkpoint (every {CHECKPOINT_MINUTES:g} minutes)", ranged(record["checkpoint_s"], unit=" s")),
    ]
    return (
        f"{record['n_runs']} runs of {record['n_steps']:,} steps at P = {record['p']}, evaluated every {EVAL_EVERY} "
        f"steps, written and displayed as launch.py does:\n\n{table(['', 'median (min – max)'], rows, numbers=1)}\n"
    )


def shares(figure: dict[str, Any]) -> str:
    """A spread of shares as text."""
    return f"{percent(figure['median'])} ({percent(figure['min'])} – {percent(figure['max'])})"


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("benchmarks.host", __doc__)
    command.rounds(parser, 3)
    parser.add_argument("--trace", type=Path, metavar="DIR", help="write a jax.profiler trace there instead")
    command.run(parser, measure, page, argv)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
