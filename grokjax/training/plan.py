"""The plan of a sweep: what is about to happen, how large it will be, before anything does."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grokjax.core import model
from grokjax.core.native import kernels
from grokjax.core.problem import Problem, Shape
from grokjax.errors import one_line
from grokjax.measures import registry
from grokjax.sweeps import Sweep


def plan(sweep: Sweep, shapes: Sequence[Shape], environment: dict[str, Any], workdir: Path, width: str = "") -> str:
    """What is about to happen, before anything does.

    Args:
      sweep: all runs.
      shapes: each group's layout.
      environment: as `workdir.environment` gives it.
      workdir: where results go.
      width: how the first group's layout was chosen, if there is anything to say about that.
    """
    base = sweep.base
    axes = " × ".join(f"{len(values)} {path}" for path, values in sweep.axes.items())
    n_groups = len(sweep.groups())
    first = sweep.runs[0].problem()
    cfg = first.model
    is_product = len(sweep.runs) == math.prod(len(values) for values in sweep.axes.values())
    runs = f"{len(sweep.runs)}{f' = {axes}' if axes and is_product else ''}"
    rows = sum(run.steps // run.values["eval_every"] + 1 for run in sweep.runs)
    run_steps = sum(run.steps for run in sweep.runs)
    shape = shapes[0]
    threads = f" with {environment['cpu_threads']} threads" if environment["platform"] == "cpu" else ""
    varies = " (first group)" if n_groups > 1 else ""
    lines = {
        "runs": f"{runs}, in {_count(n_groups, 'compiled group')}",
        "model": f"{_count(cfg.n_layers, 'layer')}, d_model {cfg.d_model}, {cfg.n_heads} heads, d_mlp {cfg.d_mlp}, "
        f"{cfg.act}{varies}",
        "task": f"{base['task']} mod {cfg.p}, {first.n_train:,} of {cfg.p**2:,} pairs to train on{varies}",
        "training": f"{run_steps:,} run-steps in all, evaluated every {first.eval_every} steps: {rows:,} rows",
        "device": f"{shape.n_devices} × {environment['device_kind']}{threads}, {sweep.precision}, "
        f"{_count(shape.slots, 'slot')} per device in lanes of {shape.lanes}",
        **({"width": f"{width}{varies}"} if width else {}),
        **({"gradient": f"{_gradient(first, shape)}{varies}"} if environment["platform"] == "cpu" else {}),
        "disk": f"about {_size(metrics_bytes(sweep))} of metrics and {_size(snapshot_bytes(sweep))} of snapshots "
        f"in {one_line(str(workdir))}",
    }
    return "\n".join(f"{name:>9}  {text}" for name, text in lines.items())


def _gradient(problem: Problem, shape: Shape) -> str:
    """How a CPU takes the gradient, and what would make it faster."""
    if shape.n_parts:
        return f"in C++, by {kernels.identity()}"
    if problem.precision != "float32" or not kernels.suits(problem.model):
        return "by XLA"
    why = kernels.unavailable() or "this sweep began so, or its processes have different compilers"
    return f"by XLA, which is slower than the C++ of grokjax.native: {why}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def metrics_bytes(sweep: Sweep) -> int:
    """Expected size of the metrics, in bytes: float32 does not compress."""
    total = 0
    columns = registry.metrics_columns(sweep.base["measures"]).values()
    for runs in sweep.groups():
        problem = runs[0].problem()
        dims = {name: dim(problem.model) for name, dim in registry.DIMS.items()}
        row = sum(math.prod(dims[d] for d in m.shape) * (4 if m.dtype != "bool" else 1 / 8) for m in columns)
        total += int(sum(run.steps // problem.eval_every + 1 for run in runs) * row)
    return total


def snapshot_bytes(sweep: Sweep) -> int:
    """Size of the snapshots, in bytes: parameters at step 0, every snapshot_every steps, and the last step."""
    total = 0
    for runs in sweep.groups():
        cfg = runs[0].problem().model
        one = 4 * model.n_parameters(cfg.p, cfg.n_layers, cfg.d_model, cfg.d_mlp)
        every = sweep.base["snapshot_every"]
        total += one * sum(1 + -(-run.steps // every) for run in runs)
    return total
