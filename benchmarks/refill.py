"""What refilling slots saves on runs of unequal length: the sweep's scheduler against fixed batches.

    python -m benchmarks.refill

A small model (P = 23) whose runs train for one of four numbers of steps, in shuffled order, in lanes that train
together as on an accelerator. A fixed batch starts so many runs at once and ends with its longest; the scheduler gives
a slot to the next run when its own ends. Both are timed in turn on the same compiled program; the scheduler writes
Parquet and displays meanwhile, the batches do not.
"""

import argparse
import dataclasses
import io
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from benchmarks import command, timing
from benchmarks.command import Record, percent
from benchmarks.flight import Flight
from grokjax import config as config_lib
from grokjax import sweeps
from grokjax.core.problem import Shape
from grokjax.sweeps import Run
from grokjax.training import layouts, population, sweep
from grokjax.training.population import Population


@dataclasses.dataclass(frozen=True)
class Workload:
    """Runs of unequal length.

    Attributes:
      lengths: numbers of steps.
      seeds: runs of each length.
      slots: that train together.
      eval_every: steps between evaluations.
    """

    lengths: tuple[int, ...] = (100, 200, 400, 800)
    seeds: int = 6
    slots: int = 8
    eval_every: int = 50

    def config(self):
        """The model that all runs share."""
        c = config_lib.default()
        c.p, c.train_fraction, c.learning_rate = 23, 0.6, 5e-3
        c.model.d_model, c.model.n_heads, c.model.d_mlp = 32, 2, 128
        c.eval_every, c.snapshot_every = self.eval_every, max(self.lengths)
        c.measures = ()
        return c

    def overrides(self, _) -> list[dict[str, int]]:
        """Each run's length and seed, in an order that owes nothing to length."""
        runs = [{"steps": steps, "seed": seed} for steps in self.lengths for seed in range(self.seeds)]
        random.Random(0).shuffle(runs)
        return runs

    @property
    def shape(self) -> Shape:
        """All slots train together, on any machine."""
        return Shape(self.slots, self.slots, min(self.slots, 8), 1)


def refilled(workload: Workload) -> Flight:
    """Trains the workload with the sweep's scheduler; returns its dispatches."""
    flight, choose = Flight(), layouts.choose
    layouts.choose = lambda *args, **options: workload.shape
    try:
        with tempfile.TemporaryDirectory(prefix="grokjax_refill_") as folder, flight.recording():
            display = Console(file=io.StringIO(), force_terminal=True, width=120)
            sweep.run(workload.config(), workload.overrides, Path(folder) / "sweep", console=display)
    finally:
        layouts.choose = choose
    return flight


def in_batches(workload: Workload, runs: Sequence[Run]) -> float:
    """Trains the workload in fixed batches; returns the wall time."""
    trained = Population(runs[0].problem(), workload.shape)
    start = time.perf_counter()
    for batch in batches(runs, workload.slots):
        trained.start({i: run.inputs() for i, run in enumerate(batch)})
        n_segments = max(run.steps for run in batch) // workload.eval_every
        while n_segments:
            n = min(n_segments, population.MAX_SEGMENTS)
            row = trained.advance(range(len(batch)), n, workload.eval_every)
            n_segments -= n
    jax.block_until_ready(row)
    return time.perf_counter() - start


def batches(runs: Sequence[Run], slots: int) -> list[Sequence[Run]]:
    """The runs in order, so many at a time."""
    return [runs[i : i + slots] for i in range(0, len(runs), slots)]


def batch_idle(runs: Sequence[Run], slots: int) -> int:
    """Slot-steps in which a slot of a fixed batch waits for the longest run."""
    longest = sum(slots * max(run.steps for run in batch) for batch in batches(runs, slots))
    return longest - sum(run.steps for run in runs)


def measure(workload: Workload, rounds: int, say: timing.Say) -> dict[str, Any]:
    """Both ways in turn, after a first time that compiles."""
    runs = sweeps.expand(workload.config(), workload.overrides).runs
    say("compiling")
    in_batches(workload, runs)
    refilled(workload)
    refilled_s, batches_s = [], []
    for i in range(rounds):
        say(f"round {i + 1} of {rounds}")
        started = time.perf_counter()
        flight = refilled(workload)
        # From the first dispatch to the last: making the folder and the report is no part of training.
        refilled_s.append(flight.dispatches[-1].done - flight.dispatches[0].sent)
        say(f"round {i + 1} of {rounds}, batches (a sweep took {time.perf_counter() - started:.0f} s)")
        batches_s.append(in_batches(workload, runs))
    saved = [1 - one / other for one, other in zip(refilled_s, batches_s, strict=True)]
    return {
        "workload": dataclasses.asdict(workload),
        "n_runs": len(runs),
        "run_steps": sum(run.steps for run in runs),
        "refilled_s": timing.spread(refilled_s),
        "batches_s": timing.spread(batches_s),
        "saved": timing.spread(saved),
        "refilled_idle": flight.idle_slot_steps,
        "batches_idle": batch_idle(runs, workload.slots),
    }


def page(record: Record) -> str:
    """The figures as Markdown."""
    workload, saved = record["workload"], record["saved"]
    lengths = ", ".join(map(str, workload["lengths"]))
    rows = [
        "| | seconds | idle slot-steps |",
        "| --- | --: | --: |",
        f"| slots refilled by the scheduler | {timing.ranged(record['refilled_s'])} | {record['refilled_idle']:,} |",
        f"| fixed batches | {timing.ranged(record['batches_s'])} | {record['batches_idle']:,} |",
    ]
    saved_steps = record["batches_idle"] - record["refilled_idle"]
    share_of_steps = percent(saved_steps / (record["run_steps"] + record["batches_idle"]))
    return (
        f"{record['n_runs']} runs of a small model, {record['run_steps']:,} run-steps in all, of {lengths} steps in "
        f"shuffled order on {workload['slots']} slots that train together:\n\n" + "\n".join(rows) + "\n\n"
        f"Refilling saves {percent(saved['median'])} ({percent(saved['min'])} – {percent(saved['max'])}) of the time, "
        f"and {share_of_steps} of the slot-steps, of fixed batches.\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    command.enter(command.parser("refill", __doc__, rounds=3).parse_args, _measure, argv)


def _measure(args: argparse.Namespace, argv: Sequence[str]) -> None:
    command.check(args)
    minutes = f"about {(args.rounds + 1) * 0.6:.0f} minutes on two cores"
    record = command.measured("refill", argv, minutes, lambda say: measure(Workload(), args.rounds, say))
    command.conclude(record, page(record), args)


if __name__ == "__main__":
    main()
