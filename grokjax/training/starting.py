"""Runs that begin with the weights of another run: what config.start_from names, checked, recorded and read."""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from grokjax.core import model
from grokjax.core.problem import Inputs, Problem
from grokjax.errors import InputError, shown
from grokjax.store.snapshots import find_snapshots, load_params
from grokjax.sweeps import Run, Sweep

FIELD = "start_from"


def settled(sweep: Sweep) -> Sweep:
    """A sweep whose runs name the very snapshots that they start from: with the step, and a digest of the weights.

    Raises:
      InputError: there is no such snapshot, or its model has other shapes than the run's.
    """
    if all(run.values[FIELD] is None for run in sweep.runs):
        return sweep
    runs = tuple(dataclasses.replace(run, values={**run.values, **_named(run)}) for run in sweep.runs)
    axis = {FIELD: tuple(dict.fromkeys(run.values[FIELD] for run in runs))} if FIELD in sweep.axes else {}
    return dataclasses.replace(sweep, runs=runs, axes={**sweep.axes, **axis})


def _named(run: Run) -> dict[str, str]:
    if run.values[FIELD] is None:
        return {}
    problem = run.problem()
    params(run.values[FIELD], problem)
    return {FIELD: recorded(run.values[FIELD])}


def inputs(run: Run) -> Inputs:
    """The traced part of a run that is to begin, with the weights that it starts from."""
    return run.inputs()._replace(start=start(run.values, run.problem()))


def start(values: Mapping[str, Any], problem: Problem) -> dict[str, np.ndarray] | None:
    """The weights that a run of these fields starts from; None where it draws its own.

    Raises:
      InputError: as for `params`.
    """
    return None if values[FIELD] is None else params(values[FIELD], problem)


def params(text: str, problem: Problem) -> dict[str, np.ndarray]:
    """The weights of a snapshot, for runs of a problem.

    Raises:
      InputError: there is no such snapshot, it is another than was recorded, or its model has other shapes.
    """
    found = _read(text)
    for key, shape in model.shapes(problem.model).items():
        there = found[key].shape if key in found else None
        if there != shape:
            what = f"has {key} of shape {list(there)}" if there else f"has no {key}"
            raise InputError(f"config.{FIELD} is {shown(text)}, which {what}, but this run's is {list(shape)}.")
    return {key: found[key] for key in model.shapes(problem.model)}


def recorded(text: str) -> str:
    """The name that says all: with the step, and a digest, so that other weights are not taken for these."""
    folder, run, step, _ = _parts(text)
    if step is None:
        step = max(s for _, s in find_snapshots(folder, runs=[run]))
    return f"{folder}:{run}:{step}@{_digest(_read(text))}"


def _parts(text: str) -> tuple[str, int, int | None, str | None]:
    match = re.fullmatch(r"(.+?):(\d{1,9})(?::(\d{1,18}))?(?:@([0-9a-f]{12}))?", text)
    if not match:
        raise InputError(
            f"config.{FIELD} is {shown(text)}, but it must be a run of a sweep, such as results/small:3, or its "
            "snapshot at a step, results/small:3:2000."
        )
    return match[1], int(match[2]), None if match[3] is None else int(match[3]), match[4]


@functools.lru_cache(64)  # runs of a sweep start from the same few
def _read(text: str) -> dict[str, np.ndarray]:
    folder, run, step, digest = _parts(text)
    try:
        found = {key: np.asarray(x, np.float32) for key, x in load_params(folder, run, step).items()}
    except InputError as error:
        raise InputError(f"config.{FIELD} is {shown(text)}, but {error}") from error
    if digest not in (None, _digest(found)):
        raise InputError(f"config.{FIELD} is {shown(text)}, but that snapshot has other weights by now: restore it.")
    return found


def _digest(found: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(found):
        digest.update(key.encode() + np.ascontiguousarray(found[key], "<f4").tobytes())
    return digest.hexdigest()[:12]
