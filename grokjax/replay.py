"""Measures of models that were saved while they trained: with the run's final keys, other keys, or measures of today.

    python -m grokjax.replay results/small                                 # final keys, into the metrics table
    python -m grokjax.replay results/small --rule=W_E --threshold=0.5      # another rule, into a table of its own
    python -m grokjax.replay results/small --measures=clock,mine --experiment=mine.py

Key frequencies are a property of the finished model (Nanda et al. 2023, App. C.2): they are settled from a run's last
snapshot and then applied to all its earlier ones. Nothing is trained again.
"""

import argparse
import dataclasses
import functools
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from grokjax import cache, checkpoints, cli, fourier, population, results, storage, sweeps, tasks, training, workdir
from grokjax import config as config_lib
from grokjax.checkpoints import Snapshots
from grokjax.config import FIELDS, coerce
from grokjax.errors import InputError, file_name
from grokjax.hosts import ALONE, Hosts
from grokjax.measures import registry
from grokjax.measures.registry import Measure
from grokjax.precision import products
from grokjax.results import Ledger
from grokjax.sweeps import Run, Sweep
from grokjax.training import Inputs, Problem

Models = Mapping[tuple[int, int], Mapping[str, np.ndarray]]  # parameters by run and step


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _evaluate(
    problem: Problem, measures: tuple[tuple[str, Measure], ...], in_native: bool, params, inputs: Inputs, keys_RxK
):
    """Measures of several models with given keys, or each with its own where `keys_RxK` is None."""

    def one(args):
        params, inputs, keys_K = args
        with products(problem.precision):
            shared = training.shared(problem, inputs, params, in_native=in_native)
            if keys_K is not None:
                shared.key_freqs_K = keys_K
            return registry.compute(dict(measures), shared)

    n = len(inputs.seed)
    return jax.lax.map(one, (params, inputs, keys_RxK), batch_size=n)


def evaluate(
    problem: Problem,
    columns: Mapping[str, Measure],
    models: Sequence[tuple[Mapping[str, np.ndarray], Inputs]],
    keys_RxK: np.ndarray | None,
    lanes: int = 1,
    in_native: bool = False,
) -> dict[str, np.ndarray]:
    """Measures of saved models.

    Args:
      problem: that the models share.
      columns: what to compute, by column name.
      models: parameters and inputs of each.
      keys_RxK: bool, the key frequencies to use for each; None for each model's own by the problem's rule.
      lanes: models evaluated together; the last batch is padded.
      in_native: as in `training.evaluate`.

    Returns:
      Columns as they are stored, one entry per model; those that are undefined here are left out.
    """
    batches = []
    for start in range(0, len(models), lanes):
        index = [min(start + i, len(models) - 1) for i in range(lanes)]
        stacked = jax.tree.map(lambda *x: np.stack(x), *(models[i] for i in index))
        keys = None if keys_RxK is None else keys_RxK[index]
        batches.append(jax.device_get(_evaluate(problem, tuple(columns.items()), in_native, *stacked, keys)))
    values = {name: np.concatenate([b[name] for b in batches])[: len(models)] for name in batches[0]}
    return results.finish(columns, values, problem.model, problem.n_train)


KEYS = {"key_freqs": registry.MEASURES["key_freqs"]}


def final_keys(
    path: Path, found: Snapshots, problem: Problem, runs: Sequence[Run], lanes: int = 1, in_native: bool = False
) -> tuple[np.ndarray, Models]:
    """Each run's key frequencies at its last snapshot, of those found in a working directory, by the problem's rule.

    Returns:
      Bool [runs, (P-1)//2], and the parameters they were read from, by run and step.
    """
    last = checkpoints.load_last(path, [run.run for run in runs], found)
    models = [(params, run.inputs()) for params, run in zip(last.values(), runs, strict=True)]
    return evaluate(problem, KEYS, models, None, lanes, in_native)["key_freqs"].astype(bool), last


def replay_runs(
    found: Snapshots,
    runs: Sequence[Run],
    columns: Mapping[str, Measure],
    problem: Problem,
    keys_RxK: np.ndarray,
    lanes: int = 1,
    loaded: Models | None = None,
    in_native: bool = False,
) -> dict[str, Any]:
    """Measures of every snapshot of some runs.

    Args:
      found: the sweep's snapshots.
      runs: that share `problem`.
      columns: what to compute, by column name.
      problem: of the runs.
      keys_RxK: bool, the keys to use for each run.
      lanes: models evaluated together.
      loaded: parameters by run and step that have been read before.
      in_native: as in `training.evaluate`.

    Returns:
      Columns "run", "step" and the measures.
    """
    keys = {run.run: row for run, row in zip(runs, keys_RxK, strict=True)}
    inputs = {run.run: run.inputs() for run in runs}
    where = sorted((step, run) for run, step in found if run in keys)
    frames = []
    for step in dict.fromkeys(step for step, _ in where):
        some = [run for s, run in where if s == step]
        known = {run: loaded[run, step] for run in some if loaded and (run, step) in loaded}
        params = known | checkpoints.load_many(found, step, [run for run in some if run not in known])
        models = [(params[run], inputs[run]) for run in some]
        values = evaluate(problem, columns, models, np.stack([keys[run] for run in some]), lanes, in_native)
        frames.append(values | {"run": np.array(some), "step": np.full(len(some), step)})
    return {name: np.concatenate([frame[name] for frame in frames]) for name in frames[0]}


def settle(
    path: Path,
    runs: Sequence[Run],
    ledger: Ledger,
    lanes: int = 1,
    hosts: Hosts = ALONE,
    in_native: bool = False,
) -> None:
    """Settles the key frequencies of finished runs and fills in the measures with final keys, in the metrics on disk.

    Args:
      path: of the working directory.
      runs: finished, of one group, with all their rows on disk.
      ledger: is told the keys.
      lanes: models evaluated together.
      hosts: the processes that train together, which share the work.
      in_native: as in `training.evaluate`.
    """
    problem = runs[0].problem()
    columns = registry.final(problem.measures)
    share = runs[hosts.index :: hosts.count]
    mine: dict[str, Any] = {}
    if share:
        found = checkpoints.snapshots(path)
        keys, last = final_keys(path, found, problem, share, lanes, in_native)
        mine = replay_runs(found, share, columns, problem, keys, lanes, last, in_native)
        mine["keys"] = np.stack([keys[[run.run for run in share].index(run)] for run in mine["run"]])
    everything = [one for one in map(_unpacked, hosts.gather(_packed(mine))) if one]
    frame = {name: np.concatenate([one[name] for one in everything]) for name in everything[0]}
    for run, row in zip(frame["run"], frame.pop("keys"), strict=True):
        ledger.settle(int(run), row)
    if hosts.is_first:
        # In order, so that a run's last row, which says that the run is settled, is filled last.
        results.fill(results.parts(path / "metrics"), frame)
    hosts.wait()


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(data: bytes) -> dict[str, np.ndarray]:
    return dict(np.load(io.BytesIO(data), allow_pickle=False))


# --- later, from the command line -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Request:
    """What to replay, where it differs from what the sweep itself did.

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
        """The name of the table that this request fills; "" if it is the metrics table itself."""
        parts = [
            f"rule_{self.rule}" if self.rule else "",
            f"threshold_{self.threshold}" if self.threshold is not None else "",
            "keys_" + ".".join(map(str, self.keys)) if self.keys else "",
            "-".join(self.measures),
        ]
        text = "-".join(filter(None, parts))
        return text and file_name(text)


def load_sweep(path: Path) -> Sweep:
    """The sweep that a working directory was made from, as config.json tells it.

    Raises:
      InputError: there is none.
    """
    record = workdir.read_record(path)
    if record is None:
        raise InputError(f"{path} holds no sweep: config.json is missing.")
    file = path / "config.json"
    runs = []
    for values in record["runs"]:
        fields = _fields(file, {name: value for name, value in values.items() if name != "run"})
        config_lib.check_shape(fields)
        runs.append(Run(values["run"], fields))
    axes = {name: tuple(values) for name, values in record["axes"].items()}
    if not runs or not axes.keys() <= FIELDS.keys():
        raise InputError(f"{file} has {'axes that are no fields' if runs else 'no runs'}: restore it.")
    return Sweep(_fields(file, record["config"]), axes, tuple(runs))


def _fields(file: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """A run's fields; those that are younger than the sweep have their defaults, which change nothing."""
    strange = sorted(given.keys() - FIELDS.keys())
    if strange:
        raise InputError(f"{file} has a field '{strange[0]}', which this version of grokjax does not know.")
    return {name: field.default for name, field in FIELDS.items()} | {
        name: coerce(name, value, f"{file}: {name}") for name, value in given.items()
    }


def refuse_strangers(path: Path, sweep: Sweep) -> None:
    """Refuses a sweep whose tasks or measures nobody has registered.

    Raises:
      InputError: says which file to import for them.
    """
    wanted = [run.values["task"] for run in sweep.runs if run.values["task"] not in tasks.TASKS]
    wanted += [name for name in sweep.base["measures"] if name not in registry.groups()]
    if wanted:
        experiment = (workdir.read_record(path) or {}).get("experiment")
        raise InputError(
            f"{path} holds a sweep with '{wanted[0]}', which is no task or group of measures of grokjax: give "
            f"--experiment=FILE, which defines it and is run for it. The sweep was made from {experiment}."
        )


def replay(path: str | Path, request: Request, track=lambda items, text: items, overwrite: bool = False) -> Path:
    """Replays the snapshots of a sweep; goes on where an earlier call with the same request stopped.

    Args:
      path: of the working directory.
      request: what to compute.
      track: wraps the batches, to show progress.
      overwrite: compute again what an earlier call with the same request has left.

    Returns:
      The folder of Parquet files that holds the result: the metrics themselves where the request asks for nothing
      that the sweep would not have done.

    Raises:
      InputError: no sweep, no such run or frequency, nothing to replay.
    """
    path = storage.path(path)
    sweep = load_sweep(path)
    refuse_strangers(path, sweep)
    registry.of_groups(request.measures)
    have = {run for run, _ in checkpoints.snapshots(path)}
    status = results.read_runs(path).set_index("run")["status"]
    ended = [run for run in sweep.runs if status[run.run] in ("finished", "stopped") and run.run in have]
    if request.runs is not None:
        ended = [run for run in sweeps.only(sweep, request.runs).runs if run in ended]
    if not ended:
        raise InputError(f"{path} has no finished run to replay{' among those asked for' if request.runs else ''}.")
    for problem in {run.problem() for run in ended}:
        _mask(request.keys, problem.model.p)
    for name, value in (("key_rule", request.rule), ("key_threshold", request.threshold)):
        if value is not None:
            coerce(name, value)
    if not request.name:
        ledger = Ledger(sweep.runs)
        for runs in track(list(_batches(ended)), "final keys"):
            settle(path, runs, ledger, in_native=_in_native(path, runs[0].problem()))
        return path / "metrics"
    folder = path / "replay" / request.name
    if overwrite:
        storage.drop(folder)
    for runs in track([runs for runs in _batches(ended) if storage.trouble(_part(folder, runs))], request.name):
        _replay_batch(path, folder, sweep, runs, request)
    return folder


def _in_native(path: Path, problem: Problem) -> bool:
    """Whether to evaluate in C++: as the sweep did, so that the same question has the same answer, if there is any."""
    record = workdir.read_record(path) or {"groups": []}
    return any(group.get("n_parts") for group in record["groups"]) and population.is_native(problem)


def _batches(runs: Iterable[Run]) -> Iterable[list[Run]]:
    """Runs of one problem, at most as many as lie together in a snapshot."""
    by_problem: dict[Problem, list[Run]] = {}
    for run in runs:
        by_problem.setdefault(run.problem(), []).append(run)
    for some in by_problem.values():
        for start in range(0, len(some), checkpoints.SNAPSHOT_RUNS):
            yield some[start : start + checkpoints.SNAPSHOT_RUNS]


def _part(folder: Path, runs: Sequence[Run]) -> Path:
    return folder / f"runs_{checkpoints.compact([run.run for run in runs])}.parquet"


def _replay_batch(path: Path, folder: Path, sweep: Sweep, runs: list[Run], request: Request) -> None:
    problem = runs[0].problem()
    changes = {"key_rule": request.rule, "key_threshold": request.threshold}
    problem = dataclasses.replace(problem, **{k: coerce(k, v) for k, v in changes.items() if v is not None})
    groups = dict.fromkeys([*request.measures] if request.measures else problem.measures)
    columns = {m.name: m for m in registry.of_groups(groups) if (m.keyed or request.measures) and not m.needs_update}
    found, last = checkpoints.snapshots(path), None
    in_native = _in_native(path, problem)
    if request.keys:
        keys = np.tile(_mask(request.keys, problem.model.p), (len(runs), 1))
    else:
        keys, last = final_keys(path, found, problem, runs, in_native=in_native)
    frame = replay_runs(found, runs, columns, problem, keys, loaded=last, in_native=in_native)
    by_run = {run.run: run for run in runs}
    for axis in sweep.axes:
        frame[axis] = np.array([by_run[int(n)].values[axis] for n in frame["run"]], object)
    storage.make_folder(folder)
    schema = results.metrics_schema(columns, sweep.axes, {"request": dataclasses.asdict(request)})
    storage.write_parquet(results.to_table(frame, schema), _part(folder, runs))


def _mask(keys: Iterable[int], p: int) -> np.ndarray:
    n = fourier.n_freqs(p)
    mask = np.zeros(n, bool)
    for k in keys:
        if not 1 <= k <= n:
            raise InputError(f"--keys has {k}, but for P = {p} frequencies are 1 to {n}.")
        mask[k - 1] = True
    return mask


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, Request]:
    """The command line."""
    parser = cli.Parser(prog="python -m grokjax.replay", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("workdir", help="of a sweep")
    parser.add_argument("--rule", help="another key_rule: W_L, W_E, neurons or logits")
    parser.add_argument("--threshold", type=float, help="another key_threshold, in (0, 1)")
    parser.add_argument("--keys", type=cli.integers, default=(), help="frequencies for every run, such as 6,23,37")
    parser.add_argument("--measures", type=cli.names, default=(), help="groups of measures, such as clock,spectra")
    parser.add_argument("--runs", type=cli.integers, help="run numbers, such as 3,17; by default all finished ones")
    parser.add_argument("--experiment", help="experiment file whose measures and tasks to use")
    parser.add_argument("--overwrite", action="store_true", help="compute again what has been replayed before")
    args = parser.parse_args(argv)
    return args, Request(args.rule, args.threshold, args.keys, args.measures, args.runs)


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    from rich.progress import track

    args, request = parse(argv)
    cache.enable()
    path = storage.path(args.workdir)
    cli.import_experiment(args.experiment)
    folder = replay(path, request, lambda items, text: track(items, f"replaying {text}"), args.overwrite)
    cli.say(f"replayed into {folder}: {results.how_to_read(folder)}")


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
