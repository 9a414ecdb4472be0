"""What a training step costs beside PyTorch and the machine's floor, and what surrounds it: start-up, memory, a sweep.

    python -m benchmarks.run                      # everything, in about --minutes
    python -m benchmarks.run --quick              # the training step alone, at three widths
    python -m benchmarks.run --only=startup       # a part: steps, startup, sweep

All contestants live in one process and are visited in turn; before anything is timed they train from the same weights
for three steps and must end with the same loss. PyTorch's threads wait for one another and lose more to other programs
than XLA's, so ratios are only to be quoted from a machine left alone. Where that is not to be had, --one-core pins the
process to one core and counts the processor time that it gets.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import apart, command, contestants, machine, sweep, timing
from benchmarks.command import Record, percent
from benchmarks.contestants import Field
from benchmarks.timing import number, ranged
from grokjax import config
from grokjax.cli import terminal
from grokjax.core import devices
from grokjax.errors import InputError

PARTS = ("startup", "sweep", "steps")  # in this order: what runs in other processes before JAX takes a GPU's memory
WIDTHS, QUICK_WIDTHS = (1, 4, 16, 64, 256, 1024), (1, 4, 16)
PROBE_WIDTHS = (1, 25)  # five weight decays × five seeds are 25
# On a CPU, of a population at least so wide: what others' time is times its own, and its share of the floor.
TARGET_WIDTH, TARGET_RATIOS, TARGET_SHARE = 4, {"ratio_to_eager": 6.0, "ratio_to_paper_loop": 14.0}, 0.65
TARGET_EVALUATION = 0.05  # of the training between evaluations
TARGET_RATES = {"tensorfloat32": 50_000, "float32": 20_000}  # run-steps per second on a GPU
TARGET_GIB = 3.0
EVAL_EVERY = config.FIELDS["eval_every"].default


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = command.parser("run", __doc__, rounds=5)
    parser.epilog = "Exits with 0, with 1 if the contestants do not train alike, and with 2 for bad input."
    text = ",".join(map(str, WIDTHS))
    parser.add_argument(
        "--widths", type=command.ascending, help=f"widths of the populations (default: {text}, as time allows)"
    )
    parser.add_argument(
        "--seconds", type=command.positive(float), default=0.5, help="seconds a visit should take (default: 0.5)"
    )
    parser.add_argument(
        "--minutes",
        type=command.positive(float),
        default=6.0,
        help="leave out what does not fit, and end rounds early, to be done by then (default: 6)",
    )
    parser.add_argument("--only", type=terminal.names, metavar="PARTS", help=f"comma-separated, of: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="--only=steps --widths=1,4,16")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out; no ratios are given then")
    parser.add_argument(
        "--one-core",
        action="store_true",
        help="only the steps, on one CPU core, in processor time, which other programs disturb little",
    )
    args = parser.parse_args(argv)
    only = ("steps",) if args.quick or args.one_core else PARTS
    args.parts = args.only or only
    args.widths = args.widths or (QUICK_WIDTHS if args.quick or args.one_core else WIDTHS)
    return args


def check(args: argparse.Namespace) -> None:
    """Refuses what cannot be measured.

    Raises:
      InputError: naming the flag.
    """
    command.check(args)
    for part in args.parts:
        if part not in PARTS:
            raise InputError(f"--only has '{part}', but its parts are {', '.join(PARTS)}.")
    if args.one_core and args.parts != ("steps",):
        raise InputError("--one-core measures steps alone: other parts run in other processes.")
    if "steps" in args.parts and not args.no_torch and not importlib.util.find_spec("torch"):
        raise InputError("PyTorch is not installed: pip install -e '.[bench]', or leave it out with --no-torch.")
    if args.one_core and not machine.pin_to_one_core():
        raise InputError("--one-core needs JAX on the CPU of a Linux machine.")


def measure(args: argparse.Namespace, progress: command.Progress) -> dict[str, Any]:
    """All parts that are asked for."""
    deadline = time.monotonic() + 60 * args.minutes
    found: dict[str, Any] = {"one_core": args.one_core}
    if "startup" in args.parts:
        found["startup"] = apart.start_ups(PROBE_WIDTHS, progress.say)
    if "sweep" in args.parts:
        found["sweep"] = sweep.measure(sweep.SMALL, (), 1, progress.announce)
    if "steps" in args.parts:
        found |= steps(args, progress, deadline)
    return found


def steps(args: argparse.Namespace, progress: command.Progress, deadline: float) -> dict[str, Any]:
    """The training step of all contestants."""
    clock = time.process_time if args.one_core else time.perf_counter
    field = Field(contestants.setting(args.widths, not args.no_torch), deadline, progress.say, clock)
    if not field.agreement:
        raise InputError(f"--minutes is {args.minutes:g}, which start-up and sweep have used up: give more.")
    found: dict[str, Any] = {"agreement": field.agreement, "agree": field.agree, "left_out": field.left_out}
    if not field.agree:
        return found
    others = machine.Others()
    times = timing.measure(field.contestants, args.rounds, args.seconds, clock, progress.say, deadline)
    return {
        **found,
        **contestants.figures(field.problem, field.contestants, times),
        "others_share_while_timing": others.share(),
        "square": field.setting.square,
        "evaluation": {
            "width": field.setting.evaluated,
            "in_steps": contestants.evaluation_in_steps(field.setting, times),
        },
    }


# --- what one sees ------------------------------------------------------------------------------------------------


def page(record: Record) -> str:
    """The figures as Markdown."""
    parts = []
    if "agreement" in record:
        parts.append(agreement_line(record))
    if "lines" in record:
        parts += [table(record), floor_lines(record), evaluation_line(record), target_line(record)]
    if "startup" in record:
        parts += [startup_table(record), memory_line(record)]
    if "sweep" in record:
        parts.append(sweep.page(record))
    return "\n\n".join(part for part in parts if part) + "\n"


def agreement_line(record: Record) -> str:
    """Whether all contestants do the same."""
    reached = record["agreement"].values()
    verdict = "agree" if record["agree"] else "DISAGREE: " + ", ".join(f"{k} {v:.6f}" for k, v in _agreement(record))
    return (
        f"From the same weights, the losses of all {len(reached)} contestants in float32 after "
        f"{contestants.AGREEMENT_STEPS} steps {verdict} (within {contestants.AGREEMENT_TOLERANCE:g})."
    )


def _agreement(record: Record):
    return record["agreement"].items()


def table(record: Record) -> str:
    """The contestants, one line each."""
    header = ["", "precision", "run-steps/s", "ms per run-step", "of the dense floor", "PyTorch eager's time / this"]
    header.append("paper's loop's time / this")
    rows = [header, ["---", "---", *["--:"] * 5]]
    for key, line in _ordered(record).items():
        if key == contestants.EVALUATION:
            continue
        if "reason" in line:
            rows.append([line["name"], line["precision"], f"not available: {line['reason']}", *[""] * 4])
            continue
        seconds = line["run_step_s"]
        rows.append(
            [
                line["name"],
                line["precision"],
                number(1 / seconds["median"]),
                ranged(seconds, 1e3),
                ranged(line["share_of_floor"], 100, " %"),
                *(ranged(line[name]) if line[name] else "–" for name in TARGET_RATIOS),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _ordered(record: Record) -> dict[str, dict[str, Any]]:
    """Those timed and those left out, PyTorch first, populations by precision and width."""
    both = record["lines"] | record["left_out"]

    def rank(item):
        key, line = item
        is_population = key.startswith("population")
        return is_population, line["precision"] != "float32" and is_population, is_population * line["precision"]

    return dict(sorted(both.items(), key=lambda item: rank(item)))


def floor_lines(record: Record) -> str:
    """The floor and what it comes from."""
    rates = {key: rate for key, rate in record["rates"].items() if key != "bandwidth"}
    bandwidth = record["rates"]["bandwidth"]
    size = record["square"]
    measured = "; ".join(
        f"{key.replace('square_', f'{size} × {size} in ').replace('shapes_', 'these shapes in ')} "
        f"{ranged(rate, 1e-9)} GFLOP/s"
        for key, rate in rates.items()
    )
    floors = ", ".join(f"{number(1e3 * f['median'])} ms in {precision}" for precision, f in record["floor_s"].items())
    flop, moved = f"{record['step_flop'] / 1e9:.2f} GFLOP", f"{record['step_bytes'] / 1e6:.1f} MB"
    return (
        f"The floor of a run-step is {floors}: the larger of {flop} at the best measured rate and {moved} at the "
        f"measured {ranged(bandwidth, 1e-9)} GB/s. Rates: {measured}."
    )


def evaluation_line(record: Record) -> str:
    """What an evaluation costs in training steps, and at its cadence."""
    cost, width = record["evaluation"]["in_steps"], record["evaluation"]["width"]
    if cost is None:
        return ""
    share = cost["median"] / EVAL_EVERY
    return (
        f"One evaluation of the paper's measures costs {ranged(cost)} training steps of the same population "
        f"(×{width}): every {EVAL_EVERY} steps, that adds {percent(share)} to training. Target, at most "
        f"{percent(TARGET_EVALUATION)}: {command.verdict(share <= TARGET_EVALUATION, _while_timing(record))}."
    )


def _while_timing(record: Record) -> Record:
    return record | {"others_share_of_processor": record["others_share_while_timing"]}


def target_line(record: Record) -> str:
    """Whether populations are as fast as is claimed."""
    populations = [line for key, line in record["lines"].items() if key.startswith("population")]
    if record["machine"]["platform"] == "gpu":
        return _rates_line(record, populations)
    if record["machine"]["platform"] != "cpu":
        return ""
    wide = [line for line in populations if line["n_runs"] >= TARGET_WIDTH and line["precision"] == "float32"]
    parts = [("of the dense floor", "share_of_floor", 100, TARGET_SHARE, " %")]
    names = {"ratio_to_eager": "PyTorch eager's time / this", "ratio_to_paper_loop": "paper's loop's time / this"}
    parts += [(names[key], key, 1, target, "") for key, target in TARGET_RATIOS.items()]
    said = []
    for what, key, factor, target, unit in parts:
        found = [line[key]["median"] for line in wide if line[key]]
        verdict, reached = "not judged without PyTorch" if wide else "not judged, since none was timed", ""
        if found:
            verdict = command.verdict(min(found) >= target, _while_timing(record))
            reached = f" ({number(factor * min(found))}{unit} at the slowest width)"
        said.append(f"{what} at least {factor * target:g}{unit}: {verdict}{reached}")
    return f"Targets, on a CPU, of populations of at least {TARGET_WIDTH}: {'; '.join(said)}."


def _rates_line(record: Record, populations: Sequence[dict[str, Any]]) -> str:
    said = []
    for precision, target in TARGET_RATES.items():
        best = max((1 / one["run_step_s"]["median"] for one in populations if one["precision"] == precision), default=0)
        if best:
            said.append(
                f"{target:,} in {precision}: {command.verdict(best >= target, _while_timing(record))} ({best:,.0f})"
            )
    return f"Targets, run-steps per second on a GPU: {'; '.join(said)}."


def startup_table(record: Record) -> str:
    """Seconds from nothing to the first evaluation, and until each contestant was ready."""
    phases = {
        "import_s": "import",
        "device_s": "find devices",
        "draw_s": "draw weights",
        "compile_s": "compile",
        "total_s": "in all, to the first evaluation",
    }
    rows = [["runs", "compiled before", *phases.values()], ["--:", "---", *["--:"] * len(phases)]]
    for one in record["startup"]:
        was = "yes, and cached" if one["cached"] else "no"
        rows.append([str(one["width"]), was, *(f"{one[name]:.1f} s" for name in phases)])
    text = "Start-up in a new process:\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)
    ready = [
        f"{line['name']} {line['ready_s']:.1f} s"
        for key, line in record.get("lines", {}).items()
        if line["precision"] == "float32" and key != contestants.EVALUATION
    ]
    return text + (f"\n\nFrom nothing to three steps done, once the program runs: {', '.join(ready)}." if ready else "")


def memory_line(record: Record) -> str:
    """Peak memory, in all and per slot."""
    narrow, *_, wide = (one for one in record["startup"] if not one["cached"])
    per_slot = (wide["peak_bytes"] - narrow["peak_bytes"]) / (wide["width"] - narrow["width"])
    kind = "resident memory" if record["machine"]["platform"] == "cpu" else "device memory"
    peak = wide["peak_bytes"] / 2**30
    target = ""
    if record["machine"]["platform"] == "cpu":
        target = f" Target, under {TARGET_GIB:g} GiB: {'met' if peak < TARGET_GIB else 'missed'}."
    return (
        f"Peak {kind} at P = 113 with evaluation: {narrow['peak_bytes'] / 2**30:.2f} GiB for {narrow['width']} run, "
        f"{peak:.2f} GiB for {wide['width']}, so {per_slot / 2**20:.1f} MiB per slot.{target}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    command.enter(parse, _measure, argv)


def _measure(args: argparse.Namespace, argv: Sequence[str]) -> None:
    check(args)
    if not args.one_core:
        devices.spread(max(args.widths))
    others = machine.Others()
    with command.Progress() as progress:
        progress.announce(f"about {args.minutes:g} minutes at most, for {', '.join(args.parts)}")
        found = measure(args, progress)
    torch_device = None if args.no_torch or "steps" not in args.parts else machine.torch_device()
    record = command.record("run", argv, others, torch_device, **found)
    if not record.get("agree", True):
        print(agreement_line(record), file=sys.stderr)
        sys.exit(1)
    command.conclude(record, page(record), args)


if __name__ == "__main__":
    main()
