"""What the programs cost on TPUs and GPUs, compiled for them where there is none; nothing is run, so nothing is timed.

    python -m benchmarks.ahead                              # all chips, 8 runs side by side on each
    python -m benchmarks.ahead --chip h100 --runs 64 1024   # one chip, two populations
    python -m benchmarks.ahead --precision bfloat16_6x --json figures.json
    python -m benchmarks.ahead --p 23                       # a small modulus, which compiles sooner

The programs are those of a population of the paper's mainline: `start`, and `advance` with its training steps and
evaluations. Compiled code and memory are what the chip would get, except that a GPU's autotuning is left out. Bytes,
kernels and products are counted from the code (`benchmarks.hlo`). The bound is no prediction: no program of these
kernels is faster than its products at the chip's peak and its bytes at full bandwidth.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import chips, command, hlo, mainline
from benchmarks.chips import CHIPS, SAME_PROGRAM, Chip
from benchmarks.command import Record
from benchmarks.hlo import Kernel, Program
from benchmarks.markdown import number, table
from benchmarks.timing import Say
from grokjax import config
from grokjax.cli import terminal
from grokjax.core.problem import Problem
from grokjax.store import files
from grokjax.training import layouts, population

RUNS = 8
MOST = 12  # kernels that are told one by one
OFF_CHIP = 5e7  # bytes of a run-step from which on they are
FLOAT32 = "float32 alone"  # in PTX, where no instruction of the tensor cores is


def measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Compiles for every chip and number of runs that is asked for.

    Raises:
      InputError: no compiler is installed for a chip.
    """
    jax.config.update("jax_platforms", "cpu")  # a device that is there is left alone
    names = [args.chip] if args.chip else list(CHIPS)
    for name in names:
        chips.require(name)
    found: dict[str, Any] = {"compilers": chips.versions(), "rows": []}
    if args.chip:
        found["variant"] = f"_{args.chip}" + f"_{args.precision}" * (args.precision != "float32")
    for name in names:
        for n_runs in args.runs:
            say(f"compiling for {CHIPS[name].title}, {n_runs} runs")
            problem, _ = mainline.mainline(n_runs, p=args.p, precision=args.precision)
            found["rows"].append(compiled(problem, name, n_runs))
    return found


def compiled(problem: Problem, name: str, n_runs: int) -> Record:
    """A population's programs on one device of a chip.

    Args:
      problem: what its runs share.
      name: of the chip, in `CHIPS`.
      n_runs: of the population.
    """
    devices = chips.devices(name)[:1]
    layout = layouts.choose(problem, n_runs, slots=n_runs, devices=devices)
    lowered = population.lowered(problem, layout, devices)
    row = {"chip": name, "p": problem.model.p, "precision": problem.precision, "runs": n_runs}
    row["width"] = layout.vmap_width
    _, row["start"] = _program(lowered["start"], name)
    text, row["advance"] = _program(lowered["advance"], name)
    return row | counted(Program(text), name, layout.vmap_width)


def _program(lowered: jax.stages.Lowered, name: str) -> tuple[str, Record]:
    """A program's text, and what compiling it took and needs (processor seconds, bytes)."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, str | bool] = {}
        if not CHIPS[name].topology:
            options = {**chips.GPU_OPTIONS, "xla_dump_to": folder}
        result = lowered.compile(options)
        ptx = "".join(path.read_text() for path in Path(folder).glob("*.ptx"))
    text, memory = result.as_text(), result.memory_analysis()
    assert text
    assert memory
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    row: Record = {"compile_s": time.process_time() - started, "temporaries": memory.temp_size_in_bytes}
    row["needed"] = kept + memory.temp_size_in_bytes
    return text, row | {"ptx": in_ptx(ptx)} if ptx else row


def in_ptx(text: str) -> list[str]:
    """The types of factors that tensor cores multiply in a GPU's program; FLOAT32 where they do nothing."""
    found = re.findall(r"\b(?:wgmma\.mma_async|w?mma\.sync)\S*\.(tf32|bf16|f16|s8)\b", text)
    return sorted(set(found)) or [FLOAT32]


def counted(program: Program, name: str, width: int) -> Record:
    """What a program does per run-step and per run's evaluation, and the bounds of the chips that run it.

    Args:
      program: of `advance`.
      name: of the chip.
      width: runs that a step trains.
    """
    step = program.kernels(program.steps)
    evaluation = [kernel for one in program.evaluations() for kernel in program.kernels(one)]
    row: Record = {}
    for part, kernels in {"step": step, "evaluation": evaluation}.items():
        n, moved, flop = hlo.total(kernels)
        row[part] = {"kernels": n, "bytes": moved / width, "flop": flop / width}
    most = sorted(step, key=lambda kernel: -kernel.times * kernel.bytes)[:MOST]
    row["largest"] = [_of_kernel(kernel, width) for kernel in most]
    row["found"] = sorted({product.precision for kernel in step for product in kernel.products})
    row["scatters"] = sum(one.opcode == "scatter" for one in program.within(program.steps))
    row["gathers"] = sum(one.opcode == "gather" for one in program.within(program.steps))
    others = SAME_PROGRAM.get(name, {})
    row["bounds"] = {key: width / seconds(chip, step) for key, chip in {name: CHIPS[name], **others}.items()}
    return row


def _of_kernel(kernel: Kernel, width: int) -> Record:
    """A kernel per run-step, with the end of the line that it comes from."""
    flop = sum(product.flop for product in kernel.products)
    source = re.sub(r"jit\((\w+)\)", r"\1", kernel.source.split(";")[0].rpartition("vmap()/")[2])
    source = source.removeprefix("while/body/")
    return {"kernel": source or kernel.name, "bytes": kernel.times * kernel.bytes / width, "flop": flop / width}


def seconds(chip: Chip, kernels: Sequence[Kernel]) -> float:
    """The least time that these kernels take one after another; copies started ahead may overlap with other kernels."""
    alone = 0.0
    for kernel in kernels:
        if not kernel.ahead:
            products = sum(chip.seconds(product) for product in kernel.products)
            alone += kernel.times * max(products, kernel.bytes / chip.bandwidth)
    return max(alone, hlo.total(kernels)[1] / chip.bandwidth)


# --- what one sees ------------------------------------------------------------------------------------------------


def page(record: Record) -> str:
    """The figures as Markdown."""
    rows = record["rows"]
    moving = [row for row in rows if row["step"]["bytes"] >= OFF_CHIP]
    most = {row["chip"]: row for row in sorted(moving, key=lambda row: row["runs"]) if row["runs"] <= 64}
    return "\n\n".join([costs(rows), memory(rows), *map(largest, most.values()), of_chips()]) + "\n"


def costs(rows: Sequence[Record]) -> str:
    """Per run-step and evaluation, with the bound."""
    header = ["chip", "runs, together", "precision", "found", "MB", "GFLOP", "kernels", "evaluation: MB", "kernels"]
    lines = [[*_of(row), *_counts(row), *_bounds(row)] for row in rows]
    return "A run-step, an evaluation of a run, and the bound:\n\n" + table([*header, "bound, run-steps/s"], lines, 6)


def _of(row: Record) -> list[str]:
    """What a line is about."""
    together = f"{row['runs']}, {row['width']}" + f" (P = {row['p']})" * (row["p"] != config.default().p)
    found = ", ".join(row["found"])
    ptx = f"; PTX: {', '.join(row['advance']['ptx'])}" if "ptx" in row["advance"] else ""
    return [CHIPS[row["chip"]].title, together, row["precision"], found + ptx]


def _counts(row: Record) -> Iterator[str]:
    """Kernels are launched for all runs that train together, so they are not divided by them."""
    yield number(row["step"]["bytes"] / 1e6)
    yield number(row["step"]["flop"] / 1e9)
    yield str(row["step"]["kernels"])
    yield number(row["evaluation"]["bytes"] / 1e6)
    yield f"{row['evaluation']['kernels']:,}"


def _bounds(row: Record) -> list[str]:
    others = SAME_PROGRAM.get(row["chip"], {})
    named = (f"{number(bound)} ({others[key].title})" for key, bound in row["bounds"].items() if key in others)
    return [", ".join([number(row["bounds"][row["chip"]]), *named])]


def memory(rows: Sequence[Record]) -> str:
    """Memory and what compiling takes."""
    header = ["chip", "runs", "temporaries, MB", "needed in all, MB", "estimated now, MB"]
    header += ["compiling `advance`", "`start`"]
    lines = []
    for row in rows:
        sizes = (row["advance"]["temporaries"], row["advance"]["needed"], estimated(row))
        took = (f"{row[name]['compile_s']:.0f} s" for name in ("advance", "start"))
        lines.append([CHIPS[row["chip"]].title, row["runs"], *(f"{size / 1e6:,.0f}" for size in sizes), *took])
    return "Memory, evaluation included, and processor time to compile:\n\n" + table(header, lines, 6)


def estimated(row: Record) -> int:
    """The bytes that this version estimates for such a population."""
    problem, _ = mainline.mainline(1, p=row["p"], precision=row["precision"])
    in_sets = layouts.in_sets(row["runs"] // row["width"], row["width"])
    return layouts.needed_bytes(
        problem, in_sets if CHIPS[row["chip"]].topology else layouts.together(problem, row["runs"])
    )


def largest(row: Record) -> str:
    """The kernels that move most."""
    whole = row["step"]["bytes"]
    lines = [
        [f"`{one['kernel']}`", number(one["bytes"] / 1e6), f"{one['bytes'] / whole:.0%}", number(one["flop"] / 1e9)]
        for one in row["largest"]
    ]
    said = f"The kernels of a run-step that move most, {CHIPS[row['chip']].title}, {row['runs']} runs:\n\n"
    return said + table(["from, as JAX names it", "MB", "of all", "GFLOP"], lines, 3)


def of_chips() -> str:
    """Peaks that the bounds are taken from."""
    every = CHIPS | {key: chip for others in SAME_PROGRAM.values() for key, chip in others.items()}
    header = ["chip", "source", "TFLOP/s of dense products", "memory, GB", "GB/s"]
    lines = []
    for chip in every.values():
        rates = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in chip.rates.items())
        lines.append([chip.title, chip.source, rates, f"{chip.memory / 1e9:.0f}", f"{chip.bandwidth / 1e9:,.0f}"])
    return "Peaks that the bounds are taken from:\n\n" + table(header, lines, 2)


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    parser = command.parser("benchmarks.ahead", __doc__)
    parser.add_argument("--chip", choices=CHIPS, help="to compile for (default: all)")
    whole = command.positive(int)
    parser.add_argument("--runs", nargs="+", type=whole, default=(RUNS,), metavar="N", help=f"populations ({RUNS})")
    parser.add_argument("--p", type=whole, default=config.default().p, help="the modulus (default: 113)")
    parser.add_argument("--precision", choices=config.PRECISIONS, default="float32", help="of products")
    parser.add_argument("--json", type=Path, metavar="FILE", help="put the figures there too")
    record = command.run(parser, measure, page, argv)
    if path := parser.parse_args(argv).json:
        files.put((json.dumps(record, indent=1) + "\n").encode(), path)


if __name__ == "__main__":
    terminal.guarded(main, sys.argv[1:])
