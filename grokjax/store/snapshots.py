"""Snapshots of parameters, by run and step, to be measured with final keys and to be loaded."""

import itertools
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grokjax.errors import InputError
from grokjax.store import files, orbax

MAX_NAME = 180  # letters of run numbers in the name of a folder; file systems allow 255 in all
SNAPSHOT_RUNS = 64  # runs in one snapshot folder at most, so that reading one run stays cheap


def save_snapshot(folder: Path, step: int, runs: Sequence[int], params: Mapping[str, Any]) -> None:
    """Saves the parameters of some runs at one step; does nothing where that has been done.

    Args:
      folder: of the snapshots.
      step: at which they were taken.
      runs: their numbers, ascending.
      params: by TransformerLens key, stacked over the runs.
    """
    start = 0
    while start < len(runs):
        some = runs[start : start + SNAPSHOT_RUNS]
        while len(compact(some)) > MAX_NAME:
            some = some[: len(some) // 2]
        path = folder / f"step_{step:08d}.runs_{compact(some)}"
        if not files.has_appeared(path):
            stacked = {key: np.asarray(x)[start : start + len(some)] for key, x in params.items()}
            orbax.save_folder(path, stacked, {key: [x.shape, x.dtype.name] for key, x in stacked.items()})
        start += len(some)


def compact(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "0-2.5"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ".".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def named(runs: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "runs 0-2.5"."""
    return f"run{'s' * (len(runs) > 1)} {compact(runs)}"


def _expand(text: str) -> Iterator[int]:
    for span in text.split("."):
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1)


def find_snapshots(
    workdir: str | Path, folder: str = "snapshots", runs: Container[int] | None = None
) -> dict[tuple[int, int], tuple[Path, int]]:
    """Finds every snapshot, or those of some runs, in the folder of that name: {(run, step): (folder, index in it)}."""
    found = {}
    for path in files.appeared(files.path(workdir) / folder):
        match = re.fullmatch(r"step_(\d{8,18})\.runs_(\d{1,9}(?:-\d{1,9})?(?:\.\d{1,9}(?:-\d{1,9})?)*)", path.name)
        if match:
            # More runs than a folder holds are no name that was given here.
            for index, run in enumerate(itertools.islice(_expand(match[2]), SNAPSHOT_RUNS)):
                if runs is None or run in runs:
                    found[run, int(match[1])] = path, index
    return found


Snapshots = Mapping[tuple[int, int], tuple[Path, int]]


def load_params(workdir: str | Path, run: int, step: int | None = None) -> dict[str, np.ndarray]:
    """The parameters of one run at one snapshot step, by default the last one there is.

    Raises:
      InputError: there is no such snapshot; says which there are.
    """
    files.refuse_missing(files.path(workdir))
    found = find_snapshots(workdir, runs=[run])
    steps = sorted(s for _, s in found)
    if step is None or not steps:
        return load_last(files.path(workdir), [run], found)[run]
    if step not in steps:
        raise InputError(
            f"{workdir} has no snapshot of run {run} at step {step}: it has steps {', '.join(map(str, steps))}."
        )
    return load_many(found, step, [run])[run]


def load_last(workdir: Path, runs: Sequence[int], found: Snapshots) -> dict[int, dict[str, np.ndarray]]:
    """The parameters of some runs at the last snapshot of each, by run; each folder is read once.

    Raises:
      InputError: a run has none.
    """
    last = dict(sorted(found))
    for run in runs:
        if run not in last:
            raise InputError(_no_snapshot(workdir, run))
    read: dict[int, dict[str, np.ndarray]] = {}
    for step in {last[run] for run in runs}:
        read |= load_many(found, step, [run for run in runs if last[run] == step])
    return read


def _no_snapshot(workdir: Path, run: int) -> str:
    runs = sorted({r for r, _ in find_snapshots(workdir)})
    return f"{workdir} has no snapshot of run {run}: {f'it has runs {compact(runs)}' if runs else 'it has none'}."


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and type of each parameter in a snapshot's folder, stacked over its runs.

    Raises:
      Damaged: they are not noted there, or of a kind that no snapshot has.
    """
    try:
        found = {str(key): (tuple(shape), str(dtype)) for key, (shape, dtype) in orbax.note(path).items()}
        counts = [n for shape, _ in found.values() for n in shape]
        n_bytes = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in found.values())
        kinds = {np.dtype(dtype).kind for _, dtype in found.values()}
    except (AttributeError, TypeError, ValueError):
        raise files.Damaged(f"{path} does not say what it holds") from None
    whole = (
        {"f"} <= kinds <= set("fiu") and all(type(n) is int and n > 0 for n in counts) and n_bytes <= files.MOST_BYTES
    )
    stacks = {shape[:1] for shape, _ in found.values()}
    if not whole or len(stacks) != 1 or () in stacks:
        raise files.Damaged(f"{path} says that it holds what no snapshot does")
    return found


def load_stacked(path: Path) -> dict[str, np.ndarray]:
    """The parameters in a snapshot's folder, stacked over its runs.

    Raises:
      Damaged: it is not what was saved.
    """
    # From our note: asking Orbax for it costs 0.1 MiB of memory each time, which it does not give back.
    like = {key: np.zeros(shape, dtype) for key, (shape, dtype) in _shapes(path).items()}
    return {key: np.asarray(x) for key, x in orbax.load_folder(path, like).items()}


def load_many(found: Snapshots, step: int, runs: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
    """The parameters of several runs at one snapshot step, by run; each folder is read once."""
    result = {}
    for path in dict.fromkeys(found[run, step][0] for run in runs):
        stacked = load_stacked(path)
        for run in runs:
            if found[run, step][0] == path:
                index = found[run, step][1]
                if index >= len(next(iter(stacked.values()))):
                    raise files.Damaged(f"{path} holds fewer runs than its name says")
                result[run] = {key: x[index] for key, x in stacked.items()}
    return result
