"""Sweeps that take no time: nothing is trained, and all numbers say which run they are of and at which step."""

import functools

import jax
import numpy as np
import tiny

from grokjax import sweeps
from grokjax.columns import metrics_schema
from grokjax.core.hosts import ALONE
from grokjax.measures import registry
from grokjax.store import recovery, snapshots
from grokjax.store.metrics import MetricsWriter, part_number, parts, read_metrics
from grokjax.store.snapshots import find_snapshots, load_stacked
from grokjax.store.workdir import Workdir
from grokjax.training import population
from grokjax.training.job import Job
from grokjax.training.layouts import Layout
from grokjax.training.plan import Plan
from grokjax.training.recorder import Recorder
from grokjax.training.request import Request
from grokjax.training.scheduler import Group, train_groups
from grokjax.training.tune import Choice

HIGH, LOW = 1.0, 0.25  # test losses
FEW, MANY = 1e-9, 1e9  # seconds of a dispatch: single steps, or as many segments as may be
DTYPES = {"float": np.float32, "int32": np.int32, "bool": bool}


def value(seed, step):
    """The training loss, and every parameter, of the run with this seed; float32 holds it exactly."""
    return 1000 * seed + step


def config(seeds=4, **fields):
    c = tiny.get_config()
    c.sweep.weight_decay, c.sweep.seed = None, tuple(range(seeds))
    c.snapshot_every = c.slow_every = 1_000
    for name, one in fields.items():
        c[name] = one
    return c


class Population:
    """As `grokjax.training.population.Population`; runs are told apart by their seeds, and have fewer than 1000 steps.

    Attributes:
      low: by seed, the steps at which the test loss is `LOW` instead of `HIGH`.
      diverged: by seed, the step from which on the training loss is no number.
      dispatches: what `advance` was asked for: seeds, segments, steps, whether to evaluate, slow.
    """

    low: dict = {}  # noqa: RUF012
    diverged: dict = {}  # noqa: RUF012
    dispatches: list = []  # noqa: RUF012

    def __init__(self, problem, layout):
        self.problem, self.layout, self.width = problem, layout, layout.width
        blank = population.blank(problem)
        self.state = jax.tree.map(lambda x: np.zeros((self.width, *x.shape), x.dtype), blank)

    def start(self, runs):
        for slot, inputs in runs.items():
            for all_slots, one in zip(jax.tree.leaves(self.state.inputs), jax.tree.leaves(inputs), strict=True):
                all_slots[slot] = one
            self.state.below[slot] = 0
            self._move_to(slot, 0)

    def _move_to(self, slot, step):
        for x in self.state.params.values():
            x[slot] = value(int(self.state.inputs.seed[slot]), step)

    def _step(self, slot):
        return int(next(iter(self.state.params.values()))[slot].flat[0]) - value(int(self.state.inputs.seed[slot]), 0)

    def advance(self, active, n_segments, n_steps, evaluate=True, slow=()):
        seeds = [int(self.state.inputs.seed[slot]) for slot in active]
        self.dispatches.append((seeds, n_segments, n_steps, evaluate, list(slow)))
        assert n_segments <= population.MAX_SEGMENTS
        columns = registry.in_step(self.problem.measures) | registry.in_step(self.problem.measures, slow=True)
        dims = {name: dim(self.problem) for name, dim in registry.DIMS.items()}
        found = {
            name: np.full((population.MAX_SEGMENTS, self.width, *(dims[d] for d in m.shape)), -1, DTYPES[m.dtype])
            for name, m in columns.items()
        }
        for i in range(n_segments):
            for slot, seed in zip(active, seeds, strict=True):
                if self.state.below[slot] < self.state.inputs.stop_evals[slot]:
                    self._move_to(slot, self._step(slot) + n_steps)
                if evaluate:
                    self._evaluate(i, slot, seed, found, i < len(slow) and slow[i])
        return found

    def _evaluate(self, i, slot, seed, found, with_slow):
        step = self._step(slot)
        not_asked = () if with_slow else registry.in_step(self.problem.measures, slow=True)
        for name, x in found.items():
            x[i, slot] = 0 if name in not_asked else value(seed, step)
        found["test_loss"][i, slot] = loss = LOW if step in self.low.get(seed, ()) else HIGH
        found["train_acc"][i, slot] = found["test_acc"][i, slot] = 0
        if step >= self.diverged.get(seed, 1000):
            found["train_loss"][i, slot] = np.nan
        is_below = loss < self.state.inputs.stop_loss[slot]
        self.state.below[slot] = self.state.below[slot] + 1 if is_below else 0

    def take(self, slots):
        return jax.tree.map(lambda x: x[list(slots)], self.state)

    def restore(self, state, slots):
        for ours, saved in zip(jax.tree.leaves(self.state), jax.tree.leaves(state), strict=True):
            ours[list(slots)] = saved


def ending(monkeypatch, **fields):
    """Run 0 diverges at 60, run 1 stops at 80, run 2 goes on to 200, run 3 diverges at once, run 4 stops at 20."""
    monkeypatch.setattr(Population, "diverged", {0: 60, 3: 0})
    monkeypatch.setattr(Population, "low", {1: [20, *range(60, 201, 20)], 2: [40, 80, 120], 4: [0, 20, 40]})
    return config(**{"seeds": 5, "stop_loss": 0.5, "stop_evals": 2, "snapshot_every": 40} | fields)


class Progress:
    """Remembers what it was told."""

    def __init__(self):
        self.run_steps, self.said = 0, []

    def advanced(self, run_steps, seconds):
        self.run_steps += run_steps

    def say(self, text):
        self.said.append(text)


def recorder_of(sweep, path, found=None, progress=None):
    """A recorder for what a working directory holds, which is made if need be."""
    path.mkdir(exist_ok=True)
    found = found or recovery.examine(path, sweep)
    schema = metrics_schema(registry.metrics_columns(sweep.base["measures"]), sweep.axes, {})
    part = 1 + max((part_number(place)[0] for place in parts(path / "metrics")), default=-1)
    writer = MetricsWriter(path / "metrics", schema, part)
    return Recorder(Workdir(path, sweep, held=True), found.ledger, writer, progress or Progress(), ALONE)


def plan_of(sweep, path, layouts, stop=lambda: False):
    """A plan with these layouts."""
    job = Job(Request(None, path, stop=stop), sweep, sweep, path, path)
    return Plan(job, tuple(Choice("given", layout) for layout in layouts))


def group_of(sweep, path, layout, number=0):
    """A group before its first run has a slot."""
    recorder = recorder_of(sweep, path)
    return Group(number, sweep.groups()[number], layout, recorder, lambda: False)


def train(monkeypatch, c, path, slots=2, n_devices=1, stop=lambda: False, get_sweep=None, kept=None):
    """Trains a sweep in pretence, or goes on with it.

    Args:
      kept: takes the snapshots instead of the disk, which is slow: the number in all parameters by run and step.

    Returns:
      What is told of its progress, with what `advance` was asked for; the ledger.
    """
    monkeypatch.setattr(population, "Population", Population)
    if kept is not None:
        monkeypatch.setattr(snapshots, "save_snapshot", functools.partial(keep, kept))
    monkeypatch.setattr(Population, "dispatches", [])
    sweep = sweeps.expand(c, get_sweep)
    path.mkdir(exist_ok=True)
    recovery.repair(path, recovery.examine(path, sweep))
    found, progress = recovery.examine(path, sweep), Progress()
    layouts = [Layout(slots, 1, 1, n_devices)] * len(sweep.groups())
    try:
        train_groups(plan_of(sweep, path, layouts, stop), recorder_of(sweep, path, found, progress), found.checkpoint)
    finally:
        progress.dispatches = Population.dispatches
    return progress, found.ledger


def keep(kept, folder, step, runs, params):
    """In place of `snapshots.save_snapshot`."""
    assert list(runs) == sorted(set(runs))
    for i, run in enumerate(runs):
        assert all(len(x) == len(runs) for x in params.values())
        assert (run, step) not in kept
        (kept[run, step],) = {float(x) for w in params.values() for x in w[i].ravel()}


def rows(path):
    """{(run, step): training loss, None where there is none}."""
    frame = read_metrics(path, ["run", "step", "train_loss"])
    assert not frame.duplicated(["run", "step"]).any()
    losses = [None if np.isnan(loss) else loss for loss in frame["train_loss"]]
    return dict(zip(zip(frame["run"], frame["step"], strict=True), losses, strict=True))


def models(path):
    """{(run, step): the number in all parameters of that snapshot}."""
    found = find_snapshots(path)
    stacked = {place: load_stacked(place) for place, _ in found.values()}
    numbers = {}
    for key, (place, index) in found.items():
        (numbers[key],) = {float(x) for w in stacked[place].values() for x in w[index].ravel()}
    return numbers
