"""The paper's reverse engineering, repeated for a trained model: each claim, the paper's figure and this model's.

    python -m grokjax.circuit results/small --run=7                   # a run's last snapshot; --step for another
    python -m grokjax.circuit model.npz --keys=6,23,37 --out=circuit.json
    python -m grokjax.circuit released.pth --split=python:1:0.3       # the paper's files, TransformerLens's
    python -m grokjax.circuit results/small --all                     # every finished run, into circuit.parquet

Losses are on all pairs, with those on the training and test pairs in brackets where the split is known. With
JAX_ENABLE_X64=1 everything is computed in float64. docs/circuit.md says how each figure is computed.
"""

import argparse
import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from grokjax import cache, cli, fourier, interop, measure, replay, results, storage, training
from grokjax.circuits import FIGURES, Anatomy, Figure, text
from grokjax.errors import InputError
from grokjax.interop import Checkpoint
from grokjax.measures.paper import NANDA
from grokjax.model import Params
from grokjax.precision import products
from grokjax.sweeps import Run

FILE = "circuit.parquet"
NO_KEY = "the model has no key frequency by this rule"
NO_TEST = "there are no test pairs"

# --- one model ------------------------------------------------------------------------------------------------------


def circuit(
    model: str | Path | Checkpoint,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    split: str | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """The figures of the paper's reverse engineering, of one model.

    Args:
      model: of one layer; a file or snapshot as `interop.load` takes it, or what it returned.
      keys, rule, threshold, split, task: as for `measure.measure`.

    Returns:
      Each of `circuits.FIGURES` by name, ready for JSON: numbers, lists, and sets of frequencies as lists of k; lists
      over frequencies start at k = 1. None where it is undefined. Under "null" the reason for every None; under
      "measured" what was measured and how.

    Raises:
      InputError: bad arguments, or a model of several layers.
    """
    checkpoint = model if isinstance(model, Checkpoint) else interop.load(model)
    if checkpoint.cfg.n_layers != 1:
        raise InputError(f"{checkpoint.source} has {checkpoint.cfg.n_layers} layers, but {ONE_LAYER}.")
    subject = measure.settle(checkpoint, tuple(keys), rule, threshold, split, task)
    values = _values(subject)
    null = _null(subject, values)
    found = {name: None if name in null else measure.plain(f, values[name]) for name, f in FIGURES.items()}
    return {**found, "null": null, "measured": measure.described(subject)}


ONE_LAYER = "the reverse engineering is of one layer's parts"


def _values(subject: measure.Subject) -> dict[str, np.ndarray]:
    """Every figure that is defined for the task."""
    p = subject.problem.model.p
    train_N = np.zeros(p * p, bool)
    if subject.train_pairs is not None:
        train_N[subject.train_pairs] = True
    keys_K = np.zeros(fourier.n_freqs(p), bool) if subject.keys_K is None else subject.keys_K
    # The split enters as a mask, so that its size is nothing to compile for.
    problem = dataclasses.replace(subject.problem, n_train=0)
    with products(problem.precision):
        return jax.device_get(_compute(problem, subject.params, train_N, subject.answers, keys_K))


@functools.partial(jax.jit, static_argnums=0)
def _compute(problem: training.Problem, params: Params, train_N, answers, keys_K) -> dict[str, jax.Array]:
    """One compilation serves all models of a shape; no key in `keys_K` asks for the model's own."""
    rule = problem.key_rule, problem.key_threshold
    no_pairs = jnp.zeros(0, jnp.int32)
    s = Anatomy(problem.model, problem.direction, params, no_pairs, answers, None, *rule)
    s.train_mask_N = train_N
    s.key_freqs_K = jnp.where(jnp.any(keys_K), keys_K, s.keys_by(problem.key_rule))
    return {name: f.function(s) for name, f in FIGURES.items() if f.defined(problem.direction)}


def _null(subject: measure.Subject, values: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The reason for each figure that this model does not have."""
    n_pairs, no_key = subject.checkpoint.cfg.p**2, not np.any(values["key_freqs"])
    null = {}
    for name, f in FIGURES.items():
        if name not in values:
            null[name] = f"task '{subject.task.name}' is no function of a ± b"
        elif f.keyed and no_key:
            null[name] = NO_KEY
        elif f.needs_split and subject.train_pairs is None:
            null[name] = measure.NO_SPLIT
        elif name.endswith("_test") and subject.n_train == n_pairs:
            null[name] = NO_TEST
        elif not np.all(np.isfinite(values[name])):
            null[name] = f.undefined or "it is not finite"
    return null


# --- the table ------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A claim of the paper with its figure and a model's, as text; "" where the paper has none, "–" where the model.

    Attributes:
      figure: the name in `circuits.FIGURES`.
      claim: what is claimed.
      paper: the paper's figure for its mainline model.
      here: this model's.
      source: paper and section.
    """

    figure: str
    claim: str
    paper: str
    here: str
    source: str


def rows(found: Mapping[str, Any]) -> list[Row]:
    """The table of claims.

    Args:
      found: what `circuit` returned, or a row of circuit.parquet (`frame.loc[i]`).
    """
    shown = {name: f for name, f in FIGURES.items() if f.claim}
    return [
        Row(name, f.claim, f.paper, "–" if text.absent(found.get(name)) else f.show(name, found), f.source)
        for name, f in shown.items()
    ]


def table(found: Mapping[str, Any]) -> str:
    """What `circuit` returned, to read: one line per claim."""
    heading = [*measure.heading(found["measured"]), f"source {NANDA}; its figures are of its mainline model"]
    cells = [("claim", "paper", "this model", "source")]
    cells += [(row.claim, row.paper, row.here, _short(row.source)) for row in rows(found)]
    return "\n".join([*heading, "", *measure.listing(cells, found["null"])])


def _short(source: str) -> str:
    """A source without what the heading says and without remarks."""
    return re.sub(r" \(.*\)", "", source.removeprefix(f"{NANDA}, "))


# --- a sweep --------------------------------------------------------------------------------------------------------


class Missed(NamedTuple):
    """A run of a sweep that was not analysed, and why."""

    run: int
    reason: str


Track = Callable[[Sequence[Run], str], Iterable[Run]]


def circuits_of(
    folder: str | Path,
    keys: Iterable[int] = (),
    rule: str | None = None,
    threshold: float | None = None,
    track: Track = lambda runs, text: runs,
) -> tuple[Path, list[Missed]]:
    """Analyses the last snapshot of every finished run and writes circuit.parquet, one row per run.

    Args:
      folder: a sweep's working directory.
      keys, rule, threshold: as for `circuit`; by default each run's own.
      track: wraps the runs, to show progress.

    Returns:
      The file, and the runs that are not in it.

    Raises:
      InputError: no sweep there, or none of its runs can be analysed.
    """
    path = storage.path(folder)
    sweep = replay.load_sweep(path)
    replay.refuse_strangers(path, sweep)
    missed = list(_missed(path, sweep.runs))
    left_out = {run for run, _ in missed}
    some = [run for run in sweep.runs if run.run not in left_out]
    if not some:
        raise InputError(f"{path} has no run to analyse: {_listed(missed)}.")
    # Runs of one shape together: their compilation is kept.
    by_shape = sorted(some, key=lambda run: repr(run.problem()))
    keys, found = tuple(keys), {}
    # Before any work: what is wrong with the arguments.
    for run in {run.problem(): run for run in some}.values():
        measure.settle(interop.load(f"{path}:{run.run}"), keys, rule, threshold, None, None)
    for run in track(by_shape, "analysing"):
        checkpoint = interop.load(f"{path}:{run.run}")
        found[run.run] = circuit(checkpoint, keys, rule, threshold) | {
            "step": int(checkpoint.source.rpartition(":")[2]),
            **{axis: run.values[axis] for axis in sweep.axes},
        }
    storage.write_parquet(_to_table(found, tuple(sweep.axes)), path / FILE)
    return path / FILE, missed


def _missed(path: Path, runs: Sequence[Run]) -> Iterator[Missed]:
    from grokjax import checkpoints

    if not (path / "runs.parquet").is_file():
        raise InputError(f"{path} has no runs.parquet yet: its sweep has not begun.")
    ledger = results.read_runs(path).set_index("run")
    have = {run for run, _ in checkpoints.snapshots(path)}
    for run in runs:
        status, layers = ledger["status"].get(run.run, "waiting"), run.values["model.n_layers"]
        if status == "diverged":
            yield Missed(run.run, f"diverged at step {int(ledger['last_step'][run.run])}")
        elif status not in ("finished", "stopped"):
            yield Missed(run.run, {"training": "still training", "waiting": "not begun"}[status])
        elif run.run not in have:
            yield Missed(run.run, "no snapshot")
        elif layers != 1:
            yield Missed(run.run, f"{layers} layers, and {ONE_LAYER}")


def _listed(missed: Iterable[Missed]) -> str:
    """Runs by reason: "runs 3-5: still training; run 7: diverged at step 20"."""
    from grokjax.checkpoints import compact

    by_reason: dict[str, list[int]] = {}
    for run, reason in missed:
        by_reason.setdefault(reason, []).append(run)
    return "; ".join(f"run{'s' * (len(some) > 1)} {compact(some)}: {reason}" for reason, some in by_reason.items())


def schema(axes: Iterable[str] = ()) -> pa.Schema:
    """Of circuit.parquet; every column says in its metadata what it is, its unit and source, and the paper's figure."""
    from grokjax.config import FIELDS

    describe = results.field_metadata
    fields = [
        pa.field("run", pa.int32(), False, describe("Number of the run in the sweep, as in runs.parquet.")),
        pa.field("step", pa.int64(), False, describe("Step of the snapshot.", "steps")),
    ]
    for axis in axes:
        fields.append(pa.field(axis, results.ARROW[FIELDS[axis].type], True, describe(f"Swept: {FIELDS[axis].doc}.")))
    fields += [_field(f) for f in FIGURES.values()]
    for name, what in (("null", "Why each null is one"), ("measured", "What was measured and how")):
        fields.append(pa.field(name, pa.string(), False, describe(f"{what}, as JSON.")))
    return pa.schema(fields)


def _field(f: Figure) -> pa.Field:
    is_set = f.dtype == "bool" and f.shape == ("freq",)
    kind = pa.int64() if is_set or f.dtype == "int32" else pa.float64()
    return pa.field(
        f.name,
        pa.list_(kind) if f.shape else kind,
        True,
        results.field_metadata(
            f"{f.description} (the list of k)" if is_set else f.description,
            f.unit,
            range=f.range,
            source=f.source,
            shape=f"[{', '.join(f.shape)}]" if f.shape and not is_set else "",
            null=f.when_null,
            claim=f.claim,
            paper=f.paper,
        ),
    )


def _to_table(found: Mapping[int, Mapping[str, Any]], axes: Sequence[str]) -> pa.Table:
    records = []
    for run in sorted(found):
        texts = {name: json.dumps(found[run][name], ensure_ascii=False) for name in ("null", "measured")}
        records.append({**found[run], "run": run, **texts})
    return pa.Table.from_pylist(records, schema(axes))


# --- the command line -----------------------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = measure.command("grokjax.circuit", __doc__)
    parser.add_argument("--run", type=int, help="the run, where the model is a sweep's directory")
    parser.add_argument("--step", type=int, help="the snapshot's step; by default the run's last")
    parser.add_argument("--all", action="store_true", help=f"every finished run of a sweep, into its {FILE}")
    measure.add_subject(parser)
    parser.add_argument("--experiment", help="experiment file whose tasks to use")
    parser.add_argument("--out", help="JSON file to write, with every value whole")
    args = parser.parse_args(argv)
    given = [
        f"--{name}"
        for name in ("run", "step", "split", "task", "act", "heads", "out")
        if getattr(args, name) is not None
    ]
    if args.all and given:
        raise InputError(f"--all takes every run as it is: leave out {given[0]}.")
    if args.step is not None and args.run is None:
        raise InputError("--step needs --run, which says whose step it is.")
    return args


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    args = parse(argv)
    cache.enable()
    if args.all:
        return _all(args)
    if args.run is not None:
        if args.run < 0 or (args.step or 0) < 0:
            raise InputError("--run and --step are numbers from 0.")
        args.model += f":{args.run}" + (f":{args.step}" if args.step is not None else "")
    elif storage.path(args.model).is_dir():
        raise InputError(f"{args.model} is a directory: name a run of the sweep with --run, or all of them with --all.")
    checkpoint = measure.load(args)
    cli.import_experiment(args.experiment)
    found = circuit(checkpoint, args.keys, args.rule, args.threshold, args.split, args.task)
    if args.out:
        measure.write(found, args.out)
    cli.say(table(found))


def _all(args: argparse.Namespace) -> None:
    from rich.progress import track

    cli.import_experiment(args.experiment)
    path, missed = circuits_of(args.model, args.keys, args.rule, args.threshold, lambda runs, text: track(runs, text))
    if missed:
        cli.say(f"left out: {_listed(missed)}")
    cli.say(f"written: {results.how_to_read(path)}")


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
