"""How the time of a run-step grows: against width, P, d_model and the number of devices.

    python -m benchmarks.scaling

Populations of the mainline, with one of these changed at a time (d_mlp stays four times d_model), are visited in turn.
A CPU is split into several devices by --xla_force_host_platform_device_count, each number of them in a process of its
own, so that all share the same cores; accelerators are used as they are.
"""

import argparse
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import apart, command, mainline, timing
from benchmarks.command import Record
from benchmarks.timing import Contestant
from grokjax.core import devices as devices_lib
from grokjax.errors import InputError

AXES = {
    "width": "runs side by side",
    "p": "modulus P",
    "d_model": "d_model (d_mlp = 4 d_model)",
    "devices": "devices",
}
ON_CPU = {"width": (1, 2, 4, 8, 16), "p": (29, 59, 113, 173), "d_model": (32, 64, 128, 256), "devices": (1, 2, 4)}
ON_ACCELERATOR = {
    "width": (1, 4, 16, 64, 256, 1024),
    "p": (29, 59, 113, 173),
    "d_model": (32, 64, 128, 256),
    "devices": (1, 2, 4, 8, 16),
}
CPU_WIDTH, ACCELERATOR_WIDTH = 2, 64  # where P and d_model vary
RUNS_PER_DEVICE = 2  # on a CPU, times the most devices in all, so that each number of devices has the same to do
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "scaling.png"


def contestant(width: int, devices: Sequence[jax.Device] | None = None, least: int = 2, **fields) -> Contestant:
    """A population past its first steps."""
    problem, runs = mainline.mainline(width, measures=(), **fields)
    advance = functools.partial(mainline.train, mainline.populated(problem, runs, devices))
    advance(1)
    return Contestant("", "", advance, width, least)


def points(
    axes: Mapping[str, Sequence[int]],
    width: int,
    rounds: int,
    seconds: float,
    say: timing.Say,
    fields: Mapping[str, Any],
) -> dict[str, list[dict[str, Any]]]:
    """Seconds per run-step along width, P and d_model, all in turn in this process.

    Args:
      axes: values by axis.
      width: where P and d_model vary.
      rounds: visits of each.
      seconds: that a visit should take.
      say: shows what is going on.
      fields: of the config that differ from the mainline.
    """
    builders: dict[tuple[str, int], Callable[[], Contestant]] = {}
    for value in axes["width"]:
        builders["width", value] = functools.partial(contestant, value, **fields)
    for value in axes["p"]:
        builders["p", value] = functools.partial(contestant, width, **{**fields, "p": value})
    for value in axes["d_model"]:
        sizes = {**fields, "d_model": value, "d_mlp": 4 * value}
        builders["d_model", value] = functools.partial(contestant, width, **sizes)
    entered = []
    for (axis, value), build in builders.items():
        say(f"building: {axis} {value}")
        one = build()
        entered.append(Contestant(f"{axis} {value}", f"{axis} {value}", one.advance, one.n_runs, one.least))
    times = timing.measure(entered, rounds, seconds, time.perf_counter, say)
    found: dict[str, list[dict[str, Any]]] = {}
    for axis, value in builders:
        figure = timing.spread(times[f"{axis} {value}"])
        found.setdefault(axis, []).append({"value": value, "run_step_s": figure})
    return found


def over_devices(counts: Sequence[int], rounds: int, seconds: float, say: timing.Say, fields: Mapping[str, Any]):
    """Seconds per run-step against the number of devices."""
    on_cpu = jax.default_backend() == "cpu"
    counts = [n for n in counts if on_cpu or n <= len(jax.local_devices())]
    n_runs = RUNS_PER_DEVICE * max(counts) if on_cpu else None
    found = []
    for n in counts:
        say(f"building: {n} devices")
        arguments = (n, n_runs or n * ACCELERATOR_WIDTH, rounds, seconds, dict(fields))
        if on_cpu:
            split = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}
            values = apart.call(_on_devices, *arguments, environment=split)
        else:
            values = _on_devices(*arguments)
        found.append({"value": n, "run_step_s": timing.spread(values)})
    return found


def _on_devices(n_devices: int, n_runs: int, rounds: int, seconds: float, fields: Mapping[str, Any]) -> list[float]:
    """Seconds per run-step of each round on the first so many devices."""
    one = contestant(n_runs, jax.local_devices()[:n_devices], **fields)
    return timing.measure([one], rounds, seconds, time.perf_counter)[""].tolist()


def measure(
    axes: Mapping[str, Sequence[int]], rounds: int, seconds: float, say: timing.Say, **fields
) -> dict[str, Any]:
    """All four axes."""
    width = CPU_WIDTH if jax.default_backend() == "cpu" else ACCELERATOR_WIDTH
    found = points(axes, width, rounds, seconds, say, fields)
    found["devices"] = over_devices(axes["devices"], rounds, seconds, say, fields)
    return {"width": width, "axes": found}


def draw(records: Mapping[str, Record], path: Path) -> None:
    """Draws the four axes, one line per kind of machine."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure((10, 2.6), layout="constrained")
        panels = figure.subplots(1, len(AXES), squeeze=False).flat
        for (axis, label), panel in zip(AXES.items(), panels, strict=True):
            for place, record in records.items():
                _draw_line(panel, record["axes"][axis], place)
            ticks = sorted({point["value"] for record in records.values() for point in record["axes"][axis]})
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xticks(ticks, map(str, ticks), minor=False)
            panel.xaxis.minorticks_off()
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter("{x:g}" if _is_narrow(record["axes"][axis]) else "")
            panel.set_xlabel(label)
            panel.grid(alpha=0.3)
        figure.axes[0].set_ylabel("ms per run-step")
        figure.axes[0].legend()
        figure.savefig(path, dpi=110, metadata={"Software": None})


def _is_narrow(points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a logarithmic axis would hardly have a power of ten to label."""
    return max(p["run_step_s"]["max"] for p in points) < 3 * min(p["run_step_s"]["min"] for p in points)


def _draw_line(panel, found: Sequence[Mapping[str, Any]], label: str) -> None:
    values = [point["value"] for point in found]
    middle, low, high = ([1e3 * point["run_step_s"][name] for point in found] for name in ("median", "min", "max"))
    panel.plot(values, middle, "o-", ms=3, lw=1, label=label)
    panel.fill_between(values, low, high, alpha=0.2)


def page(record: Record) -> str:
    """The figures as Markdown."""
    rows = ["| axis | value: ms per run-step |", "| --- | --- |"]
    for axis, label in AXES.items():
        cells = (f"**{point['value']}**: {timing.ranged(point['run_step_s'], 1e3)}" for point in record["axes"][axis])
        rows.append(f"| {label} | {'; '.join(cells)} |")
    others = f"P and d_model vary at ×{record['width']}"
    shared = "; the devices of a CPU share its cores" if record["machine"]["platform"] == "cpu" else ""
    return "\n".join(rows) + f"\n\nMedians (min – max) in float32; {others}{shared}.\n"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = command.parser("scaling", __doc__, rounds=5)
    parser.add_argument("--widths", type=command.ascending, help="runs side by side (default: what suits the machine)")
    parser.add_argument(
        "--seconds", type=command.positive(float), default=0.3, help="seconds a visit should take (default: 0.3)"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the figure there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    command.enter(parse, _measure, argv)


def _measure(args: argparse.Namespace, argv: Sequence[str]) -> None:
    command.check(args)
    if args.figure and not args.figure.parent.is_dir():
        raise InputError(f"--figure={args.figure} cannot be written: its directory does not exist.")
    devices_lib.spread(max(ON_CPU["width"]))
    axes = ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR
    if args.widths:
        axes = axes | {"width": args.widths}
    n = sum(map(len, axes.values()))
    minutes = f"about {n * (7 + 2 * args.rounds * args.seconds) / 60:.0f} to {n / 3:.0f} minutes"
    record = command.measured("scaling", argv, minutes, lambda say: measure(axes, args.rounds, args.seconds, say))
    if args.figure:
        draw({command.place(record): record}, args.figure)
    command.conclude(record, page(record), args)


if __name__ == "__main__":
    main()
