"""Orbax on disk: the state to resume from, and snapshots of parameters to read back.

Orbax writes into a folder of `storage`, which appears when it is whole and whose files are checked before Orbax reads
them; what a killed process left under a temporary name is never read.
"""

import contextlib
import errno
import functools
import itertools
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from grokjax import saver, storage
from grokjax.errors import InputError
from grokjax.training import State

KEEP = 2  # checkpoints: the newest, and one to fall back to
MAX_NAME = 180  # letters of run numbers in the name of a folder; file systems allow 255 in all
SNAPSHOT_RUNS = 64  # runs in one snapshot folder at most, so that reading one run stays cheap


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
    _save(path, {"state": jax.tree.leaves(state) or [np.zeros(1)]}, dict(progress))


def prune(folder: Path, newest: int) -> None:
    """Removes all checkpoints but `newest` and the complete ones before it, `KEEP` in all."""
    kept = [number for number, _ in complete(folder) if number < newest][: KEEP - 1]
    for number, path in _named(folder):
        if number < newest and number not in kept:
            storage.remove_folder(path)


def complete(folder: Path) -> list[tuple[int, list[Path]]]:
    """Checkpoints of which every process's part is there, newest first: number and folders, in order of processes."""
    found: dict[tuple[int, int], list[tuple[int, Path]]] = {}
    for number, path in _numbered(storage.appeared(folder)):
        process, n_processes = _part_of(path)
        found.setdefault((number, n_processes), []).append((process, path))
    whole = [(number, [p for _, p in sorted(some)]) for (number, n), some in found.items() if len(some) == n]
    return sorted(whole, reverse=True)


def next_number(folder: Path) -> int:
    """A number that no checkpoint has had."""
    return 1 + max((number for number, _ in _named(folder)), default=-1)


def read_progress(path: Path) -> dict[str, Any]:
    """The progress in a checkpoint.

    Raises:
      Damaged: it is not what was saved.
    """
    with storage.folder(path):
        progress = storage.note(path)
    if not isinstance(progress, dict):
        raise storage.Damaged(f"{path} holds no progress of a sweep")
    return progress


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
    with _reading(path) as local:
        return jax.tree.unflatten(structure, ocp.load(local.absolute(), like)["state"])


def _named(folder: Path) -> list[tuple[int, Path]]:
    """Also what an interrupted upload or removal has left."""
    return _numbered(storage.listed(folder))


def _numbered(paths: Iterable[Path]) -> list[tuple[int, Path]]:
    some = [path for path in paths if re.fullmatch(r"\d{6,}(\.\d+-of-\d+)?", path.name)]
    return [(int(path.name.split(".")[0]), path) for path in some]


def _part_of(path: Path) -> tuple[int, int]:
    match = re.search(r"\.(\d+)-of-(\d+)$", path.name)
    return (int(match[1]), int(match[2])) if match else (0, 1)


def _save(path: Path, tree: Any, note: Any) -> None:
    """Lets Orbax write a folder that then appears whole, with a note."""
    try:
        _try_to_save(path, tree, note)
    except storage.StorageError as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise
        _try_to_save(path, tree, note)  # Orbax goes by the wall clock, which may have jumped


def _try_to_save(path: Path, tree: Any, note: Any) -> None:
    with storage.new_folder(path, note) as local, _quiet():
        try:
            saver.save(local.absolute(), jax.device_get(tree))
        except Exception as error:  # a full disk comes as one of several, from Orbax or TensorStore
            logging.getLogger("asyncio").disabled = True  # whose tasks failed for the same reason
            why = _refusal(error, path.parent) or _first_line(error)
            raise storage.StorageError(f"{path} cannot be written ({why})") from error


def _refusal(error: BaseException, folder: Path) -> str:
    """What the operating system has refused, where that is why Orbax failed; else empty."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            if os.strerror(number) in str(cause):
                return os.strerror(number)
        cause = cause.__cause__ or cause.__context__
    with contextlib.suppress(OSError):
        if shutil.disk_usage(folder).free < 1 << 16:
            return os.strerror(errno.ENOSPC)
    return ""


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Path]:
    """A folder that `_save` has made, checked, as a local path to read with Orbax."""
    with storage.folder(path) as local, _quiet(), _alone():
        try:
            yield local
        except Exception as error:  # whole, so another version's or somebody else's
            raise storage.Damaged(f"{path} cannot be read by Orbax ({_first_line(error)})") from error


@functools.cache
def _hush_latecomers() -> None:
    """Where one of several reads or writes fails, TensorStore's threads tell a loop that has ended of the others."""
    hook = sys.unraisablehook

    def told(what):
        if "Event loop is closed" not in str(what.exc_value):
            hook(what)

    sys.unraisablehook = told


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _alone() -> ocp.Context:
    """Lets one process read what the others do not."""
    mine = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"process_{mine}"
    )
    return ocp.Context(multiprocessing_options=options if jax.process_count() > 1 else None)


@contextlib.contextmanager
def _quiet():
    """Orbax logs every save, warns of settings that are not a user's here, and logs what it then raises."""
    _hush_latecomers()
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


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
        some = _nameable(runs[start : start + SNAPSHOT_RUNS])
        path = folder / f"step_{step:08d}.runs_{compact(some)}"
        if not storage.has_appeared(path):
            stacked = {key: np.asarray(x)[start : start + len(some)] for key, x in params.items()}
            _save(path, stacked, {key: [x.shape, x.dtype.name] for key, x in stacked.items()})
        start += len(some)


def _nameable(runs: Sequence[int]) -> Sequence[int]:
    """The first of some runs, as many as a folder's name has room for."""
    while len(compact(runs)) > MAX_NAME:
        runs = runs[: len(runs) // 2]
    return runs


def compact(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "0-2.5"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ".".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _expand(text: str) -> Iterator[int]:
    for span in text.split("."):
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1)


def snapshots(workdir: str | Path) -> dict[tuple[int, int], tuple[Path, int]]:
    """Where each snapshot lies: {(run, step): (folder, index in its stack)}."""
    found = {}
    for path in storage.appeared(storage.path(workdir) / "snapshots"):
        match = re.fullmatch(r"step_(\d{8,18})\.runs_(\d{1,9}(?:-\d{1,9})?(?:\.\d{1,9}(?:-\d{1,9})?)*)", path.name)
        if match:
            # More runs than a folder holds are no name that was given here.
            for index, run in enumerate(itertools.islice(_expand(match[2]), SNAPSHOT_RUNS)):
                found[run, int(match[1])] = path, index
    return found


Snapshots = Mapping[tuple[int, int], tuple[Path, int]]


def load_params(
    workdir: str | Path, run: int, step: int | None = None, found: Snapshots | None = None
) -> dict[str, np.ndarray]:
    """The parameters of one run at one snapshot step.

    Args:
      workdir: of the sweep.
      run: its number.
      step: a snapshot step; by default the last one there is.
      found: what `snapshots` has found there, if that is known.

    Returns:
      NumPy arrays by TransformerLens key ("embed.W_E", "blocks.0.attn.W_Q", …).

    Raises:
      InputError: there is no such snapshot; says which there are.
    """
    found = snapshots(workdir) if found is None else found
    steps = sorted(s for r, s in found if r == run)
    if not steps:
        raise InputError(_no_snapshot(workdir, run, found))
    step = steps[-1] if step is None else step
    if step not in steps:
        raise InputError(
            f"{workdir} has no snapshot of run {run} at step {step}: it has steps {', '.join(map(str, steps))}."
        )
    return load_many(found, step, [run])[run]


def load_last(
    workdir: str | Path, runs: Sequence[int], found: Snapshots
) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """The parameters of some runs at the last snapshot of each, by run and step; each folder is read once.

    Raises:
      InputError: a run has none.
    """
    last = dict(sorted(found))
    by_step: dict[int, list[int]] = {}
    for run in runs:
        if run not in last:
            raise InputError(_no_snapshot(workdir, run, found))
        by_step.setdefault(last[run], []).append(run)
    read = {step: load_many(found, step, some) for step, some in by_step.items()}
    return {(run, last[run]): read[last[run]][run] for run in runs}


def _no_snapshot(workdir: str | Path, run: int, found: Snapshots) -> str:
    runs = sorted({r for r, _ in found})
    return f"{workdir} has no snapshot of run {run}: {f'it has runs {compact(runs)}' if runs else 'it has none'}."


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and type of each parameter in a snapshot's folder, stacked over its runs.

    Raises:
      Damaged: they are not noted there, or of a kind that no snapshot has.
    """
    try:
        found = {str(key): (tuple(shape), str(dtype)) for key, (shape, dtype) in storage.note(path).items()}
        counts = [n for shape, _ in found.values() for n in shape]
        n_bytes = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in found.values())
        kinds = {np.dtype(dtype).kind for _, dtype in found.values()}
    except (AttributeError, TypeError, ValueError):
        raise storage.Damaged(f"{path} does not say what it holds") from None
    whole = kinds == {"f"} and all(type(n) is int and n > 0 for n in counts) and n_bytes <= storage.MOST_BYTES
    if (
        not whole
        or len({shape[:1] for shape, _ in found.values()}) != 1
        or any(not shape for shape, _ in found.values())
    ):
        raise storage.Damaged(f"{path} says that it holds what no snapshot does")
    return found


def load_stacked(path: Path) -> dict[str, np.ndarray]:
    """The parameters in a snapshot's folder, stacked over its runs.

    Raises:
      Damaged: it is not what was saved.
    """
    # From our note: asking Orbax for it costs 0.1 MiB of memory each time, which it does not give back.
    like = {key: np.zeros(shape, dtype) for key, (shape, dtype) in _shapes(path).items()}
    with _reading(path) as local:
        return {key: np.asarray(x) for key, x in ocp.load(local.absolute(), like).items()}


def load_many(found: Snapshots, step: int, runs: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
    """The parameters of several runs at one snapshot step, by run; each folder is read once."""
    result = {}
    for path in dict.fromkeys(found[run, step][0] for run in runs):
        stacked = load_stacked(path)
        for run in runs:
            if found[run, step][0] == path:
                index = found[run, step][1]
                if index >= len(next(iter(stacked.values()))):
                    raise storage.Damaged(f"{path} holds fewer runs than its name says")
                result[run] = {key: x[index] for key, x in stacked.items()}
    return result
