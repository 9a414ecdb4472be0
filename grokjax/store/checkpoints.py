"""Checkpoints: the state to resume from, and how far each process had come.

A checkpoint's folder appears when it is whole, and its files are checked before Orbax reads them; what a killed process
left under a temporary name is never read.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from grokjax.core.problem import State
from grokjax.store import files, orbax

KEEP = 2  # checkpoints: the newest, and one to fall back to


def checkpoint_name(number: int, process: int = 0, n_processes: int = 1) -> str:
    """000007; of several processes that train a sweep together 000007.0-of-2 and 000007.1-of-2."""
    return f"{number:06d}{f'.{process}-of-{n_processes}' if n_processes > 1 else ''}"


def save(path: Path, state: State | None, progress: Mapping[str, Any]) -> None:
    """Saves a checkpoint, or one process's part of it.

    Args:
      path: of its folder, as `checkpoint_name` names it.
      state: the states of the slots in training, stacked; None if there are none.
      progress: JSON-serializable, what else is needed to go on.

    Raises:
      StorageError: it cannot be written.
    """
    orbax.save_folder(path, {"state": jax.tree.leaves(state) or [np.zeros(1)]}, dict(progress))


def prune(folder: Path, newest: int) -> None:
    """Removes all checkpoints but `newest` and the complete ones before it, `KEEP` in all."""
    kept = [number for number, _ in complete(folder) if number < newest][: KEEP - 1]
    for number, _, _, path in _parts(files.listed(folder)):  # also what an upload or a removal has left of one
        if number < newest and number not in kept:
            files.drop(path)


def complete(folder: Path) -> list[tuple[int, list[Path]]]:
    """Checkpoints of which every process's part is there, newest first: number and folders, in order of processes."""
    found: dict[tuple[int, int], list[tuple[int, Path]]] = {}
    for number, process, n_processes, path in _parts(files.appeared(folder)):
        found.setdefault((number, n_processes), []).append((process, path))
    whole = [(number, [p for _, p in sorted(some)]) for (number, n), some in found.items() if len(some) == n]
    return sorted(whole, reverse=True)


def next_number(folder: Path) -> int:
    """A number that no checkpoint has had."""
    return 1 + max((number for number, *_ in _parts(files.listed(folder))), default=-1)


def read_progress(path: Path) -> dict[str, Any]:
    """The progress in a checkpoint, of the kind that the recorder saves.

    Raises:
      Damaged: it is not what was saved, or of another kind.
    """
    with files.folder(path):
        progress = orbax.note(path)
    held = progress if isinstance(progress, dict) else {}
    counts = [held.get(name) for name in ("group", "offset", "process", "part", "rows")]
    lists = [held.get(name) for name in ("runs", "steps")]
    counts += [value for values in lists if isinstance(values, list) for value in values]
    whole = all(isinstance(values, list) for values in lists) and all(type(n) is int and n >= 0 for n in counts)
    if not whole or len(lists[0] or []) != len(lists[1] or []):
        raise files.Damaged(f"{path} holds no progress of a sweep")
    return held


def load(path: Path, blank: State, n: int) -> State:
    """The stacked states in a checkpoint, as NumPy arrays.

    Args:
      path: of its folder.
      blank: shapes and dtypes of one state.
      n: how many states are stacked.

    Raises:
      Damaged: it is not what was saved.
    """
    leaves, structure = jax.tree.flatten(blank)
    like = {"state": [np.zeros((n, *leaf.shape), leaf.dtype) for leaf in leaves]}
    return jax.tree.unflatten(structure, orbax.load_folder(path, like)["state"])


def _parts(paths: Iterable[Path]) -> list[tuple[int, int, int, Path]]:
    """The folders that `checkpoint_name` has named: the number, the process, how many there are, and the folder."""
    matches = [(re.fullmatch(r"(\d{6,})(?:\.(\d+)-of-(\d+))?", path.name), path) for path in paths]
    return [(int(name[1]), int(name[2] or 0), int(name[3] or 1), path) for name, path in matches if name]
