"""Tuning: the number of runs side by side on an accelerator, measured once per kind of device, then remembered.

The compiled training itself is timed with 8, 16, 32, … runs (a TPU: 1, 2, 4, …), until doubling gains little or memory
ends. On a TPU these are the runs of a set, and the sets follow one another; elsewhere they are all slots. The rates are
kept in the user's cache folder, and the choice follows from them and the number of runs alone, so that sweeps on one
kind of device get the same widths, which their bits depend on. A sweep's layout is recorded in its config.json; going
on with it never measures.

On a CPU nothing is measured: its timings are noisy, which bits must not depend on, and a width of 1 is fastest.
"""

import dataclasses
import gc
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np

from grokjax.core import cache, compiler, model
from grokjax.core import devices as devices_lib
from grokjax.core.problem import Inputs, Problem
from grokjax.sweeps import Run
from grokjax.training import layouts, starting
from grokjax.training.layouts import Layout
from grokjax.training.population import Population
from grokjax.version import __version__

Rates = dict[int, float | None]  # run-steps per second of one device, by width; None where its memory did not suffice
Say = Callable[[str], None]  # told what is going on; may raise to end it

SMALLEST = 8  # width measured, but on a TPU
SPILLING = 2  # times the width that a TPU's on-chip memory holds, by estimate, is the largest measured there
GAIN = 0.05  # of doubling, below which the climb ends
CLOSE = 0.03  # to the best rate, which is close enough for the smaller width
TIMING_SECONDS = 0.2  # of one timing, at least
TIMINGS = 5  # of which the median counts
SHORT = 60 * 1e13  # operations of a group that an accelerator does in about the minute that measuring takes


@dataclasses.dataclass(frozen=True)
class Choice:
    """A layout and where it comes from.

    Attributes:
      how: "given" by config.slots, "recorded" by the sweep, "cpu rule", "memory" (as many as fit, on a TPU into on-chip
        memory: too few runs or too little work to measure for, or not measured yet), "measured" or "cached".
      layout: the one chosen.
      text: about it, for the plan; empty where the layout says everything.
      rates: what was measured.
    """

    how: str
    layout: Layout
    text: str = ""
    rates: Mapping[int, float | None] = dataclasses.field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The choice as config.json holds it beside the layout."""
        return {"how": self.how} | ({"run_steps_per_second": dict(self.rates)} if self.rates else {})


def choose(
    runs: Sequence[Run], slots: int = 0, devices: Sequence[jax.Device] | None = None, say: Say | None = print
) -> Choice:
    """The layout of a group of runs on this machine, measured if need be.

    Args:
      runs: of one group.
      slots: runs per device; 0 chooses.
      devices: those to use, by default all of all processes; the first is measured.
      say: told how measuring goes; None only looks up what is known.
    """
    problem, devices = runs[0].problem(), list(devices or jax.devices())
    device, per_device = devices[0], -(-len(runs) // len(devices))

    layout = layouts.choose(problem, len(runs), slots, devices)
    if slots or layouts.on_cpu(device):
        return Choice("given" if slots else "cpu rule", layout)
    widths = widths_on(device, problem, per_device)
    if len(widths) == 1 or operations(runs) / len(devices) < SHORT:
        why = "too few runs" if len(widths) == 1 else "too little work"
        return Choice("memory", layout, f"{side_by_side(layout, device)}, as many as fit: {why} to measure for")
    found = table(problem, starting.inputs(runs[0]), widths, device, say)
    if found is None:
        return Choice("memory", layout, f"will be measured at the start; {side_by_side(layout, device)} fit")
    rates, is_new = found
    if layouts.on_tpu(device):
        layout = layouts.choose(problem, len(runs), 0, devices, best_set(rates, per_device))
    else:
        layout = layouts.choose(problem, len(runs), best(rates, per_device), devices)
    source = f"measured on this {device.device_kind}{'' if is_new else ', cached'}"
    return Choice("measured" if is_new else "cached", layout, f"{side_by_side(layout, device)}, {source}", rates)


def side_by_side(layout: Layout, device: jax.Device) -> str:
    """Says how many runs train side by side on each device."""
    of_all = f" of {layout.slots}" if layouts.on_tpu(device) else ""
    return f"{layout.vmap_width}{of_all} runs side by side" + " on each device" * (layout.n_devices > 1)


def widths_on(device: jax.Device, problem: Problem, n_runs: int) -> list[int]:
    """The widths to measure on a device for so many runs."""
    fitting = layouts.fitting(problem, device)
    if layouts.on_tpu(device):
        return ladder(n_runs, min(fitting, SPILLING * layouts.on_chip(problem)), 1)
    return ladder(n_runs, fitting)


def operations(runs: Sequence[Run]) -> float:
    """Floating-point operations of training a group to its end, roughly: 6 per parameter, position and pair."""
    problem = runs[0].problem()
    cfg = problem.model
    n_params = sum(math.prod(shape) for shape in model.shapes(cfg).values())
    positions = 1 if cfg.is_factored or not cfg.is_transformer else cfg.n_ctx
    return 6.0 * n_params * positions * problem.n_step * sum(run.steps for run in runs)


def ladder(n_runs: int, most: int, smallest: int = SMALLEST) -> list[int]:
    """The widths to measure: `smallest` and its doubles up to the number of runs, rounded up, and at most `most`."""
    widths = [min(smallest, 1 << (most.bit_length() - 1))]
    while widths[-1] < n_runs and 2 * widths[-1] <= most:
        widths.append(2 * widths[-1])
    return widths


def climb(widths: Sequence[int], rate: Callable[[int], float | None]) -> Rates:
    """The rates of growing widths, until doubling gains less than `GAIN` or memory does not suffice (None)."""
    rates: Rates = {}
    before = 0.0
    for width in widths:
        rates[width] = found = rate(width)
        if found is None or found < (1 + GAIN) * before:
            break
        before = found
    return rates


def best(rates: Mapping[int, float | None], n_runs: int) -> int:
    """Slots for so many runs: near the smallest width whose rate is close to the best, in equal waves.

    A last wave that is nearly empty would waste most of its time, so that waves are made equal: just below the width
    or, where one wave less is clearly quicker by the rates, just above.
    """
    known = {width: rate for width, rate in sorted(rates.items()) if rate is not None}
    if not known:
        return max(1, min(min(rates) // 2, n_runs))  # not even the smallest fits
    target = min(width for width, rate in known.items() if rate >= (1 - CLOSE) * max(known.values()))
    below, above = -(-n_runs // -(-n_runs // target)), -(-n_runs // max(1, n_runs // target))

    def seconds(slots: int) -> float:
        return -(-n_runs // slots) * slots / rate_at(rates, slots)

    return above if above <= max(known) and seconds(above) < (1 - CLOSE) * seconds(below) else below


def best_set(rates: Mapping[int, float | None], n_runs: int) -> int:
    """Runs of a set on a TPU: the smallest width that trains so many runs, the last set being full or not, fast."""
    seconds = {width: -(-n_runs // width) * width / rate for width, rate in sorted(rates.items()) if rate is not None}
    return next((width for width in seconds if (1 - CLOSE) * seconds[width] <= min(seconds.values())), 1)


def rate_at(rates: Mapping[int, float | None], slots: int) -> float:
    """Run-steps per second at any width: what a step takes is interpolated between those measured."""
    seconds = {width: width / rate for width, rate in sorted(rates.items()) if rate is not None}
    return slots / float(np.interp(slots, list(seconds), list(seconds.values()))) if seconds else math.nan


def _rounded(rate: float | None) -> str:
    return "out of memory" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def table(
    problem: Problem, inputs: Inputs, widths: Sequence[int], device: jax.Device, say: Say | None = print
) -> tuple[Rates, bool] | None:
    """The rates of these widths, as far as the climb goes, from the cache or measured now and cached.

    Args:
      problem: of the runs.
      inputs: of one of them.
      widths: to climb.
      device: where.
      say: told how measuring goes; None does not measure.

    Returns:
      The rates and whether any of them is new; None where some would have to be measured and may not.
    """
    key = signature(problem, device)
    known = _read(key)
    n_known = len(known)

    def rate(width: int) -> float | None:
        if width not in known:
            assert say
            if len(known) == n_known:
                say(
                    f"measuring how many runs side by side train fastest on this {device.device_kind}; each width is "
                    "compiled first. The result is kept for the next sweep; --config.slots=N does without."
                )
            say(f"  {width} runs …")
            known[width] = measure(problem, inputs, width, device)
            _write(key, known)  # at once, so that what is interrupted goes on from there
            say(f"  {width} runs: {_rounded(known[width])}{' run-steps/s' if known[width] else ''}")
        return known[width]

    if say is None and set(climb(widths, known.get)) - known.keys():
        return None
    return climb(widths, rate), len(known) > n_known


def measure(problem: Problem, inputs: Inputs, width: int, device: jax.Device) -> float | None:
    """Run-steps per second of the compiled training of `width` runs side by side on one device, without evaluations.

    The program is the sweep's own, evaluation included, so that memory is what the sweep will need.

    Returns:
      To four digits, as it is kept; None where the device's memory does not suffice.
    """
    try:
        return float(f"{_timed(problem, inputs, width, device):.4g}")
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
    gc.collect()  # what the failed program held
    return None


def _timed(problem: Problem, inputs: Inputs, width: int, device: jax.Device) -> float:
    runs = Population(problem, layouts.measurable(problem, width, device), [device])
    runs.start({slot: inputs._replace(seed=np.uint32(slot)) for slot in range(width)})

    def seconds(n_steps: int) -> float:
        started = time.perf_counter()
        runs.advance(range(width), 1, n_steps, evaluate=False)
        jax.block_until_ready(runs.state)
        return time.perf_counter() - started

    seconds(1)  # compiles
    n_steps = 1
    while seconds(n_steps) < TIMING_SECONDS and n_steps < 1 << 20:
        n_steps *= 2
    return width * n_steps / statistics.median(seconds(n_steps) for _ in range(TIMINGS))


def signature(problem: Problem, device: jax.Device) -> dict[str, Any]:
    """Describes what the rates depend on, as JSON holds it."""
    # Those that training steps depend on.
    update = ("optimizer", "gradient_transform", "schedule", "decay_to", "norm_constraint", "penalties")
    fields = ("model", "n_train", "batch_size", "loss", *update, "precision")
    problem_fields = dataclasses.asdict(problem)
    return json.loads(
        json.dumps(
            {
                "device_kind": device.device_kind,
                "memory_gib": round(devices_lib.memory(device) / 2**30),
                "versions": {"grokjax": __version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__},
                "xla_flags": os.environ.get("XLA_FLAGS", ""),
                "compiler_options": compiler.options(device.platform),
                "problem": {name: problem_fields[name] for name in fields},
                **({"attention": "pairs last"} if layouts.on_tpu(device) else {}),  # rates of another form are older
            }
        )
    )


def file_of(key: Mapping[str, Any]) -> Path:
    """The cache file of a signature's rates."""
    return cache.file_of("width", key)


def _read(key: Mapping[str, Any]) -> Rates:
    """The rates in the cache; none where it is damaged or cannot be read."""
    try:
        found = cache.recall("width", key).get("run_steps_per_second", {})
        rates = {int(width): rate for width, rate in found.items()}
        return rates if all(rate is None or (math.isfinite(rate) and rate > 0) for rate in rates.values()) else {}
    except (ValueError, TypeError, AttributeError):
        return {}


def _write(key: Mapping[str, Any], rates: Rates) -> None:
    """Keeps the rates, if that is possible."""
    cache.keep("width", key, {"run_steps_per_second": dict(sorted(rates.items()))})
