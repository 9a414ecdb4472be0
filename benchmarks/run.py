"""What a training step costs beside PyTorch and the machine's floor, and what surrounds it: start-up, memory, a sweep.

    python -m benchmarks.run                             # everything, in about --minutes
    python -m benchmarks.run --quick                     # the training step alone, at three widths
    python -m benchmarks.run --precision=tensorfloat32   # grokjax's products in TF32, on a GPU that has them

All contestants live in one process and are visited in turn; before anything is timed they train from the same weights
for three steps and must end with the same loss. PyTorch's threads wait for one another and lose more to other programs
than XLA's, so ratios are only to be quoted from a machine left alone.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import apart, command, contestants, machine, sweep, timing
from benchmarks.command import Record
from benchmarks.contestants import Field
from benchmarks.floor import BANDWIDTH
from benchmarks.markdown import number, percent, ranged, table
from benchmarks.timing import Say
from grokjax import config
from grokjax.cli import terminal
from grokjax.core import devices
from grokjax.errors import InputError

WIDTHS, QUICK_WIDTHS = (1, 4, 16, 64, 256), (1, 4, 16)
PROBE_WIDTHS = (1, 25)  # five weight decays × five seeds are 25
SECONDS = 0.5  # that a visit should take
RATIOS = {"ratio_to_eager": "PyTorch eager's time / this", "ratio_to_paper_loop": "paper's loop's time / this"}
EVAL_EVERY = config.FIELDS["eval_every"].default


def measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Start-up, a sweep and the training step of all contestants.

    Raises:
      InputError: PyTorch is not installed.
    """
    if not args.no_torch and not importlib.util.find_spec("torch"):
        raise InputError("PyTorch is not installed: pip install -e '.[bench]', or leave it out with --no-torch.")
    widths = QUICK_WIDTHS if args.quick else WIDTHS
    devices.spread(max(widths))
    say(f"about {args.minutes:g} minutes")
    deadline = time.monotonic() + 60 * args.minutes
    found: dict[str, Any] = {}
    if not args.quick:  # in other processes, before JAX takes a GPU's memory
        found["startup"] = apart.start_ups(PROBE_WIDTHS, say)
        found["sweep"] = sweep.measure(sweep.SMALL, say)
    if args.precision != "float32":
        found["variant"] = f"_{args.precision}"
    torch_device = None if args.no_torch else machine.torch_device()
    field = contestants.gather(widths, torch_device, say, precision=args.precision)
    return found | steps(field, args.rounds, deadline, say) | {"torch_device": torch_device}


def steps(field: Field, rounds: int, deadline: float, say: Say) -> dict[str, Any]:
    """The training step of all contestants.

    Raises:
      SystemExit: they do not train alike.
    """
    if not field.agree:
        reached = ", ".join(f"{key} {loss:.6f}" for key, loss in field.agreement.items())
        print(f"after {contestants.AGREEMENT_STEPS} steps the losses DISAGREE: {reached}", file=sys.stderr)
        sys.exit(1)
    times = timing.measure(field.contestants, rounds, SECONDS, say, deadline)
    cost = times[contestants.EVALUATION] / times[contestants.population_key(field.evaluated)]
    return {
        "agreement": dict(field.agreement),
        "tolerance": field.tolerance,
        **contestants.figures(field.problem, field.contestants, times),
        "square": field.square,
        "evaluation": {"width": field.evaluated, "in_steps": timing.spread(cost)},
    }


# --- what one sees ------------------------------------------------------------------------------------------------


def page(record: Record) -> str:
    """The figures as Markdown."""
    parts = [agreement_line(record), steps_table(record), floor_line(record), evaluation_line(record)]
    if "startup" in record:
        parts += [startup_table(record), memory_line(record)]
    if "sweep" in record:
        parts.append(sweep.page(record))
    return "\n\n".join(parts) + "\n"


def agreement_line(record: Record) -> str:
    """That all contestants do the same."""
    return (
        f"From the same weights, the losses of all {len(record['agreement'])} contestants after "
        f"{contestants.AGREEMENT_STEPS} steps agree (within {record.get('tolerance', 1e-4):g})."
    )


def steps_table(record: Record) -> str:
    """The contestants, one line each, PyTorch first."""
    header = ["", "precision", "run-steps/s", "ms per run-step", "of the dense floor", *RATIOS.values()]
    rows = []
    for key, line in record["lines"].items():
        if key != contestants.EVALUATION:
            seconds, share = line["run_step_s"], ranged(line["share_of_floor"], 100, " %")
            timed = [number(1 / seconds["median"]), ranged(seconds, 1e3), share]
            rows.append([line["name"], line["precision"], *timed, *ratios(line)])
    return table(header, rows, numbers=5)


def ratios(line: Record) -> Iterator[str]:
    """How a contestant's time compares with PyTorch's, by `RATIOS`."""
    return (ranged(line[name]) if line[name] else "–" for name in RATIOS)


def floor_line(record: Record) -> str:
    """The floor and what it comes from."""
    names = {"square_": f"{record['square']} × {record['square']} in ", "shapes_": "these shapes in "}
    rates = []
    for key, rate in record["rates"].items():
        if key != BANDWIDTH:
            rates.append(f"{names[key[:7]]}{key[7:]} {ranged(rate, 1e-9)} GFLOP/s")
    floors = ", ".join(f"{number(1e3 * f['median'])} ms in {precision}" for precision, f in record["floor_s"].items())
    flop, moved = f"{record['step_flop'] / 1e9:.2f} GFLOP", f"{record['step_bytes'] / 1e6:.1f} MB"
    return (
        f"The floor of a run-step is {floors}: the larger of {flop} at the best measured rate and {moved} at the "
        f"measured {ranged(record['rates'][BANDWIDTH], 1e-9)} GB/s. Rates: {'; '.join(rates)}."
    )


def evaluation_line(record: Record) -> str:
    """What an evaluation costs in training steps, and at its cadence."""
    cost, width = record["evaluation"]["in_steps"], record["evaluation"]["width"]
    share = cost["median"] / EVAL_EVERY
    return (
        f"One evaluation of the paper's measures costs {ranged(cost)} training steps of the same population "
        f"(×{width}): every {EVAL_EVERY} steps, that adds {percent(share)} to training."
    )


PHASES = {
    "import_s": "import",
    "device_s": "find devices",
    "draw_s": "draw weights",
    "compile_s": "compile",
    "total_s": "in all, to the first evaluation",
}


def startup_table(record: Record) -> str:
    """Seconds from nothing to the first evaluation."""
    rows = []
    for one in record["startup"]:
        was = "yes, and cached" if one["cached"] else "no"
        rows.append([one["width"], was, *(f"{one[name]:.1f} s" for name in PHASES)])
    return f"Start-up in a new process:\n\n{table(['runs', 'compiled before', *PHASES.values()], rows, len(PHASES))}"


def memory_line(record: Record) -> str:
    """Peak memory, in all and per slot."""
    narrow, *_, wide = (one for one in record["startup"] if not one["cached"])
    per_slot = (wide["peak_bytes"] - narrow["peak_bytes"]) / (wide["width"] - narrow["width"])
    kind = "resident memory" if record["machine"]["platform"] == "cpu" else "device memory"
    return (
        f"Peak {kind} at P = 113 with evaluation: {narrow['peak_bytes'] / 2**30:.2f} GiB for {narrow['width']} run, "
        f"{wide['peak_bytes'] / 2**30:.2f} GiB for {wide['width']}, so {per_slot / 2**20:.1f} MiB per slot."
    )


def main(argv: Sequence[str]) -> None:
    """Entry point: exits with 1 if the contestants do not train alike."""
    parser = command.parser("benchmarks.run", __doc__)
    command.rounds(parser, 5)
    parser.add_argument(
        "--minutes", type=command.positive(float), default=6.0, help="after which no round begins (default: 6)"
    )
    parser.add_argument("--quick", action="store_true", help="the training step alone, at three widths")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out; no ratios are given then")
    parser.add_argument("--precision", choices=config.PRECISIONS, default="float32", help="of grokjax's products")
    command.run(parser, measure, page, argv)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
