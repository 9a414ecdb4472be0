"""What one sees: the plan, the progress, the summary."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from grokjax import model, results
from grokjax.errors import one_line, plain
from grokjax.measures import registry
from grokjax.native import kernels as native
from grokjax.population import Shape
from grokjax.results import Ledger
from grokjax.sweeps import Sweep
from grokjax.training import Problem

LINE_SECONDS = 15.0  # between lines where the output is no terminal


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
        return f"in C++, by {native.identity()}"
    if problem.precision != "float32" or not native.suits(problem.model):
        return "by XLA"
    why = native.unavailable() or "this sweep began so, or its processes have different compilers"
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
    columns = results.metrics_columns(sweep.base["measures"]).values()
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


def duration(seconds: float) -> str:
    """42 s, 3 min 10 s, 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def tell(console: Console, text: str) -> None:
    """Prints text as it is: no markup, no emoji, and nothing in it steers the terminal."""
    console.print(Text(plain(text)), highlight=False, soft_wrap=True)


class LiveProgress:
    """Progress of a sweep: one live line in a terminal, a plain line now and then elsewhere.

    Args:
      console: where to.
      ledger: of the runs.
      run_steps: in the whole sweep.
      done: of them, done before this start.
    """

    def __init__(self, console: Console, ledger: Ledger, run_steps: int, done: int = 0):
        self.console, self.ledger, self.total, self.done = console, ledger, run_steps, done
        self._rate: float | None = None
        self._printed = time.monotonic()
        self._estimated = False
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"))
        self._rich = RichProgress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._rich.add_task("", total=run_steps, completed=done, text="compiling") if self._rich else None

    def __enter__(self):
        if self._rich:
            self._rich.start()
        else:
            self.say("compiling …")
        return self

    def __exit__(self, *_):
        if self._rich:
            self._rich.stop()

    def advanced(self, run_steps: int, seconds: float | None) -> None:
        """See `scheduler.Progress`."""
        self.done += run_steps
        if seconds and run_steps:
            rate = run_steps / seconds
            weight = min(1.0, seconds / 20)  # a moving average over about 20 s
            self._rate = rate if self._rate is None else (1 - weight) * self._rate + weight * rate
        if self._rich and self._task is not None:
            self._rich.update(self._task, completed=self.done, text=self.text())
        elif time.monotonic() - self._printed > LINE_SECONDS or (self._rate and not self._estimated):
            self._printed, self._estimated = time.monotonic(), self._rate is not None
            self.say(f"{100 * self.done / self.total:3.0f} %  {self.text()}")

    def text(self) -> str:
        """Runs done, speed, time left, runs memorised and grokked."""
        ledger, n = self.ledger, len(self.ledger.records)
        over = sum(map(ledger.over, ledger.records))
        parts = [
            f"{over}/{n} runs",
            f"{ledger.count('memorised_step')} memorised",
            f"{ledger.count('grokked_step')} grokked",
        ]
        if self._rate:
            parts[1:1] = [f"{self._rate:,.0f} run-steps/s", f"{duration((self.total - self.done) / self._rate)} left"]
        return ", ".join(parts)

    def say(self, text: str) -> None:
        """See `scheduler.Progress`."""
        tell(self.console, text)


def summary(runs: pd.DataFrame, axes: Sequence[str]) -> Table:
    """Per setting (seeds pooled): runs, memorised, grokked, median and range of the step to 99 % test accuracy.

    Args:
      runs: as `results.read_runs` gives it.
      axes: the swept fields.
    """
    by = [path for path in axes if not path.endswith("seed")]
    table = Table(box=None, pad_edge=False)
    any_diverged = bool((runs["status"] == "diverged").any())
    columns = ["runs", *["diverged"] * any_diverged, "memorised", "grokked", "grok step", "range"]
    for name in [*by, *columns]:
        table.add_column(name, justify="right")
    for setting, group in runs.groupby(by, sort=True, dropna=False) if by else [((), runs)]:
        steps = group["grokked_step"].dropna()
        table.add_row(
            *(Text(plain(str(value))) for value in setting),
            str(len(group)),
            *[str((group["status"] == "diverged").sum())] * any_diverged,
            str(int(group["memorised_step"].notna().sum())),
            str(len(steps)),
            f"{steps.median():,.0f}" if len(steps) else "–",
            f"{steps.min():,.0f} – {steps.max():,.0f}" if len(steps) else "–",
        )
    return table
