"""What is timed: runs of the paper's mainline, or of models that differ from it in size."""

from collections.abc import Sequence

import jax

from grokjax import config, sweeps
from grokjax.core.problem import Problem
from grokjax.sweeps import Run
from grokjax.training import layouts
from grokjax.training.population import Population


def configured(n_runs: int, **fields):
    """The config of the paper's mainline with so many seeds.

    Args:
      n_runs: how many.
      fields: that differ, with a model's by their last name (p=53, d_model=64).
    """
    c = config.default()
    for name, value in fields.items():
        (c.model if name in c.model else c)[name] = value
    c.sweep.seed = tuple(range(n_runs))
    return c


def mainline(n_runs: int, **fields) -> tuple[Problem, tuple[Run, ...]]:
    """What the runs of `configured` share, and the runs."""
    runs = sweeps.expand(configured(n_runs, **fields)).runs
    return runs[0].problem(), runs


def populated(problem: Problem, runs: Sequence[Run], devices: Sequence[jax.Device] | None = None) -> Population:
    """These runs as a population, one slot each, laid out as grokjax chooses; before their first step.

    Args:
      problem: what the runs share.
      runs: any number; a multiple of the devices' fills every slot.
      devices: by default a CPU's as far as there are runs for them, which is how launch.py trains; of accelerators one.
    """
    on_cpu = jax.default_backend() == "cpu"
    devices = devices or jax.local_devices()[: len(runs) if on_cpu else 1]
    layout = layouts.choose(problem, len(runs), slots=-(-len(runs) // len(devices)), devices=devices)
    result = Population(problem, layout, devices)
    result.start({i: run.inputs() for i, run in enumerate(runs)})
    return result


def train(runs: Population, n_steps: int) -> None:
    """Steps of a whole population, without evaluation."""
    runs.advance(range(runs.layout.width), 1, n_steps, evaluate=False)
    jax.block_until_ready(runs.state)


def evaluate(runs: Population, n_times: int) -> None:
    """Evaluations of a whole population, each a dispatch of no steps."""
    for _ in range(n_times):
        row = runs.advance(range(runs.layout.width), 1, 0)
    jax.block_until_ready(row)
