"""Plans: a job with each group's layout, and what is about to happen in words, before anything does."""

import dataclasses
import math
from typing import Any

import jax

from grokjax import tasks
from grokjax.core import backends, devices, model, precision
from grokjax.core.environment import environment
from grokjax.core.model import ModelConfig
from grokjax.core.native import kernels
from grokjax.core.problem import Problem
from grokjax.errors import InputError, one_line
from grokjax.measures import registry
from grokjax.store.extension import Extension
from grokjax.store.records import read_record
from grokjax.store.sweep import part_of
from grokjax.sweeps import Sweep
from grokjax.training import layouts, population, tune
from grokjax.training.job import Job
from grokjax.training.layouts import Layout
from grokjax.training.tune import Choice, Say


@dataclasses.dataclass(frozen=True)
class Plan:
    """A job with a layout for each of its groups.

    Attributes:
      job: to be done.
      choices: the layouts, in the order of `job.sweep.groups()`, and where they come from.
    """

    job: Job
    choices: tuple[Choice, ...]

    @property
    def layouts(self) -> list[Layout]:
        """The layout of each group."""
        return [choice.layout for choice in self.choices]


def make(job: Job, say: Say | None = None) -> Plan:
    """Chooses the layouts, the same in all processes.

    Args:
      job: to be done.
      say: told how measuring goes, and may raise to end it; None does not measure, which takes minutes.

    Raises:
      InputError: the devices lack a precision of the sweep, or the directory's config.json does not fit the sweep.
    """
    hosts = job.request.hosts
    platform = jax.devices()[0].platform
    for problem in {run.problem(): None for run in job.sweep.runs}:
        precision.require(problem.precision, platform)
    mine = _choices(job, say) if hosts.is_first else []
    told = hosts.all_gather([[one.how, one.layout.record(), one.text, list(one.rates.items())] for one in mine])[0]
    choices = [Choice(how, Layout.of(layout), text, dict(rates)) for how, layout, text, rates in told]
    # A run's bits must not depend on its slot: a compiler counts only if every process has the same.
    compiled = [choice.layout.backend for choice in choices if choice.layout.backend.n_parts]
    if compiled and len(set(hosts.all_gather(compiled[0].identity()))) > 1:
        choices = [
            dataclasses.replace(choice, layout=layouts.by_xla(choice.layout, runs[0].problem()))
            for choice, runs in zip(choices, job.sweep.groups(), strict=True)
        ]
    return Plan(job, tuple(choices))


def _choices(job: Job, say: Say | None) -> list[Choice]:
    """The layouts of the whole sweep's groups that the job's runs belong to: recorded, or chosen for this machine."""
    recorded = _recorded(job)
    of_run = {run.run: runs for runs in job.whole.groups() for run in runs}
    choices = []
    for first, *_ in job.sweep.groups():
        runs = of_run[first.run]
        found = next((recorded[run.run] for run in runs if run.run in recorded), None)
        choices.append(found or tune.choose(runs, job.whole.base["slots"], say=say))
    return choices


def _recorded(job: Job) -> dict[int, Choice]:
    """The layouts that the directory has on record, by run; none if it holds another sweep, or nothing yet."""
    record = None if job.request.overwrite else read_record(job.source)
    held = part_of(record, job.whole, longer=job.extension is not None) if record else None
    if not record or not held:
        return {}
    groups = held.groups()
    if len(record["groups"]) != len(groups):
        raise InputError(f"{job.source}/config.json has layouts of {len(record['groups'])} groups, not {len(groups)}.")
    found: dict[int, Choice] = {}
    for layout, runs in zip(record["groups"], groups, strict=True):
        relaid = layouts.relaid(Layout.of(layout), runs[0].problem(), jax.devices())
        found |= dict.fromkeys((run.run for run in runs), Choice("recorded", relaid))
    return found


def text(plan: Plan) -> str:
    """The plan in lines to read."""
    sweep, layout, width = plan.job.sweep, plan.layouts[0], plan.choices[0].text
    here = environment()
    axes = " × ".join(f"{len(values)} {path}" for path, values in sweep.axes.items())
    n_groups = len(sweep.groups())
    first = sweep.runs[0].problem()
    cfg = first.model
    is_product = len(sweep.runs) == math.prod(len(values) for values in sweep.axes.values())
    whole = len(plan.job.whole.runs)
    more = f" of {whole}" if len(sweep.runs) < whole else f" = {axes}" if axes and is_product else ""
    rows = sum(run.steps // run.values["eval_every"] + 1 for run in sweep.runs)
    run_steps = sum(run.steps for run in sweep.runs)
    threads = f" with {here['cpu_threads']} threads" if here["platform"] == "cpu" else ""
    varies = " (first group)" if n_groups > 1 else ""
    in_batches = f" in batches of {first.batch_size:,}" if first.batch_size else ""
    lines = {
        "runs": f"{len(sweep.runs)}{more}, in {_count(n_groups, 'compiled group')}",
        **({"extends": _extension(plan.job.extension, layout)} if plan.job.extension else {}),
        "model": f"{_model(cfg)}{varies}",
        "task": f"{tasks.said(tasks.name_of(sweep.runs[0].values), cfg.p)}, {first.n_train:,} of "
        f"{tasks.n_pairs(cfg.p, first.nonzero_b):,} pairs to train on{in_batches}{varies}",
        "training": f"{run_steps:,} run-steps in all, evaluated every {first.eval_every} steps: {rows:,} rows",
        **({"by": f"{update}{varies}"} if (update := _update(first)) else {}),
        "device": f"{layout.n_devices} × {here['device_kind']}{threads}, {sweep.precision}, "
        f"{_count(layout.slots, 'slot')} per device at vmap width {layout.vmap_width}",
        **({"width": f"{width}{varies}"} if width else {}),
        **({"gradient": f"{_gradient(first, layout)}{varies}"} if here["platform"] == "cpu" else {}),
        "disk": f"about {_size(metrics_bytes(sweep))} of metrics and {_size(snapshot_bytes(sweep))} of snapshots "
        f"{_states_said(sweep)}in {one_line(str(plan.job.path))}",
    }
    return "\n".join(f"{name:>9}  {text}" for name, text in lines.items())


def _extension(found: Extension, layout: Layout) -> str:
    """Says what is new, what stays, and where the recorded layout keeps the new runs from using the whole machine."""
    n, n_wide = len(found.held.runs), min(devices.n_cores(), len(found.whole.runs), devices.MOST_DEVICES)
    do = f"go{'es' * (n == 1)} on to step {found.whole.base['steps']:,}" if found.is_longer else f"stay{'s' * (n == 1)}"
    text = f"{n} run{'s that are' if n > 1 else ' that is'} there and {do}"
    if found.idle:
        text += f" ({found.idle} not asked for by this command)"
    text += f"; {found.n_new} new"
    if jax.devices()[0].platform == "cpu" and layout.n_devices < n_wide:
        had = _count(layout.n_devices, "device")
        text += f", on {had} as it was begun, since bits depend on it; a directory of their own would have {n_wide}"
    return text


def record(plan: Plan) -> dict[str, Any]:
    """The plan in numbers, as JSON holds it."""
    runs, groups = plan.job.sweep.runs, plan.job.sweep.groups()
    return {
        "workdir": str(plan.job.path),
        "runs": len(runs),
        "run_steps": sum(run.steps for run in runs),
        "metrics_bytes": metrics_bytes(plan.job.sweep),
        "snapshot_bytes": snapshot_bytes(plan.job.sweep),
        "final_state_bytes": final_state_bytes(plan.job.sweep),
        "groups": [
            {"runs": [run.run for run in some], "layout": choice.layout.record(), **choice.record()}
            for some, choice in zip(groups, plan.choices, strict=True)
        ],
    }


def _gradient(problem: Problem, layout: Layout) -> str:
    """Says by which code a CPU takes the gradient, and what would make it faster."""
    if compiler := layout.backend.identity():
        return f"in C++, by {compiler}"
    if wanted := backends.unsuited(problem):
        return f"by XLA, since the faster C++ of grokjax.core.native is for {wanted} alone"
    why = kernels.unavailable() or "this sweep began so, or its processes have different compilers"
    return f"by XLA, which is slower than the C++ of grokjax.core.native: {why}"


def _model(cfg: ModelConfig) -> str:
    """Says what a model is."""
    layers = _count(cfg.n_layers, "layer")
    if not (cfg.is_mlp and cfg.inputs == "one_hot"):
        layers += f", d_model {cfg.d_model}"
    if cfg.is_own:
        return f"{cfg.architecture}, {layers}, d_mlp {cfg.d_mlp}, {cfg.act}"
    if cfg.is_mlp:
        what = "one-hot tokens" if cfg.inputs == "one_hot" else f"{cfg.inputs} {cfg.embeddings} embeddings"
        dropout = ", dropout" if cfg.has_dropout else ""
        return f"MLP on {what}, {layers}, d_mlp {cfg.d_mlp}, {cfg.act}{dropout}"
    more = cfg.differs.replace("_", " ")
    return f"{layers}, {cfg.n_heads} heads, d_mlp {cfg.d_mlp}, {cfg.act}{f'; {more}' if more else ''}"


def _update(problem: Problem) -> str:
    """Says how weights are updated, and on what, where it is not as in the mainline; "" where it is."""
    mainline = Problem(problem.model, problem.n_train)
    words = {
        "loss": problem.loss,
        "optimizer": problem.optimizer,
        "gradient_transform": f"gradients through {problem.gradient_transform}",
        "penalties": f"{' and '.join(problem.penalties)} penalty",
        "schedule": f"{problem.schedule} schedule",
        "decay_to": "decay towards the initial weights",
        "norm_constraint": "the norm of all weights constrained",
        "label_noise": "label noise",
        "is_started": "from given weights",
    }
    differ = [name for name in words if getattr(problem, name) != getattr(mainline, name)]
    return ", ".join(
        text for name, text in words.items() if differ and (name in differ or name in ("loss", "optimizer"))
    )


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
        dims = {name: dim(problem) for name, dim in registry.DIMS.items()}
        row = sum(math.prod(dims[d] for d in m.shape) * (4 if m.dtype != "bool" else 1 / 8) for m in columns)
        total += int(sum(run.steps // problem.eval_every + 1 for run in runs) * row)
    return total


def _states_said(sweep: Sweep) -> str:
    return f"and {_size(final_state_bytes(sweep))} of final states " if sweep.base["keep_final_state"] else ""


def final_state_bytes(sweep: Sweep) -> int:
    """Size of the final states of all runs, in bytes; 0 where they are not kept."""
    if not sweep.base["keep_final_state"]:
        return 0
    total = 0
    for runs in sweep.groups():
        state = population.blank(runs[0].problem())
        kept = jax.tree.leaves((state.params, state.opt_state, state.below))
        total += len(runs) * sum(x.size * x.dtype.itemsize for x in kept)
    return total


def snapshot_bytes(sweep: Sweep) -> int:
    """Size of the snapshots, in bytes: parameters at step 0, every snapshot_every steps, and the last step."""
    total = 0
    for runs in sweep.groups():
        cfg = runs[0].problem().model
        one = 4 * model.n_parameters(cfg)
        every = sweep.base["snapshot_every"]
        total += one * sum(1 + -(-run.steps // every) for run in runs)
    return total
