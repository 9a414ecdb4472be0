"""Ways to lay a population out on a CPU, and pieces of its gradient, side by side: which are kept, and why.

    python -m benchmarks.layouts

Four runs of the mainline at P = 113 train in each layout in turn, in C++ (grokjax.native) and by XLA. "Plain" leaves
out one of the forms that XLA's gradient has for CPUs (grokjax.model).
"""

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax

from benchmarks import command, mainline, timing
from benchmarks.command import Record
from benchmarks.timing import Contestant, ranged
from grokjax.core import devices as devices_lib
from grokjax.core import model
from grokjax.core.native import kernels
from grokjax.core.problem import Shape
from grokjax.errors import InputError
from grokjax.training import layouts as layouts_lib
from grokjax.training import population
from grokjax.training.population import Population

RUNS = 4
STEPS = 20  # per visit at least


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way.

    Attributes:
      name: what the table calls it.
      devices: of the CPU.
      block: pairs, 0 for all.
      lanes: runs under vmap.
      plain: the piece of XLA's gradient that is replaced by its plain form, if any.
      n_parts: for the gradient in C++.
    """

    name: str
    devices: int = 1
    block: int = 0
    lanes: int = 1
    plain: str = ""
    n_parts: int = 0


def layouts(n_devices: int, n_train: int, chosen: int) -> list[Layout]:
    """What to compare: the first is XLA's way with a run that all cores share."""
    both = {"devices": n_devices, "block": chosen}
    in_cpp = [
        Layout("in C++: a run per core", n_devices, n_parts=1),
        Layout(f"in C++: one run at a time in {n_devices} parts on all cores", n_parts=n_devices),
        Layout(f"in C++: the same in {kernels.MOST_PARTS} parts", n_parts=kernels.MOST_PARTS),
    ]
    if kernels.unavailable():
        in_cpp = []
    return [
        Layout("one run at a time on all cores"),
        Layout(f"the same in blocks of {chosen} pairs", block=chosen),
        Layout(f"{RUNS} runs under vmap on all cores", lanes=RUNS),
        Layout("a run per core", devices=n_devices),
        *(Layout(f"a run per core in blocks of {b} pairs", n_devices, b) for b in _blocks(n_train, chosen)),
        Layout("plain: weight gradients from products over first axes", **both, plain="_copied"),
        Layout("plain: ReLU's gradient by a select", **both, plain="relu"),
        *in_cpp,
    ]


def _blocks(n_train: int, chosen: int) -> list[int]:
    return sorted({chosen // 2, chosen, -(-n_train // 2)})


def measure(rounds: int, seconds: float, say: timing.Say, **fields) -> dict[str, Any]:
    """Seconds per run-step of each layout."""
    problem, runs = mainline.mainline(RUNS, measures=(), **fields)
    chosen = layouts_lib.block_of(problem) or problem.n_train
    found = layouts(min(len(jax.local_devices()), RUNS), problem.n_train, chosen)
    entered = []
    for i, layout in enumerate(found):
        say(f"compiling: {layout.name}")
        shape = Shape(RUNS // layout.devices, layout.lanes, 1, layout.devices, layout.block, layout.n_parts)
        with _plain(layout.plain):
            one = Population(problem, shape, jax.local_devices()[: layout.devices])
            one.start({slot: run.inputs() for slot, run in enumerate(runs)})
            mainline.train(one, 1)
        entered.append(Contestant(str(i), layout.name, lambda n, one=one: mainline.train(one, n), RUNS, STEPS))
    times = timing.measure(entered, rounds, seconds, time.perf_counter, say)
    return {
        "n_train": problem.n_train,
        "layouts": [
            {
                "name": contestant.name,
                "run_step_s": timing.spread(times[contestant.key]),
                "ratio": timing.spread(times["0"] / times[contestant.key]),
            }
            for contestant in entered
        ],
    }


@contextlib.contextmanager
def _plain(piece: str) -> Iterator[None]:
    """Programs compiled inside have a piece of the model in its plain form; compiled ones are forgotten."""
    population._compiled.cache_clear()
    plain = {
        "": contextlib.nullcontext(),
        "_copied": mock.patch.object(model, "_copied", lambda x: x),
        "relu": mock.patch.dict(model.FACTORED_ACTIVATIONS, relu=jax.nn.relu),
    }
    with plain[piece]:
        yield
    population._compiled.cache_clear()


def page(record: Record) -> str:
    """The figures as Markdown."""
    rows = ["| layout | ms per run-step | as fast as the first |", "| --- | --: | --: |"]
    for one in record["layouts"]:
        rows.append(f"| {one['name']} | {ranged(one['run_step_s'], 1e3)} | {ranged(one['ratio'])} |")
    return (
        f"{RUNS} runs with {record['n_train']} training pairs. A sweep of at least two runs has a run per core, a "
        "single run has all cores, in C++ where there is a compiler, else by XLA (a run per core in blocks).\n\n"
        + "\n".join(rows)
        + "\n"
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = command.parser("layouts", __doc__, rounds=5)
    parser.add_argument("--seconds", type=command.positive(float), default=1.0, help="a visit should take (default: 1)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    command.enter(parse, _measure, argv)


def _measure(args: argparse.Namespace, argv: Sequence[str]) -> None:
    command.check(args)
    devices_lib.spread(RUNS)
    if jax.default_backend() != "cpu":
        raise InputError("benchmarks.layouts compares layouts on a CPU: set JAX_PLATFORMS=cpu.")
    minutes = f"about {2 + args.rounds:.0f} minutes on two cores"
    record = command.measured("layouts", argv, minutes, lambda say: measure(args.rounds, args.seconds, say))
    command.conclude(record, page(record), args)


if __name__ == "__main__":
    main()
