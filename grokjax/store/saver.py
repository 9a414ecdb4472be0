"""Orbax in a process of its own, for sweeps that several processes train together.

Orbax sees that JAX has other processes and saves together with them, into one folder for all, to which only the first
process writes NumPy arrays. Here each process saves what is its own, when it likes; so Orbax runs in a helper that has
no other processes.
"""

import concurrent.futures
import functools
import multiprocessing
import multiprocessing.connection
import os
import threading
from pathlib import Path
from typing import Any


def save(path: Path, tree: Any) -> None:
    """Saves arrays as Orbax does.

    Args:
      path: of the folder to make; absolute.
      tree: of NumPy arrays.
    """
    import jax

    if jax.process_count() == 1:
        _save(path, tree)
    else:
        _helper().submit(_save_alone, path, tree).result()


@functools.cache
def _helper() -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )


def _end_with_parent() -> None:
    """A helper whose process was killed would otherwise wait for work for ever."""

    parent = multiprocessing.parent_process()
    assert parent

    def watch():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _save_alone(path: Path, tree: Any) -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")  # the accelerator is the other process's
    _save(path, tree)


def _save(path: Path, tree: Any) -> None:
    from orbax.checkpoint import v1 as ocp

    ocp.save(path, tree)
