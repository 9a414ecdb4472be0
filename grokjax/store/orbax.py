"""Folders that Orbax writes and reads, which appear whole and are checked before they are read.

Where several processes train a sweep together, Orbax sees that JAX has others and saves together with them, into one
folder for all, to which only the first process writes NumPy arrays. Here each process saves what is its own, when it
likes; so Orbax then saves in a helper process that has no others.

All arrays of a folder are saved as one, in files of its own and not in a database (OCDBT), since TensorStore keeps some
memory for each array in one that it has ever written or read; folders of earlier versions hold each array by itself, in
a database.
"""

import concurrent.futures
import contextlib
import errno
import functools
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from grokjax.core import devices
from grokjax.errors import StorageError
from grokjax.store import files

ARRAYS = "arrays"  # in the note of a folder that holds them as one: the place, shape and dtype of each, in order
PACKED = "bytes"  # Orbax's name for that one


def save_folder(path: Path, tree: Any, note: Any) -> None:
    """Lets Orbax write a folder that then appears whole.

    Args:
      path: of the folder.
      tree: of arrays, on a device or the host.
      note: JSON-serializable, kept beside them.

    Raises:
      StorageError: it cannot be written.
    """
    try:
        _try_to_save(path, tree, note)
    except StorageError as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise
        _try_to_save(path, tree, note)  # Orbax goes by the wall clock, which may have jumped


def load_folder(path: Path, like: Any) -> Any:
    """The arrays in a folder that `save_folder` has made.

    Args:
      path: of the folder.
      like: a tree of NumPy arrays with the shapes and dtypes that are expected.

    Raises:
      Damaged: it is not what was saved.
      InputError: JAX, which Orbax needs, has no device here.
    """
    devices.require()
    with files.folder(path) as local, _quiet(), _alone():
        held = files.note(local)
        try:
            if not _is_packed(held):
                return ocp.load(local.absolute(), like)
            n_bytes = sum(_n_bytes(shape, dtype) for _, shape, dtype in held[ARRAYS])
            packed = ocp.load(local.absolute(), {PACKED: np.zeros(n_bytes, np.uint8)})[PACKED]
            return _unpacked(np.asarray(packed), held[ARRAYS], like)
        except Exception as error:  # whole, so another version's or somebody else's
            raise files.Damaged(f"{path} cannot be read by Orbax ({_first_line(error)})") from error


def note(path: Path) -> Any:
    """What `save_folder` was given to keep beside the arrays; the folder's files are not checked.

    Raises:
      Damaged: it is incomplete, or the note is not what was written.
    """
    held = files.note(path)
    return held["note"] if _is_packed(held) else held


def _is_packed(held: Any) -> bool:
    return isinstance(held, dict) and held.keys() == {ARRAYS, "note"}


def _packed(tree: Any) -> tuple[np.ndarray, list[list[Any]]]:
    """The bytes of all arrays of a tree, and the place, shape and dtype of each, as JSON holds them."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    arrays = [(jax.tree_util.keystr(place), np.ascontiguousarray(x)) for place, x in named]
    packed = np.concatenate([np.empty(0, np.uint8), *(x.reshape(-1).view(np.uint8) for _, x in arrays)])
    return packed, [[place, list(np.shape(x)), x.dtype.name] for (place, _), (_, x) in zip(arrays, named, strict=True)]


def _unpacked(packed: np.ndarray, arrays: list[list[Any]], like: Any) -> Any:
    """The arrays of a tree, by their places.

    Raises:
      ValueError: one is missing, or has another shape or dtype than is expected.
    """
    start, found = 0, {}
    for place, shape, dtype in arrays:
        end = start + _n_bytes(shape, dtype)
        found[place] = packed[start:end].view(np.dtype(dtype)).reshape(shape)
        start = end

    def one(path, expected):
        x = found.get(jax.tree_util.keystr(path))
        if x is None or x.shape != expected.shape or x.dtype != expected.dtype:
            raise ValueError(f"{jax.tree_util.keystr(path)} is not there as {expected.dtype}{list(expected.shape)}")
        return x

    return jax.tree_util.tree_map_with_path(one, like)


def _n_bytes(shape: list[int], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def save(path: Path, tree: Any) -> None:
    """Saves a tree of NumPy arrays into a folder that is not there yet, given by its absolute path."""
    if jax.process_count() == 1:
        _save(path, tree)
    else:
        _helper().submit(_save_on_cpu, path, tree).result()


def _save(path: Path, tree: Any) -> None:
    context = ocp.Context()
    context.array.saving.use_ocdbt = False  # it turns specs into JSON, of which TensorStore (0.1.86) frees nothing
    with context:
        ocp.save(path, tree)


def _try_to_save(path: Path, tree: Any, note: Any) -> None:
    packed, arrays = _packed(jax.device_get(tree))
    with files.new_folder(path, {ARRAYS: arrays, "note": note}) as local, _quiet():
        try:
            save(local.absolute(), {PACKED: packed})
        except Exception as error:  # a full disk comes as one of several, from Orbax or TensorStore
            logging.getLogger("asyncio").disabled = True  # whose tasks failed for the same reason
            why = _refusal(error, path.parent) or _first_line(error)
            raise StorageError(f"{path} cannot be written ({why})") from error


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


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _alone() -> ocp.Context:
    """A context in which one process reads what the others do not."""
    context, mine = ocp.Context(), jax.process_index()
    if jax.process_count() > 1:
        context.multiprocessing.primary_host, context.multiprocessing.active_processes = mine, {mine}
        context.multiprocessing.barrier_sync_key_prefix = f"process_{mine}"
    return context


@contextlib.contextmanager
def _quiet():
    """Silences Orbax, which logs every save, warns of settings that are not a user's here, and logs what it raises."""
    _hush_latecomers()
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@functools.cache
def _hush_latecomers() -> None:
    """Silences TensorStore's threads, which tell a loop that has ended of the reads or writes that failed after one."""
    hook = sys.unraisablehook

    def told(what):
        if "Event loop is closed" not in str(what.exc_value):
            hook(what)

    sys.unraisablehook = told


@functools.cache
def _helper() -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )


def _end_with_parent() -> None:
    """Ends the helper with the process that started it; it would otherwise wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent

    def watch():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _save_on_cpu(path: Path, tree: Any) -> None:
    jax.config.update("jax_platforms", "cpu")  # the accelerator is the other process's
    _save(path, tree)
