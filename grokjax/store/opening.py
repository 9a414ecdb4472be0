"""Opened directories: a working directory that is held, mended, and known for what it holds."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from grokjax import waiting
from grokjax.core.hosts import Hosts
from grokjax.errors import InputError
from grokjax.store import recovery
from grokjax.store.ledger import Ledger
from grokjax.store.recovery import Findings
from grokjax.store.snapshots import named
from grokjax.store.sweep import load_sweep
from grokjax.store.workdir import Workdir
from grokjax.sweeps import Sweep


@contextlib.contextmanager
def opened(
    path: Path,
    sweep: Sweep,
    overwrite: bool,
    hosts: Hosts,
    tell: Callable[[str], None],
    lock: bool = True,
    extend: bool = False,
) -> Iterator[tuple[Workdir, Findings]]:
    """Opens a directory for a sweep and mends what is damaged there.

    Args:
      path: of the directory, which is made if needed.
      sweep: to be trained there.
      overwrite: throw away what another sweep left there.
      hosts: the processes that train together: the first one holds and mends it, the others look once that is done.
      tell: is told in sentences of what takes time, and of what is damaged.
      lock: whether a file system that has no locks is refused.
      extend: whether the directory may hold some of the sweep's runs only.

    Yields:
      The directory, held against other sweeps, and what was found in it, after it has been mended.

    Raises:
      InputError: the directory cannot be written, is in use, or holds something else.
      StorageError: what is damaged there cannot be mended.
    """
    workdir = _held(path, sweep, overwrite, hosts, tell, lock, extend)
    try:
        yield workdir, _found(workdir, sweep, hosts, tell)
    finally:
        workdir.close()


def _held(
    path: Path, sweep: Sweep, overwrite: bool, hosts: Hosts, tell: Callable[[str], None], lock: bool, extend: bool
) -> Workdir:
    workdir, refused = None, ""
    if hosts.is_first:
        try:
            workdir = Workdir(path, sweep, overwrite, tell=tell, lock=lock, extend=extend)
        except InputError as error:
            refused = str(error)
    refused = hosts.all_gather(refused)[0]
    if refused:
        raise InputError(refused)
    return workdir or Workdir(path, sweep, held=True)


def _found(workdir: Workdir, sweep: Sweep, hosts: Hosts, tell: Callable[[str], None]) -> Findings:
    if not workdir.is_extended:
        return mended(workdir, sweep, hosts, tell)
    # Nothing that is on disk may follow from what config.json does not tell of yet.
    mended(workdir, load_sweep(workdir.path), hosts, tell)
    return recovery.examine(workdir.path, sweep)


def mended(workdir: Workdir, sweep: Sweep, hosts: Hosts, tell: Callable[[str], None]) -> Findings:
    """Mends what is damaged in a directory; all processes call it.

    Args:
      workdir: the directory.
      sweep: that it holds.
      hosts: the processes that train together, of which the first one mends.
      tell: is told in sentences of what is damaged.

    Returns:
      What is in it then.
    """
    found = Findings(Ledger(sweep.runs))

    def examined() -> Findings:
        with waiting.busy(f"examining {workdir.path}", tell):
            return recovery.examine(workdir.path, sweep)

    if hosts.is_first and workdir.record:
        found = examined()
        for place, what in found.troubles.items():
            tell(f"note: {place} {what}; it is set aside.")
        if found.troubles and found.lost:
            tell(f"note: training {named(found.lost)} again, with the same results.")
        recovery.repair(workdir.path, found)
    hosts.barrier()
    if workdir.record and (found.changed or not hosts.is_first):
        found = examined()
    return found
