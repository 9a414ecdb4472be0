"""Measures of saved models with the key frequencies of their run's final model.

Key frequencies are a property of the finished model (Nanda et al. 2023, App. C.2): they are read from a run's last
snapshot and then applied to all its earlier ones.

Size letters: R models or runs, K = P//2 frequencies.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from grokjax.core import compiler
from grokjax.core.backends import XLA, Backend
from grokjax.core.hosts import ALONE, Hosts
from grokjax.core.precision import unemulated
from grokjax.core.problem import Inputs, Problem
from grokjax.measures import registry
from grokjax.measures.registry import Measure
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import fill, parts
from grokjax.store.snapshots import Snapshots, find_snapshots, load_last, load_many
from grokjax.sweeps import Run
from grokjax.training import one_run


@functools.cache
def _compiled(platform: str):
    """`_evaluate`, compiled for devices of this platform."""
    return jax.jit(_evaluate, static_argnums=(0, 1, 2), compiler_options=compiler.options(platform) or None)


def _evaluate(
    problem: Problem,
    measures: tuple[tuple[str, Measure], ...],
    backend: Backend,
    params,
    inputs: Inputs,
    keys_RxK: Bool[np.ndarray, "R K"] | None,
):
    """Measures of several models with given keys, or each with its own where `keys_RxK` is None."""

    def one(params, inputs, keys_K):
        shared = one_run.shared(problem, inputs, params, backend=backend)
        if keys_K is not None:
            shared.key_freqs_K = keys_K
        return registry.compute(dict(measures), shared)

    n = len(inputs.seed)
    of_one = unemulated(one, problem.precision)
    return jax.lax.map(lambda args: of_one(*args), (params, inputs, keys_RxK), batch_size=n)


def evaluate(
    problem: Problem,
    columns: Mapping[str, Measure],
    models: Sequence[tuple[Mapping[str, np.ndarray], Inputs]],
    keys_RxK: Bool[np.ndarray, "R K"] | None,
    width: int = 1,
    backend: Backend = XLA,
) -> dict[str, np.ndarray]:
    """Measures of saved models.

    Args:
      problem: that the models share.
      columns: what to compute, by column name.
      models: parameters and inputs of each.
      keys_RxK: the key frequencies to use for each; None for each model's own by the problem's rule.
      width: models evaluated together; the last batch is padded.
      backend: computes logits and activations.

    Returns:
      Columns as they are stored, one entry per model; those that are undefined here are left out.
    """
    batches, run = [], _compiled(jax.default_backend())
    for start in range(0, len(models), width):
        index = [min(start + i, len(models) - 1) for i in range(width)]
        stacked = jax.tree.map(lambda *x: np.stack(x), *(models[i] for i in index))
        keys = None if keys_RxK is None else keys_RxK[index]
        batches.append(jax.device_get(run(problem, tuple(columns.items()), backend, *stacked, keys)))
    values = {name: np.concatenate([b[name] for b in batches])[: len(models)] for name in batches[0]}
    return registry.counts_to_shares(columns, values, problem)


def final_keys(
    path: Path, found: Snapshots, problem: Problem, runs: Sequence[Run], width: int = 1, backend: Backend = XLA
) -> Bool[np.ndarray, "R K"]:
    """Finds each run's key frequencies at its last snapshot in a working directory, by the problem's rule."""
    last = load_last(path, [run.run for run in runs], found)
    models = [(last[run.run], run.inputs()) for run in runs]
    columns = {"key_freqs": registry.MEASURES["key_freqs"]}
    return evaluate(problem, columns, models, None, width, backend)["key_freqs"].astype(bool)


def replay_runs(
    found: Snapshots,
    runs: Sequence[Run],
    columns: Mapping[str, Measure],
    problem: Problem,
    keys_RxK: Bool[np.ndarray, "R K"],
    width: int = 1,
    backend: Backend = XLA,
) -> dict[str, Any]:
    """Measures of every snapshot of some runs.

    Args:
      found: the sweep's snapshots.
      runs: that share `problem`.
      columns: what to compute, by column name.
      problem: of the runs.
      keys_RxK: the keys to use for each run.
      width: models evaluated together.
      backend: computes logits and activations.

    Returns:
      Columns "run", "step" and the measures.
    """
    keys = {run.run: row for run, row in zip(runs, keys_RxK, strict=True)}
    inputs = {run.run: run.inputs() for run in runs}
    where = sorted((step, run) for run, step in found if run in keys)
    frames = []
    for step in dict.fromkeys(step for step, _ in where):
        some = [run for s, run in where if s == step]
        params = load_many(found, step, some)
        models = [(params[run], inputs[run]) for run in some]
        values = evaluate(problem, columns, models, np.stack([keys[run] for run in some]), width, backend)
        frames.append(values | {"run": np.array(some), "step": np.full(len(some), step)})
    return {name: np.concatenate([frame[name] for frame in frames]) for name in frames[0]}


def finalise(
    path: Path,
    runs: Sequence[Run],
    ledger: Ledger,
    width: int = 1,
    hosts: Hosts = ALONE,
    backend: Backend = XLA,
) -> None:
    """Finalises the key frequencies of finished runs and fills in the measures with final keys, in the metrics on disk.

    Args:
      path: of the working directory.
      runs: finished, of one group, with all their rows on disk.
      ledger: is told the keys.
      width: models evaluated together.
      hosts: the processes that train together, which share the work.
      backend: computes logits and activations.
    """
    problem = runs[0].problem()
    columns = registry.final(problem.measures)
    share = runs[hosts.index :: hosts.count]
    mine: dict[str, Any] = {}
    if share:
        found = find_snapshots(path, runs={run.run for run in share})  # those of a long sweep's others take memory
        keys = final_keys(path, found, problem, share, width, backend)
        mine = replay_runs(found, share, columns, problem, keys, width, backend)
        mine["keys"] = np.stack([keys[[run.run for run in share].index(run)] for run in mine["run"]])
    everything = [one for one in hosts.all_gather(mine) if one]
    frame = {name: np.concatenate([one[name] for one in everything]) for name in everything[0]}
    for run, row in zip(frame["run"], frame.pop("keys"), strict=True):
        ledger.set_keys(int(run), row)
    if hosts.is_first:
        # In order, so that a run's last row, which says that its keys are final, is filled last.
        fill(parts(path / "metrics"), frame)
    hosts.barrier()
