"""A sweep's working directory: who may write there, and what it was made from."""

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grokjax.core import environment
from grokjax.core.hosts import ALONE, Hosts
from grokjax.errors import InputError, StorageError
from grokjax.store import files, locks
from grokjax.store.records import RECORDS, read_record
from grokjax.store.sweep import described, difference, elements
from grokjax.sweeps import Sweep

OURS = (".lock", ".config.json", "..config.json")  # how the names begin of what may be there before a sweep is


class Workdir:
    """Opens a working directory for a sweep, making it if needed.

    Args:
      path: of the directory.
      sweep: what is to be trained there.
      overwrite: throw away what another sweep left there.
      held: whether another process of the same sweep holds the directory already.
      tell: is told in a sentence where opening it takes time.

    Attributes:
      record: config.json as found, or None for a new directory.
      metrics, runs, checkpoints, snapshots: where each of these lies.

    Raises:
      InputError: the directory cannot be written, is in use, holds another sweep, or holds something else.
    """

    def __init__(
        self,
        path: str | Path,
        sweep: Sweep,
        overwrite: bool = False,
        held: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ):
        self.path = files.path(path)
        self.sweep = sweep
        self.metrics, self.runs = self.path / "metrics", self.path / "runs.parquet"
        self.checkpoints, self.snapshots = self.path / "checkpoints", self.path / "snapshots"
        self._lock: locks.FileLock | locks.ObjectLock | None = None
        if held:
            self.record = read_record(self.path)
            return
        try:
            self.record = self._inspect(overwrite)
            if files.is_local(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            self._lock = locks.take(self.path, tell)
        except InputError:
            raise
        except StorageError as error:
            raise InputError(f"--workdir={self.path} cannot be used: {error}.") from None
        except OSError as error:
            raise InputError(f"--workdir={self.path} cannot be written ({error.strerror}): choose another.") from None
        except ValueError:  # a NUL in it
            raise InputError(f"--workdir={self.path} is no name of a directory: choose another.") from None
        if overwrite:
            try:
                self._clear()
            except BaseException:
                self.close()
                raise
        elif self.record and any(files.trouble(self.path / name) for name in RECORDS):
            self._write_record()

    def _inspect(self, overwrite: bool) -> dict[str, Any] | None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--workdir={self.path} is a file, but it must be a directory.")
        has_record = any((self.path / name).is_file() for name in RECORDS)
        if overwrite and has_record:
            return None
        found = read_record(self.path)
        if found is None:
            strangers = [place.name for place in files.listed(self.path) if not place.name.startswith(OURS)]
            if strangers:
                raise InputError(
                    f"--workdir={self.path} holds {strangers[0]} but no sweep: choose an empty or new directory."
                )
            return None
        differs = difference(found["runs"], described(self.sweep))
        if differs:
            raise InputError(
                f"--workdir={self.path} holds another sweep ({differs}): choose another directory, or --overwrite "
                "to start again there."
            )
        return found

    def confirm(self) -> None:
        """Makes sure that no other process has taken the directory over.

        Raises:
          StorageError: one has.
        """
        if self._lock:
            self._lock.confirm()

    def close(self) -> None:
        """Lets go of the directory, so that another sweep may use it."""
        if self._lock:
            self._lock.close()

    def _clear(self) -> None:
        # config.json goes last: without it a half-cleared directory would be a stranger's.
        for name in ("metrics", "checkpoints", "snapshots", "replay", "report"):
            files.drop(self.path / name)
        for name in ("runs.parquet", "circuit.parquet", *RECORDS):
            files.remove(self.path / name)

    def begin(
        self,
        layouts: Sequence[Mapping[str, int]],
        experiment: str | None = None,
        width: Sequence[Mapping[str, Any]] = (),
        compiler: str | None = None,
        hosts: Hosts = ALONE,
    ) -> None:
        """Writes config.json for a new sweep: what will be trained, with what, on what.

        Args:
          layouts: each group's, as it is recorded.
          experiment: the file it came from.
          width: how each layout was chosen.
          compiler: of the C++ that gradients are computed by, if they are.
          hosts: the processes that train together, of which the first one writes.
        """
        self.record = {
            "experiment": experiment,
            "config": dict(self.sweep.base),
            "axes": {path: list(values) for path, values in self.sweep.axes.items()},
            "runs": described(self.sweep),
            "groups": list(layouts),
            "width": list(width),
            **elements(self.sweep),
            "precision": self.sweep.precision,
            "native": compiler,
            **environment.environment(),
        }
        if hosts.is_first:
            self._write_record()

    def _write_record(self) -> None:
        for name in reversed(RECORDS):
            files.write_text(json.dumps(self.record, indent=1) + "\n", self.path / name)


def refuse(path: Path, sweep: Sweep, overwrite: bool) -> None:
    """Refuses what `Workdir` would refuse of a directory, but that another process holds it; nothing is written.

    Raises:
      InputError: as for `Workdir`.
    """
    workdir = Workdir.__new__(Workdir)
    workdir.path, workdir.sweep = path, sweep
    try:
        workdir._inspect(overwrite)
        if files.is_local(path):
            _refuse_unwritable(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"--workdir={path} cannot be written ({error.strerror}): choose another.") from None
    except StorageError as error:
        raise InputError(f"--workdir={path} cannot be used: {error}.") from None
    except ValueError:  # a NUL in it
        raise InputError(f"--workdir={path} is no name of a directory: choose another.") from None


def _refuse_unwritable(path: Path) -> None:
    """Raises an OSError where nothing may be made in a folder, or in the first above it that is there."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
