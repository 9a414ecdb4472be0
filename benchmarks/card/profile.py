"""What a training step and an evaluation at width 64 are made of: kernels, their time, and the gaps between them."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks import apart, mainline
from benchmarks.card import programs
from benchmarks.card.tasks import Setting, Task
from benchmarks.markdown import number, percent, table

WIDTH, DRY_WIDTH = 64, 2
STEPS, EVALUATIONS = 20, 1
TOP = 40  # kernels that are kept
WITHOUT_GRAPHS = "--xla_gpu_enable_command_buffer="  # CUDA graphs hide their kernels from some profilers
PROGRAMS = (("float32", ""), ("bfloat16_6x", ""), ("float32", WITHOUT_GRAPHS))
PRODUCT = re.compile(r"gemm|cutlass|cublas|xmma|nvjet|(^|_)dot(_|$|\.)", re.IGNORECASE)


class Kernel(NamedTuple):
    """One launch on the device, in nanoseconds."""

    name: str
    start: float
    end: float


def tasks(setting: Setting) -> list[Task]:
    """One for each precision, and one without CUDA graphs."""
    found = []
    for precision, flags in PROGRAMS[:1] if setting.dry else PROGRAMS:
        key = f"{precision}{', no CUDA graphs' * bool(flags)}"
        found.append(Task(key, profiled, (setting.dry, precision), apart.COLD | {"XLA_FLAGS": flags}))
    return found


def profiled(dry: bool, precision: str, seconds: float) -> dict[str, Any]:
    """Kernels of a training step and of an evaluation."""
    width = DRY_WIDTH if dry else WIDTH
    population = mainline.populated(*programs.of(dry, width, precision=precision))
    mainline.evaluate(population, 1)
    mainline.train(population, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            mainline.train(population, STEPS)
        step = summary(_kernels(Path(folder)), STEPS)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            mainline.evaluate(population, EVALUATIONS)
        evaluation = summary(_kernels(Path(folder)), EVALUATIONS)
    return {"width": width, "step": step, "evaluation": evaluation, "on": programs.circumstances()}


def _kernels(folder: Path) -> list[Kernel]:
    """What ran on the device while it was traced: on streams of a GPU, or XLA's own threads of a CPU."""
    found = []
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                if _is_device(plane.name, line.name):
                    found += [Kernel(e.name, e.start_ns, e.start_ns + e.duration_ns) for e in line.events]
    return sorted(found, key=lambda kernel: kernel.start)


def _is_device(plane: str, line: str) -> bool:
    if plane.startswith("/device:GPU"):
        return line.startswith("Stream")
    return plane == "/host:CPU" and "XLA" in line.upper() and jax.default_backend() == "cpu"


def summary(kernels: Sequence[Kernel], n: int) -> dict[str, Any]:
    """Time by kind of kernel, per step or evaluation of `n`."""
    times: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for kernel in kernels:
        times[kernel.name] = times.get(kernel.name, 0.0) + kernel.end - kernel.start
        counts[kernel.name] += 1
    total = sum(times.values())
    products = sum(time for name, time in times.items() if PRODUCT.search(name))
    span = max(k.end for k in kernels) - min(k.start for k in kernels) if kernels else 0
    return {
        "kernels": len(kernels) / n,
        "span_us": span / n / 1e3,
        "busy_us": busy(kernels) / n / 1e3,
        "products_us": products / n / 1e3,
        "rest_us": (total - products) / n / 1e3,
        "top": [
            {"name": name[:200], "count": counts[name] / n, "us": time / n / 1e3}
            for name, time in sorted(times.items(), key=lambda item: -item[1])[:TOP]
        ],
    }


def busy(kernels: Iterable[Kernel]) -> float:
    """Nanoseconds in which at least one kernel ran; `kernels` by their start."""
    found, until = 0.0, 0.0
    for kernel in kernels:
        found += max(0.0, kernel.end - max(kernel.start, until))
        until = max(until, kernel.end)
    return found


HEADER = ["", "kernels", "µs", "busy", "products, µs", "rest, µs"]


def page(figures: Mapping[str, Any]) -> str:
    """The figures as Markdown: a row for a step and an evaluation of each precision, then the longest kernels."""
    rows, longest = [], []
    for key, figure in figures.items():
        for what in ("step", "evaluation"):
            one = figure[what]
            share = percent(one["busy_us"] / one["span_us"]) if one["span_us"] else "–"
            cells = [number(one["kernels"]), number(one["span_us"]), share]
            rows.append(
                [f"{what} ×{figure['width']}, {key}", *cells, *map(number, (one["products_us"], one["rest_us"]))]
            )
        longest += [[key, k["name"][:60], number(k["count"]), number(k["us"])] for k in figure["step"]["top"][:8]]
    return f"{table(HEADER, rows, 5)}\n\n{table(['', 'kernel of a step', 'launches', 'µs'], longest, 2)}"
