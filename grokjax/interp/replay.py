"""Replays of a sweep's snapshots: with the run's final keys, other keys, or measures of today."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

from grokjax import sweeps
from grokjax.columns import SPLIT_SEED_USED, metrics_schema
from grokjax.config import coerce
from grokjax.core import backends
from grokjax.core.backends import XLA, Backend
from grokjax.core.problem import Problem
from grokjax.errors import InputError, file_name
from grokjax.interp.subject import check_keys
from grokjax.measures import blocks, registry
from grokjax.store import files
from grokjax.store.ledger import Ledger
from grokjax.store.metrics import read_runs, to_table
from grokjax.store.records import read_record
from grokjax.store.snapshots import SNAPSHOT_RUNS, compact, find_snapshots
from grokjax.store.sweep import load_sweep, refuse_strangers
from grokjax.sweeps import Run, Sweep
from grokjax.training import final_keys
from grokjax.training.final_keys import replay_runs


@dataclasses.dataclass(frozen=True)
class Replay:
    """A replay of a sweep's snapshots: the keys, measures and runs, where they differ from the sweep's own.

    Attributes:
      rule: key_rule, or None for the sweep's.
      threshold: key_threshold, or None for the sweep's.
      keys: frequencies to use for every run instead of a rule.
      measures: groups to compute beside the sweep's keyed measures.
      runs: numbers, or None for all that have ended.
    """

    rule: str | None = None
    threshold: float | None = None
    keys: tuple[int, ...] = ()
    measures: tuple[str, ...] = ()
    runs: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """The name of the table that this replay fills; "" if it is the metrics table itself."""
        parts = [
            f"rule_{self.rule}" if self.rule else "",
            f"threshold_{self.threshold}" if self.threshold is not None else "",
            "keys_" + ".".join(map(str, self.keys)) if self.keys else "",
            "-".join(self.measures),
        ]
        text = "-".join(filter(None, parts))
        return text and file_name(text)


def replay(path: str | Path, wanted: Replay, track=lambda items, text: items, overwrite: bool = False) -> Path:
    """Replays the snapshots of a sweep; goes on where an earlier call with an equal `wanted` stopped.

    Args:
      path: of the working directory.
      wanted: what to compute.
      track: wraps the batches, to show progress.
      overwrite: compute again what an earlier call with an equal `wanted` has left.

    Returns:
      The folder of Parquet files that holds the result: the metrics themselves where `wanted` asks for nothing
      that the sweep would not have done.

    Raises:
      InputError: no sweep, no such run or frequency, nothing to replay.
    """
    path = files.path(path)
    sweep = load_sweep(path)
    refuse_strangers(path, sweep)
    registry.of_groups(wanted.measures)
    have = {run for run, _ in find_snapshots(path)}
    status = read_runs(path).set_index("run")["status"]
    ended = [run for run in sweep.runs if status[run.run] in ("finished", "stopped") and run.run in have]
    if wanted.runs is not None:
        ended = [run for run in sweeps.only(sweep, wanted.runs, "--runs").runs if run in ended]
    if not ended:
        raise InputError(f"{path} has no finished run to replay{' among those asked for' if wanted.runs else ''}.")
    for problem in {run.problem() for run in ended}:
        check_keys(problem, wanted.keys)
    for name, value in (("key_rule", wanted.rule), ("key_threshold", wanted.threshold)):
        if value is not None:
            coerce(name, value)
    if not wanted.name:
        ledger = Ledger(sweep.runs)
        for runs in track(list(_batches(ended)), "final keys"):
            final_keys.finalise(path, runs, ledger, backend=_backend(path, runs[0].problem()))
        return path / "metrics"
    folder = path / "replay" / wanted.name
    if overwrite:
        files.drop(folder)
    for runs in track([runs for runs in _batches(ended) if files.trouble(_part(folder, runs))], wanted.name):
        _replay_batch(path, folder, sweep, runs, wanted)
    return folder


def _backend(path: Path, problem: Problem) -> Backend:
    """The backend that the sweep was trained by, so that the same question has the same answer, where it is here."""
    used = (backends.recorded(group) for group in (read_record(path) or {"groups": []})["groups"])
    found = next((backend for backend in used if backend.identity() or backend.pairs_last), XLA)
    return found if found.serves(problem, jax.devices()[0].platform) else XLA


def _batches(runs: Iterable[Run]) -> Iterable[list[Run]]:
    """Runs of one problem, at most as many as lie together in a snapshot."""
    by_problem: dict[Problem, list[Run]] = {}
    for run in runs:
        by_problem.setdefault(run.problem(), []).append(run)
    for some in by_problem.values():
        for start in range(0, len(some), SNAPSHOT_RUNS):
            yield some[start : start + SNAPSHOT_RUNS]


def _part(folder: Path, runs: Sequence[Run]) -> Path:
    return folder / f"runs_{compact([run.run for run in runs])}.parquet"


def _replay_batch(path: Path, folder: Path, sweep: Sweep, runs: list[Run], wanted: Replay) -> None:
    problem = runs[0].problem()
    changes = {"key_rule": wanted.rule, "key_threshold": wanted.threshold}
    problem = dataclasses.replace(problem, **{k: coerce(k, v) for k, v in changes.items() if v is not None})
    groups = dict.fromkeys([*wanted.measures] if wanted.measures else problem.measures)
    columns = {m.name: m for m in registry.of_groups(groups) if (m.keyed or wanted.measures) and not m.needs_update}
    found = find_snapshots(path)
    backend = _backend(path, problem)
    if wanted.keys:
        keys = np.tile(np.isin(np.arange(blocks.n_blocks(problem)) + 1, wanted.keys), (len(runs), 1))
    else:
        keys = final_keys.final_keys(path, found, problem, runs, backend=backend)
    frame = replay_runs(found, runs, columns, problem, keys, backend=backend)
    by_run = {run.run: run for run in runs}
    for axis in sweep.axes:
        frame[axis] = np.array([by_run[int(n)].values[axis] for n in frame["run"]], object)
    frame[SPLIT_SEED_USED] = np.array([by_run[int(n)].split_seed for n in frame["run"]])
    files.make_folder(folder)
    schema = metrics_schema(columns, sweep.axes, {"request": dataclasses.asdict(wanted)}, blocks.described([problem]))
    files.write_parquet(to_table(frame, schema), _part(folder, runs))
