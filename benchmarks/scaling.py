"""How the time of a run-step grows: against width, P, d_model and the number of devices.

    python -m benchmarks.scaling

Populations of the mainline, with one of these changed at a time (d_mlp stays four times d_model), are visited in turn.
A CPU is split into several devices by --xla_force_host_platform_device_count, each number of them in a process of its
own, so that all share the same cores; accelerators are used as they are.
"""

import argparse
import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from benchmarks import apart, command, mainline, timing
from benchmarks.command import Record
from benchmarks.markdown import ranged, table
from benchmarks.timing import Contestant, Say
from grokjax.cli import terminal
from grokjax.core import devices as devices_lib

AXES = {
    "width": "runs side by side",
    "p": "modulus P",
    "d_model": "d_model (d_mlp = 4 d_model)",
    "devices": "devices",
}
SIZES = {"p": (29, 59, 113, 173), "d_model": (32, 64, 128, 256)}
ON_CPU = {"width": (1, 2, 4, 8, 16), **SIZES, "devices": (1, 2, 4)}
ON_ACCELERATOR = {"width": (1, 4, 16, 64, 256, 1024), **SIZES, "devices": (1, 2, 4, 8, 16)}
CPU_WIDTH, ACCELERATOR_WIDTH = 2, 64  # where P and d_model vary
RUNS_PER_DEVICE = 2  # on a CPU, times the most devices in all, so that each number of devices has the same to do
SECONDS = 0.3  # that a visit should take


def contestant(width: int, devices: Sequence[jax.Device] | None = None, name: str = "", **fields) -> Contestant:
    """A population past its first step."""
    problem, runs = mainline.mainline(width, measures=(), **fields)
    advance = functools.partial(mainline.train, mainline.populated(problem, runs, devices))
    advance(1)
    return Contestant(name, name, advance, width, least=2)


def points(axes: Mapping[str, Sequence[int]], width: int, rounds: int, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Seconds per run-step along width, P and d_model, all in turn in this process.

    Args:
      axes: values by axis.
      width: where P and d_model vary.
      rounds: visits of each.
      say: shows what is going on.
    """
    entered = []
    for axis in ("width", "p", "d_model"):
        for value in axes[axis]:
            say(f"building: {axis} {value}")
            fields: dict[str, Any] = {"width": width, axis: value}
            fields |= {"d_mlp": 4 * value} if axis == "d_model" else {}
            entered.append(contestant(name=f"{axis} {value}", **fields))
    times = timing.measure(entered, rounds, SECONDS, say)
    found: dict[str, list[dict[str, Any]]] = {}
    for key, seconds in times.items():
        axis, size = key.split()
        found.setdefault(axis, []).append({"value": int(size), "run_step_s": timing.spread(seconds)})
    return found


def over_devices(counts: Sequence[int], rounds: int, say: Say) -> list[dict[str, Any]]:
    """Seconds per run-step against the number of devices."""
    on_cpu = jax.default_backend() == "cpu"
    counts = [n for n in counts if on_cpu or n <= len(jax.local_devices())]
    found = []
    for n in counts:
        say(f"building: {n} devices")
        if on_cpu:
            split = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}
            values = apart.call(_on_devices, n, RUNS_PER_DEVICE * max(counts), rounds, environment=split)
        else:
            values = _on_devices(n, n * ACCELERATOR_WIDTH, rounds)
        found.append({"value": n, "run_step_s": timing.spread(values)})
    return found


def _on_devices(n_devices: int, n_runs: int, rounds: int) -> list[float]:
    """Seconds per run-step of each round on the first so many devices."""
    one = contestant(n_runs, jax.local_devices()[:n_devices])
    return timing.measure([one], rounds, SECONDS)[""].tolist()


def measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """All four axes."""
    devices_lib.spread(max(ON_CPU["width"]))
    axes, width = (ON_CPU, CPU_WIDTH) if jax.default_backend() == "cpu" else (ON_ACCELERATOR, ACCELERATOR_WIDTH)
    n = sum(map(len, axes.values()))
    say(f"about {n * (7 + 2 * args.rounds * SECONDS) / 60:.0f} to {n / 3:.0f} minutes")
    found = points(axes, width, args.rounds, say)
    return {"width": width, "axes": found | {"devices": over_devices(axes["devices"], args.rounds, say)}}


def page(record: Record) -> str:
    """The figures as Markdown."""
    rows = []
    for axis, label in AXES.items():
        cells = (f"**{point['value']}**: {ranged(point['run_step_s'], 1e3)}" for point in record["axes"][axis])
        rows.append([label, "; ".join(cells)])
    shared = "; the devices of a CPU share its cores" if record["machine"]["platform"] == "cpu" else ""
    return (
        table(["axis", "value: ms per run-step"], rows)
        + f"\n\nMedians (min – max) in float32; P and d_model vary at ×{record['width']}{shared}.\n"
    )


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("benchmarks.scaling", __doc__)
    command.rounds(parser, 5)
    command.run(parser, measure, page, argv)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
