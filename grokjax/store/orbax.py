"""Folders that Orbax writes and reads, which appear whole and are checked before they are read."""

import contextlib
import errno
import functools
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from grokjax import errors
from grokjax.store import files, saver


def save_folder(path: Path, tree: Any, note: Any) -> None:
    """Lets Orbax write a folder that then appears whole, with a note."""
    try:
        _try_to_save(path, tree, note)
    except errors.StorageError as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise
        _try_to_save(path, tree, note)  # Orbax goes by the wall clock, which may have jumped


def _try_to_save(path: Path, tree: Any, note: Any) -> None:
    with files.new_folder(path, note) as local, _quiet():
        try:
            saver.save(local.absolute(), jax.device_get(tree))
        except Exception as error:  # a full disk comes as one of several, from Orbax or TensorStore
            logging.getLogger("asyncio").disabled = True  # whose tasks failed for the same reason
            why = _refusal(error, path.parent) or _first_line(error)
            raise errors.StorageError(f"{path} cannot be written ({why})") from error


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
def reading(path: Path) -> Iterator[Path]:
    """A folder that `_save` has made, checked, as a local path to read with Orbax."""
    with files.folder(path) as local, _quiet(), _alone():
        try:
            yield local
        except Exception as error:  # whole, so another version's or somebody else's
            raise files.Damaged(f"{path} cannot be read by Orbax ({_first_line(error)})") from error


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
