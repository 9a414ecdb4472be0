"""Orbax on disk: the state to resume from, and snapshots of parameters to read back.

A checkpoint or a snapshot appears by rename when it is whole; what a killed process left under a temporary name is
never read.
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from grokjax.errors import InputError
from grokjax.training import State

KEEP = 2  # checkpoints: the newest, and one to fall back to
SNAPSHOT_RUNS = 64  # runs in one snapshot folder at most, so that reading one run stays cheap


def save(folder: Path, state: State | None, progress: Mapping[str, Any]) -> None:
    """Saves a checkpoint and removes all but the newest `KEEP`.

    Args:
      folder: of the checkpoints.
      state: the states of the slots in training, stacked; None if there are none.
      progress: JSON-serializable, what else is needed to go on.
    """
    numbers = _numbers(folder)
    number = numbers[-1] + 1 if numbers else 0
    tree = {"state": jax.tree.leaves(state) or [np.zeros(1)]}
    with _quiet():
        ocp.save(folder.absolute() / f"{number:06d}", tree, custom_metadata=dict(progress))
    for old in numbers[: -(KEEP - 1)]:
        shutil.rmtree(folder / f"{old:06d}", ignore_errors=True)


def latest(folder: Path, number: int | None = None) -> tuple[int, dict[str, Any]] | None:
    """The newest checkpoint's number and progress, or None if there is none."""
    for number in reversed(_numbers(folder)):
        with _quiet():
            return number, dict(ocp.metadata(folder.absolute() / f"{number:06d}").custom_metadata)
    return None


def load(folder: Path, number: int, blank: State, n: int) -> State:
    """The stacked states in a checkpoint, as NumPy arrays.

    Args:
      folder: of the checkpoints.
      number: of the checkpoint.
      blank: shapes and dtypes of one state.
      n: how many states are stacked.
    """
    leaves, structure = jax.tree.flatten(blank)
    like = {"state": [np.zeros((n, *leaf.shape), leaf.dtype) for leaf in leaves]}
    with _quiet():
        loaded = ocp.load(folder.absolute() / f"{number:06d}", like)
    return jax.tree.unflatten(structure, loaded["state"])


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if re.fullmatch(r"\d{6,}", path.name))


@contextlib.contextmanager
def _quiet():
    """Orbax logs every save and warns about settings that do not concern a user of this project."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def save_snapshot(folder: Path, step: int, runs: Sequence[int], params: Mapping[str, Any]) -> None:
    """Saves the parameters of some runs at one step; does nothing where that has been done.

    Args:
      folder: of the snapshots.
      step: at which they were taken.
      runs: their numbers, ascending.
      params: by TransformerLens key, stacked over the runs.
    """
    for start in range(0, len(runs), SNAPSHOT_RUNS):
        some = runs[start : start + SNAPSHOT_RUNS]
        path = folder / f"step_{step:08d}.runs_{compact(some)}"
        if path.exists():
            continue
        with _quiet():
            ocp.save(path.absolute(), {key: np.asarray(x)[start : start + SNAPSHOT_RUNS] for key, x in params.items()})


def compact(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "0-2.5"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ".".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _expand(text: str) -> list[int]:
    spans = [span.split("-") for span in text.split(".")]
    return [number for span in spans for number in range(int(span[0]), int(span[-1]) + 1)]


def snapshots(workdir: str | Path) -> dict[tuple[int, int], tuple[Path, int]]:
    """Where each snapshot lies: {(run, step): (folder, index in its stack)}."""
    found = {}
    for path in sorted((Path(workdir) / "snapshots").glob("step_*.runs_*")):
        match = re.fullmatch(r"step_(\d+)\.runs_([\d.-]+)", path.name)
        if match:
            for index, run in enumerate(_expand(match[2])):
                found[run, int(match[1])] = path, index
    return found


def load_params(workdir: str | Path, run: int, step: int | None = None) -> dict[str, np.ndarray]:
    """The parameters of one run at one snapshot step.

    Args:
      workdir: of the sweep.
      run: its number.
      step: a snapshot step; by default the last one there is.

    Returns:
      NumPy arrays by TransformerLens key ("embed.W_E", "blocks.0.attn.W_Q", …).

    Raises:
      InputError: there is no such snapshot; says which there are.
    """
    found = snapshots(workdir)
    steps = sorted(s for r, s in found if r == run)
    if not steps:
        runs = sorted({r for r, _ in found})
        have = f"it has runs {compact(runs)}" if runs else "it has none"
        raise InputError(f"{workdir} has no snapshot of run {run}: {have}.")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise InputError(
            f"{workdir} has no snapshot of run {run} at step {step}: it has steps {', '.join(map(str, steps))}."
        )
    return load_many(workdir, step, [run])[run]


def load_many(workdir: str | Path, step: int, runs: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
    """The parameters of several runs at one snapshot step, by run; each folder is read once."""
    found = snapshots(workdir)
    result = {}
    for path in dict.fromkeys(found[run, step][0] for run in runs):
        with _quiet():
            shapes = ocp.metadata(path.absolute()).metadata
            stacked = ocp.load(path.absolute(), {key: np.zeros(x.shape, x.dtype) for key, x in shapes.items()})
        for run in runs:
            if found[run, step][0] == path:
                index = found[run, step][1]
                result[run] = {key: np.asarray(x[index]) for key, x in stacked.items()}
    return result
