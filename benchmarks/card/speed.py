"""Run-steps per second by width and precision, and what an evaluation, a compilation and memory cost."""

import concurrent.futures
import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import apart, mainline, timing
from benchmarks.card import programs
from benchmarks.card.tasks import Setting, Task
from benchmarks.markdown import number, table
from benchmarks.timing import Contestant
from grokjax import config
from grokjax.training import layouts

WIDTHS, DRY_WIDTHS = (64, 256, 8, 1, 512, 1024, 32, 128), (2, 1)  # in order of worth
LEFT_TO_TIME = 15.0  # seconds of a task that are not for compiling
ROUNDS, SECONDS = 5, 0.3  # of each program at each width, and how long a visit should take


def tasks(setting: Setting) -> list[Task]:
    """One for the training at each width, in every precision, and one for all else there."""
    widths = DRY_WIDTHS if setting.dry else WIDTHS
    return [
        task
        for width in widths
        for task in (
            Task(f"train {width}", train, (setting.dry, width), apart.COLD),
            Task(f"evaluate {width}", evaluate, (setting.dry, width), apart.COLD),
        )
    ]


def train(dry: bool, width: int, seconds: float) -> dict[str, Any]:
    """Run-steps per second of so many runs in every precision, visited in turn, without evaluations."""
    deadline = time.monotonic() + seconds
    built, missing = _built(dry, width, seconds - LEFT_TO_TIME)
    times = timing.measure(built, 2 if dry else ROUNDS, 0.01 if dry else SECONDS, deadline=deadline - 5)
    rates = {key: timing.spread(1 / values) for key, values in times.items()}
    return {"run_steps_per_s": rates, "missing": missing, "on": programs.circumstances()}


def _built(dry: bool, width: int, seconds: float) -> tuple[list[Contestant], dict[str, str]]:
    """A population of each precision, compiled side by side, and why others are missing."""
    built, missing = [], {}
    pool = concurrent.futures.ThreadPoolExecutor(len(config.PRECISIONS))
    futures = {name: pool.submit(_contestant, dry, width, name) for name in config.PRECISIONS}
    concurrent.futures.wait(futures.values(), timeout=max(0.0, seconds))
    for name, future in futures.items():
        if not future.done():
            missing[name] = "no time left to compile it"
        elif error := future.exception():  # whatever a device that lacks it, or its memory, says
            missing[name] = str(error).partition("\n")[0][:300]
        else:
            built.append(future.result())
    pool.shutdown(wait=False, cancel_futures=True)
    if not built:
        raise RuntimeError(f"no precision could be timed: {missing}")
    return built, missing


def _contestant(dry: bool, width: int, precision: str) -> Contestant:
    problem, runs = programs.of(dry, width, measures=(), precision=precision)
    population = mainline.populated(problem, runs)
    mainline.train(population, 1)
    return Contestant(precision, precision, functools.partial(mainline.train, population), width, least=5)


def evaluate(dry: bool, width: int, seconds: float) -> dict[str, Any]:
    """The whole program of a sweep at this width in float32: its compilation, an evaluation, its memory."""
    marks = [time.monotonic()]
    problem, runs = programs.of(dry, width)
    population = mainline.populated(problem, runs)
    jax.block_until_ready(population.state)
    marks.append(time.monotonic())
    mainline.evaluate(population, 1)
    marks.append(time.monotonic())
    evaluations = Contestant("evaluation", "evaluation", functools.partial(mainline.evaluate, population))
    times = timing.measure([evaluations], 2 if dry else ROUNDS, 0.01 if dry else SECONDS)
    mainline.train(population, apart.STEPS)
    device = jax.local_devices()[0]
    draw_s, first_s = (end - start for start, end in itertools.pairwise(marks))
    return {
        "evaluation_s": timing.spread(times["evaluation"]),
        "draw_s": draw_s,
        "compile_s": max(0.0, first_s - float(np.median(times["evaluation"]))),
        "peak_bytes": apart.peak_bytes(device),
        "estimated_bytes": layouts.needed_bytes(problem, population.layout),
        "memory": {key: int(value) for key, value in (device.memory_stats() or {}).items()},
        "on": programs.circumstances(),
    }


def page(figures: Mapping[str, Any]) -> str:
    """The figures as Markdown: a row for each width."""
    widths = sorted({int(key.split()[1]) for key in figures})
    header = ["runs side by side", *config.PRECISIONS, "evaluation, s", "compilation, s", "peak, GB", "estimate, GB"]
    return table(header, [_row(figures, width) for width in widths], numbers=len(header))


def _row(figures: Mapping[str, Any], width: int) -> Sequence[object]:
    trained, evaluated = figures.get(f"train {width}", {}), figures.get(f"evaluate {width}", {})
    rates = trained.get("run_steps_per_s", {})
    cells = [number(rates[name]["median"]) if name in rates else "not measured" for name in config.PRECISIONS]
    if "evaluation_s" not in evaluated:
        return [width, *cells, *["not measured"] * 4]
    cells += [number(evaluated["evaluation_s"]["median"]), number(evaluated["compile_s"])]
    return [width, *cells, *(number(evaluated[name] / 1e9) for name in ("peak_bytes", "estimated_bytes"))]
