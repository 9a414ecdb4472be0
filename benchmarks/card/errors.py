"""How far losses, three steps' weights and measures are from float64, which the host's CPU computes.

Size letters: R runs.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import apart, mainline
from benchmarks.card import programs
from benchmarks.card.tasks import Setting, Task
from benchmarks.markdown import table
from grokjax import config
from grokjax.core.problem import State
from grokjax.training import one_run

WIDTH, STEPS = 4, 3
TRAINED_STEPS, DRY_STEPS = 10_000, 20  # of which the second state is: past grokking
LOSSES = ("train_loss", "test_loss")
TOP = 3  # measures that the table names


def tasks(setting: Setting) -> list[Task]:
    """One at the first step, one where runs have grokked."""
    late = DRY_STEPS if setting.dry else TRAINED_STEPS
    platforms = os.environ.get("JAX_PLATFORMS", "")
    both = {"JAX_PLATFORMS": f"{platforms},cpu"} if platforms and "cpu" not in platforms.split(",") else {}
    return [Task(f"step {n}", compared, (setting.dry, n), apart.COLD | both) for n in (0, late)]


def compared(dry: bool, n_steps: int, seconds: float) -> dict[str, Any]:
    """Relative errors from a state `n_steps` into training: by precision, and of the measures in float32."""
    problem, runs = programs.of(dry, WIDTH)
    population = mainline.populated(problem, runs)
    if n_steps:
        mainline.train(population, n_steps)
    every = range(WIDTH)
    start = jax.device_get(population.take(every))
    measured = {name: np.asarray(x[0]) for name, x in population.advance(every, 1, 0).items()}
    found, missing = {}, {}
    for name in config.PRECISIONS:
        try:
            found[name] = _steps(dry, name, start)
        except Exception as error:  # whatever a device that lacks it says
            missing[name] = str(error).partition("\n")[0][:300]
    del population
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        exact_measures, exact = _exact(dry, start)
    return {
        "precisions": {name: _errors(start.params, steps, exact) for name, steps in found.items()},
        "measures": {name: relative(value, exact_measures[name]) for name, value in measured.items()},
        "losses": {name: exact_measures[name].tolist() for name in LOSSES},
        "missing": missing,
        "on": programs.circumstances(),
    }


def _steps(dry: bool, precision: str, start: State) -> list[dict[str, Any]]:
    """Parameters and losses of all runs after each step, by the program that trains."""
    population = mainline.populated(*programs.of(dry, WIDTH, measures=(), precision=precision))
    every = range(WIDTH)
    population.restore(start, every)
    steps = []
    for _ in range(STEPS):
        row = population.advance(every, 1, 1)
        steps.append(
            {
                "params": jax.device_get(population.take(every).params),
                **{name: np.asarray(row[name][0]) for name in LOSSES},
            }
        )
    return steps


def _exact(dry: bool, start: State) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The measures at `start`, and what `_steps` gives, in float64."""
    problem, _ = programs.of(dry, WIDTH)
    losses, _ = programs.of(dry, WIDTH, measures=())
    step = jax.jit(lambda state: one_run.train(losses, state, 1))
    measure = jax.jit(lambda state: one_run.evaluate(problem, state))
    test = jax.jit(lambda state: one_run.evaluate(losses, state))
    measures, runs = [], []
    for run in range(WIDTH):
        state = jax.tree.map(lambda x, run=run: jnp.asarray(_wide(x[run])), start)
        measures.append(measure(state))
        steps = []
        for _ in range(STEPS):
            state = step(state)
            steps.append({"params": state.params} | {name: test(state)[name] for name in LOSSES})
        runs.append(steps)
    return jax.tree.map(lambda *x: np.stack(x), *measures), jax.tree.map(lambda *x: np.stack(x), *runs)


def _wide(x):
    return np.asarray(x, np.float64) if np.issubdtype(np.asarray(x).dtype, np.floating) else x


def _errors(start: Mapping[str, np.ndarray], steps: list[dict[str, Any]], exact: list[dict[str, Any]]):
    """By step: the largest relative errors of losses and weights, and that of the way gone since the start."""
    return [
        {name: relative(got[name], want[name]) for name in LOSSES}
        | {
            "weights": max(relative(got["params"][key], want["params"][key]) for key in start),
            "way": max(_way(start, got["params"], want["params"], run) for run in range(WIDTH)),
        }
        for got, want in zip(steps, exact, strict=True)
    ]


def _way(start: Mapping[str, np.ndarray], got: Mapping[str, Any], want: Mapping[str, Any], run: int) -> float:
    """|got - want| / |want - start| of one run, over all its weights."""
    off = sum(float(np.sum(np.square(np.asarray(got[key][run], float) - want[key][run]))) for key in start)
    way = sum(float(np.sum(np.square(want[key][run] - np.asarray(start[key][run], float)))) for key in start)
    return float(np.sqrt(off / way)) if way else float(off > 0)  # the first step of a warm-up goes nowhere


def relative(got: np.ndarray, want: np.ndarray) -> float:
    """The largest error as a share of the largest value; of flags and counts the share that differs."""
    got, want = np.asarray(got), np.asarray(want)
    if not np.issubdtype(want.dtype, np.floating):
        return float(np.mean(got != want))
    both = np.isfinite(want)
    if (np.isfinite(got) != both).any():
        return float("inf")
    largest = np.max(np.abs(want[both]), initial=0)
    return float(np.max(np.abs(got[both].astype(float) - want[both]), initial=0) / (largest or 1))


def page(figures: Mapping[str, Any]) -> str:
    """The figures as Markdown: a row for each precision, and the measures that are furthest off."""
    rows, worst = [], []
    for key, figure in figures.items():
        for name, steps in figure.get("precisions", {}).items():
            last = steps[-1]
            rows.append([key, name, *(f"{last[what]:.1e}" for what in (*LOSSES, "weights", "way"))])
        off = sorted(figure.get("measures", {}).items(), key=lambda item: -item[1])[:TOP]
        worst += [f"{key}: " + ", ".join(f"{name} {error:.1e}" for name, error in off)] if off else []
    header = ["from", "precision", "train loss", "test loss", "weights", "way of three steps"]
    return table(header, rows, numbers=4) + "\n\nMeasures furthest off, in float32: " + "; ".join(worst) + "."
