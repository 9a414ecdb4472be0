"""Speeds: what steps and compilation take on this machine, remembered, so that a plan can say how long a sweep takes.

A group's own clock measures them while it trains (`Clock`), or `measure` does within a minute; the user's cache folder
keeps them for each kind of machine and program. Nothing but estimates follows from them: no layout and no bit does.
"""

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from grokjax.core import cache, devices
from grokjax.core.problem import Problem
from grokjax.sweeps import Run
from grokjax.training import plan as plan_lib
from grokjax.training import population, starting, tune
from grokjax.training.layouts import Layout
from grokjax.training.plan import Plan
from grokjax.training.progress import duration
from grokjax.training.tune import Say

KIND = "speeds"  # of figures, in the cache folder
TIMING_SECONDS = 1.0  # of one timing, at least
TIMINGS = 5  # of which the median counts
MOST_GROUPS = 20  # told one by one


@dataclasses.dataclass(frozen=True)
class Speed:
    """What a group's program takes.

    Attributes:
      step: seconds of a step of runs that train together under one vmap, on all devices at once, with its share of
        evaluations, snapshots and final keys.
      compilation: seconds from a group's start to its first results, the longest seen: where the program is in the
        cache of compiled ones it takes less.
    """

    step: float
    compilation: float


def key(problem: Problem, settings: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """Describes what a speed depends on: the machine, the program, how often it evaluates and keeps snapshots.

    Args:
      problem: of a group.
      settings: of the sweep, `Sweep.base`.
      layout: of the group.
    """
    described = tune.signature(problem, jax.devices()[0]) | {
        "problem": dataclasses.asdict(problem),
        "every": {name: settings[name] for name in ("snapshot_every", "slow_every")},
        "layout": {name: n for name, n in layout.record().items() if name != "slots"},  # which follow one another
        "cores": devices.n_cores(),
        "processor": cache.folder().name,
    }
    return json.loads(json.dumps(described))


def read(key: Mapping[str, Any]) -> Speed | None:
    """The speed in the cache; None where there is none, or it is damaged."""
    found = cache.recall(KIND, key)
    step, compilation = found.get("step"), found.get("compilation")
    if not (isinstance(step, float) and isinstance(compilation, float)):
        return None
    return Speed(step, compilation) if 0 < step < math.inf and 0 <= compilation < math.inf else None


def keep(key: Mapping[str, Any], step: float, compilation: float | None) -> None:
    """Keeps a speed for the next plan, and the longest compilation."""
    known = read(key)
    longest = max(compilation or 0.0, known.compilation if known else 0.0)
    cache.keep(KIND, key, {"step": float(f"{step:.4g}"), "compilation": float(f"{longest:.4g}")})


class Clock:
    """Times a group in training, all that it does included."""

    def __init__(self):
        self._started, self._compiled = time.monotonic(), 0.0
        self._compilation: float | None = None
        self._steps = 0

    def took_in(self, layout: Layout, slots: Iterable[int], n_steps: int) -> None:
        """Takes in the results of some steps of the runs in these slots of all processes; 0 for an evaluation alone."""
        now = time.monotonic()
        if not self._compiled:  # by now everything is
            self._compiled = now
            self._compilation = None if n_steps else now - self._started
        else:
            self._steps += n_steps * busiest(layout, slots)

    def keep(self, key: Mapping[str, Any]) -> None:
        """Keeps the speed so far, if there is one."""
        if self._steps:
            keep(key, (time.monotonic() - self._compiled) / self._steps, self._compilation)


def busiest(layout: Layout, slots: Iterable[int]) -> int:
    """How many sets of runs under one vmap follow one another on the device that has most of them."""
    sets = {slot // layout.vmap_width for slot in slots}
    per_device = layout.slots // layout.vmap_width
    return int(np.bincount([one // per_device for one in sets]).max()) if sets else 0


# --- estimates --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a group will take, from where it is.

    Attributes:
      runs: of the group.
      speed: of its program; None where nothing is known.
      done: steps that are trained already, by run.
    """

    runs: tuple[Run, ...]
    layout: Layout
    speed: Speed | None
    done: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @property
    def left(self) -> list[int]:
        """Steps of each run that are to be trained."""
        return [run.steps - self.done.get(run.run, 0) for run in self.runs]

    @property
    def training(self) -> float | None:
        """Seconds, if no run stops early."""
        if self.speed is None:
            return None
        return self.speed.step * steps_in_turn(self.left, self.layout)

    @property
    def seconds(self) -> float | None:
        """Of compilation and training."""
        if self.training is None or not self.speed:
            return None
        return self.speed.compilation + self.training if self.training else 0.0


def steps_in_turn(steps: Iterable[int], layout: Layout) -> int:
    """Steps of sets of runs that follow one another on the busiest device, for runs of so many steps each."""
    sets = sorted(steps, reverse=True)[:: layout.vmap_width]
    loads = [0] * layout.n_devices
    for one in sets:
        loads[loads.index(min(loads))] += one
    return max(loads)


def estimates(plan: Plan, done: Mapping[int, int] = MappingProxyType({})) -> list[Estimate]:
    """An estimate for each group of a plan, from what is in the cache.

    Args:
      plan: of a sweep.
      done: steps that are trained already, by run.
    """
    return [Estimate(runs, layout, read(key), done) for runs, layout, key in _groups(plan)]


def _groups(plan: Plan) -> list[tuple[tuple[Run, ...], Layout, dict[str, Any]]]:
    base = plan.job.sweep.base
    groups = zip(plan.job.sweep.groups(), plan.layouts, strict=True)
    return [(runs, layout, key(runs[0].problem(), base, layout)) for runs, layout in groups]


def text(plan: Plan, found: list[Estimate]) -> str:
    """The estimates in lines to read, to stand below the plan."""
    known = [one for one in found if one.speed]
    lines = [_total(found, known)]
    if len(found) > 1:
        lines += [f"{_name(plan, one)}: {_one(one)}" for one in found[:MOST_GROUPS]]
        lines += [f"and {len(found) - MOST_GROUPS} more groups"] * (len(found) > MOST_GROUPS)
    return "\n".join(f"{'' if i else 'time':>9}  {line}" for i, line in enumerate(lines))


def _total(found: list[Estimate], known: list[Estimate]) -> str:
    left, whole = sum(sum(one.left) for one in found), sum(run.steps for one in found for run in one.runs)
    if not left:
        return "none: every run is trained"
    if not known:
        return "not known: no such program has been timed on this machine; --plan=measure does, in about a minute"
    rest = f" for the {left:,} run-steps that are left" if left < whole else ""
    seconds = f"{duration(sum(one.seconds or 0 for one in known))}{rest}"
    if len(found) == 1:
        return f"about {seconds}, as timed on this machine: {_one(found[0])}"
    unknown = len(found) - len(known)
    others = f"; {unknown} of {len(found)} groups are not known, which --plan=measure times" if unknown else ""
    return f"about {seconds}, as timed on this machine, one group after another{others}"


def _one(one: Estimate) -> str:
    if one.speed is None or one.training is None:
        return "not known"
    return f"compilation {duration(one.speed.compilation)} at most, training {duration(one.training)}"


def _name(plan: Plan, one: Estimate) -> str:
    """A group by what tells it from the others."""
    shared = {path: one.runs[0].values[path] for path in plan.job.sweep.axes}
    shared = {path: value for path, value in shared.items() if all(run.values[path] == value for run in one.runs)}
    names = ", ".join(f"{path} {value}" for path, value in shared.items())
    return f"{len(one.runs)} run{'s' * (len(one.runs) > 1)}{f' of {names}' * bool(names)}"


def record(plan: Plan, found: list[Estimate]) -> dict[str, Any]:
    """The plan and the estimates as JSON holds them; null for what is not known."""
    seconds = [one.seconds for one in found]
    left = sum(sum(one.left) for one in found)
    made = plan_lib.record(plan)
    made |= {"run_steps_left": left, "seconds": None if None in seconds else sum(filter(None, seconds))}
    for group, one in zip(made["groups"], found, strict=True):
        group |= {"compilation_seconds": one.speed and one.speed.compilation, "training_seconds": one.training}
    return made


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(plan: Plan, say: Say) -> None:
    """Compiles and times each group's program for some seconds, and keeps the speeds."""
    timed: list[Mapping[str, Any]] = []
    for runs, layout, key in _groups(plan):
        if key not in timed:
            say(f"timing {_name(plan, Estimate(runs, layout, None))} …")
            keep(key, *_timed(runs, layout, plan.job.sweep.base))
            timed.append(key)


def _timed(runs: tuple[Run, ...], layout: Layout, settings: Mapping[str, Any]) -> tuple[float, float]:
    """The seconds of a step, as `Speed` has it, and of compilation."""
    started = time.perf_counter()
    problem = runs[0].problem()
    trained = population.Population(problem, layout)
    firsts = [slot for slot in range(trained.width) if slot % layout.slots < layout.vmap_width]  # a set on each device
    trained.start({slot: starting.inputs(runs[i % len(runs)]) for i, slot in enumerate(firsts)})

    def seconds(n_steps: int, **how) -> float:
        before = time.perf_counter()
        jax.block_until_ready(trained.advance(firsts, 1, n_steps, **how))
        jax.block_until_ready(trained.state)
        return time.perf_counter() - before

    seconds(0, slow=[True])
    compilation = time.perf_counter() - started
    once = seconds(0)
    evaluation = once + (seconds(0, slow=[True]) - once) * problem.eval_every / settings["slow_every"]
    # Each snapshot is evaluated again with the run's final keys.
    share = 1 / problem.eval_every + 1 / settings["snapshot_every"]
    return _step_seconds(lambda n: seconds(n, evaluate=False)) + share * max(evaluation, 0.0), compilation


def _step_seconds(seconds: Callable[[int], float]) -> float:
    """The seconds of one step, among as many as take `TIMING_SECONDS`."""
    n_steps = 1
    while seconds(n_steps) < TIMING_SECONDS and n_steps < 1 << 20:
        n_steps *= 2
    return statistics.median(seconds(n_steps) for _ in range(TIMINGS)) / n_steps
